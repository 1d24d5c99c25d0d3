//! When something is bad enough, for long enough, to tell somebody; and when it is over.
//!
//! A rule raises at one level and clears at a lower one, and either only after it was so for a
//! while: a figure that swings between the two, or beyond one of them for a moment, changes nothing.

use std::collections::BTreeMap;

use crate::model::{
    Alert, AlertBook, AlertKey, AlertSettings, BreakerState, CallOutcome, CallRecord, CallWindow,
    ClearedAlert, Currency, FailureClass, HeldKey, Hold, HoldScope, Measure, Nanos, Thresholds,
    Timestamp,
};

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The latest calls, newest first, as far back as any rule reaches or the reader's bound.
    pub calls: &'a [CallRecord],
    /// Jobs that are due and wait for a slot.
    pub ready: u64,
    /// Since when the oldest job that is due has waited; `None`: none is due.
    pub oldest_due: Option<Timestamp>,
    /// What the last hour cost.
    pub spent_last_hour: &'a BTreeMap<Currency, Nanos>,
    /// Each budget with the share of it that is used up, in millionths.
    pub budgets: &'a [(String, i64)],
    /// The breaker.
    pub breaker: BreakerState,
    /// The holds in force, with what each stops.
    pub holds: &'a [(HoldScope, Hold)],
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertChange {
    /// Something is bad.
    Raised(Alert),
    /// It is over.
    Cleared(ClearedAlert),
}

/// What became of alerts from one book to a later one.
#[must_use]
pub fn changes(before: &AlertBook, now: &AlertBook) -> Vec<AlertChange> {
    let cleared = now.past.iter().filter(|past| {
        let alert = &past.alert;
        let known = |old: &ClearedAlert| {
            old.alert.key == alert.key && old.alert.raised_at == alert.raised_at
        };
        before.active(&alert.key).is_some() && !before.past.iter().any(known)
    });
    let raised = now.active.iter();
    let raised = raised.filter(|alert| {
        let old = before.active(&alert.key);
        // Cleared and raised again it is another one.
        old.is_none_or(|old| {
            let is_past = |past: &ClearedAlert| {
                past.alert.key == old.key && past.alert.raised_at == old.raised_at
            };
            old.raised_at != alert.raised_at && now.past.iter().any(is_past)
        })
    });
    let cleared = cleared.cloned().map(AlertChange::Cleared);
    cleared
        .chain(raised.cloned().map(AlertChange::Raised))
        .collect()
}

/// The alerts: which are active, and what may become one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alerts {
    book: AlertBook,
    /// Since when a level asks for the other state than it is in.
    since: BTreeMap<AlertKey, Timestamp>,
}

/// A rule's level and its thresholds; the level is `None` when too little is known.
type Reading = (Option<i64>, Thresholds);

impl Alerts {
    /// Goes on from what a store kept: what is active there is not raised again.
    #[must_use]
    pub const fn new(book: AlertBook) -> Self {
        Self {
            book,
            since: BTreeMap::new(),
        }
    }

    /// What is bad and what was.
    #[must_use]
    pub const fn book(&self) -> &AlertBook {
        &self.book
    }

    /// Looks at the inputs and answers what changed. An alert whose rule is switched off, or whose
    /// subject is gone, is over at once; one about which too little is known stays as it is.
    pub fn step(
        &mut self,
        settings: &AlertSettings,
        inputs: &Inputs<'_>,
        now: Timestamp,
    ) -> Vec<AlertChange> {
        let readings = readings(settings, inputs, &self.book, now);
        self.since.retain(|key, _| readings.contains_key(key));
        let gone: Vec<AlertKey> = self
            .book
            .active
            .iter()
            .filter(|alert| !readings.contains_key(&alert.key))
            .map(|alert| alert.key.clone())
            .collect();
        let mut changes: Vec<AlertChange> = gone
            .iter()
            .filter_map(|key| self.book.clear(key, now))
            .map(AlertChange::Cleared)
            .collect();
        for (key, reading) in readings {
            let hold = held(&key, inputs);
            changes.extend(self.judge(key, reading, hold, now));
        }
        changes
    }

    fn judge(
        &mut self,
        key: AlertKey,
        (level, thresholds): Reading,
        hold: Option<Hold>,
        now: Timestamp,
    ) -> Option<AlertChange> {
        let active = self.book.active(&key).is_some();
        let level = level.filter(|level| match active {
            true => *level <= thresholds.clear,
            false => *level >= thresholds.raise,
        });
        let Some(level) = level else {
            self.since.remove(&key);
            return None;
        };
        // A clock that was set back must not make anybody wait for ever.
        let since = self.since.entry(key.clone()).or_insert(now);
        *since = (*since).min(now);
        if now.since(*since) < thresholds.for_ms {
            return None;
        }
        self.since.remove(&key);
        if active {
            return self.book.clear(&key, now).map(AlertChange::Cleared);
        }
        let alert = Alert {
            key,
            raised_at: now,
            level,
            threshold: thresholds.raise,
            hold,
        };
        self.book.raise(alert.clone());
        Some(AlertChange::Raised(alert))
    }
}

