//! What there is to be saved: rows in their order, those left out that can't be read, each with what is
//! wrong with it. An export of a damaged store is worth most when it does not end at the damage.

use std::iter::Peekable;

use super::error::{FileError, Result};
use super::line::LineRow;
use super::read::{self, Bodies};
use super::reading;
use super::schema::{self, decode, decode_call};
use super::state::{Found as Row, State};
use crate::model::{CallRecord, Day, JobStatus, UsageRow, limits};
use crate::ports::{JobRecord, Salvage, UsageFilter};

/// Rows before the file's name is known.
pub(super) type Part<T> = Salvage<T, FileError>;

fn len<T>(part: &Part<T>) -> usize {
    part.rows.len() + part.unreadable.len()
}

/// Adds a row, or its error; one that is not about this row alone ends the export.
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
        Err(error) if error.is_damage() => "a page of it can't be read".to_owned(),
        Err(error) => return Err(error),
    };
    let error = FileError::Damaged(format!("{}: {problem}", what()));
    part.unreadable.push(error);
    Ok(())
}

/// A row of a table, as it lies in the file.
type Raw = Row<&'static [u8]>;

/// What stands at a place of a table; `None`: what stands there and right before it can't be reached.
struct Found {
    seq: u64,
    row: Option<Raw>,
}

/// Goes down a table from a place, and passes over pages that can't be read.
struct Down<F, I> {
    /// The rows from a place down.
    open: F,
    rows: Option<I>,
    /// The next place to be looked at.
    upto: Option<u64>,
    /// How often nothing could be read since something was.
    failures: u32,
}

/// So many places are tried one by one after one that can't be read, as many as a page has; then ever fewer are.
const TRIED_ONE_BY_ONE: u32 = 256;

impl<F, I> Down<F, I> {
    const fn new(from: u64, open: F) -> Self {
        Self {
            open,
            rows: None,
            upto: Some(from),
            failures: 0,
        }
    }
}

impl<F, I> Iterator for Down<F, I>
where
    F: FnMut(u64) -> Result<I>,
    I: Iterator<Item = Result<(u64, Raw)>>,
{
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Result<Found>> {
        loop {
            let upto = self.upto?;
            let found = reading(|| {
                let rows = match &mut self.rows {
                    Some(rows) => rows,
                    rows => rows.insert((self.open)(upto)?),
                };
                rows.next().transpose()
            });
            match found {
                Ok(None) => {
                    self.upto = None;
                    return None;
                }
                Ok(Some((seq, row))) => {
                    self.failures = 0;
                    self.upto = seq.checked_sub(1);
                    return Some(Ok(Found {
                        seq,
                        row: Some(row),
                    }));
                }
                Err(error) if error.is_damage() => {
                    self.rows = None;
                    let far = self.failures.saturating_sub(TRIED_ONE_BY_ONE).min(63);
                    self.upto = upto.checked_sub(1 << far);
                    self.failures += 1;
                    if self.failures == 1 {
                        return Some(Ok(Found {
                            seq: upto,
                            row: None,
                        }));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The places of several statuses as one, newest first.
fn newest<I: Iterator<Item = Result<Found>>>(lines: &mut [Peekable<I>]) -> Option<Result<Found>> {
    // An error comes first.
    let seq = |line: &mut Peekable<I>| {
        let found = line.peek()?.as_ref();
        Some(found.map_or(u64::MAX, |found| found.seq))
    };
    let heads = lines.iter_mut().enumerate();
    let (_, newest) = heads
        .filter_map(|(at, line)| Some((seq(line)?, at)))
        .max()?;
    lines.get_mut(newest)?.next()
}

pub(super) fn jobs(snapshot: &State, cursor: Option<u64>, limit: usize) -> Result<Part<JobRecord>> {
    let bodies = Bodies::open(snapshot)?;
    let line = snapshot.open_table(schema::LINE)?;
    let from = cursor.unwrap_or_else(|| last(snapshot, |counters| counters.job_seq));
    let of_status = |status: JobStatus| {
        let line = &line;
        Down::new(from, move |upto| {
            let rows = read::of_status(line, status, upto)?.rev();
            Ok(rows.map(|item| {
                let (key, row) = item?;
                Ok((schema::line_seq(key.value()).0, row))
            }))
        })
        .peekable()
    };
    let mut lines = JobStatus::ALL.map(of_status);
    let mut part = Part::default();
    let mut body_bytes = 0;
    let mut given = None;
    while let Some(found) = newest(&mut lines) {
        let Found { seq, row } = found?;
        // Where what took a job from its old place is lost, it stands at both.
        if row.is_some() && given.replace(seq) == Some(seq) {
            continue;
        }
        if len(&part) == limit || body_bytes >= limits::PAGE_BODY_BYTES_MAX {
            part.cursor = Some(seq);
            break;
        }
        let Some(row) = row else {
            let what = || format!("jobs at place {seq} of the line and before it");
            add(&mut part, Err(unreached()), what)?;
            continue;
        };
        let mut what = format!("the job at place {seq} of the line");
        let read = reading(|| {
            let row = LineRow::decode(row.value())?;
            what = format!("job {}", row.id);
            bodies.whole(bodies.job(row.id)?)
        });
        body_bytes += read.as_ref().map_or(0, JobRecord::body_bytes);
        add(&mut part, read, || what)?;
    }
    Ok(part)
}

pub(super) fn calls(
    snapshot: &State,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Part<CallRecord>> {
    let calls = snapshot.open_table(schema::CALLS)?;
    let from = cursor.unwrap_or_else(|| last(snapshot, |counters| counters.call_seq));
    let down = Down::new(from, |upto| {
        let rows = calls.range(..=upto)?.rev();
        Ok(rows.map(|item| {
            let (seq, row) = item?;
            Ok((seq.value(), row))
        }))
    });
    let mut part = Part::default();
    for found in down {
        let Found { seq, row } = found?;
        if len(&part) == limit {
            part.cursor = Some(seq);
            break;
        }
        let (call, what) = match row {
            Some(row) => (
                reading(|| decode_call(seq, row.value())),
                format!("the call at {seq}"),
            ),
            None => (Err(unreached()), format!("calls at {seq} and before it")),
        };
        add(&mut part, call, || what)?;
    }
    Ok(part)
}

fn unreached() -> FileError {
    FileError::Damaged("a page with some of them can't be read".to_owned())
}

/// The last place that was given, or where that can't be read, the last that there can be.
fn last(snapshot: &State, of: impl Fn(&schema::Counters) -> u64) -> u64 {
    let counters = reading(|| read::counters(snapshot));
    counters.map_or(u64::MAX, |counters| of(&counters))
}

/// The rows of the first day that has any, and the next day that has.
pub(super) fn usage_day(
    snapshot: &State,
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
