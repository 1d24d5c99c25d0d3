//! The way in: jobs are checked, put on disk, and only then acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelane_actors::ports::{Decisions, JobRecord};
use onelane_actors::queue::{
    Asking, CLOSED_QUEUE_JOBS, QueueMsg, SubmitError, Submitted, submitted,
};
use onelane_actors::store::{CommitReply, CommitRequest, StoreMsg};
use onelane_core::life::{Applied, NewJob, Refusal, Transition};
use onelane_core::model::{BudgetRefusal, JobStatus, limits};

use super::{Asked, Orchestrator, Submission};
use crate::error::Error;

impl Orchestrator {
    /// Puts a job on disk; answers once it is durable.
    ///
    /// Refused are: a wrong field (`Invalid`), a key used for another request (`IdempotencyConflict`), a
    /// job to run after that is not there (`NoSuchDependency`) or has ended without success
    /// (`DependencyEnded`), a full queue (`QueueFull`), a closed intake (`Draining`), and what a budget does
    /// not let in (`OverBudget`). Who asks again with
    /// the same key for a job that is there is answered even then.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> {
        let mut new = [self.new_job(submission)?];
        let refusal = self.ask_budgets(&mut new).await?.pop().flatten();
        let [new] = new;
        if new.job.idempotency_key.is_none()
            && let Some(refusal) = refusal
        {
            return Err(Error::OverBudget(Box::new(refusal)));
        }
        let mut decisions = self.commit(vec![Transition::Insert(Box::new(new))]).await?;
        self.taken(decisions.pop(), refusal)
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
        let mut new = Vec::with_capacity(submissions.len());
        let mut places = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.new_job(submission) {
                Ok(job) => {
                    places.push(answers.len());
                    new.push(job);
                    // Overwritten below; stays only if the store answered too little.
                    answers.push(Err(SubmitError::Unknown.into()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut refusals = self.ask_budgets(&mut new).await?.into_iter();
        let mut places = places.into_iter();
        let mut transitions: Vec<_> = new
            .into_iter()
            .map(|new| Transition::Insert(Box::new(new)))
            .collect();
        while !transitions.is_empty() {
            let rest = transitions.split_off(limits::BATCH_TRANSITIONS_MAX.min(transitions.len()));
            let decisions = self
                .commit(std::mem::replace(&mut transitions, rest))
                .await?;
            for (decision, place) in decisions.into_iter().zip(places.by_ref()) {
                let refusal = refusals.next().flatten();
                if let Some(answer) = answers.get_mut(place) {
                    *answer = self.taken(Some(decision), refusal);
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

    /// Why the budgets do not let these in, each. Such a job is still looked for in the store by its
    /// idempotency key: who asks again for one that is there gets it.
    async fn ask_budgets(&self, new: &mut [NewJob]) -> Result<Vec<Option<BudgetRefusal>>, Error> {
        if new.is_empty() || self.inner.settings.borrow().budgets.is_empty() {
            return Ok(vec![None; new.len()]);
        }
        let asking = |new: &NewJob| Asking {
            user_id: new.job.user_id.clone(),
            model: new.job.model.clone(),
            worst: new.job.worst,
        };
        let jobs: Vec<Asking> = new.iter().map(asking).collect();
        let mut refusals = self
            .ask(|refs, reply| {
                let jobs = jobs.clone();
                refs.queue.cast(QueueMsg::Affords { jobs, reply })
            })
            .await?;
        refusals.resize(new.len(), None);
        for (new, refusal) in new.iter_mut().zip(&refusals) {
            if refusal.is_some() {
                new.max_queue_jobs = CLOSED_QUEUE_JOBS;
            }
        }
        Ok(refusals)
    }

    /// What the store said of an insert; `refusal`: why it was asked only whether the job is there.
    fn taken(
        &self,
        decision: Option<Result<Applied, Refusal>>,
        refusal: Option<BudgetRefusal>,
    ) -> Result<Submitted, Error> {
        submitted(decision).map_err(|error| match (error, refusal) {
            (SubmitError::IntakeClosed, Some(refusal)) => Error::OverBudget(Box::new(refusal)),
            (SubmitError::IntakeClosed, None) => {
                let closed = self.inner.state.borrow().draining.clone();
                let reason = closed.and_then(|closed| closed.reason);
                Error::Draining { reason }
            }
            (other, _) => other.into(),
        })
    }

    /// Commits through the store actor. Asked again when the actor was restarted before it
    /// answered: a job has its id before it is submitted, so asking again finds it.
    pub(super) async fn commit(&self, transitions: Vec<Transition>) -> Result<Decisions, Error> {
        Ok(self.commit_counted(transitions).await?.0)
    }

    /// As `commit`, and tells whether it was asked more than once.
    pub(super) async fn commit_counted(
        &self,
        transitions: Vec<Transition>,
    ) -> Result<(Decisions, Asked), Error> {
        let (decisions, asked) = self
            .ask_counted(|refs, port| {
                refs.store.cast(StoreMsg::Commit(CommitRequest {
                    transitions: transitions.clone(),
                    reply: CommitReply::Port(port),
                }))
            })
            .await?;
        Ok((decisions?, asked))
    }
}
