//! Changes of many jobs at once: all that a filter leaves and the change applies to.
//!
//! First the ids are read, then they are changed: a job that moves meanwhile is neither missed nor met
//! twice, for its place in line never changes. Each change goes through the queue like one of a single
//! job and is checked there, so that a job which is in another status by then stays as it is.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use onelane_actors::ports::{JobFilter, Store, StoreError};
use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{Job, JobId, JobStatus, Refusal, Seq, limits};
use ractor::RpcReplyPort;
use tokio::sync::oneshot;

use super::Orchestrator;
use crate::error::Error;

/// A job with its place in line.
type Place = (Seq, JobId);

/// Places that are kept in memory at a time.
const PLACES_MAX: usize = 1_000_000;

/// Which jobs a change of many is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for a request, and it is moved once"
)]
pub enum Selection {
    /// Every job. Has to be said: a filter that was left empty by mistake is refused.
    All,
    /// Those that the filter leaves; it must narrow something.
    Matching(JobFilter),
}

impl From<JobFilter> for Selection {
    fn from(filter: JobFilter) -> Self {
        Self::Matching(filter)
    }
}

impl Selection {
    fn into_filter(self) -> Result<JobFilter, Error> {
        match self {
            Self::All => Ok(JobFilter::default()),
            Self::Matching(filter) if filter == JobFilter::default() => Err(Error::Invalid {
                field: "filter".to_owned(),
                problem: "narrows nothing; name something, or say that all jobs are meant"
                    .to_owned(),
            }),
            Self::Matching(filter) => Ok(filter),
        }
    }
}

impl Orchestrator {
    /// Puts every failed, cancelled, parked or delayed job of the selection back in line, those first that
    /// others run after. Answers how many; a dry run changes nothing and answers how many it would be.
    /// What was begun goes on to its end also when the caller waits for the answer no longer.
    /// A job that changed meanwhile, or runs after one that stays ended, is left as it is and not
    /// counted. Errors: `Invalid` for a filter that narrows nothing; if the lane or its store fails on
    /// the way, what was changed stays changed.
    pub async fn retry_all(&self, jobs: impl Into<Selection>, dry_run: bool) -> Result<u64, Error> {
        self.change_all(Change::Retry, jobs.into(), dry_run).await
    }

    /// Cancels every pending or running job of the selection, the newest first; open calls are closed.
    /// Jobs that run after one of them are cancelled with it, also those outside the selection, which
    /// are not counted. Otherwise as [`Orchestrator::retry_all`].
    pub async fn cancel_all(
        &self,
        jobs: impl Into<Selection>,
        dry_run: bool,
    ) -> Result<u64, Error> {
        self.change_all(Change::Cancel, jobs.into(), dry_run).await
    }

    /// Gives every pending job of the selection this priority. Otherwise as
    /// [`Orchestrator::retry_all`].
    pub async fn reprioritise_all(
        &self,
        jobs: impl Into<Selection>,
        priority: i32,
        dry_run: bool,
    ) -> Result<u64, Error> {
        self.change_all(Change::Reprioritise(priority), jobs.into(), dry_run)
            .await
    }

