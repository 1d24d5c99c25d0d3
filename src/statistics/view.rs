//! How statistics look: `GLMUsageStats` in JSON, and the same as a table for spreadsheets. Amounts are
//! written from integers, never through floats.

use std::borrow::Cow;
use std::collections::BTreeMap;

use onelane_core::model::{Cost, Currency, FailureClass, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Percentiles, StatisticsRow};
use crate::csv;

impl StatisticsRow {
    /// What the row is about in one word.
    fn id(&self) -> String {
        let parts = [&self.date, &self.model, &self.user_id];
        let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_deref()).collect();
        if parts.is_empty() {
            return "all".to_owned();
        }
        parts.join(":")
    }

    /// Two currencies don't add up: the larger amount stands in front.
    fn main_cost(&self) -> Option<Cost> {
        self.costs().max_by_key(|cost| cost.nanos)
    }

    fn total_cost(&self) -> Option<Box<RawValue>> {
        match self.main_cost() {
            Some(cost) => Some(number(&cost.decimal())),
            // What it cost is not known, which is not 0.
            None if self.unpriced_calls() > 0 => None,
            None => Some(number("0")),
        }
    }

    fn cached_share(&self) -> Option<String> {
        let share = self.cached_share_e4()?;
        Some(format!("{}.{:04}", share / 10_000, share % 10_000))
    }
}

/// A number as JSON, digit by digit.
fn number(digits: &str) -> Box<RawValue> {
    // Digits are JSON; `null` would stand for what is not.
    RawValue::from_string(digits.to_owned()).unwrap_or_default()
}

/// An amount of one currency.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Cost")]
#[serde(rename_all = "camelCase")]
pub(crate) struct CostView {
    currency: Currency,
    #[schemars(with = "f64")]
    total_cost: Box<RawValue>,
}

impl CostView {
    pub(crate) fn new(cost: Cost) -> Self {
        Self {
            currency: cost.currency,
            total_cost: number(&cost.decimal()),
        }
    }
}

/// `GLMUsageStats`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GLMUsageStats")]
#[serde(rename_all = "camelCase")]
struct UsageStats<'a> {
    /// What the row is about, in one word.
    id: String,
    /// `2026-11-23` or `2026-11`; left out when the row is about the whole time.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    failures_by_class: &'a BTreeMap<FailureClass, u64>,
    total_tokens: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    /// The share of the prompts' tokens that came from GLM's cache; `null` without tokens.
    #[schemars(with = "Option<f64>")]
    cached_share: Option<Box<RawValue>>,
    /// The largest amount of one currency; `null` when what was billed has no known price.
    #[schemars(with = "Option<f64>")]
    total_cost: Option<Box<RawValue>>,
    currency: Option<Currency>,
    costs: Vec<CostView>,
    /// Calls that were billed at a cost that is not known: in no sum.
    unpriced_calls: u64,
    /// Of the answered calls, in milliseconds.
    average_response_time: u64,
    percentiles: Option<Percentiles>,
    /// When the first day begins that the row is about.
    #[schemars(with = "Timestamp")]
    created_at: String,
}

impl<'a> UsageStats<'a> {
    fn of(row: &'a StatisticsRow) -> Self {
        let usage = row.usage();
        Self {
            id: row.id(),
            date: row.date.as_deref(),
            model: row.model.as_deref(),
            user_id: row.user_id.as_deref(),
            total_calls: row.calls(),
            successful_calls: row.successes(),
            failed_calls: row.failures(),
            failures_by_class: row.failure_classes(),
            total_tokens: usage.total_tokens,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cached_share: row.cached_share().as_deref().map(number),
            total_cost: row.total_cost(),
            currency: row.main_cost().map(|cost| cost.currency),
            costs: row.costs().map(CostView::new).collect(),
            unpriced_calls: row.unpriced_calls(),
            average_response_time: row.average_response_time_ms(),
            percentiles: row.percentiles(),
            created_at: row.created_at.to_rfc3339(),
        }
    }
}

impl Serialize for StatisticsRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        UsageStats::of(self).serialize(serializer)
    }
}

impl JsonSchema for StatisticsRow {
    fn schema_name() -> Cow<'static, str> {
        UsageStats::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        UsageStats::json_schema(generator)
    }
}

