//! Whether the sums are those of the call log: tokens, money, budgets, and GLM's own meter.

use std::collections::BTreeMap;

use onelane::model::{
    Calendar, CallOutcome, CallRecord, Cost, Currency, Period, Timestamp, UsageKey, UsageRow,
};
use onelane::ports::{Clock as _, Store as _, UsageFilter};
use onelane::simulator::Simulator;
use onelane::system::SystemClock;
use serde_json::Value;
use serde_json::value::RawValue;

use super::books::Books;
use crate::common::Http;

/// What is spent in tokens, and what may be beside it.
fn spent(calls: &[&CallRecord]) -> [u64; 2] {
    let spent = calls.iter().map(|call| call.usage.total_tokens).sum();
    let doubtful = calls.iter().filter(|call| call.is_billing_open());
    let in_doubt = doubtful.map(|call| {
        let reserved = call.reserved;
        reserved
            .expect("a call in doubt keeps what was reserved")
            .tokens
    });
    [spent, in_doubt.sum()]
}

/// The month that is under way in the zone of the budgets, by its end.
pub(crate) fn month_under_way() -> Timestamp {
    let calendar = Calendar::default();
    Period::Month.end(&calendar, calendar.day(SystemClock.now()))
}

/// In no month was more than the limit spent, calls that may have been billed included, and the API told the sum of the call
/// log for the month under way. The loop began in the month `began`, and another one may have begun at any moment of it.
pub(crate) fn a_budget_was_kept<'a>(
    calls: impl Iterator<Item = &'a CallRecord>,
    told: Option<&Value>,
    limit: u64,
    began: Timestamp,
) {
    let calendar = Calendar::default();
    let now = month_under_way();
    let mut months: BTreeMap<Timestamp, Vec<&CallRecord>> = BTreeMap::new();
    for call in calls {
        let end = Period::Month.end(&calendar, call.day());
        assert!(
            end == began || end == now,
            "it is booked elsewhere: {call:?}"
        );
        months.entry(end).or_default().push(call);
    }
    for calls in months.values() {
        let [spent, in_doubt] = spent(calls);
        assert!(spent + in_doubt <= limit, "{spent} + {in_doubt} > {limit}");
    }
    let Some(told) = told else {
        let turned = began != now && !months.contains_key(&now);
        assert!(turned, "calls of this month, and no budget of it");
        return;
    };
    let until = Timestamp::parse_rfc3339(told["until"].as_str().unwrap()).unwrap();
    assert!(until == began || until == now, "{told}");
    let [spent, in_doubt] = spent(months.get(&until).map_or(&[], Vec::as_slice));
    assert_eq!(told["spent"]["tokens"], spent, "{told}");
    assert_eq!(told["inDoubt"]["tokens"], in_doubt, "{told}");
    assert_eq!(told["reserved"]["tokens"], 0, "{told}");
    assert_eq!(told["limit"]["tokens"], limit, "{told}");
}

