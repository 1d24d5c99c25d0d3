//! What calls came to: usage rows summed by day or month, model and user, exactly. The API and the
//! command line tell the same rows; neither looks at the call log, but for what is asked of sessions.

mod sessions;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;

use onelane_actors::ports::{Store, StoreError, UsageFilter};
use onelane_core::model::{
    Calendar, CallRecord, Cost, Currency, Day, FailureClass, Histogram, KeyId, Nanos, Period,
    SessionId, Timestamp, Usage, UsageKey, UsageRow, amount,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

pub use sessions::StatisticsError;
pub(crate) use sessions::each_call;
pub use table::to_csv;
pub(crate) use table::{csv_head, csv_row};

/// Which usage, and how it is summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsQuery {
    /// Which usage rows count.
    pub filter: UsageFilter,
    /// Of this session only.
    pub session: Option<SessionId>,
    /// What each row of the answer is about.
    pub group_by: GroupBy,
    /// When its days begin.
    pub calendar: Calendar,
}

/// Days of a question that does not say from when.
const DAYS_DEFAULT: i32 = 30;
/// The same of one about sessions, for which the call log of those days is read.
const SESSION_DAYS_DEFAULT: i32 = 7;

/// The first day of a question that says only with which it ends.
#[must_use]
pub const fn first_day(end: Day, group_by: GroupBy, session: Option<&SessionId>) -> Day {
    let days = match (group_by.session, session) {
        (false, None) => DAYS_DEFAULT,
        _ => SESSION_DAYS_DEFAULT,
    };
    Day(end.0.saturating_sub(days - 1))
}

/// What each row of statistics is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// A row for each day or month; `None`: one for the whole time.
    pub period: Option<Period>,
    /// A row for each model.
    pub model: bool,
    /// A row for each user.
    pub user: bool,
    /// A row for each client key.
    pub key: bool,
    /// A row for each session, those of two client keys apart.
    pub session: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self {
            period: Some(Period::Day),
            model: true,
            user: false,
            key: false,
            session: false,
        }
    }
}

impl GroupBy {
    /// Reads a list like `month,user`, each name once, `day` or `month` but not both; `none` alone is one
    /// row for all. The error is a phrase that follows the name of what was read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut group_by = Self {
            period: None,
            model: false,
            user: false,
            key: false,
            session: false,
        };
        if text == "none" {
            return Ok(group_by);
        }
        for name in text.split(',') {
            let is_new = match name {
                "day" => group_by.period.replace(Period::Day).is_none(),
                "month" => group_by.period.replace(Period::Month).is_none(),
                "model" => !std::mem::replace(&mut group_by.model, true),
                "user" => !std::mem::replace(&mut group_by.user, true),
                "key" => !std::mem::replace(&mut group_by.key, true),
                "session" => !std::mem::replace(&mut group_by.session, true),
                _ => {
                    return Err(format!(
                        "must be some of day or month, model, user, key, session, with commas between, or none; \
                         {name:?} is none of them"
                    ));
                }
            };
            if !is_new {
                return Err("must name each once, and day or month, not both".to_owned());
            }
        }
        Ok(group_by)
    }
}

/// As the API has it: the names in a list.
impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::parse(&names.join(",")).map_err(de::Error::custom)
    }
}

impl JsonSchema for GroupBy {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GroupBy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = ["day", "month", "model", "user", "key", "session", "none"];
        json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
    }
}

