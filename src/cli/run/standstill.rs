//! Why a lane does not move, in words: what ends by itself, and what needs an operator.

use std::fmt;

use onelane::error::Error;
use onelane::model::{BreakerState, HoldKind};
use onelane::orchestrator::{LaneStatus, Orchestrator};

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
                "PUT {\"isActive\": true} to /api/admin/glm/config of a running `onelane serve`: that stored change \
                 beats the file; where only the file says false, is_active = true in it is enough",
            );
        }
        if let Some(pause) = &lane.paused {
            let why = pause.reason.as_deref().unwrap_or("no reason given");
            return operator(
                format!("the lane is paused since {}: {why}", pause.since),
                "POST /api/admin/glm/resume to a running `onelane serve`, or start `onelane run`",
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
                (HoldKind::Throttle | HoldKind::Overload | HoldKind::AfterTimeout, Some(until)) => {
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

/// What a command ends by being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// A hold that waits for an operator.
    Hold,
    /// That, and a pause.
    HoldAndPause,
}

/// Starting a command is the operator's act: what waited for one ends with it. A hold that ends by itself
/// stays, and what the configuration switched off only the configuration switches on. Answers what the
/// lane was, if it was released.
pub(crate) async fn release(lane: &Orchestrator, ends: Ends) -> Result<Option<String>, Error> {
    let Some(was) = released(&lane.lane().await?, ends) else {
        return Ok(None);
    };
    lane.resume().await?;
    Ok(Some(was))
}

/// What a lane was that is to be released; `None` if it is to stay as it is.
fn released(lane: &LaneStatus, ends: Ends) -> Option<String> {
    if !lane.active {
        return None;
    }
    if let Some(pause) = &lane.paused {
        let why = pause.reason.as_deref().unwrap_or("no reason given");
        let was = format!("the lane was paused since {}: {why}", pause.since);
        return (ends == Ends::HoldAndPause).then_some(was);
    }
    let hold = lane.hold.as_ref()?;
    let waits = hold.kind == HoldKind::Operator || hold.until.is_none();
    waits.then(|| format!("the lane was held: {} {}", hold.code, hold.message))
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
    fn a_start_ends_what_waits_for_an_operator_and_a_pause_only_when_it_may() {
        let hold = held(HoldKind::Operator, None);
        for ends in [Ends::Hold, Ends::HoldAndPause] {
            let was = released(&hold, ends).unwrap();
            assert!(was.contains("1113 no balance"), "{was}");
            assert_eq!(released(&held(HoldKind::Quota, Some(1)), ends), None);
            let off = LaneStatus {
                active: false,
                ..hold.clone()
            };
            assert_eq!(released(&off, ends), None);
        }
        let paused = LaneStatus {
            paused: Some(Pause {
                since: Timestamp::default(),
                reason: None,
            }),
            ..hold
        };
        assert_eq!(released(&paused, Ends::Hold), None);
        assert!(released(&paused, Ends::HoldAndPause).is_some());
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
