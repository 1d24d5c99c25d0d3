//! What the provider itself counts of the account: asked now and then where `[account]` says so, and kept until it is
//! asked again. Nothing of it is stored: the provider keeps it, and is asked at every start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onelane_actors::ports::{AccountAsk, Clock, Glm, NotTold, StoreError, UsageFilter};
use onelane_core::model::{Balance, Calendar, Day, Endpoint, Metered, Quota, Settings, Timestamp};
use onelane_core::money::reconcile::{Books, Reconciliation};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use super::Orchestrator;
use crate::config::AccountSection;
use crate::error::Error;
use crate::statistics;

/// A day is counted to its end so long after it: meters lag behind calls.
const LAG_MS: u64 = 3_600_000;
/// What was told of a day that is not over counts for so long.
const FRESH_MS: u64 = 60_000;
/// Days that are kept.
const DAYS_KEPT: usize = 64;
/// Days of a question that does not say from when.
const DAYS_DEFAULT: i32 = 7;

/// What the provider told of the account last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountStatus {
    /// Whether the provider is asked at all: `account.enabled`.
    pub enabled: bool,
    /// The windows of the plan; `None`: there is no plan, or nobody told yet.
    pub quota: Option<Quota>,
    /// What is left of the money; `None`: it is not told of this account.
    pub balance: Option<Balance>,
    /// When the provider was asked last.
    pub asked_at: Option<Timestamp>,
    /// Why something is not told, or not anew.
    pub problems: Vec<String>,
}

/// Our books beside the provider's meter.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// The first day, in the provider's zone.
    pub start_date: String,
    /// The last day.
    pub end_date: String,
    /// When the provider's days begin.
    #[schemars(with = "String")]
    pub zone: Calendar,
    /// What both have, and where they differ.
    #[serde(flatten)]
    pub books: Reconciliation,
    /// Days that the provider did not tell of: they are in no row.
    pub days_not_told: Vec<String>,
    /// Why it did not.
    pub problem: Option<String>,
    /// Calls of those days and of the two around them that retention took out of the call log: what they used seems not
    /// to be ours.
    pub calls_not_in_log: u64,
}

/// What is known of the account, and whether it is asked for.
#[derive(Debug, Default)]
pub(super) struct Account {
    section: watch::Sender<AccountSection>,
    told: watch::Sender<AccountStatus>,
    metered: Mutex<Kept>,
}

/// What an account was told to have used, with the moment at which it was asked.
#[derive(Debug, Default)]
struct Kept {
    of: String,
    days: BTreeMap<Day, (Timestamp, Vec<Metered>)>,
}

impl Kept {
    fn of(&mut self, endpoint: &Endpoint) -> &mut BTreeMap<Day, (Timestamp, Vec<Metered>)> {
        let digest = endpoint.digest();
        if self.of != digest {
            self.days.clear();
            self.of = digest;
        }
        &mut self.days
    }
}

impl Account {
    pub(super) fn new(section: &AccountSection) -> Self {
        let account = Self::default();
        account.configure(section);
        account
    }

    /// Goes on as this section says.
    pub(super) fn configure(&self, section: &AccountSection) {
        self.section.send_if_modified(|old| {
            let is_new = old != section;
            old.clone_from(section);
            is_new
        });
        self.told.send_if_modified(|told| {
            let is_new = told.enabled != section.enabled;
            // What was told before it was switched off says nothing of now.
            if is_new {
                *told = AccountStatus {
                    enabled: section.enabled,
                    ..AccountStatus::default()
                };
            }
            is_new
        });
    }

    /// How the provider is asked; `None`: it is not.
    pub(super) fn ask(&self, endpoint: Endpoint) -> Option<AccountAsk> {
        let section = self.section.borrow();
        section.enabled.then(|| AccountAsk {
            endpoint,
            timeout_ms: section.timeout_ms,
        })
    }

    pub(super) fn told(&self) -> AccountStatus {
        self.told.borrow().clone()
    }

    /// Notes what was told of the quota between two looks.
    pub(super) fn note(&self, quota: &Quota, now: Timestamp) {
        self.told.send_modify(|told| {
            if told.enabled {
                told.quota = Some(quota.clone());
                told.asked_at = Some(now);
            }
        });
    }