/// One row of statistics: `GLMUsageStats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "GLMUsageStats")]
#[serde(rename_all = "camelCase")]
pub struct StatisticsRow {
    /// What the row is about, in one word.
    pub id: String,
    /// `2026-11-23` or `2026-11`; `None` when it is about the whole time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The model; `None` when it is about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The user; `None` when it is about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The client key; `None` when it is about all of them, and about what came without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The session; `None` when it is about all of them, and about calls of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Attempts that ended, whichever way.
    pub total_calls: u64,
    /// Attempts that brought an answer.
    pub successful_calls: u64,
    /// Attempts that did not.
    pub failed_calls: u64,
    /// Calls that somebody gave up; they are no failures.
    pub cancelled_calls: u64,
    /// The failures by class; what was cancelled has none.
    pub failures_by_class: BTreeMap<FailureClass, u64>,
    /// Tokens.
    #[serde(flatten)]
    pub usage: Usage,
    /// The share of the prompts' tokens that came from GLM's cache, in ten-thousandths; `None` without
    /// tokens.
    #[serde(rename = "cachedShare", serialize_with = "share")]
    #[schemars(with = "Option<f64>")]
    pub cached_share_e4: Option<u64>,
    /// The largest amount of one currency; not known when what was billed has no price.
    #[serde(serialize_with = "amount::optional")]
    #[schemars(with = "Option<f64>")]
    pub total_cost: Option<Nanos>,
    /// What the total cost is counted in.
    pub currency: Option<Currency>,
    /// Costs by currency, exactly.
    #[serde(serialize_with = "amount::by_currency")]
    #[schemars(with = "Vec<Cost>")]
    pub costs: BTreeMap<Currency, Nanos>,
    /// Calls that were billed at a cost that is not known: in no sum.
    pub unpriced_calls: u64,
    /// The mean time of an answered call, in whole milliseconds; 0 without one.
    #[serde(rename = "averageResponseTime")]
    pub average_response_time_ms: u64,
    /// How the times of the answered calls are spread; `None` when none was measured.
    pub percentiles: Option<Percentiles>,
    /// The same of the times to the first token of the streamed ones.
    pub first_token: Option<Percentiles>,
    /// How fast answers came, in tokens a second: those behind the first token in the time behind it, and of answers that
    /// were not streamed all of them in the time of the whole call; `None` when none was measured.
    #[serde(rename = "tokensPerSecond", serialize_with = "tenths")]
    #[schemars(with = "Option<f64>")]
    pub tokens_per_second_e1: Option<u64>,
    /// When the first day begins that it is about.
    pub created_at: Timestamp,
}

/// The times that so many percent of the answered calls did not exceed, in milliseconds, each
/// above the right one by an eighth at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Percentiles {
    /// Half of them.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 95 %.
    pub p95: u64,
    /// 99 %.
    pub p99: u64,
}

impl StatisticsRow {
    /// The row of some sums.
    fn new(
        created_at: Timestamp,
        [date, model, user_id]: [Option<String>; 3],
        (key_id, session): (Option<KeyId>, Option<SessionId>),
        sums: UsageRow,
    ) -> Self {
        let key = key_id.map(|key| key.to_string());
        let about = [&date, &model, &user_id, &key].map(Option::as_deref);
        let about = about
            .into_iter()
            .chain([session.as_ref().map(SessionId::as_str)]);
        let about: Vec<&str> = about.flatten().collect();
        let id = match about.as_slice() {
            [] => "all".to_owned(),
            parts => parts.join(":"),
        };
        // Two currencies don't add up: the larger amount stands in front.
        let main = sums.cost.iter().max_by_key(|(_, nanos)| **nanos);
        let main = main.map(|(currency, nanos)| (*currency, *nanos));
        let total_cost = match main {
            Some((_, nanos)) => Some(nanos),
            // What it cost is not known, which is not 0.
            None => (sums.unpriced_calls == 0).then_some(0),
        };
        Self {
            id,
            date,
            model,
            user_id,
            key_id,
            session,
            total_calls: sums.calls,
            successful_calls: sums.successes,
            failed_calls: sums.failures,
            cancelled_calls: sums.cancelled,
            cached_share_e4: share_e4(sums.usage.cached_tokens, sums.usage.prompt_tokens),
            usage: sums.usage,
            total_cost,
            currency: main.map(|(currency, _)| currency),
            unpriced_calls: sums.unpriced_calls,
            average_response_time_ms: mean(sums.response_time_ms, sums.successes),
            percentiles: Percentiles::of(&sums.response_times),
            first_token: Percentiles::of(&sums.first_tokens),
            tokens_per_second_e1: sums.speed.per_second_e1(),
            failures_by_class: sums.failure_classes,
            costs: sums.cost,
            created_at,
        }
    }
}

impl Percentiles {
    fn of(times: &Histogram) -> Option<Self> {
        Some(Self {
            p50: times.percentile(50)?,
            p90: times.percentile(90)?,
            p95: times.percentile(95)?,
            p99: times.percentile(99)?,
        })
    }
}

/// Rounded; 0 of nothing.
fn mean(sum: u64, count: u64) -> u64 {
    let rounded = sum.saturating_add(count / 2).checked_div(count);
    rounded.unwrap_or(0)
}

/// A part of a whole in ten-thousandths, rounded; `None`: of nothing.
fn share_e4(part: u64, whole: u64) -> Option<u64> {
    let share = u128::from(part) * 10_000 + u128::from(whole) / 2;
    u64::try_from(share.checked_div(whole.into())?).ok()
}

/// Ten-thousandths as a decimal, digit by digit.
fn share_decimal(share: u64) -> String {
    format!("{}.{:04}", share / 10_000, share % 10_000)
}

