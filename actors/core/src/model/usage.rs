//! Tokens of one call, and the aggregates of many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Billing, CallOutcome, CallRecord, Currency, Day, FailureClass, Histogram, KeyId, Moments,
    Nanos, Speed,
};

/// Tokens as GLM reports them. Cached tokens are inside the prompt's, reasoning inside the
/// completion's. Details that GLM leaves out count as 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub completion_tokens: u64,
    /// What GLM states as the total.
    pub total_tokens: u64,
    /// The part of the prompt that came from GLM's cache.
    pub cached_tokens: u64,
    /// The part of the completion that was reasoning.
    pub reasoning_tokens: u64,
    /// GLM's counts contradict each other: these are the larger reading, or a total alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contradictory: bool,
    /// Counted here, from the prompt and from what was delivered: the answer ended before GLM told its counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

impl Usage {
    /// Whether GLM reported any tokens.
    #[must_use]
    pub const fn is_reported(&self) -> bool {
        self.prompt_tokens > 0 || self.completion_tokens > 0 || self.total_tokens > 0
    }

    /// Whether a cost can be worked out of it. A total alone says not which price counts, and is all that
    /// is kept of a report that leaves one side open: nothing is charged as 0 for not being stated.
    #[must_use]
    pub const fn is_chargeable(&self) -> bool {
        self.prompt_tokens > 0 || self.completion_tokens > 0
    }

    /// Adds another call's tokens. Sums are of what a server states, so they saturate.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.prompt_tokens, other.prompt_tokens);
        sum(&mut self.completion_tokens, other.completion_tokens);
        sum(&mut self.total_tokens, other.total_tokens);
        sum(&mut self.cached_tokens, other.cached_tokens);
        sum(&mut self.reasoning_tokens, other.reasoning_tokens);
        self.contradictory |= other.contradictory;
        self.estimated |= other.estimated;
    }
}

/// What the aggregates are kept by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageKey {
    /// The day that the call is booked on, of the calendar that was in force.
    pub day: Day,
    /// The model that was called.
    pub model: String,
    /// The user whose job it was.
    pub user_id: String,
    /// The client key by which the job was handed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
}

impl UsageKey {
    /// The row that a call belongs to.
    #[must_use]
    pub fn of(call: &CallRecord) -> Self {
        Self {
            day: call.day(),
            model: call.model.clone(),
            user_id: call.user_id.clone(),
            key_id: call.key_id,
        }
    }
}

/// One aggregate of the call log: day x model x user. It equals the sum over its rows exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// What the row is about.
    #[serde(flatten)]
    pub key: UsageKey,
    /// Attempts that ended, whichever way.
    pub calls: u64,
    /// Attempts that brought an answer.
    pub successes: u64,
    /// Attempts that did not: failed or interrupted.
    pub failures: u64,
    /// Attempts that somebody gave up: no failures of GLM's.
    #[serde(default)]
    pub cancelled: u64,
    /// Sums of the tokens.
    pub usage: Usage,
    /// Sum of the costs, by currency.
    pub cost: BTreeMap<Currency, Nanos>,
    /// What budgets take those answers for that came without their tokens: what was reserved for them. In
    /// no other sum.
    #[serde(default, skip_serializing_if = "Assumed::is_nothing")]
    pub assumed: Assumed,
    /// Calls that were billed at a cost that is not known (no price, or no usage): unknown is not 0.
    pub unpriced_calls: u64,
    /// Sum of the response times of the successes, in milliseconds.
    pub response_time_ms: u64,
    /// Those response times, to tell percentiles from.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub response_times: Histogram,
    /// The times to the first token of the streamed ones, to tell percentiles from.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub first_tokens: Histogram,
    /// How fast the answers came.
    #[serde(default, skip_serializing_if = "Speed::is_nothing")]
    pub speed: Speed,
    /// The completion tokens of the answers, for forecasts.
    #[serde(default, skip_serializing_if = "Moments::is_nothing")]
    pub answer_tokens: Moments,
    /// Their response times, for forecasts.
    #[serde(default, skip_serializing_if = "Moments::is_nothing")]
    pub answer_times: Moments,
    /// The failures by class; what was cancelled has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failure_classes: BTreeMap<FailureClass, u64>,
}

/// What was reserved for calls of which nobody will know what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assumed {
    /// Sum of the tokens.
    pub tokens: u64,
    /// Sum of the costs, by currency.
    pub cost: BTreeMap<Currency, Nanos>,
}

impl Assumed {
    /// Whether there were none.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, tokens: u64, cost: impl IntoIterator<Item = (Currency, Nanos)>) {
        self.tokens = self.tokens.saturating_add(tokens);
        for (currency, nanos) in cost {
            let sum = self.cost.entry(currency).or_default();
            *sum = sum.saturating_add(nanos);
        }
    }
}

