//! Why a lane does not move, in words: what ends by itself, and what needs an operator.

use std::fmt;

use onelane::error::Error;
use onelane::model::{BreakerState, Hold, HoldKind, HoldScope, Pause};
use onelane::orchestrator::{LaneStatus, Orchestrator};

use super::left::waits_for_operator;

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
    /// Why this lane does not move as a whole; `None` if it does, or if that depends on what is left
    /// ([`super::left`]).
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
            return operator(
                format!("the lane is paused since {}: {}", pause.since, said(pause)),
                "POST /api/admin/glm/resume to a running `onelane serve`, or start `onelane run`",
            );
        }
        if let Some(hold) = account_hold(lane)
            && waits_for_operator(hold)
        {
            return operator(
                format!(
                    "GLM takes nothing until an operator acts: {} {}",
                    hold.code, hold.message
                ),
                "no job failed; see to it (key, balance, plan, terms), then run the same command again",
            );
        }
        if let Some(reason) = forced_open(lane) {
            return operator(
                format!("an operator opened the breaker: {reason}"),
                "POST /api/admin/glm/breaker/reset to a running `onelane serve`, or start `onelane run`",
            );
        }
        passing(lane).map(Self::Passing)
    }
}

/// What ends by itself.
fn passing(lane: &LaneStatus) -> Option<String> {
    // A model or lane that is held without an end lets the others go on; what is left tells the rest.
    let ends = |(scope, hold): &'_ (HoldScope, Hold)| {
        let until = hold.until.filter(|_| !waits_for_operator(hold))?;
        let what = format!("{} {}", hold.code, hold.message);
        let whose = match scope {
            HoldScope::Account => String::new(),
            scope => format!("{scope}: "),
        };
        Some(match hold.kind {
            HoldKind::Quota => format!("{whose}quota is used up until {until}: {what}"),
            _ => format!("{whose}cooling down until {until}: {what}"),
        })
    };
    if let Some(reason) = lane.holds.iter().find_map(ends) {
        return Some(reason);
    }
    if lane.breaker.state != BreakerState::Open {
        let nothing_else = lane.in_flight == 0 && lane.ready == 0 && lane.waiting == 0;
        let short = lane.shortage.as_ref().filter(|_| nothing_else);
        return short.map(|why| match lane.over_budget {
            1 => format!("1 job waits for room: {why}"),
            jobs => format!("{jobs} jobs wait for room, one of them: {why}"),
        });
    }
    let why = breaker_reason(lane);
    Some(match lane.breaker.probe_at {
        Some(at) => format!("breaker is open, next try at {at}: {why}"),
        None => format!("breaker is open: {why}"),
    })
}

fn account_hold(lane: &LaneStatus) -> Option<&Hold> {
    let account = |(scope, _): &&(HoldScope, Hold)| *scope == HoldScope::Account;
    lane.holds.iter().find(account).map(|(_, hold)| hold)
}

fn breaker_reason(lane: &LaneStatus) -> &str {
    let reason = lane.breaker.reason.as_deref();
    reason.unwrap_or("too many failures")
}

/// Why an operator opened the breaker, if it stays open until one resets it.
fn forced_open(lane: &LaneStatus) -> Option<&str> {
    let breaker = &lane.breaker;
    let forced = breaker.forced && breaker.probe_at.is_none();
    (forced && breaker.state == BreakerState::Open).then(|| breaker_reason(lane))
}

/// What a command ends by being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Holds that wait for an operator.
    Holds,
    /// Those, a pause, a closed intake and a breaker that an operator opened.
    HoldsAndOrders,
}

/// What is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Release {
    /// Everything that stops the lane.
    All,
    /// These holds.
    Holds(Vec<HoldScope>),
}