/// The columns of amounts: the same whatever was paid in.
const CURRENCIES: [Currency; 3] = [Currency::Cny, Currency::Usd, Currency::Points];

/// Rows as RFC 4180 with a header: an amount a currency, and the failures a class, in columns of their own.
#[must_use]
pub fn to_csv(rows: &[StatisticsRow]) -> String {
    let mut text = csv_head();
    for row in rows {
        text.push_str(&csv_row(row));
    }
    text
}

/// The header.
pub(crate) fn csv_head() -> String {
    let mut head: Vec<Cow<'_, str>> = [
        "date",
        "model",
        "userId",
        "totalCalls",
        "successfulCalls",
        "failedCalls",
        "totalTokens",
        "promptTokens",
        "completionTokens",
        "cachedTokens",
        "reasoningTokens",
        "cachedShare",
    ]
    .map(Cow::Borrowed)
    .into();
    head.extend(CURRENCIES.map(|c| format!("totalCost.{}", c.code()).into()));
    let times = [
        "unpricedCalls",
        "averageResponseTime",
        "p50",
        "p90",
        "p95",
        "p99",
    ];
    head.extend(times.map(Cow::Borrowed));
    let failures = FailureClass::ALL.map(|class| format!("failed.{class}").into());
    head.extend(failures);
    csv::line(head)
}

/// A row.
pub(crate) fn csv_row(row: &StatisticsRow) -> String {
    csv::line(fields(row))
}

fn fields(row: &StatisticsRow) -> Vec<Cow<'_, str>> {
    let usage = row.usage();
    let about = [&row.date, &row.model, &row.user_id];
    let mut fields: Vec<Cow<'_, str>> = about
        .iter()
        .map(|part| csv::text(part.as_deref().unwrap_or_default()))
        .collect();
    let number = |n: u64| Cow::Owned(n.to_string());
    let counts = [
        row.calls(),
        row.successes(),
        row.failures(),
        usage.total_tokens,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    ];
    fields.extend(counts.map(number));
    fields.push(row.cached_share().unwrap_or_default().into());
    for currency in CURRENCIES {
        let nanos = row.cost(currency);
        let amount = nanos.map(|nanos| Cost { nanos, currency }.decimal());
        fields.push(amount.unwrap_or_default().into());
    }
    fields.extend([row.unpriced_calls(), row.average_response_time_ms()].map(number));
    match row.percentiles() {
        Some(Percentiles { p50, p90, p95, p99 }) => fields.extend([p50, p90, p95, p99].map(number)),
        None => fields.extend([const { Cow::Borrowed("") }; 4]),
    }
    let classes = row.failure_classes();
    fields.extend(FailureClass::ALL.map(|class| number(classes.get(&class).copied().unwrap_or(0))));
    fields
}

#[cfg(test)]
mod tests {
    use onelane_actors::ports::UsageFilter;
    use onelane_core::model::{Calendar, Day, Nanos, Usage, UsageKey, UsageRow};
    use serde_json::{Value, json};

    use super::*;
    use crate::statistics::{GroupBy, StatisticsQuery, summarise};

    fn statistics(rows: &[UsageRow], user_id: Option<&str>) -> Vec<StatisticsRow> {
        let query = StatisticsQuery {
            filter: UsageFilter {
                user_id: user_id.map(str::to_owned),
                ..UsageFilter::default()
            },
            group_by: GroupBy::default(),
            calendar: Calendar::default(),
        };
        summarise(rows, &query)
    }

    fn row(day: &str, model: &str, user: &str, cost: &[(Currency, Nanos)]) -> UsageRow {
        let key = UsageKey {
            day: Day::parse(day).unwrap(),
            model: model.to_owned(),
            user_id: user.to_owned(),
        };
        UsageRow {
            calls: 3,
            successes: 2,
            failures: 1,
            usage: Usage {
                prompt_tokens: 10,
                completion_tokens: 20,
                total_tokens: 30,
                cached_tokens: 4,
                reasoning_tokens: 5,
            },
            cost: cost.iter().copied().collect(),
            response_time_ms: 100,
            ..UsageRow::empty(key)
        }
    }

    fn view(rows: &[UsageRow], user_id: Option<&str>) -> Value {
        serde_json::to_value(statistics(rows, user_id)).unwrap()
    }

