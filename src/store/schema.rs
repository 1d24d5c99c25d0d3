//! The file's tables, keys and row versions. A table's Rust types never change, since the
//! file remembers them; the content of a row may, since every row carries its version.
//!
//! Rows are JSON, `[1,{...}]`; keys are binary and of fixed width, so that order in the file is
//! order by number. Bodies (requests, responses) have tables of their own: a change of a job's state
//! never rewrites them.

use std::fmt;

use onelane_core::model::{Bodies, Finished, FinishedKind};
use redb::TableDefinition;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::error::{FileError, Result};
use super::row;
use super::tables::{Table, tables};
use crate::model::{
    AnswerBody, AttemptNo, CallRecord, Day, DeliveryCounts, DeliveryId, DestinationId, DuePlace,
    FileId, Fingerprint, Job, JobId, JobStatus, Seq, Timestamp, UsageKey,
};
use crate::ports::StatusCounts;

/// The version of the tables and what they mean together. Raised when an older program would
/// misread the file, or this one an older file: the store refuses every version but this one.
pub(super) const STORE_VERSION: u64 = 10;
/// The version of every row written.
pub(super) const ROW_VERSION: u64 = 1;

tables! {
    /// Single values, by name: see [`meta`].
    1 META = "meta", &'static str => &'static [u8];
    /// Job id: a [`Job`], see [`super::job`].
    2 JOBS = "jobs", &'static [u8; 16] => &'static [u8];
    /// Place in line: the request of the job with this place, or a pack that begins with it, see [`super::packs`].
    3 REQUESTS = "requests", u64 => &'static [u8];
    /// Job id: GLM's answer, verbatim.
    4 RESPONSES = "responses", &'static [u8; 16] => &'static [u8];
    /// Status and place in line ([`line_key`]): [`LineRow`](super::line::LineRow). Every job is here once, so that a restart
    /// reads the pending and processing ranges alone, and a list needs no other table to filter.
    5 LINE = "line", &'static [u8; 9] => &'static [u8];
    /// Digest of an idempotency key and its scope ([`idempotency_key`]): [`Keyed`].
    6 IDEMPOTENCY = "idempotency", &'static [u8; 32] => &'static [u8];
    /// Place in the call log: [`CallRecord`].
    7 CALLS = "calls", u64 => &'static [u8];
    /// Job id and attempt ([`call_key`]): its place in the call log.
    8 CALLS_BY_JOB = "calls_by_job", &'static [u8; 20] => u64;
    /// Place in the call log, of the calls that were maybe billed and are not settled yet.
    9 BILLING_OPEN = "billing_open", u64 => ();
    /// Job id and the id of a job that waits for it ([`dependent_key`]).
    10 DEPENDENTS = "dependents", &'static [u8; 32] => ();
    /// Completed and cancelled jobs that retention may take, in the order in which they ended, those without
    /// bodies after those with them ([`finished_key`]): the job's id. What may not go is in none of the three
    /// tables, so that the oldest that may is found, and how many there are is known, without a scan.
    11 FINISHED = finished_table_name(FinishedKind::Done), &'static [u8; 17] => &'static [u8; 16];
    /// The same of failed jobs.
    12 DEAD_LETTERS = finished_table_name(FinishedKind::Failed), &'static [u8; 17] => &'static [u8; 16];
    /// The same of completed and cancelled jobs of which only the bodies may go.
    13 IN_DOUBT = finished_table_name(FinishedKind::InDoubt), &'static [u8; 17] => &'static [u8; 16];
    /// Day, model, user and client key ([`usage_key`]): [`crate::model::UsageRow`].
    14 USAGE = "usage", &'static [u8; 20] => &'static [u8];
    /// Batch id: [`crate::model::Batch`].
    15 BATCHES = "batches", u64 => &'static [u8];
    /// Id of an operator's order: [`crate::model::AuditEntry`].
    16 AUDIT = "audit", &'static [u8; 16] => &'static [u8];
    /// Client key id: [`crate::model::ClientKey`].
    17 CLIENT_KEYS = "client_keys", u64 => &'static [u8];
    /// Batch id: [`crate::model::BatchInput`].
    18 BATCH_INPUTS = "batch_inputs", u64 => &'static [u8];
    /// File id: [`crate::model::StoredFile`].
    19 FILES = "files", &'static [u8; 16] => &'static [u8];
    /// File id and the number of a part ([`file_part_key`]): its content as it came.
    20 FILE_PARTS = "file_parts", &'static [u8; 20] => &'static [u8];
    /// Place among deliveries: [`crate::model::Delivery`].
    21 DELIVERIES = "deliveries", u64 => &'static [u8];
    /// The places of the deliveries that are pending, by receiver ([`pending_key`]).
    22 DELIVERIES_PENDING = "deliveries_pending", &'static [u8; 32] => ();
    /// Job id and the id of a pending delivery of its end ([`told_key`]): until then its bodies are needed.
    23 DELIVERIES_OPEN = "deliveries_open", &'static [u8; 24] => ();
}

