//! What is told to others: made in the transaction of the fact, so that neither is without the other.

use super::Decision;
use crate::model::{
    AlertBook, Applied, CallbackUrl, Delivery, DeliveryChange, DeliveryId, DeliveryStatus,
    HookEndpoint, Job, Notice, Refusal, Target, Timestamp, TryOutcome,
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
    let notice = Notice::JobEnded(Box::new(job.into()));
    let callback = job.callback_url.clone().map(CallbackUrl);
    let targets = callback.map(Target::Callback).into_iter();
    let targets = targets.chain(wanted_by(&endpoints, &notice)).collect();
    let at = job.processed_at.unwrap_or_default();
    tell(rows, &job.id.to_string(), &notice, targets, at)?;
    Ok(())
}

pub(super) fn change<R: Rows>(rows: &mut R, change: &DeliveryChange) -> Decision<R::Error> {
    match change {
        DeliveryChange::Test {
            source,
            endpoint,
            at,
        } => {
            let endpoints = rows.endpoints()?;
            let mut known = endpoints.iter().filter(|e| e.missing_since.is_none());
            // What an operator asks for has to have a way now.
            if !known.any(|known| known.name == *endpoint) {
                return Ok(Err(Refusal::NoSuchEndpoint(endpoint.clone())));
            }
            let targets = vec![Target::Endpoint(endpoint.clone())];
            let ids = tell(rows, source, &Notice::Test, targets, *at)?;
            Ok(Ok(Applied::Deliveries(ids)))
        }
        DeliveryChange::Tried {
            id,
            try_no,
            outcome,
            at,
            waited_ms,
            next,
        } => {
            let Some(mut row) = rows.delivery(*id)? else {
                return Ok(Err(Refusal::NoSuchDelivery(*id)));
            };
            let before = row.clone();
            if let Err(refusal) = delivery::tried(&mut row, *try_no, outcome, *at, *next) {
                return Ok(Err(refusal));
            }
            row.waited_ms = row.waited_ms.saturating_add(*waited_ms);
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
        DeliveryChange::ClockSetBack { ids, now } => {
            let mut changed = Vec::new();
            for id in ids {
                let Some(before) = rows.delivery(*id)? else {
                    continue;
                };
                let mut row = before.clone();
                if delivery::mind_the_clock(&mut row, *now) {
                    rows.put_delivery(&row, Some(&before))?;
                    changed.push(*id);
                }
            }
            Ok(Ok(Applied::Deliveries(changed)))
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
    let endpoints = rows.endpoints()?;
    for change in alert::changes(&before, book) {
        let (notice, at) = match change {
            AlertChange::Raised(alert) => (Notice::AlertRaised(alert.clone()), alert.raised_at),
            AlertChange::Cleared(over) => (Notice::AlertCleared(over.clone()), over.cleared_at),
        };
        let targets = wanted_by(&endpoints, &notice).collect();
        tell(rows, source, &notice, targets, at)?;
    }
    rows.put_alerts(book)?;
    Ok(Ok(Applied::Done))
}

/// Every endpoint that asked for what a notice tells.
fn wanted_by<'a>(
    endpoints: &'a [HookEndpoint],
    notice: &Notice,
) -> impl Iterator<Item = Target> + use<'a> {
    let wanted = delivery::wanted_by(endpoints, notice.event());
    wanted.map(|endpoint| Target::Endpoint(endpoint.name.clone()))
}

/// Puts a notice on its way to each of its targets, in the transaction of what it tells.
fn tell<R: Rows>(
    rows: &mut R,
    source: &str,
    notice: &Notice,
    targets: Vec<Target>,
    at: Timestamp,
) -> Result<Vec<DeliveryId>, R::Error> {
    let mut ids = Vec::with_capacity(targets.len());
    for target in targets {
        let id = rows.next_delivery();
        let made = delivery::made(id, source, notice.clone(), target, at);
        rows.put_delivery(&made, None)?;
        ids.push(id);
    }
    Ok(ids)
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