    #[test]
    fn users_are_summed_by_day_and_model_in_order() {
        let yuan = |nanos| [(Currency::Cny, nanos)];
        let rows = [
            row("2026-11-23", "glm-5", "a", &yuan(1)),
            row("2026-11-23", "glm-4.7", "b", &yuan(100_000_001)),
            row("2026-11-23", "glm-4.7", "a", &yuan(200_000_002)),
            row("2026-11-22", "glm-5", "a", &yuan(0)),
        ];
        let view = view(&rows, None);
        let ids: Vec<_> = view.as_array().unwrap().iter().map(|r| &r["id"]).collect();
        assert_eq!(
            ids,
            ["2026-11-22:glm-5", "2026-11-23:glm-4.7", "2026-11-23:glm-5"]
        );
        assert_eq!(
            view[1],
            json!({
                "id": "2026-11-23:glm-4.7", "date": "2026-11-23", "model": "glm-4.7",
                "totalCalls": 6, "successfulCalls": 4, "failedCalls": 2,
                "totalTokens": 60, "promptTokens": 20, "completionTokens": 40,
                "cachedTokens": 8, "reasoningTokens": 10,
                "totalCost": 0.300_000_003, "currency": "CNY",
                "costs": [{"currency": "CNY", "totalCost": 0.300_000_003}],
                "unpricedCalls": 0, "averageResponseTime": 50, "percentiles": null,
                "cachedShare": 0.4, "failuresByClass": {},
                "createdAt": "2026-11-23T00:00:00.000Z",
            })
        );
    }

    #[test]
    fn a_sum_is_written_to_its_last_digit() {
        let rows = [row(
            "2026-11-23",
            "m",
            "a",
            &[(Currency::Usd, 9_007_199_254_740_993)],
        )];
        let text = serde_json::to_string(&statistics(&rows, None)).unwrap();
        assert!(
            text.contains(r#""totalCost":9007199.254740993,"currency":"USD""#),
            "{text}"
        );
    }

    #[test]
    fn two_currencies_stand_side_by_side() {
        let rows = [row(
            "2026-11-23",
            "m",
            "a",
            &[(Currency::Cny, 7), (Currency::Usd, 9)],
        )];
        let view = view(&rows, None);
        assert_eq!(view[0]["currency"], "USD");
        assert_eq!(view[0]["costs"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn an_unknown_cost_is_not_zero_and_no_cost_is() {
        let mut unpriced = row("2026-11-23", "m", "a", &[]);
        unpriced.unpriced_calls = 2;
        assert_eq!(view(&[unpriced], None)[0]["totalCost"], json!(null));
        let refused = row("2026-11-23", "m", "a", &[]);
        assert_eq!(view(&[refused], None)[0]["totalCost"], json!(0));
    }

    #[test]
    fn rows_of_one_user_say_whose_they_are() {
        let view = view(&[row("2026-11-23", "m", "a", &[])], Some("a"));
        assert_eq!(view[0]["id"], "2026-11-23:m:a");
        assert_eq!(view[0]["userId"], "a");
    }

    #[test]
    fn a_table_for_spreadsheets_has_exact_amounts_and_quoted_names() {
        let cost = [(Currency::Usd, 9_007_199_254_740_993)];
        let mut row = row("2026-11-23", "a, \"b\"", "u", &cost);
        row.response_times.record(7);
        row.failure_classes.insert(FailureClass::Throttle, 1);
        let text = to_csv(&statistics(&[row], None));
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(
            lines,
            [
                "date,model,userId,totalCalls,successfulCalls,failedCalls,totalTokens,promptTokens,\
                 completionTokens,cachedTokens,reasoningTokens,cachedShare,totalCost.CNY,totalCost.USD,\
                 totalCost.POINTS,unpricedCalls,averageResponseTime,p50,p90,p95,p99,failed.throttle,failed.overload,\
                 failed.quota_window,failed.operator_fatal,failed.request_fatal,\
                 failed.server_transient,failed.duplicate_request",
                "2026-11-23,\"a, \"\"b\"\"\",,3,2,1,30,10,20,4,5,0.4000,,9007199.254740993,,\
                 0,50,7,7,7,7,1,0,0,0,0,0,0",
            ]
        );
        assert!(
            to_csv(&[]).starts_with("date,"),
            "the header is always there"
        );
    }
}
