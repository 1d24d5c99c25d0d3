//! What there is to be saved: rows in their order, those left out that can't be read, each with what is
//! wrong with it. An export of a damaged store is worth most when it does not end at the damage.

use redb::ReadTransaction;

use super::error::{Fault, Result};
use super::read::{Bodies, Newest};
use super::schema::{self, LineRow, decode, decode_call};
use crate::model::{CallRecord, Day, UsageRow, limits};
use crate::ports::{JobRecord, UsageFilter};

/// [`crate::ports::Salvage`] before the file's name is known.
pub(super) struct Part<T> {
    pub(super) rows: Vec<T>,
    pub(super) unreadable: Vec<Fault>,
    pub(super) cursor: Option<u64>,
}

impl<T> Part<T> {
    const fn empty() -> Self {
        Self {
            rows: Vec::new(),
            unreadable: Vec::new(),
            cursor: None,
        }
    }

    const fn len(&self) -> usize {
        self.rows.len() + self.unreadable.len()
    }

    /// Adds a row, or what is wrong with it; what keeps rows from being reached ends the whole.
    fn add(&mut self, row: Result<T>, what: impl FnOnce() -> String) -> Result<()> {
        match row {
            Ok(row) => self.rows.push(row),
            Err(Fault::Damaged(problem)) => {
                let fault = Fault::Damaged(format!("{}: {problem}", what()));
                self.unreadable.push(fault);
            }
            Err(Fault::Newer { found, known }) => {
                let problem = format!("it has version {found}, this program knows {known}");
                let fault = Fault::Damaged(format!("{}: {problem}", what()));
                self.unreadable.push(fault);
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

pub(super) fn jobs(
    snapshot: &ReadTransaction,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Part<JobRecord>> {
    let bodies = Bodies::open(snapshot)?;
    let line = snapshot.open_table(schema::LINE)?;
    let mut part = Part::empty();
    let mut body_bytes = 0;
    for item in Newest::open(&line, None, cursor.unwrap_or(u64::MAX))? {
        let (seq, _, row) = item?;
        if part.len() == limit || body_bytes >= limits::PAGE_BODY_BYTES_MAX {
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
        part.add(read, || what)?;
    }
    Ok(part)
}

pub(super) fn calls(
    snapshot: &ReadTransaction,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Part<CallRecord>> {
    let calls = snapshot.open_table(schema::CALLS)?;
    let mut part = Part::empty();
    for item in calls.range(..=cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, row) = item?;
        let seq = seq.value();
        if part.len() == limit {
            part.cursor = Some(seq);
            break;
        }
        part.add(decode_call(seq, row.value()), || {
            format!("the call at {seq}")
        })?;
    }
    Ok(part)
}

/// The rows of the first day that has any, and the next day that has.
pub(super) fn usage_day(
    snapshot: &ReadTransaction,
    filter: &UsageFilter,
) -> Result<(Part<UsageRow>, Option<Day>)> {
    let mut part = Part::empty();
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
        if day != of && part.len() > 0 {
            next = Some(day);
            break;
        }
        of = day;
        match decode::<UsageRow>("usage", row.value()) {
            Ok(row) if !filter.matches(&row.key) => {}
            read => part.add(read, || format!("a row of the usage of {day}"))?,
        }
    }
    // Within a day the file's order is that of the digests.
    part.rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok((part, next))
}
