//! The way in: jobs are checked, put on disk, and only then acknowledged.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use onelane_actors::ports::{Decisions, JobRecord};
use onelane_actors::protocol::{
    Asking, CommitReply, CommitRequest, QueueMsg, StoreMsg, SubmitError, Submitted, submitted,
};
use onelane_core::model::{
    BudgetRefusal, Ending, JobId, JobStatus, NewJob, NotAdmitted, OverRate, Payer, Timestamp,
    Transition, limits,
};
use onelane_core::scheduler::admission::Intake;

use super::attend::Attended;
use super::clients::Client;
use super::{Orchestrator, Sends, Submission};
use crate::error::Error;

/// Texts that came lately.
#[derive(Default)]
pub(super) struct Recent {
    known: HashSet<Arc<str>>,
    in_order: VecDeque<Arc<str>>,
}

impl Recent {
    /// Whether a text did not come lately. From now on it did.
    fn is_new(&mut self, text: &str) -> bool {
        let text: Arc<str> = text.into();
        if !self.known.insert(Arc::clone(&text)) {
            return false;
        }
        if self.in_order.len() >= limits::CHOSEN_IDS_KEPT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.in_order.push_back(text);
        true
    }
}

/// Bytes of a request that is looked through where it came in.
const LARGE_BYTES: usize = 128 * 1024;

/// From so many jobs on a second thread saves more time than it costs.
const JOBS_FOR_TWO: usize = 100;

/// A submission with its moment and its id.
struct Named {
    submission: Submission,
    previous: Option<JobId>,
    id: JobId,
    at: Timestamp,
}

