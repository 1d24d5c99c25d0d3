//! `onelane status`: what goes on, why something does not, and what it costs, on one screen.

use super::account::{Account, AccountAnswer};
use super::client::{Daemon, Query};
use super::money;
use super::nouns::{
    Budget, Budgets, Call, Hold, Lane, Metrics, Queue, Scheduler, Statistics, UsageRow,
};
use super::words::{ago, grouped, now, one_line, percent, seconds, short, until};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::{cut, places, width};
use onelane::model::Timestamp;

/// What `status` and `top` show.
pub(super) struct Seen {
    pub(super) metrics: Metrics,
    pub(super) next: Queue,
    pub(super) budgets: Vec<Budget>,
    /// The latest day with calls.
    pub(super) day: Option<UsageRow>,
    /// What GLM told of the account.
    account: Account,
    /// The answers as they came.
    raw: [String; 5],
}

/// Asks for all of it.
pub(super) async fn look(daemon: &Daemon, next: usize) -> Result<Seen, CliError> {
    let none = Query::default();
    let service = none.clone().with("order", "service").with("limit", next);
    let by_day = none.clone().with("groupBy", "day");
    let (metrics, next, budgets, days, account) = tokio::try_join!(
        daemon.get("/api/admin/glm/metrics", &none),
        daemon.get("/api/admin/glm/queue", &service),
        daemon.get("/api/admin/glm/budgets", &none),
        daemon.get("/api/admin/glm/statistics", &by_day),
        daemon.get("/api/admin/glm/account", &none),
    )?;
    let rows = days.read::<Statistics>()?.statistics;
    Ok(Seen {
        metrics: metrics.read()?,
        next: next.read()?,
        budgets: budgets.read::<Budgets>()?.budgets,
        day: rows.into_iter().max_by(|a, b| a.date.cmp(&b.date)),
        account: account.read::<AccountAnswer>()?.account,
        raw: [
            metrics.text,
            next.text,
            budgets.text,
            days.text,
            account.text,
        ],
    })
}

/// `onelane status`. Ends with 4 while an operator has to act.
pub(super) async fn status(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let seen = look(daemon, 1).await?;
    match json {
        true => crate::cli::say(&seen.document())?,
        false => crate::cli::say(&text(&seen, now()))?,
    }
    let for_operator = |hold: &Hold| hold.kind == "operator" && hold.scope == "account";
    match seen.metrics.lane.holds.iter().any(for_operator) {
        true => Ok(Exit::Held),
        false => Ok(Exit::Done),
    }
}

impl Seen {
    /// The answers as one, for a program.
    pub(super) fn document(&self) -> String {
        let [metrics, next, budgets, days, account] = self.raw.each_ref().map(|text| text.trim());
        format!(
            "{{\"metrics\":{metrics},\"next\":{next},\"budgets\":{budgets},\"days\":{days},\"account\":{account}}}"
        )
    }
}

/// For a person.
pub(super) fn text(seen: &Seen, now: Timestamp) -> String {
    let Seen {
        metrics,
        next,
        budgets,
        day,
        ..
    } = seen;
    let mut lines = stops(&metrics.lane, now);
    lines.extend(
        metrics
            .lane
            .lanes
            .iter()
            .map(|lane| line("lane", &of_lane(lane, metrics, now))),
    );
    lines.push(line("queue", &waiting(metrics)));
    if let Some(job) = next.queue.first() {
        let (id, user) = (short(&job.id), &job.user_id);
        lines.push(line(
            "next",
            &format!("{id} {user:<12} priority {}  {}", job.priority, job.model),
        ));
    }
    lines.push(line("calls", &latest(metrics)));
    lines.extend(day.as_ref().map(|day| line("spend", &spend(day))));
    for budget in budgets
        .iter()
        .filter(|budget| budget.user_id.is_none() && budget.key_id.is_none())
    {
        let (spent, limit) = (budget.spent.text(), budget.limit.text());
        let until = until(budget.until, now);
        lines.push(line(
            "budget",
            &format!("{}: {spent} of {limit}, ends {until}", budget.budget),
        ));
    }
    for (_, window) in seen.account.windows(now) {
        lines.push(line("quota", &window));
    }
    lines.extend(seen.account.balance().map(|left| line("balance", &left)));
    if metrics.maybe_billed > 0 {
        let told = format!(
            "{} calls may have been billed; an operator decides",
            metrics.maybe_billed
        );
        lines.push(line("doubt", &told));
    }
    for alert in &metrics.active_alerts {
        lines.push(line("alert", &alert.message));
    }
    let width = width();
    let lines = lines.iter().map(|line| cut(line, width));
    lines.collect::<Vec<_>>().join("\n")
}

fn line(name: &str, told: &str) -> String {
    format!("{name:<8}{}", one_line_kept(told))
}

