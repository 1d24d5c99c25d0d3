//! What `onelane run` asks the daemon that has the store open: its batch, its lines, and how their jobs end.

use onelane::model::{
    Batch, BatchId, Cost, Failure, FailureClass, Job, JobId, JobStatus, StatusCounts, Submission,
    Timestamp, limits,
};
use onelane::results::LineError;
use reqwest::Method;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{Daemon, Query};
use super::estimates::list;
use super::fault;
use super::nouns::{self, Metrics};
use super::parts::Event;
use crate::cli::exit::{CliError, Exit};

/// Where the batches are.
const BATCHES: &str = "/api/admin/glm/batches";
/// Where jobs are.
const JOBS: &str = "/api/glm/jobs";
/// The header that says to which batch jobs come.
const BATCH: &str = "x-onelane-batch";
/// Jobs that one request names: the lines of a request are bounded.
const NAMED_MAX: usize = 1_000;

#[derive(Deserialize)]
struct One {
    batch: nouns::Batch,
}

/// A job of a batch, by what it is found.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keyed {
    id: JobId,
    batch_id: Option<BatchId>,
    user_id: String,
    status: JobStatus,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyedJobs {
    jobs: Vec<Keyed>,
    next_cursor: Option<String>,
}

/// What became of a line that was handed in.
pub(crate) enum HandedIn {
    /// It is this job, new or known.
    Job(JobId, bool),
    /// There is no room for it yet.
    NoRoom,
    /// It is refused, and why.
    Refused(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Accepted {
    Job { id: JobId, created: bool },
    Refused { error: Why },
}

#[derive(Deserialize)]
struct Why {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

#[derive(Deserialize)]
struct AcceptedList {
    jobs: Vec<Accepted>,
}

/// How a job stands, and how it ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    id: JobId,
    status: JobStatus,
    bodies_pruned: bool,
    /// What GLM answered: an answer, or its refusal.
    pub(crate) response: Option<Answered>,
    /// Why it has no answer.
    pub(crate) why: Option<LineError>,
}

/// What GLM answered to a job.
#[derive(Debug, Deserialize)]
pub(crate) struct Answered {
    pub(crate) status_code: u16,
    pub(crate) request_id: String,
    pub(crate) body: Box<RawValue>,
}

impl Ended {
    /// The job, as far as it is told.
    pub(crate) fn job(&self) -> Job {
        let failure = self.why.as_ref().map(|error| {
            Failure::new(
                FailureClass::RequestFatal,
                &error.code,
                error.message.clone(),
            )
        });
        Job {
            status: self.status,
            bodies_pruned: self.bodies_pruned,
            error: failure,
            ..Job::new(self.id, "", "", Timestamp::default())
        }
    }
}

/// How the lane of a daemon stands.
pub(crate) struct Standing {
    /// Calls that are open.
    pub(crate) in_flight: usize,
    /// Jobs that wait or run, whosever they are.
    pub(crate) left: u64,
    /// Why nothing goes on.
    pub(crate) wait: Option<Waits>,
}

/// Why nothing goes on.
#[derive(Debug, Clone)]
pub(crate) struct Waits {
    /// The reason in words.
    pub(crate) text: String,
    /// The way out.
    pub(crate) help: Option<String>,
    /// Whether it stops all jobs until an operator acts.
    pub(crate) for_operator: bool,
}

impl Waits {
    fn of(reason: nouns::WaitReason) -> Self {
        let of_all = match reason.name.as_str() {
            "paused" | "inactive" => true,
            "hold" => reason.scope.as_deref() == Some("account"),
            _ => false,
        };
        Self {
            for_operator: of_all && reason.until.is_none(),
            text: reason.text,
            help: reason.help,
        }
    }
}

#[derive(Deserialize)]
struct InForce {
    config: ModelInForce,
}

#[derive(Deserialize)]
struct ModelInForce {
    model: String,
}

#[derive(Deserialize)]
struct Told {
    data: OfAJob,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfAJob {
    job_id: Option<JobId>,
}

/// What was heard of a job.
pub(crate) enum Heard {
    /// It has ended.
    End(JobId),
    /// It goes on.
    Going(JobId),
    /// The lane was held or paused.
    Held,
}

impl Heard {
    /// What an event tells of a run; `None`: nothing.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        if matches!(event.kind.as_str(), "lane.held" | "lane.paused") {
            return Some(Self::Held);
        }
        let told: Told = serde_json::from_str(&event.data).ok()?;
        let id = told.data.job_id?;
        match event.kind.as_str() {
            "job.completed" | "job.failed" | "job.cancelled" => Some(Self::End(id)),
            "job.submitted" => None,
            kind if kind.starts_with("job.") => Some(Self::Going(id)),
            _ => None,
        }
    }
}

fn unknown(what: &str) -> CliError {
    let problem = format!("{what} is not what this version knows");
    CliError::new(Exit::NoDaemon, problem)
        .help("use the onelane of the daemon's version; `onelane doctor` tells both")
}

/// The batch as the lane has it, as far as it is told.
fn read(told: &nouns::Batch) -> Result<Batch, CliError> {
    let id: BatchId = serde_json::from_value(json!(told.id)).map_err(|_| unknown("a batch"))?;
    let nanos = |amount: Decimal| amount.checked_mul(Decimal::from(1_000_000_000))?.to_i64();
    let cost = |cost: &super::money::Cost| {
        Some(Cost {
            nanos: nanos(cost.cost.0)?,
            currency: cost.currency,
        })
    };
    let counts = &told.counts;
    Ok(Batch {
        counts: StatusCounts {
            pending: counts.pending,
            processing: counts.processing,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
        },
        costs: told.costs.iter().filter_map(cost).collect(),
        unpriced_calls: told.unpriced_calls,
        finished_at: told.finished_at,
        cancelled_at: told.cancelled_at,
        ..Batch::new(id, &told.name, told.created_at)
    })
}

impl Daemon {
    /// Whether the simulator answers there.
    pub(crate) async fn is_simulated(&self) -> Result<bool, CliError> {
        let about: nouns::About = self.about().await?.read()?;
        Ok(about.simulated)
    }