impl Orchestrator {
    /// Puts a job on disk; answers once it is durable.
    ///
    /// Refused are: a wrong field (`Invalid`), a key used for another request (`IdempotencyConflict`), a
    /// job to run after that is not there (`NoSuchDependency`) or has ended without success
    /// (`DependencyEnded`), a full queue (`QueueFull`), a closed intake (`Draining`), and what a budget does
    /// not let in (`OverBudget`). Asking again with the same key for a job that is there is answered even then.
    ///
    /// A response that goes on from one of this lane's (`previous_response_id` with an id of ours) reaches GLM with GLM's
    /// own id of that one; `Invalid` as long as that has no answer.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> {
        let over_rate = submission.over_rate;
        let (submission, previous) = self.going_on(submission).await?;
        let is_large = submission.request.len() > LARGE_BYTES;
        let named = self.name(submission, previous);
        let new = match is_large {
            true => {
                let lane = self.clone();
                self.off_the_workers(move || lane.new_job(named)).await??
            }
            false => self.new_job(named)?,
        };
        let new = self.told_apart(new);
        let over = self.ask_budgets(std::slice::from_ref(&new)).await?.pop();
        let new = self.admit(new, over.flatten(), over_rate)?;
        let mut decisions = self
            .ask(|refs, reply| {
                let new = Arc::clone(&new);
                // One with a key may be there already, and is not started before the store has said so.
                let may_start = new.job.idempotency_key.is_none();
                if may_start && refs.is_idle.load(Ordering::Relaxed) {
                    let insert = QueueMsg::Insert { new, reply };
                    return refs.queue.cast(insert).map_err(drop);
                }
                let request = CommitRequest {
                    transitions: vec![Transition::Insert(new)],
                    reply: CommitReply::Port(reply),
                };
                refs.store.cast(StoreMsg::Commit(request)).map_err(drop)
            })
            .await??;
        Ok(submitted(decisions.pop())?)
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
        let mut over_rates = Vec::with_capacity(submissions.len());
        let mut going_on = Vec::with_capacity(submissions.len());
        for submission in submissions {
            over_rates.push(submission.over_rate);
            going_on.push(self.going_on(submission).await);
        }
        let lane = self.clone();
        let making = self.off_the_workers(move || lane.new_jobs(going_on));
        let mut rates = Vec::with_capacity(over_rates.len());
        for (made, over_rate) in making.await?.into_iter().zip(over_rates) {
            match made {
                Ok(job) => {
                    places.push(answers.len());
                    new.push(self.told_apart(job));
                    rates.push(over_rate);
                    // Overwritten below; stays only if the store answered too little.
                    answers.push(Err(SubmitError::Unknown.into()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut inserts = Vec::with_capacity(new.len());
        let over = self.ask_budgets(&new).await?;
        let all = new.into_iter().zip(over).zip(rates).zip(places);
        for (((new, over), over_rate), place) in all {
            match self.admit(new, over, over_rate) {
                Ok(new) => inserts.push((place, Transition::Insert(new))),
                Err(why) => put(&mut answers, place, Err(why.into())),
            }
        }
        while !inserts.is_empty() {
            let rest = inserts.split_off(limits::BATCH_TRANSITIONS_MAX.min(inserts.len()));
            let some = std::mem::replace(&mut inserts, rest);
            let (places, transitions): (Vec<_>, Vec<_>) = some.into_iter().unzip();
            let decisions = self.commit(transitions).await?;
            for (decision, place) in decisions.into_iter().zip(places) {
                put(
                    &mut answers,
                    place,
                    submitted(Some(decision)).map_err(Error::from),
                );
            }
        }
        Ok(answers)
    }

    /// Submits and waits: resolves to the completed job, or to `JobFailed` or `JobCancelled`. A job
    /// whose deadline passes while it waits, say behind an open breaker, is `JobFailed` with the code
    /// `deadline`.
    ///
    /// Dropping the future gives the job up, as a client of the gateway does that goes away: the lane
    /// cancels it and closes its call, so that you pay nothing for an answer that nobody takes. A job with an
    /// idempotency key goes on: call again with the same key and request to get its answer.
    ///
    /// Without a key the job belongs to this future, and ends with the process: a shutdown gives it up while
    /// it waits, and the next start gives up what a crash left. A call that was open then is on record as
    /// maybe billed and is not made again, whatever [`Submission::on_interrupted()`] says.
    pub async fn call(&self, submission: Submission) -> Result<JobRecord, Error> {
        let record = match self.attend(submission, Client::inside(), drop).await {
            Attended::Ended(_, ended) => self.record((*ended)?.job.id).await?,
            Attended::Begun(begun) => self.wait(begun.job_id).await?,
        };
        let job_id = record.job.id;
        match (record.job.status, &record.job.error) {
            (JobStatus::Failed, Some(failure)) => Err(Error::JobFailed {
                job_id,
                failure: Box::new(failure.clone()),
            }),
            (JobStatus::Cancelled, _) => Err(Error::JobCancelled(job_id)),
            _ => Ok(record),
        }
    }

    /// A job that its connection's shutdown gave up was not cancelled by anybody: it may be asked for again.
    pub(super) fn given_up_at_the_end(
        &self,
        keeps_going: bool,
        ending: Ending,
    ) -> Result<Ending, Error> {
        let closed = self.inner.closed.load(Ordering::Acquire);
        if closed && !keeps_going && ending.job.status == JobStatus::Cancelled {
            let why = "it is shutting down, and gave the job up: ask again";
            return Err(Error::Stopped(why.to_owned()));
        }
        Ok(ending)
    }

    /// Gives a submission its moment and its id.
    fn name(&self, submission: Submission, previous: Option<JobId>) -> Named {
        let at = self.inner.ports.clock.now();
        let id = self.inner.ports.ids.job_id(at);
        Named {
            submission,
            previous,
            id,
            at,
        }
    }

    fn new_job(&self, named: Named) -> Result<Box<NewJob>, Error> {
        let Named {
            submission,
            previous,
            id,
            at,
        } = named;
        let settings = Arc::clone(&self.inner.settings.borrow());
        let mut new = Box::new(NewJob::of(submission, &settings, id, at)?);
        new.job.trace = new.job.trace.filter(|_| self.exports_traces());
        new.job.previous = previous;
        Ok(new)
    }

    /// The jobs of many submissions, with ids that rise in their order. Half of them are made on a thread of their own.
    fn new_jobs(
        &self,
        going_on: Vec<Result<(Submission, Option<JobId>), Error>>,
    ) -> Vec<Result<Box<NewJob>, Error>> {
        let named = going_on.into_iter().map(|one| {
            let (submission, previous) = one?;
            Ok(self.name(submission, previous))
        });
        let mut named: Vec<Result<Named, Error>> = named.collect();
        let make = |named: Vec<Result<Named, Error>>| -> Vec<_> {
            let made = named.into_iter().map(|named| self.new_job(named?));
            made.collect()
        };
        if named.len() < JOBS_FOR_TWO {
            return make(named);
        }
        let rest = Mutex::new(named.split_off(named.len() / 2));
        let make_rest = || {
            make(std::mem::take(
                &mut *rest.lock().unwrap_or_else(PoisonError::into_inner),
            ))
        };
        std::thread::scope(|scope| {
            // Where there is no thread to be had it is done here.
            let other = std::thread::Builder::new().spawn_scoped(scope, make_rest);
            let mut made = make(named);
            match other.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(rest)) => made.extend(rest),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => made.extend(make_rest()),
            }
            made
        })
    }

    /// The job without a request id that another brought lately: GLM would take the two for one.
    fn told_apart(&self, mut new: Box<NewJob>) -> Box<NewJob> {
        if let Some(id) = &new.job.request_id {
            let chosen = &self.inner.chosen;
            let mut chosen = chosen.lock().unwrap_or_else(PoisonError::into_inner);
            if !chosen.is_new(id.as_str()) {
                new.job.request_id = None;
            }
        }
        new
    }

    fn admit(
        &self,
        new: Box<NewJob>,
        over: Option<BudgetRefusal>,
        over_rate: Option<OverRate>,
    ) -> Result<Arc<NewJob>, NotAdmitted> {
        let (settings, state) = (self.inner.settings.borrow(), self.inner.state.borrow());
        let closed = self.inner.closed.load(Ordering::Acquire);
        Intake::new(&settings, &state)
            .stopping(closed)
            .admit(new, over, over_rate)
    }

    /// Why the budgets do not let these in, each. The queue is asked only where it has a say.
    async fn ask_budgets(&self, new: &[Box<NewJob>]) -> Result<Vec<Option<BudgetRefusal>>, Error> {
        let has_say = !self.inner.settings.borrow().budgets.is_empty()
            && !self.inner.closed.load(Ordering::Acquire);
        if new.is_empty() || !has_say {
            return Ok(vec![None; new.len()]);
        }
        let asking = |new: &NewJob| Asking {
            payer: Payer::of(&new.job.user_id, new.job.key_id),
            model: new.job.model.clone(),
            worst: new.job.worst,
        };
        let jobs: Vec<Asking> = new.iter().map(|new| asking(new)).collect();
        let mut refusals = self
            .ask(|refs, reply| {
                let jobs = jobs.clone();
                refs.queue.cast(QueueMsg::Affords { jobs, reply })
            })
            .await?;
        refusals.resize(new.len(), None);
        Ok(refusals)
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
    ) -> Result<(Decisions, Sends), Error> {
        let (decisions, sends) = self
            .ask_counted(|refs, port| {
                refs.store.cast(StoreMsg::Commit(CommitRequest {
                    transitions: transitions.clone(),
                    reply: CommitReply::Port(port),
                }))
            })
            .await?;
        Ok((decisions?, sends))
    }
}

fn put<T>(answers: &mut [T], place: usize, answer: T) {
    if let Some(there) = answers.get_mut(place) {
        *there = answer;
    }
}