/// Beside the tables: the number of the last commit to the journal whose rows they have.
pub(super) const SETTLED: TableDefinition<'_, (), u64> = TableDefinition::new("settled");

/// The names in [`META`].
pub(super) mod meta {
    /// [`super::STORE_VERSION`], a bare JSON number for ever.
    pub(in crate::store) const VERSION: &str = "version";
    /// [`super::Counters`].
    pub(in crate::store) const COUNTERS: &str = "counters";
    /// The jobs whose staged attempts may be sent before their starts are stored.
    pub(in crate::store) const RELEASED: &str = "released";
    /// The lane's state.
    pub(in crate::store) const LANE: &str = "lane";
    /// The breaker's state.
    pub(in crate::store) const BREAKER: &str = "breaker";
    /// The runtime changes of the configuration.
    pub(in crate::store) const CONFIG: &str = "config";
    /// The latest moment at which the clock was believed.
    pub(in crate::store) const CLOCK: &str = "clock";
    /// Alerts and their state.
    pub(in crate::store) const ALERTS: &str = "alerts";
    /// The endpoints that notices go to.
    pub(in crate::store) const ENDPOINTS: &str = "endpoints";
}

/// Counters, written at most once a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The last place in line given.
    pub(super) job_seq: u64,
    /// The last place in the call log given.
    pub(super) call_seq: u64,
    /// The last place among deliveries given.
    pub(super) delivery_seq: u64,
    /// Deliveries of each status.
    pub(super) deliveries: DeliveryCounts,
    /// Jobs of each status.
    pub(super) jobs: StatusCounts,
    /// The last day of which rows of the call log were pruned: the usage of later days equals the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) calls_pruned_until: Option<Day>,
}

/// For which job and request an idempotency key was used: version, job id, fingerprint.
pub(super) struct Keyed;

impl Keyed {
    const BYTES: usize = 1 + 16 + 32;

    pub(super) fn encode(job: JobId, fingerprint: Fingerprint) -> [u8; Self::BYTES] {
        let mut row = [0; Self::BYTES];
        let parts = [ROW_VERSION as u8]
            .into_iter()
            .chain(*job.as_bytes())
            .chain(fingerprint.0);
        row.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<(JobId, Fingerprint)> {
        const TABLE: &str = "idempotency";
        match row.split_first() {
            Some((version, _)) if u64::from(*version) > ROW_VERSION => {
                Err(newer_row(u64::from(*version)))
            }
            Some((_, row)) => row
                .split_first_chunk()
                .and_then(|(id, rest)| Some((id, rest.try_into().ok()?)))
                .map(|(id, print)| (JobId::from_bytes(*id), Fingerprint(print)))
                .ok_or_else(|| FileError::damaged(TABLE, "a row has the wrong length")),
            None => Err(FileError::damaged(TABLE, "a row is empty")),
        }
    }
}

/// The byte of a status in [`LINE`].
pub(super) const fn status_byte(status: JobStatus) -> u8 {
    match status {
        JobStatus::Pending => 0,
        JobStatus::Processing => 1,
        JobStatus::Completed => 2,
        JobStatus::Failed => 3,
        JobStatus::Cancelled => 4,
    }
}

pub(super) fn line_key(status: JobStatus, seq: Seq) -> [u8; 9] {
    join([status_byte(status)], seq.0.to_be_bytes())
}

/// The place in line of a key in [`LINE`].
pub(super) fn line_seq(key: &[u8; 9]) -> Seq {
    let (_, seq) = key.split_last_chunk().unwrap_or((&[], &[0; 8]));
    Seq(u64::from_be_bytes(*seq))
}

/// The table of a kind.
pub(super) const fn kind(kind: FinishedKind) -> Table<&'static [u8; 17], &'static [u8; 16]> {
    match kind {
        FinishedKind::Done => FINISHED,
        FinishedKind::Failed => DEAD_LETTERS,
        FinishedKind::InDoubt => IN_DOUBT,
    }
}

/// The name of a kind's table.
pub(super) const fn finished_table_name(kind: FinishedKind) -> &'static str {
    match kind {
        FinishedKind::Done => "finished",
        FinishedKind::Failed => "dead_letters",
        FinishedKind::InDoubt => "in_doubt",
    }
}

