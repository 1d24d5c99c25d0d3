//! Where the lines of a run go: through a lane in this process, or to the daemon that has the store open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use onelane::error::Error;
use onelane::model::{
    AttemptNo, Batch, BatchId, Event, Job, JobFilter, JobId, MoreFilter, WaitReason, limits,
};
use onelane::orchestrator::{
    Events, Feed, JobDetail, Orchestrator, SchedulerSnapshot, StopReason, Submission,
};
use onelane::ports::StoreError;
use onelane::results::{LineError, Response, ResultLine};
use tokio::sync::mpsc;

use super::left::{HeldUp, stuck};
use super::progress::Standstill;
use crate::cli::exit::CliError;
use crate::cli::remote::{self, Daemon, HandedIn};

/// How long a stream of events that broke off rests before it is asked for again.
const REST: Duration = Duration::from_secs(1);
/// Events that are kept for the loop; of more it hears that it missed some.
const EVENTS_KEPT: usize = 1_024;

/// Where the lines of a run go.
#[derive(Clone)]
pub(crate) enum Way {
    /// Through the lane of this process.
    Here(Orchestrator),
    /// To a daemon.
    There(Arc<Daemon>),
}

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The lane says so.
    Lane(Error),
    /// The daemon says so, or does not answer.
    Daemon(CliError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lane(error)
    }
}

impl From<CliError> for Trouble {
    fn from(error: CliError) -> Self {
        Self::Daemon(error)
    }
}

impl From<Trouble> for CliError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lane(error) => error.into(),
            Trouble::Daemon(error) => error,
        }
    }
}

impl Trouble {
    /// Whether it lasts until there is room on the disk.
    pub(crate) const fn is_full_disk(&self) -> bool {
        matches!(self, Self::Lane(Error::Store(StoreError::Full { .. })))
    }
}

/// What was heard of jobs and lane.
pub(crate) enum Heard {
    /// Something happened.
    Event(Arc<Event>),
    /// Some of it was missed.
    Missed,
    /// Of events no more is heard.
    Over,
}

/// How a job stands.
pub(crate) enum Looked {
    /// As the lane has it.
    Here(Box<JobDetail>),
    /// As the daemon tells it.
    There(Box<Job>, Box<remote::Ended>),
}

impl Looked {
    /// The job.
    pub(crate) fn job(&self) -> &Job {
        match self {
            Self::Here(detail) => &detail.record.job,
            Self::There(job, _) => job,
        }
    }

    /// The line of the results, once it has ended.
    pub(crate) fn line(
        &self,
        id: impl std::fmt::Display,
        label: impl std::fmt::Display,
    ) -> ResultLine<'_> {
        let ended = match self {
            Self::Here(detail) => return ResultLine::of_job(id, label, detail),
            Self::There(_, ended) => ended,
        };
        let response = ended.response.as_ref().map(|response| Response {
            status_code: response.status_code,
            request_id: response.request_id.clone(),
            body: &response.body,
        });
        ResultLine::of_end(id, label, response, ended.why.clone())
    }

    /// Why it has no answer, once it has ended without one.
    pub(crate) fn why(&self) -> Option<LineError> {
        match self {
            Self::Here(detail) => Some(LineError::of_job(detail)),
            Self::There(_, ended) => ended.why.clone(),
        }
    }
}

/// What became of a try to put a job back in line.
pub(crate) enum Retried {
    /// It is.
    Done,
    /// Somebody was faster.
    Raced,
    /// It is not there any more.
    Gone,
}

/// The lane as the loop looks at it now and then.
pub(crate) struct Figures {
    /// Calls that are open.
    pub(crate) in_flight: usize,
    /// The lane itself, where it is this process's.
    pub(crate) lane: Option<SchedulerSnapshot>,
    /// Why nothing goes on.
    pub(crate) wait: Option<Standstill>,
    /// Why the lane does not go on until an operator acts, if that is so.
    pub(crate) held: Option<HeldUp>,
    /// Why nothing of what is left can go on, if that is so.
    pub(crate) stuck: Option<HeldUp>,
    /// The run's own batch.
    pub(crate) batch: Option<Batch>,
    /// Jobs in the store that wait or run, whosever they are.
    pub(crate) left: u64,
}

