//! Jobs one by one, and lists of them.

use std::time::Duration;

use onelane_actors::ports::{CallFilter, JobFilter, JobPage, JobRecord, Store, StoreError};
use onelane_actors::protocol::{QueueMsg, SubmitError, Waited};
#[cfg(feature = "api")]
use onelane_core::model::Transition;
use onelane_core::model::{CallRecord, Ending, JobId, JobStatus, KeyId, Refusal, limits};

use super::{DeadLetters, JobDetail, Orchestrator, Sends};
use crate::error::Error;

impl Orchestrator {
    /// Waits until the job has a terminal status and returns it, whichever that is.
    pub async fn wait(&self, id: JobId) -> Result<JobRecord, Error> {
        loop {
            self.queued_to_its_end(id, false).await?;
            let record = self.record(id).await?;
            if record.job.status.is_terminal() {
                return Ok(record);
            }
            // Put back in line between the two questions, or its end is just being stored.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the queue says that a job has ended, or does not have it. `early`: a completion need not be on disk.
    async fn queued_to_its_end(&self, job_id: JobId, early: bool) -> Result<Waited, Error> {
        self.ask(|refs, reply| {
            refs.queue.cast(QueueMsg::Wait {
                job_id,
                early,
                reply,
            })
        })
        .await
    }

    /// Waits for a job as `wait` does, for all that its end tells. `early`: a completion need not be on disk.
    pub(super) async fn ending(&self, id: JobId, early: bool) -> Result<Ending, Error> {
        if let Waited::Ended(Some(ending)) = self.queued_to_its_end(id, early).await? {
            return Ok(*ending);
        }
        let record = self.wait(id).await?;
        Ok(Ending {
            // An answer that was paid for is given without it, too.
            call: self.last_call(id).await.ok().flatten(),
            ..record.into()
        })
    }

    /// As `wait`, at most for `limit`; then `WaitTimeout`. The job goes on.
    pub async fn wait_for(&self, id: JobId, limit: Duration) -> Result<JobRecord, Error> {
        tokio::time::timeout(limit, self.wait(id))
            .await
            .unwrap_or(Err(Error::WaitTimeout(id)))
    }

    /// One job with its attempts.
    pub async fn job(&self, id: JobId) -> Result<JobDetail, Error> {
        let found = self
            .read(move |store| {
                let record = store.job(id)?;
                record.map(|record| detail(store, record)).transpose()
            })
            .await?;
        let mut detail = found.ok_or(Error::NotFound(id))?;
        detail.record = self.as_told(detail.record);
        detail.wait_reason = self.wait_reasons([&detail.record.job]).await.remove(&id);
        Ok(detail)
    }

    pub(super) async fn record(&self, id: JobId) -> Result<JobRecord, Error> {
        let record = self.read(move |store| store.job(id)).await?;
        let record = record.ok_or(Error::NotFound(id))?;
        Ok(self.as_told(record))
    }

    /// A job as the clock shows it: what waits for its retry is not told to wait for longer than it does.
    pub(super) fn as_told(&self, record: JobRecord) -> JobRecord {
        let now = self.inner.ports.clock.now();
        JobRecord {
            job: record.job.as_told(now),
            ..record
        }
    }

    pub(super) fn page_as_told(&self, page: JobPage) -> JobPage {
        let jobs = page.jobs.into_iter();
        JobPage {
            jobs: jobs.map(|record| self.as_told(record)).collect(),
            ..page
        }
    }

    /// The client key by which a job was handed in.
    pub async fn key_of(&self, id: JobId) -> Result<Option<KeyId>, Error> {
        Ok(self.record(id).await?.job.key_id)
    }

    /// The last attempt of a job that has ended.
    pub(crate) async fn last_call(&self, id: JobId) -> Result<Option<CallRecord>, Error> {
        let filter = CallFilter {
            job_id: Some(id),
            ..CallFilter::default()
        };
        let page = self
            .read(move |store| store.calls(&filter, None, 1))
            .await?;
        Ok(page.calls.into_iter().next())
    }

    /// A page of jobs, newest first. It ends after `limit` jobs, or earlier when they are large.
    pub async fn jobs(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        let page = self.read(move |store| store.jobs(&filter, cursor, limit));
        Ok(self.page_as_told(page.await?))
    }

    /// A page of the dead letters that the filter leaves, newest first, each with its attempts. The
    /// filter's status does not count: dead letters are the failed jobs.
    pub async fn dead_letters(
        &self,
        filter: JobFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<DeadLetters, Error> {
        let filter = JobFilter {
            status: Some(JobStatus::Failed),
            ..filter
        };
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| {
            let page = store.jobs(&filter, cursor, limit)?;
            let mut dead = DeadLetters {
                letters: Vec::with_capacity(page.jobs.len()),
                total: page.total,
                cursor: page.cursor,
            };
            // The store bounds the bodies; a long history of attempts counts, too.
            let mut bytes = 0;
            for record in page.jobs {
                if bytes >= limits::PAGE_BODY_BYTES_MAX {
                    dead.cursor = Some(record.job.seq.0);
                    break;
                }
                let letter = detail(store, record)?;
                bytes += letter.attempts.iter().map(bytes_of).sum::<usize>();
                dead.letters.push(letter);
            }
            Ok(dead)
        })
        .await
    }

    /// Cancels a waiting or running job, and with it the jobs that run after it; an open call is
    /// closed. Cancelling a cancelled job is fine; a completed or failed one is `WrongStatus`.
    pub async fn cancel(&self, id: JobId) -> Result<(), Error> {
        let answer = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::Cancel { job_id: id, reply }))
            .await?;
        match answer {
            Err(Refusal::WrongStatus(JobStatus::Cancelled)) => Ok(()),
            other => other.map_err(|refusal| {
                refused(
                    id,
                    refusal,
                    "only a pending or running job can be cancelled",
                )
            }),
        }
    }

