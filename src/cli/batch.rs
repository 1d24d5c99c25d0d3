//! `onelane batch`: the batches of a store that no lane runs on.

use std::path::Path;

use onelane::model::{
    Batch, BatchState, BatchStep, CallOutcome, CallRecord, Cost, Job, JobStatus, Next, Settlement,
    Timestamp, Transition, limits,
};
use onelane::ports::{Clock as _, Store as _};
use onelane::store::RedbStore;
use onelane::system::SystemClock;
use onelane::words::counted;
use serde::Serialize;

use super::args::{BatchVerb, OneBatchArgs, StoreArgs};
use super::exit::{CliError, Exit};
use super::offline::{self, Offline};
use super::table::table;

/// Dispatches to the verb.
pub(crate) fn batch(verb: &BatchVerb, json: bool) -> Result<Exit, CliError> {
    match verb {
        BatchVerb::Ls(args) => list(args, json),
        BatchVerb::Show(args) => show(args, json),
        BatchVerb::Drop(args) => drop_one(args, json),
    }
}

/// All batches, those that are not done first, then the newest.
fn all(store: &RedbStore) -> Result<Vec<Batch>, CliError> {
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let after = batches.last().map(|last| last.id);
        let page = store.batches(after, limits::PAGE_ROWS_MAX)?;
        if page.is_empty() {
            break;
        }
        batches.extend(page);
    }
    batches.sort_by_key(|batch| (batch.unfinished() == 0, std::cmp::Reverse(batch.created_at)));
    Ok(batches)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    batches: Vec<Batch>,
    /// Jobs that wait or run and belong to no batch.
    loose_jobs: u64,
}

fn list(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(args)?;
    let batches = all(&offline.store)?;
    let counts = offline.store.counts()?;
    let of_batches: u64 = batches.iter().map(Batch::unfinished).sum();
    let list = List {
        loose_jobs: (counts.pending + counts.processing).saturating_sub(of_batches),
        batches,
    };
    super::answer(json, &list, |list| text(list, &offline.path))?;
    Ok(Exit::Done)
}

fn text(list: &List, path: &str) -> String {
    let mut out = if list.batches.is_empty() {
        format!("{path} has no batches")
    } else {
        let row = |batch: &Batch| {
            let counts = &batch.counts;
            [
                batch.id.to_string(),
                batch.state.name().to_owned(),
                batch.unfinished().to_string(),
                counts.completed.to_string(),
                counts.failed.to_string(),
                counts.cancelled.to_string(),
                money(batch),
                batch.name.clone(),
            ]
        };
        let rows: Vec<_> = list.batches.iter().map(row).collect();
        let head = [
            "BATCH",
            "STATE",
            "WAIT",
            "DONE",
            "FAILED",
            "CANCELLED",
            "COST",
            "NAME",
        ];
        table(head, &rows)
    };
    if list.loose_jobs > 0 {
        out.push_str(&format!(
            "\n\n{} too",
            counted(
                list.loose_jobs,
                "job of no batch waits",
                "jobs of no batch wait"
            )
        ));
    }
    out
}

fn money(batch: &Batch) -> String {
    let mut parts: Vec<String> = batch.costs.iter().map(Cost::to_string).collect();
    if batch.unpriced_calls > 0 {
        parts.push(format!("{} unpriced", batch.unpriced_calls));
    }
    if parts.is_empty() {
        return "-".to_owned();
    }
    parts.join(" + ")
}

/// The batch that is meant: by its id, its name, the file that it was made from, or the end of its name.
fn find(store: &RedbStore, asked: &str) -> Result<Batch, CliError> {
    let canonical = Path::new(asked).canonicalize().ok();
    let canonical = canonical.map(|path| path.display().to_string());
    let batches = all(store)?;
    let is_exact = |batch: &&Batch| {
        batch.id.to_string() == asked
            || batch.name == asked
            || canonical.as_ref().is_some_and(|path| batch.name == *path)
    };
    if let Some(batch) = batches.iter().find(is_exact) {
        return Ok(batch.clone());
    }
    let plain = |name: &str| name.trim_end_matches(" (simulated)").to_owned();
    let ends = |batch: &&Batch| {
        let name = plain(&batch.name);
        canonical.as_ref().is_some_and(|path| name == *path) || Path::new(&name).ends_with(asked)
    };
    let mut found = batches.iter().filter(ends);
    match (found.next(), found.next()) {
        (Some(batch), None) => Ok(batch.clone()),
        (Some(_), Some(_)) => Err(
            CliError::usage(format!("several batches are called {asked}"))
                .help("give the id, as `onelane batch ls` tells it"),
        ),
        (None, _) => Err(CliError::usage(format!("there is no batch {asked}"))
            .help("`onelane batch ls` lists them; with --store, those of another store")),
    }
}

