//! What is told to others: made in the transaction of the fact, so that neither is without the other.

use super::Decision;
use crate::model::{
    AlertBook, Applied, Delivery, DeliveryChange, DeliveryStatus, Job, Notice, Refusal, Target,
    Timestamp, TryOutcome,
};
use crate::notify::alert::{self, AlertChange};
use crate::notify::delivery;
use crate::rows::Rows;

/// The end of a job is told to where it came from and to every endpoint that asked for it.
pub(super) fn job_ended<R: Rows>(rows: &mut R, job: &Job) -> Result<(), R::Error> {
    let endpoints = rows.endpoints()?;
    if endpoints.is_empty() && job.callback_url.is_none() {
        return Ok(());
    }
    let notice = || Notice::JobEnded(Box::new(job.clone()));
    let callback = job.callback_url.clone().map(Target::Callback);
    let event = notice().event();
    let wanted = delivery::wanted_by(&endpoints, event).map(|e| Target::Endpoint(e.name.clone()));
    let at = job.processed_at.unwrap_or_default();
    let source = job.id.to_string();
    for target in callback.into_iter().chain(wanted) {
        let made = delivery::made(rows.next_delivery(), &source, notice(), target, at);
        rows.put_delivery(&made, None)?;
    }
    Ok(())
}

pub(super) fn change<R: Rows>(rows: &mut R, change: &DeliveryChange) -> Decision<R::Error> {
    match change {
        DeliveryChange::Tell {
            source,
            notice,
            only,
            at,
        } => tell(rows, source, notice, only.as_deref(), *at),
        DeliveryChange::Tried {
            id,
            try_no,
            outcome,
            at,
            next,
        } => {
            let Some(mut row) = rows.delivery(*id)? else {
                return Ok(Err(Refusal::NoSuchDelivery(*id)));
            };
            let before = row.clone();
            if let Err(refusal) = delivery::tried(&mut row, *try_no, outcome, *at, *next) {
                return Ok(Err(refusal));
            }
            rows.put_delivery(&row, Some(&before))?;
            if let Target::Endpoint(name) = &row.target {
                note_endpoint(rows, name, outcome, *at)?;
            }
            Ok(Ok(Applied::Done))
        }
        DeliveryChange::Redeliver { id, at } => {
            let Some(mut row) = rows.delivery(*id)? else {
                return Ok(Err(Refusal::NoSuchDelivery(*id)));
            };
            let before = row.clone();
            delivery::redeliver(&mut row, *at);
            rows.put_delivery(&row, Some(&before))?;
            Ok(Ok(Applied::Deliveries(vec![*id])))
        }
        DeliveryChange::Forget { ids } => {
            let mut forgotten = Vec::new();
            for id in ids {
                let row: Option<Delivery> = rows.delivery(*id)?;
                if let Some(row) = row.filter(|row| row.status != DeliveryStatus::Pending) {
                    rows.remove_delivery(&row)?;
                    forgotten.push(*id);
                }
            }
            Ok(Ok(Applied::Deliveries(forgotten)))
        }
        DeliveryChange::Endpoints {
            endpoints,
            at,
            forget_before,
        } => {
            let before = rows.endpoints()?;
            let now = delivery::configured(&before, endpoints.clone(), *at, *forget_before);
            if *before == *now {
                return Ok(Ok(Applied::Deliveries(Vec::new())));
            }
            rows.put_endpoints(&now)?;
            Ok(Ok(Applied::Done))
        }
    }
}

/// What became of alerts since the stored book is told with the new one. The same book again changes
/// nothing and tells nobody.
pub(super) fn alerts<R: Rows>(rows: &mut R, book: &AlertBook, source: &str) -> Decision<R::Error> {
    let before = rows.alerts()?;
    if before == *book {
        return Ok(Ok(Applied::Deliveries(Vec::new())));
    }
    for change in alert::changes(&before, book) {
        let (notice, at) = match change {
            AlertChange::Raised(alert) => (Notice::AlertRaised(alert.clone()), alert.raised_at),
            AlertChange::Cleared(past) => (Notice::AlertCleared(past.clone()), past.cleared_at),
        };
        // Told to whoever asked: nobody in particular can be missing.
        let _ = tell(rows, source, &notice, None, at)?;
    }
    rows.put_alerts(book)?;
    Ok(Ok(Applied::Done))
}

fn tell<R: Rows>(
    rows: &mut R,
    source: &str,
    notice: &Notice,
    only: Option<&str>,
    at: Timestamp,
) -> Decision<R::Error> {
    let endpoints = rows.endpoints()?;
    let targets: Vec<String> = match only {
        // What somebody asks for has to have a way now.
        Some(name)
            if !endpoints
                .iter()
                .any(|e| e.name == name && e.missing_since.is_none()) =>
        {
            return Ok(Err(Refusal::NoSuchEndpoint(name.to_owned())));
        }
        Some(name) => vec![name.to_owned()],
        None => delivery::wanted_by(&endpoints, notice.event())
            .map(|e| e.name.clone())
            .collect(),
    };
    let mut ids = Vec::with_capacity(targets.len());
    for name in targets {
        let id = rows.next_delivery();
        let target = Target::Endpoint(name);
        let made = delivery::made(id, source, notice.clone(), target, at);
        rows.put_delivery(&made, None)?;
        ids.push(id);
    }
    Ok(Ok(Applied::Deliveries(ids)))
}

/// An endpoint that says it is gone is off; one that takes something is on.
fn note_endpoint<R: Rows>(
    rows: &mut R,
    name: &str,
    outcome: &TryOutcome,
    at: Timestamp,
) -> Result<(), R::Error> {
    let endpoints = rows.endpoints()?;
    let Some(known) = endpoints.iter().find(|e| e.name == name) else {
        return Ok(());
    };
    let off_since = match outcome {
        TryOutcome::Gone => known.off_since.or(Some(at)),
        TryOutcome::Delivered { .. } => None,
        TryOutcome::Failed { .. } => known.off_since,
    };
    if off_since == known.off_since {
        return Ok(());
    }
    let mut now = endpoints.to_vec();
    if let Some(endpoint) = now.iter_mut().find(|e| e.name == name) {
        endpoint.off_since = off_since;
    }
    rows.put_endpoints(&now)
}
