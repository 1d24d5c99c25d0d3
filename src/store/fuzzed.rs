//! What reading stored rows promises for any bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job;
use super::journal;
use super::line::LineRow;
use super::packs;
use super::schema::{self, Counters, Keyed, decode, encode};
use super::tables::Rows;
use crate::model::{
    AlertBook, AuditEntry, Batch, BatchInput, CallRecord, ClientKey, Delivery, HookEndpoint,
    Received, Request, StoredFile, Timestamp, UsageRow,
};

/// A row of any table: what is read of it and written is read again as the same.
pub(crate) fn rows(row: &[u8]) {
    stable::<Counters>(row);
    job_row(row);
    stable::<Request>(row);
    requests(row);
    stable::<Received>(row);
    stable::<CallRecord>(row);
    stable::<UsageRow>(row);
    stable::<Batch>(row);
    stable::<AuditEntry>(row);
    stable::<ClientKey>(row);
    stable::<BatchInput>(row);
    stable::<StoredFile>(row);
    stable::<Delivery>(row);
    stable::<AlertBook>(row);
    stable::<Vec<HookEndpoint>>(row);
    stable::<Timestamp>(row);
    line(row);
    answer(row);
    keyed(row);
    commit(row);
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    let is_written = encode(&mut out, value).is_ok();
    assert!(is_written, "what was read can't be written");
    out
}

fn stable<T: Serialize + DeserializeOwned>(row: &[u8]) {
    const TABLE: &str = "fuzzed";
    let Ok(read) = decode::<T>(TABLE, row) else {
        return;
    };
    let once = written(&read);
    let text = String::from_utf8_lossy(&once);
    match decode::<T>(TABLE, &once) {
        Ok(again) => assert_eq!(String::from_utf8_lossy(&written(&again)), text),
        Err(error) => unreachable!("{}: {text}", error.at(TABLE)),
    }
}

/// The row of a job, whose id is its key.
fn job_row(row: &[u8]) {
    const ID: [u8; 16] = [7; 16];
    let Ok(read) = job::decode(&ID, row) else {
        return;
    };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    assert!(
        job::encode(&mut once, &read).is_ok(),
        "what was read can't be written"
    );
    let text = String::from_utf8_lossy(&once);
    match job::decode(&ID, &once) {
        Ok(again) => assert!(
            job::encode(&mut twice, &again).is_ok_and(|()| once == twice),
            "{text}"
        ),
        Err(error) => unreachable!("{}: {text}", error.at("fuzzed")),
    }
}

/// The places of a row of requests are in their order, and the row's own is not behind any.
fn requests(row: &[u8]) {
    const FIRST: u64 = 7;
    if let Ok(places) = packs::places(FIRST, row) {
        assert!(places.is_sorted_by(|a, b| a < b));
        assert!(places.first().is_some_and(|first| first.0 >= FIRST));
    }
}

/// The row of a place in line, which borrows.
fn line(row: &[u8]) {
    let Ok(read) = LineRow::decode(row) else {
        return;
    };
    let mut once = Vec::new();
    read.encode(&mut once);
    assert_eq!(LineRow::decode(&once).ok().as_ref(), Some(&read));
}

/// The row of an answer is its bytes.
fn answer(row: &[u8]) {
    let Ok(body) = schema::decode_body("responses", row) else {
        return;
    };
    let mut out = Vec::new();
    schema::encode_body(&mut out, &body);
    assert_eq!(out, row);
}

fn keyed(row: &[u8]) {
    if let Ok((job, print)) = Keyed::decode(row) {
        let once = Keyed::encode(job, print);
        // The version may be an older one.
        assert_eq!(once.get(1..), row.get(1..));
    }
}

/// A commit in the journal holds no row twice once it was written again.
fn commit(row: &[u8]) {
    let mut rows = Rows::new();
    if journal::read(row, &mut rows).is_none() {
        return;
    }
    let once = journal::written(&rows);
    let mut again = Rows::new();
    assert!(journal::read(&once, &mut again).is_some());
    assert_eq!(again, rows);
    assert!(once.len() <= row.len());
}
