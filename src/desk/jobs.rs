//! The jobs: tabs by state, filters, search, pages, and what is done to all that match.

use askama::Template;
use onelane_actors::ports::{JobFilter, JobRecord};
use onelane_core::model::{Job, JobId, JobStatus, Timestamp, WaitReason};
use serde_json::{Value, json};
use warp::http::Method;

use super::asked::{Answered, Asked, see_other};
use super::frame::{Frame, Nav, Note};
use super::headline::{Tone, tone};
use super::orders::{count, number as whole};
use super::search::{self, Found};
use super::show::{When, encoded, number, short};
use super::words::{Lang, Words};
use super::{meaning, reasons};
use crate::api::site::{Kind, Problem};
use crate::views::Excerpt;

/// Rows of a page.
const ROWS: usize = 50;
/// Characters of a prompt in a row.
const PREVIEW: usize = 80;
/// By what a list is narrowed: names of the API.
const FIELDS: [&str; 12] = [
    "status",
    "userId",
    "model",
    "contentId",
    "session",
    "batchId",
    "keyId",
    "errorCode",
    "errorClass",
    "parked",
    "priorityMin",
    "priorityMax",
];

#[derive(Template)]
#[template(path = "jobs.html")]
struct Jobs {
    frame: Frame,
    tabs: Vec<Tab>,
    fields: Vec<Field>,
    is_narrowed: bool,
    status: String,
    q: String,
    total: String,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
    first: String,
    /// What a search did not look at.
    left_out: Option<String>,
    /// Where what is done to all that match begins; `None`: it can't be done to these.
    bulk: Option<String>,
}

struct Tab {
    href: String,
    text: &'static str,
    count: String,
    is_current: bool,
}

struct Field {
    name: &'static str,
    text: &'static str,
    value: String,
}

struct Row {
    id: String,
    short: String,
    user: String,
    model: String,
    priority: i32,
    tone: &'static str,
    status: &'static str,
    says: Option<String>,
    prompt: Option<String>,
    attempts: u32,
    made: When,
}

/// The word for a status.
pub(super) fn status_word(status: JobStatus, w: &Words) -> &'static str {
    match status {
        JobStatus::Pending => w.st_pending,
        JobStatus::Processing => w.st_processing,
        JobStatus::Completed => w.st_completed,
        JobStatus::Failed => w.st_failed,
        JobStatus::Cancelled => w.st_cancelled,
    }
}

/// How bad a status is.
pub(super) const fn status_tone(status: JobStatus) -> Tone {
    match status {
        JobStatus::Completed | JobStatus::Processing => Tone::Ok,
        JobStatus::Pending | JobStatus::Cancelled => Tone::Warn,
        JobStatus::Failed => Tone::Bad,
    }
}

fn field_word(name: &str, w: &Words) -> &'static str {
    match name {
        "userId" => w.col_user,
        "model" => w.col_model,
        "contentId" => w.content,
        "session" => w.session,
        "batchId" => w.batch,
        "keyId" => w.key,
        "errorCode" => w.error_code,
        _ => w.priority,
    }
}

/// What of the query, or of a form, narrows the list.
fn narrowing(given: Vec<(String, String)>) -> Vec<(String, String)> {
    let says = |(name, value): &(String, String)| {
        FIELDS.contains(&name.as_str()) && !value.trim().is_empty()
    };
    given.into_iter().filter(says).collect()
}

