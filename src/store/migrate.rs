//! From the file of an older program to one of this program's: one transaction, so that a migration
//! that is interrupted leaves the file as it was.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use onelane_core::model::FinishedKind;
use onelane_core::money::estimate;
use redb::{Database, Durability, ReadableTable, TableDefinition, WriteTransaction};
use serde::Deserialize;

use super::StoreOptions;
use super::error::{Fault, Result};
use super::finished;
use super::schema::{
    self, Counters, LineRow, META, decode, decode_call, encode, meta, no_job, no_request,
};
use crate::model::{
    DEFAULT_LANE, Delivery, DeliveryCounts, DeliveryStatus, HoldKind, Job, JobId, JobStatus,
    Request, SchedulerState, Seq, UsageKey, UsageRow,
};

/// Brings a store of the version `found`, which is an older one, up to [`schema::STORE_VERSION`].
pub(super) fn migrate(database: &Database, found: u64, options: StoreOptions) -> Result<()> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(options.quick_repair);
    if found == 0 {
        let what = "the version is not one that ever was";
        return Err(Fault::damaged("meta", what));
    }
    if found < 2 {
        from_1_to_2(&transaction)?;
    }
    if found < 3 {
        count_ends(&transaction)?;
    }
    if found < 4 {
        line_up_deliveries(&transaction)?;
        sort_finished(&transaction)?;
    }
    let version = schema::STORE_VERSION.to_string();
    transaction
        .open_table(META)?
        .insert(meta::VERSION, version.as_bytes())?;
    Ok(transaction.commit()?)
}

/// Version 2 knows lanes, chains, estimated tokens, and which calls were maybe billed.
fn from_1_to_2(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(schema::DEPENDENTS)?;
    note_open_billing(transaction)?;
    estimate_tokens(transaction)?;
    give_lane_its_own(transaction)
}

/// Version 4 has a line of deliveries for each receiver, and counts them.
fn line_up_deliveries(transaction: &WriteTransaction) -> Result<()> {
    const ALL_IN_ONE: TableDefinition<&[u8; 16], ()> = TableDefinition::new("deliveries_due");
    transaction.delete_table(ALL_IN_ONE)?;
    let rows = transaction.open_table(schema::DELIVERIES)?;
    let mut pending = transaction.open_table(schema::DELIVERIES_PENDING)?;
    let mut counts = DeliveryCounts::default();
    for item in rows.iter()? {
        let row = decode::<Delivery>("deliveries", item?.1.value());
        let Some(delivery) = finished::readable(row)? else {
            continue;
        };
        counts.moved(None, Some(delivery.status));
        if let Some(place) = delivery.place() {
            pending.insert(&schema::pending_key(&place), ())?;
        }
    }
    let mut table = transaction.open_table(META)?;
    let counters: Option<Counters> = match table.get(meta::COUNTERS)? {
        Some(row) => Some(decode("meta", row.value())?),
        None => None,
    };
    let missing = || Fault::damaged("meta", "the counters are missing");
    let mut counters = counters.ok_or_else(missing)?;
    counters.deliveries = counts;
    let mut out = Vec::new();
    encode(&mut out, &counters)?;
    table.insert(meta::COUNTERS, out.as_slice())?;
    Ok(())
}

/// Version 4 knows what may go of which job: version 3 had all that were finished in one table.
fn sort_finished(transaction: &WriteTransaction) -> Result<()> {
    let mut told = transaction.open_table(schema::DELIVERIES_OPEN)?;
    for item in transaction.open_table(schema::DELIVERIES)?.iter()? {
        let row = decode::<Delivery>("deliveries", item?.1.value());
        let Some(delivery) = finished::readable(row)? else {
            continue;
        };
        if let Some(job) = delivery.notice.job_id()
            && delivery.status == DeliveryStatus::Pending
        {
            told.insert(&schema::told_key(job, delivery.id), ())?;
        }
    }
    let billing = transaction.open_table(schema::BILLING_OPEN)?;
    let by_job = transaction.open_table(schema::CALLS_BY_JOB)?;
    let mut finished = transaction.open_table(schema::FINISHED)?;
    let mut dead_letters = transaction.open_table(schema::DEAD_LETTERS)?;
    let mut in_doubt = transaction.open_table(schema::IN_DOUBT)?;
    for item in transaction.open_table(schema::JOBS)?.iter()? {
        let (id, row) = item?;
        // One that can't be read was no reason not to start, and is none now.
        let Some(job) = finished::readable(decode::<Job>("jobs", row.value()))? else {
            continue;
        };
        let Some(key) = schema::finished_key_of(&job) else {
            continue;
        };
        finished.remove(&key)?;
        match FinishedKind::of(&job, finished::bonds(&billing, &by_job, &told, job.id)?) {
            Some(FinishedKind::Done) => finished.insert(&key, id.value())?,
            Some(FinishedKind::Failed) => dead_letters.insert(&key, id.value())?,
            Some(FinishedKind::InDoubt) => in_doubt.insert(&key, id.value())?,
            None => None,
        };
    }
    Ok(())
}

