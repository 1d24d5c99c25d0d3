use proptest::prelude::*;

use super::*;
use crate::model::{
    BudgetRules, BudgetScope, Currency, DoubtSettings, KeyId, Next, OverBudget, Usage, UsageKey,
};
use crate::testing::sample;

const NOW: Timestamp = sample::START;

fn tokens(
    name: &str,
    period: Period,
    users: BudgetScope,
    models: BudgetScope,
    limit: u64,
) -> Budget {
    Budget {
        key: None,
        name: name.to_owned(),
        users,
        models,
        limit: Amount::Tokens(limit),
        rules: BudgetRules {
            period,
            warn_percent: 80,
            over: OverBudget::Wait,
        },
    }
}

fn settings(budgets: Vec<Budget>) -> Settings {
    Settings {
        budgets,
        ..Settings::default()
    }
}

fn load(budgets: Vec<Budget>) -> Budgets {
    Budgets::load(&settings(budgets), &Ledger::default(), [], None, NOW)
}

const fn of(tokens: u64) -> Reserve {
    Reserve { tokens, cost: None }
}

fn ended(n: u64, user: &str, model: &str, used: u64) -> CallRecord {
    let failure = sample::failure();
    let mut call = sample::settle(n, 1, Next::Failed { failure }).call;
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

/// What an operator found out of a call in doubt.
fn found_out(billed: bool, total_tokens: u64) -> Billing {
    Billing {
        billed,
        usage: Usage {
            total_tokens,
            ..Usage::default()
        },
        cost: None,
        price: None,
        at: NOW,
    }
}

fn reserve(budgets: &mut Budgets, n: u64, user: &str, tokens: u64) {
    budgets.reserve(sample::job_id(n), &user.into(), &"m".into(), of(tokens));
}

fn fit(budgets: &Budgets, user: &str, model: &str, reserve: Reserve) -> Fit {
    budgets.fit(&user.into(), &model.into(), reserve, &[])
}

fn all(limit: u64) -> Budget {
    of_all("all", Period::Day, limit)
}

/// One account for everybody and every model.
fn of_all(name: &str, period: Period, limit: u64) -> Budget {
    tokens(name, period, BudgetScope::All, BudgetScope::All, limit)
}

/// What is on record of these calls.
fn ledger_of(calls: &[CallRecord]) -> Ledger {
    let mut rows: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
    for call in calls {
        let key = UsageKey::of(call);
        let row = rows.entry(key.clone());
        row.or_insert_with(|| UsageRow::empty(key)).add(call);
    }
    let doubt = calls.iter().filter(|call| call.is_billing_open());
    Ledger {
        usage: rows.into_values().collect(),
        doubt: doubt.cloned().collect(),
    }
}

fn used_up(budgets: &mut Budgets) -> Vec<bool> {
    let news = budgets.take_news();
    news.iter().map(|news| news.used_up).collect()
}

/// Starts on what is on record; a restart changes nothing.
fn starts_alike(budgets: &Budgets, call: &CallRecord) {
    let ledger = ledger_of(std::slice::from_ref(call));
    let again = Budgets::load(&settings(vec![all(100)]), &ledger, [], None, NOW);
    assert_eq!(again.statuses(10), budgets.statuses(10));
}

fn account(budget: &str, user: Option<&str>, model: Option<&str>) -> BudgetKey {
    BudgetKey {
        key: None,
        budget: budget.into(),
        user: user.map(Into::into),
        model: model.map(Into::into),
    }
}

#[test]
fn the_budget_of_a_client_key_counts_its_own_calls_alone_and_outlives_a_restart() {
    let key = KeyId::new(5);
    let budget = Budget {
        key: Some(key),
        ..all(100)
    };
    let own = Payer::of("u", Some(key));
    let fits =
        |b: &Budgets, payer: &Payer, tokens| b.fit(payer, &"m".into(), of(tokens), &[]) == Fit::Now;
    let mut b = load(vec![budget.clone()]);
    b.reserve(sample::job_id(1), &own, &"m".into(), of(60));
    assert!(!fits(&b, &own, 41) && fits(&b, &own, 40));
    assert!(fits(&b, &"u".into(), 1_000), "its user without the key");
    assert!(fits(&b, &Payer::of("u", Some(KeyId::new(6))), 1_000));
    let mut call = ended(1, "u", "m", 30);
    call.key_id = Some(key);
    b.settle(&call);
    assert!(!fits(&b, &own, 71) && fits(&b, &own, 70));
    let again = Budgets::load(&settings(vec![budget]), &ledger_of(&[call]), [], None, NOW);
    assert_eq!(again.statuses(10), b.statuses(10));
    assert_eq!(again.statuses(10).budgets[0].account.key, Some(key));
    let refusal = again.refuses(&own, "m", of(101)).unwrap().to_string();
    assert!(
        refusal.contains("budget all allows 100 tokens"),
        "{refusal}"
    );
}

#[test]
fn a_doubt_lapses_after_its_time_and_not_before() {
    let settings = Settings {
        in_doubt: DoubtSettings {
            doubt_lapses_ms: Some(60_000),
            ..DoubtSettings::default()
        },
        ..settings(vec![all(1_000)])
    };
    let mut call = ended(1, "ada", "m", 0);
    call.maybe_billed = true;
    call.reserved = Some(of(70));
    let ledger = ledger_of(&[call]);
    let mut budgets = Budgets::load(&settings, &ledger, [], None, NOW);
    let kept = |budgets: &Budgets| budgets.statuses(10).budgets[0].in_doubt.number();
    let before = kept(&budgets);
    assert!(before > 0);
    assert_eq!(budgets.next_roll(), Some(NOW.plus_ms(60_000)));
    budgets.roll(NOW.plus_ms(59_999));
    assert_eq!(kept(&budgets), before);
    budgets.roll(NOW.plus_ms(60_000));
    assert_eq!(kept(&budgets), 0);
    assert!(budgets.take_thawed(), "there is room again");
}

#[test]
fn a_doubt_lapses_no_later_for_a_clock_that_is_set_back() {
    let settings = Settings {
        in_doubt: DoubtSettings {
            doubt_lapses_ms: Some(60_000),
            ..DoubtSettings::default()
        },
        ..settings(vec![all(1_000)])
    };
    let mut call = ended(1, "ada", "m", 0);
    call.maybe_billed = true;
    call.reserved = Some(of(70));
    let noon = NOW.plus_ms(12 * 3_600_000);
    call.ended_at = noon;
    let ledger = ledger_of(&[call]);
    let kept = |budgets: &Budgets| budgets.statuses(10).budgets[0].in_doubt.number();
    let back = noon.minus_ms(3_600_000);
    let mut before = Budgets::load(&settings, &ledger, [], None, noon);
    before.roll(back);
    let after = Budgets::load(&settings, &ledger, [], None, back);
    for mut budgets in [before, after] {
        assert_eq!(budgets.next_roll(), Some(back.plus_ms(60_000)));
        budgets.roll(back.plus_ms(59_999));
        assert!(kept(&budgets) > 0);
        budgets.roll(back.plus_ms(60_000));
        assert_eq!(kept(&budgets), 0);
    }
}

#[test]
fn what_is_reserved_is_taken_until_it_is_settled_for_what_it_cost() {
    let mut b = load(vec![all(100)]);
    let shared = || account("all", None, None);
    assert_eq!(fit(&b, "u", "m", of(100)), Fit::Now);
    assert_eq!(fit(&b, "u", "m", of(101)), Fit::Never(shared()));
    reserve(&mut b, 1, "u", 60);
    assert_eq!(fit(&b, "u", "m", of(41)), Fit::Later(shared()));
    let given_back = b.fit(&"u".into(), &"m".into(), of(41), &[sample::job_id(1)]);
    assert_eq!(given_back, Fit::Now);
    b.settle(&ended(1, "u", "m", 10));
    assert_eq!(fit(&b, "u", "m", of(90)), Fit::Now);
    assert_eq!(fit(&b, "u", "m", of(91)), Fit::Never(shared()));
    let status = &b.statuses(10).budgets[0];
    assert_eq!((status.spent.number(), status.reserved.number()), (10, 0));
}

#[test]
fn each_has_an_own_share_where_it_says_so() {
    let one = |name: &str| BudgetScope::One(name.to_owned());
    let mut b = load(vec![
        tokens("each", Period::Day, BudgetScope::Each, BudgetScope::All, 10),
        tokens("ada", Period::Month, one("ada"), BudgetScope::All, 5),
        tokens("big", Period::Day, BudgetScope::All, one("big"), 3),
    ]);
    reserve(&mut b, 1, "bob", 10);
    let later = Fit::Later(account("each", Some("bob"), None));
    assert_eq!(fit(&b, "bob", "m", of(1)), later);
    assert_eq!(fit(&b, "eve", "m", of(10)), Fit::Now);
    let never = Fit::Never(account("ada", Some("ada"), None));
    assert_eq!(fit(&b, "ada", "m", of(6)), never);
    let never = Fit::Never(account("big", None, Some("big")));
    assert_eq!(fit(&b, "eve", "big", of(4)), never);
}

#[test]
fn a_call_that_was_maybe_billed_stays_reserved_until_somebody_finds_out() {
    let mut b = load(vec![all(100)]);
    reserve(&mut b, 1, "u", 60);
    let mut call = ended(1, "u", "m", 0);
    call.maybe_billed = true;
    call.reserved = Some(of(60));
    b.settle(&call);
    let never = Fit::Never(account("all", None, None));
    assert_eq!(fit(&b, "u", "m", of(41)), never);
    starts_alike(&b, &call);
    b.take_thawed();
    b.resolve(call.job_id, call.attempt, &found_out(true, 25));
    let status = &b.statuses(10).budgets[0];
    assert_eq!((status.spent.number(), status.in_doubt.number()), (25, 0));
    assert!(b.take_thawed(), "who waited for it may fit now");
}

#[test]
fn an_answer_without_its_tokens_is_taken_for_what_was_reserved() {
    let mut b = load(vec![all(100)]);
    reserve(&mut b, 1, "u", 60);
    let mut call = ended(1, "u", "m", 0);
    call.reserved = Some(of(60));
    b.settle(&call);
    assert_eq!(b.statuses(10).budgets[0].spent.number(), 60);
    starts_alike(&b, &call);
}

#[test]
fn a_new_day_begins_with_nothing_spent_and_a_month_goes_on() {
    let mut b = load(vec![
        of_all("day", Period::Day, 100),
        of_all("month", Period::Month, 100),
    ]);
    let seen = |b: &Budgets| -> Vec<(u64, u64)> {
        let statuses = b.statuses(10).budgets;
        statuses
            .iter()
            .map(|s| (s.spent.number(), s.reserved.number()))
            .collect()
    };
    reserve(&mut b, 1, "u", 30);
    reserve(&mut b, 2, "u", 40);
    b.settle(&ended(1, "u", "m", 30));
    b.take_thawed();
    let tomorrow = b.next_roll().unwrap();
    b.roll(tomorrow.minus_ms(1));
    assert_eq!(seen(&b), [(30, 40), (30, 40)]);
    assert!(!b.take_thawed());
    b.roll(tomorrow);
    assert_eq!(seen(&b), [(0, 40), (30, 40)]);
    assert!(b.take_thawed());
    // Its usage row is of the new day, too.
    let mut late = ended(2, "u", "m", 40);
    late.ended_at = tomorrow;
    b.settle(&late);
    assert_eq!(seen(&b), [(40, 0), (70, 0)]);
    assert!(!b.is_stale());
}

#[test]
fn a_clock_that_is_set_back_makes_the_ledger_be_read_again() {
    let mut b = load(vec![all(100)]);
    let tomorrow = b.next_roll().unwrap();
    b.roll(tomorrow);
    assert!(!b.is_stale());
    b.roll(NOW);
    assert!(b.is_stale());
}

#[test]
fn a_warning_and_the_end_are_told_once_a_period() {
    let mut b = load(vec![all(100)]);
    b.settle(&ended(1, "u", "m", 79));
    assert_eq!(b.take_news(), []);
    b.settle(&ended(2, "u", "m", 1));
    b.settle(&ended(3, "u", "m", 1));
    let Fit::Never(account) = fit(&b, "u", "m", of(50)) else {
        panic!("50 of 100 do not fit after 81")
    };
    b.note_refusal(&account);
    b.note_refusal(&account);
    assert_eq!(used_up(&mut b), [false, true]);
}

#[test]
fn what_was_told_is_told_again_only_of_a_budget_that_changed() {
    let used = ledger_of(&[ended(1, "u", "m", 85)]);
    let start = |limit, before| Budgets::load(&settings(vec![all(limit)]), &used, [], before, NOW);
    let mut b = start(100, None);
    assert_eq!(b.take_news(), [], "it was told before the restart");
    let b = start(1_000, None);
    assert_eq!(start(1_000, Some(&b)).take_news(), []);
    let mut lowered = start(100, Some(&b));
    assert_eq!(lowered.take_news().len(), 1);
    assert_eq!(start(100, Some(&lowered)).take_news(), []);
}

#[test]
fn a_budget_that_only_warns_stops_nothing_and_tells_its_end() {
    let mut budget = all(100);
    budget.rules.over = OverBudget::Warn;
    let mut b = load(vec![budget]);
    assert_eq!(fit(&b, "u", "m", of(1_000)), Fit::Now);
    assert_eq!(b.refuses(&"u".into(), "m", of(1_000)), None);
    b.settle(&ended(1, "u", "m", 99));
    b.settle(&ended(2, "u", "m", 99));
    b.settle(&ended(3, "u", "m", 99));
    assert_eq!(used_up(&mut b), [false, true]);
}

#[test]
fn at_the_door_is_refused_what_never_fits_and_what_a_budget_wants_refused() {
    let mut strict = of_all("strict", Period::Day, 100);
    strict.rules.over = OverBudget::Refuse;
    // By name the first: that one waits hides not that the other refuses.
    let mut b = load(vec![all(200), strict]);
    let told = |b: &Budgets, n| Some(b.refuses(&"u".into(), "m", of(n))?.to_string());
    assert_eq!(told(&b, 100), None);
    let large = told(&b, 101).unwrap();
    let why = "may come to 101 tokens, and budget strict allows 100 tokens a day";
    assert!(large.contains(why), "{large}");
    reserve(&mut b, 1, "u", 60);
    assert_eq!(told(&b, 100), None, "most of what is open comes back");
    b.settle(&ended(1, "u", "m", 60));
    let refused = told(&b, 41).unwrap();
    let why = "of budget strict 40 tokens are left until 2026-";
    assert!(refused.contains(why), "{refused}");
    assert_eq!(told(&b, 40), None);
}

#[test]
fn money_of_another_currency_is_not_counted() {
    let yuan = |nanos| Cost {
        nanos,
        currency: Currency::Cny,
    };
    let mut budget = of_all("cny", Period::Day, 1);
    budget.limit = Amount::Money(yuan(100));
    let b = load(vec![budget]);
    let costing = |cost| Reserve {
        tokens: 1_000,
        cost,
    };
    assert_ne!(fit(&b, "u", "m", costing(Some(yuan(101)))), Fit::Now);
    let dollars = Cost {
        nanos: 101,
        currency: Currency::Usd,
    };
    assert_eq!(fit(&b, "u", "m", costing(Some(dollars))), Fit::Now);
    assert_eq!(fit(&b, "u", "m", costing(None)), Fit::Now, "unpriced");
}

#[test]
fn sums_that_no_number_holds_stop_everything() {
    let calls = ["a", "b"].map(|user| ended(1, user, "m", u64::MAX));
    let ledger = ledger_of(&calls);
    let b = Budgets::load(&settings(vec![all(100)]), &ledger, [], None, NOW);
    assert_eq!(b.statuses(10).budgets[0].spent.number(), u64::MAX);
    assert_ne!(fit(&b, "u", "m", of(1)), Fit::Now);
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
            of_all("all", Period::Day, 200),
            tokens("each", Period::Month, BudgetScope::Each, BudgetScope::All, 90),
        ]);
        let mut b = Budgets::load(&settings, &Ledger::default(), [], None, NOW);
        let mut open: Vec<(u64, u8, u64)> = Vec::new();
        let mut log: Vec<CallRecord> = Vec::new();
        let mut n = 0;
        for step in steps {
            match step {
                Step::Ask(user, tokens) => {
                    n += 1;
                    let name = user.to_string();
                    if fit(&b, &name, "m", of(tokens)) == Fit::Now {
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
                    let billing = found_out(billed, used);
                    b.resolve(call.job_id, call.attempt, &billing);
                    call.billing = Some(billing);
                }
                Step::Restart => {
                    let ledger = ledger_of(&log);
                    let names: Vec<(u64, String, u64)> =
                        open.iter().map(|(n, user, tokens)| (*n, user.to_string(), *tokens)).collect();
                    let reserved = names
                        .iter()
                        .map(|(n, user, tokens)| (sample::job_id(*n), user.as_str().into(), "m", of(*tokens)));
                    let again = Budgets::load(&settings, &ledger, reserved, None, NOW);
                    let known = |b: &Budgets| b.statuses(1_000).budgets.into_iter()
                        .filter(|s| s.gone() + s.reserved.number() > 0)
                        // What was told before a doubt was resolved is not known any more.
                        .map(|s| BudgetStatus { warned: false, ..s }).collect::<Vec<_>>();
                    prop_assert_eq!(known(&again), known(&b), "a restart changes nothing");
                    b = again;
                }
                Step::End(..) => {}
            }
            for status in b.statuses(1_000).budgets {
                prop_assert!(status.gone() + status.reserved.number() <= status.limit.number(), "{:?}", status);
            }
        }
    }
}

