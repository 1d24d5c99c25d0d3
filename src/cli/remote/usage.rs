//! `onelane usage`: what calls came to; and what `stats` and `db export` ask the daemon that has their store open.

use onelane::words::counted;

use super::client::{Daemon, Query};
use super::money;
use super::nouns::{Percentiles, Statistics, UsageRow};
use super::status::share;
use super::words::{grouped, seconds};
use crate::cli::args::remote::UsageArgs;
use crate::cli::args::{StatsArgs, StatsFormat, SumsArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// `onelane usage`.
pub(super) async fn usage(args: &UsageArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    summed(&args.sums, args.csv, daemon, json).await
}

/// `onelane stats`, asked of a daemon.
pub(crate) async fn stats(args: &StatsArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let json = match args.format {
        Some(format) => format == StatsFormat::Json,
        None => json,
    };
    let csv = args.format == Some(StatsFormat::Csv);
    summed(&args.sums, csv, daemon, json).await
}

async fn summed(sums: &SumsArgs, csv: bool, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = Query::default()
        .maybe("startDate", sums.start.as_ref())
        .maybe("endDate", sums.end.as_ref())
        .maybe("model", sums.model.as_ref())
        .maybe("userId", sums.user.as_ref())
        .maybe("session", sums.session.as_ref())
        .maybe("groupBy", sums.group_by.as_ref());
    let query = match csv {
        true => query.with("format", "csv"),
        false => query,
    };
    let answer = daemon.get("/api/admin/glm/statistics", &query).await?;
    if csv {
        crate::cli::print(&answer.text)?;
        return Ok(Exit::Done);
    }
    answer.tell(json, |statistics: Statistics| text(&statistics))?;
    Ok(Exit::Done)
}

fn text(statistics: &Statistics) -> String {
    let rows = &statistics.statistics;
    if rows.is_empty() {
        return "no calls in that time".to_owned();
    }
    let cells = |name: String, row: &UsageRow| {
        let dash = || "-".to_owned();
        [
            name,
            row.total_calls.to_string(),
            row.failed_calls.to_string(),
            row.total_tokens.to_string(),
            share(row.cached_tokens, row.prompt_tokens).unwrap_or_else(dash),
            money::costs(&row.costs, row.unpriced_calls),
            seconds(row.average_response_time as f64),
            row.percentiles
                .map_or_else(dash, |percentiles| seconds(percentiles.p95 as f64)),
        ]
    };
    let mut lines: Vec<_> = rows.iter().map(|row| cells(name(row), row)).collect();
    if let Some(total) = total(rows) {
        let mut cells = cells("total".to_owned(), &total);
        // Neither a mean of means nor a percentile of percentiles says anything.
        for cell in cells.iter_mut().skip(6) {
            "-".clone_into(cell);
        }
        lines.push(cells);
    }
    let head = [
        "OF", "CALLS", "FAILED", "TOKENS", "CACHED", "COST", "MEAN", "P95",
    ];
    let mut out = fitting(head, &lines);
    if let Some(speeds) = speeds(rows) {
        out.push_str("\n\n");
        out.push_str(&speeds);
    }
    if let Some(missing) = statistics.calls_not_in_log.filter(|missing| *missing > 0) {
        let calls = counted(missing, "call", "calls");
        out.push_str(&format!(
            "\n{calls} of that time in no row: the call log has them no more ({})",
            grouped(missing)
        ));
    }
    out
}

/// What a row is about.
fn name(row: &UsageRow) -> String {
    let parts = [
        &row.date,
        &row.model,
        &row.user_id,
        &row.key_id,
        &row.session,
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    match parts.is_empty() {
        true => "all".to_owned(),
        false => parts.join(" "),
    }
}

/// How long answers took to begin and how fast they came, of the rows in which that was measured.
fn speeds(rows: &[UsageRow]) -> Option<String> {
    let is_known = |row: &&UsageRow| row.first_token.is_some() || row.tokens_per_second.is_some();
    let cells = |row: &UsageRow| {
        let first = |which: fn(&Percentiles) -> u64| {
            let ms = row.first_token.as_ref().map(which);
            ms.map_or_else(|| "-".to_owned(), |ms| seconds(ms as f64))
        };
        [
            name(row),
            first(|times| times.p50),
            first(|times| times.p90),
            first(|times| times.p99),
            per_second(row.tokens_per_second),
        ]
    };
    let lines: Vec<_> = rows.iter().filter(is_known).map(cells).collect();
    let head = ["OF", "FIRST TOKEN P50", "P90", "P99", "TOKENS/S"];
    (!lines.is_empty()).then(|| fitting(head, &lines))
}

/// Tokens a second.
pub(super) fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn total(rows: &[UsageRow]) -> Option<UsageRow> {
    let (first, others) = rows.split_first()?;
    let mut total = first.clone();
    for row in others {
        total.total_calls += row.total_calls;
        total.failed_calls += row.failed_calls;
        total.total_tokens += row.total_tokens;
        total.prompt_tokens += row.prompt_tokens;
        total.cached_tokens += row.cached_tokens;
        total.unpriced_calls += row.unpriced_calls;
        money::add(&mut total.costs, &row.costs);
    }
    Some(total)
}

/// `onelane db export` to standard output or a file, asked of a daemon.
pub(crate) async fn export(
    what: &str,
    format: &str,
    daemon: &Daemon,
    out: &mut dyn std::io::Write,
) -> Result<std::io::Result<u64>, CliError> {
    let query = Query::default().with("what", what).with("format", format);
    let mut parts = daemon.stream("/api/admin/glm/export", &query).await?;
    let mut lines = 0;
    while let Some(part) = parts.part().await? {
        lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Err(error) = out.write_all(&part) {
            return Ok(Err(error));
        }
    }
    Ok(out.flush().map(|()| lines))
}