impl UsageRow {
    /// What budgets in this currency count of it.
    #[must_use]
    pub fn budgeted(&self, currency: Currency) -> Nanos {
        let of = |sums: &BTreeMap<Currency, Nanos>| sums.get(&currency).copied().unwrap_or(0);
        of(&self.cost).saturating_add(of(&self.assumed.cost))
    }

    /// What budgets in tokens count of it.
    #[must_use]
    pub const fn budgeted_tokens(&self) -> u64 {
        self.usage.total_tokens.saturating_add(self.assumed.tokens)
    }

    /// A row without calls.
    #[must_use]
    pub fn empty(key: UsageKey) -> Self {
        Self {
            key,
            calls: 0,
            successes: 0,
            failures: 0,
            cancelled: 0,
            usage: Usage::default(),
            cost: BTreeMap::new(),
            assumed: Assumed::default(),
            unpriced_calls: 0,
            response_time_ms: 0,
            response_times: Histogram::default(),
            first_tokens: Histogram::default(),
            speed: Speed::default(),
            answer_tokens: Moments::default(),
            answer_times: Moments::default(),
            failure_classes: BTreeMap::new(),
        }
    }

    /// Adds all that another row has summed up, whatever it is about.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.successes += other.successes;
        self.failures += other.failures;
        self.cancelled += other.cancelled;
        self.usage.add(&other.usage);
        for (currency, nanos) in &other.cost {
            let sum = self.cost.entry(*currency).or_default();
            *sum = sum.saturating_add(*nanos);
        }
        let costs = other
            .assumed
            .cost
            .iter()
            .map(|(currency, nanos)| (*currency, *nanos));
        self.assumed.add(other.assumed.tokens, costs);
        self.unpriced_calls += other.unpriced_calls;
        self.response_time_ms = self.response_time_ms.saturating_add(other.response_time_ms);
        self.response_times.merge(&other.response_times);
        self.first_tokens.merge(&other.first_tokens);
        self.speed.add(other.speed);
        self.answer_tokens.merge(&other.answer_tokens);
        self.answer_times.merge(&other.answer_times);
        for (class, count) in &other.failure_classes {
            *self.failure_classes.entry(*class).or_default() += count;
        }
    }

    /// Adds what was found out about a call that is in the sums already.
    pub fn resolve(&mut self, billing: &Billing) {
        if !billing.billed {
            return;
        }
        self.usage.add(&billing.usage);
        match billing.cost {
            Some(cost) => {
                let sum = self.cost.entry(cost.currency).or_default();
                *sum = sum.saturating_add(cost.nanos);
            }
            None => self.unpriced_calls += 1,
        }
    }

    /// Adds one call to the sums.
    pub fn add(&mut self, call: &CallRecord) {
        self.calls += 1;
        if call.outcome == CallOutcome::Completed {
            self.successes += 1;
            self.response_time_ms = self.response_time_ms.saturating_add(call.response_time_ms);
            self.response_times.record(call.response_time_ms);
            if let Some(ms) = call.parts.first_token_ms {
                self.first_tokens.record(ms);
            }
            self.speed.add(call.speed().unwrap_or_default());
            self.answer_times.record(call.response_time_ms);
            if call.usage.total_tokens > 0 {
                self.answer_tokens.record(call.usage.completion_tokens);
            }
        } else if call.outcome == CallOutcome::Cancelled {
            self.cancelled += 1;
        } else {
            self.failures += 1;
            if let Some(failure) = &call.failure {
                *self.failure_classes.entry(failure.class).or_default() += 1;
            }
        }
        self.usage.add(&call.usage);
        match call.cost {
            Some(cost) => {
                let sum = self.cost.entry(cost.currency).or_default();
                *sum = sum.saturating_add(cost.nanos);
            }
            None if call.is_unpriced() => self.unpriced_calls += 1,
            None => {}
        }
        if let Some(assumed) = call.assumed() {
            let cost = assumed.cost.map(|cost| (cost.currency, cost.nanos));
            self.assumed.add(assumed.tokens, cost);
        }
        if let Some(billing) = &call.billing {
            self.resolve(billing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;

    #[test]
    fn a_cancelled_call_is_no_failure() {
        let outcomes = [
            CallOutcome::Completed,
            CallOutcome::Cancelled,
            CallOutcome::Failed,
            CallOutcome::Interrupted,
        ];
        let mut row = UsageRow::empty(UsageKey::of(&sample::call(1, 1, CallOutcome::Failed)));
        for outcome in outcomes {
            row.add(&sample::call(1, 1, outcome));
        }
        assert_eq!((row.calls, row.successes), (4, 1));
        assert_eq!((row.failures, row.cancelled), (2, 1));
        assert_eq!(row.failure_classes.values().sum::<u64>(), 2);
    }
}
