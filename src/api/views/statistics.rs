//! `GLMUsageStats`: usage by day and model, summed exactly.

use std::collections::BTreeMap;

use onelane_actors::model::{Cost, Currency, Day, Nanos, Timestamp, Usage, UsageRow};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{CostView, decimal, rfc3339, zero};

/// One day of one model; of one user when the question named one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct StatisticsRow {
    id: String,
    date: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    total_tokens: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    /// The amount in `currency`; `null` when no call had a known price.
    total_cost: Option<Box<RawValue>>,
    /// `null` when no call had a cost.
    currency: Option<Currency>,
    /// Every currency's amount: more than one when the price list was changed on that day.
    costs: Vec<CostView>,
    /// Calls with tokens but without a known price: what they cost is not in the sums.
    unpriced_calls: u64,
    /// Mean time of a call, in whole milliseconds.
    average_response_time: u64,
    #[serde(serialize_with = "rfc3339")]
    created_at: Timestamp,
}

#[derive(Default)]
struct Sum {
    calls: u64,
    successes: u64,
    failures: u64,
    usage: Usage,
    cost: BTreeMap<Currency, Nanos>,
    unpriced_calls: u64,
    response_time_ms: u64,
}

impl Sum {
    fn add(&mut self, row: &UsageRow) {
        self.calls += row.calls;
        self.successes += row.successes;
        self.failures += row.failures;
        self.usage.prompt_tokens += row.usage.prompt_tokens;
        self.usage.completion_tokens += row.usage.completion_tokens;
        self.usage.total_tokens += row.usage.total_tokens;
        self.usage.cached_tokens += row.usage.cached_tokens;
        self.usage.reasoning_tokens += row.usage.reasoning_tokens;
        for (currency, nanos) in &row.cost {
            *self.cost.entry(*currency).or_default() += nanos;
        }
        self.unpriced_calls += row.unpriced_calls;
        self.response_time_ms += row.response_time_ms;
    }
}

/// The rows of all users as rows by day and model, in that order. `user_id` is whom the question
/// named, and becomes part of the rows.
pub(in crate::api) fn statistics(rows: &[UsageRow], user_id: Option<&str>) -> Vec<StatisticsRow> {
    let mut sums: BTreeMap<(Day, &str), Sum> = BTreeMap::new();
    for row in rows {
        let key = (row.key.day, row.key.model.as_str());
        sums.entry(key).or_default().add(row);
    }
    sums.into_iter()
        .map(|((day, model), sum)| StatisticsRow::new(day, model, user_id, &sum))
        .collect()
}

impl StatisticsRow {
    fn new(day: Day, model: &str, user_id: Option<&str>, sum: &Sum) -> Self {
        let costs: Vec<Cost> = sum
            .cost
            .iter()
            .map(|(&currency, &nanos)| Cost { nanos, currency })
            .collect();
        // Two currencies don't add up: the larger amount stands in front, `costs` has both.
        let main = costs.iter().copied().max_by_key(|cost| cost.nanos);
        let total_cost = match main {
            Some(cost) => Some(decimal(cost)),
            None if sum.unpriced_calls > 0 => None,
            None => Some(zero()),
        };
        let id = match user_id {
            Some(user_id) => format!("{day}:{model}:{user_id}"),
            None => format!("{day}:{model}"),
        };
        Self {
            id,
            date: day.to_string(),
            model: model.to_owned(),
            user_id: user_id.map(str::to_owned),
            total_calls: sum.calls,
            successful_calls: sum.successes,
            failed_calls: sum.failures,
            total_tokens: sum.usage.total_tokens,
            prompt_tokens: sum.usage.prompt_tokens,
            completion_tokens: sum.usage.completion_tokens,
            cached_tokens: sum.usage.cached_tokens,
            reasoning_tokens: sum.usage.reasoning_tokens,
            total_cost,
            currency: main.map(|cost| cost.currency),
            costs: costs.into_iter().map(CostView::new).collect(),
            unpriced_calls: sum.unpriced_calls,
            average_response_time: (sum.response_time_ms + sum.successes / 2)
                .checked_div(sum.successes)
                .unwrap_or(0),
            created_at: day.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::model::UsageKey;
    use serde_json::{Value, json};

    use super::*;

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
                "unpricedCalls": 0, "averageResponseTime": 50,
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
}