impl Way {
    /// The lane of this process.
    pub(crate) const fn here(&self) -> Option<&Orchestrator> {
        match self {
            Self::Here(lane) => Some(lane),
            Self::There(_) => None,
        }
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> BoxStream<'static, Heard> {
        match self {
            Self::Here(lane) => {
                let next = |mut events: Events| async {
                    let heard = match events.next().await? {
                        Feed::Event(_, event) => Heard::Event(event),
                        Feed::Missed(_) => Heard::Missed,
                    };
                    Some((heard, events))
                };
                let heard = stream::unfold(lane.subscribe(), next);
                heard.chain(stream::iter([Heard::Over])).boxed()
            }
            Self::There(daemon) => {
                let (sender, receiver) = mpsc::channel(EVENTS_KEPT);
                tokio::spawn(listen(Arc::clone(daemon), sender));
                let next = |mut receiver: mpsc::Receiver<Heard>| async {
                    let heard = receiver.recv().await?;
                    Some((heard, receiver))
                };
                let heard = stream::unfold(receiver, next);
                heard.chain(stream::iter([Heard::Over])).boxed()
            }
        }
    }

    /// Ends when the lane of this process does.
    pub(crate) async fn stopped(&self) -> StopReason {
        match self {
            Self::Here(lane) => lane.stopped().await,
            Self::There(_) => std::future::pending().await,
        }
    }

    /// Lets open calls of a lane in this process finish until the deadline. A daemon goes on.
    pub(crate) async fn shutdown(&self, deadline: Duration) {
        if let Self::Here(lane) = self {
            lane.shutdown(deadline).await;
        }
    }

    /// One batch.
    pub(crate) async fn batch(&self, id: BatchId) -> Result<Option<Batch>, Trouble> {
        match self {
            Self::Here(lane) => Ok(lane.batch(id).await?),
            Self::There(daemon) => {
                let batches = daemon.batches().await?;
                Ok(batches.into_iter().find(|batch| batch.id == id))
            }
        }
    }

    /// All batches.
    pub(crate) async fn batches(&self) -> Result<Vec<Batch>, Trouble> {
        let lane = match self {
            Self::Here(lane) => lane,
            Self::There(daemon) => return Ok(daemon.batches().await?),
        };
        let mut batches: Vec<Batch> = Vec::new();
        loop {
            let page = lane.batches(batches.last().map(|last| last.id)).await?;
            if page.is_empty() {
                return Ok(batches);
            }
            batches.extend(page);
        }
    }

    /// Jobs of a batch, or of all batches, with the place where the next begin.
    pub(crate) async fn batch_jobs(
        &self,
        batch: Option<BatchId>,
        cursor: Option<u64>,
    ) -> Result<(Vec<Job>, Option<u64>), Trouble> {
        match self {
            Self::Here(lane) => Ok(lane.batch_jobs(batch, cursor).await?),
            Self::There(daemon) => Ok(daemon.batch_jobs(batch, cursor).await?),
        }
    }

    /// Begins the batch of this name, or opens it for more jobs.
    pub(crate) async fn open_batch(&self, name: &str) -> Result<Batch, Trouble> {
        match self {
            Self::Here(lane) => Ok(lane.open_batch(name).await?),
            Self::There(daemon) => Ok(daemon.open_batch(name).await?),
        }
    }

    /// No more jobs come to a batch.
    pub(crate) async fn close_batch(&self, id: BatchId) -> Result<Batch, Trouble> {
        match self {
            Self::Here(lane) => Ok(lane.close_batch(id).await?),
            Self::There(daemon) => Ok(daemon.close_batch(id).await?),
        }
    }

    /// Moves jobs to a batch, each under the key that it has there.
    pub(crate) async fn adopt(
        &self,
        batch: BatchId,
        jobs: Vec<(JobId, String)>,
    ) -> Result<u64, Trouble> {
        match self {
            Self::Here(lane) => Ok(lane.adopt(batch, jobs).await?),
            Self::There(daemon) => Ok(daemon.adopt(batch, &jobs).await?),
        }
    }

    /// Gives jobs up, and answers how many.
    pub(crate) async fn cancel(&self, jobs: &[JobId]) -> Result<u64, Trouble> {
        let lane = match self {
            Self::Here(lane) => lane,
            Self::There(daemon) => return Ok(daemon.cancel_jobs(jobs).await?),
        };
        let mut count = 0;
        for ids in jobs.chunks(limits::NAMED_JOBS_MAX) {
            let filter = JobFilter {
                more: MoreFilter {
                    ids: Some(ids.to_vec()),
                    ..MoreFilter::default()
                },
                ..JobFilter::default()
            };
            count += lane.cancel_all(filter, false).await?;
        }
        Ok(count)
    }

