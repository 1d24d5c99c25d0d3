//! `onelane stats`: sums of calls, from a store that no lane runs on.

use onelane::model::{Calendar, Cost, Currency, Day, NoSessionId, SessionId};
use onelane::ports::{Clock as _, UsageFilter};
use onelane::statistics::{
    self, GroupBy, Statistics, StatisticsError, StatisticsQuery, StatisticsRow, tenths_decimal,
    to_csv,
};
use onelane::system::SystemClock;
use onelane::words::counted;
use serde::Serialize;

use super::args::{StatsArgs, StatsFormat, SumsArgs};
use super::exit::{CliError, Exit};
use super::{offline, table};

/// Tells the sums.
pub(crate) fn stats(args: &StatsArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(&args.store)?;
    let calendar = offline.settings().calendar;
    let query = query(&args.sums, calendar)?;
    let UsageFilter { start, end, .. } = query.filter;
    let summed = statistics::of_store(&offline.store, query);
    let Statistics {
        rows,
        calls_not_in_log,
    } = summed.map_err(|error| match error {
        StatisticsError::Store(error) => error.into(),
        error @ StatisticsError::TooMany { .. } => CliError::usage(format!("--group-by {error}")),
    })?;
    let format = match args.format {
        Some(format) => format,
        None if json => StatsFormat::Json,
        None => StatsFormat::Table,
    };
    let missing = calls_not_in_log.filter(|missing| *missing > 0 && format != StatsFormat::Json);
    if let Some(missing) = missing {
        let calls = counted(missing, "call", "calls");
        super::note(&format!(
            "{calls} of that time in no row: sessions are summed from the call log, which has them no more"
        ));
    }
    match format {
        StatsFormat::Json => {
            let body = Body {
                statistics: &rows,
                calls_not_in_log,
            };
            super::answer(true, &body, |_| String::new())?;
        }
        StatsFormat::Csv => super::print(&to_csv(&rows))?,
        StatsFormat::Table if rows.is_empty() => {
            super::note(&format!("no calls from {start} to {end}"));
        }
        StatsFormat::Table => super::say(&as_table(&rows))?,
    }
    Ok(Exit::Done)
}

/// As the API tells it. Written in one go: on the way through a JSON value amounts would become floats.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    statistics: &'a [StatisticsRow],
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_not_in_log: Option<u64>,
}

fn query(args: &SumsArgs, calendar: Calendar) -> Result<StatisticsQuery, CliError> {
    let today = calendar.day(SystemClock.now());
    let day = |name: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| {
                Day::parse(text).ok_or_else(|| {
                    CliError::usage(format!("{name} {text} is not a day of the calendar"))
                        .help("give a day as YYYY-MM-DD, e.g. 2026-11-23")
                })
            })
            .transpose()
    };
    let end = day("--end", &args.end)?.unwrap_or(today);
    let group_by = match &args.group_by {
        None => GroupBy::default(),
        Some(text) => GroupBy::parse(text)
            .map_err(|problem| CliError::usage(format!("--group-by {text:?} {problem}")))?,
    };
    let session = args.session.as_deref().map(str::parse).transpose();
    let session =
        session.map_err(|problem: NoSessionId| CliError::usage(format!("--session {problem}")))?;
    let start = day("--start", &args.start)?;
    let start = start.unwrap_or(statistics::first_day(end, group_by, session.as_ref()));
    if start > end {
        return Err(CliError::usage(format!(
            "--start {start} is after the last day, {end}"
        )));
    }
    Ok(StatisticsQuery {
        session,
        filter: UsageFilter {
            start,
            end,
            model: args.model.clone(),
            user_id: args.user.clone(),
        },
        group_by,
        calendar,
    })
}

const HEAD: [&str; 20] = [
    "DATE",
    "MODEL",
    "USER",
    "SESSION",
    "CALLS",
    "FAILED",
    "TOKENS",
    "CACHED",
    "CNY",
    "USD",
    "POINTS",
    "UNPRICED",
    "MEAN MS",
    "P50",
    "P95",
    "P99",
    "FIRST P50",
    "P90",
    "P99",
    "TOKENS/S",
];

fn as_table(rows: &[StatisticsRow]) -> String {
    let cells = |row: &StatisticsRow| {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        let amount = |currency| {
            let nanos = row.costs.get(&currency).copied();
            let amount = nanos.map(|nanos| Cost { nanos, currency }.decimal());
            amount.unwrap_or_else(|| "-".to_owned())
        };
        let share = row.cached_share_e4;
        let session = row.session.as_ref();
        let (times, first) = (row.percentiles.as_ref(), row.first_token.as_ref());
        let ms = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        [
            name(&row.date),
            name(&row.model),
            name(&row.user_id),
            session.map_or("-", SessionId::as_str).to_owned(),
            row.total_calls.to_string(),
            row.failed_calls.to_string(),
            row.usage.total_tokens.to_string(),
            share.map_or_else(
                || "-".to_owned(),
                |share| format!("{}.{:02}%", share / 100, share % 100),
            ),
            amount(Currency::Cny),
            amount(Currency::Usd),
            amount(Currency::Points),
            row.unpriced_calls.to_string(),
            row.average_response_time_ms.to_string(),
            ms(times.map(|t| t.p50)),
            ms(times.map(|t| t.p95)),
            ms(times.map(|t| t.p99)),
            ms(first.map(|t| t.p50)),
            ms(first.map(|t| t.p90)),
            ms(first.map(|t| t.p99)),
            row.tokens_per_second_e1
                .map_or_else(|| "-".to_owned(), tenths_decimal),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table::table(HEAD, &rows)
}