    async fn change_all(
        &self,
        change: Change,
        jobs: Selection,
        dry_run: bool,
    ) -> Result<u64, Error> {
        let filter = jobs.into_filter()?;
        if dry_run {
            return self.count_all(change, &filter).await;
        }
        let lane = self.clone();
        // In a task of its own: a caller that goes away must not leave the change half made.
        let task = tokio::spawn(async move {
            let mut count = 0;
            let ended = lane.change_picked(change, &filter, &mut count).await;
            match &ended {
                Ok(()) => tracing::info!(jobs = count, "{} many jobs: done", change.name()),
                Err(error) => {
                    tracing::warn!(jobs = count, %error, "{} many jobs: broken off", change.name());
                }
            }
            ended.map(|()| count)
        });
        task.await
            .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    /// How many jobs a change would change.
    async fn count_all(&self, change: Change, filter: &JobFilter) -> Result<u64, Error> {
        let mut passes = change.passes(filter);
        let mut count = 0;
        while !passes.is_empty() {
            let counted = self.read(move |store| {
                let (mut places, rest) = pick(store, passes, PLACES_MAX)?;
                if change == Change::Retry {
                    change.put_in_order(&mut places);
                    places = retriable(store, &places)?;
                }
                Ok((places.len() as u64, rest))
            });
            let (some, rest) = counted.await?;
            count += some;
            passes = rest;
        }
        Ok(count)
    }

    async fn change_picked(
        &self,
        change: Change,
        filter: &JobFilter,
        count: &mut u64,
    ) -> Result<(), Error> {
        let mut passes = change.passes(filter);
        while !passes.is_empty() {
            let (mut places, rest) = self
                .read(move |store| pick(store, passes, PLACES_MAX))
                .await?;
            passes = rest;
            change.put_in_order(&mut places);
            self.change_each(change, &places, count).await?;
        }
        Ok(())
    }

    /// Changes jobs in this order, some at a time, and counts those that were changed.
    async fn change_each(
        &self,
        change: Change,
        places: &[Place],
        count: &mut u64,
    ) -> Result<(), Error> {
        for some in places.chunks(limits::BULK_JOBS_MAX) {
            let (_, refs) = self.refs().await?;
            let asked: Vec<_> = some
                .iter()
                .map(|(_, id)| {
                    let (port, answer) = oneshot::channel();
                    // A queue that is gone drops the port; that shows below.
                    let _ = refs.queue.cast(change.message(*id, port.into()));
                    (*id, answer)
                })
                .collect();
            for (id, answer) in asked {
                let changed = match answer.await {
                    Ok(decision) => decision.is_ok(),
                    Err(_) => self.change_again(change, id).await?,
                };
                *count += u64::from(changed);
            }
        }
        Ok(())
    }

    /// Asks for a change whose reply was lost. If it was made, that shows in the job's status.
    async fn change_again(&self, change: Change, id: JobId) -> Result<bool, Error> {
        let decision = self
            .ask(|refs, reply| refs.queue.cast(change.message(id, reply)))
            .await?;
        Ok(match decision {
            Ok(()) => true,
            Err(Refusal::WrongStatus(status)) => change.led_to(status),
            Err(_) => false,
        })
    }
}

/// What is done to each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Retry,
    Cancel,
    Reprioritise(i32),
}

impl Change {
    /// The lists of jobs that it applies to.
    fn passes(self, filter: &JobFilter) -> Vec<Pass> {
        let mut passes = Vec::new();
        let mut pass = |status: JobStatus, parked: Option<bool>, delayed: Option<bool>| {
            let mut narrowed = filter.clone();
            if narrowed.status.is_some_and(|asked| asked != status) {
                return;
            }
            narrowed.status = Some(status);
            match (narrowed.more.parked, parked) {
                (Some(asked), Some(needed)) if asked != needed => return,
                (_, Some(needed)) => narrowed.more.parked = Some(needed),
                (_, None) => {}
            }
            match (narrowed.more.delayed, delayed) {
                (Some(asked), Some(needed)) if asked != needed => return,
                (_, Some(needed)) => narrowed.more.delayed = Some(needed),
                (_, None) => {}
            }
            passes.push(Pass {
                filter: narrowed,
                cursor: None,
            });
        };
        match self {
            Self::Retry => {
                pass(JobStatus::Failed, None, None);
                pass(JobStatus::Cancelled, None, None);
                pass(JobStatus::Pending, Some(true), None);
                pass(JobStatus::Pending, None, Some(true));
            }
            Self::Cancel => {
                pass(JobStatus::Pending, None, None);
                pass(JobStatus::Processing, None, None);
            }
            Self::Reprioritise(_) => pass(JobStatus::Pending, None, None),
        }
        passes
    }

