//! Which model to use: how fast each answered, how often it failed and why, what an answer cost, side by side.

use askama::Template;
use onelane_core::model::{Cost, Day, FailureClass};

use super::asked::{Answered, Asked};
use super::chart::{self, Spread, Spreads};
use super::frame::{Frame, Nav};
use super::lists::{Pairs, Tab, link};
use super::show::{duration, money, number, percent};
use super::terms::Terms;
use super::usage::share;
use super::words::{Words, fill};
use crate::statistics::{Percentiles, StatisticsRow, tenths_decimal};

/// Models of a page.
const ROWS: usize = 60;
/// Over so many days one can look back.
const DAYS: [u32; 4] = [1, 7, 30, 90];
const DAYS_FIRST: u32 = 30;

#[derive(Template)]
#[template(path = "models.html")]
struct Models {
    frame: Frame,
    t: &'static Terms,
    tabs: Vec<Tab>,
    picture: Option<Spreads>,
    rows: Vec<Row>,
    left_out: Option<String>,
}

struct Row {
    model: String,
    usage_href: String,
    calls: String,
    calls_href: String,
    failed: Option<String>,
    failed_href: String,
    classes: Vec<(&'static str, String)>,
    times: Option<Times>,
    first_token: Option<Times>,
    per_second: Option<String>,
    cost: Option<String>,
    cached: Option<String>,
}

struct Times {
    half: String,
    rest: String,
}

/// `GET /desk/models`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (w, t) = (asked.words(), Terms::of(asked.look.lang));
    let wanted = asked.query("days").and_then(|days| days.parse().ok());
    let days = DAYS.into_iter().find(|days| Some(*days) == wanted);
    let days = days.unwrap_or(DAYS_FIRST);
    let calendar = asked.lane().settings().calendar;
    let today = calendar.day(asked.visit.now());
    let first = Day(today.0.saturating_sub_unsigned(days - 1));
    let given: Pairs = vec![
        ("startDate".to_owned(), first.to_string()),
        ("groupBy".to_owned(), "model".to_owned()),
    ];
    let (mut found, _) = asked.visit.statistics(&given).await?;
    found
        .rows
        .sort_by_key(|row| std::cmp::Reverse(row.total_calls));
    let left_out = found.rows.len().saturating_sub(ROWS);
    found.rows.truncate(ROWS);
    let from = calendar.start_of(first).to_rfc3339();
    let spreads = found.rows.iter().filter_map(|row| {
        let (times, model) = (row.percentiles?, row.model.clone()?);
        let [half, most, nearly] = [times.p50, times.p90, times.p99].map(|ms| duration(ms, w));
        Some(Spread {
            title: format!("{model}: {half} · {most} · {nearly}"),
            label: model,
            ms: [times.p50, times.p90, times.p99],
        })
    });
    let tab = |of: u32| Tab {
        href: link("/desk/models", &[("days", of.to_string())]),
        text: match of {
            1 => t.today.to_owned(),
            _ => fill(t.days, &[&of.to_string()]),
        },
        count: None,
        is_current: of == days,
    };
    let mut frame = asked.frame(Nav::Models).await?;
    frame.is_live = false;
    let page = Models {
        frame,
        t,
        tabs: DAYS.into_iter().map(tab).collect(),
        picture: chart::spreads(spreads.collect(), |ms| duration(ms, w)),
        rows: found
            .rows
            .iter()
            .map(|row| Row::of(row, (&first.to_string(), &from), w, t))
            .collect(),
        left_out: (left_out > 0).then(|| fill(t.more_models, &[&number(left_out as u64)])),
    };
    asked.page(&page)
}

/// What an answer cost on average; `None`: of some it is not known, or none came.
fn per_answer(row: &StatisticsRow) -> Option<Cost> {
    let (nanos, currency) = (row.total_cost?, row.currency?);
    let answers = i64::try_from(row.successful_calls).ok()?;
    let nanos = nanos.checked_div(answers)?;
    (row.unpriced_calls == 0).then_some(Cost { nanos, currency })
}

