//! What was seen from outside, and what must hold by it: the promises, said without the machine's own books.

use std::collections::{BTreeMap, BTreeSet};

use onelane_actors::testing::Written;
use onelane_core::model::{
    Applied, AttemptNo, AttemptPhase, CallOutcome, Day, JobId, JobStatus, Transition,
};
use onelane_core::scheduler::Decision;

use super::plan::{CALLS_A_DAY, Plan};

/// A promise was broken, in words.
pub(crate) type Broken = String;

/// One attempt of a job.
pub(crate) type Attempt = (JobId, AttemptNo);

#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Jobs whose submitters were told that they are in.
    pub(crate) acknowledged: BTreeSet<JobId>,
    /// What was sent. All of it is taken to have reached GLM: nobody can tell those that did not.
    pub(crate) sent: BTreeSet<Attempt>,
    /// Calls that have ended while their caller lived.
    pub(crate) ended: BTreeSet<Attempt>,
    /// Attempts that were started or released on disk when a process died: they may be recorded as interrupted.
    pub(crate) doubted: BTreeSet<Attempt>,
    /// Jobs that have ended, as somebody was told.
    pub(crate) told: BTreeMap<JobId, JobStatus>,
    /// What GLM counts for each day: calls that it refused cost nothing.
    pub(crate) billed: BTreeMap<Day, u64>,
}

impl Seen {
    /// A call goes out.
    pub(crate) fn sends(
        &mut self,
        attempt: Attempt,
        day: Day,
        plan: &Plan,
        written: &Written<'_>,
    ) -> Result<(), Broken> {
        let job = written.jobs.get(&attempt.0).map(|record| &record.job);
        let Some(job) = job else {
            return Err(format!("a job that is not on disk is sent: {attempt:?}"));
        };
        if job.status.is_terminal() || self.told.contains_key(&job.id) {
            return Err(format!("a job that has ended is sent: {attempt:?}"));
        }
        if job.open.map(|open| open.no) != Some(attempt.1) {
            return Err(format!(
                "an attempt is sent that is not on disk: {attempt:?}"
            ));
        }
        if !self.sent.insert(attempt) {
            return Err(format!("an attempt is sent twice: {attempt:?}"));
        }
        let billed = self.billed.entry(day).or_default();
        *billed += 1;
        if plan.has_budget && *billed > CALLS_A_DAY {
            return Err(format!(
                "{billed} calls of a day whose budget is {CALLS_A_DAY}"
            ));
        }
        Ok(())
    }

    /// Whoever knew what was sent is gone. The disk says what may have been: starts, and what was released.
    pub(crate) fn dies(&mut self, written: &Written<'_>) {
        for record in written.jobs.values() {
            let (id, open) = (record.job.id, record.job.open);
            let may_be_sent = open.filter(|open| {
                open.phase == AttemptPhase::Started || written.released.contains(&id)
            });
            self.doubted.extend(may_be_sent.map(|open| (id, open.no)));
        }
    }

    /// A commit is on disk.
    pub(crate) fn written(
        &self,
        said: &[Decision],
        is_open: impl Fn(Attempt) -> bool,
        written: &Written<'_>,
    ) -> Result<(), Broken> {
        for (change, decision) in said {
            let (Transition::Settle(settlement), Ok(_)) = (change, decision) else {
                continue;
            };
            let attempt = (settlement.job_id, settlement.attempt);
            if is_open(attempt) {
                return Err(format!(
                    "an attempt is settled while its call is open: {attempt:?}"
                ));
            }
            let is_sent = self.sent.contains(&attempt);
            match settlement.call.outcome {
                CallOutcome::Interrupted if is_sent || self.doubted.contains(&attempt) => {}
                // Stopped before it was sent: nobody is in doubt of it.
                CallOutcome::Interrupted if !settlement.call.maybe_billed => {}
                CallOutcome::Interrupted => {
                    return Err(format!(
                        "an attempt is in doubt that nobody released: {attempt:?}"
                    ));
                }
                CallOutcome::Cancelled if !is_sent => {}
                _ if self.ended.contains(&attempt) => {}
                _ => return Err(format!("an outcome came from nowhere: {attempt:?}")),
            }
            let rows = written.calls.values();
            let rows = rows
                .filter(|row| (row.job_id, row.attempt) == attempt)
                .count();
            if rows != 1 {
                return Err(format!("an attempt is booked {rows} times: {attempt:?}"));
            }
        }
        Ok(())
    }

    /// The lane and whoever waits are told of a commit.
    pub(crate) fn hears(&mut self, said: &[Decision]) {
        let ended = said.iter().filter_map(|(_, decision)| match decision {
            Ok(Applied::Job(job) | Applied::Chain { job, .. }) => Some(job),
            _ => None,
        });
        for job in ended.filter(|job| job.status.is_terminal()) {
            self.told.insert(job.id, job.status);
        }
    }

    /// What holds at every moment.
    pub(crate) fn check(&self, written: &Written<'_>) -> Result<(), Broken> {
        for id in &self.acknowledged {
            if !written.jobs.contains_key(id) {
                return Err(format!("a job is lost that was acknowledged: {id}"));
            }
        }
        for (id, status) in &self.told {
            let on_disk = written.jobs.get(id).map(|record| record.job.status);
            if on_disk != Some(*status) {
                return Err(format!(
                    "a job was told to be {status:?} and is {on_disk:?}: {id}"
                ));
            }
        }
        let open = || written.jobs.values().filter_map(|record| record.job.open);
        let shows_doubt =
            written.lane.in_doubt || open().any(|open| open.phase == AttemptPhase::Started);
        let booked: BTreeSet<Attempt> = written
            .calls
            .values()
            .map(|call| (call.job_id, call.attempt))
            .collect();
        for attempt @ (id, no) in self.sent.difference(&booked) {
            let open = written.jobs.get(id).and_then(|record| record.job.open);
            let is_found = open.filter(|open| open.no == *no).is_some_and(|open| {
                let is_released = written.released.contains(id);
                open.phase == AttemptPhase::Started || (is_released && shows_doubt)
            });
            if !is_found {
                return Err(format!(
                    "a restart now would not find what was sent: {attempt:?}"
                ));
            }
        }
        Ok(())
    }

    /// What holds when nothing is left to be done.
    pub(crate) fn check_end(&self, plan: &Plan, written: &Written<'_>) -> Result<(), Broken> {
        let jobs = usize::from(plan.jobs);
        let ended = |id: &&JobId| {
            let record = written.jobs.get(id);
            record.is_some_and(|record| record.job.status.is_terminal())
        };
        if self.acknowledged.iter().filter(ended).count() != jobs {
            return Err("nothing is left to be done, and not all jobs have ended".to_owned());
        }
        let mut booked = BTreeMap::<Attempt, u32>::new();
        for call in written.calls.values() {
            *booked.entry((call.job_id, call.attempt)).or_default() += 1;
        }
        if let Some(attempt) = self.sent.iter().find(|sent| booked.get(sent) != Some(&1)) {
            return Err(format!("a call is not booked once in the end: {attempt:?}"));
        }
        if written.lane.in_doubt {
            return Err("all is settled, and the lane is still in doubt".to_owned());
        }
        Ok(())
    }
}
