//! Where the money went: what calls came to by day, model, user or client key.

use std::collections::BTreeMap;

use askama::Template;
use onelane_core::model::{Calendar, Cost, Currency, Day, KeyId, Nanos, Period};
use warp::http::header::CONTENT_DISPOSITION;

use super::asked::{Answered, Asked};
use super::chart::{self, Chart, Column};
use super::frame::{Frame, Nav};
use super::lists::{Field, Pairs, Tab, link, narrowed, of, with};
use super::show::{duration, money, number};
use super::terms::Terms;
use super::words::{Words, fill};
use crate::statistics::StatisticsRow;

/// By what usage is asked for: names of the API.
const NAMES: [&str; 6] = [
    "startDate",
    "endDate",
    "model",
    "userId",
    "session",
    "groupBy",
];
const BY: &str = "groupBy";
/// Rows of a page; the table for spreadsheets has all.
const ROWS: usize = 100;
/// Columns for so many days; for more there is one a month.
const DAYS_SHOWN: i32 = 92;

#[derive(Template)]
#[template(path = "usage.html")]
struct Usage {
    frame: Frame,
    t: &'static Terms,
    tabs: Vec<Tab>,
    fields: Vec<Field>,
    by: String,
    total: Option<Row>,
    chart: Option<Chart>,
    chart_says: String,
    rows: Vec<Row>,
    left_out: Option<String>,
    csv: String,
    has_meter: bool,
}

struct Row {
    name: String,
    href: Option<String>,
    calls: String,
    calls_href: String,
    failed: Option<String>,
    failed_href: String,
    prompt: String,
    completion: String,
    cached: Option<String>,
    cost: Option<String>,
    unpriced: Option<String>,
    half: Option<String>,
}

/// `GET /desk/usage`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (w, t) = (asked.words(), Terms::of(asked.look.lang));
    let given = narrowed(asked.queries(), &NAMES);
    let by = match of(&given, BY) {
        by if by.is_empty() => "day".to_owned(),
        by => by,
    };
    let grouped = |by: &str| with(&given, BY, Some(by));
    let (total, [start, end]) = asked.visit.statistics(&grouped("none")).await?;
    let by_time = match end.0.saturating_sub(start.0) < DAYS_SHOWN {
        true => "day",
        false => "month",
    };
    let (over_time, _) = asked.visit.statistics(&grouped(by_time)).await?;
    let mut found = match by == by_time {
        true => over_time.clone(),
        false => asked.visit.statistics(&grouped(&by)).await?.0,
    };
    let telling = Telling {
        asked: &asked,
        given: &given,
        days: [start, end],
        calendar: asked.lane().settings().calendar,
        t,
    };
    let total = total.rows.first();
    let currency = total.and_then(|total| total.currency);
    let chart = telling.chart(&over_time.rows, currency, by_time);
    found.rows.sort_by_key(|row| {
        let cost = row.costs.values().max().copied();
        std::cmp::Reverse((row.date.clone(), cost, row.total_calls))
    });
    let left_out = found.rows.len().saturating_sub(ROWS);
    let tab = |(by_this, text): (&str, &str)| Tab {
        href: link("/desk/usage", &grouped(by_this)),
        text: text.to_owned(),
        count: None,
        is_current: by == by_this,
    };
    let tabs = [
        ("day", t.by_day),
        ("month", t.by_month),
        ("model", w.col_model),
        ("user", w.col_user),
        ("key", w.key),
        ("session", w.session),
        ("day,model", t.by_day_model),
    ];
    let mut frame = asked.frame(Nav::Usage).await?;
    frame.is_live = false;
    let page = Usage {
        frame,
        t,
        tabs: tabs.into_iter().map(tab).collect(),
        fields: vec![
            Field::date("startDate", t.from, start.to_string()),
            Field::date("endDate", t.to, end.to_string()),
            Field::text("model", w.col_model, &given),
            Field::text("userId", w.col_user, &given),
        ],
        total: total.map(|row| telling.row(row)),
        chart,
        chart_says: match currency {
            Some(_) => fill(t.cost_over_time, &[word(by_time, t)]),
            None => fill(t.calls_over_time, &[word(by_time, t)]),
        },
        rows: found
            .rows
            .iter()
            .take(ROWS)
            .map(|row| telling.row(row))
            .collect(),
        left_out: (left_out > 0).then(|| fill(t.more_rows, &[&number(left_out as u64)])),
        csv: link("/desk/usage.csv", &grouped(&by)),
        has_meter: asked.lane().account().enabled,
        by,
    };
    asked.page(&page)
}