    /// Gives a job up if it goes on, and removes what it asked for and was answered. Its row, its attempts and what they
    /// cost stay.
    #[cfg(feature = "api")]
    pub(crate) async fn forget(&self, id: JobId) -> Result<(), Error> {
        match self.cancel(id).await {
            Ok(()) | Err(Error::WrongStatus { .. }) => {}
            Err(error) => return Err(error),
        }
        self.wait(id).await?;
        let forget = Transition::Forget { job_id: id };
        let decision = self.commit(vec![forget]).await?.pop();
        self.inner.ports.relays.forget(id);
        let refused = |refusal| refused(id, refusal, "only a job that has ended can be forgotten");
        decision
            .unwrap_or(Err(Refusal::NotFound))
            .map(drop)
            .map_err(refused)
    }

    /// Puts a failed, cancelled or parked job back in line with fresh retries, and lets one whose retry is
    /// delayed try now; any other is `WrongStatus`. One that runs after a job that has failed or was cancelled is `DependencyEnded`
    /// until that one is retried; one whose request was pruned is `RequestPruned`.
    pub async fn retry(&self, id: JobId) -> Result<(), Error> {
        let (answer, sends) = self
            .ask_counted(|refs, reply| refs.queue.cast(QueueMsg::Requeue { job_id: id, reply }))
            .await?;
        match (answer, sends) {
            // Asked again after a lost reply, it finds its own work done.
            (Err(Refusal::WrongStatus(_)), Sends::Again) => Ok(()),
            (answer, _) => answer.map_err(|refusal| {
                refused(
                    id,
                    refusal,
                    "only a failed, cancelled, parked or delayed job can be retried",
                )
            }),
        }
    }

    /// Changes the priority of a pending job; any other is `WrongStatus`.
    pub async fn reprioritise(&self, id: JobId, priority: i32) -> Result<(), Error> {
        self.ask(|refs, reply| {
            refs.queue.cast(QueueMsg::Reprioritise {
                job_id: id,
                priority,
                reply,
            })
        })
        .await?
        .map_err(|refusal| refused(id, refusal, "only a pending job has a place in line"))
    }
}

/// About what an attempt takes in memory.
fn bytes_of(call: &CallRecord) -> usize {
    let message = call.failure.as_ref().map_or(0, |f| f.message.len());
    size_of::<CallRecord>() + message
}

/// A job with its attempts, oldest first.
fn detail(store: &dyn Store, record: JobRecord) -> Result<JobDetail, StoreError> {
    let filter = CallFilter {
        job_id: Some(record.job.id),
        ..CallFilter::default()
    };
    let mut attempts = store.calls(&filter, None, limits::PAGE_ROWS_MAX)?.calls;
    attempts.reverse();
    Ok(JobDetail {
        record,
        attempts,
        wait_reason: None,
    })
}

fn refused(job_id: JobId, refusal: Refusal, allowed: &'static str) -> Error {
    match refusal {
        Refusal::NotFound => Error::NotFound(job_id),
        Refusal::RequestPruned => Error::RequestPruned(job_id),
        Refusal::WrongStatus(status) => Error::WrongStatus {
            job_id,
            status,
            allowed,
        },
        other => SubmitError::Refused(other).into(),
    }
}
