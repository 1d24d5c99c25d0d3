//! Holds: what stops the account, a lane or a model, which of two reasons counts, and when it ends.

use crate::model::{
    Hold, HoldKind, HoldScope, LaneRule, ModelCondition, SchedulerState, Settings, Timestamp,
};

/// The hold in force when `new` joins `current`: the weightier kind's words; it ends when both would
/// have ended (one without an end outlasts any), and began at the moment at which it first stopped.
#[must_use]
pub fn join(current: Option<Hold>, new: Hold) -> Hold {
    let Some(current) = current else { return new };
    let since = current.since.min(new.since);
    let (longer, until) = match (current.until, new.until) {
        (None, _) => (true, None),
        (_, None) => (false, None),
        (Some(a), Some(b)) if a.until >= b.until => (true, Some(a)),
        (_, b) => (false, b),
    };
    let keep = current.kind > new.kind || (current.kind == new.kind && longer);
    let words = if keep { current } else { new };
    Hold {
        since,
        until,
        ..words
    }
}

/// Adds a hold to what it stops.
pub fn add(state: &mut SchedulerState, scope: &HoldScope, new: Hold) {
    let place = match scope {
        HoldScope::Account => &mut state.hold,
        HoldScope::Lane(name) => &mut state.lanes.entry(name.clone()).or_default().hold,
        HoldScope::Model(name) => &mut state.models.entry(name.clone()).or_default().hold,
    };
    *place = Some(join(place.take(), new));
}

/// When the first hold ends by itself.
#[must_use]
pub fn next_end(state: &SchedulerState) -> Option<Timestamp> {
    let ends = state.holds().filter_map(|(_, hold)| hold.until);
    ends.map(|wait| wait.until).min()
}

/// Ends every hold whose time has come. Tells whether anything changed. An operator hold that ends so
/// was not seen to by anybody: what follows is a probe.
pub fn expire(state: &mut SchedulerState, now: Timestamp) -> bool {
    let mut any = false;
    let mut ended = |hold: &mut Option<Hold>| {
        let Some(held) = hold else { return None };
        any |= mind_the_clock(held, now);
        if held.until.is_none_or(|wait| !wait.is_over(now)) {
            return None;
        }
        any = true;
        hold.take().map(|hold| hold.kind)
    };
    if ended(&mut state.hold) == Some(HoldKind::Operator) {
        state.probing = true;
    }
    for lane in state.lanes.values_mut() {
        ended(&mut lane.hold);
    }
    for model in state.models.values_mut() {
        if ended(&mut model.hold) == Some(HoldKind::Operator) {
            model.probing = true;
        }
    }
    any
}

/// A hold that began in the future begins again: the clock was set back.
fn mind_the_clock(hold: &mut Hold, now: Timestamp) -> bool {
    let begins_again = hold
        .until
        .as_mut()
        .is_some_and(|wait| wait.mind_the_clock(now));
    if begins_again {
        hold.since = hold.since.min(now);
    }
    begins_again
}

/// Ends every hold, the pause and a closed intake: an operator said so.
pub fn release_all(state: &mut SchedulerState) {
    state.paused = None;
    state.draining = None;
    forget_account(state);
}

/// Forgets what was learnt of an account: its holds, its throttling, its limits.
pub fn forget_account(state: &mut SchedulerState) {
    state.hold = None;
    state.probing = false;
    state.foreign_answers = 0;
    state.route = None;
    state.unattributed.met.clear();
    state.lanes.clear();
    // Which dearer models may answer is no hold: reservations go on to count them.
    for model in state.models.values_mut() {
        *model = ModelCondition {
            substitutes: std::mem::take(&mut model.substitutes),
            ..ModelCondition::default()
        };
    }
    tidy(state);
}

/// Ends one hold, or the probe that followed it: an operator said so. Tells whether there was one.
pub fn release(state: &mut SchedulerState, scope: &HoldScope) -> bool {
    match scope {
        HoldScope::Account => {
            let probing = std::mem::take(&mut state.probing);
            state.foreign_answers = 0;
            let unreachable = state.route.take().is_some();
            state.hold.take().is_some() || probing || unreachable
        }
        HoldScope::Lane(name) => state.lanes.get_mut(name).is_some_and(|lane| {
            lane.throttle_level = 0;
            lane.hold.take().is_some()
        }),
        HoldScope::Model(name) => state.models.get_mut(name).is_some_and(|model| {
            model.overloads = 0;
            model.probing = false;
            model.hold.take().is_some()
        }),
    }
}

