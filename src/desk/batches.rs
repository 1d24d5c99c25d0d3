//! Jobs that belong together: how far each batch is, what it cost, its results.

use std::collections::BTreeMap;

use askama::Template;
use onelane_core::model::{
    Batch, BatchId, BatchInput, BatchProgress, BatchState, JobStatus, Timestamp, limits,
};
use warp::http::Method;
use warp::http::header::CONTENT_DISPOSITION;

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav, Note};
use super::jobs::status_word;
use super::lists::link;
use super::show::{When, duration, encoded, money, number};
use super::terms::Terms;
use super::words::{Words, fill};
use crate::api::site::Problem;

/// Batches of a page.
const ROWS: usize = 50;
/// Where there are more, the page is not read again and again.
const LIVE_MAX: usize = 500;
/// Faults of a batch's lines that are shown.
const FAULTS: usize = 5;

#[derive(Template)]
#[template(path = "batches.html")]
struct Batches {
    frame: Frame,
    t: &'static Terms,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
}

/// A batch: its own row, what it was made of, or both.
struct Known {
    id: BatchId,
    created_at: Timestamp,
    batch: Option<Batch>,
    input: Option<BatchInput>,
}

struct Row {
    id: String,
    name: String,
    tone: &'static str,
    state: &'static str,
    per_mille: u64,
    done: String,
    counts: Vec<Count>,
    cost: Option<String>,
    unpriced: Option<String>,
    made: When,
    ended: Option<When>,
    left: Option<String>,
    faults: Vec<String>,
    answers: Option<String>,
    errors: Option<String>,
    /// Where a form gives it up.
    cancel: Option<String>,
    /// Where its jobs are given up, of one that was made of no file.
    cancel_jobs: Option<String>,
}

struct Count {
    href: String,
    text: &'static str,
    count: String,
}

/// `GET /desk/batches`.
pub(super) async fn list(asked: Asked) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let mut all = known(&asked).await?;
    all.sort_by_key(|known| std::cmp::Reverse((known.created_at, known.id)));
    let skipped = asked.query("from").and_then(|from| from.parse().ok());
    let skipped: usize = skipped.unwrap_or(0);
    let next = skipped.saturating_add(ROWS);
    let mut frame = asked.frame(Nav::Batches).await?;
    frame.is_live = all.len() <= LIVE_MAX;
    let page = Batches {
        next: (all.len() > next).then(|| link("/desk/batches", &[("from", next.to_string())])),
        is_first: skipped == 0,
        rows: all
            .iter()
            .skip(skipped)
            .take(ROWS)
            .map(|known| Row::of(known, now, w, t))
            .collect(),
        frame,
        t,
    };
    asked.page(&page)
}

/// All batches, those left out that have neither jobs nor anything to tell.
async fn known(asked: &Asked) -> Result<Vec<Known>, Problem> {
    let lane = asked.lane();
    let inputs = lane.all_inputs().await?.into_iter();
    let mut inputs: BTreeMap<BatchId, BatchInput> = inputs.map(|input| (input.id, input)).collect();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = lane.batches(after).await?;
        let is_last = page.len() < limits::PAGE_ROWS_MAX;
        after = page.last().map(|batch| batch.id);
        all.extend(page.into_iter().map(|batch| Known {
            id: batch.id,
            created_at: batch.created_at,
            input: inputs.remove(&batch.id),
            batch: Some(batch),
        }));
        if is_last {
            break;
        }
    }
    all.extend(inputs.into_values().map(|input| Known {
        id: input.id,
        created_at: input.created_at,
        batch: None,
        input: Some(input),
    }));
    Ok(all)
}

