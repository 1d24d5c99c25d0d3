//! Budgets: what may still be spent. A call is made only if the worst that it may come to fits into
//! every budget that counts it; that much is reserved until its real cost is known.
//!
//! What was spent is never stored by itself: it is the sum of the usage rows of the period, and what
//! is reserved is on record with the open attempts and with the calls that were maybe billed. So
//! nothing can be lost or counted twice by a crash, and a budget may be changed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    Account, AttemptNo, Billing, Budget, Calendar, CallRecord, Cost, Day, JobId, Limit, Period,
    Reserve, Settings, Standing, Timestamp, UsageRow,
};

/// What budgets are reckoned from after a start or a change: all of it from one moment of the store.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The usage rows of the month.
    pub usage: Vec<UsageRow>,
    /// The calls that were maybe billed, where nobody has found out yet.
    pub doubt: Vec<CallRecord>,
}

/// A limit was reached, or the share of it at which it warns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetNews {
    /// How the account stands.
    pub standing: Standing,
    /// `true`: something did not fit; `false`: a warning.
    pub used_up: bool,
}

/// What an account holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counter {
    spent: u64,
    reserved: u64,
    warned: bool,
    used_up: bool,
}

/// A reservation, and whom it is for.
#[derive(Debug, Clone)]
struct Reserved {
    user: Arc<str>,
    model: Arc<str>,
    reserve: Reserve,
    /// The day that it counts for; `None`: it is open and counts for every day until it ends.
    day: Option<Day>,
}

/// The budgets in force and how they stand.
#[derive(Debug, Default)]
pub struct Budgets {
    budgets: BTreeMap<Arc<str>, Budget>,
    calendar: Calendar,
    today: Day,
    accounts: BTreeMap<Account, Counter>,
    /// What open attempts have reserved.
    open: BTreeMap<JobId, Reserved>,
    /// What calls that were maybe billed keep reserved.
    doubt: BTreeMap<(JobId, AttemptNo), Reserved>,
    news: Vec<BudgetNews>,
    freed: bool,
}

