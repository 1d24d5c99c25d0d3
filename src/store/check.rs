//! Whether a store is in order: the relations between its tables, looked at row by row. Guards against
//! damage that no single read would notice.

use std::collections::BTreeMap;

use onelane_core::model::{Findings, FinishedKind};
use onelane_core::words::counted;
use serde::de::DeserializeOwned;

use super::error::{FileError, Result};
use super::finished;
use super::job;
use super::line::LineRow;
use super::readable;
use super::requests::Requests;
use super::schema::{self, Counters, Keyed, decode, decode_call, meta};
use super::state::{Merged, State};
use super::tables::{RowKey, RowValue, Table};
use crate::model::{
    AuditEntry, Batch, BatchId, BatchInput, ClientKey, Day, Delivery, DeliveryCounts,
    DeliveryStatus, FileId, Job, JobId, JobStatus, Seq, StoredFile, UsageKey, UsageRow,
};
use crate::ports::StatusCounts;

/// Looks at every row; lists `most` findings at most.
pub(super) fn check(state: &State, most: usize) -> Result<Findings> {
    let mut check = Check {
        state,
        most,
        findings: Findings::default(),
    };
    check.singles()?;
    let counters: Option<Counters> = check.single(meta::COUNTERS)?;
    let Some(counters) = counters else {
        check.note("meta", "the counters are missing");
        return Ok(check.findings);
    };
    check.jobs(&counters)?;
    check.batches()?;
    check.files()?;
    check.keys()?;
    check.audit()?;
    check.client_keys()?;
    check.dependents()?;
    let logged = check.calls(&counters)?;
    check.usage(logged, counters.calls_pruned_until)?;
    check.deliveries(&counters)?;
    Ok(check.findings)
}

struct Check<'v> {
    state: &'v State,
    most: usize,
    findings: Findings,
}

impl<'v> Check<'v> {
    fn note(&mut self, table: &'static str, problem: impl Into<String>) {
        if self.findings.first.len() < self.most {
            self.findings.note(table, problem.into());
        } else {
            self.findings.total += 1;
        }
    }

    fn expect(&mut self, holds: bool, table: &'static str, problem: impl Fn() -> String) {
        if !holds {
            self.note(table, problem());
        }
    }

    /// A row as it was read, or a finding when it can't be.
    fn readable<T>(&mut self, table: &'static str, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(row) => Ok(Some(row)),
            Err(FileError::Damaged(problem)) => {
                let of_table = format!("table {table}: ");
                self.note(table, problem.strip_prefix(&of_table).unwrap_or(&problem));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open<K: RowKey, V: RowValue>(&self, table: Table<K, V>) -> Result<Merged<'v, K, V>> {
        self.state.open_table(table)
    }

    /// The places of all requests, in their order: each once, as rows that do not reach into each other have them.
    fn requests(&mut self) -> Result<Vec<Seq>> {
        const TABLE: &str = "requests";
        let mut all: Vec<Seq> = Vec::new();
        for row in Requests::new(self.open(schema::REQUESTS)?).places()? {
            let (first, places) = row?;
            let places = self.readable(TABLE, places)?.unwrap_or_default();
            let in_order = all.last().is_none_or(|last| *last < first);
            self.expect(in_order, TABLE, || {
                "a row reaches behind the beginning of the next one".to_owned()
            });
            all.extend(places);
        }
        Ok(all)
    }

    fn single<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        match self.open(schema::META)?.get(name)? {
            Some(row) => self.readable("meta", decode("meta", row.value())),
            None => Ok(None),
        }
    }

    fn singles(&mut self) -> Result<()> {
        for item in self.open(schema::META)?.iter()? {
            let (name, row) = item?;
            // The counters are looked at by themselves.
            if name.value() != meta::COUNTERS {
                let id = schema::META.row(&name.value());
                self.readable("meta", readable::check(&id, row.value()))?;
            }
        }
        Ok(())
    }