/// Where the finished jobs with such bodies begin.
pub(super) fn finished_from(bodies: Bodies) -> [u8; 17] {
    finished_at(bodies, Timestamp::from_millis(i64::MIN), Seq(0))
}

/// Where they end.
pub(super) fn finished_to(bodies: Bodies) -> [u8; 17] {
    finished_at(bodies, Timestamp::from_millis(i64::MAX), Seq(u64::MAX))
}

/// The key of a finished job in [`FINISHED`].
pub(super) fn finished_key(bodies: Bodies, place: &Finished) -> [u8; 17] {
    finished_at(bodies, place.at, place.seq)
}

fn finished_at(bodies: Bodies, at: Timestamp, seq: Seq) -> [u8; 17] {
    let bodies = match bodies {
        Bodies::Kept => 0,
        Bodies::Pruned => 1,
    };
    // Moments before 1970 come first.
    let at = (at.as_millis().cast_unsigned() ^ (1 << 63)).to_be_bytes();
    let place: [u8; 16] = join(at, seq.0.to_be_bytes());
    join([bodies], place)
}

/// The finished job of a key and its value.
pub(super) fn finished_of(key: &[u8; 17], id: &[u8; 16]) -> Finished {
    let (_, place) = key.split_first_chunk::<1>().unwrap_or((&[0], &[]));
    let (at, seq) = place.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let seq = seq.first_chunk().unwrap_or(&[0; 8]);
    Finished {
        at: Timestamp::from_millis((u64::from_be_bytes(*at) ^ (1 << 63)).cast_signed()),
        seq: Seq(u64::from_be_bytes(*seq)),
        id: JobId::from_bytes(*id),
    }
}

/// Whether a job's bodies are there.
pub(super) const fn bodies_of(job: &Job) -> Bodies {
    if job.bodies_pruned {
        Bodies::Pruned
    } else {
        Bodies::Kept
    }
}

/// A job's key in the table of its kind; `None`: it is not finished.
pub(super) fn finished_key_of(job: &Job) -> Option<[u8; 17]> {
    Finished::of(job).map(|place| finished_key(bodies_of(job), &place))
}

/// The key of a part of a file.
pub(super) fn file_part_key(file: FileId, number: u32) -> [u8; 20] {
    join(*file.as_bytes(), number.to_be_bytes())
}

pub(super) fn call_key(job: JobId, attempt: AttemptNo) -> [u8; 20] {
    join(*job.as_bytes(), attempt.0.to_be_bytes())
}

/// The key of a place in [`DELIVERIES_PENDING`].
pub(super) fn pending_key(place: &DuePlace) -> [u8; 32] {
    // Moments before 1970 come first.
    let due = place.due.as_millis().cast_unsigned() ^ (1 << 63);
    let rest: [u8; 16] = join(due.to_be_bytes(), place.id.0.to_be_bytes());
    join(place.destination.0, rest)
}

/// The place of a key in [`DELIVERIES_PENDING`].
pub(super) fn pending_of(key: &[u8; 32]) -> DuePlace {
    let (destination, rest) = key.split_first_chunk().unwrap_or((&[0; 16], &[]));
    let (due, id) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let id = id.first_chunk().unwrap_or(&[0; 8]);
    let due = u64::from_be_bytes(*due) ^ (1 << 63);
    DuePlace {
        destination: DestinationId(*destination),
        due: Timestamp::from_millis(due.cast_signed()),
        id: DeliveryId(u64::from_be_bytes(*id)),
    }
}

pub(super) fn told_key(job: JobId, delivery: DeliveryId) -> [u8; 24] {
    join(*job.as_bytes(), delivery.0.to_be_bytes())
}