/// The level of everything that is watched.
fn readings(
    settings: &AlertSettings,
    inputs: &Inputs<'_>,
    book: &AlertBook,
    now: Timestamp,
) -> BTreeMap<AlertKey, Reading> {
    let mut readings = BTreeMap::new();
    if let Some((thresholds, window)) = settings.error_rate {
        let rate = error_rate(inputs.calls, window, now);
        readings.insert(AlertKey::ErrorRate, (rate, thresholds));
    }
    if let Some((thresholds, window, measure)) = settings.response_time {
        let time = response_time(inputs.calls, window, measure, now);
        readings.insert(AlertKey::ResponseTime, (time, thresholds));
    }
    if let Some(thresholds) = settings.queue_length {
        let ready = Some(whole(inputs.ready));
        readings.insert(AlertKey::QueueLength, (ready, thresholds));
    }
    if let Some(thresholds) = settings.queue_age {
        let age = inputs.oldest_due.map_or(0, |since| now.since(since));
        readings.insert(AlertKey::QueueAge, (Some(whole(age)), thresholds));
    }
    for (currency, thresholds) in &settings.spend {
        let spent = inputs.spent_last_hour.get(currency).copied();
        let reading = (Some(spent.unwrap_or(0)), *thresholds);
        readings.insert(AlertKey::Spend(*currency), reading);
    }
    if let Some(thresholds) = settings.budget {
        for (name, share) in inputs.budgets {
            let key = AlertKey::Budget(name.clone());
            readings.insert(key, (Some(*share), thresholds));
        }
    }
    if let Some(for_ms) = settings.breaker_for_ms {
        let open = i64::from(inputs.breaker != BreakerState::Closed);
        readings.insert(AlertKey::Breaker, (Some(open), is_so(for_ms)));
    }
    // What was held and is so no longer is over only after a while, too.
    for alert in &book.active {
        if let AlertKey::Hold(key) = &alert.key
            && let Some(for_ms) = settings.holds.get(&key.kind)
        {
            readings.insert(alert.key.clone(), (Some(0), is_so(*for_ms)));
        }
    }
    for (scope, hold) in inputs.holds {
        if let Some(for_ms) = settings.holds.get(&hold.kind) {
            let (kind, scope) = (hold.kind, scope.clone());
            let key = AlertKey::Hold(HeldKey { kind, scope });
            readings.insert(key, (Some(1), is_so(*for_ms)));
        }
    }
    readings
}

/// The hold that a key is about.
fn held(key: &AlertKey, inputs: &Inputs<'_>) -> Option<Hold> {
    let AlertKey::Hold(key) = key else {
        return None;
    };
    let mut holds = inputs.holds.iter();
    let found = holds.find(|(scope, hold)| *scope == key.scope && hold.kind == key.kind);
    found.map(|(_, hold)| hold.clone())
}

/// The thresholds of what is either so or not.
const fn is_so(for_ms: u64) -> Thresholds {
    Thresholds {
        raise: 1,
        clear: 0,
        for_ms,
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether a call says something of GLM. What a caller gave up or a crash cut off does not, nor does a
/// refusal that is about the job, or about how much was sent at once.
fn is_of_glm(call: &CallRecord) -> bool {
    let class = call.failure.as_ref().map(|failure| failure.class);
    match call.outcome {
        CallOutcome::Completed => true,
        CallOutcome::Failed => !matches!(
            class,
            Some(FailureClass::Throttle | FailureClass::RequestFatal)
        ),
        _ => false,
    }
}

/// The calls that are judged, of these, newest first: those of the window, or the latest so many.
fn judged<'c>(calls: &[&'c CallRecord], window: CallWindow, now: Timestamp) -> Vec<&'c CallRecord> {
    let (from, reach) = (
        now.minus_ms(window.window_ms),
        now.minus_ms(window.reach_ms()),
    );
    let within = calls
        .iter()
        .take_while(|call| call.ended_at >= from)
        .count();
    let count = within.max(window.min_calls as usize);
    let latest = calls.iter().take(count);
    latest
        .take_while(|call| call.ended_at >= reach)
        .copied()
        .collect()
}

/// With nothing that failed in the window it is 0, however few calls there were: an outage that is over
/// must not stay one because hardly anybody calls.
fn error_rate(calls: &[CallRecord], window: CallWindow, now: Timestamp) -> Option<i64> {
    let calls: Vec<&CallRecord> = calls.iter().filter(|call| is_of_glm(call)).collect();
    let failed = |call: &&&CallRecord| call.outcome == CallOutcome::Failed;
    let from = now.minus_ms(window.window_ms);
    let mut recent = calls.iter().take_while(|call| call.ended_at >= from);
    if !recent.any(|call| failed(&call)) {
        return Some(0);
    }
    let judged = judged(&calls, window, now);
    let (all, failed) = (
        judged.len() as u64,
        judged.iter().filter(failed).count() as u64,
    );
    let enough = all > 0 && all >= u64::from(window.min_calls);
    enough.then(|| whole(failed * crate::model::WHOLE_SHARE.unsigned_abs() / all))
}

/// With no answer as far as the rule reaches nothing is slow.
fn response_time(
    calls: &[CallRecord],
    window: CallWindow,
    measure: Measure,
    now: Timestamp,
) -> Option<i64> {
    let answered = calls.iter();
    let answered: Vec<&CallRecord> = answered
        .filter(|call| call.outcome == CallOutcome::Completed)
        .collect();
    let mut times: Vec<u64> = judged(&answered, window, now)
        .iter()
        .map(|call| call.response_time_ms)
        .collect();
    let count = times.len();
    if count == 0 {
        return Some(0);
    }
    if (count as u64) < u64::from(window.min_calls) {
        return None;
    }
    let time = match measure {
        Measure::Mean => times.iter().sum::<u64>() / count as u64,
        Measure::P95 => {
            // The nearest rank: the smallest time that 95 of 100 calls don't exceed.
            let rank = (count * 95).div_ceil(100).max(1);
            *times.select_nth_unstable(rank - 1).1
        }
    };
    Some(whole(time))
}

#[cfg(test)]
mod tests;
