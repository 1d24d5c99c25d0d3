//! A line of many jobs at once: one look at each, in the order of their places. What they share is looked at once for all
//! of them, and sorted sets are built whole: one that is filled in order, one at a time, stays half empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::affinity::Together;
use super::place::Rule;
use super::ready::{Key, Word};
use super::{Queue, Waits, waits};
use crate::model::{JobEntry, PriorityClass, Standing, Timestamp, WaitingJobs};

/// What decides about jobs that share a model, a user, a batch and a client key.
#[derive(Debug, Clone, Copy, Default)]
struct Shared {
    rule: Rule,
    /// The number of who takes turns for them.
    user: u64,
    /// The number of their model.
    model: usize,
    out_of_scope: bool,
}

/// The due jobs of a model.
#[derive(Debug, Default)]
struct Due {
    words: Vec<(Word, u64)>,
    together: Vec<Together>,
}

/// What is found of the jobs of one block.
#[derive(Debug, Default)]
struct Block {
    number: u64,
    /// Bits of words, with the number of the model.
    words: Vec<(usize, Word, u64)>,
    /// Since when the oldest of each class could have run.
    oldest: [Option<Timestamp>; PriorityClass::ALL.len()],
}

/// Gives the jobs of a line their places.
pub(super) fn fill(line: &mut Queue) {
    let now = line.now;
    let mut entries = std::mem::take(&mut line.entries);
    entries.mind_the_clock(now);
    let (shared, models) = shared(line, &mut entries);
    let mut due_by_model: Vec<Due> = models.iter().map(|_| Due::default()).collect();
    let mut ready_since: [Vec<(Timestamp, u64)>; PriorityClass::ALL.len()] = Default::default();
    let (mut due, mut deadlines) = (Vec::new(), Vec::new());
    let mut priority: Option<(i32, u64)> = None;
    let mut block = Block::default();
    entries.each(|kind, mut entry| {
        let number = WaitingJobs::block_of(entry.seq);
        if number != block.number {
            block.close(&mut due_by_model, &mut ready_since);
            block.number = number;
        }
        let of = shared.get(kind).copied().unwrap_or_default();
        entry.out_of_scope = of.out_of_scope;
        let waits = waits(&entry, now);
        match waits {
            Waits::ForAWord => line.falls_asleep(&entry),
            Waits::Until(at) => {
                line.scheduled += usize::from(entry.is_scheduled());
                due.push((at, entry.seq));
            }
            Waits::ForASlot => {
                block.add(of, &entry);
                let together = Together::of(of.rule, &entry);
                if let Some((together, due)) = together.zip(due_by_model.get_mut(of.model)) {
                    due.together.push(together);
                }
            }
        }
        line.classes.enter(entry.priority);
        deadlines.extend(entry.deadline.map(|at| (at, entry.seq)));
        match &mut priority {
            Some((same, jobs)) if *same == entry.priority => *jobs += 1,
            other => {
                if let Some((priority, jobs)) = other.replace((entry.priority, 1)) {
                    line.priorities.came(priority, jobs);
                }
            }
        }
        Standing {
            ready: matches!(waits, Waits::ForASlot),
            out_of_scope: entry.out_of_scope,
        }
    });
    block.close(&mut due_by_model, &mut ready_since);
    if let Some((priority, jobs)) = priority {
        line.priorities.came(priority, jobs);
    }
    for (model, due) in models.iter().zip(due_by_model) {
        line.ready.fill(model, due.words, due.together);
    }
    for (class, ready_since) in PriorityClass::ALL.into_iter().zip(ready_since) {
        line.classes.fill(class, ready_since);
    }
    line.due = due.into_iter().collect();
    line.deadlines = deadlines.into_iter().collect();
    line.entries = entries;
}

/// What decides about the jobs of each kind, by its number, and the models by theirs.
fn shared(line: &mut Queue, entries: &mut WaitingJobs) -> (Vec<Shared>, Vec<Arc<str>>) {
    let mut all = Vec::new();
    let mut numbers: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut models = Vec::new();
    for (number, kind) in entries.each_kind() {
        let rule = line.ready.enter(kind.model, kind.jobs, &line.rules);
        let user = line.users.enter(kind.user_id, kind.key, kind.jobs);
        let model = *numbers.entry(Arc::clone(kind.model)).or_insert_with(|| {
            models.push(Arc::clone(kind.model));
            models.len() - 1
        });
        all.resize(number + 1, Shared::default());
        if let Some(shared) = all.get_mut(number) {
            *shared = Shared {
                rule,
                user,
                model,
                out_of_scope: !line.scope.has(kind.batch_id),
            };
        }
    }
    (all, models)
}

impl Block {
    /// A job of it is due.
    fn add<N>(&mut self, of: Shared, entry: &JobEntry<N>) {
        let (word, bit) = Key::of(of.rule, entry, of.user).parted();
        let is_its =
            |(model, other, _): &&mut (usize, Word, u64)| (*model, *other) == (of.model, word);
        match self.words.iter_mut().find(is_its) {
            Some((_, _, bits)) => *bits |= bit,
            None => self.words.push((of.model, word, bit)),
        }
        if let Some(oldest) = self
            .oldest
            .get_mut(PriorityClass::of(entry.priority) as usize)
        {
            let since = oldest.map_or(entry.since, |oldest| oldest.min(entry.since));
            *oldest = Some(since);
        }
    }

    /// What was found goes where it belongs.
    fn close(&mut self, due: &mut [Due], ready_since: &mut [Vec<(Timestamp, u64)>]) {
        for (model, word, bits) in self.words.drain(..) {
            if let Some(due) = due.get_mut(model) {
                due.words.push((word, bits));
            }
        }
        for (oldest, ready_since) in self.oldest.iter_mut().zip(ready_since) {
            ready_since.extend(oldest.take().map(|since| (since, self.number)));
        }
    }
}
