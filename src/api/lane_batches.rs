//! The batches of the lane, as an operator looks at them and gives them up.

use std::cmp::Reverse;
use std::sync::Arc;

use onelane_core::model::{Batch, BatchId, JobId, JobStatus, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Json;
use super::input::{Given, Input, Nothing};
use super::pages::NextCursor;
use super::problem::{Kind, Problem};
use super::query::Cursor;
use crate::views::Audience;

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

/// A batch that is begun.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct NewBatch {
    /// What its submitter calls it.
    #[schemars(length(min = 1, max = limits::BATCH_NAME_CHARS_MAX))]
    name: String,
}

/// `POST batches`.
pub(super) async fn open(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Given<NewBatch>>,
) -> Result<Json<BatchAnswer>, Problem> {
    let Given(NewBatch { name }) = input.body;
    let batch = api.lane.open_batch(&name).await?;
    Ok(Json(BatchAnswer { batch }))
}

/// `POST batches/{id}/close`.
pub(super) async fn close(
    api: Arc<Api>,
    input: Input<BatchPath>,
) -> Result<Json<BatchAnswer>, Problem> {
    found(&api, input.path.id).await?;
    let batch = api.lane.close_batch(input.path.id).await?;
    Ok(Json(BatchAnswer { batch }))
}

/// Jobs that come to a batch from another one.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct Adopted {
    /// Which, each with the key that it is to have.
    #[schemars(length(min = 1, max = limits::NAMED_JOBS_MAX))]
    jobs: Vec<Rekeyed>,
}

/// A job under a new key.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
#[serde(rename_all = "camelCase")]
pub(super) struct Rekeyed {
    /// Which.
    id: JobId,
    /// Its key from now on.
    #[schemars(length(min = 1, max = limits::IDEMPOTENCY_KEY_CHARS_MAX))]
    idempotency_key: String,
}

/// How many jobs moved.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LaneBatchAdopted")]
pub(super) struct Moved {
    /// So many.
    count: u64,
}

/// `POST batches/{id}/adopt`.
pub(super) async fn adopt(
    api: Arc<Api>,
    input: Input<BatchPath, Nothing, Given<Adopted>>,
) -> Result<Json<Moved>, Problem> {
    let Given(Adopted { jobs }) = input.body;
    found(&api, input.path.id).await?;
    let jobs = jobs.into_iter().map(|job| (job.id, job.idempotency_key));
    let count = api.lane.adopt(input.path.id, jobs).await?;
    Ok(Json(Moved { count }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchJobsQuery {
    /// Of this batch; of all batches without it.
    batch_id: Option<BatchId>,
    /// The `nextCursor` of the page before.
    cursor: Option<Cursor>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LaneBatchJobs")]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchJobsAnswer {
    jobs: Vec<BatchJob>,
    next_cursor: NextCursor,
}

/// A job of a batch, by what it is found.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchJob {
    id: JobId,
    batch_id: Option<BatchId>,
    user_id: String,
    status: JobStatus,
    /// Its key; a viewer sees none.
    idempotency_key: Option<String>,
}

/// `GET batch-jobs`.
pub(super) async fn jobs(
    api: Arc<Api>,
    input: Input<Nothing, BatchJobsQuery>,
) -> Result<Json<BatchJobsAnswer>, Problem> {
    let BatchJobsQuery { batch_id, cursor } = input.query;
    let cursor = cursor.map(|cursor| cursor.0);
    let (jobs, next) = api.lane.batch_jobs(batch_id, cursor).await?;
    let is_owner = matches!(input.principal.audience(), Audience::Owner);
    let jobs = jobs.into_iter().map(|job| BatchJob {
        id: job.id,
        batch_id: job.batch_id,
        user_id: job.user_id,
        status: job.status,
        idempotency_key: job.idempotency_key.filter(|_| is_owner),
    });
    Ok(Json(BatchJobsAnswer {
        jobs: jobs.collect(),
        next_cursor: next.into(),
    }))
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
