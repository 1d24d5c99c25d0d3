//! Whether the jobs that are left can go on without an operator. The lane as a whole may be well while every job that
//! still waits is parked, is for a model that is held, does not fit into a budget, or runs after such a job.

use std::collections::BTreeMap;

use onelane::error::Error;
use onelane::model::{JobStatus, Scope, WaitReason};
use onelane::orchestrator::{Orchestrator, SchedulerSnapshot};
use onelane::ports::{JobFilter, MoreFilter};
use onelane::words::counted;
use serde::Serialize;

/// Jobs that are looked at at a time.
const PAGE: usize = 256;

/// Nothing goes on until an operator acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HeldUp {
    /// Why.
    pub(crate) reason: String,
    /// The way out.
    pub(crate) help: String,
}

impl HeldUp {
    /// The reason that stops every job of a lane until an operator acts, if there is one.
    pub(crate) fn of(lane: &SchedulerSnapshot) -> Option<Self> {
        let reason = lane.wait_reason.as_ref()?;
        (reason.stops_all() && reason.waits_for_operator()).then(|| Self {
            reason: reason.to_string(),
            help: reason.help().unwrap_or_default().to_owned(),
        })
    }
}

/// The reason why none of the jobs that are left can go on without an operator, if so. Looks at the jobs
/// only when the lane says that there is something of the kind.
pub(crate) async fn stuck(
    lane: &Orchestrator,
    status: &SchedulerSnapshot,
    scope: Scope,
) -> Result<Option<HeldUp>, Error> {
    let lasts = status
        .wait_reason
        .as_ref()
        .is_some_and(WaitReason::waits_for_operator);
    if status.in_flight > 0 || !lasts {
        return Ok(None);
    }
    let mut left = Left::default();
    let mut cursor = None;
    loop {
        let filter = JobFilter {
            status: Some(JobStatus::Pending),
            more: MoreFilter {
                batch_id: scope.batch(),
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        };
        let page = lane.jobs(filter, cursor, PAGE).await?;
        let jobs = page.jobs.iter().map(|record| &record.job);
        for reason in lane.wait_reasons(jobs).await.into_values() {
            if !left.count(&reason) {
                return Ok(None);
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(left.held_up());
        }
    }
}

/// Jobs that can't go on, by their reason.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    parked: u64,
    after_others: u64,
    /// The others by the reason's words, with the way out.
    held: BTreeMap<String, (u64, &'static str)>,
}

impl Left {
    /// Counts a job that can't go on; `false` for one that can.
    fn count(&mut self, reason: &WaitReason) -> bool {
        match reason {
            WaitReason::Parked { .. } => self.parked += 1,
            WaitReason::Blocked { .. } => self.after_others += 1,
            reason if reason.waits_for_operator() => {
                let help = reason.help().unwrap_or_default();
                let held = self.held.entry(reason.to_string());
                held.or_insert((0, help)).0 += 1;
            }
            _ => return false,
        }
        true
    }

    fn held_up(&self) -> Option<HeldUp> {
        let (mut reasons, mut helps) = (Vec::new(), Vec::new());
        if self.parked > 0 {
            let parked = WaitReason::Parked {
                since: None,
                attempt: None,
            };
            reasons.push(format!("{} {parked}", jobs(self.parked)));
            helps.extend(parked.help());
        }
        for (reason, (count, help)) in &self.held {
            let jobs = if *count == 1 { "job" } else { "jobs" };
            reasons.push(format!("{reason} ({count} {jobs})"));
            helps.push(help);
        }
        // Those that run after others never keep themselves.
        if reasons.is_empty() {
            return None;
        }
        if self.after_others > 0 {
            reasons.push(format!("{} to run after such", jobs(self.after_others)));
        }
        helps.dedup();
        Some(HeldUp {
            reason: reasons.join("; "),
            help: helps.join("; "),
        })
    }
}

fn jobs(count: u64) -> String {
    counted(count, "job is", "jobs are")
}

#[cfg(test)]
mod tests {
    use onelane::model::{Hold, HoldKind, HoldScope, JobId, Pause, Timestamp, Wait};

    use super::super::release::tests::lane;
    use super::*;

    fn hold(kind: HoldKind, until: Option<i64>) -> WaitReason {
        let hold = Hold {
            kind,
            code: "1311".to_owned(),
            message: "not in your plan".to_owned(),
            since: Timestamp::default(),
            until: until.map(|ms| Wait::from(Timestamp::from_millis(ms), 0)),
        };
        WaitReason::hold(&HoldScope::Model("glm-5".to_owned()), &hold)
    }

    const PARKED: WaitReason = WaitReason::Parked {
        since: None,
        attempt: None,
    };

    fn blocked() -> WaitReason {
        let by = vec![JobId::from_bytes([9; 16])];
        WaitReason::Blocked { by }
    }

    /// What holds up these jobs, if none of them can go on.
    fn held_up(reasons: &[WaitReason]) -> Option<HeldUp> {
        let mut left = Left::default();
        if !reasons.iter().all(|reason| left.count(reason)) {
            return None;
        }
        left.held_up()
    }

    #[test]
    fn what_is_left_is_stuck_when_none_of_it_can_go_on() {
        let held = held_up(&[PARKED, hold(HoldKind::Operator, None), blocked()]).unwrap();
        for words in [
            "1 job is parked: a call was interrupted",
            "model glm-5 is held until an operator acts: 1311: not in your plan (1 job)",
            "1 job is to run after such",
        ] {
            assert!(held.reason.contains(words), "{}", held.reason);
        }
        for words in ["queue?parked=true", "run the same command again"] {
            assert!(held.help.contains(words), "{}", held.help);
        }
    }

    #[test]
    fn one_job_that_can_go_on_is_enough() {
        let next = WaitReason::Behind {
            position: Some(1),
            more_than: None,
            estimate_ms: None,
        };
        assert_eq!(held_up(&[PARKED, next]), None);
        assert_eq!(held_up(&[PARKED, hold(HoldKind::Overload, Some(1))]), None);
        assert_eq!(held_up(&[blocked()]), None, "what it waits for goes on");
        assert_eq!(held_up(&[]), None);
    }

    #[test]
    fn what_stops_a_lane_until_an_operator_acts_holds_up_all_of_it() {
        let with = |wait_reason| {
            HeldUp::of(&SchedulerSnapshot {
                wait_reason,
                ..lane()
            })
        };
        assert_eq!(with(None), None);
        let pause = Pause {
            since: Timestamp::default(),
            reason: Some("lunch".to_owned()),
        };
        let held = with(Some(WaitReason::paused(&pause))).unwrap();
        assert!(held.reason.contains("lunch") && held.help.contains("resume"));
        let a_part = hold(HoldKind::Operator, None);
        assert_eq!(with(Some(a_part)), None, "that depends on what is left");
        assert_eq!(with(Some(WaitReason::Probe)), None);
    }
}
