//! The store's answers, each from one short snapshot.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::error::{FileError, Result};
use super::job;
use super::line::LineRow;
use super::reading;
use super::requests::Requests;
use super::schema::{self, Counters, decode, decode_call, meta, no_call, no_job, no_request};
use super::state::{Found, FoundKey, Merged, Rest, State};
use crate::model::{
    AnswerBody, AttemptNo, AuditEntry, AuditId, Batch, BatchId, BatchInput, ClientKey, FileId, Job,
    JobId, JobStatus, Received, SchedulerState, Seq, StoredFile, Timestamp, UsageRow, WaitingJobs,
    limits,
};
use crate::ports::{
    CallFilter, CallPage, JobFilter, JobPage, JobRecord, MoreFilter, Places, Recovered,
    StatusCounts, UsageFilter,
};

/// Waiting jobs from so many places in line on are read by two threads: fewer take no longer than a thread that begins.
const TOGETHER_FROM: u64 = if cfg!(test) { 100 } else { 20_000 };

/// Reads the compact table alone, but for the few jobs with an open attempt.
pub(super) fn recover(snapshot: &State) -> Result<Recovered> {
    let mut recovered = Recovered {
        lane: lane(snapshot)?,
        breaker: single(snapshot, meta::BREAKER)?,
        released: single(snapshot, meta::RELEASED)?.unwrap_or_default(),
        ..Recovered::default()
    };
    let mut in_line = pending(snapshot)?;
    recovered.waiting = in_line.waiting;
    let line = snapshot.open_table(schema::LINE)?;
    for item in of_status(&line, JobStatus::Processing, u64::MAX)? {
        in_line.open.push(LineRow::decode(item?.1.value())?.id);
    }
    let bodies = Bodies::open(snapshot)?;
    let open = in_line.open.into_iter().map(|id| bodies.job(id));
    recovered.open = open.collect::<Result<_>>()?;
    recovered.open.sort_unstable_by_key(|job| job.seq);
    Ok(recovered)
}

/// Pending jobs.
#[derive(Default)]
struct Pending {
    waiting: WaitingJobs,
    /// Those with an open attempt.
    open: Vec<JobId>,
}

/// Reads all of them: where they are many, one half beside the other.
fn pending(snapshot: &State) -> Result<Pending> {
    let line = snapshot.open_table(schema::LINE)?;
    let mut ends = of_status(&line, JobStatus::Pending, u64::MAX)?;
    let place = |item: Option<Result<(FoundKey<_>, _)>>| -> Result<Option<u64>> {
        let item = item.transpose()?;
        Ok(item.map(|(key, _)| schema::line_seq(key.value()).0))
    };
    let Some(first) = place(ends.next())? else {
        return Ok(Pending::default());
    };
    let last = place(ends.next_back())?.unwrap_or(first);
    drop(ends);
    if last - first < TOGETHER_FROM {
        return part_of_pending(snapshot, first, last);
    }
    let half = WaitingJobs::first_in_block(Seq(first + (last - first) / 2)).0;
    let (former, latter) = std::thread::scope(|scope| {
        let read = || reading(|| part_of_pending(snapshot, half, last));
        // Where the system gives no thread, one does it all.
        let latter = std::thread::Builder::new().spawn_scoped(scope, read);
        let former = part_of_pending(snapshot, first, half.saturating_sub(1));
        let died = || FileError::damaged("line", "it can't be read");
        let latter = match latter {
            Ok(latter) => latter.join().unwrap_or_else(|_| Err(died())),
            Err(_) => read(),
        };
        (former, latter)
    });
    let (mut all, latter) = (former?, latter?);
    all.waiting.append(latter.waiting);
    all.open.extend(latter.open);
    Ok(all)
}

/// Those from a place in line up to another.
fn part_of_pending(snapshot: &State, first: u64, last: u64) -> Result<Pending> {
    let line = snapshot.open_table(schema::LINE)?;
    let [first, last] = [first, last].map(|seq| schema::line_key(JobStatus::Pending, Seq(seq)));
    let mut found = Pending::default();
    for item in line.range::<&[u8; 9]>(&first..=&last)? {
        let (key, value) = item?;
        let row = LineRow::decode(value.value())?;
        if row.open {
            found.open.push(row.id);
        } else {
            let seq = schema::line_seq(key.value());
            found.waiting.push(&row.entry(seq));
        }
    }
    Ok(found)
}

