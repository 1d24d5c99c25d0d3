//! Statistics as a table for spreadsheets. Amounts are written from integers, never through floats.

use onelane_core::model::{Cost, Currency, FailureClass, SessionId};

use super::{Percentiles, StatisticsRow, share_decimal, tenths_decimal};
use crate::csv;

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

type Column = (&'static str, fn(&StatisticsRow) -> String);

const COLUMNS: [Column; 15] = [
    ("date", |row| name(&row.date)),
    ("model", |row| name(&row.model)),
    ("userId", |row| name(&row.user_id)),
    ("keyId", |row| {
        row.key_id.map(|key| key.to_string()).unwrap_or_default()
    }),
    ("session", |row| {
        let session = row.session.as_ref().map(SessionId::as_str);
        csv::text(session.unwrap_or_default()).into_owned()
    }),
    ("totalCalls", |row| row.total_calls.to_string()),
    ("successfulCalls", |row| row.successful_calls.to_string()),
    ("failedCalls", |row| row.failed_calls.to_string()),
    ("cancelledCalls", |row| row.cancelled_calls.to_string()),
    ("totalTokens", |row| row.usage.total_tokens.to_string()),
    ("promptTokens", |row| row.usage.prompt_tokens.to_string()),
    ("completionTokens", |row| {
        row.usage.completion_tokens.to_string()
    }),
    ("cachedTokens", |row| row.usage.cached_tokens.to_string()),
    ("reasoningTokens", |row| {
        row.usage.reasoning_tokens.to_string()
    }),
    ("cachedShare", |row| {
        row.cached_share_e4.map(share_decimal).unwrap_or_default()
    }),
];

const TIMES: [Column; 11] = [
    ("unpricedCalls", |row| row.unpriced_calls.to_string()),
    ("averageResponseTime", |row| {
        row.average_response_time_ms.to_string()
    }),
    ("p50", |row| time(row.percentiles, |times| times.p50)),
    ("p90", |row| time(row.percentiles, |times| times.p90)),
    ("p95", |row| time(row.percentiles, |times| times.p95)),
    ("p99", |row| time(row.percentiles, |times| times.p99)),
    ("firstToken.p50", |row| {
        time(row.first_token, |times| times.p50)
    }),
    ("firstToken.p90", |row| {
        time(row.first_token, |times| times.p90)
    }),
    ("firstToken.p95", |row| {
        time(row.first_token, |times| times.p95)
    }),
    ("firstToken.p99", |row| {
        time(row.first_token, |times| times.p99)
    }),
    ("tokensPerSecond", |row| {
        row.tokens_per_second_e1
            .map(tenths_decimal)
            .unwrap_or_default()
    }),
];

fn name(name: &Option<String>) -> String {
    csv::text(name.as_deref().unwrap_or_default()).into_owned()
}

fn time(times: Option<Percentiles>, which: fn(&Percentiles) -> u64) -> String {
    let time = times.as_ref().map(which);
    time.map(|ms| ms.to_string()).unwrap_or_default()
}

/// The header.
pub(crate) fn csv_head() -> String {
    let names = |columns: &'static [Column]| columns.iter().map(|(name, _)| (*name).into());
    let costs = CURRENCIES.map(|c| format!("totalCost.{}", c.code()).into());
    let failures = FailureClass::ALL.map(|class| format!("failed.{class}").into());
    let head = names(&COLUMNS).chain(costs).chain(names(&TIMES));
    csv::line(head.chain(failures))
}

/// A row.
pub(crate) fn csv_row(row: &StatisticsRow) -> String {
    let cells = |columns: &'static [Column]| columns.iter().map(|(_, cell)| cell(row).into());
    let amount = |currency| {
        let nanos = row.costs.get(&currency).copied();
        let amount = nanos.map(|nanos| Cost { nanos, currency }.decimal());
        amount.unwrap_or_default().into()
    };
    let failures = |class| {
        let count = row.failures_by_class.get(&class).copied();
        count.unwrap_or(0).to_string().into()
    };
    let line = cells(&COLUMNS)
        .chain(CURRENCIES.map(amount))
        .chain(cells(&TIMES));
    csv::line(line.chain(FailureClass::ALL.map(failures)))
}

#[cfg(test)]
mod tests {
    use onelane_actors::ports::UsageFilter;
    use onelane_core::model::{Calendar, Day, Nanos, Speed, Usage, UsageKey, UsageRow};
    use serde_json::{Value, json};

    use super::*;
    use crate::statistics::{GroupBy, StatisticsQuery, summarise};

    fn statistics(rows: &[UsageRow], user_id: Option<&str>) -> Vec<StatisticsRow> {
        let query = StatisticsQuery {
            filter: UsageFilter {
                user_id: user_id.map(str::to_owned),
                ..UsageFilter::default()
            },
            session: None,
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
            key_id: None,
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
                ..Usage::default()
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
                "totalCalls": 6, "successfulCalls": 4, "failedCalls": 2, "cancelledCalls": 0,
                "totalTokens": 60, "promptTokens": 20, "completionTokens": 40,
                "cachedTokens": 8, "reasoningTokens": 10,
                "totalCost": 0.300_000_003, "currency": "CNY",
                "costs": [{"cost": 0.300_000_003, "currency": "CNY"}],
                "unpricedCalls": 0, "averageResponseTime": 50, "percentiles": null,
                "firstToken": null, "tokensPerSecond": null,
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
        row.first_tokens.record(5);
        row.speed = Speed {
            tokens: 25,
            ms: 2_000,
        };
        row.failure_classes.insert(FailureClass::Throttle, 1);
        let text = to_csv(&statistics(&[row], None));
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(
            lines,
            [
                "date,model,userId,keyId,session,totalCalls,successfulCalls,failedCalls,cancelledCalls,totalTokens,promptTokens,\
                 completionTokens,cachedTokens,reasoningTokens,cachedShare,totalCost.CNY,totalCost.USD,\
                 totalCost.POINTS,unpricedCalls,averageResponseTime,p50,p90,p95,p99,firstToken.p50,\
                 firstToken.p90,firstToken.p95,firstToken.p99,tokensPerSecond,failed.throttle,failed.overload,\
                 failed.quota_window,failed.operator_fatal,failed.request_fatal,\
                 failed.server_transient,failed.unreachable,failed.unattributed,failed.duplicate_request,failed.foreign_answer",
                "2026-11-23,\"a, \"\"b\"\"\",,,,3,2,1,0,30,10,20,4,5,0.4000,,9007199.254740993,,\
                 0,50,7,7,7,7,5,5,5,5,12.5,1,0,0,0,0,0,0,0,0,0",
            ]
        );
        assert!(
            to_csv(&[]).starts_with("date,"),
            "the header is always there"
        );
    }
}