impl Row {
    fn of(known: &Known, now: Timestamp, w: &'static Words, t: &'static Terms) -> Self {
        let Known {
            id, batch, input, ..
        } = known;
        let (tone, state) = state(known, t);
        let counts = batch.as_ref().map(|batch| batch.counts).unwrap_or_default();
        let ended = counts.completed + counts.failed + counts.cancelled;
        let pruned = batch.as_ref().map_or(0, |batch| batch.pruned);
        let lines = input.as_ref().map_or(0, |input| input.lines);
        let (total, done) = (lines.max(counts.total() + pruned), ended + pruned);
        let per_mille = u128::from(done) * 1_000 / u128::from(total.max(1));
        let over = match (input, batch) {
            (Some(input), batch) => input.ended_at(batch.as_ref()),
            (None, Some(batch)) => batch.finished_at,
            (None, None) => None,
        };
        let count = |status: JobStatus| Count {
            href: link(
                "/desk/jobs",
                &[
                    ("batchId", id.to_string()),
                    ("status", status.name().to_owned()),
                ],
            ),
            text: status_word(status, w),
            count: number(counts.of(status)),
        };
        let with_some = |status: &JobStatus| counts.of(*status) > 0;
        let result = |part: &str, some: bool| {
            let is_there = input.is_some() && over.is_some() && some;
            is_there.then(|| format!("/desk/batches/results/file-{part}-{id}"))
        };
        let is_given_up = input.as_ref().is_some_and(|i| i.cancelled_at.is_some())
            || batch.as_ref().is_some_and(|b| b.cancelled_at.is_some());
        let is_open = over.is_none() && !is_given_up;
        let unfinished = batch.as_ref().map_or(0, Batch::unfinished);
        let faults = input.iter().flat_map(|input| &input.faults).take(FAULTS);
        Self {
            id: id.to_string(),
            name: batch
                .as_ref()
                .map(|batch| batch.name.clone())
                .or_else(|| input.as_ref().map(|input| input.file.to_string()))
                .unwrap_or_default(),
            tone,
            state,
            per_mille: u64::try_from(per_mille).unwrap_or(1_000).min(1_000),
            done: format!("{} / {}", number(done), number(total)),
            counts: JobStatus::ALL
                .into_iter()
                .filter(with_some)
                .map(count)
                .collect(),
            cost: batch
                .as_ref()
                .filter(|batch| !batch.costs.is_empty())
                .map(|batch| {
                    batch
                        .costs
                        .iter()
                        .map(|cost| money(*cost))
                        .collect::<Vec<_>>()
                })
                .map(|costs| costs.join(" + ")),
            unpriced: batch
                .as_ref()
                .filter(|batch| batch.unpriced_calls > 0)
                .map(|batch| fill(w.unpriced, &[&number(batch.unpriced_calls)])),
            made: When::of(known.created_at, now, w),
            ended: over.map(|at| When::of(at, now, w)),
            left: batch
                .as_ref()
                .filter(|_| is_open && unfinished > 0)
                .and_then(|batch| left_ms(now.since(batch.created_at), ended, unfinished))
                .map(|ms| fill(t.at_this_pace, &[&duration(ms, w)])),
            faults: faults
                .map(|fault| match fault.line {
                    Some(line) => format!("{} {line}: {}", t.line, fault.message),
                    None => fault.message.clone(),
                })
                .collect(),
            answers: result("output", counts.completed > 0),
            errors: result("errors", counts.failed + counts.cancelled > 0),
            cancel: (input.is_some() && is_open).then(|| format!("/desk/batches/{id}/cancel")),
            cancel_jobs: (input.is_none() && is_open && unfinished > 0).then(|| {
                let of = [("batchId", id.to_string()), ("do", "cancel".to_owned())];
                link("/desk/jobs/bulk", &of)
            }),
        }
    }
}

/// How long the rest takes where the first `ended` took so long; `None`: nothing has ended.
fn left_ms(elapsed_ms: u64, ended: u64, unfinished: u64) -> Option<u64> {
    let whole = u128::from(elapsed_ms) * u128::from(unfinished);
    u64::try_from(whole.checked_div(ended.into())?).ok()
}

fn state(known: &Known, t: &'static Terms) -> (&'static str, &'static str) {
    if let Some(input) = &known.input {
        return match input.progress(known.batch.as_ref()) {
            BatchProgress::Validating => ("warn", t.batch_validating),
            BatchProgress::Failed => ("bad", t.batch_failed),
            BatchProgress::InProgress | BatchProgress::Finalizing => ("ok", t.batch_running),
            BatchProgress::Completed => ("ok", t.batch_completed),
            BatchProgress::Expired => ("bad", t.batch_expired),
            BatchProgress::Cancelling => ("warn", t.batch_cancelling),
            BatchProgress::Cancelled => ("warn", t.batch_cancelled),
        };
    }
    match known.batch.as_ref().map(|batch| batch.state) {
        Some(BatchState::Open) => ("ok", t.batch_open),
        Some(BatchState::Running) => ("ok", t.batch_running),
        Some(BatchState::Completed) | None => ("ok", t.batch_completed),
        Some(BatchState::Cancelled) => ("warn", t.batch_cancelled),
    }
}

/// `GET /desk/batches/results/{file}`: answers, or why lines have none, as the API writes them; that somebody took them is
/// on record.
pub(super) async fn results(asked: Asked) -> Answered {
    let name = encoded(asked.part("file")).replace('/', "%2F");
    let path = format!("/v1/files/{name}/content");
    let file = asked.visit.file(&asked.principal(), &path).await?;
    let attachment = format!("attachment; filename=\"{}.jsonl\"", name.replace('%', "_"));
    Ok(file.with(CONTENT_DISPOSITION, attachment))
}

/// `POST /desk/batches/{id}/cancel`: gives one up that was made of a file.
pub(super) async fn cancel(asked: Asked) -> Answered {
    let id = encoded(asked.part("id")).replace('/', "%2F");
    let path = format!("/v1/batches/{id}/cancel");
    asked.order(Method::POST, &path, None).await?;
    Ok(asked.back(Note::BatchCancelled, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_has_ended() {
        assert_eq!(left_ms(10_000, 10, 5), Some(5_000));
        assert_eq!(left_ms(10_000, 0, 5), None);
        assert_eq!(left_ms(u64::MAX, 1, u64::MAX), None);
    }
}
