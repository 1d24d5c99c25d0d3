//! How large a store is, how old, and what retention would remove from it.

use std::collections::BTreeSet;

use onelane_core::model::{Prunable, Prune, StoreFigures, TableFigures, TimeSpan};
use onelane_core::retention;
use redb::{ReadableTableMetadata as _, TableHandle as _};
use serde::Deserialize;

use super::error::Result;
use super::finished::{self, Snapshot, readable};
use super::line::LineRow;
use super::read;
use super::reading;
use super::schema::{self, decode};
use super::state::State;
use crate::model::{JobId, JobStatus, Seq, Timestamp};

/// Reads every page; `prune` is the first step of what retention asks for. What a damaged page keeps is left out, and
/// named.
pub(super) fn figures(state: &State, prune: Option<&Prune>) -> Result<StoreFigures> {
    let mut left_out = Vec::new();
    let mut tables = Vec::new();
    let snapshot = state.snapshot();
    for handle in snapshot.list_tables()? {
        let name = handle.name().to_owned();
        let table = snapshot.open_untyped_table(handle)?;
        let stats = found(&format!("the bytes of {name}"), &mut left_out, || {
            Ok(table.stats()?)
        })?;
        tables.push(TableFigures {
            rows: rows_of(state, &name, table.len()?),
            name,
            bytes: stats.map(|stats| {
                stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes()
            }),
        });
    }
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let prunable = || prune.map(|prune| prunable(state, prune)).transpose();
    Ok(StoreFigures {
        version: schema::STORE_VERSION,
        tables,
        jobs: found("jobs by status", &mut left_out, || read::counts(state))?,
        jobs_accepted: found("when jobs were accepted", &mut left_out, || accepted(state))?
            .flatten(),
        calls_ended: found("when calls ended", &mut left_out, || ended(state))?.flatten(),
        prunable: found("what retention would remove", &mut left_out, prunable)?.flatten(),
        unreadable: left_out,
    })
}

/// A figure, or its name among those that a damaged page keeps.
fn found<T>(
    what: &str,
    left_out: &mut Vec<String>,
    read: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    match reading(read) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_damage() => {
            left_out.push(what.to_owned());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How many rows of a table an export has to give, those of the journal among them; of other tables, and where a
/// page keeps it, what the table itself says. The counters know of rows that can't be reached.
fn rows_of(state: &State, name: &str, stored: u64) -> u64 {
    let known = reading(|| match name {
        "jobs" => {
            let rows = state.open_table(schema::JOBS)?.len()?;
            Ok(rows.max(read::counts(state)?.total()))
        }
        "calls" => {
            let rows = state.open_table(schema::CALLS)?.len()?;
            let counters = read::counters(state)?;
            Ok(match counters.calls_pruned_until {
                None => rows.max(counters.call_seq),
                Some(_) => rows,
            })
        }
        "usage" => state.open_table(schema::USAGE)?.len(),
        _ => Ok(stored),
    });
    known.unwrap_or(stored)
}

/// The first and the last place in line are at the ends of some status.
fn accepted(state: &State) -> Result<Option<TimeSpan>> {
    let line = state.open_table(schema::LINE)?;
    let jobs = state.open_table(schema::JOBS)?;
    let mut ends: Vec<(Seq, JobId)> = Vec::new();
    for status in JobStatus::ALL {
        let first = schema::line_key(status, Seq(0));
        let last = schema::line_key(status, Seq(u64::MAX));
        let mut range = line.range::<&[u8; 9]>(&first..=&last)?;
        for item in [range.next(), range.next_back()].into_iter().flatten() {
            let (key, row) = item?;
            let row = LineRow::decode(row.value())?;
            ends.push((schema::line_seq(key.value()), row.id));
        }
    }
    let mut moments = Vec::new();
    for (_, id) in ends.iter().min().into_iter().chain(ends.iter().max()) {
        moments.extend(finished::finished_job(&jobs, *id)?.map(|job| job.created_at));
    }
    Ok(TimeSpan::over(moments))
}

/// The log is in the order of the clock but for its jumps: the oldest call may be anywhere in it.
fn ended(state: &State) -> Result<Option<TimeSpan>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ended {
        ended_at: Timestamp,
    }
    let mut span = None;
    for item in state.open_table(schema::CALLS)?.iter()? {
        let row = decode::<Ended>("calls", item?.1.value());
        let at = readable(row)?.map(|call| call.ended_at);
        span = TimeSpan::over(span.into_iter().flat_map(TimeSpan::ends).chain(at));
    }
    Ok(span)
}

/// Makes all steps of a pruning, but removes nothing.
fn prunable(state: &State, prune: &Prune) -> Result<Prunable> {
    let mut step = *prune;
    let (mut jobs, mut bodies, mut calls) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        let looked = retention::look(&mut Snapshot(state), &step)?;
        calls += looked.calls;
        jobs.extend(looked.jobs.iter().map(|(_, id)| *id));
        bodies.extend(looked.bodies.iter().copied());
        match looked.pruned.next {
            Some(next) => step = step.after_look(&looked, next),
            None => break,
        }
    }
    Ok(Prunable {
        jobs: jobs.len() as u64,
        bodies: bodies.difference(&jobs).count() as u64,
        calls,
    })
}
