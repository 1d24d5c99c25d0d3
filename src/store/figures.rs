//! How large a store is, how old, and what retention would remove from it.

use std::collections::BTreeSet;

use onelane_actors::policy::prune::{Bodies, Prune};
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, TableHandle as _};

use super::error::Result;
use super::read;
use super::schema::{self, decode, decode_call, no_call};
use crate::model::{JobId, JobStatus, Seq, Timestamp};
use crate::ports::StatusCounts;

/// The figures of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFigures {
    /// The version of its tables.
    pub version: u64,
    /// Its tables, by name.
    pub tables: Vec<TableFigures>,
    /// Jobs by status.
    pub counts: StatusCounts,
    /// When the oldest and the newest job were accepted.
    pub jobs: Option<(Timestamp, Timestamp)>,
    /// When the oldest and the newest call of the log ended.
    pub calls: Option<(Timestamp, Timestamp)>,
    /// What retention would remove now; `None`: it keeps all for ever.
    pub prunable: Option<Prunable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFigures {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The bytes that it takes in the file, those in half-empty pages included.
    pub bytes: u64,
}

/// What a pruning would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prunable {
    /// Jobs.
    pub jobs: u64,
    /// Requests and responses of jobs that stay.
    pub bodies: u64,
    /// Rows of the call log.
    pub calls: u64,
}

/// Reads every page; `prune` is the first step of what retention asks for.
pub(super) fn figures(snapshot: &ReadTransaction, prune: Option<&Prune>) -> Result<StoreFigures> {
    let mut tables = Vec::new();
    for handle in snapshot.list_tables()? {
        let name = handle.name().to_owned();
        let table = snapshot.open_untyped_table(handle)?;
        let stats = table.stats()?;
        tables.push(TableFigures {
            name,
            rows: table.len()?,
            bytes: stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes(),
        });
    }
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(StoreFigures {
        version: schema::STORE_VERSION,
        tables,
        counts: read::counts(snapshot)?,
        jobs: ages_of_jobs(snapshot)?,
        calls: ages_of_calls(snapshot)?,
        prunable: prune.map(|prune| prunable(snapshot, prune)).transpose()?,
    })
}

/// The first and the last place in line are at the ends of some status.
fn ages_of_jobs(snapshot: &ReadTransaction) -> Result<Option<(Timestamp, Timestamp)>> {
    let line = snapshot.open_table(schema::LINE)?;
    let mut ends: Vec<(Seq, JobId)> = Vec::new();
    for status in JobStatus::ALL {
        let first = schema::line_key(status, Seq(0));
        let last = schema::line_key(status, Seq(u64::MAX));
        let mut range = line.range::<&[u8; 9]>(&first..=&last)?;
        for item in [range.next(), range.next_back()].into_iter().flatten() {
            let (key, row) = item?;
            let row: schema::LineRow<'_> = decode("line", row.value())?;
            ends.push((schema::line_seq(key.value()), row.id));
        }
    }
    let accepted = |end: Option<&(Seq, JobId)>| -> Result<Option<Timestamp>> {
        let Some((_, id)) = end else { return Ok(None) };
        let job = read::job(snapshot, *id)?;
        Ok(job.map(|record| record.job.created_at))
    };
    let first = accepted(ends.iter().min())?;
    Ok(first.zip(accepted(ends.iter().max())?))
}

fn ages_of_calls(snapshot: &ReadTransaction) -> Result<Option<(Timestamp, Timestamp)>> {
    let calls = snapshot.open_table(schema::CALLS)?;
    let ended = |row: Option<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>)>| {
        row.map(|(seq, row)| Ok(decode_call(seq.value(), row.value())?.ended_at))
            .transpose()
    };
    let first: Result<Option<Timestamp>> = ended(calls.first()?);
    Ok(first?.zip(ended(calls.last()?)?))
}

/// Looks at all finished jobs and, oldest first, at the calls, as a pruning would.
fn prunable(snapshot: &ReadTransaction, prune: &Prune) -> Result<Prunable> {
    let finished = snapshot.open_table(schema::FINISHED)?;
    let calls = snapshot.open_table(schema::CALLS)?;
    let mut in_doubt = BTreeSet::new();
    for item in snapshot.open_table(schema::BILLING_OPEN)?.iter()? {
        let seq = item?.0.value();
        let row = calls.get(seq)?.ok_or_else(no_call)?;
        in_doubt.insert(decode_call(seq, row.value())?.job_id);
    }
    let mut ended = Vec::new();
    for bodies in [Bodies::Kept, Bodies::Pruned] {
        let (first, last) = (schema::finished_from(bodies), schema::finished_to(bodies));
        for item in finished.range::<&[u8; 17]>(&first..=&last)? {
            let (key, id) = item?;
            ended.push((schema::finished_of(key.value(), id.value()), bodies));
        }
    }
    ended.sort_unstable_by_key(|(place, _)| *place);
    let mut found = Prunable::default();
    let mut excess = prune.jobs.of(ended.len() as u64);
    for (place, bodies) in ended {
        if excess.takes(place.at) && !in_doubt.contains(&place.id) {
            excess.note_gone();
            found.jobs += 1;
        } else if bodies == Bodies::Kept && prune.bodies_before.is_some_and(|at| place.at < at) {
            found.bodies += 1;
        }
    }
    let mut excess = prune.calls.of(calls.len()?);
    for item in calls.iter()? {
        let (seq, row) = item?;
        let call = decode_call(seq.value(), row.value())?;
        if !excess.takes(call.ended_at) {
            break;
        }
        if !call.is_billing_open() {
            excess.note_gone();
            found.calls += 1;
        }
    }
    Ok(found)
}