/// The lanes' state.
pub(super) fn lane(snapshot: &State) -> Result<SchedulerState> {
    Ok(single(snapshot, meta::LANE)?.unwrap_or_default())
}

pub(super) fn job(snapshot: &State, id: JobId) -> Result<Option<JobRecord>> {
    let bodies = Bodies::open(snapshot)?;
    let job = bodies.find(id)?;
    job.map(|job| bodies.whole(job)).transpose()
}

/// A job without its bodies.
pub(super) fn job_alone(snapshot: &State, id: JobId) -> Result<Option<Job>> {
    Bodies::open(snapshot)?.find(id)
}

pub(super) fn jobs(
    snapshot: &State,
    filter: &JobFilter,
    cursor: Option<u64>,
    limit: usize,
) -> Result<JobPage> {
    let bodies = Bodies::open(snapshot)?;
    let mut filling = Filling::new(cursor, limit);
    if let Some(ids) = &filter.more.ids {
        for job in bodies.wanted(ids, filter)? {
            if filling.takes(job.seq) {
                filling.put(bodies.whole(job)?);
            }
        }
        return Ok(filling.page);
    }
    // Jobs of a status are counted; those of a user or model have to be looked for.
    let counted = filter.user_id.is_none() && filter.model.is_none() && filter.more.is_empty();
    let line = snapshot.open_table(schema::LINE)?;
    let last = if counted { filling.from } else { u64::MAX };
    for item in Newest::open(&line, filter.status, last)? {
        let (seq, status, row) = item?;
        let row = LineRow::decode(row.value())?;
        if !bodies.is_wanted(&row, status, filter)? {
            continue;
        }
        if filling.takes(seq) {
            filling.put(bodies.whole(bodies.job(row.id)?)?);
        } else if counted && filling.page.cursor.is_some() {
            break;
        }
    }
    let mut page = filling.page;
    if counted {
        let counts = counts(snapshot)?;
        page.total = filter
            .status
            .map_or_else(|| counts.total(), |s| counts.of(s));
    }
    Ok(page)
}

/// One look at the line from the cursor on: no request, no response, no count of all.
pub(super) fn places(
    snapshot: &State,
    filter: &JobFilter,
    cursor: Option<u64>,
    limit: usize,
) -> Result<Places> {
    let bodies = Bodies::open(snapshot)?;
    let from = cursor.unwrap_or(u64::MAX);
    let mut found = Places::default();
    // Adds a place, or, when there are enough, notes where to go on and says to stop.
    let mut add = |seq: Seq, id: JobId| {
        if found.places.len() == limit {
            found.cursor = Some(seq.0);
            return false;
        }
        found.places.push((seq, id));
        true
    };
    if let Some(ids) = &filter.more.ids {
        let wanted = bodies.wanted(ids, filter)?.into_iter();
        let _ = wanted
            .filter(|job| job.seq.0 <= from)
            .all(|job| add(job.seq, job.id));
        return Ok(found);
    }
    let line = snapshot.open_table(schema::LINE)?;
    for item in Newest::open(&line, filter.status, from)? {
        let (seq, status, row) = item?;
        let row = LineRow::decode(row.value())?;
        if bodies.is_wanted(&row, status, filter)? && !add(seq, row.id) {
            break;
        }
    }
    Ok(found)
}

/// A page of jobs as it fills.
struct Filling {
    page: JobPage,
    from: u64,
    limit: usize,
    body_bytes: usize,
}

impl Filling {
    fn new(cursor: Option<u64>, limit: usize) -> Self {
        Self {
            page: JobPage::default(),
            from: cursor.unwrap_or(u64::MAX),
            limit,
            body_bytes: 0,
        }
    }

    /// Puts a job on the page.
    fn put(&mut self, record: JobRecord) {
        self.body_bytes += record.body_bytes();
        self.page.jobs.push(record);
    }

    /// Counts a job that matches, and tells whether it is on the page; notes where the next begins.
    fn takes(&mut self, seq: Seq) -> bool {
        self.page.total += 1;
        if seq.0 > self.from || self.page.cursor.is_some() {
            return false;
        }
        let room =
            self.page.jobs.len() < self.limit && self.body_bytes < limits::PAGE_BODY_BYTES_MAX;
        if !room {
            self.page.cursor = Some(seq.0);
        }
        room
    }
}

