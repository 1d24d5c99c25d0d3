//! One job: why it is, or is not, running; its life, its attempts, what it cost, and what it was about.

use askama::Template;
use onelane_core::model::{
    CallRecord, Cost, Job, JobId, JobStatus, Request, Timestamp, WaitReason,
};
use serde_json::{Value, json};
use warp::http::Method;

use super::asked::{Answered, Asked, see_other};
use super::frame::{Frame, Nav, Note};
use super::headline::{Tone, capitalised, tone};
use super::jobs::{status_tone, status_word};
use super::orders::number as whole;
use super::overview::outcome;
use super::show::{When, duration, money, number};
use super::waterfall::{self, Life, OpenCall, Picture};
use super::words::{Lang, Words, fill};
use super::{meaning, reasons};
use crate::api::site::{Kind, Problem};
use crate::orchestrator::JobDetail;

/// Bytes of a prompt or an answer that a page shows.
const TEXT_BYTES_MAX: usize = 32 * 1024;

#[derive(Template)]
#[template(path = "job.html")]
struct Page {
    frame: Frame,
    id: String,
    tone: &'static str,
    state: &'static str,
    says: String,
    help: Option<String>,
    dim: String,
    facts: Vec<(&'static str, String)>,
    picture: Option<Picture>,
    attempts: Vec<Attempt>,
    cost: String,
    cost_says: Option<String>,
    made: When,
    priority: i32,
    model: String,
    can: Can,
    prompt: Text,
    answer: Text,
}

/// What can be done to it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Can {
    cancel: bool,
    retry: bool,
    move_it: bool,
    run_again: bool,
    erase: bool,
    reveal: bool,
}

struct Attempt {
    no: u32,
    sent: When,
    tone: &'static str,
    outcome: String,
    /// What GLM said.
    says: Option<String>,
    /// What that means, and what to do.
    means: Option<String>,
    model: String,
    connect: Option<String>,
    first_token: Option<String>,
    answer: String,
    tokens: Option<String>,
    cost: Option<String>,
    is_in_doubt: bool,
}

/// A prompt or an answer, as far as it is shown.
struct Text {
    /// How large it is, or why there is none.
    size: String,
    shown: Option<String>,
    is_cut: bool,
}

fn id_of(asked: &Asked) -> Result<JobId, Problem> {
    let wrong = |_| Problem::of_field(Kind::InvalidId, "id", "must be a UUID");
    serde_json::from_value(json!(asked.part("id"))).map_err(wrong)
}

/// `GET /desk/jobs/{id}`.
pub(super) async fn page(asked: Asked) -> Answered {
    let id = id_of(&asked)?;
    let detail = asked.lane().job(id).await?;
    shown(asked, detail, false).await
}

/// `POST /desk/jobs/{id}/reveal`: the same with prompt and answer. It is no redirect: what is shown has no address.
pub(super) async fn reveal(asked: Asked) -> Answered {
    let id = id_of(&asked)?;
    let detail = asked.visit.reveal(&asked.principal(), id).await?;
    shown(asked, detail, true).await
}

async fn shown(asked: Asked, detail: JobDetail, is_revealed: bool) -> Answered {
    let (now, w, lang) = (asked.visit.now(), asked.words(), asked.look.lang);
    let mut frame = asked.frame(Nav::Jobs).await?;
    let job = &detail.record.job;
    frame.here = format!("/desk/jobs/{}", job.id);
    let (tone, says, help) = first_line(&detail, now, (lang, w));
    let costs: Vec<Cost> = detail
        .attempts
        .iter()
        .filter_map(|call| call.cost)
        .collect();
    let is_unknown = detail.attempts.iter().any(CallRecord::is_unpriced);
    let open = job.open.filter(|_| job.status == JobStatus::Processing);
    let life = Life {
        created: job.created_at,
        attempts: &detail.attempts,
        open: open.map(|open| OpenCall {
            sent: open.at,
            so_far: asked.lane().so_far(job.id),
        }),
        waits: detail
            .wait_reason
            .as_ref()
            .map(|reason| reasons::name(reason.name(), lang)),
        ended: job.processed_at,
        now,
    };
    let picture = waterfall::draw(&waterfall::stretches(&life, w), w);
    let prompt = detail.record.request.as_deref().and_then(Request::text);
    let answer = detail.record.text();
    let page = Page {
        id: job.id.to_string(),
        tone: tone.class(),
        state: status_word(job.status, w),
        says,
        help,
        dim: dim(job, detail.wait_reason.as_ref()),
        facts: facts(job, w),
        picture,
        attempts: detail
            .attempts
            .iter()
            .map(|call| Attempt::of(call, now, (lang, w)))
            .collect(),
        cost: sum(&costs).unwrap_or_else(|| w.none.to_owned()),
        cost_says: is_unknown.then(|| w.cost_unknown.to_owned()),
        made: When::of(job.created_at, now, w),
        priority: job.priority,
        model: job.model.clone(),
        can: Can::of(job, &frame, detail.record.request.is_some(), is_revealed),
        prompt: Text::of(prompt, is_revealed, job, w),
        answer: Text::of(answer, is_revealed, job, w),
        frame,
    };
    asked.page(&page)
}

