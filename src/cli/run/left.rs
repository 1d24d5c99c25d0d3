//! Whether what is left can go on without an operator. The lane as a whole may be well while every job
//! that still waits is set aside, is for a model that is held, or runs after such a job.

use onelane::error::Error;
use onelane::model::{Hold, HoldKind, HoldScope, Job, JobStatus, Phase, Settings};
use onelane::orchestrator::{LaneStatus, Orchestrator};
use onelane::ports::JobFilter;

use super::standstill::Standstill;

/// Jobs that are looked at at a time.
const PAGE: usize = 256;

/// What keeps the jobs that are left from going on, if none of them can without an operator. Looks at the
/// jobs only when there may be something of the kind.
pub(crate) async fn stuck(
    lane: &Orchestrator,
    status: &LaneStatus,
) -> Result<Option<Standstill>, Error> {
    let held = Held::of(status);
    if status.in_flight > 0 || (status.dormant == 0 && held.0.is_empty()) {
        return Ok(None);
    }
    let settings = lane.settings();
    let mut left = Left::default();
    let mut cursor = None;
    loop {
        let filter = JobFilter {
            status: Some(JobStatus::Pending),
            ..JobFilter::default()
        };
        let page = lane.jobs(filter, cursor, PAGE).await?;
        for record in &page.jobs {
            if !left.count(&record.job, &held, &settings) {
                return Ok(None);
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(left.standstill(&held));
        }
    }
}

/// What of the lane is held until an operator acts; not the account, whose hold stops everything.
#[derive(Debug, Default)]
struct Held<'a>(Vec<(&'a HoldScope, &'a Hold)>);

impl<'a> Held<'a> {
    fn of(status: &'a LaneStatus) -> Self {
        let waits = |(scope, hold): &(&HoldScope, &Hold)| {
            **scope != HoldScope::Account && waits_for_operator(hold)
        };
        let holds = status.holds.iter().map(|(scope, hold)| (scope, hold));
        Self(holds.filter(waits).collect())
    }

    fn stops(&self, model: &str, settings: &Settings) -> bool {
        self.0.iter().any(|(scope, _)| match scope {
            HoldScope::Account => true,
            HoldScope::Lane(name) => settings.lane_of(model) == name,
            HoldScope::Model(name) => name == model,
        })
    }
}

/// Whether only an operator ends it.
pub(super) fn waits_for_operator(hold: &Hold) -> bool {
    hold.kind == HoldKind::Operator || hold.until.is_none()
}

/// Jobs that can't go on, by what keeps them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    parked: u64,
    held: u64,
    after_others: u64,
}

impl Left {
    /// Counts a job that can't go on; `false` for one that can.
    fn count(&mut self, job: &Job, held: &Held<'_>, settings: &Settings) -> bool {
        let count = match job.phase() {
            Phase::Parked => &mut self.parked,
            Phase::Blocked => &mut self.after_others,
            _ if held.stops(&job.model, settings) => &mut self.held,
            _ => return false,
        };
        *count += 1;
        true
    }

    fn standstill(&self, held: &Held<'_>) -> Option<Standstill> {
        let (mut reasons, mut helps) = (Vec::new(), Vec::new());
        if self.parked > 0 {
            reasons.push(format!(
                "{} set aside: a call was interrupted and may have been billed",
                jobs(self.parked)
            ));
            helps.push(
                "see GET /api/admin/glm/queue?parked=true and maybe-billed of a running `onelane \
                 serve`, then POST /api/admin/glm/retry/ID or cancel/ID for each job"
                    .to_owned(),
            );
        }
        if self.held > 0 {
            for (scope, hold) in &held.0 {
                reasons.push(format!(
                    "{scope} is held until an operator acts: {} {}",
                    hold.code, hold.message
                ));
            }
            helps.push(format!(
                "{} for what is held and did not fail; see to it, then run the same command again",
                jobs(self.held)
            ));
        }
        // Those that run after others never keep themselves.
        if reasons.is_empty() {
            return None;
        }
        if self.after_others > 0 {
            reasons.push(format!("{} to run after such", jobs(self.after_others)));
        }
        Some(Standstill::Operator {
            reason: reasons.join("; "),
            help: helps.join("; "),
        })
    }
}

fn jobs(count: u64) -> String {
    match count {
        1 => "1 job is".to_owned(),
        count => format!("{count} jobs are"),
    }
}

#[cfg(test)]
mod tests {
    use onelane::model::{AttemptNo, Parked, Timestamp};
    use onelane_actors::testing::sample;

    use super::*;

    fn hold(kind: HoldKind, until: Option<i64>) -> Hold {
        Hold {
            kind,
            code: "1311".to_owned(),
            message: "not in your plan".to_owned(),
            since: Timestamp::default(),
            until: until.map(Timestamp::from_millis),
        }
    }

    fn job(model: &str) -> Job {
        Job {
            model: model.to_owned(),
            ..sample::new_job(1).job
        }
    }

    fn parked() -> Job {
        Job {
            parked: Some(Parked {
                since: Timestamp::default(),
                attempt: AttemptNo(1),
            }),
            ..job("glm-5")
        }
    }

    fn after_another() -> Job {
        Job {
            waits_for: vec![sample::job_id(9)],
            ..job("glm-5")
        }
    }

    /// The standstill of these jobs, if all of them are stuck.
    fn stuck_of(jobs: &[Job], scope: Option<&HoldScope>) -> Option<(String, String)> {
        let operator = hold(HoldKind::Operator, None);
        let held = Held(scope.map(|scope| (scope, &operator)).into_iter().collect());
        let settings = Settings::default();
        let mut left = Left::default();
        if !jobs.iter().all(|job| left.count(job, &held, &settings)) {
            return None;
        }
        match left.standstill(&held) {
            Some(Standstill::Operator { reason, help }) => Some((reason, help)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn jobs_that_are_set_aside_and_those_behind_them_need_an_operator() {
        let (reason, help) = stuck_of(&[parked(), after_another()], None).unwrap();
        assert!(reason.starts_with("1 job is set aside"), "{reason}");
        assert!(reason.ends_with("1 job is to run after such"), "{reason}");
        assert!(help.contains("maybe-billed"), "{help}");
    }

    #[test]
    fn one_job_that_can_go_on_is_enough() {
        assert_eq!(stuck_of(&[parked(), job("glm-5")], None), None);
        let model = HoldScope::Model("glm-4.7".to_owned());
        assert_eq!(
            stuck_of(&[job("glm-4.7"), job("glm-5")], Some(&model)),
            None
        );
    }

    #[test]
    fn a_held_model_with_only_its_jobs_left_needs_an_operator() {
        let model = HoldScope::Model("glm-5".to_owned());
        let (reason, help) = stuck_of(&[job("glm-5"), job("glm-5")], Some(&model)).unwrap();
        assert_eq!(
            reason,
            "model glm-5 is held until an operator acts: 1311 not in your plan"
        );
        assert!(help.starts_with("2 jobs are for what is held"), "{help}");
        let lane = HoldScope::Lane("default".to_owned());
        let (reason, _) = stuck_of(&[job("glm-5")], Some(&lane)).unwrap();
        assert!(reason.starts_with("lane default is held"), "{reason}");
    }

    #[test]
    fn what_ends_by_itself_waits_for_nobody() {
        assert!(!waits_for_operator(&hold(HoldKind::Overload, Some(1))));
        assert!(!waits_for_operator(&hold(HoldKind::Throttle, Some(1))));
        assert!(waits_for_operator(&hold(HoldKind::Overload, None)));
        assert!(waits_for_operator(&hold(HoldKind::Operator, Some(1))));
    }
}