pub(super) fn dependent_key(job: JobId, dependent: JobId) -> [u8; 32] {
    join(*job.as_bytes(), *dependent.as_bytes())
}

/// The dependent of a key in [`DEPENDENTS`].
pub(super) fn dependent_of(key: &[u8; 32]) -> JobId {
    let (_, id) = key.split_last_chunk().unwrap_or((&[], &[0; 16]));
    JobId::from_bytes(*id)
}

pub(super) fn usage_key(key: &UsageKey) -> [u8; 20] {
    let digest: [u8; 32] = match key.key_id {
        None => digest(&key.model, &key.user_id),
        Some(by) => digest(&key.model, &format!("{by}\0{}", key.user_id)),
    };
    let (short, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    join(day_bytes(key.day), *short)
}

/// The first and the last key that a day's rows in [`USAGE`] can have.
pub(super) fn usage_day(day: Day) -> ([u8; 20], [u8; 20]) {
    let day = day_bytes(day);
    (join(day, [0; 16]), join(day, [u8::MAX; 16]))
}

/// The day of a key in [`USAGE`].
pub(super) fn day_of(key: &[u8; 20]) -> Day {
    let (day, _) = key.split_first_chunk().unwrap_or((&[0; 4], &[]));
    Day((u32::from_be_bytes(*day) ^ 0x8000_0000).cast_signed())
}

/// Days before 1970 come first.
fn day_bytes(day: Day) -> [u8; 4] {
    (day.0.cast_unsigned() ^ 0x8000_0000).to_be_bytes()
}

pub(super) fn idempotency_key(scope: &str, key: &str) -> [u8; 32] {
    digest(scope, key)
}

/// One digest of two texts; no other pair has it.
fn digest(a: &str, b: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((a.len() as u64).to_be_bytes());
    hash.update(a);
    hash.update(b);
    hash.finalize().into()
}

fn join<const A: usize, const B: usize, const N: usize>(a: [u8; A], b: [u8; B]) -> [u8; N] {
    const { assert!(A + B == N) };
    let mut joined = [0; N];
    let bytes = a.into_iter().chain(b);
    joined
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = from);
    joined
}

/// Writes a row, with its version, over what `out` held.
pub(super) fn encode<T: Serialize + ?Sized>(out: &mut Vec<u8>, row: &T) -> Result<()> {
    out.clear();
    out.extend_from_slice(b"[1,");
    row::write(out, row).map_err(|e| FileError::unwritable(&e))?;
    out.push(b']');
    Ok(())
}

/// Writes a row of an answer, blanks around its JSON included, over what `out` held.
pub(super) fn encode_body(out: &mut Vec<u8>, body: &AnswerBody) {
    out.clear();
    out.extend_from_slice(b"[1,");
    out.extend_from_slice(body.text().as_bytes());
    out.push(b']');
}

/// Reads such a row.
pub(super) fn decode_body(table: &str, row: &[u8]) -> Result<AnswerBody> {
    let unreadable = |e: serde_json::Error| FileError::unreadable(table, &e);
    match inner(row).map(str::from_utf8) {
        Some(Ok(text)) => AnswerBody::new(text).map_err(unreadable),
        Some(Err(e)) => Err(unreadable(serde::de::Error::custom(e))),
        None => Err(other_version(table, row)),
    }
}

/// A row without its version; `None`: it is of another one.
pub(super) fn inner(row: &[u8]) -> Option<&[u8]> {
    row.strip_prefix(b"[1,")?.strip_suffix(b"]")
}

/// Reads a row of `table`.
pub(super) fn decode<'a, T: Deserialize<'a>>(table: &str, row: &'a [u8]) -> Result<T> {
    match inner(row) {
        Some(inner) => serde_json::from_slice(inner).map_err(|e| FileError::unreadable(table, &e)),
        None => Err(other_version(table, row)),
    }
}

/// Why a row is not of the version that this program writes.
pub(super) fn other_version(table: &str, row: &[u8]) -> FileError {
    match serde_json::from_slice::<Version>(row) {
        Ok(Version(version)) if version > ROW_VERSION => newer_row(version),
        Ok(_) => FileError::damaged(table, "a row has no known version"),
        Err(e) => FileError::unreadable(table, &e),
    }
}