#[derive(serde::Deserialize)]
struct Statistics {
    statistics: Vec<StatisticsRow>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatisticsRow {
    date: Option<String>,
    model: Option<String>,
    key_id: Option<String>,
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    cancelled_calls: u64,
    total_tokens: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// To the last digit, so not as a float.
    total_cost: Box<RawValue>,
}

impl StatisticsRow {
    fn is_the_sum_of(&self, calls: &[&CallRecord]) {
        let so = |outcome| calls.iter().filter(|c| c.outcome == outcome).count() as u64;
        let sum = |of: fn(&CallRecord) -> u64| calls.iter().map(|call| of(call)).sum::<u64>();
        let (completed, cancelled) = (so(CallOutcome::Completed), so(CallOutcome::Cancelled));
        assert_eq!(self.total_calls, calls.len() as u64);
        assert_eq!(self.successful_calls, completed);
        assert_eq!(self.cancelled_calls, cancelled);
        let failed = calls.len() as u64 - completed - cancelled;
        assert_eq!(self.failed_calls, failed);
        assert_eq!(self.total_tokens, sum(|call| call.usage.total_tokens));
        assert_eq!(self.prompt_tokens, sum(|call| call.usage.prompt_tokens));
        assert_eq!(self.completion_tokens, sum(|c| c.usage.completion_tokens));
        let costs = calls.iter().filter_map(|call| call.cost);
        let cost = Cost {
            nanos: costs.map(|cost| cost.nanos).sum(),
            currency: Currency::Cny,
        };
        assert_eq!(self.total_cost.get(), cost.decimal());
    }
}

/// The aggregates of the store, and what the API told of them before the process ended, by day and model and by client
/// key, are the sums over the call log.
pub(crate) fn statistics_equal_the_call_log(books: &Books, by_day: &str, by_key: &str) {
    let mut sums: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    for call in &books.calls {
        let key = UsageKey::of(call);
        let sum = sums
            .entry(key.clone())
            .or_insert_with(|| UsageRow::empty(key));
        sum.add(call);
    }
    let stored = books.left.0.usage(&UsageFilter::default()).unwrap();
    assert_eq!(stored, sums.into_values().collect::<Vec<_>>());
    assert!(stored.iter().any(|row| row.cost.values().sum::<i64>() > 0));

    for told in [by_day, by_key] {
        let told: Statistics = serde_json::from_str(told).unwrap();
        let mut rows = 0;
        for row in told.statistics {
            let key = |call: &CallRecord| call.key_id.map(|key| key.to_string());
            let of_row = |call: &&CallRecord| match (&row.date, &row.model) {
                (Some(date), Some(model)) => {
                    call.ended_at.day().to_string() == *date && call.model == *model
                }
                _ => key(call) == row.key_id,
            };
            let calls: Vec<&CallRecord> = books.calls.iter().filter(of_row).collect();
            row.is_the_sum_of(&calls);
            rows += calls.len();
        }
        assert_eq!(rows, books.calls.len(), "calls that no row counts");
    }
}

/// GLM's own meter counts what the call log has, and beside it no more calls than the log says may have been billed.
pub(crate) fn the_meter_of_glm_agrees(books: &Books, simulator: &Simulator) {
    let Some([last, first]) = books
        .calls
        .first()
        .zip(books.calls.last())
        .map(<[_; 2]>::from)
    else {
        return;
    };
    let base_url = simulator.base_url();
    let (site, _) = base_url.split_once("/api/").unwrap();
    // Its days are those of another zone.
    const DAY_MS: u64 = 86_400_000;
    let first = first.started_at.minus_ms(DAY_MS).day();
    let last = last.ended_at.plus_ms(DAY_MS).day();
    let url = format!(
        "{site}/api/monitor/usage/model-usage?startTime={first}%2000:00:00&endTime={last}%2000:00:00"
    );
    let answer = Http::bearing("test-key").get(&url).unwrap();
    let sums = &answer.json()["data"]["totalUsage"];
    let sum = |name: &str| sums[name].as_u64().unwrap_or_else(|| panic!("{answer:?}"));
    let metered = [sum("totalModelCallCount"), sum("totalTokensUsage")];
    let so = |call: &&CallRecord| call.outcome == CallOutcome::Completed;
    let completed: Vec<&CallRecord> = books.calls.iter().filter(so).collect();
    let [tokens, _] = spent(&completed);
    let booked = [completed.len() as u64, tokens];
    let more = metered[0].checked_sub(booked[0]);
    let more = more.unwrap_or_else(|| panic!("{booked:?} booked, {metered:?} metered"));
    let rest = books.calls.iter().filter(|call| !so(call));
    let told = rest.filter(|call| call.maybe_billed || call.usage.total_tokens > 0);
    let told = told.count() as u64;
    assert!(
        more <= told && metered[1] >= tokens && (more > 0 || metered[1] == tokens),
        "{booked:?} booked, {metered:?} metered, {told} told to be in doubt or in part"
    );
}
