//! `onelane usage`: what calls came to; and what `stats` and `db export` ask the daemon that has their store open.

use onelane::words::counted;

use super::client::{Daemon, Query};
use super::money;
use super::nouns::{Statistics, UsageRow};
use super::status::share;
use super::words::{grouped, seconds};
use crate::cli::args::remote::UsageArgs;
use crate::cli::args::{StatsArgs, StatsFormat};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// `onelane usage`.
pub(super) async fn usage(args: &UsageArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = Query::default()
        .maybe("startDate", args.start.as_ref())
        .maybe("endDate", args.end.as_ref())
        .maybe("model", args.model.as_ref())
        .maybe("userId", args.user.as_ref())
        .maybe("session", args.session.as_ref())
        .maybe("groupBy", args.group_by.as_ref());
    let query = match args.csv {
        true => query.with("format", "csv"),
        false => query,
    };
    let answer = daemon.get("/api/admin/glm/statistics", &query).await?;
    if args.csv {
        crate::cli::print(&answer.text)?;
        return Ok(Exit::Done);
    }
    answer.tell(json, |statistics: Statistics| text(&statistics))?;
    Ok(Exit::Done)
}

/// `onelane stats`, asked of a daemon.
pub(crate) async fn stats(args: &StatsArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let asked = UsageArgs {
        start: args.start.clone(),
        end: args.end.clone(),
        model: args.model.clone(),
        user: args.user.clone(),
        session: args.session.clone(),
        group_by: args.group_by.clone(),
        csv: args.format == Some(StatsFormat::Csv),
    };
    let json = match args.format {
        Some(format) => format == StatsFormat::Json,
        None => json,
    };
    usage(&asked, daemon, json).await
}

fn text(statistics: &Statistics) -> String {
    let rows = &statistics.statistics;
    if rows.is_empty() {
        return "no calls in that time".to_owned();
    }
    let name = |row: &UsageRow| {
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
    };
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
    if let Some(missing) = statistics.calls_not_in_log.filter(|missing| *missing > 0) {
        let calls = counted(missing, "call", "calls");
        out.push_str(&format!(
            "\n{calls} of that time in no row: the call log has them no more ({})",
            grouped(missing)
        ));
    }
    out
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