/// Ends the holds of one code: an operator changed what it means. Tells whether there was one.
pub fn release_code(state: &mut SchedulerState, code: &str) -> bool {
    let scopes: Vec<HoldScope> = state
        .holds()
        .filter(|(_, hold)| hold.code == code)
        .map(|(scope, _)| scope)
        .collect();
    for scope in &scopes {
        release(state, scope);
    }
    !scopes.is_empty()
}

/// Ends the holds that are none any more by an operator's word for their codes, given while nothing ran.
/// Tells whether there was one.
pub fn release_disowned(state: &mut SchedulerState, settings: &Settings) -> bool {
    let is_disowned = |hold: &Hold| {
        let word = settings.policy.get(&hold.code);
        let lane = word.and_then(|word| word.lane.or(word.class.map(|class| class.rule().lane)));
        // A rest after a timeout is not the code's, but a setting's of its own.
        hold.kind != HoldKind::AfterTimeout
            && lane.is_some_and(|rule| holds_as(rule) != Some(hold.kind))
    };
    let codes: Vec<String> = state
        .holds()
        .filter(|(_, hold)| is_disowned(hold))
        .map(|(_, hold)| hold.code.clone())
        .collect();
    for code in &codes {
        release_code(state, code);
    }
    !codes.is_empty()
}

/// The kind of hold that a rule makes.
const fn holds_as(rule: LaneRule) -> Option<HoldKind> {
    match rule {
        LaneRule::GoOn => None,
        LaneRule::CoolDown => Some(HoldKind::Throttle),
        LaneRule::HoldModel => Some(HoldKind::Overload),
        LaneRule::AwaitRoute => Some(HoldKind::Unreachable),
        LaneRule::HoldUntilReset => Some(HoldKind::Quota),
        LaneRule::HoldForOperator | LaneRule::HoldModelForOperator | LaneRule::HoldIfAgain => {
            Some(HoldKind::Operator)
        }
    }
}