    /// What the log calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Reprioritise(_) => "reprioritise",
        }
    }

    /// A job always comes after those that it runs after. Retried, it needs them back in line first;
    /// cancelled after them it would be cancelled with them, and not be counted.
    fn put_in_order(self, places: &mut [Place]) {
        match self {
            Self::Retry | Self::Reprioritise(_) => places.sort_unstable(),
            Self::Cancel => places.sort_unstable_by_key(|place| Reverse(*place)),
        }
    }

    fn message(self, job_id: JobId, reply: RpcReplyPort<Result<(), Refusal>>) -> QueueMsg {
        match self {
            Self::Retry => QueueMsg::Requeue { job_id, reply },
            Self::Cancel => QueueMsg::Cancel { job_id, reply },
            Self::Reprioritise(priority) => QueueMsg::Reprioritise {
                job_id,
                priority,
                reply,
            },
        }
    }

    /// Whether a job with this status may have got there by it.
    fn led_to(self, status: JobStatus) -> bool {
        match self {
            Self::Retry => matches!(status, JobStatus::Pending | JobStatus::Processing),
            Self::Cancel => status == JobStatus::Cancelled,
            Self::Reprioritise(_) => false,
        }
    }
}

/// A list that is gone through, newest first, and how far that has got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pass {
    filter: JobFilter,
    cursor: Option<u64>,
}

/// The places of the next jobs of each pass, about `max` in all, and the passes that are not at their
/// end.
fn pick(
    store: &dyn Store,
    passes: Vec<Pass>,
    max: usize,
) -> Result<(Vec<Place>, Vec<Pass>), StoreError> {
    let each = max.div_ceil(passes.len().max(1));
    let mut places = Vec::new();
    let mut rest = Vec::new();
    for pass in passes {
        if let Some(ids) = &pass.filter.more.ids {
            places.extend(named(store, ids, &pass.filter)?);
            continue;
        }
        let found = store.job_places(&pass.filter, pass.cursor, each)?;
        places.extend(found.places);
        if found.cursor.is_some() {
            rest.push(Pass {
                cursor: found.cursor,
                ..pass
            });
        }
    }
    Ok((places, rest))
}

/// Those of some jobs, in the order in which they would be put back in line, that would not be refused:
/// what they run after is there, and completed, in line, or put back before them.
fn retriable(store: &dyn Store, places: &[Place]) -> Result<Vec<Place>, StoreError> {
    let mut back = BTreeSet::new();
    let mut fine = Vec::with_capacity(places.len());
    for (seq, id) in places {
        let Some(record) = store.job(*id)? else {
            continue;
        };
        let mut waits_well = true;
        for other in &record.job.after {
            waits_well = back.contains(other)
                || store.job(*other)?.is_some_and(|other| {
                    let status = other.job.status;
                    status == JobStatus::Completed || !status.is_terminal()
                });
            if !waits_well {
                break;
            }
        }
        if waits_well {
            back.insert(*id);
            fine.push((*seq, *id));
        }
    }
    Ok(fine)
}