fn word(period: &str, t: &Terms) -> &'static str {
    match period {
        "month" => t.by_month,
        _ => t.by_day,
    }
}

/// `GET /desk/usage.csv`: what the API writes, for whoever has a session in place of a token.
pub(super) async fn csv(asked: Asked) -> Answered {
    let mut given = narrowed(asked.queries(), &NAMES);
    given.push(("format".to_owned(), "csv".to_owned()));
    let path = link("/api/admin/glm/statistics", &given);
    let file = asked.visit.file(&asked.principal(), &path).await?;
    Ok(file.with(CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""))
}

/// Amounts of several currencies, the largest first.
pub(super) fn costs(costs: &BTreeMap<Currency, Nanos>) -> Option<String> {
    let mut costs: Vec<_> = costs.iter().filter(|(_, nanos)| **nanos != 0).collect();
    costs.sort_by_key(|(_, nanos)| std::cmp::Reverse(**nanos));
    let told = costs.into_iter().map(|(currency, nanos)| {
        money(Cost {
            nanos: *nanos,
            currency: *currency,
        })
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(" + "))
}

/// A share in ten-thousandths as percent.
pub(super) fn share(e4: u64) -> String {
    format!("{}.{} %", e4 / 100, e4 % 100 / 10)
}

struct Telling<'a> {
    asked: &'a Asked,
    given: &'a Pairs,
    days: [Day; 2],
    calendar: Calendar,
    t: &'static Terms,
}

