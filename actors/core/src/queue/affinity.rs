//! The calls of a session together: while one of a session ran last in a lane, a due job of it goes before the others
//! of its class, so often in a row at most. Between two classes and between the users who take turns nothing changes:
//! a job that goes so uses up its user's turn as any other, ahead of its time where it must.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::model::{JobEntry, Seq, SessionTag};

use super::index::Index;
use super::place::{Class, Rule};

/// Jobs of a lane that are remembered as taken: those that may yet be put back.
const REMEMBERED: usize = 512;

/// A due job among those of its session, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Together {
    session: SessionTag,
    rank: Reverse<i64>,
    seq: Seq,
}

impl Together {
    /// Its place; `None`: it is of no session, or its lane keeps none together.
    pub(super) fn of<N>(rule: Rule, entry: &JobEntry<N>) -> Option<Self> {
        let session = entry.session.filter(|_| rule.keeps_together())?;
        Some(Self {
            session,
            rank: Reverse(rule.rank(entry)),
            seq: entry.seq,
        })
    }
}

/// The session that ran last, and how often in a row since one of its jobs was chosen by the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    session: SessionTag,
    times: u32,
}

/// A job that was taken.
#[derive(Debug, Clone)]
struct Taken {
    seq: Seq,
    run: Option<Run>,
    is_together: bool,
}

/// What went last in each lane. Nothing of it outlives the process: a restart begins anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(BTreeMap<u32, VecDeque<Taken>>);

impl Runs {
    /// What runs on in a lane.
    pub(super) fn of(&self, lane: u32) -> Option<Run> {
        self.0.get(&lane)?.back()?.run
    }

    /// A job was taken, since it is of the session that ran last or as the order has it.
    pub(super) fn took<N>(&mut self, lane: u32, entry: &JobEntry<N>, is_together: bool) {
        let run = next_run(self.of(lane), entry, is_together);
        let taken = self.0.entry(lane).or_default();
        if taken.len() >= REMEMBERED {
            taken.pop_front();
        }
        taken.push_back(Taken {
            seq: entry.seq,
            run,
            is_together,
        });
    }

    /// A job that was taken did not run. Tells whether it was taken before its turn.
    pub(super) fn gave_back(&mut self, seq: Seq) -> bool {
        let found = self.0.values_mut().find_map(|taken| {
            let at = taken.iter().rposition(|taken| taken.seq == seq)?;
            taken.remove(at)
        });
        found.is_some_and(|taken| taken.is_together)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn next_run<N>(before: Option<Run>, entry: &JobEntry<N>, is_together: bool) -> Option<Run> {
    let times = before
        .filter(|_| is_together)
        .map_or(0, |run| run.times + 1);
    entry.session.map(|session| Run { session, times })
}

impl Index {
    /// The first due job of a class that keeps a run going, of those that `waits` says still wait; `from`: before it
    /// none does in a lane of this affinity.
    pub(super) fn next_of(
        &self,
        models: &BTreeSet<Arc<str>>,
        class: Class,
        run: Option<Run>,
        from: impl Fn(u32) -> Seq,
        waits: impl Fn(Seq) -> bool,
    ) -> Option<Seq> {
        let run = run?;
        let rank = Reverse(class.rank);
        let first = |rule: Rule, together: &BTreeSet<Together>| {
            let first = Together {
                session: run.session,
                rank,
                seq: from(rule.order.affinity),
            };
            let of_class = |next: &&Together| next.session == run.session && next.rank == rank;
            let next = together.range(first..).take_while(of_class);
            next.map(|next| next.seq).find(|seq| waits(*seq))
        };
        self.together(models)
            .filter(|(rule, _)| rule.order.ageing_ms == class.ageing_ms)
            .filter(|(rule, _)| rule.order.affinity > run.times)
            .filter_map(|(rule, together)| first(rule, together))
            .min()
    }
}

/// The same of a lane whose order is told without taking any job.
#[derive(Debug)]
pub(super) struct Told {
    run: Option<Run>,
    /// Jobs of the class that were told before their turn.
    ahead: BTreeSet<Seq>,
    /// The last of each session that was, for each affinity that let it: no job of a lane with that affinity is left
    /// before it.
    from: HashMap<(SessionTag, u32), Seq>,
}

impl Told {
    pub(super) fn new(run: Option<Run>) -> Self {
        Self {
            run,
            ahead: BTreeSet::new(),
            from: HashMap::new(),
        }
    }

    /// The next class is told.
    pub(super) fn next_class(&mut self) {
        self.ahead.clear();
        self.from.clear();
    }

    /// Whether a job was told before its turn.
    pub(super) fn has(&self, seq: Seq) -> bool {
        self.ahead.contains(&seq)
    }

    /// The job that keeps the run going, of those that `waits` says are not told yet.
    pub(super) fn next(
        &mut self,
        index: &Index,
        models: &BTreeSet<Arc<str>>,
        class: Class,
        waits: impl Fn(Seq) -> bool,
    ) -> Option<Seq> {
        let Run { session, times } = self.run?;
        let from = |affinity| self.from.get(&(session, affinity)).copied();
        let from = |affinity| from(affinity).unwrap_or_default();
        let waits = |seq| !self.ahead.contains(&seq) && waits(seq);
        let seq = index.next_of(models, class, self.run, from, waits)?;
        self.ahead.insert(seq);
        let affinities = index.together(models).map(|(rule, _)| rule.order.affinity);
        for affinity in affinities.filter(|affinity| *affinity > times) {
            self.from.insert((session, affinity), seq);
        }
        Some(seq)
    }

    /// A job was told.
    pub(super) fn tell<N>(&mut self, entry: &JobEntry<N>, is_together: bool) {
        self.run = next_run(self.run, entry, is_together);
    }
}