/// How bad it is, what it says, and what to do.
fn first_line(
    detail: &JobDetail,
    now: Timestamp,
    (lang, w): (Lang, &Words),
) -> (Tone, String, Option<String>) {
    let job = &detail.record.job;
    if let Some(reason) = &detail.wait_reason {
        let mut help: Vec<String> = Vec::new();
        if let Some(until) = reason.until() {
            help.push(fill(w.goes_on, &[&When::of(until, now, w).relative]));
        }
        help.extend(reasons::help(reason, lang).map(capitalised));
        let says = capitalised(&reasons::sentence(reason, now, lang));
        return (
            tone(reason),
            says,
            (!help.is_empty()).then(|| help.join(" ")),
        );
    }
    let ended = job.processed_at.map(|at| When::of(at, now, w).relative);
    let ended = ended.unwrap_or_default();
    let error = job.error.as_ref();
    let (says, help) = match job.status {
        JobStatus::Processing => {
            let since = job.open.map_or(now, |open| open.at);
            (fill(w.job_runs, &[&duration(now.since(since), w)]), None)
        }
        JobStatus::Completed => {
            let took = job.processed_at.map_or(0, |at| at.since(job.created_at));
            (fill(w.job_done, &[&ended, &duration(took, w)]), None)
        }
        JobStatus::Failed => match error {
            Some(error) => {
                let said = format!("{}: {}", error.code, meaning::said(error));
                let means = meaning::means(error, lang);
                (fill(w.job_failed, &[&ended, &said]), Some(means))
            }
            None => (fill(w.job_failed, &[&ended, ""]), None),
        },
        JobStatus::Cancelled => (fill(w.job_cancelled, &[&ended]), None),
        JobStatus::Pending => (w.waits_now.to_owned(), None),
    };
    (
        status_tone(job.status),
        says,
        help.map(|help| capitalised(&help)),
    )
}

