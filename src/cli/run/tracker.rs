//! Which lines wait for which jobs, and when a job has to be looked at. Decisions only: it is told what
//! happened and says what to do, so that the races below are tested without a lane.
//!
//! * A job may end before its submitter is told its id: while a chunk is being submitted, the jobs that
//!   events tell of are remembered.
//! * Events may be missed: then every job that is waited for is looked at.
//! * A job may be from an earlier run: it is looked at once, and put back in line if it failed then. One
//!   that failed in this run has failed. One whose failure means that GLM may have been paid for nothing
//!   (interrupted, quarantined) is put back only after an earlier run has told so.

use std::collections::{BTreeMap, HashSet, VecDeque};

use onelane::model::{Event, Job, JobId, JobStatus, code};

use super::identity::Name;

/// The next step for a job that was looked at.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing: it has not ended, or no line waits for it.
    Waits,
    /// Put it back in line: it failed in an earlier run.
    Retry,
    /// Write its line.
    Ended(Name),
}

/// A line whose job has not ended.
#[derive(Debug)]
struct Entry {
    name: Name,
    /// Whether the job's end belongs to this run.
    of_this_run: bool,
    /// Whether it is in line to be looked at.
    to_look_at: bool,
}

/// Events that came while the ids of a chunk's jobs were not known yet.
#[derive(Debug, Default)]
struct Early {
    told_of: HashSet<JobId>,
    missed: bool,
}

/// The lines that wait for their jobs.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    entries: BTreeMap<JobId, Entry>,
    look: VecDeque<JobId>,
    early: Option<Early>,
}

impl Tracker {
    /// Whether no line waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no job is in line to be looked at.
    pub(crate) fn nothing_to_look_at(&self) -> bool {
        self.look.is_empty()
    }

    /// A chunk is about to be submitted.
    pub(crate) fn chunk_leaves(&mut self) {
        self.early = Some(Early::default());
    }

    /// The chunk was submitted: these are its jobs, each with whether it is new.
    pub(crate) fn chunk_arrived(&mut self, jobs: impl IntoIterator<Item = (JobId, bool, Name)>) {
        let early = self.early.take().unwrap_or_default();
        for (id, created, name) in jobs {
            let heard = early.told_of.contains(&id);
            let entry = Entry {
                name,
                of_this_run: created || heard,
                to_look_at: false,
            };
            self.entries.insert(id, entry);
            if !created || heard || early.missed {
                self.look_at(id);
            }
        }
    }

    /// Something happened.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(id) = event.job_id() else { return };
        let ended = matches!(
            event,
            Event::JobCompleted { .. } | Event::JobFailed { .. } | Event::JobCancelled { .. }
        );
        match (self.entries.get_mut(&id), &mut self.early) {
            (Some(entry), _) => {
                entry.of_this_run = true;
                if ended {
                    self.look_at(id);
                }
            }
            (None, Some(early)) if !matches!(event, Event::JobSubmitted { .. }) => {
                early.told_of.insert(id);
            }
            (None, _) => {}
        }
    }

    /// Events were missed.
    pub(crate) fn missed(&mut self) {
        if let Some(early) = &mut self.early {
            early.missed = true;
        }
        let all: Vec<JobId> = self.entries.keys().copied().collect();
        all.into_iter().for_each(|id| self.look_at(id));
    }

    /// The job has to be looked at.
    pub(crate) fn look_at(&mut self, id: JobId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.to_look_at
        {
            entry.to_look_at = true;
            self.look.push_back(id);
        }
    }

    /// The next job to look at.
    pub(crate) fn next(&mut self) -> Option<JobId> {
        while let Some(id) = self.look.pop_front() {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.to_look_at = false;
                return Some(id);
            }
        }
        None
    }

    /// The next step for a job, now that it was looked at. `was_told`: whether an earlier run wrote an error for the
    /// line.
    pub(crate) fn judge(&mut self, job: &Job, was_told: impl Fn(&Name) -> bool) -> Verdict {
        let Some(entry) = self.entries.get_mut(&job.id) else {
            return Verdict::Waits;
        };
        match job.status {
            JobStatus::Pending | JobStatus::Processing => return Verdict::Waits,
            JobStatus::Failed | JobStatus::Cancelled
                if !entry.of_this_run
                    && !job.bodies_pruned
                    && (!may_be_paid_twice(job) || was_told(&entry.name)) =>
            {
                entry.of_this_run = true;
                return Verdict::Retry;
            }
            JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled => {}
        }
        self.gone(job.id).map_or(Verdict::Waits, Verdict::Ended)
    }

    /// The job ended, or is not there any more.
    pub(crate) fn gone(&mut self, id: JobId) -> Option<Name> {
        self.entries.remove(&id).map(|entry| entry.name)
    }
}