    fn same_count(&mut self, table: &'static str, rows: u64, wanted: u64) {
        self.expect(rows == wanted, table, || {
            format!(
                "it has {}, and should have {wanted}",
                counted(rows, "row", "rows")
            )
        });
    }

    /// Each job has its place, its bodies and, when finished, its place among the finished; and none of
    /// these is without its job.
    fn jobs(&mut self, counters: &Counters) -> Result<()> {
        let jobs = self.open(schema::JOBS)?;
        let requests = self.requests()?;
        let responses = self.open(schema::RESPONSES)?;
        let (mut counts, mut with_request, mut with_response) = (StatusCounts::default(), 0, 0);
        let mut on_shelves = FinishedKind::ALL.map(|_| 0);
        for item in jobs.iter()? {
            let (id, row) = item?;
            let Some(job) = self.readable("jobs", job::decode(id.value(), row.value()))? else {
                continue;
            };
            let id = *id.value();
            counts.moved(None, job.status);
            self.place(&job, counters)?;
            let stands = self.kind(&job)?;
            for (kind, rows) in FinishedKind::ALL.into_iter().zip(&mut on_shelves) {
                *rows += u64::from(stands == Some(kind));
            }
            let bodies = !job.bodies_pruned;
            with_request += u64::from(bodies);
            self.expect(
                requests.binary_search(&job.seq).is_ok() == bodies,
                "requests",
                || format!("that of job {} is not where it should be", job.id),
            );
            let ends_with_a_body = job.status == JobStatus::Completed || job.has_refusal;
            let answered = bodies && ends_with_a_body;
            with_response += u64::from(answered);
            self.expect(
                responses.get(&id)?.is_some() == answered,
                "responses",
                || format!("that of job {} is not where it should be", job.id),
            );
        }
        let line = self.open(schema::LINE)?.len()?;
        self.same_count("line", line, jobs.len()?);
        self.same_count("requests", requests.len() as u64, with_request);
        self.same_count("responses", responses.len()?, with_response);
        for (kind, rows) in FinishedKind::ALL.into_iter().zip(on_shelves) {
            let table = self.open(schema::kind(kind))?.len()?;
            self.same_count(schema::finished_table_name(kind), table, rows);
        }
        let counted = counters.jobs;
        self.expect(counted == counts, "meta", || {
            format!("the counters say {counted:?}, and the jobs {counts:?}")
        });
        Ok(())
    }

    /// A job's place in line, and among the finished.
    fn place(&mut self, job: &Job, counters: &Counters) -> Result<()> {
        let id = job.id;
        self.expect(job.seq.0 <= counters.job_seq, "meta", || {
            format!("job {id} has a place that was not given yet")
        });
        let (open, running) = (job.open.is_some(), job.status == JobStatus::Processing);
        self.expect(open || !running, "jobs", || {
            format!("job {id} is processing without an open attempt")
        });
        let key = schema::line_key(job.status, job.seq);
        match self.open(schema::LINE)?.get(&key)? {
            None => self.note("line", format!("job {id} has no place")),
            Some(row) => {
                let row = LineRow::decode(row.value()).map(|row| row.id);
                let found = self.readable("line", row)?;
                self.expect(found.is_none_or(|found| found == id), "line", || {
                    format!("another job stands in the place of job {id}")
                });
            }
        }
        Ok(())
    }

    /// Where retention is to find a job; it has to be there.
    fn kind(&mut self, job: &Job) -> Result<Option<FinishedKind>> {
        let id = job.id;
        let Some(key) = schema::finished_key_of(job) else {
            self.expect(!job.status.is_terminal(), "jobs", || {
                format!("job {id} has ended without a moment")
            });
            return Ok(None);
        };
        let bonds = finished::bonds(
            &self.open(schema::BILLING_OPEN)?,
            &self.open(schema::CALLS_BY_JOB)?,
            &self.open(schema::DELIVERIES_OPEN)?,
            id,
        )?;
        let kind = FinishedKind::of(job, bonds);
        if let Some(kind) = kind {
            let table = self.open(schema::kind(kind))?;
            let found = table.get(&key)?.map(|row| JobId::from_bytes(*row.value()));
            self.expect(found == Some(id), schema::finished_table_name(kind), || {
                format!("job {id} has no place among the finished")
            });
        }
        Ok(kind)
    }

