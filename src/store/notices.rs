//! Deliveries, endpoints and alerts, as the store tells them.

use onelane_core::notify::delivery::{self, DueDeliveries, DueIndex, DueQuery};

use super::error::{FileError, Result};
use super::read::single;
use super::schema::{self, Counters, decode, meta, no_delivery};
use super::state::{Merged, State};
use crate::model::{AlertBook, Delivery, DeliveryCounts, DeliveryId, DuePlace, HookEndpoint};
use crate::ports::{DeliveriesOver, DeliveryFilter, DeliveryPage, OverQuery};

/// Reads the rows of those alone that are answered.
pub(super) fn due(snapshot: &State, query: &DueQuery) -> Result<DueDeliveries> {
    let mut index = Index {
        places: snapshot.open_table(schema::DELIVERIES_PENDING)?,
        rows: snapshot.open_table(schema::DELIVERIES)?,
    };
    delivery::find(&mut index, query)
}

struct Index<'v> {
    places: Merged<'v, &'static [u8; 32], ()>,
    rows: Merged<'v, u64, &'static [u8]>,
}

impl DueIndex for Index<'_> {
    type Error = FileError;

    fn from(&mut self, place: DuePlace) -> Result<Option<DuePlace>> {
        let first = schema::pending_key(&place);
        let next = self.places.range::<&[u8; 32]>(&first..)?.next();
        let next = next.transpose()?;
        Ok(next.map(|(key, _)| schema::pending_of(key.value())))
    }

    fn delivery(&mut self, id: DeliveryId) -> Result<Delivery> {
        let row = self.rows.get(id.0)?.ok_or_else(|| no_delivery(id))?;
        decode("deliveries", row.value())
    }
}

pub(super) fn page(
    snapshot: &State,
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

/// Reads some rows, one after the other.
pub(super) fn over(snapshot: &State, mut query: OverQuery) -> Result<DeliveriesOver> {
    let rows = snapshot.open_table(schema::DELIVERIES)?;
    let mut over = DeliveriesOver::default();
    for (looked, item) in rows.range(query.from.0..)?.enumerate() {
        let (id, row) = item?;
        if looked == query.look_at {
            over.next = Some(DeliveryId(id.value()));
            break;
        }
        query.look(decode("deliveries", row.value())?, &mut over);
    }
    Ok(over)
}

pub(super) fn counts(snapshot: &State) -> Result<DeliveryCounts> {
    let counters: Option<Counters> = single(snapshot, meta::COUNTERS)?;
    Ok(counters.unwrap_or_default().deliveries)
}

pub(super) fn endpoints(snapshot: &State) -> Result<Vec<HookEndpoint>> {
    Ok(single(snapshot, meta::ENDPOINTS)?.unwrap_or_default())
}

pub(super) fn alerts(snapshot: &State) -> Result<AlertBook> {
    Ok(single(snapshot, meta::ALERTS)?.unwrap_or_default())
}