    /// Hands lines in, as jobs of this batch.
    pub(crate) async fn submit_many(
        &self,
        batch: BatchId,
        jobs: Vec<Submission>,
    ) -> Result<Vec<Result<HandedIn, Trouble>>, Trouble> {
        let lane = match self {
            Self::Here(lane) => lane,
            Self::There(daemon) => {
                let handed_in = daemon.hand_in(batch, &jobs).await?;
                return Ok(handed_in.into_iter().map(Ok).collect());
            }
        };
        let replies = lane.submit_many(jobs).await?.into_iter();
        let each = replies.map(|reply| match reply {
            Ok(submitted) => Ok(HandedIn::Job(submitted.job_id, submitted.created)),
            Err(Error::QueueFull { .. } | Error::Store(StoreError::Full { .. })) => {
                Ok(HandedIn::NoRoom)
            }
            Err(error @ (Error::Store(_) | Error::Stopped(_))) => Err(error.into()),
            Err(error) => Ok(HandedIn::Refused(error.to_string())),
        });
        Ok(each.collect())
    }

    /// How a job stands; `None`: it is not there any more.
    pub(crate) async fn job(&self, id: JobId) -> Result<Option<Looked>, Trouble> {
        match self {
            Self::Here(lane) => match lane.job(id).await {
                Ok(detail) => Ok(Some(Looked::Here(Box::new(detail)))),
                Err(Error::NotFound(_)) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::There(daemon) => {
                let ended = daemon.ended(id).await?;
                Ok(ended.map(|ended| Looked::There(Box::new(ended.job()), Box::new(ended))))
            }
        }
    }

    /// Puts a job back in line.
    pub(crate) async fn retry(&self, id: JobId) -> Result<Retried, Trouble> {
        match self {
            Self::Here(lane) => match lane.retry(id).await {
                Ok(()) => Ok(Retried::Done),
                Err(Error::WrongStatus { .. }) => Ok(Retried::Raced),
                Err(Error::NotFound(_)) => Ok(Retried::Gone),
                Err(error) => Err(error.into()),
            },
            Self::There(daemon) => match daemon.retry(id).await? {
                true => Ok(Retried::Done),
                false => Ok(Retried::Raced),
            },
        }
    }

    /// How lane and batch stand.
    pub(crate) async fn figures(&self, batch: BatchId) -> Result<Figures, Trouble> {
        let lane = match self {
            Self::Here(lane) => lane,
            Self::There(daemon) => {
                let standing = daemon.standing().await?;
                let held = standing.wait.as_ref().filter(|wait| wait.for_operator);
                return Ok(Figures {
                    in_flight: standing.in_flight,
                    lane: None,
                    held: held.map(|wait| HeldUp {
                        reason: wait.text.clone(),
                        help: format!(
                            "{}; the daemon goes on with what was handed in, and the same command again fetches it",
                            wait.help.as_deref().unwrap_or("see `onelane status`")
                        ),
                    }),
                    wait: standing.wait.map(|wait| Standstill {
                        is_long: true,
                        ends_the_run: wait.for_operator,
                        text: wait.text,
                    }),
                    stuck: None,
                    batch: Some(daemon.batch(batch).await?),
                    left: standing.left,
                });
            }
        };
        let status = lane.lane().await?;
        let scope = lane.settings().scope;
        let stuck = stuck(lane, &status, scope).await?;
        let counts = lane.queue_status().await?;
        Ok(Figures {
            in_flight: status.in_flight,
            wait: status.wait_reason.as_ref().map(Standstill::of),
            held: HeldUp::of(&status),
            stuck,
            batch: lane.batch(batch).await?,
            left: counts.pending + counts.processing,
            lane: Some(status),
        })
    }
}

impl Standstill {
    /// What a reason of the lane says.
    pub(crate) fn of(reason: &WaitReason) -> Self {
        Self {
            text: reason.to_string(),
            is_long: super::progress::is_worth_a_line(reason),
            ends_the_run: reason.stops_all() && reason.waits_for_operator(),
        }
    }
}

/// Hands on what a daemon tells, until nobody listens. Whenever it listens anew it may have missed something.
async fn listen(daemon: Arc<Daemon>, to: mpsc::Sender<Heard>) {
    loop {
        if let Ok(mut parts) = daemon.stream("/api/glm/events", &Default::default()).await {
            if to.send(Heard::Missed).await.is_err() {
                return;
            }
            while let Ok(Some(event)) = parts.event().await {
                let event = match remote::Heard::of(&event) {
                    None => continue,
                    // Which of the ends it was, the look at the job says.
                    Some(remote::Heard::End(job_id)) => Event::JobCancelled { job_id },
                    Some(remote::Heard::Going(job_id)) => Event::JobStarted {
                        job_id,
                        attempt: AttemptNo(1),
                    },
                    Some(remote::Heard::Held) => continue,
                };
                if to.send(Heard::Event(Arc::new(event))).await.is_err() {
                    return;
                }
            }
        }
        if to.is_closed() {
            return;
        }
        // Whether the daemon is there at all, the figures tell.
        tokio::time::sleep(REST).await;
    }
}