fn may_be_paid_twice(job: &Job) -> bool {
    job.error.as_ref().is_some_and(|failure| {
        [code::INTERRUPTED, code::QUARANTINED].contains(&failure.code.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Identities, Label};
    use super::*;
    use onelane::model::{AttemptNo, Failure, FailureClass, Timestamp, Usage};

    fn id(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    fn name() -> Name {
        Name {
            digest: Identities::unreadable(1, b""),
            label: Label::Number(1),
        }
    }

    fn job(n: u8, status: JobStatus, failure: Option<&str>) -> Job {
        Job {
            status,
            attempts: AttemptNo(1),
            error: failure
                .map(|code| Failure::new(FailureClass::ServerTransient, code, "it failed")),
            ..Job::new(id(n), "u", "glm-5", Timestamp::default())
        }
    }

    fn completed(n: u8) -> Event {
        Event::JobCompleted {
            job_id: id(n),
            attempt: AttemptNo(1),
            usage: Usage::default(),
            cost: None,
        }
    }

    fn failed(n: u8) -> Event {
        Event::JobFailed {
            job_id: id(n),
            attempt: AttemptNo(1),
            failure: Failure::new(FailureClass::RequestFatal, "1214", "it failed"),
        }
    }

    /// A tracker that waits for one job: new, or of an earlier run.
    fn tracker(created: bool) -> Tracker {
        let mut tracker = Tracker::default();
        tracker.chunk_leaves();
        tracker.chunk_arrived([(id(1), created, name())]);
        tracker
    }

    #[test]
    fn a_new_job_is_looked_at_when_it_ends_and_not_before() {
        let mut tracker = tracker(true);
        assert_eq!(tracker.next(), None);
        tracker.event(&Event::JobStarted {
            job_id: id(1),
            attempt: AttemptNo(1),
        });
        assert_eq!(tracker.next(), None);
        tracker.event(&completed(1));
        assert_eq!(tracker.next(), Some(id(1)));
        assert!(matches!(
            tracker.judge(&job(1, JobStatus::Completed, None), |_| false),
            Verdict::Ended(_)
        ));
        assert!(tracker.is_empty());
    }

    #[test]
    fn a_job_that_ends_before_its_id_is_known_is_not_lost() {
        let mut tracker = Tracker::default();
        tracker.chunk_leaves();
        tracker.event(&completed(1));
        tracker.chunk_arrived([(id(1), true, name()), (id(2), true, name())]);
        assert_eq!(tracker.next(), Some(id(1)));
        assert_eq!(tracker.next(), None);
    }

    #[test]
    fn missed_events_lead_to_a_look_at_every_job_once() {
        let mut tracker = tracker(true);
        tracker.chunk_leaves();
        tracker.missed();
        tracker.missed();
        tracker.chunk_arrived([(id(2), true, name())]);
        let mut looked: Vec<JobId> = std::iter::from_fn(|| tracker.next()).collect();
        looked.sort_unstable();
        assert_eq!(looked, [id(1), id(2)]);
        assert!(matches!(
            tracker.judge(&job(1, JobStatus::Processing, None), |_| false),
            Verdict::Waits
        ));
        assert_eq!(tracker.entries.len(), 2);
    }

    #[test]
    fn a_job_that_an_earlier_run_finished_is_written_without_being_sent() {
        let mut tracker = tracker(false);
        assert_eq!(tracker.next(), Some(id(1)));
        assert!(matches!(
            tracker.judge(&job(1, JobStatus::Completed, None), |_| false),
            Verdict::Ended(_)
        ));
    }

    #[test]
    fn a_job_that_failed_in_an_earlier_run_is_retried_once() {
        for status in [JobStatus::Failed, JobStatus::Cancelled] {
            let mut tracker = tracker(false);
            assert!(matches!(
                tracker.judge(&job(1, status, Some("1214")), |_| false),
                Verdict::Retry
            ));
            assert!(matches!(
                tracker.judge(&job(1, status, Some("1214")), |_| false),
                Verdict::Ended(_)
            ));
        }
    }

    #[test]
    fn a_job_of_an_earlier_run_that_fails_in_this_one_has_failed() {
        let mut tracker = tracker(false);
        assert_eq!(tracker.next(), Some(id(1)));
        tracker.event(&failed(1));
        assert!(matches!(
            tracker.judge(&job(1, JobStatus::Failed, Some("1214")), |_| false),
            Verdict::Ended(_)
        ));
    }

    #[test]
    fn what_may_have_been_paid_for_is_told_before_it_is_tried_again() {
        for code in [code::INTERRUPTED, code::QUARANTINED] {
            let interrupted = job(1, JobStatus::Failed, Some(code));
            assert!(
                matches!(
                    tracker(false).judge(&interrupted, |_| false),
                    Verdict::Ended(_)
                ),
                "{code}"
            );
            assert!(
                matches!(tracker(false).judge(&interrupted, |_| true), Verdict::Retry),
                "{code}"
            );
        }
    }

    #[test]
    fn jobs_of_others_are_none_of_our_business() {
        let mut tracker = tracker(true);
        tracker.event(&completed(9));
        assert_eq!(tracker.next(), None);
        assert!(matches!(
            tracker.judge(&job(9, JobStatus::Completed, None), |_| false),
            Verdict::Waits
        ));
    }
}
