//! Our books beside GLM's meter: what differs on which day, for which model, and why.

use askama::Template;
use onelane_core::money::reconcile::{Cause, Compared, Difference};

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav};
use super::lists::{Field, narrowed};
use super::show::number;
use super::terms::Terms;
use super::words::fill;
use crate::api::site::Kind;
use crate::orchestrator::Reconciled;

/// Rows of a page; those that differ stand first.
const ROWS: usize = 200;

#[derive(Template)]
#[template(path = "reconciliation.html")]
struct Page {
    frame: Frame,
    t: &'static Terms,
    fields: Vec<Field>,
    /// Why nothing is compared.
    off: bool,
    tone: &'static str,
    state: &'static str,
    says: String,
    notes: Vec<String>,
    differences: Vec<Found>,
    more_differences: Option<String>,
    rows: Vec<Row>,
    left_out: Option<String>,
}

struct Found {
    day: String,
    model: String,
    cause: &'static str,
    about: &'static str,
    by: Option<String>,
    calls: Option<String>,
    tokens: String,
}

struct Row {
    day: String,
    model: String,
    calls: String,
    metered_calls: Option<String>,
    ours: String,
    metered: String,
    difference: Option<String>,
}

/// `GET /desk/reconciliation`.
pub(super) async fn page(asked: Asked) -> Answered {
    let t = Terms::of(asked.look.lang);
    let given = narrowed(asked.queries(), &["startDate", "endDate"]);
    let mut frame = asked.frame(Nav::Usage).await?;
    frame.is_live = false;
    let found = match asked.visit.reconciled(&given).await {
        Ok(found) => found,
        Err(problem) if problem.kind() == Kind::AccountNotAsked => {
            return asked.page(&Page::of(frame, t, None));
        }
        Err(problem) => return Err(problem),
    };
    asked.page(&Page::of(frame, t, Some(found)))
}

impl Page {
    fn of(frame: Frame, t: &'static Terms, found: Option<Reconciled>) -> Self {
        let Some(mut found) = found else {
            return Self {
                frame,
                t,
                fields: Vec::new(),
                off: true,
                tone: "",
                state: t.not_asked,
                says: t.not_asked_about.to_owned(),
                notes: Vec::new(),
                differences: Vec::new(),
                more_differences: None,
                rows: Vec::new(),
                left_out: None,
            };
        };
        let differences = &found.books.differences;
        let is_whole = found.days_not_told.is_empty();
        let (tone, state) = match (differences.is_empty(), is_whole) {
            (true, true) => ("ok", t.books_agree),
            (true, false) => ("warn", t.not_whole),
            (false, _) => ("bad", t.books_differ),
        };
        let mut notes = Vec::new();
        if !is_whole {
            let days = found.days_not_told.join(", ");
            let why = found.problem.as_deref().unwrap_or("");
            notes.push(fill(t.days_not_told, &[&days, why]));
        }
        if found.calls_not_in_log > 0 {
            notes.push(fill(t.calls_gone, &[&number(found.calls_not_in_log)]));
        }
        let agrees = |row: &Compared| row.our_tokens == row.metered_tokens;
        found.books.rows.sort_by_key(agrees);
        let more = |rows: usize| {
            let more = rows.saturating_sub(ROWS) as u64;
            (more > 0).then(|| fill(t.more_lines, &[&number(more)]))
        };
        Self {
            frame,
            t,
            fields: vec![
                Field::date("startDate", t.from, found.start_date.clone()),
                Field::date("endDate", t.to, found.end_date.clone()),
            ],
            off: false,
            tone,
            state,
            says: fill(t.compared, &[&found.start_date, &found.end_date]),
            notes,
            more_differences: more(differences.len()),
            differences: differences
                .iter()
                .take(ROWS)
                .map(|one| Found::of(one, t))
                .collect(),
            rows: found.books.rows.iter().take(ROWS).map(Row::of).collect(),
            left_out: more(found.books.rows.len()),
        }
    }
}

impl Found {
    fn of(one: &Difference, t: &'static Terms) -> Self {
        let (cause, about) = match one.cause {
            Cause::InDoubt => (t.in_doubt, t.in_doubt_about),
            Cause::ModelSwitched => (t.switched, t.switched_about),
            Cause::UsageMissing => (t.usage_missing, t.usage_missing_about),
            Cause::NotOurs => (t.not_ours, t.not_ours_about),
            Cause::NotMetered => (t.not_metered, t.not_metered_about),
        };
        Self {
            day: one.date.to_string(),
            model: one.model.clone(),
            cause,
            about,
            by: one.answered_by.clone(),
            calls: one.calls.map(number),
            tokens: signed(i128::from(one.tokens)),
        }
    }
}

impl Row {
    fn of(row: &Compared) -> Self {
        let difference = i128::from(row.metered_tokens) - i128::from(row.our_tokens);
        Self {
            day: row.date.to_string(),
            model: row.model.clone(),
            calls: number(row.our_calls),
            metered_calls: row.metered_calls.map(number),
            ours: number(row.our_tokens),
            metered: number(row.metered_tokens),
            difference: (difference != 0).then(|| signed(difference)),
        }
    }
}

fn signed(n: i128) -> String {
    let sign = if n < 0 { "−" } else { "+" };
    format!("{sign}{}", number(n.unsigned_abs()))
}