fn show(args: &OneBatchArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(&args.store)?;
    let batch = find(&offline.store, &args.batch)?;
    super::answer(json, &batch, describe)?;
    Ok(Exit::Done)
}

fn describe(batch: &Batch) -> String {
    let counts =
        JobStatus::ALL.map(|status| format!("{} {}", batch.counts.of(status), status.name()));
    let mut lines = vec![
        format!("batch      {}", batch.id),
        format!("name       {}", batch.name),
        format!("state      {}", batch.state.name()),
        format!("jobs       {}", counts.join(", ")),
        format!("cost       {}", money(batch)),
        format!("created    {}", batch.created_at),
    ];
    if batch.pruned > 0 {
        lines.push(format!("pruned     {}", batch.pruned));
    }
    if let Some(at) = batch.finished_at {
        lines.push(format!("finished   {at}"));
    }
    if let Some(at) = batch.cancelled_at {
        lines.push(format!("given up   {at}"));
    }
    lines.join("\n")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dropped {
    batch: Batch,
    /// Jobs that were cancelled.
    cancelled: u64,
    /// Jobs whose call was open when the lane ended: maybe billed, and not made again.
    interrupted: u64,
}

fn drop_one(args: &OneBatchArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::open(&args.store)?;
    let batch = find(&offline.store, &args.batch)?;
    let dropped = give_up(&offline, &batch, SystemClock.now())?;
    super::answer(json, &dropped, |dropped| {
        let Dropped {
            batch,
            cancelled,
            interrupted,
        } = dropped;
        let mut out = match cancelled {
            0 => format!("{}: nothing of it waits, no job was cancelled", batch.name),
            _ => format!(
                "{}: {} cancelled",
                batch.name,
                counted(*cancelled, "job", "jobs")
            ),
        };
        if *interrupted > 0 {
            out.push_str(&format!(
                "; the call of {interrupted} of them was open when the lane ended: it may have been billed, and is not \
                 made again"
            ));
        }
        out
    })?;
    Ok(Exit::Done)
}

fn give_up(offline: &Offline, batch: &Batch, at: Timestamp) -> Result<Dropped, CliError> {
    let (store, id) = (&offline.store, batch.id);
    let step = BatchStep::Cancel;
    if batch.state != BatchState::Completed && batch.state != BatchState::Cancelled {
        store.commit(&[Transition::Batch { id, step, at }])?;
    }
    let (mut cancelled, mut interrupted) = (0, 0);
    let mut cursor = None;
    loop {
        let (jobs, next) = store.batch_jobs(Some(id), cursor, limits::BATCH_TRANSITIONS_MAX)?;
        let unfinished = jobs.iter().filter(|job| !job.status.is_terminal());
        let changes: Vec<Transition> = unfinished.map(|job| end_of(job, at)).collect();
        if !changes.is_empty() {
            for (change, decision) in changes.iter().zip(store.commit(&changes)?) {
                cancelled += u64::from(decision.is_ok());
                let was_open = matches!(change, Transition::Settle(_));
                interrupted += u64::from(decision.is_ok() && was_open);
            }
        }
        match next {
            Some(_) => cursor = next,
            None => break,
        }
    }
    let batch = store.batch(id)?.unwrap_or_else(|| batch.clone());
    Ok(Dropped {
        batch,
        cancelled,
        interrupted,
    })
}

/// Gives a job up. One whose call was open when the lane ended is settled as interrupted, which it was, so that
/// the next start does not make the call again.
fn end_of(job: &Job, at: Timestamp) -> Transition {
    match job.open.filter(|_| job.status == JobStatus::Processing) {
        None => Transition::Cancel { job_id: job.id, at },
        Some(open) => Transition::Settle(Box::new(Settlement {
            job_id: job.id,
            attempt: open.no,
            next: Next::Cancelled,
            refusal: None,
            call: CallRecord {
                maybe_billed: true,
                ..CallRecord::of(job, open.no, CallOutcome::Interrupted, open.at, at)
            },
            lane: None,
            breaker: None,
        })),
    }
}

#[cfg(test)]
mod tests {
    use onelane::model::BatchId;

    use super::*;

    #[test]
    fn a_batch_is_told_with_its_counts_and_its_cost() {
        let mut batch = Batch::new(BatchId::named("nightly"), "nightly", Timestamp::default());
        batch.moved(None, Some(JobStatus::Pending), Timestamp::default());
        batch.unpriced_calls = 2;
        let told = describe(&batch);
        for part in ["nightly", "open", "1 pending", "2 unpriced"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        let list = List {
            batches: vec![batch],
            loose_jobs: 3,
        };
        let told = text(&list, "onelane.redb");
        assert!(told.contains("3 jobs of no batch"), "{told}");
    }
}