/// The version of a row, whatever follows it.
struct Version(u64);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;

        impl<'de> Visitor<'de> for First {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version and what follows it")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Version, A::Error> {
                let version = row.next_element()?;
                while row.next_element::<IgnoredAny>()?.is_some() {}
                version
                    .map(Version)
                    .ok_or_else(|| A::Error::custom("a row of nothing"))
            }
        }

        deserializer.deserialize_seq(First)
    }
}

pub(super) const fn newer_row(found: u64) -> FileError {
    FileError::NewerRow {
        found,
        known: ROW_VERSION,
    }
}

/// Reads a row of [`CALLS`]; its place in the log is its key.
pub(super) fn decode_call(seq: u64, row: &[u8]) -> Result<CallRecord> {
    let call: CallRecord = decode("calls", row)?;
    Ok(CallRecord { seq, ..call })
}

/// A place in line without its job.
pub(super) fn no_job(id: JobId) -> FileError {
    FileError::damaged("jobs", format_args!("job {id} is missing"))
}

/// A place in the call log without its call.
pub(super) fn no_call() -> FileError {
    FileError::damaged("calls", "a row is missing")
}

/// A delivery that is due is not there.
pub(super) fn no_delivery(id: DeliveryId) -> FileError {
    FileError::damaged("deliveries", format_args!("delivery {id} is missing"))
}

/// A job is there, but not its request.
pub(super) fn no_request(id: JobId) -> FileError {
    FileError::damaged("requests", format_args!("job {id} has no request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::StoreError;

    #[test]
    fn keys_sort_as_what_they_stand_for() {
        let days = [i32::MIN, -1, 0, 1, i32::MAX].map(|d| usage_day(Day(d)));
        assert!(days.is_sorted_by(|a, b| a.1 < b.0), "{days:?}");
        let places = [0, 1, 255, 256, u64::MAX].map(|n| line_key(JobStatus::Failed, Seq(n)));
        assert!(places.is_sorted_by(|a, b| a < b));
        assert!(places.iter().map(line_seq).is_sorted());
        assert!(line_key(JobStatus::Pending, Seq(u64::MAX)) < places[0]);
        let destinations = [[0; 16], [1; 16], [255; 16]].map(DestinationId);
        let places: Vec<DuePlace> = destinations
            .into_iter()
            .flat_map(|destination| {
                [i64::MIN, -1, 0, 1, i64::MAX].map(|ms| DuePlace {
                    destination,
                    due: Timestamp::from_millis(ms),
                    id: DeliveryId(7),
                })
            })
            .collect();
        let keys: Vec<_> = places.iter().map(pending_key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert_eq!(keys.iter().map(pending_of).collect::<Vec<_>>(), places);
        let ended =
            [(i64::MIN, 9), (-1, 9), (0, 0), (0, 9), (i64::MAX, 0)].map(|(at, seq)| Finished {
                at: Timestamp::from_millis(at),
                seq: Seq(seq),
                id: JobId::from_bytes([7; 16]),
            });
        let keys = ended.map(|place| finished_key(Bodies::Kept, &place));
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        assert!(keys[4] < finished_from(Bodies::Pruned));
        for (place, key) in ended.iter().zip(&keys) {
            assert_eq!(finished_of(key, place.id.as_bytes()), *place);
        }
    }

    #[test]
    fn a_row_says_what_is_wrong_with_it_and_nothing_of_its_content() {
        let check = |row: &str, want: &str| {
            let error = decode::<Counters>("meta", row.as_bytes()).unwrap_err();
            let error = error.at("s.redb").to_string();
            assert!(error.contains(want), "{row}: {error}");
            assert!(!error.contains("secret"), "{error}");
        };
        check(
            r#"[2,{"a":"secret"}]"#,
            "a row of version 2 and this onelane reads rows of version 1",
        );
        check(r#"[0,{}]"#, "a row has no known version");
        check(
            r#"[1,{"job_seq":"secret"}]"#,
            "table meta: a row is not what it should be",
        );
        check("secret", "table meta: a row is not JSON");
        check("", "table meta: a row is cut short");
        assert!(matches!(
            Keyed::decode(&[2, 1, 1]).unwrap_err().at(""),
            StoreError::RowVersion { found: 2, .. }
        ));
        for cut in [&[][..], &[1], &[1; 48], &[1; 50]] {
            assert!(matches!(
                Keyed::decode(cut).unwrap_err().at(""),
                StoreError::Damaged { .. }
            ));
        }
    }
}
