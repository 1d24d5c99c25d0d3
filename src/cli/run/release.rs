//! Starting a command is the operator's act that a held lane waited for: it ends holds.

use onelane::error::Error;
use onelane::model::{BreakerState, Hold, HoldKind, HoldScope, Pause, ScopedHold, WaitReason};
use onelane::orchestrator::{Orchestrator, SchedulerSnapshot};

/// How much a command ends by being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Holds that wait for an operator.
    Holds,
    /// Those, a pause, a closed intake and a breaker that an operator opened.
    HoldsAndOrders,
}

/// An operator's order that stops the lane, which a command lifts only if it is told to.
pub(crate) async fn order(lane: &Orchestrator) -> Result<Option<String>, Error> {
    Ok(ordered(&lane.lane().await?))
}

fn ordered(lane: &SchedulerSnapshot) -> Option<String> {
    if let Some(pause) = &lane.paused {
        let (since, why) = (pause.since, said(pause));
        return Some(format!("the lane was paused since {since}: {why}"));
    }
    if let Some(closed) = &lane.draining {
        let (since, why) = (closed.since, said(closed));
        return Some(format!("the intake was closed since {since}: {why}"));
    }
    forced_open(lane).map(|reason| format!("an operator had opened the breaker: {reason}"))
}

/// The stops to end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Release {
    /// Everything that stops the lane.
    All,
    /// These holds.
    Holds(Vec<HoldScope>),
}

/// Ends what waits for an operator. A hold that ends by itself stays, and a lane that the configuration switched
/// off stays off. Answers the lane's state before, if it was released.
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

/// The state of a lane that is to be released, and how; `None` if it is to stay as it is.
fn released(lane: &SchedulerSnapshot, ends: Ends) -> Option<(String, Release)> {
    if !lane.active {
        return None;
    }
    let orders = ends == Ends::HoldsAndOrders;
    if (lane.paused.is_some() || orders)
        && let Some(was) = ordered(lane)
    {
        return orders.then_some((was, Release::All));
    }
    let holds = lane.holds.iter();
    let held: Vec<_> = holds
        .filter(|held| waits_for_operator(&held.scope, &held.hold))
        .collect();
    let ScopedHold { scope, hold } = held.first()?;
    let what = match scope {
        HoldScope::Account => "the lane".to_owned(),
        scope => scope.to_string(),
    };
    let was = format!("{what} was held: {} {}", hold.code, hold.message);
    let scopes = held.into_iter().map(|held| held.scope.clone());
    Some((was, Release::Holds(scopes.collect())))
}

/// Whether only an operator ends a hold, or a start finds out at once whether it still stands.
fn waits_for_operator(scope: &HoldScope, hold: &Hold) -> bool {
    hold.kind == HoldKind::Unreachable || WaitReason::hold(scope, hold).waits_for_operator()
}

/// Why an operator opened the breaker, if it stays open until one resets it.
fn forced_open(lane: &SchedulerSnapshot) -> Option<&str> {
    let breaker = &lane.breaker;
    let forced = breaker.forced && breaker.probe_at.is_none();
    let reason = breaker.reason.as_deref().unwrap_or("too many failures");
    (forced && breaker.state == BreakerState::Open).then_some(reason)
}

fn said(pause: &Pause) -> &str {
    pause.reason.as_deref().unwrap_or("no reason given")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use onelane::model::{BreakerSnapshot, Timestamp, Wait};

    pub(in crate::cli::run) fn lane() -> SchedulerSnapshot {
        SchedulerSnapshot {
            active: true,
            max_concurrency: 1,
            ..SchedulerSnapshot::default()
        }
    }

    fn held_at(scope: HoldScope, kind: HoldKind, until: Option<i64>) -> SchedulerSnapshot {
        let hold = Hold {
            kind,
            code: "1113".to_owned(),
            message: "no balance".to_owned(),
            since: Timestamp::default(),
            until: until.map(|ms| Wait::from(Timestamp::from_millis(ms), 0)),
        };
        SchedulerSnapshot {
            hold: Some(hold.clone()),
            holds: vec![(scope, &hold).into()],
            ..lane()
        }
    }

    fn held(kind: HoldKind, until: Option<i64>) -> SchedulerSnapshot {
        held_at(HoldScope::Account, kind, until)
    }

    fn forced(probe_at: Option<i64>) -> SchedulerSnapshot {
        SchedulerSnapshot {
            breaker: BreakerSnapshot {
                state: BreakerState::Open,
                probe_at: probe_at.map(|ms| Wait::from(Timestamp::from_millis(ms), 0)),
                reason: Some("incident 7".to_owned()),
                forced: true,
                ..BreakerSnapshot::default()
            },
            ..lane()
        }
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
            let off = SchedulerSnapshot {
                active: false,
                ..hold.clone()
            };
            assert_eq!(released(&off, ends), None);
        }
        let order = Pause {
            since: Timestamp::default(),
            reason: None,
        };
        let paused = SchedulerSnapshot {
            paused: Some(order.clone()),
            ..hold
        };
        let draining = SchedulerSnapshot {
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
}