/// What is to be read to its end, on as many lines as it takes, beneath what has a name.
fn wrapped(told: &str) -> Vec<String> {
    let room = width().saturating_sub(line("", "").len());
    let mut lines: Vec<String> = Vec::new();
    for word in told.split_whitespace() {
        match lines.last_mut() {
            Some(last) if places(last) + 1 + places(word) <= room => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|told| line("", told)).collect()
}

/// On one line, its columns kept.
fn one_line_kept(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}

/// What stops the lanes, and what to do about it.
pub(super) fn stops(lane: &Scheduler, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = &lane.wait_reason {
        lines.push(line(word(&reason.name), &reason.told(now)));
        if let Some(help) = &reason.help {
            lines.extend(wrapped(help));
        }
    }
    let told = lane.wait_reason.as_ref();
    for hold in &lane.holds {
        let is_told = told.is_some_and(|told| {
            told.scope.as_ref() == Some(&hold.scope)
                && [&told.lane, &told.model].contains(&&hold.name)
        });
        if !is_told {
            lines.push(line("held", &of_hold(hold, now)));
        }
    }
    if let Some(draining) = &lane.draining {
        let is_told = told.is_some_and(|told| told.name == "draining");
        if !is_told {
            let reason = draining.reason.as_deref().unwrap_or("no reason given");
            let since = ago(draining.since, now);
            lines.push(line(
                "drain",
                &format!("the intake is closed, {since}: {reason}"),
            ));
        }
    }
    lines
}

/// A stop in a word.
fn word(name: &str) -> &str {
    match name {
        "hold" => "held",
        "paused" | "inactive" => "paused",
        "draining" => "drain",
        "breaker" | "probe" => "breaker",
        _ => "waits",
    }
}

/// A hold in a line.
pub(super) fn of_hold(hold: &Hold, now: Timestamp) -> String {
    let what = match &hold.name {
        Some(name) => format!("{} {name}", hold.scope),
        None => hold.scope.clone(),
    };
    let ends = match hold.until {
        Some(at) if hold.kind != "operator" => until(at, now),
        _ => "when an operator acts".to_owned(),
    };
    format!(
        "{what}: goes on {ends}; {}: {}",
        hold.code,
        one_line(&hold.message)
    )
}

fn of_lane(lane: &Lane, metrics: &Metrics, now: Timestamp) -> String {
    let slots = match lane.limit < lane.max_concurrency {
        true => format!("{} of {} slots", lane.limit, lane.max_concurrency),
        false => match lane.max_concurrency {
            1 => "1 slot".to_owned(),
            slots => format!("{slots} slots"),
        },
    };
    let mut told = format!("{}   {slots}, {} busy", lane.name, lane.in_flight);
    if metrics.lane.lanes.len() == 1
        && let Some(call) = metrics.recent_calls.first()
    {
        told.push_str(&format!("; last call {}", ago(call.ended_at, now)));
    }
    if let Some(reason) = &lane.wait_reason {
        told.push_str(&format!("; {}", reason.told(now)));
    }
    told
}

/// How many wait, and why: the API's own names of the reasons, the commonest first.
pub(super) fn waiting(metrics: &Metrics) -> String {
    let counts = metrics.lane.wait_counts.iter();
    let mut counts: Vec<_> = counts.filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let parts = counts
        .iter()
        .map(|(name, count)| format!("{name} {}", grouped(**count)));
    let parts: Vec<String> = parts.collect();
    let pending = grouped(metrics.jobs.pending);
    match parts.is_empty() {
        true => format!("{pending} waiting, {} running", metrics.jobs.processing),
        false => format!("{pending:<8} {}", parts.join(" · ")),
    }
}

fn latest(metrics: &Metrics) -> String {
    let jobs = &metrics.jobs;
    let done = format!(
        "{} done, {} failed",
        grouped(jobs.completed),
        grouped(jobs.failed)
    );
    match metrics.recent_calls.is_empty() {
        true => format!("{done}; no call yet"),
        false => format!(
            "{done}; of the latest {} failed, answer {}",
            percent(metrics.error_rate),
            seconds(metrics.average_response_time)
        ),
    }
}

fn spend(day: &UsageRow) -> String {
    let date = day.date.as_deref().unwrap_or("-");
    let cost = money::costs(&day.costs, day.unpriced_calls);
    let calls = grouped(day.total_calls);
    match cached(day) {
        Some(cached) => format!("{date}: {cost}, {calls} calls, cached {cached}"),
        None => format!("{date}: {cost}, {calls} calls"),
    }
}

/// The share of the prompts that GLM had in its cache.
pub(super) fn cached(row: &UsageRow) -> Option<String> {
    share(row.cached_tokens, row.prompt_tokens)
}

/// One number as a share of another.
pub(super) fn share(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| percent(part as f64 / whole as f64))
}

/// A call in cells: when, job, user, model, how long, tokens, cost, end.
pub(super) fn call_cells(call: &Call, now: Timestamp) -> [String; 8] {
    let took = call.ended_at.since(call.timestamp);
    [
        ago(call.ended_at, now),
        short(&call.request_id),
        call.user_id.clone(),
        call.model.clone(),
        seconds(took as f64),
        call.response.tokens_used.unwrap_or(0).to_string(),
        money::costs(&call.costs(), u64::from(call.unpriced)),
        one_line(&call.end()),
    ]
}