/// Drops what has nothing to remember any more.
pub fn tidy(state: &mut SchedulerState) {
    state.lanes.retain(|_, lane| *lane != Default::default());
    state.models.retain(|_, model| *model != Default::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wait;

    fn hold(kind: HoldKind, since: i64, until: Option<i64>) -> Hold {
        Hold {
            kind,
            code: "1308".to_owned(),
            message: String::new(),
            since: Timestamp::from_millis(since),
            until: until.map(|until| {
                let [since, until] = [since, until].map(Timestamp::from_millis);
                Wait::between(since, until)
            }),
        }
    }

    #[test]
    fn a_resume_forgets_no_dearer_model_that_has_answered() {
        let mut state = SchedulerState::default();
        let dear = state.models.entry("m".to_owned()).or_default();
        dear.overloads = 3;
        dear.substitutes.insert("dear".to_owned());
        state.models.entry("n".to_owned()).or_default().overloads = 2;
        forget_account(&mut state);
        assert_eq!(state.may_answer("m").collect::<Vec<_>>(), ["m", "dear"]);
        assert_eq!(state.models["m"].overloads, 0);
        assert!(!state.models.contains_key("n"));
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
        let begun = |at: i64, hold: &Hold| Hold {
            since: Timestamp::from_millis(at),
            ..hold.clone()
        };
        check(&throttle, &quota, &begun(1, &quota));
        check(&quota, &throttle, &begun(1, &quota));
        check(&quota, &operator, &begun(2, &operator));
        check(&operator, &quota, &begun(2, &operator));
        let rest = hold(HoldKind::AfterTimeout, 1, Some(500));
        check(&rest, &throttle, &hold(Throttle, 1, Some(500)));
        check(&quota, &hold(Quota, 5, Some(50)), &quota);
        let longer = |since| hold(Quota, since, Some(200));
        check(&quota, &longer(5), &begun(2, &longer(5)));
        // Of two that end together the first keeps its words, and its end the longer delay.
        let mut second = hold(Quota, 5, Some(100));
        second.message = "again".to_owned();
        check(&quota, &second, &quota);
        assert_eq!(join(None, quota.clone()), quota);
    }

    fn scopes() -> [HoldScope; 3] {
        let [lane, model] = ["a", "b"].map(str::to_owned);
        [
            HoldScope::Account,
            HoldScope::Lane(lane),
            HoldScope::Model(model),
        ]
    }

    /// The lanes with this hold alone.
    fn held(scope: &HoldScope, hold: Hold) -> SchedulerState {
        let mut state = SchedulerState::default();
        add(&mut state, scope, hold);
        state
    }

    #[test]
    fn a_hold_ends_at_its_time_and_not_before_whatever_it_stops() {
        for scope in scopes() {
            let mut state = held(&scope, hold(HoldKind::Quota, 0, Some(100)));
            assert_eq!(next_end(&state), Some(Timestamp::from_millis(100)));
            assert!(!expire(&mut state, Timestamp::from_millis(99)));
            assert!(expire(&mut state, Timestamp::from_millis(100)), "{scope}");
            tidy(&mut state);
            assert_eq!(state, SchedulerState::default());
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_hold_longer_whatever_its_kind() {
        for scope in scopes() {
            use HoldKind::{AfterTimeout, Operator, Overload, Quota, Throttle, Unreachable};
            for kind in [
                AfterTimeout,
                Throttle,
                Overload,
                Unreachable,
                Quota,
                Operator,
            ] {
                let mut state = held(&scope, hold(kind, 1_000, Some(1_010)));
                assert!(expire(&mut state, Timestamp::from_millis(500)));
                assert_eq!(next_end(&state), Some(Timestamp::from_millis(510)));
                assert!(!expire(&mut state, Timestamp::from_millis(509)), "{kind:?}");
                assert!(expire(&mut state, Timestamp::from_millis(510)), "{kind:?}");
            }
        }
    }

    #[test]
    fn only_an_operator_ends_a_hold_without_an_end() {
        for scope in scopes() {
            let mut state = held(&scope, hold(HoldKind::Operator, 0, None));
            assert!(!expire(&mut state, Timestamp::from_millis(i64::MAX)));
            assert!(release(&mut state, &scope));
            assert!(!release(&mut state, &scope));
        }
    }

    #[test]
    fn an_operator_hold_that_ends_by_itself_is_probed() {
        let mut state = held(&HoldScope::Account, hold(HoldKind::Operator, 0, Some(5)));
        assert!(expire(&mut state, Timestamp::from_millis(5)));
        assert!(state.probing);
        assert!(release(&mut state, &HoldScope::Account), "a probe");
        assert!(!state.probing);
    }

    #[test]
    fn a_word_given_while_nothing_ran_ends_the_holds_that_it_disowns() {
        use crate::model::{FailureClass, PolicyOverride};
        let check = |kind, word: PolicyOverride, gone| {
            let mut state = held(&HoldScope::Account, hold(kind, 0, None));
            let mut settings = Settings::default();
            settings.policy.insert("1308".to_owned(), word);
            assert_eq!(release_disowned(&mut state, &settings), gone, "{word:?}");
            assert_eq!(state.hold.is_none(), gone, "{word:?}");
        };
        let lane = |rule| PolicyOverride {
            lane: Some(rule),
            ..PolicyOverride::default()
        };
        check(HoldKind::Quota, FailureClass::RequestFatal.into(), true);
        check(HoldKind::Quota, FailureClass::OperatorFatal.into(), true);
        check(HoldKind::Quota, FailureClass::QuotaWindow.into(), false);
        check(HoldKind::Quota, lane(LaneRule::GoOn), true);
        let model = lane(LaneRule::HoldModelForOperator);
        check(HoldKind::Operator, model, false);
        check(HoldKind::AfterTimeout, lane(LaneRule::GoOn), false);
        // A word for the job alone says nothing of the hold.
        let job = PolicyOverride {
            job: Some(crate::model::JobRule::Fail),
            ..PolicyOverride::default()
        };
        check(HoldKind::Quota, job, false);
    }

    #[test]
    fn a_code_whose_meaning_changed_holds_nothing_any_more() {
        let mut state = SchedulerState::default();
        for scope in scopes() {
            add(&mut state, &scope, hold(HoldKind::Quota, 0, None));
        }
        assert!(!release_code(&mut state, "1113"));
        assert!(release_code(&mut state, "1308"));
        assert_eq!(state.holds().count(), 0);
    }
}
