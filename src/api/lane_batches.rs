//! The batches of the lane, as an operator looks at them and gives them up.

use std::cmp::Reverse;
use std::sync::Arc;

use onelane_core::model::{Batch, BatchId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Json;
use super::input::Input;
use super::problem::{Kind, Problem};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LaneBatchesAnswer")]
#[serde(rename_all = "camelCase")]
pub(super) struct ListAnswer {
    batches: Vec<Batch>,
    /// Jobs that wait or run and belong to no batch.
    loose_jobs: u64,
}

/// `GET batches`: all of them, those that are not done first, then the newest.
pub(super) async fn list(api: Arc<Api>, _: Input) -> Result<Json<ListAnswer>, Problem> {
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let page = api.lane.batches(batches.last().map(|last| last.id)).await?;
        if page.is_empty() {
            break;
        }
        batches.extend(page);
    }
    batches.sort_by_key(|batch| (batch.unfinished() == 0, Reverse(batch.created_at)));
    let counts = api.lane.queue_status().await?;
    let of_batches: u64 = batches.iter().map(Batch::unfinished).sum();
    Ok(Json(ListAnswer {
        loose_jobs: (counts.pending + counts.processing).saturating_sub(of_batches),
        batches,
    }))
}

/// The batch of a path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchPath {
    /// Its id.
    id: BatchId,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LaneBatchAnswer")]
pub(super) struct BatchAnswer {
    batch: Batch,
}

async fn found(api: &Api, id: BatchId) -> Result<Batch, Problem> {
    let unknown = || Problem::new(Kind::UnknownBatch, format!("there is no batch {id}"));
    api.lane.batch(id).await?.ok_or_else(unknown)
}

/// `GET batches/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<BatchPath>,
) -> Result<Json<BatchAnswer>, Problem> {
    let batch = found(&api, input.path.id).await?;
    Ok(Json(BatchAnswer { batch }))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LaneBatchCancelled")]
pub(super) struct Cancelled {
    batch: Batch,
    /// Jobs that were cancelled.
    cancelled: u64,
}

/// `POST batches/{id}/cancel`. One that has ended stays as it is.
pub(super) async fn cancel(
    api: Arc<Api>,
    input: Input<BatchPath>,
) -> Result<Json<Cancelled>, Problem> {
    let id = input.path.id;
    let batch = found(&api, id).await?;
    let cancelled = match batch.finished_at {
        Some(_) => 0,
        None => api.lane.cancel_batch(id).await?,
    };
    let batch = found(&api, id).await?;
    Ok(Json(Cancelled { batch, cancelled }))
}