/// Version 3 knows how long calls took, and why they failed.
/// Nothing was pruned before: the log has every call that the usage has counted.
fn count_ends(transaction: &WriteTransaction) -> Result<()> {
    let calls = transaction.open_table(schema::CALLS)?;
    let mut usage = transaction.open_table(schema::USAGE)?;
    let mut rows: BTreeMap<[u8; 20], UsageRow> = BTreeMap::new();
    for item in calls.iter()? {
        let (seq, row) = item?;
        let call = decode_call(seq.value(), row.value())?;
        let key = UsageKey::of(&call);
        let row = match rows.entry(schema::usage_key(&key)) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(vacant) => {
                let row = usage.get(vacant.key())?;
                let row = row.map(|row| decode("usage", row.value())).transpose()?;
                vacant.insert(row.unwrap_or_else(|| UsageRow::empty(key)))
            }
        };
        row.count_end(&call);
    }
    let mut out = Vec::new();
    for (key, row) in &rows {
        encode(&mut out, row)?;
        usage.insert(key, out.as_slice())?;
    }
    Ok(())
}

fn note_open_billing(transaction: &WriteTransaction) -> Result<()> {
    #[derive(Deserialize)]
    struct Doubt {
        #[serde(default)]
        maybe_billed: bool,
    }
    let calls = transaction.open_table(schema::CALLS)?;
    let mut open = transaction.open_table(schema::BILLING_OPEN)?;
    for item in calls.iter()? {
        let (seq, row) = item?;
        let call: Doubt = decode("calls", row.value())?;
        if call.maybe_billed {
            open.insert(seq.value(), ())?;
        }
    }
    Ok(())
}

/// Estimates the jobs that run or may run again, and says so in the line.
fn estimate_tokens(transaction: &WriteTransaction) -> Result<()> {
    let requests = transaction.open_table(schema::REQUESTS)?;
    let mut jobs = transaction.open_table(schema::JOBS)?;
    let mut line = transaction.open_table(schema::LINE)?;
    let mut out = Vec::new();
    for status in JobStatus::ALL {
        if status == JobStatus::Completed {
            continue;
        }
        for id in ids_of(&line, status)? {
            let request: Request = match requests.get(id.as_bytes())? {
                Some(row) => decode("requests", row.value())?,
                None => return Err(no_request(id)),
            };
            let mut job: Job = match jobs.get(id.as_bytes())? {
                Some(row) => decode("jobs", row.value())?,
                None => return Err(no_job(id)),
            };
            job.estimated_tokens = estimate::tokens(&request, None);
            encode(&mut out, &job)?;
            jobs.insert(id.as_bytes(), out.as_slice())?;
            encode(&mut out, &LineRow::of(&job))?;
            line.insert(&schema::line_key(status, job.seq), out.as_slice())?;
        }
    }
    Ok(())
}

fn ids_of(
    line: &impl ReadableTable<&'static [u8; 9], &'static [u8]>,
    status: JobStatus,
) -> Result<Vec<JobId>> {
    let first = schema::line_key(status, Seq(0));
    let last = schema::line_key(status, Seq(u64::MAX));
    let mut ids = Vec::new();
    for item in line.range::<&[u8; 9]>(&first..=&last)? {
        let (_, row) = item?;
        ids.push(decode::<LineRow<'_>>("line", row.value())?.id);
    }
    Ok(ids)
}

/// There was one lane: what it had learnt of throttling is the default lane's now. Its other holds
/// were the account's.
fn give_lane_its_own(transaction: &WriteTransaction) -> Result<()> {
    #[derive(Deserialize)]
    struct OneLane {
        #[serde(default)]
        throttle_level: u32,
    }
    let mut table = transaction.open_table(META)?;
    let row = match table.get(meta::LANE)? {
        Some(row) => row.value().to_vec(),
        None => return Ok(()),
    };
    let OneLane { throttle_level } = decode("meta", &row)?;
    let mut state: SchedulerState = decode("meta", &row)?;
    let hold = state.hold.take_if(|hold| hold.kind == HoldKind::Throttle);
    if hold.is_some() || throttle_level > 0 {
        let lane = state.lanes.entry(DEFAULT_LANE.to_owned()).or_default();
        lane.hold = hold;
        lane.throttle_level = throttle_level;
    }
    let mut out = Vec::new();
    encode(&mut out, &state)?;
    table.insert(meta::LANE, out.as_slice())?;
    Ok(())
}
