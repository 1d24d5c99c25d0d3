//! What calls came to: what is sure of them, and what is not.

use crate::model::{CallOutcome, CallRecord};

/// Calls and their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) calls: u64,
    pub(super) tokens: u64,
}

impl Sum {
    pub(super) const fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.tokens = self.tokens.saturating_add(other.tokens);
    }
}

/// Calls of which it is not sure what they came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Unsure {
    pub(super) calls: u64,
    /// What our books have for them.
    pub(super) booked: Sum,
    /// What they may come to at most; without bound where nothing was reserved for one.
    pub(super) most: u64,
}

impl Unsure {
    pub(super) fn of(booked: Sum, reserved: Option<u64>) -> Self {
        Self {
            calls: 1,
            booked,
            most: reserved.map_or(u64::MAX, |reserved| reserved.max(booked.tokens)),
        }
    }

    pub(super) const fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.booked.add(other.booked);
        self.most = self.most.saturating_add(other.most);
    }

    /// So much of a difference it may make.
    pub(super) fn within(&self, difference: i128) -> i128 {
        let booked = i128::from(self.booked.tokens);
        difference.clamp(-booked, i128::from(self.most) - booked)
    }
}

/// What some calls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cell {
    pub(super) sure: Sum,
    pub(super) doubt: Unsure,
    pub(super) untold: Unsure,
}

impl Cell {
    pub(super) const fn add(&mut self, other: &Self) {
        self.sure.add(other.sure);
        self.doubt.add(&other.doubt);
        self.untold.add(&other.untold);
    }

    pub(super) const fn booked(&self) -> Sum {
        let mut sum = self.sure;
        sum.add(self.doubt.booked);
        sum.add(self.untold.booked);
        sum
    }

    /// What a call of the log came to; `None`: nothing, it was refused.
    pub(super) fn of(call: &CallRecord) -> Option<Self> {
        let usage = &call.usage;
        let parts = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let told = usage.total_tokens.max(parts);
        let reserved = call.reserved.map(|reserve| reserve.tokens);
        let sum = |calls, tokens| Sum { calls, tokens };
        let mut cell = Self::default();
        if call.maybe_billed {
            let found = call.billing.as_ref().filter(|billing| billing.billed);
            let booked = found.map_or(sum(0, told), |found| sum(1, found.usage.total_tokens));
            cell.doubt = Unsure::of(booked, reserved);
        } else if told > 0 && !usage.estimated && !usage.contradictory {
            cell.sure = sum(1, told);
        } else if told > 0 || call.outcome == CallOutcome::Completed {
            cell.untold = Unsure::of(sum(1, told), reserved);
        } else {
            return None;
        }
        Some(cell)
    }
}
