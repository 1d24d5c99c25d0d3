//! Deliveries, endpoints and alerts, as the store tells them.

use std::collections::BTreeSet;

use onelane_actors::policy::delivery;
use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::error::Result;
use super::read::single;
use super::schema::{self, decode, meta, no_delivery};
use crate::model::{AlertBook, Delivery, DeliveryId, HookEndpoint, Timestamp};
use crate::ports::{DeliveryFilter, DeliveryPage, DueDeliveries};

/// Reads the rows of those that are due alone.
pub(super) fn due(
    snapshot: &ReadTransaction,
    now: Timestamp,
    except: &BTreeSet<DeliveryId>,
    limit: usize,
) -> Result<DueDeliveries> {
    let mut found = DueDeliveries::default();
    let queue = snapshot.open_table(schema::DELIVERIES_DUE)?;
    let rows = snapshot.open_table(schema::DELIVERIES)?;
    for item in queue.iter()? {
        let (at, id) = schema::due_of(item?.0.value());
        if except.contains(&id) {
            continue;
        }
        if at > now || found.due.len() == limit {
            found.next = Some(at);
            break;
        }
        let row = rows.get(id.0)?.ok_or_else(|| no_delivery(id))?;
        found.due.push(decode("deliveries", row.value())?);
    }
    Ok(found)
}

pub(super) fn page(
    snapshot: &ReadTransaction,
    filter: &DeliveryFilter,
    cursor: Option<u64>,
    limit: usize,
) -> Result<DeliveryPage> {
    let rows = snapshot.open_table(schema::DELIVERIES)?;
    let mut page = DeliveryPage::default();
    for item in rows.range(..=cursor.unwrap_or(u64::MAX))?.rev() {
        let (id, row) = item?;
        let delivery: Delivery = decode("deliveries", row.value())?;
        if !filter.matches(&delivery) {
            continue;
        }
        if page.deliveries.len() == limit {
            page.cursor = Some(id.value());
            break;
        }
        page.deliveries.push(delivery);
    }
    Ok(page)
}

/// Reads the table row by row: rarely asked, and never while a transaction waits for it.
pub(super) fn over(
    snapshot: &ReadTransaction,
    before: Timestamp,
    keep: u64,
    limit: usize,
) -> Result<Vec<DeliveryId>> {
    let rows = snapshot.open_table(schema::DELIVERIES)?;
    let mut excess = rows.len()?.saturating_sub(keep);
    let mut over = Vec::new();
    for item in rows.iter()? {
        if over.len() == limit {
            break;
        }
        let row: Delivery = decode("deliveries", item?.1.value())?;
        if delivery::is_over(&row, before, &mut excess) {
            over.push(row.id);
        }
    }
    Ok(over)
}

pub(super) fn endpoints(snapshot: &ReadTransaction) -> Result<Vec<HookEndpoint>> {
    Ok(single(snapshot, meta::ENDPOINTS)?.unwrap_or_default())
}

pub(super) fn alerts(snapshot: &ReadTransaction) -> Result<AlertBook> {
    Ok(single(snapshot, meta::ALERTS)?.unwrap_or_default())
}