pub(super) fn calls(
    snapshot: &State,
    filter: &CallFilter,
    cursor: Option<u64>,
    limit: usize,
) -> Result<CallPage> {
    let calls = snapshot.open_table(schema::CALLS)?;
    let from = cursor.unwrap_or(u64::MAX);
    let mut page = CallPage::default();
    // Adds a row, or, when the page is full, notes where the next begins and says to stop.
    let mut add = |seq: u64, row: &[u8]| -> Result<bool> {
        let call = decode_call(seq, row)?;
        if filter.matches(&call) {
            if page.calls.len() == limit {
                page.cursor = Some(seq);
                return Ok(false);
            }
            page.calls.push(call);
        }
        Ok(true)
    };
    if let Some(id) = filter.job_id {
        let by_job = snapshot.open_table(schema::CALLS_BY_JOB)?;
        let first = schema::call_key(id, AttemptNo(0));
        let last = schema::call_key(id, AttemptNo(u32::MAX));
        for item in by_job.range::<&[u8; 20]>(&first..=&last)?.rev() {
            let seq = item?.1.value();
            if seq > from {
                continue;
            }
            if !add(seq, call_row(&calls, seq)?.value())? {
                break;
            }
        }
    } else if filter.billing_open {
        let open = snapshot.open_table(schema::BILLING_OPEN)?;
        for item in open.range(..=from)?.rev() {
            let seq = item?.0.value();
            if !add(seq, call_row(&calls, seq)?.value())? {
                break;
            }
        }
    } else {
        for (looked_at, item) in calls.range(..=from)?.rev().enumerate() {
            let (seq, row) = item?;
            if looked_at == limits::CALLS_LOOKED_AT_MAX {
                page.cursor = Some(seq.value());
                break;
            }
            if !add(seq.value(), row.value())? {
                break;
            }
        }
    }
    Ok(page)
}

fn call_row(calls: &Merged<'_, u64, Bytes>, seq: u64) -> Result<Found<Bytes>> {
    calls.get(seq)?.ok_or_else(no_call)
}

pub(super) fn usage(snapshot: &State, filter: &UsageFilter) -> Result<Vec<UsageRow>> {
    if filter.start > filter.end {
        return Ok(Vec::new());
    }
    let table = snapshot.open_table(schema::USAGE)?;
    let (first, _) = schema::usage_day(filter.start);
    let (_, last) = schema::usage_day(filter.end);
    let mut rows = Vec::new();
    for item in table.range::<&[u8; 20]>(&first..=&last)? {
        let row: UsageRow = decode("usage", item?.1.value())?;
        if filter.matches(&row.key) {
            rows.push(row);
        }
    }
    // Within a day the file's order is that of the digests.
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(rows)
}

pub(super) fn counts(snapshot: &State) -> Result<StatusCounts> {
    Ok(counters(snapshot)?.jobs)
}

pub(super) fn counters(snapshot: &State) -> Result<Counters> {
    let counters: Option<Counters> = single(snapshot, meta::COUNTERS)?;
    counters.ok_or_else(|| FileError::damaged("meta", "the counters are missing"))
}

pub(super) fn batch(snapshot: &State, id: BatchId) -> Result<Option<Batch>> {
    let row = snapshot.open_table(schema::BATCHES)?.get(id.number())?;
    row.map(|row| decode("batches", row.value())).transpose()
}

pub(super) fn batches(
    snapshot: &State,
    after: Option<BatchId>,
    limit: usize,
) -> Result<Vec<Batch>> {
    let table = snapshot.open_table(schema::BATCHES)?;
    let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.number()));
    let mut batches = Vec::new();
    for item in table.range::<u64>((from, Bound::Unbounded))?.take(limit) {
        batches.push(decode("batches", item?.1.value())?);
    }
    Ok(batches)
}

pub(super) fn audit(
    snapshot: &State,
    before: Option<AuditId>,
    limit: usize,
) -> Result<Vec<AuditEntry>> {
    let table = snapshot.open_table(schema::AUDIT)?;
    let until = before
        .as_ref()
        .map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes()));
    let mut entries = Vec::new();
    for item in table
        .range::<&[u8; 16]>((Bound::Unbounded, until))?
        .rev()
        .take(limit)
    {
        entries.push(decode("audit", item?.1.value())?);
    }
    Ok(entries)
}

pub(super) fn client_keys(snapshot: &State) -> Result<Vec<ClientKey>> {
    all_client_keys(&snapshot.open_table(schema::CLIENT_KEYS)?)
}