    /// The model of jobs that name none.
    pub(crate) async fn default_model(&self) -> Result<String, CliError> {
        let answer = self.get("/api/admin/glm/config", &Query::default()).await?;
        let InForce { config } = answer.read()?;
        Ok(config.model)
    }

    /// Every batch.
    pub(crate) async fn batches(&self) -> Result<Vec<Batch>, CliError> {
        let answer = self.get(BATCHES, &Query::default()).await?;
        let nouns::Batches { batches, .. } = answer.read()?;
        batches.iter().map(read).collect()
    }

    /// One batch.
    pub(crate) async fn batch(&self, id: BatchId) -> Result<Batch, CliError> {
        let answer = self
            .get(&format!("{BATCHES}/{id}"), &Query::default())
            .await?;
        read(&answer.read::<One>()?.batch)
    }

    /// Begins a batch, or opens it for more jobs.
    pub(crate) async fn open_batch(&self, name: &str) -> Result<Batch, CliError> {
        let answer = self.post(BATCHES, &json!({"name": name})).await?;
        read(&answer.read::<One>()?.batch)
    }

    /// No more jobs come to a batch.
    pub(crate) async fn close_batch(&self, id: BatchId) -> Result<Batch, CliError> {
        let answer = self.order(&format!("{BATCHES}/{id}/close")).await?;
        read(&answer.read::<One>()?.batch)
    }

    /// Jobs of a batch, or of all, by what they are found.
    pub(crate) async fn batch_jobs(
        &self,
        batch: Option<BatchId>,
        cursor: Option<u64>,
    ) -> Result<(Vec<Job>, Option<u64>), CliError> {
        let query = Query::default()
            .maybe("batchId", batch.as_ref())
            .maybe("cursor", cursor.as_ref());
        let answer = self.get("/api/admin/glm/batch-jobs", &query).await?;
        let KeyedJobs { jobs, next_cursor } = answer.read()?;
        let jobs = jobs.into_iter().map(|job| Job {
            status: job.status,
            batch_id: job.batch_id,
            idempotency_key: job.idempotency_key,
            ..Job::new(job.id, &job.user_id, "", Timestamp::default())
        });
        let next = next_cursor.map(|next| next.parse().map_err(|_| unknown("a page")));
        Ok((jobs.collect(), next.transpose()?))
    }

    /// Moves jobs to a batch, each under the key that it has there.
    pub(crate) async fn adopt(
        &self,
        batch: BatchId,
        jobs: &[(JobId, String)],
    ) -> Result<u64, CliError> {
        let mut moved = 0;
        for some in jobs.chunks(NAMED_MAX) {
            let some = some.iter();
            let some: Vec<_> = some
                .map(|(id, key)| json!({"id": id, "idempotencyKey": key}))
                .collect();
            let path = format!("{BATCHES}/{batch}/adopt");
            let answer = self.post(&path, &json!({"jobs": some})).await?;
            moved += answer.read::<nouns::Changed>()?.count;
        }
        Ok(moved)
    }