/// A class of failures in a word or two.
pub(super) const fn class_word(class: FailureClass, t: &Terms) -> &'static str {
    match class {
        FailureClass::Throttle => t.class_throttle,
        FailureClass::Overload => t.class_overload,
        FailureClass::QuotaWindow => t.class_quota,
        FailureClass::OperatorFatal => t.class_operator,
        FailureClass::RequestFatal => t.class_request,
        FailureClass::ServerTransient => t.class_server,
        FailureClass::Unreachable => t.class_unreachable,
        FailureClass::Unattributed => t.class_unattributed,
        FailureClass::DuplicateRequest => t.class_duplicate,
        FailureClass::ForeignAnswer => t.class_foreign,
    }
}

impl Row {
    fn of(row: &StatisticsRow, (day, from): (&str, &str), w: &Words, t: &Terms) -> Self {
        let model = row.model.clone().unwrap_or_default();
        let calls = [("model", &*model), ("from", from)];
        let failed = [("model", &*model), ("from", from), ("outcome", "failed")];
        let usage = [("model", &*model), ("startDate", day)];
        let ended = row.successful_calls + row.failed_calls;
        let share_of = |part: u64| (ended > 0).then(|| percent(part as f64 / ended as f64));
        let times = |times: Percentiles| Times {
            half: duration(times.p50, w),
            rest: [times.p90, times.p99].map(|ms| duration(ms, w)).join(" · "),
        };
        let mut classes: Vec<_> = row.failures_by_class.iter().collect();
        classes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        Self {
            usage_href: link("/desk/usage", &usage),
            calls: number(row.total_calls),
            calls_href: link("/desk/calls", &calls),
            failed: (row.failed_calls > 0)
                .then(|| share_of(row.failed_calls))
                .flatten(),
            failed_href: link("/desk/calls", &failed),
            classes: classes
                .into_iter()
                .map(|(class, count)| (class_word(*class, t), number(*count)))
                .collect(),
            times: row.percentiles.map(times),
            first_token: row.first_token.map(times),
            per_second: row
                .tokens_per_second_e1
                .map(|tenths| fill(t.per_second, &[&tenths_decimal(tenths)])),
            cost: per_answer(row).map(money),
            cached: row.cached_share_e4.map(share),
            model,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onelane_core::model::{Timestamp, Usage};
    use warp::http::HeaderMap;

    use super::super::asked::Look;
    use super::super::words::Lang;
    use super::*;

    #[test]
    fn what_an_older_version_did_not_measure_is_a_dash_that_says_why() {
        let row = StatisticsRow {
            id: String::new(),
            date: None,
            model: Some("glm-4.7".to_owned()),
            user_id: None,
            key_id: None,
            session: None,
            total_calls: 3,
            successful_calls: 3,
            failed_calls: 0,
            cancelled_calls: 0,
            failures_by_class: BTreeMap::new(),
            usage: Usage::default(),
            cached_share_e4: None,
            total_cost: None,
            currency: None,
            costs: BTreeMap::new(),
            unpriced_calls: 0,
            average_response_time_ms: 5,
            percentiles: None,
            first_token: None,
            tokens_per_second_e1: None,
            created_at: Timestamp::from_millis(0),
        };
        let look = Look::of(&HeaderMap::new());
        let (w, t) = (look.words(), Terms::of(look.lang));
        let page = Models {
            frame: Frame::bare(look, String::new(), String::new()),
            t,
            tabs: Vec::new(),
            picture: None,
            rows: vec![Row::of(&row, ("2026-11-01", ""), w, t)],
            left_out: None,
        };
        let page = page.render().unwrap();
        for why in [t.no_speed, t.no_first_token] {
            let dash = format!("title=\"{why}\">{}</td>", w.none);
            assert!(page.contains(&dash), "{page}");
        }
    }

    #[test]
    fn every_class_of_failures_has_a_word() {
        for lang in [Lang::En, Lang::Zh] {
            let words = FailureClass::ALL.map(|class| class_word(class, Terms::of(lang)));
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}