/// The client keys of their table, in the order of their ids.
pub(super) fn all_client_keys(table: &Merged<'_, u64, &'static [u8]>) -> Result<Vec<ClientKey>> {
    let rows = table.iter()?;
    rows.map(|item| decode("client_keys", item?.1.value()))
        .collect()
}

pub(super) fn batch_input(snapshot: &State, id: BatchId) -> Result<Option<BatchInput>> {
    let table = snapshot.open_table(schema::BATCH_INPUTS)?;
    let row = table.get(id.number())?;
    row.map(|row| decode("batch_inputs", row.value()))
        .transpose()
}

pub(super) fn batch_inputs(
    snapshot: &State,
    after: Option<BatchId>,
    limit: usize,
) -> Result<Vec<BatchInput>> {
    let table = snapshot.open_table(schema::BATCH_INPUTS)?;
    let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.number()));
    let mut inputs = Vec::new();
    for item in table.range::<u64>((from, Bound::Unbounded))?.take(limit) {
        inputs.push(decode("batch_inputs", item?.1.value())?);
    }
    Ok(inputs)
}

pub(super) fn file(snapshot: &State, id: FileId) -> Result<Option<StoredFile>> {
    let table = snapshot.open_table(schema::FILES)?;
    let row = table.get(id.as_bytes())?;
    row.map(|row| decode("files", row.value())).transpose()
}

pub(super) fn files(
    snapshot: &State,
    after: Option<FileId>,
    limit: usize,
) -> Result<Vec<StoredFile>> {
    let table = snapshot.open_table(schema::FILES)?;
    let after = after.as_ref().map(FileId::as_bytes);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut files = Vec::new();
    for item in table
        .range::<&[u8; 16]>((from, Bound::Unbounded))?
        .take(limit)
    {
        files.push(decode("files", item?.1.value())?);
    }
    Ok(files)
}

pub(super) fn file_part(snapshot: &State, id: FileId, number: u32) -> Result<Option<Vec<u8>>> {
    let table = snapshot.open_table(schema::FILE_PARTS)?;
    let part = table.get(&schema::file_part_key(id, number))?;
    Ok(part.map(|part| part.value().to_vec()))
}

/// One look at the line from the cursor on, and at the rows of the jobs that are found.
pub(super) fn batch_jobs(
    snapshot: &State,
    id: Option<BatchId>,
    cursor: Option<u64>,
    limit: usize,
) -> Result<(Vec<Job>, Option<u64>)> {
    let bodies = Bodies::open(snapshot)?;
    let line = snapshot.open_table(schema::LINE)?;
    let mut jobs = Vec::new();
    for item in Newest::open(&line, None, cursor.unwrap_or(u64::MAX))? {
        let (seq, _, row) = item?;
        let row = LineRow::decode(row.value())?;
        if row.batch.is_none() || id.is_some_and(|id| row.batch != Some(id)) {
            continue;
        }
        if jobs.len() == limit {
            return Ok((jobs, Some(seq.0)));
        }
        jobs.push(bodies.job(row.id)?);
    }
    Ok((jobs, None))
}

pub(super) fn config(snapshot: &State) -> Result<Option<String>> {
    single(snapshot, meta::CONFIG)
}

pub(super) fn clock(snapshot: &State) -> Result<Option<Timestamp>> {
    single(snapshot, meta::CLOCK)
}

pub(super) fn single<T: DeserializeOwned>(snapshot: &State, name: &str) -> Result<Option<T>> {
    let row = snapshot.open_table(schema::META)?.get(name)?;
    row.map(|row| decode("meta", row.value())).transpose()
}

pub(super) type Bytes = &'static [u8];
pub(super) type Table<'v, const N: usize> = Merged<'v, &'static [u8; N], Bytes>;
pub(super) type LineRange = Rest<&'static [u8; 9], Bytes>;

/// The tables that a whole job is read from.
pub(super) struct Bodies<'v> {
    jobs: Table<'v, 16>,
    requests: Requests<'v>,
    responses: Table<'v, 16>,
}

impl<'v> Bodies<'v> {
    pub(super) fn open(snapshot: &'v State) -> Result<Self> {
        Ok(Self {
            jobs: snapshot.open_table(schema::JOBS)?,
            requests: Requests::new(snapshot.open_table(schema::REQUESTS)?),
            responses: snapshot.open_table(schema::RESPONSES)?,
        })
    }

