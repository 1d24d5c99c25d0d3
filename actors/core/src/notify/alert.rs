//! When something is bad enough, for long enough, to tell an operator; and when it is over.
//!
//! A rule raises at one level and clears at a lower one, and either only after it was so for a
//! while: a figure that swings between the two, or beyond one of them for a moment, changes nothing.

use std::collections::BTreeMap;

use crate::model::{
    Alert, AlertBook, AlertKey, AlertRule, AlertRules, BreakerState, BudgetStatus, CallOutcome,
    CallRecord, ClearedAlert, Cost, Currency, FailureClass, Hold, Measure, Nanos, QuotaWindow,
    RouteCondition, ScopedHold, Timestamp, WHOLE, Watched,
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
    /// The budgets.
    pub budgets: &'a [BudgetStatus],
    /// The breaker.
    pub breaker: BreakerState,
    /// The holds in force, with what each stops.
    pub holds: &'a [ScopedHold],
    /// The way to GLM, while no call gets through.
    pub route: Option<&'a RouteCondition>,
    /// The windows of the account's quota, as the provider told of them last.
    pub quota: &'a [QuotaWindow],
    /// What is left of the account's money, where the provider tells it.
    pub balance: Option<BalanceLeft>,
}

/// What is left of an account's money, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceLeft {
    /// What is left.
    pub available: Cost,
    /// What a day costs at the pace of the last one.
    pub a_day: Nanos,
    /// At this balance it is low, however long it lasts.
    pub low: Option<Nanos>,
}

impl BalanceLeft {
    /// The share of it that a day costs; all of it where it is low.
    fn level(&self) -> Nanos {
        let left = self.available.nanos;
        if left <= self.low.unwrap_or(0) {
            return WHOLE;
        }
        let share = i128::from(self.a_day) * i128::from(WHOLE) / i128::from(left.max(1));
        Nanos::try_from(share).unwrap_or(Nanos::MAX)
    }

