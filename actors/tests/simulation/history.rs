//! Which settings were in force when, and what operators were doing: between the asking and the answer
//! either may count.

use std::sync::Arc;

use onelane_core::model::{HoldScope, JobId, Settings, Timestamp};

use crate::gate::SENDING_MS;

struct Span {
    from: Timestamp,
    until: Option<Timestamp>,
    settings: Arc<Settings>,
}

/// What an operator did that ends holds, or a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Everything is resumed.
    Resume,
    /// One hold is released.
    Release(HoldScope),
    /// The settings were changed.
    Configure,
    /// A job is given up.
    Cancel(JobId),
}

/// The settings of a world over time.
#[derive(Default)]
pub(crate) struct History {
    spans: Vec<Span>,
    acts: Vec<(Act, Option<Timestamp>)>,
    recovered: Option<Timestamp>,
    /// When a lane knew that the disk had no room.
    no_room: Vec<(Timestamp, Timestamp)>,
    /// When something came to disk last.
    stored: Option<Timestamp>,
}

/// How long after a change the disk may fail before the change is there, in milliseconds.
const AGAIN_MS: u64 = 30_000;

impl History {
    /// From now on these settings may be in force.
    pub(crate) fn set(&mut self, settings: Arc<Settings>, now: Timestamp) {
        self.spans.push(Span {
            from: now,
            until: None,
            settings,
        });
    }

    /// Only the latest settings are in force from now on.
    pub(crate) fn confirmed(&mut self, now: Timestamp) {
        let before = self.spans.len().saturating_sub(1);
        for span in &mut self.spans[..before] {
            span.until.get_or_insert(now);
        }
    }

    /// All that may have been in force at some moment between these two.
    pub(crate) fn between(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = &Arc<Settings>> {
        self.spans
            .iter()
            .filter(move |s| s.from <= to && s.until.is_none_or(|until| until >= from))
            .map(|span| &span.settings)
    }

    /// The settings, if they were the same at every moment from then on.
    pub(crate) fn steady_since(&self, from: Timestamp) -> Option<&Arc<Settings>> {
        let mut spans = self.spans.iter().rev();
        let last = spans.next()?;
        let steady = spans.next().is_none_or(|before| {
            before.until.is_some_and(|until| until < from) && last.from <= from
        });
        steady.then_some(&last.settings)
    }

    /// The latest.
    pub(crate) fn latest(&self) -> &Arc<Settings> {
        &self.spans.last().expect("a world has settings").settings
    }

    /// The disk was read whole.
    pub(crate) fn recovered(&mut self, now: Timestamp) {
        self.recovered = Some(now);
    }

    /// The disk had no room, as far as a lane knew, between these two.
    pub(crate) fn had_no_room(&mut self, since: Timestamp, until: Timestamp) {
        self.no_room.push((since, until));
    }

    /// When what was done at this moment could come to disk.
    fn room_after(&self, done: Timestamp) -> Timestamp {
        // One that ends may be followed by the next before anything has come to disk.
        self.no_room.iter().fold(done, |at, (since, until)| {
            let is_within = since.minus_ms(SENDING_MS) <= at && at <= *until;
            if is_within { *until } else { at }
        })
    }

    /// Whether what was decided at this moment had to wait for room.
    pub(crate) fn waited_for_room(&self, decided: Timestamp) -> bool {
        self.room_after(decided) > decided
    }

    /// Since when what comes to disk now may be decided.
    pub(crate) fn decided_since(&self, now: Timestamp) -> Timestamp {
        let sent = now.minus_ms(SENDING_MS);
        let stalls = self.no_room.iter().rev();
        stalls.fold(sent, |at, (since, until)| match *until >= at {
            true => at.min(since.minus_ms(SENDING_MS)),
            false => at,
        })
    }

    /// An operator begins to do something.
    pub(crate) fn acts(&mut self, act: Act) -> usize {
        self.acts.push((act, None));
        self.acts.len() - 1
    }

    /// The client has the answer.
    pub(crate) fn acted(&mut self, act: usize, now: Timestamp) {
        if let Some(act) = self.acts.get_mut(act) {
            act.1 = Some(now);
        }
    }

    /// Whether an operator was doing something like this just now.
    pub(crate) fn is_done_by_hand(&self, which: impl Fn(&Act) -> bool, now: Timestamp) -> bool {
        let mut acts = self.acts.iter();
        // The answer to a change of the settings does not wait for the disk, and where the disk failed
        // the lane acts on the change again when it has been read.
        let again = |done: Timestamp| self.recovered.filter(|at| at.since(done) < AGAIN_MS);
        let lately = |done: Timestamp| {
            let there = self.room_after(done).max(again(done).unwrap_or(done));
            // What was read and acted on again may have found the disk full.
            self.room_after(there).plus_ms(SENDING_MS) >= now
        };
        acts.any(|(act, done)| done.is_none_or(lately) && which(act))
    }

    /// Something came to disk.
    pub(crate) fn stored(&mut self, now: Timestamp) {
        self.stored = Some(now);
    }

    /// Whether a change of the settings may not have come to disk in the life of a process that ends: its lane may have
    /// given up long before it.
    pub(crate) fn may_lack_a_change(&self, now: Timestamp) -> bool {
        let until = self.stored.unwrap_or(now);
        self.is_done_by_hand(|act| *act == Act::Configure, until)
    }

    /// The process has ended: what was asked of it and not answered will not be done any more.
    pub(crate) fn process_over(&mut self, now: Timestamp) {
        self.acts.clear();
        self.confirmed(now);
    }
}
