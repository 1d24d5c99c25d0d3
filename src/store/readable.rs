//! Whether a row is one that this program reads: what each table holds, by type. Guards whoever takes rows from elsewhere.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{FileError, Result};
use super::job;
use super::line::LineRow;
use super::packs;
use super::schema::{self, Counters, Keyed, decode, decode_body, decode_call, meta};
use super::tables::RowId;
use crate::model::{
    AlertBook, AuditEntry, Batch, BatchInput, BreakerSnapshot, ClientKey, Delivery, HookEndpoint,
    JobId, Received, SchedulerState, StoredFile, Timestamp, UsageRow,
};

/// Reads a row with this key.
type Reads = fn(&'static str, &[u8], &[u8]) -> Result<()>;

/// What the rows of each table are, in the order of the tables' numbers. Where all rows of a table are of one length,
/// any of that length is one.
const ROWS: [(u8, Reads); schema::TAG_MAX as usize] = [
    (schema::META.tag(), single),
    (schema::JOBS.tag(), |_, key, row| {
        job::decode(key.first_chunk().unwrap_or(&[0; 16]), row).map(drop)
    }),
    (schema::REQUESTS.tag(), |_, key, row| {
        let first = u64::from_be_bytes(*key.first_chunk().unwrap_or(&[0; 8]));
        packs::places(first, row).map(drop)
    }),
    (schema::RESPONSES.tag(), response),
    (schema::LINE.tag(), |_, _, row| {
        LineRow::decode(row).map(drop)
    }),
    (schema::IDEMPOTENCY.tag(), |_, _, row| {
        Keyed::decode(row).map(drop)
    }),
    (schema::CALLS.tag(), |_, _, row| {
        decode_call(0, row).map(drop)
    }),
    (schema::CALLS_BY_JOB.tag(), any),
    (schema::BILLING_OPEN.tag(), any),
    (schema::DEPENDENTS.tag(), any),
    (schema::FINISHED.tag(), any),
    (schema::DEAD_LETTERS.tag(), any),
    (schema::IN_DOUBT.tag(), any),
    (schema::USAGE.tag(), json::<UsageRow>),
    (schema::BATCHES.tag(), json::<Batch>),
    (schema::AUDIT.tag(), json::<AuditEntry>),
    (schema::CLIENT_KEYS.tag(), json::<ClientKey>),
    (schema::BATCH_INPUTS.tag(), json::<BatchInput>),
    (schema::FILES.tag(), json::<StoredFile>),
    (schema::FILE_PARTS.tag(), any),
    (schema::DELIVERIES.tag(), json::<Delivery>),
    (schema::DELIVERIES_PENDING.tag(), any),
    (schema::DELIVERIES_OPEN.tag(), any),
];

/// Reads a row. The error says what is wrong with it, and nothing of its content.
pub(super) fn check(id: &RowId, row: &[u8]) -> Result<()> {
    let tables = ROWS.iter().zip(schema::NAMES);
    let known = tables.into_iter().find(|((tag, _), _)| *tag == id.tag());
    match known {
        Some(((_, reads), name)) => reads(name, id.key(), row),
        None => Err(FileError::Damaged("a row of no table".to_owned())),
    }
}

fn any(_: &'static str, _: &[u8], _: &[u8]) -> Result<()> {
    Ok(())
}

fn json<T: for<'r> Deserialize<'r>>(table: &'static str, _: &[u8], row: &[u8]) -> Result<()> {
    decode::<T>(table, row).map(drop)
}

/// An answer, or where the job has failed, GLM's refusal.
fn response(table: &'static str, _: &[u8], row: &[u8]) -> Result<()> {
    decode_body(table, row)
        .map(drop)
        .or_else(|_| decode::<Received>(table, row).map(drop))
}

/// A single value, by its name. One that a later program has added is none that this one reads.
fn single(table: &'static str, name: &[u8], row: &[u8]) -> Result<()> {
    match str::from_utf8(name).unwrap_or_default() {
        meta::VERSION => serde_json::from_slice::<u64>(row)
            .map(drop)
            .map_err(|e| FileError::unreadable(table, &e)),
        meta::COUNTERS => json::<Counters>(table, name, row),
        meta::RELEASED => json::<Vec<JobId>>(table, name, row),
        meta::LANE => json::<SchedulerState>(table, name, row),
        meta::BREAKER => json::<BreakerSnapshot>(table, name, row),
        meta::CONFIG => json::<String>(table, name, row),
        meta::CLOCK => json::<Timestamp>(table, name, row),
        meta::ALERTS => json::<AlertBook>(table, name, row),
        meta::ENDPOINTS => json::<Vec<HookEndpoint>>(table, name, row),
        _ => json::<IgnoredAny>(table, name, row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_says_what_its_rows_are_in_the_place_of_its_number() {
        let tags = ROWS.map(|(tag, _)| tag);
        assert!(tags.into_iter().eq(1..=schema::TAG_MAX));
    }
}