    fn told(&self) -> String {
        let left = self.available;
        let act = "top up the account before calls are refused";
        match self.a_day {
            0 => format!("{left} are left of the account's balance; {act}"),
            a_day => {
                let hours = i128::from(left.nanos.max(0)) * 24 / i128::from(a_day);
                format!(
                    "{left} are left of the account's balance, for about {hours} h at the pace of the last day; {act}"
                )
            }
        }
    }
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
    let cleared = now.recent.iter().filter(|past| {
        let alert = &past.alert;
        let known = |old: &ClearedAlert| {
            old.alert.key == alert.key && old.alert.raised_at == alert.raised_at
        };
        before.active(&alert.key).is_some() && !before.recent.iter().any(known)
    });
    let raised = now.active.iter();
    let raised = raised.filter(|alert| {
        let old = before.active(&alert.key);
        // Cleared and raised again it is another one.
        old.is_none_or(|old| {
            let is_past = |past: &ClearedAlert| {
                past.alert.key == old.key && past.alert.raised_at == old.raised_at
            };
            old.raised_at != alert.raised_at && now.recent.iter().any(is_past)
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

/// What a rule makes of one of the things that it watches.
struct Reading {
    on: Watched,
    /// `None`: too little is known.
    level: Option<Nanos>,
    raise: Nanos,
    clear: Nanos,
    for_ms: u64,
    unit: String,
    hold: Option<ScopedHold>,
    /// The way to GLM, where that is what is watched.
    route: Option<RouteCondition>,
    /// What is bad, where the figure alone would not say it.
    words: Option<String>,
}

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
        rules: &AlertRules,
        inputs: &Inputs<'_>,
        now: Timestamp,
    ) -> Vec<AlertChange> {
        let readings = readings(rules, inputs, &self.book, now);
        self.since.retain(|key, _| readings.contains_key(key));
        // A rule that was changed to watch something else says nothing of what it watched.
        let is_gone = |alert: &&Alert| {
            let reading = readings.get(&alert.key);
            reading.is_none_or(|reading| reading.on != alert.on)
        };
        let active = self.book.active.iter();
        let gone: Vec<AlertKey> = active
            .filter(is_gone)
            .map(|alert| alert.key.clone())
            .collect();
        let mut changes: Vec<AlertChange> = gone
            .iter()
            .filter_map(|key| self.book.clear(key, now))
            .map(AlertChange::Cleared)
            .collect();
        for (key, reading) in readings {
            changes.extend(self.judge(key, reading, now));
        }
        changes
    }

    fn judge(&mut self, key: AlertKey, reading: Reading, now: Timestamp) -> Option<AlertChange> {
        let active = self.book.active(&key).is_some();
        let level = reading.level.filter(|level| match active {
            true => *level <= reading.clear,
            false => *level >= reading.raise,
        });
        let Some(level) = level else {
            self.since.remove(&key);
            return None;
        };
        // A clock that was set back must not make an operator wait for ever.
        let since = self.since.entry(key.clone()).or_insert(now);
        *since = (*since).min(now);
        if now.since(*since) < reading.for_ms {
            return None;
        }
        self.since.remove(&key);
        if active {
            return self.book.clear(&key, now).map(AlertChange::Cleared);
        }
        let alert = Alert {
            message: reading.message(&key, level),
            key,
            on: reading.on,
            level,
            threshold: reading.raise,
            unit: reading.unit,
            hold: reading.hold,
            raised_at: now,
        };
        self.book.raise(alert.clone());
        Some(AlertChange::Raised(alert))
    }
}

impl Reading {
    /// What is bad, for people.
    fn message(&self, key: &AlertKey, level: Nanos) -> String {
        if let Some(words) = &self.words {
            return words.clone();
        }
        if self.on == Watched::Breaker {
            return "the breaker lets no call through".to_owned();
        }
        if self.on == Watched::ForeignAnswer {
            let answers = level / WHOLE;
            return format!(
                "{answers} answers belonged to other calls: something between here and GLM mixes them up; none was taken"
            );
        }
        if let Some(RouteCondition { since, reason, .. }) = &self.route {
            return format!("no call gets through to GLM since {since}: {reason}");
        }
        if let Some(ScopedHold { scope, hold }) = &self.hold {
            let Hold {
                kind,
                code,
                message,
                ..
            } = hold;
            return format!("{scope} is held ({}): {code} {message}", kind.name());
        }
        let what = match key.rule == self.on.name() {
            true => key.to_string(),
            false => format!("{key} ({})", self.on.name()),
        };
        let decimal = |nanos| {
            let currency = Currency::Cny;
            Cost { nanos, currency }.decimal()
        };
        let (level, raise, unit) = (decimal(level), decimal(self.raise), &self.unit);
        format!("{what} is {level} {unit}, {raise} or more is too much")
    }
}

/// The level of everything that is watched.
fn readings(
    rules: &AlertRules,
    inputs: &Inputs<'_>,
    book: &AlertBook,
    now: Timestamp,
) -> BTreeMap<AlertKey, Reading> {
    let mut readings = BTreeMap::new();
    for (name, on, rule) in rules.enabled() {
        let Some((raise, clear)) = rule.levels() else {
            continue;
        };
        let reading = |level| Reading {
            on,
            level,
            raise,
            clear,
            for_ms: rule.for_ms,
            unit: on.unit().to_owned(),
            hold: None,
            route: None,
            words: None,
        };
        let mut one = |level| readings.insert(AlertKey::of(name), reading(level));
        match on {
            Watched::ErrorRate => _ = one(error_rate(inputs.calls, rule, now)),
            Watched::ResponseTime => _ = one(response_time(inputs.calls, rule, now)),
            Watched::ForeignAnswer => _ = one(Some(foreign_answers(inputs.calls, rule, now))),
            Watched::QueueLength => _ = one(Some(count(inputs.ready))),
            Watched::QueueAge => {
                let age = inputs.oldest_due.map_or(0, |since| now.since(since));
                one(Some(count(age)));
            }
            Watched::Breaker => {
                let is_open = inputs.breaker != BreakerState::Closed;
                one(Some(count(u64::from(is_open))));
            }
            Watched::Unreachable => {
                let level = Some(count(u64::from(inputs.route.is_some())));
                let route = inputs.route.cloned();
                let reading = Reading {
                    route,
                    ..reading(level)
                };
                readings.insert(AlertKey::of(name), reading);
            }
            Watched::Quota => readings.extend(quota(inputs).map(|(window, share)| {
                let anew = window
                    .resets_at
                    .map(|at| format!("; it opens anew at {at}"));
                let percent = share / (WHOLE / 100);
                let words = format!(
                    "{percent} % of a window of the account's quota are used ({window}){}",
                    anew.unwrap_or_default()
                );
                let reading = Reading {
                    words: Some(words),
                    ..reading(Some(share))
                };
                (AlertKey::about(name, window.to_string()), reading)
            })),
            Watched::Balance => {
                if let Some(balance) = &inputs.balance {
                    let reading = Reading {
                        words: Some(balance.told()),
                        ..reading(Some(balance.level()))
                    };
                    readings.insert(AlertKey::of(name), reading);
                }
            }
            Watched::Spend => readings.extend(spending(rule, inputs).map(|(currency, spent)| {
                let unit = format!("{currency}/h");
                let key = AlertKey::about(name, currency.code());
                (
                    key,
                    Reading {
                        unit,
                        ..reading(Some(spent))
                    },
                )
            })),
            Watched::Budget => readings.extend(
                budgets(rule, inputs, raise)
                    .map(|(budget, used)| (AlertKey::about(name, budget), reading(Some(used)))),
            ),
            Watched::Hold => {
                readings.extend(over(name, rule, book).map(|key| (key, reading(Some(0)))));
                readings.extend(holds(rule, inputs).map(|hold| {
                    let key = AlertKey::about(name, subject(&hold));
                    let hold = Some(hold);
                    (
                        key,
                        Reading {
                            hold,
                            ..reading(Some(WHOLE))
                        },
                    )
                }));
            }
        }
    }
    readings
}

/// The windows that calls use, with the used share of each.
fn quota<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = (&'a QuotaWindow, Nanos)> {
    let windows = inputs.quota.iter().filter(|window| window.is_of_calls());
    windows.filter_map(|window| {
        let share = Nanos::try_from(window.used_e4?).ok()?;
        Some((window, share.saturating_mul(WHOLE / 10_000)))
    })
}

/// What was spent in the last hour, in each currency that a rule watches.
fn spending(rule: &AlertRule, inputs: &Inputs<'_>) -> impl Iterator<Item = (Currency, Nanos)> {
    let watched = [Currency::Cny, Currency::Usd, Currency::Points].into_iter();
    let watched = watched.filter(|currency| rule.currency.is_none_or(|own| own == *currency));
    let spent = |currency| inputs.spent_last_hour.get(&currency).copied();
    watched.map(move |currency| (currency, spent(currency).unwrap_or(0)))
}

/// The used share of each account of the budgets that a rule watches. What open calls have reserved is not
/// used: most of it comes back. An account that warns by its own measure counts as `raise` at least, one that
/// something did not fit into as used up.
fn budgets(
    rule: &AlertRule,
    inputs: &Inputs<'_>,
    raise: Nanos,
) -> impl Iterator<Item = (String, Nanos)> {
    let wanted = rule.budget.as_deref();
    let watched = inputs.budgets.iter();
    let watched =
        watched.filter(move |status| wanted.is_none_or(|name| *name == *status.account.budget));
    watched.map(move |status| {
        let account = &status.account;
        let names = [
            Some(&*account.budget),
            account.user.as_deref(),
            account.model.as_deref(),
        ];
        let names: Vec<&str> = names.into_iter().flatten().collect();
        let gone = u128::from(status.gone()) * u128::from(WHOLE.unsigned_abs());
        let share = gone / u128::from(status.limit.number().max(1));
        let told = match (status.short, status.warned) {
            (true, _) => WHOLE,
            (false, true) => raise,
            (false, false) => 0,
        };
        let share = Nanos::try_from(share).unwrap_or(Nanos::MAX);
        (names.join(" "), share.max(told))
    })
}

/// Whether a rule watches holds of this kind.
fn watches(rule: &AlertRule, hold: &Hold) -> bool {
    let kinds = rule.kinds.as_ref();
    kinds.is_some_and(|kinds| kinds.contains(&hold.kind))
}

/// The active alerts of a rule on holds. What was held and is so no longer is over only after a while, too.
fn over(name: &str, rule: &AlertRule, book: &AlertBook) -> impl Iterator<Item = AlertKey> {
    let active = book.active.iter();
    let active = active.filter(move |alert| {
        let hold = alert.hold.as_ref();
        alert.key.rule == name && hold.is_some_and(|held| watches(rule, &held.hold))
    });
    active.map(|alert| alert.key.clone())
}

/// The holds in force that a rule watches.
fn holds(rule: &AlertRule, inputs: &Inputs<'_>) -> impl Iterator<Item = ScopedHold> {
    let holds = inputs.holds.iter();
    holds.filter(|held| watches(rule, &held.hold)).cloned()
}

/// Which hold it is: a second one that stops something else is another alert.
fn subject(held: &ScopedHold) -> String {
    format!("{} of {}", held.hold.kind.name(), held.scope)
}

/// A number as a level; one that no level can hold is the highest.
fn count(number: u64) -> Nanos {
    let most = Nanos::MAX / WHOLE;
    Nanos::try_from(number).unwrap_or(most).min(most) * WHOLE
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
fn judged<'c>(calls: &[&'c CallRecord], rule: &AlertRule, now: Timestamp) -> Vec<&'c CallRecord> {
    let (from, reach) = (
        now.minus_ms(rule.window_ms.unwrap_or(0)),
        now.minus_ms(rule.reach_ms()),
    );
    let within = calls
        .iter()
        .take_while(|call| call.ended_at >= from)
        .count();
    let count = within.max(min_calls(rule));
    let latest = calls.iter().take(count);
    latest
        .take_while(|call| call.ended_at >= reach)
        .copied()
        .collect()
}

fn min_calls(rule: &AlertRule) -> usize {
    rule.min_calls.unwrap_or(1).max(1) as usize
}

/// How many calls of the window got what belonged to another one.
fn foreign_answers(calls: &[CallRecord], rule: &AlertRule, now: Timestamp) -> Nanos {
    let from = now.minus_ms(rule.window_ms.unwrap_or(0));
    let recent = calls.iter().take_while(|call| call.ended_at >= from);
    let class = |call: &CallRecord| call.failure.as_ref().map(|failure| failure.class);
    let foreign = recent.filter(|call| class(call) == Some(FailureClass::ForeignAnswer));
    count(foreign.count() as u64)
}

/// With nothing that failed in the window it is 0, however few calls there were: an outage that is over
/// must not stay one because hardly anybody calls.
fn error_rate(calls: &[CallRecord], rule: &AlertRule, now: Timestamp) -> Option<Nanos> {
    let calls: Vec<&CallRecord> = calls.iter().filter(|call| is_of_glm(call)).collect();
    let failed = |call: &&&CallRecord| call.outcome == CallOutcome::Failed;
    let from = now.minus_ms(rule.window_ms.unwrap_or(0));
    let mut recent = calls.iter().take_while(|call| call.ended_at >= from);
    if !recent.any(|call| failed(&call)) {
        return Some(0);
    }
    let judged = judged(&calls, rule, now);
    let failed = judged.iter().filter(failed).count() as u64;
    let enough = judged.len() >= min_calls(rule);
    // So many calls are few: a billion times their number fits.
    enough.then(|| count(failed) / judged.len().max(1) as Nanos)
}

/// With no answer as far as the rule reaches nothing is slow.
fn response_time(calls: &[CallRecord], rule: &AlertRule, now: Timestamp) -> Option<Nanos> {
    let answered = calls.iter();
    let answered: Vec<&CallRecord> = answered
        .filter(|call| call.outcome == CallOutcome::Completed)
        .collect();
    let mut times: Vec<u64> = judged(&answered, rule, now)
        .iter()
        .map(|call| call.response_time_ms)
        .collect();
    let enough = times.len() >= min_calls(rule);
    if times.is_empty() || !enough {
        return times.is_empty().then_some(0);
    }
    let calls = times.len();
    let time = match rule.measure {
        Some(Measure::Mean) => times.iter().sum::<u64>() / calls as u64,
        Some(Measure::P95) | None => {
            // The nearest rank: the smallest time that 95 of 100 calls don't exceed.
            let rank = (calls * 95).div_ceil(100).max(1);
            *times.select_nth_unstable(rank - 1).1
        }
    };
    Some(count(time))
}

#[cfg(test)]
mod tests;