fn query_of(pairs: &[(String, String)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// `GET /desk/jobs`.
pub(super) async fn list(asked: Asked) -> Answered {
    let (lane, now, w) = (asked.lane(), asked.visit.now(), asked.words());
    let narrowed = narrowing(asked.queries());
    let filter: JobFilter = asked.visit.read(&narrowed)?;
    let q = asked.query("q").unwrap_or_default();
    if let Ok(id) = serde_json::from_value::<JobId>(json!(q.trim())) {
        return Ok(see_other(&format!("/desk/jobs/{id}")));
    }
    let cursor = asked.query("cursor").and_then(|cursor| cursor.parse().ok());
    let status = filter.status;
    let (page, left_out) = match q.as_str() {
        "" => (lane.jobs(filter, cursor, ROWS).await?, None),
        q => {
            let Found { page, looked_at } = search::find(lane, filter, q, cursor, ROWS).await?;
            let words = || super::words::fill(w.searched, &[&number(looked_at as u64)]);
            let left_out = page.cursor.is_some().then(words);
            (page, left_out)
        }
    };
    let jobs: Vec<&Job> = page.jobs.iter().map(|record| &record.job).collect();
    let reasons = lane.wait_reasons(jobs).await;
    let counts = lane.queue_status().await?;
    let tab = |status_of: Option<JobStatus>| {
        let others = narrowed
            .iter()
            .filter(|(name, _)| name != "status")
            .cloned();
        let mut pairs: Vec<_> = others.collect();
        pairs.extend(status_of.map(|status| ("status".to_owned(), status.name().to_owned())));
        pairs.extend((!q.is_empty()).then(|| ("q".to_owned(), q.clone())));
        Tab {
            href: format!("/desk/jobs?{}", query_of(&pairs)),
            text: status_of.map_or(w.st_all, |status| status_word(status, w)),
            count: number(status_of.map_or_else(|| counts.total(), |status| counts.of(status))),
            is_current: status_of == status,
        }
    };
    let tabs = std::iter::once(None)
        .chain(JobStatus::ALL.map(Some))
        .map(tab)
        .collect();
    let of = |name: &str| {
        let found = narrowed.iter().find(|(known, _)| known == name);
        found.map_or_else(String::new, |(_, value)| value.clone())
    };
    let shown = [
        "userId",
        "model",
        "contentId",
        "session",
        "batchId",
        "errorCode",
    ];
    let fields = shown.map(|name| Field {
        name,
        text: field_word(name, w),
        value: of(name),
    });
    let mut here = narrowed.clone();
    here.extend((!q.is_empty()).then(|| ("q".to_owned(), q.clone())));
    let first = format!("/desk/jobs?{}", query_of(&here));
    let next = page.cursor.map(|cursor| {
        let mut pairs = here.clone();
        pairs.push(("cursor".to_owned(), cursor.to_string()));
        format!("/desk/jobs?{}", query_of(&pairs))
    });
    let may_show = asked.visit.preview_chars() > 0;
    let total = if q.is_empty() {
        number(page.total)
    } else {
        number(page.jobs.len() as u64)
    };
    let (lang, records) = (asked.look.lang, page.jobs);
    // Texts of large bodies are looked for where that holds up nobody.
    let chars = if may_show {
        PREVIEW.min(asked.visit.preview_chars())
    } else {
        0
    };
    let make = move || -> Vec<Row> {
        let row = |record: JobRecord| {
            let reason = reasons.get(&record.job.id);
            Row::of(&record, reason, chars, now, (lang, w))
        };
        records.into_iter().map(row).collect()
    };
    let broken = |_| Problem::new(Kind::Stopped, "the runtime is ending");
    let rows = tokio::task::spawn_blocking(make).await.map_err(broken)?;
    let page = Jobs {
        frame: asked.frame(Nav::Jobs).await?,
        tabs,
        fields: fields.into(),
        is_narrowed: !narrowed.is_empty() || !q.is_empty(),
        status: of("status"),
        bulk: (asked.may_operate() && q.is_empty() && !rows.is_empty())
            .then(|| format!("/desk/jobs/bulk?{}", query_of(&narrowed))),
        q,
        total,
        rows,
        next,
        is_first: cursor.is_none(),
        first,
        left_out,
    };
    asked.page(&page)
}

impl Row {
    fn of(
        record: &JobRecord,
        reason: Option<&WaitReason>,
        chars: usize,
        now: Timestamp,
        (lang, w): (Lang, &Words),
    ) -> Self {
        let job = &record.job;
        let error = job
            .error
            .as_ref()
            .filter(|_| job.status != JobStatus::Completed);
        let says = reason.map(|reason| reasons::sentence(reason, now, lang));
        Self {
            id: job.id.to_string(),
            short: short(job.id),
            user: job.user_id.clone(),
            model: job.sent_to().to_owned(),
            priority: job.priority,
            tone: reason.map_or(status_tone(job.status), tone).class(),
            status: status_word(job.status, w),
            says: says.or_else(|| error.map(|e| format!("{}: {}", e.code, meaning::said(e)))),
            prompt: Excerpt::of(record, chars).into_prompt(),
            attempts: job.attempts.0,
            made: When::of(job.created_at, now, w),
        }
    }
}

/// What may be done to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Retry,
    Cancel,
    Reprioritise,
}

impl Change {
    fn of(name: Option<&str>) -> Result<Self, Problem> {
        match name {
            Some("retry") => Ok(Self::Retry),
            Some("cancel") => Ok(Self::Cancel),
            Some("reprioritise") => Ok(Self::Reprioritise),
            _ => {
                let problem = "must be retry, cancel or reprioritise";
                Err(Problem::of_field(Kind::InvalidField, "do", problem))
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Reprioritise => "reprioritise",
        }
    }

    const fn note(self) -> Note {
        match self {
            Self::Retry => Note::RetryMany,
            Self::Cancel => Note::CancelMany,
            Self::Reprioritise => Note::ReprioritiseMany,
        }
    }
}

/// What the API is asked for: a filter, or all of them.
fn order(filter: Value, priority: Option<i32>, dry_run: bool) -> Value {
    let is_all = filter.as_object().is_none_or(serde_json::Map::is_empty);
    let mut order = match is_all {
        true => json!({"all": true, "dryRun": dry_run}),
        false => json!({"filter": filter, "dryRun": dry_run}),
    };
    if let (Some(priority), Some(order)) = (priority, order.as_object_mut()) {
        order.insert("priority".to_owned(), priority.into());
    }
    order
}

#[derive(Template)]
#[template(path = "bulk.html")]
struct Bulk {
    frame: Frame,
    change: &'static str,
    asks: String,
    count: u64,
    priority: Option<i32>,
    narrowed: Vec<(String, String)>,
    back: String,
}

/// `GET /desk/jobs/bulk`: how many it would be, before anything is done.
pub(super) async fn ask(asked: Asked) -> Answered {
    let change = Change::of(asked.query("do").as_deref())?;
    let narrowed = narrowing(asked.queries());
    let filter = asked.visit.typed::<JobFilter>(&narrowed)?;
    let priority = match change {
        Change::Reprioritise => Some(
            asked
                .query("priority")
                .and_then(|p| p.parse().ok())
                .unwrap_or(0),
        ),
        _ => None,
    };
    let path = format!("/api/admin/glm/{}", change.name());
    let answer = asked
        .order(Method::POST, &path, Some(&order(filter, priority, true)))
        .await?;
    let (count, w) = (count(&answer).unwrap_or(0), asked.words());
    let asks = match change {
        Change::Retry => w.ask_retry,
        Change::Cancel => w.ask_cancel,
        Change::Reprioritise => w.ask_reprioritise,
    };
    let shown = priority
        .map(|priority| priority.to_string())
        .unwrap_or_default();
    asked.page(&Bulk {
        frame: asked.frame(Nav::Jobs).await?,
        change: change.name(),
        asks: super::words::fill(asks, &[&number(count), &shown]),
        count,
        priority,
        back: format!("/desk/jobs?{}", query_of(&narrowed)),
        narrowed,
    })
}

/// `POST /desk/jobs/bulk`.
pub(super) async fn change(asked: Asked) -> Answered {
    let change = Change::of(asked.field("do"))?;
    let priority = match change {
        Change::Reprioritise => Some(whole(&asked, "priority")?),
        _ => None,
    };
    let narrowed = narrowing(asked.form.clone());
    let filter = asked.visit.typed::<JobFilter>(&narrowed)?;
    let path = format!("/api/admin/glm/{}", change.name());
    let answer = asked
        .order(Method::POST, &path, Some(&order(filter, priority, false)))
        .await?;
    Ok(asked.back(change.note(), count(&answer)))
}
