//! `onelane jobs`: what waits, runs and has ended.

use serde::Deserialize;
use serde_json::json;

use super::client::Daemon;
use super::events;
use super::money;
use super::nouns::{Job, Queue};
use super::selection::{self, Order, carry_out};
use super::submit;
use super::words::{ago, clock, grouped, now, one_line, seconds, short, until, with_clocks};
use crate::cli::args::remote::{JobsVerb, ListJobsArgs, MoveArgs, ShowJobArgs, TailArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::{cut, fitting};
use onelane::model::Timestamp;

/// Characters of a prompt and an answer that `show` tells, unless it shall tell all.
const SHOWN_CHARS: usize = 600;

/// Dispatches to the verb.
pub(super) async fn jobs(verb: JobsVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        JobsVerb::Ls(args) => list(&args, daemon, json).await,
        JobsVerb::Show(args) => show(&args, daemon, json).await,
        JobsVerb::Submit(args) => submit::submit(args, daemon, json).await,
        JobsVerb::Wait(args) => submit::wait(&args, daemon, json).await,
        JobsVerb::Cancel(args) => {
            let done = "cancelled";
            let order = Order {
                path: "cancel",
                done,
                with: None,
            };
            carry_out(order, &args, daemon, json).await
        }
        JobsVerb::Retry(args) => {
            let done = "requeued";
            let order = Order {
                path: "retry",
                done,
                with: None,
            };
            carry_out(order, &args, daemon, json).await
        }
        JobsVerb::Move(MoveArgs { priority, select }) => {
            let order = Order {
                path: "reprioritise",
                done: "moved",
                with: Some(("priority", json!(priority))),
            };
            carry_out(order, &select, daemon, json).await
        }
        JobsVerb::Tail(args) => tail(&args, daemon, json).await,
    }
}

async fn list(args: &ListJobsArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = args.filter.query().with("limit", args.limit.clamp(1, 500));
    let query = query.maybe("cursor", args.cursor.as_ref());
    let answer = daemon.get("/api/admin/glm/queue", &query).await?;
    answer.tell(json, |queue: Queue| text(&queue, now()))?;
    Ok(Exit::Done)
}

fn text(queue: &Queue, now: Timestamp) -> String {
    if queue.queue.is_empty() {
        return "no job is like that".to_owned();
    }
    let row = |job: &Job| {
        [
            short(&job.id),
            job.status.clone(),
            job.user_id.clone(),
            job.priority.to_string(),
            job.model.clone(),
            ago(job.created_at, now),
            about(job, now),
        ]
    };
    let rows: Vec<_> = queue.queue.iter().map(row).collect();
    let head = [
        "JOB", "STATUS", "USER", "PRIORITY", "MODEL", "CREATED", "ABOUT",
    ];
    let mut out = fitting(head, &rows);
    let more = queue.total.saturating_sub(rows.len() as u64);
    match &queue.next_cursor {
        Some(cursor) if more > 0 => out.push_str(&format!(
            "\n{} in all, {} more: --cursor {cursor}",
            grouped(queue.total),
            grouped(more)
        )),
        _ => out.push_str(&format!("\n{} in all", grouped(queue.total))),
    }
    out
}

/// What there is to say of a job in its state.
fn about(job: &Job, now: Timestamp) -> String {
    if let Some(reason) = &job.wait_reason {
        return one_line(&with_clocks(&reason.text, now));
    }
    if let (Some(error), true) = (&job.error_message, job.status != "completed") {
        return one_line(error);
    }
    if let Some(at) = job.started_at.filter(|_| job.status == "processing") {
        return format!("its call is open, begun {}", ago(at, now));
    }
    let said = job.result_preview.as_ref().or(job.prompt.as_ref());
    said.map(|text| one_line(text)).unwrap_or_default()
}

#[derive(Deserialize)]
struct One {
    job: Job,
}