/// What GLM said where it is held, and what the job is.
fn dim(job: &Job, reason: Option<&WaitReason>) -> String {
    let said = match reason {
        Some(WaitReason::Hold(hold)) => Some(hold.said()),
        _ => None,
    };
    let parts = [
        said,
        Some(job.id.to_string()),
        Some(job.user_id.clone()),
        Some(job.sent_to().to_owned()),
        job.content_id.clone(),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn facts(job: &Job, w: &'static Words) -> Vec<(&'static str, String)> {
    let of = |text: Option<String>, name: &'static str| text.map(|text| (name, text));
    let facts = [
        of(
            job.session
                .as_ref()
                .map(|session| session.as_str().to_owned()),
            w.session,
        ),
        of(job.batch_id.map(|id| id.to_string()), w.batch),
        of(job.key_id.map(|id| id.to_string()), w.key),
        of(job.answered_by.clone(), w.answered),
        of(job.deadline.map(|at| at.to_rfc3339()), w.deadline),
        Some((
            w.retries,
            format!("{} / {}", job.retry_count, job.max_retries),
        )),
        of(
            job.callback_url.as_ref().map(|_| w.yes.to_owned()),
            w.callback,
        ),
    ];
    facts.into_iter().flatten().collect()
}

fn sum(costs: &[Cost]) -> Option<String> {
    let mut sums: Vec<Cost> = Vec::new();
    for cost in costs {
        match sums.iter_mut().find(|sum| sum.currency == cost.currency) {
            Some(sum) => sum.nanos = sum.nanos.saturating_add(cost.nanos),
            None => sums.push(*cost),
        }
    }
    let shown: Vec<String> = sums.into_iter().map(money).collect();
    (!shown.is_empty()).then(|| shown.join(" + "))
}

impl Can {
    fn of(job: &Job, frame: &Frame, has_request: bool, is_revealed: bool) -> Self {
        let (may, status) = (frame.may_operate, job.status);
        let is_pending = status == JobStatus::Pending;
        let waits = job.parked.is_some() || job.next_retry_at.is_some();
        let has_ended_without = matches!(status, JobStatus::Failed | JobStatus::Cancelled);
        let has_bodies = !job.bodies_pruned;
        Self {
            cancel: may && !status.is_terminal(),
            retry: may && has_bodies && (has_ended_without || (is_pending && waits)),
            move_it: may && is_pending,
            run_again: may && has_request,
            erase: may && has_bodies && status.is_terminal(),
            reveal: may && has_bodies && !is_revealed,
        }
    }
}

impl Attempt {
    fn of(call: &CallRecord, now: Timestamp, (lang, w): (Lang, &Words)) -> Self {
        let (tone, outcome) = outcome(call, w);
        let failure = call.failure.as_ref();
        let says = failure.map(meaning::said);
        let means = failure.map(|failure| meaning::means(failure, lang));
        let usage = &call.usage;
        Self {
            no: call.attempt.0,
            sent: When::of(call.started_at, now, w),
            tone: tone.class(),
            outcome,
            says: says.filter(|says| !says.is_empty()),
            means,
            model: call.model.clone(),
            connect: call.parts.connect_ms.map(|ms| duration(ms, w)),
            first_token: call.parts.first_token_ms.map(|ms| duration(ms, w)),
            answer: duration(call.response_time_ms, w),
            tokens: usage.is_reported().then(|| {
                [usage.prompt_tokens, usage.completion_tokens]
                    .map(number)
                    .join(" + ")
            }),
            cost: call.cost.map(money),
            is_in_doubt: call.is_billing_open(),
        }
    }
}

impl Text {
    fn of(text: Option<String>, is_revealed: bool, job: &Job, w: &Words) -> Self {
        let size = match &text {
            _ if job.bodies_pruned => w.text_gone.to_owned(),
            None => w.text_none.to_owned(),
            Some(text) => fill(w.characters, &[&number(text.chars().count() as u64)]),
        };
        let mut shown = text.filter(|_| is_revealed && !job.bodies_pruned);
        let mut is_cut = false;
        if let Some(text) = &mut shown
            && text.len() > TEXT_BYTES_MAX
        {
            let mut end = TEXT_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            is_cut = true;
        }
        Self {
            size,
            shown,
            is_cut,
        }
    }
}

async fn order(asked: &Asked, what: &str, body: Option<&Value>) -> Result<Value, Problem> {
    let path = format!("/api/admin/glm/{what}/{}", id_of(asked)?);
    asked.order(Method::POST, &path, body).await
}

/// `POST /desk/jobs/{id}/cancel`.
pub(super) async fn cancel(asked: Asked) -> Answered {
    order(&asked, "cancel", None).await?;
    Ok(asked.back(Note::Cancel, None))
}

/// `POST /desk/jobs/{id}/retry`.
pub(super) async fn retry(asked: Asked) -> Answered {
    order(&asked, "retry", None).await?;
    Ok(asked.back(Note::Retry, None))
}

/// `POST /desk/jobs/{id}/priority`.
pub(super) async fn reprioritise(asked: Asked) -> Answered {
    let priority: i32 = whole(&asked, "priority")?;
    order(&asked, "reprioritise", Some(&json!({"priority": priority}))).await?;
    Ok(asked.back(Note::Reprioritise, None))
}

/// `POST /desk/jobs/{id}/erase`.
pub(super) async fn erase(asked: Asked) -> Answered {
    order(&asked, "erase", None).await?;
    Ok(asked.back(Note::Erase, None))
}

/// `POST /desk/jobs/{id}/again`: for another model; leads to the new job.
pub(super) async fn again(asked: Asked) -> Answered {
    let model = asked.field("model").unwrap_or_default();
    let answer = order(&asked, "run-again", Some(&json!({"model": model}))).await?;
    let id = answer.get("id").and_then(Value::as_str).unwrap_or_default();
    Ok(see_other(&format!(
        "/desk/jobs/{id}?note={}",
        Note::Again.name()
    )))
}
