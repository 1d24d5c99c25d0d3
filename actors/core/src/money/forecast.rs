//! What is still to come, learnt from what has come: the cost and the end of a batch by the lines of it that have
//! ended. No shape is assumed of the values, only that those to come are of the same kind.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{Batch, Cost, Currency, Moments, Nanos, Timestamp, amount};

/// Fewer ended jobs tell too little of how far apart they lie.
pub const LEARNT_FROM_MIN: u64 = 20;
/// Four of five normal deviates lie within this many ten thousandths of a standard deviation.
const FOUR_OF_FIVE: u128 = 12_816;

/// What a sum will be: as expected, and between which bounds in four of five cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// One of ten is lower.
    pub low: u64,
    /// The mean.
    pub expected: u64,
    /// One of ten is higher.
    pub high: u64,
}

/// What `left` more values come to, of which `known` are the first; `None` where too few are known.
///
/// Two things are uncertain: how the values to come turn out, and whether the mean of the known ones is the true one.
#[must_use]
pub fn rest(known: &Moments, left: u64) -> Option<Range> {
    if known.count < LEARNT_FROM_MIN {
        return None;
    }
    let (count, left) = (u128::from(known.count), u128::from(left));
    let expected = u128::from(known.sum).saturating_mul(left) / count;
    // left * variance of those to come, and left² * variance / count of the mean.
    let variance = known.variance()?;
    let of_all = variance.saturating_mul(left.saturating_add(left.saturating_mul(left) / count));
    Some(Range::around(expected, of_all))
}

impl Range {
    fn around(expected: u128, variance: u128) -> Self {
        let away = variance.isqrt().saturating_mul(FOUR_OF_FIVE) / 10_000;
        let whole = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            low: whole(expected.saturating_sub(away)),
            expected: whole(expected),
            high: whole(expected.saturating_add(away)),
        }
    }
}

/// The sum of values of several kinds, each expected by what is known of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    expected: u64,
    /// How each turns out by itself: variances add up.
    apart: u128,
    /// How far the means are off, for all of a kind alike: deviations add up.
    together: u64,
}

impl Sum {
    /// Adds a value of a kind of which so many are known, and how far they lie apart.
    pub const fn add(&mut self, expected: u64, deviation: u64, known: u64) {
        self.expected = self.expected.saturating_add(expected);
        let variance = (deviation as u128).saturating_mul(deviation as u128);
        self.apart = self.apart.saturating_add(variance);
        let of_mean = match deviation.checked_div(known.isqrt()) {
            Some(of_mean) => of_mean,
            None => deviation,
        };
        self.together = self.together.saturating_add(of_mean);
    }

    /// What it will be.
    #[must_use]
    pub fn range(&self) -> Range {
        let together = u128::from(self.together);
        let variance = self.apart.saturating_add(together.saturating_mul(together));
        Range::around(u128::from(self.expected), variance)
    }
}

/// What a batch comes to in the end and when that will be, while some of its jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Its calls that this was learnt from.
    pub learnt_from: u64,
    /// What all of it costs, what was spent included; not known where costs are not.
    pub cost: Option<CostForecast>,
    /// When its last job ends, if the lane runs it without a pause and nothing else comes before it.
    pub end: EndForecast,
}

/// A cost in the end, and between which bounds it will be in four of five cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostForecast {
    /// What it is counted in.
    pub currency: Currency,
    /// One of ten such batches costs less.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub low: Nanos,
    /// The mean.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub expected: Nanos,
    /// One of ten costs more.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub high: Nanos,
}

/// A moment, and between which it will be in four of five cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndForecast {
    /// One of ten such batches ends earlier.
    pub low: Timestamp,
    /// The mean.
    pub expected: Timestamp,
    /// One of ten ends later.
    pub high: Timestamp,
}

impl Forecast {
    /// Of a batch at `now` whose calls take turns on so many slots. `None`: nothing of it is left, or too little of
    /// it has ended.
    #[must_use]
    pub fn of(batch: &Batch, slots: u16, now: Timestamp) -> Option<Self> {
        let left = batch.unfinished();
        let ended = batch.worked_off();
        if left == 0 || ended < LEARNT_FROM_MIN {
            return None;
        }
        let calls = &batch.learnt.times;
        // A job may take more calls than one, now as before.
        let calls_left = scaled(left, calls.count, ended);
        let slots = u64::from(slots.max(1));
        let takes = rest(calls, calls_left)?;
        let at = |ms: u64| now.plus_ms(ms / slots);
        Some(Self {
            learnt_from: calls.count,
            cost: batch.cost_forecast(left, ended),
            end: EndForecast {
                low: at(takes.low),
                expected: at(takes.expected),
                high: at(takes.high),
            },
        })
    }
}

/// `left` in the proportion of `of` to `whole`.
fn scaled(left: u64, of: u64, whole: u64) -> u64 {
    let scaled = u128::from(left) * u128::from(of) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

impl Batch {
    /// Nothing is said where its calls were paid in several currencies, or some of them nobody knows.
    fn cost_forecast(&self, left: u64, ended: u64) -> Option<CostForecast> {
        let [spent] = self.costs.as_slice() else {
            return None;
        };
        let Cost { currency, nanos } = *spent;
        if self.unpriced_calls > 0 {
            return None;
        }
        let known = &self.learnt.costs;
        let more = rest(known, scaled(left, known.count, ended))?;
        let total = |more: u64| nanos.saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        Some(CostForecast {
            currency,
            low: total(more.low),
            expected: total(more.expected),
            high: total(more.high),
        })
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
