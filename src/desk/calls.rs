//! The call log: every attempt, by any of its fields.

use askama::Template;
use onelane_core::model::{CallFilter, CallOutcome, CallRecord, Timestamp};
use serde_json::json;
use warp::http::Method;
use warp::http::header::CONTENT_DISPOSITION;

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav, Note};
use super::lists::{Field, Tab, cursor, link, narrowed, of, with};
use super::meaning;
use super::overview::outcome;
use super::recent::waited;
use super::show::{When, duration, encoded, money, number, short};
use super::terms::Terms;
use super::words::Words;

/// By what the log is narrowed: names of the API.
const NAMES: [&str; 7] = [
    "jobId", "userId", "session", "model", "outcome", "from", "to",
];
/// Those that may have been billed although no answer is stored.
const BILLING: &str = "billing";
/// Rows of a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "calls.html")]
struct Calls {
    frame: Frame,
    t: &'static Terms,
    tabs: Vec<Tab>,
    fields: Vec<Field>,
    outcome: String,
    billing: String,
    is_narrowed: bool,
    rows: Vec<Row>,
    next: Option<String>,
    first: String,
    is_first: bool,
    csv: String,
}

struct Row {
    id: String,
    short: String,
    no: u32,
    when: When,
    user: String,
    model: String,
    answered_by: Option<String>,
    tone: &'static str,
    outcome: String,
    status: Option<u16>,
    says: Option<String>,
    waited: Option<String>,
    answer: String,
    tokens: Option<String>,
    cost: Option<String>,
    is_in_doubt: bool,
}

/// `GET /desk/calls`.
pub(super) async fn list(asked: Asked) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let given = narrowed(asked.queries(), &NAMES);
    let mut filter: CallFilter = asked.visit.read(&given)?;
    filter.billing_open = asked.query(BILLING).as_deref() == Some("open");
    let (is_open, chosen) = (filter.billing_open, filter.outcome);
    let cursor = cursor(&asked);
    let page = asked.lane().calls(filter, cursor, ROWS).await?;
    let others = with(&given, "outcome", None);
    let tab = |outcome: Option<CallOutcome>| Tab {
        href: link(
            "/desk/calls",
            &with(&others, "outcome", outcome.map(CallOutcome::name)),
        ),
        text: outcome
            .map_or(w.st_all, |outcome| outcome_word(outcome, w))
            .to_owned(),
        count: None,
        is_current: !is_open && outcome == chosen,
    };
    let in_doubt = Tab {
        href: link("/desk/calls", &with(&others, BILLING, Some("open"))),
        text: w.in_doubt.to_owned(),
        count: None,
        is_current: is_open,
    };
    let here = match is_open {
        true => with(&given, BILLING, Some("open")),
        false => given.clone(),
    };
    let page = Calls {
        frame: asked.frame(Nav::Calls).await?,
        t,
        tabs: std::iter::once(None)
            .chain(CallOutcome::ALL.map(Some))
            .map(tab)
            .chain(std::iter::once(in_doubt))
            .collect(),
        fields: vec![
            Field::text("userId", w.col_user, &given),
            Field::text("model", w.col_model, &given),
            Field::text("session", w.session, &given),
            Field::text("jobId", w.col_job, &given),
            Field::moment("from", t.from, &given),
            Field::moment("to", t.to, &given),
        ],
        outcome: of(&given, "outcome"),
        billing: if is_open { "open" } else { "" }.to_owned(),
        is_narrowed: !here.is_empty(),
        rows: page
            .calls
            .iter()
            .map(|call| Row::of(call, now, w))
            .collect(),
        next: page.cursor.map(|cursor| {
            let cursor = cursor.to_string();
            link("/desk/calls", &with(&here, "cursor", Some(&cursor)))
        }),
        first: link("/desk/calls", &here),
        is_first: cursor.is_none(),
        csv: link("/desk/calls.csv", &given),
    };
    asked.page(&page)
}

fn outcome_word(outcome: CallOutcome, w: &Words) -> &'static str {
    match outcome {
        CallOutcome::Completed => w.out_completed,
        CallOutcome::Failed => w.out_failed,
        CallOutcome::Cancelled => w.out_cancelled,
        CallOutcome::Interrupted => w.out_interrupted,
    }
}

impl Row {
    fn of(call: &CallRecord, now: Timestamp, w: &Words) -> Self {
        let (tone, outcome) = outcome(call, w);
        let usage = &call.usage;
        let answered_by = call.answered_by.clone();
        Self {
            id: call.job_id.to_string(),
            short: short(call.job_id),
            no: call.attempt.0,
            when: When::of(call.started_at, now, w),
            user: call.user_id.clone(),
            model: call.model.clone(),
            answered_by: answered_by.filter(|_| call.substitution.is_some()),
            tone: tone.class(),
            outcome,
            status: call.status_code,
            says: call.failure.as_ref().map(meaning::said),
            waited: waited(call).map(|ms| duration(ms, w)),
            answer: duration(call.response_time_ms, w),
            tokens: usage.is_reported().then(|| {
                let parts = [usage.prompt_tokens, usage.completion_tokens];
                parts.map(number).join(" + ")
            }),
            cost: call.cost.map(money),
            is_in_doubt: call.is_billing_open(),
        }
    }
}

/// `GET /desk/calls.csv`: the first page of what matches as the API writes it, for whoever has a session in place of a
/// token.
pub(super) async fn csv(asked: Asked) -> Answered {
    let mut given = narrowed(asked.queries(), &NAMES);
    for (name, value) in [("format", "csv"), ("limit", "1000")] {
        given.push((name.to_owned(), value.to_owned()));
    }
    let path = link("/api/admin/glm/calls", &given);
    let file = asked.visit.file(&asked.principal(), &path).await?;
    Ok(file.with(CONTENT_DISPOSITION, "attachment; filename=\"calls.csv\""))
}

/// `POST /desk/calls/settle`: an attempt in doubt was not billed.
pub(super) async fn settle(asked: Asked) -> Answered {
    let attempt: u32 = super::orders::number(&asked, "attempt")?;
    let job = encoded(asked.field("jobId").unwrap_or_default()).replace('/', "%2F");
    let path = format!("/api/admin/glm/maybe-billed/{job}/{attempt}");
    let body = json!({"billed": false});
    asked.order(Method::POST, &path, Some(&body)).await?;
    Ok(asked.back(Note::Settled, None))
}
