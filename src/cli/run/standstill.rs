//! Why a lane does not move, in words: what ends by itself, and what needs an operator.

use std::fmt;

use onelane::model::{BreakerState, HoldKind};
use onelane::orchestrator::LaneStatus;

/// Why a lane does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standstill {
    /// It goes on by itself.
    Passing(String),
    /// It does not, until somebody does something about it.
    Operator {
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
}

impl Standstill {
    /// Why this lane does not move; `None` if it does.
    pub(crate) fn of(lane: &LaneStatus) -> Option<Self> {
        let operator = |reason: String, help: &str| {
            Some(Self::Operator {
                reason,
                help: help.to_owned(),
            })
        };
        if !lane.active {
            return operator(
                "the lane is switched off".to_owned(),
                "set is_active to true, then run the same command again",
            );
        }
        if let Some(pause) = &lane.paused {
            let why = pause.reason.as_deref().unwrap_or("no reason given");
            return operator(
                format!("the lane is paused since {}: {why}", pause.since),
                "run the same command again to resume it",
            );
        }
        if let Some(hold) = &lane.hold {
            let what = format!("{} {}", hold.code, hold.message);
            return match (hold.kind, hold.until) {
                (HoldKind::Operator, _) | (_, None) => operator(
                    format!("GLM takes nothing until an operator acts: {what}"),
                    "no job failed; see to it (key, balance, plan, terms), then run the same command again",
                ),
                (HoldKind::Quota, Some(until)) => Some(Self::Passing(format!(
                    "quota is used up until {until}: {what}"
                ))),
                (HoldKind::Throttle, Some(until)) => {
                    Some(Self::Passing(format!("cooling down until {until}: {what}")))
                }
            };
        }
        if lane.breaker.state == BreakerState::Open {
            let why = lane
                .breaker
                .reason
                .as_deref()
                .unwrap_or("too many failures");
            return Some(Self::Passing(match lane.breaker.probe_at {
                Some(at) => format!("breaker is open, next try at {at}: {why}"),
                None => format!("breaker is open: {why}"),
            }));
        }
        None
    }
}

impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Passing(reason) | Self::Operator { reason, .. }) = self;
        f.write_str(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelane::model::{BreakerSnapshot, Hold, Pause, Timestamp};

    fn lane() -> LaneStatus {
        LaneStatus {
            active: true,
            paused: None,
            hold: None,
            breaker: BreakerSnapshot::default(),
            in_flight: 0,
            max_concurrency: 1,
            ready: 0,
            waiting: 0,
            generation: 0,
        }
    }

    fn held(kind: HoldKind, until: Option<i64>) -> LaneStatus {
        LaneStatus {
            hold: Some(Hold {
                kind,
                code: "1113".to_owned(),
                message: "no balance".to_owned(),
                since: Timestamp::default(),
                until: until.map(Timestamp::from_millis),
            }),
            ..lane()
        }
    }

    fn passes(lane: &LaneStatus) -> bool {
        matches!(Standstill::of(lane), Some(Standstill::Passing(_)))
    }

    #[test]
    fn a_lane_that_moves_has_no_reason() {
        assert_eq!(Standstill::of(&lane()), None);
    }

    #[test]
    fn what_has_an_end_passes_and_the_rest_needs_an_operator() {
        assert!(passes(&held(HoldKind::Throttle, Some(1))));
        assert!(passes(&held(HoldKind::Quota, Some(1))));
        assert!(!passes(&held(HoldKind::Quota, None)));
        assert!(!passes(&held(HoldKind::Operator, None)));
        assert!(!passes(&held(HoldKind::Operator, Some(1))));
        assert!(!passes(&LaneStatus {
            active: false,
            ..lane()
        }));
        let pause = Pause {
            since: Timestamp::default(),
            reason: Some("lunch".to_owned()),
        };
        assert!(!passes(&LaneStatus {
            paused: Some(pause),
            ..lane()
        }));
        let breaker = BreakerSnapshot {
            state: BreakerState::Open,
            ..BreakerSnapshot::default()
        };
        assert!(passes(&LaneStatus { breaker, ..lane() }));
    }

    #[test]
    fn the_reason_says_what_glm_said_and_until_when() {
        let Some(Standstill::Passing(text)) = Standstill::of(&held(HoldKind::Quota, Some(0)))
        else {
            panic!("a quota hold passes")
        };
        assert!(
            text.contains("1113 no balance") && text.contains("1970-01-01T00:00:00.000Z"),
            "{text}"
        );
    }
}
