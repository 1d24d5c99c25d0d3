//! Whether a run ever gets through to GLM. One that never does has a wrong address or no network: it ends with the
//! reason in place of waiting for ever, and no job has failed by it.

use std::time::Duration;

use onelane::orchestrator::SchedulerSnapshot;
use tokio::time::Instant;

use super::left::HeldUp;

/// What a run knows of the way to GLM.
#[derive(Debug)]
pub(crate) struct Reach {
    /// For how long it tries; `None`: for ever.
    limit: Option<Duration>,
    /// Since when nothing gets through.
    since: Option<Instant>,
    /// Something got through once: what follows is an outage, and is waited out.
    reached: bool,
}

impl Reach {
    /// For a run that tries for so long; zero: for ever.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit: Some(limit).filter(|limit| !limit.is_zero()),
            since: None,
            reached: false,
        }
    }

    /// Looks at the lane. Answers why the run ends, once it has tried for long enough.
    pub(crate) fn look(&mut self, lane: &SchedulerSnapshot, now: Instant) -> Option<HeldUp> {
        self.reached |= lane.reached;
        let Some(route) = lane.unreachable.as_ref().filter(|_| !self.reached) else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        let limit = self.limit?;
        (now.duration_since(since) >= limit).then(|| HeldUp {
            reason: format!(
                "GLM can't be reached, no call got through in {} s: {}",
                limit.as_secs_f64(),
                route.reason
            ),
            help: "no job failed; see to the network and to glm.base_url, then run the same command again \
                   (--connect-within sets how long a run tries)"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use onelane::model::{RouteCondition, Timestamp};

    use super::super::release::tests::lane;
    use super::*;

    fn unreachable(reached: bool) -> SchedulerSnapshot {
        let route = RouteCondition {
            since: Timestamp::default(),
            failures: 3,
            failed_at: Timestamp::default(),
            reason: "unreachable: tcp connect error".to_owned(),
        };
        SchedulerSnapshot {
            unreachable: Some(route),
            reached,
            ..lane()
        }
    }

    #[test]
    fn a_run_that_never_connected_ends_with_the_reason_and_one_that_did_waits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reach = Reach::new(Duration::from_secs(60));
        assert_eq!(reach.look(&lane(), at(0)), None);
        assert_eq!(reach.look(&unreachable(false), at(100)), None);
        assert_eq!(reach.look(&unreachable(false), at(159)), None);
        let held = reach.look(&unreachable(false), at(160)).unwrap();
        for words in ["60 s", "tcp connect error"] {
            assert!(held.reason.contains(words), "{}", held.reason);
        }
        assert!(held.help.contains("glm.base_url"), "{}", held.help);

        assert_eq!(
            reach.look(
                &SchedulerSnapshot {
                    reached: true,
                    ..lane()
                },
                at(170)
            ),
            None
        );
        // A restart of the queue's actor forgets it; the run does not.
        assert_eq!(reach.look(&unreachable(false), at(900)), None);
        assert_eq!(reach.look(&unreachable(false), at(990)), None);

        let mut for_ever = Reach::new(Duration::ZERO);
        assert_eq!(for_ever.look(&unreachable(false), at(0)), None);
        assert_eq!(for_ever.look(&unreachable(false), at(999)), None);
    }
}