impl Telling<'_> {
    fn row(&self, row: &StatisticsRow) -> Row {
        let w: &Words = self.asked.words();
        let calls = self.calls(row);
        let failed = with(&calls, "outcome", Some("failed"));
        Row {
            name: self.name(row),
            href: self.deeper(row),
            calls: number(row.total_calls),
            calls_href: link("/desk/calls", &calls),
            failed: (row.failed_calls > 0).then(|| number(row.failed_calls)),
            failed_href: link("/desk/calls", &failed),
            prompt: number(row.usage.prompt_tokens),
            completion: number(row.usage.completion_tokens),
            cached: row.cached_share_e4.map(share),
            cost: costs(&row.costs),
            unpriced: (row.unpriced_calls > 0)
                .then(|| fill(w.unpriced, &[&number(row.unpriced_calls)])),
            half: row.percentiles.map(|times| duration(times.p50, w)),
        }
    }

    /// What a row is about, apart from what was asked for.
    fn name(&self, row: &StatisticsRow) -> String {
        let by = of(self.given, BY);
        let is_by = |name: &str| by.split(',').any(|by| by == name);
        let key = |id: KeyId| {
            let known = self.asked.lane().client_key(id).ok();
            known.map_or_else(|| id.to_string(), |key| key.name.clone())
        };
        let parts = [
            row.date.clone(),
            row.model.clone().filter(|_| is_by("model")),
            row.user_id.clone().filter(|_| is_by("user")),
            row.key_id
                .map(key)
                .or_else(|| is_by("key").then(|| self.t.no_key.to_owned())),
            row.session
                .as_ref()
                .map(|session| session.as_str().to_owned())
                .filter(|_| is_by("session")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => self.t.all.to_owned(),
            false => parts.join(" · "),
        }
    }

    /// The usage of what a row is about alone.
    fn deeper(&self, row: &StatisticsRow) -> Option<String> {
        let by = of(self.given, BY);
        let pairs = match by.as_str() {
            "model" => with(self.given, "model", row.model.as_deref()),
            "user" => with(self.given, "userId", row.user_id.as_deref()),
            "key" => {
                let key = row.key_id.map(|key| key.to_string())?;
                return Some(link("/desk/jobs", &[("keyId", key)]));
            }
            _ => return None,
        };
        Some(link("/desk/usage", &with(&pairs, BY, Some("day"))))
    }

    /// The calls that a row counts.
    fn calls(&self, row: &StatisticsRow) -> Pairs {
        let date = row.date.as_deref();
        let [first, last] = match date {
            Some(date) => match Day::parse(date) {
                Some(day) => [day, day],
                None => {
                    let [begin, _] = self.days;
                    let first = Day::parse(&format!("{date}-01")).unwrap_or(begin);
                    [first, Day(first.next_month().0.saturating_sub(1))]
                }
            },
            None => self.days,
        };
        let from = self.calendar.start_of(first).to_rfc3339();
        let to = Period::Day.end(&self.calendar, last).to_rfc3339();
        let session = row.session.as_ref().map(|session| session.as_str());
        let pairs = [
            ("model", row.model.as_deref()),
            ("userId", row.user_id.as_deref()),
            ("session", session),
            ("from", Some(&*from)),
            ("to", Some(&*to)),
        ];
        let says = |(name, value): (&str, Option<&str>)| Some((name.to_owned(), value?.to_owned()));
        pairs.into_iter().filter_map(says).collect()
    }

    fn chart(&self, rows: &[StatisticsRow], currency: Option<Currency>, by: &str) -> Option<Chart> {
        let value = |row: &StatisticsRow| match currency {
            Some(currency) => {
                let nanos = row.costs.get(&currency).copied().unwrap_or(0);
                u64::try_from(nanos).unwrap_or(0)
            }
            None => row.total_calls,
        };
        let tell = |value: u64| match currency {
            Some(currency) => money(Cost {
                nanos: i64::try_from(value).unwrap_or(i64::MAX),
                currency,
            }),
            None => number(value),
        };
        let known: BTreeMap<&str, &StatisticsRow> = rows
            .iter()
            .filter_map(|row| Some((row.date.as_deref()?, row)))
            .collect();
        let column = |date: String| {
            let Some(row) = known.get(date.as_str()) else {
                return Column {
                    label: date,
                    title: String::new(),
                    href: String::new(),
                    value: 0,
                };
            };
            let told = match currency {
                Some(_) => format!("{}, ", tell(value(row))),
                None => String::new(),
            };
            let calls = fill(self.t.n_calls, &[&number(row.total_calls)]);
            Column {
                title: format!("{date}: {told}{calls}"),
                href: link("/desk/calls", &self.calls(row)),
                value: value(row),
                label: date,
            }
        };
        let [start, end] = self.days;
        let dates: Vec<String> = match by {
            "day" => (start.0..=end.0).map(|day| Day(day).to_string()).collect(),
            _ => rows.iter().filter_map(|row| row.date.clone()).collect(),
        };
        chart::columns(dates.into_iter().map(column).collect(), tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_with_one_place_and_costs_by_size() {
        assert_eq!(share(6_123), "61.2 %");
        assert_eq!(share(10_000), "100.0 %");
        assert_eq!(share(5), "0.0 %");
        let both = BTreeMap::from([
            (Currency::Cny, 1_500_000_000),
            (Currency::Usd, 2_000_000_000),
        ]);
        assert_eq!(costs(&both).as_deref(), Some("$2 + ¥1.50"));
        assert_eq!(costs(&BTreeMap::from([(Currency::Cny, 0)])), None);
    }
}