    fn job(&mut self, id: JobId) -> Result<Option<Job>> {
        let jobs = self.open(schema::JOBS)?;
        let Some(row) = jobs.get(id.as_bytes())? else {
            return Ok(None);
        };
        Ok(job::decode(id.as_bytes(), row.value()).ok())
    }

    /// Each batch counts its jobs, and each job that belongs to one finds it.
    fn batches(&mut self) -> Result<()> {
        const TABLE: &str = "batches";
        let mut counted: BTreeMap<BatchId, StatusCounts> = BTreeMap::new();
        for item in self.open(schema::JOBS)?.iter()? {
            // What can't be read was found before.
            let (id, row) = item?;
            let Ok(job) = job::decode(id.value(), row.value()) else {
                continue;
            };
            if let Some(id) = job.batch_id {
                counted.entry(id).or_default().moved(None, job.status);
            }
        }
        for item in self.open(schema::BATCHES)?.iter()? {
            let (key, row) = item?;
            let Some(batch) = self.readable(TABLE, decode::<Batch>(TABLE, row.value()))? else {
                continue;
            };
            let (id, counts) = (batch.id, batch.counts);
            self.expect(id.number() == key.value(), TABLE, || {
                format!("{id} stands under another id")
            });
            let jobs = counted.remove(&id).unwrap_or_default();
            self.expect(jobs == counts, TABLE, || {
                format!("{id} counts {counts:?}, and its jobs are {jobs:?}")
            });
        }
        for id in counted.into_keys() {
            self.note(TABLE, format!("{id}, which jobs belong to, is missing"));
        }
        Ok(())
    }

    /// Each order of an operator stands under its id.
    fn audit(&mut self) -> Result<()> {
        const TABLE: &str = "audit";
        for item in self.open(schema::AUDIT)?.iter()? {
            let (key, row) = item?;
            let read = decode::<AuditEntry>(TABLE, row.value());
            let Some(entry) = self.readable(TABLE, read)? else {
                continue;
            };
            self.expect(entry.id.as_bytes() == key.value(), TABLE, || {
                format!("{} stands under another id", entry.id)
            });
        }
        Ok(())
    }

    /// Each client key stands under its id.
    fn client_keys(&mut self) -> Result<()> {
        const TABLE: &str = "client_keys";
        for item in self.open(schema::CLIENT_KEYS)?.iter()? {
            let (number, row) = item?;
            let read = decode::<ClientKey>(TABLE, row.value());
            let Some(key) = self.readable(TABLE, read)? else {
                continue;
            };
            self.expect(key.id.number() == number.value(), TABLE, || {
                format!("{} stands under another id", key.id)
            });
        }
        Ok(())
    }

