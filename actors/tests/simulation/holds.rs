//! What stops the lane, as the disk has it: what a failure says has stopped, every hold ends by its rule and none
//! outlives it.

use std::collections::BTreeMap;

use onelane_core::model::{
    BreakerSnapshot, CallRecord, Hold, HoldScope, LaneRule, SchedulerState, Timestamp, Wait, code,
};

use crate::clocks::Heard;
use crate::gate::SENDING_MS;
use crate::history::{Act, History};
use crate::ledger::{Checked, Ledger};
use crate::tally::Tally;

impl Ledger {
    /// What a failure says has to stop has stopped.
    pub(crate) fn stopped(
        &self,
        call: &CallRecord,
        history: &History,
        heard: Heard<'_>,
    ) -> Checked {
        let Some(failure) = &call.failure else {
            return Err("it failed without a failure".to_owned());
        };
        // The failure of the time's settings; a change of them while it was open may excuse it.
        let begun = heard.awake_at(call.started_at);
        let mut in_force = history.between(begun, heard.now.awake);
        let (Some(settings), None) = (in_force.next(), in_force.next()) else {
            return Ok(());
        };
        if failure.code == code::THROTTLED {
            return Ok(());
        }
        let (_, rule) = settings.decide(failure);
        let account = self.lane.hold.as_ref();
        let model = self.lane.models.get(&call.model);
        let model = model.and_then(|model| model.hold.as_ref());
        let lane = self.lane.lanes.get(settings.lane_of(&call.model));
        let lane = lane.and_then(|lane| lane.hold.as_ref());
        let (held, what) = match rule.lane {
            LaneRule::GoOn => return Ok(()),
            LaneRule::CoolDown => (lane, "its lane does not cool down"),
            LaneRule::HoldModel | LaneRule::HoldModelForOperator => (model, "its model goes on"),
            LaneRule::HoldUntilReset => {
                let reset = failure.reset_at.unwrap_or_default();
                let holds = account.filter(|hold| hold.until.is_none_or(|wait| wait.until > reset));
                let outweighed = account
                    .filter(|_| holds.is_none())
                    .is_some_and(|hold| hold.kind > onelane_core::model::HoldKind::Quota);
                if outweighed {
                    return Ok(());
                }
                (holds, "the account goes on before the reset")
            }
            LaneRule::AwaitRoute => (account, "nothing waits for the route"),
            LaneRule::HoldForOperator => (account, "the account goes on"),
            LaneRule::HoldIfAgain if self.lane.foreign_answers < 2 => return Ok(()),
            LaneRule::HoldIfAgain => (account, "the account goes on after two in a row"),
        };
        if held.is_none() {
            return Err(format!("GLM said {}, and {what}", failure.code));
        }
        Ok(())
    }

    pub(crate) fn breaker_becomes(
        &mut self,
        breaker: &BreakerSnapshot,
        tally: &mut Tally,
        now: Timestamp,
    ) {
        if breaker.state != self.breaker.state || breaker.probe_at != self.breaker.probe_at {
            self.breaker_since = now;
        }
        tally.breaker += u64::from(breaker.state != self.breaker.state);
        self.breaker = breaker.clone();
    }

    /// The lanes' state changes: every hold that ends does so by its rule.
    pub(crate) fn lane_becomes(
        &mut self,
        new: &SchedulerState,
        history: &History,
        tally: &mut Tally,
        heard: Heard<'_>,
    ) -> Checked {
        let Heard { now, .. } = heard;
        let old = std::mem::replace(&mut self.lane, new.clone());
        let after: BTreeMap<HoldScope, &Hold> = new.holds().collect();
        let before: BTreeMap<HoldScope, &Hold> = old.holds().collect();
        tally.holds += after.keys().filter(|s| !before.contains_key(s)).count() as u64;
        for (scope, hold) in before {
            let over = hold.until.is_some_and(|wait| wait.until <= now.wall);
            // It ended before the clock was set, or began again when it was.
            let since = self.held.get(&scope).map_or(now.awake, |(_, since)| *since);
            let set = heard.is_set_back_since(since.minus_ms(SENDING_MS))
                || heard.is_disturbed_since(history.decided_since(now.awake));
            let by_hand = history.is_done_by_hand(
                |act| match act {
                    Act::Resume | Act::Configure => true,
                    Act::Release(released) => *released == scope,
                    Act::Cancel(_) => false,
                },
                now.awake,
            );
            let outweighed = after.get(&scope).is_some_and(|new| {
                new.kind > hold.kind
                    || (new.kind == hold.kind
                        && match (hold.until, new.until) {
                            (_, None) => true,
                            (None, Some(_)) => false,
                            (Some(old), Some(new)) => new.until >= old.until,
                        })
            });
            // Said again, it goes back to what it was and on from there.
            let is_said_again = self.is_in_doubt;
            if !over && !set && !by_hand && !outweighed && !is_said_again {
                return Err(format!(
                    "the hold of {scope} ended before its time: {hold:?}, then {:?}",
                    after.get(&scope)
                ));
            }
        }
        let held = new.holds().map(|(scope, hold)| {
            let known = self.held.get(&scope);
            let same = known.filter(|(until, _)| *until == hold.until);
            let since = same.map_or(now.awake, |(_, since)| *since);
            (scope, (hold.until, since))
        });
        self.held = held.collect();
        let resumed = history.is_done_by_hand(|act| *act == Act::Resume, now.awake);
        if (old.paused.is_some() && new.paused.is_none()
            || old.draining.is_some() && new.draining.is_none())
            && !resumed
            && !self.is_in_doubt
        {
            return Err("a pause or a closed intake ended and nobody had said so".to_owned());
        }
        Ok(())
    }

    /// What should have ended by itself, and has not: by the clock, and after its length whatever the clock says.
    pub(crate) fn overdue(&self, heard: Heard<'_>) -> Checked {
        /// A tick, and a transaction or two, in milliseconds.
        const PATIENCE_MS: u64 = 3_000;
        let Heard { now, .. } = heard;
        let calm = now.disturbed.max(self.calm());
        if now.awake.since(calm) <= PATIENCE_MS {
            return Ok(());
        }
        let is_overdue = |wait: Wait, since: Timestamp| {
            now.wall.since(wait.until) > PATIENCE_MS
                || now.awake.since(since.max(calm)) > wait.length_ms + PATIENCE_MS
        };
        for (scope, (wait, since)) in &self.held {
            if wait.is_some_and(|wait| is_overdue(wait, *since)) {
                return Err(format!("the hold of {scope} outlives its end: {wait:?}"));
            }
        }
        let open = &self.breaker;
        if open
            .probe_at
            .is_some_and(|wait| is_overdue(wait, self.breaker_since))
        {
            return Err(format!("the breaker outlives its end: {open:?}"));
        }
        Ok(())
    }
}