/// The places of jobs that are named, those that the rest of the filter leaves: looked up one by one,
/// not looked for among all.
fn named(store: &dyn Store, ids: &[JobId], filter: &JobFilter) -> Result<Vec<Place>, StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let left = |job: &Job| {
        filter.matches(job.status, &job.user_id, &job.model) && filter.more.matches(job)
    };
    let mut places = Vec::new();
    for id in ids {
        if let Some(record) = store.job(id)?.filter(|record| left(&record.job)) {
            places.push((record.job.seq, id));
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use onelane_actors::ports::MoreFilter;
    use onelane_actors::testing::{MemoryStore, sample};

    use super::*;

    fn of(status: Option<JobStatus>, parked: Option<bool>) -> JobFilter {
        JobFilter {
            status,
            more: MoreFilter {
                parked,
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        }
    }

    fn statuses(change: Change, filter: &JobFilter) -> Vec<(JobStatus, Option<bool>)> {
        let passes = change.passes(filter).into_iter();
        passes
            .map(|pass| (pass.filter.status.unwrap(), pass.filter.more.parked))
            .collect()
    }

    #[test]
    fn a_change_looks_only_at_jobs_it_applies_to() {
        use JobStatus::{Cancelled, Completed, Failed, Pending, Processing};
        let delayed = (Pending, None);
        let every = [
            (Failed, None),
            (Cancelled, None),
            (Pending, Some(true)),
            delayed,
        ];
        assert_eq!(statuses(Change::Retry, &of(None, None)), every);
        assert_eq!(
            statuses(Change::Retry, &of(Some(Pending), None)),
            [(Pending, Some(true)), delayed]
        );
        assert_eq!(
            statuses(Change::Retry, &of(None, Some(false))),
            [
                (Failed, Some(false)),
                (Cancelled, Some(false)),
                (Pending, Some(false))
            ]
        );
        assert_eq!(
            statuses(Change::Cancel, &of(None, None)),
            [(Pending, None), (Processing, None)]
        );
        let reprioritise = Change::Reprioritise(3);
        assert_eq!(
            statuses(reprioritise, &of(None, Some(true))),
            [(Pending, Some(true))]
        );
        for change in [Change::Retry, Change::Cancel, reprioritise] {
            assert_eq!(statuses(change, &of(Some(Completed), None)), []);
        }
    }

    /// A store with so many pending jobs, numbered from 1.
    fn store(jobs: u64) -> MemoryStore {
        let store = MemoryStore::new();
        let inserts: Vec<_> = (1..=jobs).map(sample::insert).collect();
        store.commit(&inserts).unwrap();
        store
    }

    #[test]
    fn a_long_list_is_gone_through_in_rounds_without_missing_or_repeating_one() {
        let store = store(23);
        let mut passes = Change::Cancel.passes(&JobFilter::default());
        let (mut seen, mut rounds) = (Vec::new(), 0);
        while !passes.is_empty() {
            let (places, rest) = pick(&store, passes, 10).unwrap();
            seen.extend(places);
            (passes, rounds) = (rest, rounds + 1);
        }
        assert!(rounds > 1);
        seen.sort_unstable();
        let all: Vec<_> = (1..=23).map(|n| (Seq(n), sample::job_id(n))).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn named_jobs_are_looked_up_and_narrowed_like_all_others() {
        let store = store(5);
        store
            .commit(&[sample::stage(2), sample::start(2), sample::fail(2, 1)])
            .unwrap();
        let ids = [4, 2, 2, 9].map(sample::job_id).to_vec();
        let filter = JobFilter {
            more: MoreFilter {
                ids: Some(ids),
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        };
        let picked = |change: Change| {
            let (places, rest) = pick(&store, change.passes(&filter), 10).unwrap();
            assert_eq!(rest, []);
            places
        };
        assert_eq!(picked(Change::Retry), [(Seq(2), sample::job_id(2))]);
        assert_eq!(picked(Change::Cancel), [(Seq(4), sample::job_id(4))]);
    }

    #[test]
    fn an_empty_filter_is_refused_and_all_has_to_be_said() {
        let error = Selection::from(JobFilter::default()).into_filter();
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("filter: narrows nothing"), "{error}");
        assert_eq!(Selection::All.into_filter().unwrap(), JobFilter::default());
        // No job is in an empty list: that narrows.
        let none = JobFilter {
            more: MoreFilter {
                ids: Some(Vec::new()),
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        };
        assert!(Selection::from(none).into_filter().is_ok());
    }

    #[test]
    fn jobs_are_retried_in_their_order_and_cancelled_against_it() {
        let place = |n| (Seq(n), sample::job_id(n));
        let mut places = vec![place(2), place(3), place(1)];
        Change::Retry.put_in_order(&mut places);
        assert_eq!(places, [place(1), place(2), place(3)]);
        Change::Cancel.put_in_order(&mut places);
        assert_eq!(places, [place(3), place(2), place(1)]);
    }
}