    /// Each file has the parts that it counts, and each part a file.
    fn files(&mut self) -> Result<()> {
        const TABLE: &str = "files";
        let mut parts: BTreeMap<[u8; 16], (u32, u64)> = BTreeMap::new();
        for item in self.open(schema::FILE_PARTS)?.iter()? {
            let (key, part) = item?;
            let (file, _) = key.value().split_first_chunk().unwrap_or((&[0; 16], &[]));
            let (count, bytes) = parts.entry(*file).or_default();
            *count += 1;
            *bytes += part.value().len() as u64;
        }
        for item in self.open(schema::FILES)?.iter()? {
            let (_, row) = item?;
            let Some(file) = self.readable(TABLE, decode::<StoredFile>(TABLE, row.value()))? else {
                continue;
            };
            let (count, bytes) = parts.remove(file.id.as_bytes()).unwrap_or_default();
            let is_so = (count, bytes) == (file.parts, file.bytes);
            self.expect(is_so, TABLE, || {
                let StoredFile { id, parts, .. } = &file;
                format!(
                    "{id} counts {parts} parts of {} bytes, and has {count} of {bytes}",
                    file.bytes
                )
            });
        }
        for id in parts.into_keys() {
            let id = FileId::from_bytes(id);
            self.note(
                "file_parts",
                format!("{id}, which parts belong to, is missing"),
            );
        }
        for item in self.open(schema::BATCH_INPUTS)?.iter()? {
            const TABLE: &str = "batch_inputs";
            self.readable(TABLE, decode::<BatchInput>(TABLE, item?.1.value()))?;
        }
        Ok(())
    }

    /// Each idempotency key is that of the job it stands for.
    fn keys(&mut self) -> Result<()> {
        const TABLE: &str = "idempotency";
        for item in self.open(schema::IDEMPOTENCY)?.iter()? {
            let (key, row) = item?;
            let Some((id, _)) = self.readable(TABLE, Keyed::decode(row.value()))? else {
                continue;
            };
            let job = self.job(id)?;
            let its = job.as_ref().and_then(|job| {
                let key = job.idempotency_key.as_deref()?;
                Some(schema::idempotency_key(&job.idempotency_scope(), key))
            });
            self.expect(its.as_ref() == Some(key.value()), TABLE, || match &job {
                None => format!("a key stands for job {id}, which is not there"),
                Some(_) => format!("a key stands for job {id}, which has another"),
            });
        }
        Ok(())
    }

    /// Each job that is remembered as waiting is there, and so are the jobs it waits for.
    fn dependents(&mut self) -> Result<()> {
        const TABLE: &str = "dependents";
        for item in self.open(schema::DEPENDENTS)?.iter()? {
            let key = item?.0;
            let key = key.value();
            let dependent = schema::dependent_of(key);
            let (id, _) = key.split_first_chunk().unwrap_or((&[0; 16], &[]));
            let id = JobId::from_bytes(*id);
            let knows = self.job(id)?.is_some_and(|job| job.has_dependents);
            let is_there = self.job(dependent)?.is_some();
            self.expect(knows && is_there, TABLE, || {
                format!("job {dependent} is remembered as waiting for job {id}")
            });
        }
        Ok(())
    }

    /// Each call is found by its job, and among open billing where it belongs there. Answers the sums.
    fn calls(&mut self, counters: &Counters) -> Result<BTreeMap<UsageKey, UsageRow>> {
        let calls = self.open(schema::CALLS)?;
        let by_job = self.open(schema::CALLS_BY_JOB)?;
        let open = self.open(schema::BILLING_OPEN)?;
        let mut sums: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
        let (mut unresolved, mut last) = (0, 0);
        for item in calls.iter()? {
            let (seq, row) = item?;
            last = seq.value();
            let read = decode_call(last, row.value());
            let Some(call) = self.readable("calls", read)? else {
                continue;
            };
            let key = schema::call_key(call.job_id, call.attempt);
            let found = by_job.get(&key)?.map(|row| row.value());
            self.expect(found == Some(last), "calls_by_job", || {
                format!("the call at {last} is not found by its job")
            });
            unresolved += u64::from(call.is_billing_open());
            let noted = open.get(last)?.is_some();
            self.expect(noted == call.is_billing_open(), "billing_open", || {
                format!("it is wrong about the call at {last}")
            });
            let sum = sums.entry(UsageKey::of(&call));
            sum.or_insert_with_key(|key| UsageRow::empty(key.clone()))
                .add(&call);
        }
        let rows = calls.len()?;
        self.same_count("calls_by_job", by_job.len()?, rows);
        self.same_count("billing_open", open.len()?, unresolved);
        self.expect(last <= counters.call_seq, "meta", || {
            "a call has a place that was not given yet".to_owned()
        });
        if counters.calls_pruned_until.is_none() {
            self.same_count("calls", rows, counters.call_seq);
        }
        Ok(sums)
    }

