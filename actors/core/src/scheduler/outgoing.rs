//! What a step leaves to be done: calls to make or to close, and changes to store in one transaction.

use super::Effect;
use crate::model::Transition;

/// Effects that are gathered until the step ends, and commits that the store has not answered.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    effects: Vec<Effect>,
    changes: Vec<Transition>,
    /// Of the commit that is being gathered.
    ticket: u64,
    unanswered: usize,
    /// The last commit that the store has answered. It answers them in their order.
    answered: u64,
}

impl Outgoing {
    /// Writes what is under way; commits by how long ago they were asked for.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn imprint(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self {
            effects,
            changes,
            ticket,
            unanswered,
            answered,
        } = self;
        write!(
            to,
            "{effects:?}{changes:?}{unanswered}/{}",
            ticket - answered
        )
    }

    pub(super) const fn new() -> Self {
        Self {
            effects: Vec::new(),
            changes: Vec::new(),
            ticket: 1,
            unanswered: 0,
            answered: 0,
        }
    }

    /// Does this before anything is stored.
    pub(super) fn act(&mut self, effects: impl IntoIterator<Item = Effect>) {
        self.effects.extend(effects);
    }

    /// Stores this with the other changes of the step.
    pub(super) fn store(&mut self, change: Transition) {
        self.changes.push(change);
    }

    /// As `store`, before all of them.
    pub(super) fn store_first(&mut self, change: Transition) {
        self.changes.insert(0, change);
    }

    /// The ticket of the commit that this step's changes go with.
    pub(super) const fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether the step stores the end of an attempt.
    pub(super) fn is_settling(&self) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| matches!(change, Transition::Settle(_)))
    }

    /// The store has answered a commit.
    pub(super) fn answered(&mut self, ticket: u64) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answered = self.answered.max(ticket);
    }

    /// Whether something that went with this commit is on disk.
    pub(super) fn has_answered(&self, ticket: Option<u64>) -> bool {
        ticket.is_some_and(|ticket| ticket <= self.answered)
    }

    /// Whether the store has answered every commit.
    pub(super) const fn is_stored(&self) -> bool {
        self.unanswered == 0
    }

    /// The step ends: all of it, the commit last.
    pub(super) fn hand_out(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        if !self.changes.is_empty() {
            effects.push(Effect::Commit {
                ticket: self.ticket,
                transitions: std::mem::take(&mut self.changes),
            });
            self.ticket += 1;
            self.unanswered += 1;
        }
        effects
    }
}