impl Budgets {
    /// Reckons how the budgets of `settings` stand. `open` are the reservations of open attempts, with
    /// user and model.
    #[must_use]
    pub fn load<'a>(
        settings: &Settings,
        ledger: &Ledger,
        open: impl IntoIterator<Item = (JobId, &'a str, &'a str, Reserve)>,
        now: Timestamp,
    ) -> Self {
        let mut budgets = Self {
            budgets: settings
                .budgets
                .iter()
                .map(|budget| (Arc::from(budget.name.as_str()), budget.clone()))
                .collect(),
            calendar: settings.calendar,
            today: settings.calendar.day(now),
            freed: true,
            ..Self::default()
        };
        if budgets.is_empty() {
            return budgets;
        }
        for row in &ledger.usage {
            for account in budgets.accounts_of(&row.key.user_id, &row.key.model) {
                if budgets.is_current(&account, row.key.day) {
                    let spent = budgets.amount(
                        &account,
                        |currency| row.cost.get(&currency).copied().unwrap_or(0),
                        tokens_of_row(row),
                    );
                    budgets.counter(&account).spent += spent;
                }
            }
        }
        for (id, user, model, reserve) in open {
            budgets.reserve(id, &user.into(), &model.into(), reserve);
        }
        for call in &ledger.doubt {
            budgets.keep(call);
        }
        // What was reached before has been told before.
        let names: Vec<Account> = budgets.accounts.keys().cloned().collect();
        for account in names {
            budgets.warn(&account);
        }
        budgets.news.clear();
        budgets
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// The first account that a call does not fit into.
    #[must_use]
    pub fn refuses(&self, user: &str, model: &str, reserve: Reserve) -> Option<Account> {
        self.accounts_of(user, model).into_iter().find(|account| {
            let more = self.of_reserve(account, reserve);
            let counter = self.accounts.get(account).copied().unwrap_or_default();
            let taken = counter.spent.saturating_add(counter.reserved);
            // A call that is not counted here is not stopped here, whatever else was spent.
            more > 0 && taken.saturating_add(more) > self.allowed(account)
        })
    }

    /// Something did not fit: tells it once a period.
    pub fn note_refusal(&mut self, account: &Account) {
        let counter = self.counter(account);
        if !std::mem::replace(&mut counter.used_up, true)
            && let Some(standing) = self.standing(account)
        {
            self.news.push(BudgetNews {
                standing,
                used_up: true,
            });
        }
    }

    /// Sets aside what a call may come to.
    pub fn reserve(&mut self, id: JobId, user: &Arc<str>, model: &Arc<str>, reserve: Reserve) {
        if self.is_empty() {
            return;
        }
        self.release(id);
        let reserved = Reserved {
            user: Arc::clone(user),
            model: Arc::clone(model),
            reserve,
            day: None,
        };
        self.count_reserved(&reserved, true);
        self.open.insert(id, reserved);
    }

    /// A call is not made after all.
    pub fn release(&mut self, id: JobId) {
        if let Some(reserved) = self.open.remove(&id) {
            self.count_reserved(&reserved, false);
            self.freed = true;
        }
    }

    /// A call has ended: what it really cost takes the place of what was set aside. What is not known
    /// stays reserved until somebody finds out.
    pub fn settle(&mut self, call: &CallRecord) {
        if self.is_empty() {
            return;
        }
        self.release(call.job_id);
        self.spend(
            call.day(),
            &call.user_id,
            &call.model,
            call.cost,
            call.usage.total_tokens,
        );
        self.keep(call);
    }

    /// Somebody found out what a call that was maybe billed cost.
    pub fn resolve(&mut self, id: JobId, attempt: AttemptNo, billing: &Billing) {
        let Some(reserved) = self.doubt.remove(&(id, attempt)) else {
            return;
        };
        self.count_reserved(&reserved, false);
        self.freed = true;
        if let (true, Some(day)) = (billing.billed, reserved.day) {
            let tokens = billing.usage.total_tokens;
            self.spend(day, &reserved.user, &reserved.model, billing.cost, tokens);
        }
    }

    /// Time has passed: a new day or month begins with nothing spent. Tells whether one did.
    pub fn roll(&mut self, now: Timestamp) -> bool {
        let today = self.calendar.day(now);
        if self.is_empty() || today == self.today {
            return false;
        }
        let before = std::mem::replace(&mut self.today, today);
        let over: Vec<Account> = self
            .accounts
            .keys()
            .filter(|account| {
                self.budgets.get(&account.budget).is_none_or(|budget| {
                    budget.period.first_day(before) != budget.period.first_day(today)
                })
            })
            .cloned()
            .collect();
        for account in over {
            self.accounts.remove(&account);
        }
        // What is still open counts for the new period as it did for the old one.
        for counter in self.accounts.values_mut() {
            counter.reserved = 0;
        }
        let all: Vec<Reserved> = self
            .open
            .values()
            .chain(self.doubt.values())
            .cloned()
            .collect();
        for reserved in all {
            self.count_reserved(&reserved, true);
        }
        self.freed = true;
        true
    }

    /// Whether room may have come since this was asked last.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// What is to be told since this was asked last.
    pub fn take_news(&mut self) -> Vec<BudgetNews> {
        std::mem::take(&mut self.news)
    }

    /// When the next period begins.
    #[must_use]
    pub fn next_roll(&self) -> Option<Timestamp> {
        (!self.is_empty()).then(|| Period::Day.end(&self.calendar, self.today))
    }

    /// How an account stands.
    #[must_use]
    pub fn standing(&self, account: &Account) -> Option<Standing> {
        let budget = self.budgets.get(&account.budget)?;
        let counter = self.accounts.get(account).copied().unwrap_or_default();
        Some(Standing {
            account: account.clone(),
            limit: budget.limit,
            period: budget.period,
            over: budget.over,
            spent: counter.spent,
            reserved: counter.reserved,
            until: budget.period.end(&self.calendar, self.today),
        })
    }

    /// How every account stands that something was spent from or reserved in, and every budget that is
    /// for all.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let untouched = self.budgets.keys().map(|name| Account {
            budget: Arc::clone(name),
            user: None,
            model: None,
        });
        let shared = untouched.filter(|account| {
            self.budgets.get(&account.budget).is_some_and(|budget| {
                budget.users.counted_as("") == Some(None)
                    && budget.models.counted_as("") == Some(None)
            })
        });
        let accounts: BTreeSet<Account> = self.accounts.keys().cloned().chain(shared).collect();
        accounts
            .iter()
            .filter_map(|account| self.standing(account))
            .collect()
    }

    fn accounts_of(&self, user: &str, model: &str) -> Vec<Account> {
        self.budgets
            .iter()
            .filter_map(|(name, budget)| {
                Some(Account {
                    budget: Arc::clone(name),
                    user: budget.users.counted_as(user)?.map(Arc::from),
                    model: budget.models.counted_as(model)?.map(Arc::from),
                })
            })
            .collect()
    }

    fn is_current(&self, account: &Account, day: Day) -> bool {
        self.budgets.get(&account.budget).is_some_and(|budget| {
            budget.period.first_day(day) == budget.period.first_day(self.today)
        })
    }

    fn counter(&mut self, account: &Account) -> &mut Counter {
        self.accounts.entry(account.clone()).or_default()
    }

    fn allowed(&self, account: &Account) -> u64 {
        let budget = self.budgets.get(&account.budget);
        budget.map_or(u64::MAX, |budget| budget.limit.amount())
    }

    /// What an account counts of a cost and tokens.
    fn amount(
        &self,
        account: &Account,
        nanos_in: impl FnOnce(crate::model::Currency) -> i64,
        tokens: u64,
    ) -> u64 {
        match self.budgets.get(&account.budget).map(|budget| budget.limit) {
            Some(Limit::Money(limit)) => u64::try_from(nanos_in(limit.currency)).unwrap_or(0),
            Some(Limit::Tokens(_)) => tokens,
            None => 0,
        }
    }

    fn of_reserve(&self, account: &Account, reserve: Reserve) -> u64 {
        self.amount(
            account,
            |currency| in_currency(reserve.cost, currency),
            reserve.tokens,
        )
    }

    fn spend(&mut self, day: Day, user: &str, model: &str, cost: Option<Cost>, tokens: u64) {
        for account in self.accounts_of(user, model) {
            let amount = self.amount(&account, |currency| in_currency(cost, currency), tokens);
            if amount > 0 && self.is_current(&account, day) {
                let counter = self.counter(&account);
                counter.spent = counter.spent.saturating_add(amount);
                self.warn(&account);
            }
        }
    }

    /// Keeps what a call has reserved that was maybe billed.
    fn keep(&mut self, call: &CallRecord) {
        let Some(reserve) = call.reserved.filter(|_| call.is_billing_open()) else {
            return;
        };
        let reserved = Reserved {
            user: call.user_id.as_str().into(),
            model: call.model.as_str().into(),
            reserve,
            day: Some(call.day()),
        };
        self.count_reserved(&reserved, true);
        self.doubt.insert((call.job_id, call.attempt), reserved);
    }

    fn count_reserved(&mut self, reserved: &Reserved, add: bool) {
        for account in self.accounts_of(&reserved.user, &reserved.model) {
            if reserved
                .day
                .is_some_and(|day| !self.is_current(&account, day))
            {
                continue;
            }
            let amount = self.of_reserve(&account, reserved.reserve);
            let counter = self.counter(&account);
            counter.reserved = if add {
                counter.reserved.saturating_add(amount)
            } else {
                counter.reserved.saturating_sub(amount)
            };
        }
    }

    fn warn(&mut self, account: &Account) {
        let Some(standing) = self.standing(account) else {
            return;
        };
        let percent = self
            .budgets
            .get(&account.budget)
            .map_or(0, |budget| budget.warn_percent);
        let reached = u128::from(standing.spent) * 100
            >= u128::from(standing.allowed()) * u128::from(percent);
        if percent > 0 && reached && !std::mem::replace(&mut self.counter(account).warned, true) {
            self.news.push(BudgetNews {
                standing,
                used_up: false,
            });
        }
    }
}

