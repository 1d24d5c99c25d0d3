//! The rules of `[alerts]` applied to a running lane: the inputs gathered, what changed stored and told.

use std::collections::BTreeMap;

use onelane_actors::ports::UsageFilter;
use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{
    AlertBook, AlertRules, Balance, CallRecord, Currency, Day, Event, Nanos, Timestamp, Transition,
    Watched, limits,
};
use onelane_core::notify::alert::{AlertChange, Alerts, BalanceLeft, Inputs, changes};

use super::Orchestrator;
use crate::error::Error;

/// What of the log of calls the first look at spending reads at most.
const SPEND_CALLS_MAX: usize = 20_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MINUTES: i64 = 60;

/// What the rules remember between two looks.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// `None` until the next look, which goes on from what the store has.
    alerts: Option<Alerts>,
    /// `None` until a rule about spending is on.
    spend: Option<Spend>,
}

/// What the last hour cost, minute by minute.
#[derive(Debug, Default, PartialEq, Eq)]
struct Spend {
    minutes: BTreeMap<i64, BTreeMap<Currency, Nanos>>,
    /// The totals of this process at the last look.
    totals: BTreeMap<Currency, Nanos>,
}

impl Spend {
    /// Begins with the calls of the last hour, and with what the process has spent by now.
    fn new(calls: &[CallRecord], totals: BTreeMap<Currency, Nanos>) -> Self {
        let mut spend = Self {
            totals,
            ..Self::default()
        };
        for call in calls {
            if let Some(cost) = call.cost {
                spend.add(call.ended_at, cost.currency, cost.nanos);
            }
        }
        spend
    }

    fn add(&mut self, at: Timestamp, currency: Currency, nanos: Nanos) {
        let minute = self.minutes.entry(at.as_millis().div_euclid(MINUTE_MS));
        let sum = minute.or_default().entry(currency).or_default();
        *sum = sum.saturating_add(nanos);
    }

    /// Adds what was spent since the last look, and answers the sums of the last hour.
    fn look(
        &mut self,
        totals: &BTreeMap<Currency, Nanos>,
        now: Timestamp,
    ) -> BTreeMap<Currency, Nanos> {
        for (currency, total) in totals {
            let before = self.totals.get(currency).copied().unwrap_or(0);
            // Totals that are lower than before were begun anew.
            let spent = match *total >= before {
                true => total - before,
                false => *total,
            };
            if spent > 0 {
                self.add(now, *currency, spent);
            }
        }
        self.totals.clone_from(totals);
        let this_minute = now.as_millis().div_euclid(MINUTE_MS);
        self.minutes
            .retain(|minute, _| *minute > this_minute - HOUR_MINUTES);
        let mut sums = BTreeMap::new();
        for (currency, nanos) in self.minutes.values().flatten() {
            let sum: &mut Nanos = sums.entry(*currency).or_default();
            *sum = sum.saturating_add(*nanos);
        }
        sums
    }
}