/// Tenths as a decimal.
#[must_use]
pub fn tenths_decimal(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn share<S: Serializer>(share: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    digits(share.map(share_decimal), serializer)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn tenths<S: Serializer>(tenths: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    digits(tenths.map(tenths_decimal), serializer)
}

/// A number as it is written.
fn digits<S: Serializer>(number: Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = number.map(RawValue::from_string).transpose();
    digits.map_err(S::Error::custom)?.serialize(serializer)
}

/// Usage summed up row by row: what is in memory is what is answered, however long the time is.
#[derive(Debug)]
pub struct Summary {
    query: StatisticsQuery,
    sums: BTreeMap<About, UsageRow>,
}

/// What a row is about: where it begins, then model, user, client key and session as far as they are told apart.
type About = (Day, String, String, Option<KeyId>, Option<SessionId>);

impl Summary {
    /// Nothing yet.
    #[must_use]
    pub const fn new(query: StatisticsQuery) -> Self {
        Self {
            query,
            sums: BTreeMap::new(),
        }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &UsageRow) {
        self.sums_of(&row.key, None).merge(row);
    }

    /// Adds a call.
    fn add_call(&mut self, call: &CallRecord) {
        self.sums_of(&UsageKey::of(call), call.session.as_ref())
            .add(call);
    }

    /// The sums that something is part of.
    fn sums_of(&mut self, of: &UsageKey, session: Option<&SessionId>) -> &mut UsageRow {
        let by = self.query.group_by;
        let first = self.query.filter.start;
        let since = by.period.map_or(first, |period| period.first_day(of.day));
        let name = |grouped: bool, name: &str| {
            let name = if grouped { name } else { "" };
            name.to_owned()
        };
        let about = (
            since,
            name(by.model, &of.model),
            name(by.user, &of.user_id),
            // Two that are called the same are two.
            of.key_id.filter(|_| by.key || by.session),
            session.filter(|_| by.session).cloned(),
        );
        self.sums
            .entry(about)
            .or_insert_with(|| UsageRow::empty(of.clone()))
    }

    /// The rows, ordered by time, model, user, client key and session. What the question named is part of every row.
    #[must_use]
    pub fn rows(self) -> Vec<StatisticsRow> {
        let Self { query, sums } = self;
        let GroupBy {
            period,
            model,
            user,
            ..
        } = query.group_by;
        let named = |grouped: bool, name: String, asked: &Option<String>| {
            grouped.then_some(name).or_else(|| asked.clone())
        };
        let rows = sums.into_iter();
        rows.map(|((since, of_model, of_user, key_id, session), sums)| {
            let about = [
                period.map(|period| date(period, since)),
                named(model, of_model, &query.filter.model),
                named(user, of_user, &query.filter.user_id),
            ];
            let session = session.or_else(|| query.session.clone());
            let by = (key_id, session);
            StatisticsRow::new(query.calendar.start_of(since), about, by, sums)
        })
        .collect()
    }
}

/// Sums usage rows up.
#[must_use]
pub fn summarise(rows: &[UsageRow], query: &StatisticsQuery) -> Vec<StatisticsRow> {
    let mut summary = Summary::new(query.clone());
    rows.iter().for_each(|row| summary.add(row));
    summary.rows()
}

/// What a store has, summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// The rows.
    pub rows: Vec<StatisticsRow>,
    /// Calls of that time, model and user that are in no row since the call log has them no more; `None`: the log was
    /// not asked, as it is of sessions alone.
    pub calls_not_in_log: Option<u64>,
}

/// Sums up what a store has, a day at a time; of sessions, what its call log has.
pub fn of_store(store: &dyn Store, query: StatisticsQuery) -> Result<Statistics, StatisticsError> {
    if query.group_by.session || query.session.is_some() {
        return sessions::of_log(store, query);
    }
    let filter = query.filter.clone();
    let mut summary = Summary::new(query);
    each_day(store, &filter, |row| summary.add(row))?;
    Ok(Statistics {
        rows: summary.rows(),
        calls_not_in_log: None,
    })
}

/// Shows the usage rows of a time, day by day.
pub(crate) fn each_day(
    store: &dyn Store,
    filter: &UsageFilter,
    mut look: impl FnMut(&UsageRow),
) -> Result<(), StoreError> {
    let mut filter = filter.clone();
    loop {
        let day = store.usage_day(&filter)?;
        // A sum that leaves something out is no sum.
        if let Some(error) = day.unreadable.into_iter().next() {
            return Err(error);
        }
        day.rows.iter().for_each(&mut look);
        match day.next {
            Some(next) => filter.start = next,
            None => return Ok(()),
        }
    }
}

fn date(period: Period, since: Day) -> String {
    let mut date = since.to_string();
    if period == Period::Month {
        let month = date.rfind('-').unwrap_or(date.len());
        date.truncate(month);
    }
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: &str, model: &str, user: &str, ms: u64) -> UsageRow {
        let key = UsageKey {
            day: Day::parse(day).unwrap(),
            model: model.to_owned(),
            user_id: user.to_owned(),
            key_id: None,
        };
        let mut row = UsageRow::empty(key);
        row.calls = 1;
        row.successes = 1;
        row.response_time_ms = ms;
        row.response_times.record(ms);
        row.usage.prompt_tokens = 3;
        row.usage.cached_tokens = 1;
        row
    }

    fn query(group_by: &str) -> StatisticsQuery {
        StatisticsQuery {
            filter: UsageFilter {
                start: Day::parse("2026-10-01").unwrap(),
                end: Day::parse("2026-11-30").unwrap(),
                ..UsageFilter::default()
            },
            session: None,
            group_by: GroupBy::parse(group_by).unwrap(),
            calendar: Calendar::default(),
        }
    }

    fn told(group_by: &str) -> Vec<String> {
        let rows = [
            row("2026-10-31", "a", "u", 10),
            row("2026-11-01", "a", "u", 10),
            row("2026-11-01", "b", "u", 10),
            row("2026-11-02", "a", "v", 10),
        ];
        let words = |row: &StatisticsRow| {
            let named = [&row.date, &row.model, &row.user_id];
            let names: Vec<_> = named.iter().filter_map(|n| n.as_deref()).collect();
            format!("{} {}", names.join(" "), row.total_calls)
        };
        let rows = summarise(&rows, &query(group_by));
        rows.iter().map(words).collect()
    }

    #[test]
    fn rows_are_grouped_by_any_of_time_model_and_user() {
        assert_eq!(told("none"), [" 4"]);
        assert_eq!(told("month"), ["2026-10 1", "2026-11 3"]);
        assert_eq!(
            told("user,month"),
            ["2026-10 u 1", "2026-11 u 2", "2026-11 v 1"]
        );
        assert_eq!(told("model"), ["a 3", "b 1"]);
        assert_eq!(
            told("day,model"),
            [
                "2026-10-31 a 1",
                "2026-11-01 a 1",
                "2026-11-01 b 1",
                "2026-11-02 a 1"
            ]
        );
        assert_eq!(told("day,model,user").len(), 4);
    }

    #[test]
    fn a_day_begins_where_its_calendar_says() {
        let rows = [row("2026-11-02", "a", "u", 10)];
        let began = |group_by: &str, zone: &str| {
            let calendar = zone.parse().unwrap();
            let query = StatisticsQuery {
                calendar,
                ..query(group_by)
            };
            summarise(&rows, &query).remove(0).created_at.to_rfc3339()
        };
        assert_eq!(began("day", "UTC"), "2026-11-02T00:00:00.000Z");
        assert_eq!(began("day", "+08:00"), "2026-11-01T16:00:00.000Z");
        assert_eq!(began("month", "Asia/Shanghai"), "2026-10-31T16:00:00.000Z");
    }

    #[test]
    fn what_is_no_grouping_is_refused() {
        for wrong in "|week|day,month|model,model|day,|none,day|Day".split('|') {
            assert!(GroupBy::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(GroupBy::parse("model,day"), Ok(GroupBy::default()));
    }

    #[test]
    fn percentiles_are_of_all_calls_of_a_group_together() {
        let mut rows: Vec<UsageRow> = (1..=9).map(|_| row("2026-11-01", "a", "u", 8)).collect();
        rows.push(row("2026-11-01", "b", "v", 15));
        let all = summarise(&rows, &query("none")).remove(0);
        let percentiles = all.percentiles.unwrap();
        assert_eq!((percentiles.p50, percentiles.p90), (8, 8));
        assert_eq!((percentiles.p95, percentiles.p99), (15, 15));
        assert_eq!(all.average_response_time_ms, 9, "87 / 10, rounded");
        assert_eq!(all.cached_share_e4, Some(3_333));
    }

    #[test]
    fn a_row_without_an_answer_has_no_percentiles() {
        let key = row("2026-11-23", "m", "u", 1).key;
        let failed = UsageRow {
            calls: 3,
            failures: 3,
            ..UsageRow::empty(key)
        };
        let row = summarise(&[failed], &query("none")).remove(0);
        assert_eq!(row.percentiles, None);
        assert_eq!(row.average_response_time_ms, 0);
        assert_eq!(row.cached_share_e4, None);
    }
}
