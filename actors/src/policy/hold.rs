//! Holds: what stops the lane, which of two reasons counts, and when it ends.

use crate::model::{Hold, HoldKind, HoldScope, LaneState, Timestamp};

/// The hold in force when `new` joins `current`: the weightier kind; of one kind the one that ends
/// later (a hold without an end outlasts any), with the moment at which the lane first stopped.
#[must_use]
pub fn join(current: Option<Hold>, new: Hold) -> Hold {
    let Some(current) = current else { return new };
    if current.kind > new.kind {
        return current;
    }
    if current.kind < new.kind {
        return new;
    }
    let since = current.since;
    let keep = match (current.until, new.until) {
        (None, _) => true,
        (_, None) => false,
        (Some(a), Some(b)) => a >= b,
    };
    let longer = if keep { current } else { new };
    Hold { since, ..longer }
}

/// Ends a hold whose time has come. Tells which kind ended.
pub fn expire(state: &mut LaneState, now: Timestamp) -> Option<HoldKind> {
    let over = state
        .hold
        .as_ref()
        .is_some_and(|hold| hold.until.is_some_and(|until| until <= now));
    if !over {
        return None;
    }
    state.hold.take().map(|hold| hold.kind)
}

/// Ends every hold and the pause: an operator said so. Tells whether there was anything to end.
pub fn release(state: &mut LaneState) -> bool {
    let was = state.hold.is_some() || state.paused.is_some();
    state.hold = None;
    state.paused = None;
    state.draining = None;
    state.lanes.clear();
    state.models.clear();
    was
}

/// Ends one hold: an operator said so. Tells whether there was one.
pub fn release_one(state: &mut LaneState, scope: &HoldScope) -> bool {
    let held = match scope {
        HoldScope::Account => state.hold.take(),
        HoldScope::Lane(name) => state.lanes.get_mut(name).and_then(|lane| lane.hold.take()),
        HoldScope::Model(name) => state
            .models
            .get_mut(name)
            .and_then(|model| model.hold.take()),
    };
    held.is_some()
}

/// Ends a hold that waits for an operator: something it may be about was changed.
pub fn operator_acted(state: &mut LaneState) -> Option<HoldKind> {
    match &state.hold {
        Some(hold) if hold.kind == HoldKind::Operator => {
            state.hold = None;
            Some(HoldKind::Operator)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(kind: HoldKind, since: i64, until: Option<i64>) -> Hold {
        Hold {
            kind,
            code: "1308".to_owned(),
            message: String::new(),
            since: Timestamp::from_millis(since),
            until: until.map(Timestamp::from_millis),
        }
    }

    #[test]
    fn the_weightier_hold_wins_and_of_equals_the_longer() {
        use HoldKind::{Operator, Quota, Throttle};
        let check = |a: &Hold, b: &Hold, want: &Hold| {
            assert_eq!(&join(Some(a.clone()), b.clone()), want);
        };
        let throttle = hold(Throttle, 1, Some(10));
        let quota = hold(Quota, 2, Some(100));
        let operator = hold(Operator, 3, None);
        check(&throttle, &quota, &quota);
        check(&quota, &throttle, &quota);
        check(&quota, &operator, &operator);
        check(&operator, &quota, &operator);
        check(&quota, &hold(Quota, 5, Some(50)), &quota);
        check(
            &quota,
            &hold(Quota, 5, Some(200)),
            &hold(Quota, 2, Some(200)),
        );
        assert_eq!(join(None, quota.clone()), quota);
    }

    #[test]
    fn a_hold_ends_at_its_time_and_not_before() {
        let mut state = LaneState {
            hold: Some(hold(HoldKind::Quota, 0, Some(100))),
            ..LaneState::default()
        };
        assert_eq!(expire(&mut state, Timestamp::from_millis(99)), None);
        assert_eq!(
            expire(&mut state, Timestamp::from_millis(100)),
            Some(HoldKind::Quota)
        );
        assert_eq!(state.hold, None);
    }

    #[test]
    fn only_an_operator_ends_an_operator_hold() {
        let mut state = LaneState {
            hold: Some(hold(HoldKind::Operator, 0, None)),
            ..LaneState::default()
        };
        assert_eq!(expire(&mut state, Timestamp::from_millis(i64::MAX)), None);
        assert_eq!(operator_acted(&mut state), Some(HoldKind::Operator));
        assert!(!release(&mut state));
    }
}
