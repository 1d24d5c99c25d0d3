//! What there is to be saved: rows in their order, those left out that can't be read, each with what is
//! wrong with it. An export of a damaged store is worth most when it does not end at the damage.

use redb::ReadTransaction;

use super::error::{FileError, Result};
use super::read::{Bodies, Newest};
use super::schema::{self, LineRow, decode, decode_call};
use crate::model::{CallRecord, Day, UsageRow, limits};
use crate::ports::{JobRecord, Salvage, UsageFilter};

/// Rows before the file's name is known.
pub(super) type Part<T> = Salvage<T, FileError>;

fn len<T>(part: &Part<T>) -> usize {
    part.rows.len() + part.unreadable.len()
}

/// Adds a row, or its error; an error that keeps rows from being reached ends the export.
fn add<T>(part: &mut Part<T>, row: Result<T>, what: impl FnOnce() -> String) -> Result<()> {
    let problem = match row {
        Ok(row) => {
            part.rows.push(row);
            return Ok(());
        }
        Err(FileError::Damaged(problem)) => problem,
        Err(FileError::NewerRow { found, known }) => {
            format!("it has version {found}, this onelane reads version {known}")
        }
        Err(error) => return Err(error),
    };
    let error = FileError::Damaged(format!("{}: {problem}", what()));
    part.unreadable.push(error);
    Ok(())
}

pub(super) fn jobs(
    snapshot: &ReadTransaction,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Part<JobRecord>> {
    let bodies = Bodies::open(snapshot)?;
    let line = snapshot.open_table(schema::LINE)?;
    let mut part = Part::default();
    let mut body_bytes = 0;
    for item in Newest::open(&line, None, cursor.unwrap_or(u64::MAX))? {
        let (seq, _, row) = item?;
        if len(&part) == limit || body_bytes >= limits::PAGE_BODY_BYTES_MAX {
            part.cursor = Some(seq.0);
            break;
        }
        let mut what = format!("the job at place {} of the line", seq.0);
        let row: Result<LineRow<'_>> = decode("line", row.value());
        let read = row.and_then(|row| {
            what = format!("job {}", row.id);
            bodies.whole(bodies.job(row.id)?)
        });
        body_bytes += read.as_ref().map_or(0, JobRecord::body_bytes);
        add(&mut part, read, || what)?;
    }
    Ok(part)
}

pub(super) fn calls(
    snapshot: &ReadTransaction,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Part<CallRecord>> {
    let calls = snapshot.open_table(schema::CALLS)?;
    let mut part = Part::default();
    for item in calls.range(..=cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, row) = item?;
        let seq = seq.value();
        if len(&part) == limit {
            part.cursor = Some(seq);
            break;
        }
        let call = decode_call(seq, row.value());
        add(&mut part, call, || format!("the call at {seq}"))?;
    }
    Ok(part)
}

/// The rows of the first day that has any, and the next day that has.
pub(super) fn usage_day(
    snapshot: &ReadTransaction,
    filter: &UsageFilter,
) -> Result<(Part<UsageRow>, Option<Day>)> {
    let mut part = Part::default();
    if filter.start > filter.end {
        return Ok((part, None));
    }
    let table = snapshot.open_table(schema::USAGE)?;
    let (first, _) = schema::usage_day(filter.start);
    let (_, last) = schema::usage_day(filter.end);
    let (mut of, mut next) = (filter.start, None);
    for item in table.range::<&[u8; 20]>(&first..=&last)? {
        let (key, row) = item?;
        let day = schema::day_of(key.value());
        if day != of && len(&part) > 0 {
            next = Some(day);
            break;
        }
        of = day;
        match decode::<UsageRow>("usage", row.value()) {
            Ok(row) if !filter.matches(&row.key) => {}
            read => add(&mut part, read, || format!("a row of the usage of {day}"))?,
        }
    }
    // Within a day the file's order is that of the digests.
    part.rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok((part, next))
}
