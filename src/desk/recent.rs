//! What the latest calls tell: how long jobs waited, how many calls there are, how many failed, what today cost. It is
//! reckoned at most every few seconds, however many watch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onelane_actors::ports::UsageFilter;
use onelane_core::model::{AttemptNo, CallOutcome, CallRecord, Cost, Currency, Nanos, Timestamp};
use tokio::time::Instant;

use crate::api::site::Visit;
use crate::error::Error;
use crate::statistics::{GroupBy, StatisticsQuery, StatisticsRow};

/// What was reckoned is good for so long.
const FRESH: Duration = Duration::from_secs(3);
/// Calls of the last hour are looked at up to so many.
const CALLS_MAX: usize = 2_000;
const HOUR_MS: u64 = 3_600_000;

/// Three points of how times are spread, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
}

/// What the latest calls tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    /// Calls that ended in the last hour.
    pub(super) calls: usize,
    /// There were more than were looked at.
    pub(super) are_more: bool,
    /// The share of them that failed; what was given up or cut off does not count.
    pub(super) failed: Option<f64>,
    /// How long jobs waited for their first calls.
    pub(super) waits: Option<Spread>,
    /// How long answers took.
    pub(super) answers: Option<Spread>,
    /// How long the first tokens of streamed ones took.
    pub(super) first_tokens: Option<Spread>,
    /// What today cost, the largest first.
    pub(super) spent: Vec<Cost>,
    /// Calls of today whose cost is not known.
    pub(super) unpriced: u64,
    /// The share of today's prompts that GLM had cached, in ten-thousandths.
    pub(super) cached_e4: Option<u64>,
}

/// The latest of it.
#[derive(Default)]
pub(super) struct Latest(Mutex<Option<(Instant, Arc<Recent>)>>);

impl Latest {
    /// What the latest calls tell, a few seconds ago at most.
    pub(super) async fn of(&self, visit: &Visit) -> Result<Arc<Recent>, Error> {
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, recent)) = known
            && at.elapsed() < FRESH
        {
            return Ok(recent);
        }
        let (lane, now) = (visit.lane(), visit.now());
        let calls = lane.calls_since(now.minus_ms(HOUR_MS), CALLS_MAX).await?;
        let calendar = lane.settings().calendar;
        let today = calendar.day(now);
        let query = StatisticsQuery {
            filter: UsageFilter {
                start: today,
                end: today,
                model: None,
                user_id: None,
            },
            session: None,
            group_by: GroupBy {
                period: None,
                model: false,
                ..GroupBy::default()
            },
            calendar,
        };
        let today = lane.statistics(query).await?.rows.into_iter().next();
        let recent = Arc::new(Recent::of(&calls, today));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&recent)));
        Ok(recent)
    }
}

impl Recent {
    fn of(calls: &[CallRecord], today: Option<StatisticsRow>) -> Self {
        let of = |outcome| calls.iter().filter(move |call| call.outcome == outcome);
        let failed = of(CallOutcome::Failed).count();
        let ended = failed + of(CallOutcome::Completed).count();
        let answers = of(CallOutcome::Completed).map(|call| call.response_time_ms);
        let first_tokens = of(CallOutcome::Completed).filter_map(|call| call.parts.first_token_ms);
        let first = calls.iter().filter(|call| call.attempt == AttemptNo(1));
        let (spent, unpriced, cached_e4) = match today {
            Some(row) => (by_size(&row.costs), row.unpriced_calls, row.cached_share_e4),
            None => (Vec::new(), 0, None),
        };
        Self {
            calls: calls.len(),
            are_more: calls.len() >= CALLS_MAX,
            failed: (ended > 0).then(|| failed as f64 / ended as f64),
            waits: spread(first.filter_map(waited).collect()),
            answers: spread(answers.collect()),
            first_tokens: spread(first_tokens.collect()),
            spent,
            unpriced,
            cached_e4,
        }
    }
}

fn by_size(costs: &std::collections::BTreeMap<Currency, Nanos>) -> Vec<Cost> {
    let costs = costs.iter().map(|(currency, nanos)| Cost {
        nanos: *nanos,
        currency: *currency,
    });
    let mut costs: Vec<Cost> = costs.collect();
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.nanos));
    costs
}

/// How long a job waited for a call, from its id; `None`: the id does not tell.
pub(super) fn waited(call: &CallRecord) -> Option<u64> {
    let made: Timestamp = call.job_id.made_at()?;
    (made <= call.started_at).then(|| call.started_at.since(made))
}

/// How times are spread; `None`: there are none.
fn spread(mut times: Vec<u64>) -> Option<Spread> {
    times.sort_unstable();
    let rank = |percent: usize| {
        let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(at).copied()
    };
    Some(Spread {
        p50: rank(50)?,
        p90: rank(90)?,
        p99: rank(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spread_by_nearest_rank() {
        assert_eq!(spread(Vec::new()), None);
        let one = Spread {
            p50: 7,
            p90: 7,
            p99: 7,
        };
        assert_eq!(spread(vec![7]), Some(one));
        let many = Spread {
            p50: 50,
            p90: 90,
            p99: 99,
        };
        assert_eq!(spread((1..=100).rev().collect()), Some(many));
    }
}
