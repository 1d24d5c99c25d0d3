//! What operators did, newest first.

use askama::Template;
use onelane_core::model::{ActedBy, ActedFrom, ActedHow, AuditEntry, Timestamp};

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav};
use super::headline::Tone;
use super::show::{When, number, short};
use super::words::Words;

/// Rows of a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
}

struct Row {
    at: When,
    by: &'static str,
    from: &'static str,
    what: String,
    on: Option<String>,
    /// Where it leads, if it is a job.
    job: Option<String>,
    detail: Option<String>,
    tone: &'static str,
    outcome: &'static str,
    count: Option<String>,
    problem: Option<String>,
}

/// `GET /desk/audit`.
pub(super) async fn list(asked: Asked) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let before = asked.query("cursor").and_then(|id| id.parse().ok());
    let entries = asked.lane().audit(before, ROWS).await?;
    let last = entries.last().filter(|_| entries.len() == ROWS);
    let page = Audit {
        frame: asked.frame(Nav::Audit).await?,
        next: last.map(|entry| format!("/desk/audit?cursor={}", entry.id)),
        rows: entries.iter().map(|entry| Row::of(entry, now, w)).collect(),
        is_first: before.is_none(),
    };
    asked.page(&page)
}

impl Row {
    fn of(entry: &AuditEntry, now: Timestamp, w: &'static Words) -> Self {
        let (tone, outcome) = match entry.outcome {
            ActedHow::Begun => (Tone::Warn, w.act_begun),
            ActedHow::Done => (Tone::Ok, w.act_done),
            ActedHow::Refused => (Tone::Bad, w.act_refused),
        };
        let on = entry.on.as_deref();
        let job = on
            .filter(|on| on.len() == 36)
            .map(|on| format!("/desk/jobs/{on}"));
        let path = entry.what.replace("/api/admin/glm/", "");
        Self {
            at: When::of(entry.at, now, w),
            by: match entry.by {
                ActedBy::Admin => w.admin,
                ActedBy::Local => w.local,
            },
            from: match entry.from {
                ActedFrom::Page => w.from_page,
                ActedFrom::Api => w.from_api,
            },
            what: path,
            on: on.map(short),
            job,
            detail: entry.detail.as_ref().map(|detail| detail.get().to_owned()),
            tone: tone.class(),
            outcome,
            count: entry.count.map(number),
            problem: entry.problem.clone(),
        }
    }
}