    fn find(&self, id: JobId) -> Result<Option<Job>> {
        let row = self.jobs.get(id.as_bytes())?;
        row.map(|row| job::decode(id.as_bytes(), row.value()))
            .transpose()
    }

    /// The job of a place in line.
    pub(super) fn job(&self, id: JobId) -> Result<Job> {
        self.find(id)?.ok_or_else(|| no_job(id))
    }

    /// Whether a filter lets a place in line through; looks at the job's row only if it has to.
    fn is_wanted(&self, row: &LineRow<'_>, status: JobStatus, filter: &JobFilter) -> Result<bool> {
        let more = &filter.more;
        if !filter.matches(status, row.user, row.model) || !row.may_match(more) {
            return Ok(false);
        }
        Ok(more.is_empty() || more.matches(&self.job(row.id)?))
    }

    /// Those of some jobs that a filter lets through, each once, newest first.
    fn wanted(&self, ids: &[JobId], filter: &JobFilter) -> Result<Vec<Job>> {
        let unique: BTreeSet<JobId> = ids.iter().copied().collect();
        let others = MoreFilter {
            ids: None,
            ..filter.more.clone()
        };
        let mut wanted = Vec::new();
        for id in unique {
            let Some(job) = self.find(id)? else { continue };
            if filter.matches(job.status, &job.user_id, &job.model) && others.matches(&job) {
                wanted.push(job);
            }
        }
        wanted.sort_unstable_by_key(|job| Reverse(job.seq));
        Ok(wanted)
    }

    /// A job with its bodies.
    pub(super) fn whole(&self, job: Job) -> Result<JobRecord> {
        let id = job.id;
        let request = match job.bodies_pruned {
            true => None,
            false => Some(self.requests.get(job.seq)?.ok_or_else(|| no_request(id))?),
        };
        let response = self.responses.get(id.as_bytes())?;
        let (mut answer, mut refusal): (Option<AnswerBody>, Option<Received>) = (None, None);
        if let Some(row) = response {
            match job.has_refusal {
                true => refusal = Some(decode("responses", row.value())?),
                false => answer = Some(schema::decode_body("responses", row.value())?),
            }
        }
        Ok(JobRecord {
            job,
            request: request.map(Arc::new),
            response: answer,
            refusal: refusal.map(Arc::new),
        })
    }
}

/// The line of one status, up to a place.
pub(super) fn of_status(line: &Table<'_, 9>, status: JobStatus, last: u64) -> Result<LineRange> {
    let first = schema::line_key(status, Seq(0));
    let last = schema::line_key(status, Seq(last));
    line.range::<&[u8; 9]>(&first..=&last)
}

/// A place in line: sequence, status, row.
pub(super) type Place = (Seq, JobStatus, Found<Bytes>);

#[cfg(test)]
thread_local! {
    /// How many places in line were looked at.
    pub(super) static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The lines of several statuses as one, newest first.
pub(super) struct Newest {
    lines: Vec<(JobStatus, LineRange, Option<Place>)>,
}

impl Newest {
    /// All jobs, or those of one status, up to the place `last`.
    pub(super) fn open(line: &Table<'_, 9>, status: Option<JobStatus>, last: u64) -> Result<Self> {
        let wanted = JobStatus::ALL
            .into_iter()
            .filter(|s| status.is_none_or(|want| want == *s));
        let mut lines = Vec::new();
        for status in wanted {
            let mut range = of_status(line, status, last)?;
            let head = back(status, &mut range)?;
            lines.push((status, range, head));
        }
        Ok(Self { lines })
    }
}

/// Takes the newest place of one line.
fn back(status: JobStatus, range: &mut LineRange) -> Result<Option<Place>> {
    let Some(item) = range.next_back() else {
        return Ok(None);
    };
    let (key, row) = item?;
    Ok(Some((schema::line_seq(key.value()), status, row)))
}

impl Iterator for Newest {
    type Item = Result<Place>;

    fn next(&mut self) -> Option<Self::Item> {
        #[cfg(test)]
        LOOKED_AT.with(|rows| rows.set(rows.get() + 1));
        let seq = |head: &Option<Place>| head.as_ref().map(|(seq, ..)| *seq);
        let newest = self.lines.iter_mut().max_by_key(|(.., head)| seq(head))?;
        let (status, range, head) = newest;
        let place = head.take()?;
        match back(*status, range) {
            Ok(next) => *head = next,
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(place))
    }
}