fn in_currency(cost: Option<Cost>, currency: crate::model::Currency) -> i64 {
    cost.filter(|cost| cost.currency == currency)
        .map_or(0, |cost| cost.nanos)
}

const fn tokens_of_row(row: &UsageRow) -> u64 {
    row.usage.total_tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Currency, OverBudget, Usage, Whose};
    use crate::testing::sample;

    const NOW: Timestamp = sample::START;

    fn tokens(name: &str, period: Period, users: Whose, models: Whose, limit: u64) -> Budget {
        Budget {
            name: name.to_owned(),
            period,
            users,
            models,
            limit: Limit::Tokens(limit),
            warn_percent: 80,
            over: OverBudget::Wait,
        }
    }

    fn settings(budgets: Vec<Budget>) -> Settings {
        Settings {
            budgets,
            ..Settings::default()
        }
    }

    fn load(budgets: Vec<Budget>) -> Budgets {
        Budgets::load(&settings(budgets), &Ledger::default(), [], NOW)
    }

    const fn of(tokens: u64) -> Reserve {
        Reserve { tokens, cost: None }
    }

    fn ended(n: u64, user: &str, model: &str, used: u64) -> CallRecord {
        let mut call = sample::settle(
            n,
            1,
            crate::policy::transition::Next::Failed {
                failure: sample::failure(),
            },
        )
        .call;
        call.user_id = user.to_owned();
        call.model = model.to_owned();
        call.ended_at = NOW;
        call.usage = Usage {
            total_tokens: used,
            ..Usage::default()
        };
        call.maybe_billed = false;
        call
    }

    fn reserve(budgets: &mut Budgets, n: u64, user: &str, tokens: u64) {
        budgets.reserve(sample::job_id(n), &user.into(), &"m".into(), of(tokens));
    }

    #[test]
    fn what_is_reserved_is_taken_until_it_is_settled_for_what_it_cost() {
        let mut b = load(vec![tokens(
            "all",
            Period::Day,
            Whose::All,
            Whose::All,
            100,
        )]);
        assert_eq!(b.refuses("u", "m", of(100)), None);
        assert!(b.refuses("u", "m", of(101)).is_some());
        reserve(&mut b, 1, "u", 60);
        assert!(b.refuses("u", "m", of(41)).is_some());
        b.settle(&ended(1, "u", "m", 10));
        assert_eq!(b.refuses("u", "m", of(90)), None);
        assert!(b.refuses("u", "m", of(91)).is_some());
        let standing = &b.standings()[0];
        assert_eq!((standing.spent, standing.reserved), (10, 0));
    }

    #[test]
    fn each_has_an_own_share_where_it_says_so() {
        let mut b = load(vec![
            tokens("each", Period::Day, Whose::Each, Whose::All, 10),
            tokens(
                "ada",
                Period::Month,
                Whose::One("ada".to_owned()),
                Whose::All,
                5,
            ),
            tokens(
                "big",
                Period::Day,
                Whose::All,
                Whose::One("big".to_owned()),
                3,
            ),
        ]);
        reserve(&mut b, 1, "bob", 10);
        assert!(b.refuses("bob", "m", of(1)).is_some());
        assert_eq!(b.refuses("eve", "m", of(10)), None);
        let refused = b.refuses("ada", "m", of(6)).unwrap();
        assert_eq!(&*refused.budget, "ada");
        let refused = b.refuses("eve", "big", of(4)).unwrap();
        assert_eq!(
            (&*refused.budget, refused.user, refused.model.as_deref()),
            ("big", None, Some("big"))
        );
    }

    #[test]
    fn a_call_that_was_maybe_billed_stays_reserved_until_somebody_finds_out() {
        let mut b = load(vec![tokens(
            "all",
            Period::Day,
            Whose::All,
            Whose::All,
            100,
        )]);
        reserve(&mut b, 1, "u", 60);
        let mut call = ended(1, "u", "m", 0);
        call.maybe_billed = true;
        call.reserved = Some(of(60));
        b.settle(&call);
        assert!(b.refuses("u", "m", of(41)).is_some());
        let settings = settings(vec![tokens(
            "all",
            Period::Day,
            Whose::All,
            Whose::All,
            100,
        )]);
        let ledger = Ledger {
            usage: Vec::new(),
            doubt: vec![call.clone()],
        };
        let again = Budgets::load(&settings, &ledger, [], NOW);
        assert_eq!(
            again.standings(),
            b.standings(),
            "a restart changes nothing"
        );
        let billing = Billing {
            billed: true,
            usage: Usage {
                total_tokens: 25,
                ..Usage::default()
            },
            cost: None,
            price: None,
            at: NOW,
        };
        b.resolve(call.job_id, call.attempt, &billing);
        let standing = &b.standings()[0];
        assert_eq!((standing.spent, standing.reserved), (25, 0));
    }

    #[test]
    fn a_new_day_begins_with_nothing_spent_and_a_month_goes_on() {
        let mut b = load(vec![
            tokens("day", Period::Day, Whose::All, Whose::All, 100),
            tokens("month", Period::Month, Whose::All, Whose::All, 100),
        ]);
        reserve(&mut b, 1, "u", 30);
        reserve(&mut b, 2, "u", 40);
        b.settle(&ended(1, "u", "m", 30));
        let tomorrow = b.next_roll().unwrap();
        assert!(!b.roll(tomorrow.minus_ms(1)));
        assert!(b.roll(tomorrow));
        let seen: Vec<_> = b
            .standings()
            .iter()
            .map(|s| (s.spent, s.reserved))
            .collect();
        assert_eq!(seen, [(0, 40), (30, 40)]);
    }

    #[test]
    fn a_warning_and_the_end_are_told_once_a_period() {
        let mut b = load(vec![tokens(
            "all",
            Period::Day,
            Whose::All,
            Whose::All,
            100,
        )]);
        b.settle(&ended(1, "u", "m", 79));
        assert_eq!(b.take_news(), []);
        b.settle(&ended(2, "u", "m", 1));
        b.settle(&ended(3, "u", "m", 1));
        let account = b.refuses("u", "m", of(50)).unwrap();
        b.note_refusal(&account);
        b.note_refusal(&account);
        let news: Vec<bool> = b.take_news().iter().map(|news| news.used_up).collect();
        assert_eq!(news, [false, true]);
    }

    #[test]
    fn money_of_another_currency_is_not_counted() {
        let yuan = |nanos| Cost {
            nanos,
            currency: Currency::Cny,
        };
        let mut budget = tokens("cny", Period::Day, Whose::All, Whose::All, 1);
        budget.limit = Limit::Money(yuan(100));
        let b = load(vec![budget]);
        let costing = |cost| Reserve {
            tokens: 1_000,
            cost,
        };
        assert!(b.refuses("u", "m", costing(Some(yuan(101)))).is_some());
        let dollars = Cost {
            nanos: 101,
            currency: Currency::Usd,
        };
        assert_eq!(b.refuses("u", "m", costing(Some(dollars))), None);
        assert_eq!(b.refuses("u", "m", costing(None)), None, "unpriced");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask(u8, u64),
        End(u8, u64, bool),
        FindOut(u8, bool, u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..3, 1_u64..60).prop_map(|(user, tokens)| Step::Ask(user, tokens)),
            (any::<u8>(), 0_u64..60, any::<bool>())
                .prop_map(|(n, used, lost)| Step::End(n, used, lost)),
            (any::<u8>(), any::<bool>(), 0_u64..60)
                .prop_map(|(n, billed, used)| Step::FindOut(n, billed, used)),
            Just(Step::Restart),
        ]
    }

    proptest! {
        /// Calls cost at most what was reserved for them: then no budget is ever exceeded, whatever is
        /// in doubt and however often the lane is started anew.
        #[test]
        fn nothing_is_spent_beyond_a_limit(steps in proptest::collection::vec(step(), 0..80)) {
            let settings = settings(vec![
                tokens("all", Period::Day, Whose::All, Whose::All, 200),
                tokens("each", Period::Month, Whose::Each, Whose::All, 90),
            ]);
            let mut b = Budgets::load(&settings, &Ledger::default(), [], NOW);
            let mut open: Vec<(u64, u8, u64)> = Vec::new();
            let mut log: Vec<CallRecord> = Vec::new();
            let mut n = 0;
            for step in steps {
                match step {
                    Step::Ask(user, tokens) => {
                        n += 1;
                        let name = user.to_string();
                        if b.refuses(&name, "m", of(tokens)).is_none() {
                            reserve(&mut b, n, &name, tokens);
                            open.push((n, user, tokens));
                        }
                    }
                    Step::End(pick, used, lost) if !open.is_empty() => {
                        let (n, user, reserved) = open.remove(usize::from(pick) % open.len());
                        let used = if lost { 0 } else { used.min(reserved) };
                        let mut call = ended(n, &user.to_string(), "m", used);
                        call.maybe_billed = lost;
                        call.reserved = lost.then_some(of(reserved));
                        b.settle(&call);
                        log.push(call);
                    }
                    Step::FindOut(pick, billed, used) => {
                        let doubt: Vec<usize> = (0..log.len()).filter(|i| log[*i].is_billing_open()).collect();
                        if doubt.is_empty() { continue; }
                        let call = &mut log[doubt[usize::from(pick) % doubt.len()]];
                        let used = used.min(call.reserved.unwrap().tokens);
                        let usage = Usage { total_tokens: used, ..Usage::default() };
                        let billing = Billing { billed, usage, cost: None, price: None, at: NOW };
                        b.resolve(call.job_id, call.attempt, &billing);
                        call.billing = Some(billing);
                    }
                    Step::Restart => {
                        let mut rows: BTreeMap<crate::model::UsageKey, UsageRow> = BTreeMap::new();
                        for call in &log {
                            let key = crate::model::UsageKey::of(call);
                            rows.entry(key.clone()).or_insert_with(|| UsageRow::empty(key)).add(call);
                        }
                        let ledger = Ledger {
                            usage: rows.into_values().collect(),
                            doubt: log.iter().filter(|call| call.is_billing_open()).cloned().collect(),
                        };
                        let names: Vec<(u64, String, u64)> =
                            open.iter().map(|(n, user, tokens)| (*n, user.to_string(), *tokens)).collect();
                        let reserved = names
                            .iter()
                            .map(|(n, user, tokens)| (sample::job_id(*n), user.as_str(), "m", of(*tokens)));
                        let again = Budgets::load(&settings, &ledger, reserved, NOW);
                        let known = |b: &Budgets| b.standings().into_iter()
                            .filter(|s| s.spent + s.reserved > 0).collect::<Vec<_>>();
                        prop_assert_eq!(known(&again), known(&b), "a restart changes nothing");
                        b = again;
                    }
                    Step::End(..) => {}
                }
                for standing in b.standings() {
                    prop_assert!(standing.spent + standing.reserved <= standing.allowed(), "{:?}", standing);
                }
            }
        }
    }
}