    /// Gives jobs up.
    pub(crate) async fn cancel_jobs(&self, jobs: &[JobId]) -> Result<u64, CliError> {
        let mut count = 0;
        for ids in jobs.chunks(NAMED_MAX) {
            let filter = json!({"filter": {"ids": ids}});
            let answer = self.post("/api/admin/glm/cancel", &filter).await?;
            count += answer.read::<nouns::Changed>()?.count;
        }
        Ok(count)
    }

    /// Hands lines in, as jobs of an open batch. Asked again, those that are there already are found by their keys.
    pub(crate) async fn hand_in(
        &self,
        batch: BatchId,
        jobs: &[Submission],
    ) -> Result<Vec<HandedIn>, CliError> {
        let mut all = Vec::with_capacity(jobs.len());
        for some in jobs.chunks(limits::SUBMIT_MANY_MAX) {
            let request = self
                .request(Method::POST, JOBS)
                .header("content-type", "application/json")
                .header(BATCH, batch.to_string())
                .timeout(super::client::ANSWER_WITHIN)
                .body(list(some)?);
            let response = request.send().await;
            let response = response.map_err(|error| fault::unreachable(self, &error))?;
            let AcceptedList { jobs } = self.list_of(JOBS, response).await?.read()?;
            for job in jobs {
                all.push(match job {
                    Accepted::Job { id, created } => HandedIn::Job(id, created),
                    Accepted::Refused { error } => match error.kind.rsplit(':').next() {
                        Some("queue-full" | "store-failed" | "busy") => HandedIn::NoRoom,
                        Some("draining") => {
                            let help = "`onelane lane resume` opens the intake; run the same command again after that";
                            return Err(CliError::new(Exit::Held, error.detail).help(help));
                        }
                        _ => HandedIn::Refused(error.detail),
                    },
                });
            }
        }
        Ok(all)
    }

    /// How a job stands, and how it ended; `None`: it is not there any more.
    pub(crate) async fn ended(&self, id: JobId) -> Result<Option<Ended>, CliError> {
        let path = format!("{JOBS}/{id}/result");
        let within = Some(super::client::ANSWER_WITHIN);
        let response = self.send(Method::GET, &path, None, within).await?;
        let status = response.status().as_u16();
        let text = response.text().await;
        let text = text.map_err(|error| fault::broken(self, &error))?;
        if status == 404 && text.contains("unknown-job") {
            return Ok(None);
        }
        if status >= 300 {
            return Err(fault::problem(self, status, &text, &format!("GET {path}")));
        }
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|_| unknown("the end of a job"))
    }

    /// Puts a job back in line; `false`: somebody else was faster.
    pub(crate) async fn retry(&self, id: JobId) -> Result<bool, CliError> {
        match self.order(&format!("/api/admin/glm/retry/{id}")).await {
            Ok(_) => Ok(true),
            Err(error) if error.exit == Exit::JobsFailed => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How its lane stands.
    pub(crate) async fn standing(&self) -> Result<Standing, CliError> {
        let answer = self
            .get("/api/admin/glm/metrics", &Query::default())
            .await?;
        let Metrics { jobs, lane, .. } = answer.read()?;
        let in_flight = lane.lanes.iter().map(|lane| lane.in_flight as usize);
        Ok(Standing {
            in_flight: in_flight.sum(),
            left: jobs.pending + jobs.processing,
            wait: lane.wait_reason.map(Waits::of),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_of_the_end_of_a_job_or_that_it_goes_on() {
        let id = JobId::from_bytes([7; 16]);
        let event = |kind: &str| Event {
            id: None,
            kind: kind.to_owned(),
            data: json!({"type": kind, "data": {"jobId": id, "attempt": 1}}).to_string(),
        };
        assert!(matches!(Heard::of(&event("job.failed")), Some(Heard::End(told)) if told == id));
        assert!(matches!(Heard::of(&event("job.started")), Some(Heard::Going(told)) if told == id));
        assert!(Heard::of(&event("job.submitted")).is_none());
        assert!(matches!(Heard::of(&event("lane.held")), Some(Heard::Held)));
    }
}