async fn show(args: &ShowJobArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let id = selection::job(daemon, &args.job).await?;
    let path = format!("/api/admin/glm/queue/{id}");
    let answer = daemon.get(&path, &super::client::Query::default()).await?;
    answer.tell(json, |One { job }| describe(&job, args.full, now()))?;
    Ok(Exit::Done)
}

fn describe(job: &Job, full: bool, now: Timestamp) -> String {
    let mut lines = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<10} {value}")));
    };
    let at = |at: Timestamp| format!("{} ({})", clock(at, now), ago(at, now));
    add("job", Some(job.id.clone()));
    add("status", Some(job.status.clone()));
    add(
        "why",
        job.wait_reason.as_ref().map(|reason| reason.told(now)),
    );
    add(
        "help",
        job.wait_reason
            .as_ref()
            .and_then(|reason| reason.help.clone()),
    );
    add("user", Some(job.user_id.clone()));
    add("model", Some(job.model.clone()));
    add("priority", Some(job.priority.to_string()));
    add("content", job.content_id.clone());
    add("batch", job.batch_id.clone());
    add("session", job.session.clone());
    add("created", Some(at(job.created_at)));
    add("started", job.started_at.map(at));
    add("ended", job.processed_at.map(at));
    add(
        "retries",
        Some(format!("{} of {}", job.retry_count, job.max_retries)),
    );
    let error = job.error_message.clone();
    add("error", error.filter(|_| job.status != "completed"));
    let whole = |text: &str| match full || text.chars().count() <= SHOWN_CHARS {
        true => text.to_owned(),
        false => format!(
            "{}… (--full shows all)",
            text.chars().take(SHOWN_CHARS).collect::<String>()
        ),
    };
    add("prompt", job.prompt.as_deref().map(whole));
    let answer = submit::answer_text(job).or_else(|| job.result_preview.clone());
    add("answer", answer.as_deref().map(whole));
    if job.attempts.is_empty() {
        return lines.join("\n");
    }
    let row = |call: &super::nouns::Call| {
        [
            call.attempt.to_string(),
            ago(call.timestamp, now),
            seconds(call.ended_at.since(call.timestamp) as f64),
            call.response.tokens_used.unwrap_or(0).to_string(),
            money::costs(&call.costs(), u64::from(call.unpriced)),
            one_line(&call.end()),
        ]
    };
    let rows: Vec<_> = job.attempts.iter().map(row).collect();
    let mut sum = Vec::new();
    let mut unpriced = 0;
    for call in &job.attempts {
        money::add(&mut sum, &call.costs());
        unpriced += u64::from(call.unpriced);
    }
    let head = ["ATTEMPT", "BEGAN", "TOOK", "TOKENS", "COST", "END"];
    lines.push(String::new());
    lines.push(fitting(head, &rows));
    lines.push(format!(
        "cost of all attempts: {}",
        money::costs(&sum, unpriced)
    ));
    lines.join("\n")
}

async fn tail(args: &TailArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let Some(asked) = &args.job else {
        let only = ["job".to_owned()];
        return events::follow("/api/glm/events", &only, args.limit, daemon, json).await;
    };
    let id = selection::job(daemon, asked).await?;
    let path = format!("/api/glm/jobs/{id}/events");
    events::follow(&path, &[], args.limit, daemon, json).await
}

/// A job that waits, in cells: job, user, priority, how long it waits, why, when that ends.
pub(super) fn waiter_cells(job: &Job, now: Timestamp) -> [String; 6] {
    let reason = job.wait_reason.as_ref();
    let text = reason.map(|reason| one_line(&with_clocks(&reason.text, now)));
    let ends = reason.and_then(|reason| reason.until);
    [
        short(&job.id),
        cut(&job.user_id, 20),
        job.priority.to_string(),
        super::words::span(now.since(job.created_at)),
        text.unwrap_or_default(),
        ends.map_or_else(|| "-".to_owned(), |at| until(at, now)),
    ]
}