/// Starting a command is the operator's act: what waited for one ends with it. A hold that ends by itself
/// stays, and what the configuration switched off only the configuration switches on. Answers what the
/// lane was, if it was released.
pub(crate) async fn release(lane: &Orchestrator, ends: Ends) -> Result<Option<String>, Error> {
    let Some((was, release)) = released(&lane.lane().await?, ends) else {
        return Ok(None);
    };
    match release {
        Release::All => lane.resume().await?,
        Release::Holds(scopes) => {
            for scope in scopes {
                match lane.release_hold(scope).await {
                    // Ended by itself meanwhile.
                    Err(Error::NoSuchHold(_)) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(Some(was))
}

/// What a lane was that is to be released, and how; `None` if it is to stay as it is.
fn released(lane: &LaneStatus, ends: Ends) -> Option<(String, Release)> {
    if !lane.active {
        return None;
    }
    let orders = ends == Ends::HoldsAndOrders;
    if let Some(pause) = &lane.paused {
        let was = format!("the lane was paused since {}: {}", pause.since, said(pause));
        return orders.then_some((was, Release::All));
    }
    if orders && let Some(closed) = &lane.draining {
        let was = format!(
            "the intake was closed since {}: {}",
            closed.since,
            said(closed)
        );
        return Some((was, Release::All));
    }
    if orders && let Some(reason) = forced_open(lane) {
        let was = format!("an operator had opened the breaker: {reason}");
        return Some((was, Release::All));
    }
    let holds = lane.holds.iter();
    let held: Vec<_> = holds.filter(|(_, hold)| waits_for_operator(hold)).collect();
    let was = match held.first()? {
        (HoldScope::Account, hold) => {
            format!("the lane was held: {} {}", hold.code, hold.message)
        }
        (scope, hold) => format!("{scope} was held: {} {}", hold.code, hold.message),
    };
    let scopes = held.into_iter().map(|(scope, _)| scope.clone());
    Some((was, Release::Holds(scopes.collect())))
}

fn said(pause: &Pause) -> &str {
    pause.reason.as_deref().unwrap_or("no reason given")
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
    use onelane::model::{BreakerSnapshot, Timestamp};

    fn lane() -> LaneStatus {
        LaneStatus {
            active: true,
            paused: None,
            draining: None,
            drained: false,
            hold: None,
            holds: Vec::new(),
            breaker: BreakerSnapshot::default(),
            in_flight: 0,
            max_concurrency: 1,
            ready: 0,
            waiting: 0,
            dormant: 0,
            over_budget: 0,
            shortage: None,
            lanes: Vec::new(),
            models: Vec::new(),
            generation: 0,
        }
    }

    fn held_at(scope: HoldScope, kind: HoldKind, until: Option<i64>) -> LaneStatus {
        let hold = Hold {
            kind,
            code: "1113".to_owned(),
            message: "no balance".to_owned(),
            since: Timestamp::default(),
            until: until.map(Timestamp::from_millis),
        };
        LaneStatus {
            hold: Some(hold.clone()),
            holds: vec![(scope, hold)],
            ..lane()
        }
    }

    fn held(kind: HoldKind, until: Option<i64>) -> LaneStatus {
        held_at(HoldScope::Account, kind, until)
    }

    fn forced(probe_at: Option<i64>) -> LaneStatus {
        LaneStatus {
            breaker: BreakerSnapshot {
                state: BreakerState::Open,
                probe_at: probe_at.map(Timestamp::from_millis),
                reason: Some("incident 7".to_owned()),
                forced: true,
                ..BreakerSnapshot::default()
            },
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
    fn a_breaker_that_an_operator_opened_needs_one_unless_it_has_an_end() {
        assert!(!passes(&forced(None)));
        assert!(passes(&forced(Some(1))));
        let Some(Standstill::Operator { reason, help }) = Standstill::of(&forced(None)) else {
            panic!("it stays open")
        };
        assert_eq!(reason, "an operator opened the breaker: incident 7");
        assert!(help.contains("breaker/reset"), "{help}");
    }

    #[test]
    fn a_hold_on_a_part_of_the_lane_lets_the_others_go_on() {
        let model = HoldScope::Model("glm-5".to_owned());
        let overloaded = held_at(model.clone(), HoldKind::Overload, Some(0));
        let Some(Standstill::Passing(text)) = Standstill::of(&overloaded) else {
            panic!("it has an end")
        };
        assert!(
            text.starts_with("model glm-5: cooling down until 1970"),
            "{text}"
        );
        let waits = held_at(model, HoldKind::Operator, None);
        assert_eq!(Standstill::of(&waits), None, "that depends on what is left");
        let cooling = held_at(HoldScope::Lane("a".to_owned()), HoldKind::Throttle, Some(0));
        assert!(passes(&cooling));
    }

    #[test]
    fn a_start_ends_what_waits_for_an_operator_and_his_orders_only_when_it_may() {
        let hold = held(HoldKind::Operator, None);
        for ends in [Ends::Holds, Ends::HoldsAndOrders] {
            let (was, release) = released(&hold, ends).unwrap();
            assert!(was.contains("1113 no balance"), "{was}");
            assert_eq!(release, Release::Holds(vec![HoldScope::Account]));
            let model = HoldScope::Model("glm-5".to_owned());
            let (was, release) =
                released(&held_at(model.clone(), HoldKind::Operator, None), ends).unwrap();
            assert_eq!(was, "model glm-5 was held: 1113 no balance");
            assert_eq!(release, Release::Holds(vec![model]));
            assert_eq!(released(&held(HoldKind::Quota, Some(1)), ends), None);
            let off = LaneStatus {
                active: false,
                ..hold.clone()
            };
            assert_eq!(released(&off, ends), None);
        }
        let order = Pause {
            since: Timestamp::default(),
            reason: None,
        };
        let paused = LaneStatus {
            paused: Some(order.clone()),
            ..hold
        };
        let draining = LaneStatus {
            draining: Some(order),
            ..lane()
        };
        for given in [paused, draining, forced(None)] {
            assert_eq!(released(&given, Ends::Holds), None);
            let (_, release) = released(&given, Ends::HoldsAndOrders).unwrap();
            assert_eq!(release, Release::All);
        }
        assert_eq!(released(&forced(Some(1)), Ends::HoldsAndOrders), None);
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