    /// Each delivery that is still to be made is found when it is due, and by the job that it is about.
    fn deliveries(&mut self, counters: &Counters) -> Result<()> {
        const TABLE: &str = "deliveries";
        let queue = self.open(schema::DELIVERIES_PENDING)?;
        let open = self.open(schema::DELIVERIES_OPEN)?;
        let (mut counts, mut about_jobs, mut last) = (DeliveryCounts::default(), 0, 0);
        for item in self.open(schema::DELIVERIES)?.iter()? {
            let (id, row) = item?;
            last = id.value();
            let read = decode::<Delivery>(TABLE, row.value());
            let Some(delivery) = self.readable(TABLE, read)? else {
                continue;
            };
            self.expect(delivery.id.0 == last, TABLE, || {
                format!("delivery {} stands under another id", delivery.id)
            });
            let is_pending = delivery.status == DeliveryStatus::Pending;
            self.expect(delivery.next_try_at.is_some() == is_pending, TABLE, || {
                format!("delivery {last} is wrong about whether it is due")
            });
            counts.moved(None, Some(delivery.status));
            let Some(place) = delivery.place() else {
                continue;
            };
            let queued = queue.get(&schema::pending_key(&place))?.is_some();
            self.expect(queued, "deliveries_pending", || {
                format!("delivery {last} is not found when it is due")
            });
            let Some(job) = delivery.job_id else {
                continue;
            };
            about_jobs += 1;
            let known = open.get(&schema::told_key(job, delivery.id))?.is_some();
            self.expect(known, "deliveries_open", || {
                format!("delivery {last} is not found by its job")
            });
        }
        self.same_count("deliveries_pending", queue.len()?, counts.pending);
        self.same_count("deliveries_open", open.len()?, about_jobs);
        let counted = counters.deliveries;
        self.expect(counted == counts, "meta", || {
            format!("the counters say {counted:?}, and the deliveries {counts:?}")
        });
        self.expect(last <= counters.delivery_seq, "meta", || {
            "a delivery has a place that was not given yet".to_owned()
        });
        Ok(())
    }

    /// The usage is the sum of the log; of days that lost rows it is at least that.
    fn usage(
        &mut self,
        mut logged: BTreeMap<UsageKey, UsageRow>,
        pruned_until: Option<Day>,
    ) -> Result<()> {
        for item in self.open(schema::USAGE)?.iter()? {
            let (key, row) = item?;
            let read = decode::<UsageRow>("usage", row.value());
            let Some(row) = self.readable("usage", read)? else {
                continue;
            };
            let UsageKey {
                day,
                model,
                user_id,
                key_id,
            } = &row.key;
            let what = format!("{day}, model {model:?}, user {user_id:?}");
            let what = key_id.map_or(what.clone(), |key| format!("{what}, {key}"));
            self.expect(schema::usage_key(&row.key) == *key.value(), "usage", || {
                format!("the row of {what} stands under another key")
            });
            let log = logged.remove(&row.key);
            let log = log.unwrap_or_else(|| UsageRow::empty(row.key.clone()));
            let holds = if Some(*day) > pruned_until {
                log == row
            } else {
                log.calls <= row.calls && log.usage.total_tokens <= row.usage.total_tokens
            };
            self.expect(holds, "usage", || {
                format!("the row of {what} is not the sum of its calls")
            });
        }
        for key in logged.into_keys() {
            let UsageKey { day, model, .. } = key;
            self.note(
                "usage",
                format!("calls of {day}, model {model:?} have no row"),
            );
        }
        Ok(())
    }
}
