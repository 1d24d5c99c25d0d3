//! The way in: jobs are checked, put on disk, and only then acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelane_actors::model::{Budget, JobStatus, OverBudget, limits};
use onelane_actors::policy::transition::{Applied, NewJob, Refusal, Transition};
use onelane_actors::ports::{JobRecord, Verdicts};
use onelane_actors::queue::{CLOSED_QUEUE_JOBS, QueueMsg, SubmitError, Submitted, submitted};
use onelane_actors::store::{CommitReply, CommitRequest, StoreMsg};

use super::{Asked, Orchestrator, Submission};
use crate::error::Error;

impl Orchestrator {
    /// Puts a job on disk; answers once it is durable.
    ///
    /// Refused are: a wrong field (`Invalid`), a key used for another request (`IdempotencyConflict`), a
    /// job to run after that is not there (`NoSuchDependency`) or has ended without success
    /// (`DependencyEnded`), a full queue (`QueueFull`), a closed intake (`Draining`). Who asks again with
    /// the same key for a job that is there is answered even then.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> {
        let new = self.new_job(submission)?;
        self.affords(&new).await?;
        let mut verdicts = self.commit(vec![Transition::Insert(Box::new(new))]).await?;
        self.taken(verdicts.pop())
    }

    /// Puts many jobs on disk in few transactions. A job that is refused does not hinder the
    /// others; its place in the answer says why.
    pub async fn submit_many(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<Submitted, Error>>, Error> {
        if submissions.len() > limits::SUBMIT_MANY_MAX {
            return Err(Error::Invalid {
                field: "jobs".to_owned(),
                problem: format!("must be at most {}", limits::SUBMIT_MANY_MAX),
            });
        }
        let mut answers: Vec<Result<Submitted, Error>> = Vec::with_capacity(submissions.len());
        let mut transitions = Vec::with_capacity(submissions.len());
        let mut places = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.new_job(submission) {
                Ok(new) => {
                    places.push(answers.len());
                    transitions.push(Transition::Insert(Box::new(new)));
                    // Overwritten below; stays only if the store answered too little.
                    answers.push(Err(SubmitError::Unknown.into()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut places = places.into_iter();
        while !transitions.is_empty() {
            let rest = transitions.split_off(limits::BATCH_TRANSITIONS_MAX.min(transitions.len()));
            let verdicts = self
                .commit(std::mem::replace(&mut transitions, rest))
                .await?;
            for (verdict, place) in verdicts.into_iter().zip(places.by_ref()) {
                if let Some(answer) = answers.get_mut(place) {
                    *answer = self.taken(Some(verdict));
                }
            }
        }
        Ok(answers)
    }

    /// Submits and waits: resolves to the completed job, or to `JobFailed` or `JobCancelled`. A job
    /// whose deadline passes while it waits, say behind an open breaker, is `JobFailed` with the code
    /// `deadline`.
    pub async fn call(&self, submission: Submission) -> Result<JobRecord, Error> {
        let Submitted { job_id, .. } = self.submit(submission).await?;
        let record = self.wait(job_id).await?;
        match (record.job.status, &record.job.error) {
            (JobStatus::Failed, Some(failure)) => Err(Error::JobFailed {
                job_id,
                failure: Box::new(failure.clone()),
            }),
            (JobStatus::Cancelled, _) => Err(Error::JobCancelled(job_id)),
            _ => Ok(record),
        }
    }

    fn new_job(&self, submission: Submission) -> Result<NewJob, Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Stopped("it is shutting down".to_owned()));
        }
        let now = self.inner.ports.clock.now();
        let id = self.inner.ports.ids.job_id(now);
        let settings = Arc::clone(&self.inner.settings.borrow());
        let mut new = submission.into_job(&settings, id, now)?;
        if self.inner.state.borrow().draining.is_some() {
            new.max_queue_jobs = CLOSED_QUEUE_JOBS;
        }
        Ok(new)
    }

    /// Refuses a job that does not fit into a budget whose owner wants that told at the door.
    async fn affords(&self, new: &NewJob) -> Result<(), Error> {
        let settings = Arc::clone(&self.inner.settings.borrow());
        let refuses = |budget: &Budget| budget.over == OverBudget::Refuse;
        if !settings.budgets.iter().any(refuses) {
            return Ok(());
        }
        let job = &new.job;
        let over = self
            .ask(|refs, reply| {
                refs.queue.cast(QueueMsg::Affords {
                    user_id: job.user_id.clone(),
                    model: job.model.clone(),
                    worst: job.worst,
                    reply,
                })
            })
            .await?;
        match over {
            Some(standing) if standing.over == OverBudget::Refuse => {
                Err(Error::OverBudget(Box::new(standing)))
            }
            _ => Ok(()),
        }
    }

    /// What the store said of an insert.
    fn taken(&self, verdict: Option<Result<Applied, Refusal>>) -> Result<Submitted, Error> {
        submitted(verdict).map_err(|error| match error {
            SubmitError::IntakeClosed => {
                let closed = self.inner.state.borrow().draining.clone();
                let reason = closed.and_then(|closed| closed.reason);
                Error::Draining { reason }
            }
            other => other.into(),
        })
    }

    /// Commits through the store actor. Asked again when the actor was restarted before it
    /// answered: a job has its id before it is submitted, so asking again finds it.
    pub(super) async fn commit(&self, transitions: Vec<Transition>) -> Result<Verdicts, Error> {
        Ok(self.commit_counted(transitions).await?.0)
    }

    /// As `commit`, and tells whether it was asked more than once.
    pub(super) async fn commit_counted(
        &self,
        transitions: Vec<Transition>,
    ) -> Result<(Verdicts, Asked), Error> {
        let (verdicts, asked) = self
            .ask_counted(|refs, port| {
                refs.store.cast(StoreMsg::Commit(CommitRequest {
                    transitions: transitions.clone(),
                    reply: CommitReply::Port(port),
                }))
            })
            .await?;
        Ok((verdicts?, asked))
    }
}