    fn metered(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.metered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks, again and again. It holds nothing that keeps the lane alive.
pub(super) struct Asker {
    pub(super) glm: Arc<dyn Glm>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) account: Arc<Account>,
}

impl Asker {
    /// Asks at once and then as often as the section says, until the lane is gone.
    pub(super) async fn run(mut self, mut gone: watch::Receiver<bool>) {
        let mut section = self.account.section.subscribe();
        let mut of = String::new();
        let asking = async {
            loop {
                let every = Duration::from_millis(section.borrow_and_update().every_ms);
                let endpoint = self.settings.borrow_and_update().glm.endpoint();
                if of != endpoint.digest() {
                    of = endpoint.digest();
                    // Another account has another quota.
                    self.account.told.send_modify(|told| {
                        (told.quota, told.balance, told.asked_at) = (None, None, None);
                    });
                }
                match self.account.ask(endpoint) {
                    Some(ask) => self.look(ask).await,
                    None => {
                        if section.changed().await.is_err() {
                            return;
                        }
                        continue;
                    }
                }
                let until = tokio::time::sleep(every);
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        () = &mut until => break,
                        changed = section.changed() => match changed {
                            Ok(()) => break,
                            Err(_) => return,
                        },
                        changed = self.settings.changed() => match changed {
                            // Most settings have nothing to do with it.
                            Ok(()) if self.settings.borrow().glm.endpoint().digest() == of => {}
                            Ok(()) => break,
                            Err(_) => return,
                        },
                    }
                }
            }
        };
        tokio::select! {
            _ = gone.wait_for(|gone| *gone) => {}
            () = asking => {}
        }
    }

    async fn look(&self, ask: AccountAsk) {
        let (quota, balance) = tokio::join!(self.glm.quota(ask.clone()), self.glm.balance(ask));
        let before = self.account.told();
        let mut problems = Vec::new();
        let quota = kept("quota", quota, before.quota, &mut problems);
        let balance = kept("balance", balance, before.balance, &mut problems);
        // Once, and not at every look.
        if problems != before.problems {
            match problems.is_empty() {
                true => tracing::info!("the provider tells of the account again"),
                false => {
                    let error = problems.join("; ");
                    tracing::warn!(error, "the provider does not tell of the account");
                }
            }
        }
        let now = self.clock.now();
        self.account.told.send_modify(|told| {
            if told.enabled {
                *told = AccountStatus {
                    enabled: true,
                    quota,
                    balance,
                    asked_at: Some(now),
                    problems,
                };
            }
        });
    }
}

/// What is known now: where nothing new was told what was, with the reason.
fn kept<T>(
    what: &str,
    told: Result<T, NotTold>,
    before: Option<T>,
    problems: &mut Vec<String>,
) -> Option<T> {
    match told {
        Ok(told) => Some(told),
        Err(NotTold::NotOffered) => None,
        Err(NotTold::Failed(problem)) => {
            problems.push(format!("{what}: {problem}"));
            before
        }
    }
}

impl Orchestrator {
    /// What the provider told of the account last.
    #[must_use]
    pub fn account(&self) -> AccountStatus {
        self.inner.account.told()
    }

    /// The days that a reconciliation is of: without an end up to the latest that is over, without a start the week
    /// before it.
    #[must_use]
    pub fn days_to_reconcile(&self, start: Option<Day>, end: Option<Day>) -> [Day; 2] {
        let settled = self.inner.ports.clock.now().minus_ms(LAG_MS);
        let yesterday = Day(Calendar::beijing().day(settled).0.saturating_sub(1));
        let end = end.unwrap_or(yesterday);
        let first = Day(end.0.saturating_sub(DAYS_DEFAULT - 1));
        [start.unwrap_or(first), end]
    }

    /// Our books beside the provider's meter on these days of its own, the last one included.
    /// `AccountNotAsked` where the provider may not be asked.
    pub async fn reconcile(&self, days: [Day; 2]) -> Result<Reconciled, Error> {
        let (told, problem) = self.metered(days).await?;
        let [start, end] = days;
        let days_not_told = (start.0..=end.0).map(Day);
        let days_not_told = days_not_told.filter(|day| !told.contains_key(day));
        let days_not_told = days_not_told.map(|day| day.to_string()).collect();
        let read = self.read(move |store| {
            let mut books = Books::new(Calendar::beijing(), days);
            // Days of the statistics may begin elsewhere than those of the provider.
            let around = UsageFilter {
                start: Day(start.0.saturating_sub(1)),
                end: Day(end.0.saturating_add(1)),
                ..UsageFilter::default()
            };
            let missing = statistics::each_call::<StoreError>(store, &around, |call| {
                books.add(call);
                Ok(())
            })?;
            Ok((books.reconcile(&told), missing))
        });
        let (books, calls_not_in_log) = read.await?;
        Ok(Reconciled {
            start_date: start.to_string(),
            end_date: end.to_string(),
            zone: Calendar::beijing(),
            books,
            days_not_told,
            problem,
            calls_not_in_log,
        })
    }

    /// What the provider counted on each of these days, and why a day is missing. Days that are over are asked for once.
    async fn metered(
        &self,
        [start, end]: [Day; 2],
    ) -> Result<(BTreeMap<Day, Vec<Metered>>, Option<String>), Error> {
        let endpoint = self.settings().glm.endpoint();
        let account = &self.inner.account;
        let ask = account.ask(endpoint).ok_or(Error::AccountNotAsked)?;
        let mut told = BTreeMap::new();
        for day in (start.0..=end.0).map(Day) {
            let now = self.inner.ports.clock.now();
            let known = account.metered().of(&ask.endpoint).get(&day).cloned();
            let over = Calendar::beijing().start_of(Day(day.0.saturating_add(1)));
            let over = over.plus_ms(LAG_MS);
            let is_known = |at: Timestamp| at >= over || now.since(at) < FRESH_MS;
            if let Some((at, rows)) = known
                && is_known(at)
            {
                told.insert(day, rows);
                continue;
            }
            match self.inner.ports.glm.metered(ask.clone(), day).await {
                Ok(rows) => {
                    let mut kept = account.metered();
                    let days = kept.of(&ask.endpoint);
                    days.insert(day, (now, rows.clone()));
                    while days.len() > DAYS_KEPT {
                        days.pop_first();
                    }
                    told.insert(day, rows);
                }
                // The next day would not be told either, and every question takes its time.
                Err(why) => return Ok((told, Some(why.to_string()))),
            }
        }
        Ok((told, None))
    }
}