#[test]
fn how_budgets_stand_costs_the_same_with_a_hundred_thousand_users() {
    const USERS: u64 = 100_000;
    let each = tokens(
        "each",
        Period::Day,
        BudgetScope::Each,
        BudgetScope::All,
        1_000,
    );
    let mut b = load(vec![all(u64::MAX), each]);
    for n in 0..USERS {
        let user = format!("user-{n}");
        b.settle(&ended(n, &user, "m", n % 900));
    }
    b.settle(&ended(USERS, "user-77", "m", 900));
    b.accounts.take_walked();
    let shares = b.shares();
    let of = |name: &str| {
        let mut named = shares.iter().filter(|(of, _)| of.as_deref() == Some(name));
        named.next().unwrap().1
    };
    assert_eq!(shares.len(), 2);
    assert_eq!(of("each"), 0.977);
    assert!(b.accounts.take_walked() <= 2, "a scrape");
    let told = b.statuses(100);
    assert!(b.accounts.take_walked() <= 100, "a page");
    assert_eq!(
        (told.budgets.len(), told.left_out),
        (100, USERS + 1 - 112 - 100)
    );
    let fullest = |status: &&BudgetStatus| status.spent.number() == 977;
    let fullest = told.budgets.iter().find(fullest).unwrap();
    assert_eq!(fullest.account.user.as_deref(), Some("user-77"));
    let nearest = |status: &BudgetStatus| status.account.user.is_none() || status.gone() >= 898;
    assert!(told.budgets.iter().all(nearest), "{told:#?}");
    // One into which something did not fit is told before all that are nearer to their limits.
    b.note_refusal(&BudgetKey {
        user: Some("user-1".into()),
        ..fullest.account.clone()
    });
    let told = b.statuses(10);
    assert!(
        told.budgets
            .iter()
            .any(|status| status.short && status.spent.number() == 1)
    );
    // Another day.
    b.roll(NOW.plus_ms(crate::model::limits::DAY_MS));
    assert_eq!(b.statuses(10).budgets.len(), 1);
    assert_eq!(b.shares().len(), 2);
    assert!(b.shares().iter().all(|(_, share)| *share == 0.0));
}