impl Orchestrator {
    /// Looks at the rules once. What changed is stored with its notices in one transaction, and told
    /// when it is on disk; if it can't be stored, the next look begins with what the store has.
    pub(super) async fn look_at_alerts(&self, watcher: &mut Watcher) -> Result<(), Error> {
        let rules = self.config().config.alerts.rules;
        let now = self.inner.ports.clock.now();
        let lane = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::Snapshot { reply }))
            .await?;
        let calls = self.calls_to_judge(&rules, now).await?;
        let spent_last_hour = self.spent_last_hour(&rules, watcher, now).await?;
        let budgets = match self.settings().budgets.is_empty() {
            true => Vec::new(),
            false => self.budgets().await?.budgets,
        };
        let account = self.account();
        let balance = match account.balance {
            Some(balance) => Some(self.balance_left(balance, now).await?),
            None => None,
        };
        let inputs = Inputs {
            calls: &calls,
            ready: lane.ready as u64,
            oldest_due: lane.oldest_ready,
            spent_last_hour: &spent_last_hour,
            budgets: &budgets,
            breaker: self.breaker().state,
            holds: &lane.holds,
            route: lane.unreachable.as_ref(),
            quota: &account.quota.map(|quota| quota.windows).unwrap_or_default(),
            balance,
        };
        let mut alerts = match watcher.alerts.take() {
            Some(alerts) => alerts,
            None => {
                let stored = self.read(|store| store.alerts()).await?;
                self.tell_of(&stored, now);
                Alerts::new(stored)
            }
        };
        if !alerts.step(&rules, &inputs, now).is_empty() {
            let change = Transition::Alerts {
                book: Box::new(alerts.book().clone()),
                source: self.inner.ports.ids.job_id(now).to_string(),
            };
            self.commit(vec![change]).await?;
            self.tell_of(alerts.book(), now);
        }
        watcher.alerts = Some(alerts);
        Ok(())
    }

    /// The latest calls, as far back as the rules that are on reach.
    async fn calls_to_judge(
        &self,
        rules: &AlertRules,
        now: Timestamp,
    ) -> Result<Vec<CallRecord>, Error> {
        let of_calls = rules.enabled().filter(|(_, on, _)| on.is_of_calls());
        let Some(reach_ms) = of_calls.map(|(.., rule)| rule.reach_ms()).max() else {
            return Ok(Vec::new());
        };
        let since = now.minus_ms(reach_ms);
        self.read(move |store| store.calls_since(since, limits::ALERT_CALLS_MAX))
            .await
    }

    /// How long a balance lasts: at the pace of today and yesterday.
    async fn balance_left(&self, balance: Balance, now: Timestamp) -> Result<BalanceLeft, Error> {
        let available = balance.available;
        let calendar = self.settings().calendar;
        let today = calendar.day(now);
        let yesterday = Day(today.0.saturating_sub(1));
        let days = UsageFilter {
            start: yesterday,
            end: today,
            ..UsageFilter::default()
        };
        let rows = self.read(move |store| store.usage(&days)).await?;
        let spent = rows
            .iter()
            .filter_map(|row| row.cost.get(&available.currency));
        let spent = spent.fold(0, |sum: Nanos, nanos| sum.saturating_add(*nanos));
        let elapsed_ms = now.since(calendar.start_of(yesterday)).max(1);
        let a_day = i128::from(spent) * i128::from(limits::DAY_MS) / i128::from(elapsed_ms);
        Ok(BalanceLeft {
            available,
            a_day: Nanos::try_from(a_day).unwrap_or(Nanos::MAX),
            low: self.config().config.account.balance_floor(),
        })
    }

    async fn spent_last_hour(
        &self,
        rules: &AlertRules,
        watcher: &mut Watcher,
        now: Timestamp,
    ) -> Result<BTreeMap<Currency, Nanos>, Error> {
        if rules.enabled().all(|(_, on, _)| on != Watched::Spend) {
            watcher.spend = None;
            return Ok(BTreeMap::new());
        }
        let totals = self.inner.totals.borrow().cost.clone();
        if watcher.spend.is_none() {
            let since = now.minus_ms((HOUR_MINUTES * MINUTE_MS).unsigned_abs());
            let calls = self.read(move |store| store.calls_since(since, SPEND_CALLS_MAX));
            watcher.spend = Some(Spend::new(&calls.await?, totals.clone()));
        }
        let spend = watcher.spend.get_or_insert_default();
        Ok(spend.look(&totals, now))
    }

    /// Tells what became of alerts, up to this book that is on disk.
    fn tell_of(&self, book: &AlertBook, now: Timestamp) {
        let before = self.inner.alerts.send_replace(book.clone());
        let changes = changes(&before, book);
        if !changes.is_empty() {
            self.inner.notifier.wake.notify_one();
        }
        for change in changes {
            self.tell(change, now);
        }
    }

    fn tell(&self, change: AlertChange, now: Timestamp) {
        let events = &self.inner.ports.events;
        match change {
            AlertChange::Raised(alert) => {
                tracing::warn!(
                    rule = alert.key.rule,
                    subject = alert.key.subject,
                    "alert: {}",
                    alert.message
                );
                events.send(now, || Event::AlertRaised { alert });
            }
            AlertChange::Cleared(past) => {
                let key = &past.alert.key;
                tracing::info!(
                    rule = key.rule,
                    subject = key.subject,
                    "alert cleared: {key}"
                );
                events.send(now, || Event::AlertCleared { past });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::CallOutcome;
    use onelane_core::testing::sample::{self, START};

    use super::*;

    #[test]
    fn spending_is_that_of_the_last_hour_to_the_last_nano() {
        let cny = |nanos| BTreeMap::from([(Currency::Cny, nanos)]);
        let call = sample::call(1, 1, CallOutcome::Completed);
        let log = [call.clone(), call];
        let mut spend = Spend::new(&log, cny(500));
        // What the process had spent before is in the log.
        let minutes = |n: u64| START.plus_ms(n * 60_000);
        assert_eq!(spend.look(&cny(500), minutes(1)), cny(2_002));
        assert_eq!(spend.look(&cny(507), minutes(30)), cny(2_009));
        assert_eq!(spend.look(&cny(507), minutes(59)), cny(2_009));
        assert_eq!(spend.look(&cny(507), minutes(60)), cny(7));
        // The cost actor began anew.
        assert_eq!(spend.look(&cny(3), minutes(61)), cny(10));
        assert_eq!(spend.look(&cny(3), minutes(90)), cny(3));
        assert_eq!(spend.look(&cny(3), minutes(200)), BTreeMap::new());
    }
}
