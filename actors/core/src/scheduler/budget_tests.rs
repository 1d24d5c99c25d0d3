//! Budgets in the lanes: who waits for room, who passes, and what is never spent; on the small world of the
//! lane's tests.

use super::*;
use crate::model::{
    Amount, Budget, BudgetRules, BudgetScope, OverBudget, Payer, Period, WorstCase,
};
use crate::money::budget::Fit;
use crate::money::worst;
use crate::scheduler::parked::Need;

fn budget(name: &str, users: BudgetScope, models: BudgetScope, tokens: u64) -> Budget {
    Budget {
        key: None,
        name: name.to_owned(),
        users,
        models,
        limit: Amount::Tokens(tokens),
        rules: BudgetRules {
            period: Period::Day,
            warn_percent: 0,
            over: OverBudget::Wait,
        },
    }
}

pub(super) fn each(tokens: u64) -> Budget {
    budget("each", BudgetScope::Each, BudgetScope::All, tokens)
}

fn all(tokens: u64) -> Budget {
    budget("all", BudgetScope::All, BudgetScope::All, tokens)
}

pub(super) fn with(slots: u16, budgets: Vec<Budget>) -> World {
    let mut settings = Settings {
        budgets,
        ..Settings::default()
    };
    settings.lane.quarantine_after = 1_000;
    settings.lane.rules.max_concurrency = slots;
    let mut world = World::with(settings);
    world.load_budgets();
    world
}

fn budgeted(tokens: u64) -> World {
    with(2, vec![each(tokens)])
}

impl World {
    fn load_budgets(&mut self) {
        let settings = Arc::clone(&self.settings);
        self.lane
            .load_budgets(&self.disk.ledger(), &settings, self.now);
    }

    fn set_budgets(&mut self, budgets: Vec<Budget>) {
        Arc::make_mut(&mut self.settings).budgets = budgets;
        self.load_budgets();
        self.configure(|_| ());
    }

    fn end_with(&mut self, id: JobId, tokens: u64) {
        self.end_of(id, &used(tokens));
    }

    fn give_up(&mut self, id: JobId) {
        self.cancel(id);
        self.ack_all();
    }

    /// Nobody waits whom no budget stops, although a slot is free.
    fn assert_nobody_waits_in_vain(&self) {
        if self.lane.idle_slot().is_none() {
            return;
        }
        for (_, need) in self.lane.gate.parked().needs() {
            if let Need::Calls(account) = need {
                let status = self.lane.gate.budgets().status(account).unwrap();
                assert!(status.reserved.number() > 0, "no call is open: {status:?}");
            }
        }
        for job in self.disk.jobs.values() {
            let is_due = job.due().is_none_or(|due| due.at(self.now) <= self.now);
            if job.status != JobStatus::Pending || job.open.is_some() || !is_due {
                continue;
            }
            let payer = Payer::of(&job.user_id, job.key_id);
            let model = job.model.as_str().into();
            let reserve = worst::reserve(job.worst, &self.settings, [&*job.model]);
            let fit = self.lane.gate.budgets().fit(&payer, &model, reserve, &[]);
            let (parked, shut) = (self.lane.gate.parked(), self.lane.gate.shut());
            let accounts = self.lane.gate.budgets().accounts_of(&payer, &model);
            let waits_behind = parked.len() > 0
                && accounts.iter().any(|account| {
                    parked.is_behind(&job.entry(), account)
                        || shut.iter().any(|(shut, _)| shut == account)
                });
            assert!(
                fit != Fit::Now || waits_behind || !shut.is_empty(),
                "{job:?}"
            );
        }
    }
}

/// A job of `user` that may come to so many tokens.
fn ask_for(world: &mut World, user: &str, tokens: u32) -> JobId {
    ask_urgently(world, user, tokens, 0)
}

fn ask_urgently(world: &mut World, user: &str, tokens: u32, priority: i32) -> JobId {
    world.submit_as(|job| {
        job.user_id = user.to_owned();
        job.priority = priority;
        job.worst = worst_case(tokens);
    })
}

pub(super) fn worst_case(prompt: u32) -> WorstCase {
    let completion = 0;
    WorstCase { prompt, completion }
}

fn used(tokens: u64) -> GlmOutcome {
    let GlmOutcome::Answered(mut answer) = answered() else {
        unreachable!("an answer")
    };
    answer.usage.total_tokens = tokens;
    GlmOutcome::Answered(answer)
}

#[test]
fn who_is_over_budget_waits_and_the_others_go_on() {
    let mut world = budgeted(100);
    let first = ask_for(&mut world, "ada", 80);
    let second = ask_for(&mut world, "ada", 30);
    let third = ask_for(&mut world, "bob", 100);
    world.ack_all();
    world.runs([first, third], "80 of 100 are reserved");
    assert_eq!(world.lane.snapshot().over_budget, 1);
    world.end_with(first, 10);
    world.runs([second, third], "what was not used is free again");
    world.end_with(second, 30);
    let fourth = ask_for(&mut world, "ada", 61);
    world.ack_all();
    assert!(!world.running().contains(&fourth), "40 are spent");
    let news = world.lane.take_budget_news();
    assert_eq!(news.len(), 1, "told once: {news:?}");
    let next = world.lane.next_change().unwrap();
    world.pass(next.since(world.now));
    assert!(world.running().contains(&fourth), "a new day");
    world.finish();
}

#[test]
fn a_long_line_over_budget_is_passed_over_and_its_deadlines_count() {
    let mut world = budgeted(100);
    let deadline = world.now.plus_ms(60_000);
    for _ in 0..3_000 {
        ask_for(&mut world, "flood", 101);
    }
    let late = world.submit_as(|job| {
        job.user_id = "flood".to_owned();
        job.worst.prompt = 101;
        job.deadline = Some(deadline);
    });
    let other = ask_for(&mut world, "bob", 1);
    for _ in 0..10 {
        world.pass(1);
    }
    assert_eq!(world.running(), [other]);
    assert_eq!(world.lane.snapshot().over_budget, 3_001);
    world.pass(60_000);
    let failure = world.disk.jobs[&late].error.as_ref().unwrap();
    assert!(failure.message.contains("budget each"), "{failure}");
}

#[test]
fn a_budget_that_is_raised_or_taken_away_frees_those_who_wait() {
    let mut world = budgeted(10);
    let job = ask_for(&mut world, "ada", 50);
    world.ack_all();
    assert!(world.running().is_empty());
    world.set_budgets(Vec::new());
    assert_eq!(world.running(), [job]);
    world.finish();
}

#[test]
fn a_job_that_was_staged_within_budget_gives_its_room_back_when_it_is_cancelled() {
    let mut world = with(1, vec![each(100)]);
    let running = ask_for(&mut world, "bob", 1);
    let staged = ask_for(&mut world, "ada", 100);
    world.ack_all();
    assert_eq!(world.lane.snapshot().staged, 1);
    let next = ask_for(&mut world, "ada", 100);
    world.ack_all();
    world.cancel(staged);
    world.ack_all();
    world.end_with(running, 1);
    assert_eq!(world.running(), [next]);
    world.finish();
}

#[test]
fn who_has_no_room_costs_nothing_while_a_call_is_open() {
    for budgets in [vec![each(100)], vec![all(100)]] {
        let mut world = with(1, budgets);
        let short = ask_for(&mut world, "ada", 1);
        let long = ask_for(&mut world, "ada", 60);
        world.ack_all();
        world.end_with(short, 1);
        assert_eq!(world.running(), [long]);
        ask_for(&mut world, "ada", 30);
        ask_urgently(&mut world, "ada", 90, 5);
        ask_for(&mut world, "ada", 20);
        for _ in 0..100 {
            world.advance(10);
            assert!(world.in_work.len() <= 1);
            if world.in_work.is_empty() {
                break;
            }
            world.ack();
        }
        for _ in 0..100 {
            world.advance(10);
            assert!(world.in_work.is_empty(), "{:?}", world.in_work);
        }
        world.end_with(long, 1);
        world.pass(1);
        assert_eq!(world.running().len(), 1);
    }
}

#[test]
fn those_that_do_not_fit_hide_nobody_who_does() {
    let mut world = with(1, vec![each(1_000)]);
    let open = ask_for(&mut world, "ada", 600);
    world.ack_all();
    let large: Vec<JobId> = (0..40).map(|_| ask_for(&mut world, "ada", 999)).collect();
    let fits = ask_for(&mut world, "ada", 464);
    world.ack_all();
    for id in &large[..20] {
        world.give_up(*id);
    }
    world.end_with(open, 11);
    world.runs([fits], "989 are left, and the others need 999");
}

#[test]
fn who_was_called_and_cannot_run_keeps_nobody_waiting() {
    let mut world = with(2, vec![each(100)]);
    let other = ask_for(&mut world, "bob", 10);
    let open = ask_for(&mut world, "ada", 90);
    world.ack_all();
    let first = ask_for(&mut world, "ada", 80);
    let second = ask_for(&mut world, "ada", 80);
    world.ack_all();
    // Its slot is taken in the same step by somebody more urgent.
    let urgent = ask_urgently(&mut world, "eve", 10, 9);
    world.ack_all();
    world.end_with(open, 1);
    assert_eq!(world.running(), [other, urgent]);
    world.give_up(first);
    world.end_with(urgent, 1);
    assert_eq!(world.running(), [other, second]);
    world.finish();
}

#[test]
fn who_waits_for_open_calls_keeps_its_turn() {
    let mut world = with(2, vec![all(1_000)]);
    let open = ask_for(&mut world, "ada", 600);
    let first = ask_for(&mut world, "ada", 500);
    let small = ask_for(&mut world, "bob", 100);
    world.ack_all();
    world.runs([open], "nobody takes the room before the first");
    world.end_with(open, 10);
    assert_eq!(world.running(), [first, small]);
    world.finish();
}

#[test]
fn a_staged_job_that_reserves_something_else_by_now_waits_until_its_start_says_so() {
    let running = |change: fn(&mut Settings)| {
        let mut world = with(1, vec![each(1_000_000)]);
        let prompt = worst::of(&Request::prompt("hi").unwrap());
        let [first, second] = [(), ()].map(|()| world.submit_as(|job| job.worst = prompt));
        world.ack_all();
        world.configure(change);
        world.end(world.slot_of(first), &used(5));
        let at_once = world.running();
        world.ack_all();
        world.runs([second], "its start is on disk");
        at_once == [second]
    };
    assert!(running(|_| ()), "its reserve is on record");
    assert!(!running(|settings| settings.glm.max_tokens = Some(10)));
}

#[test]
fn an_urgent_job_takes_the_room_of_a_staged_one() {
    let mut world = with(2, vec![all(720)]);
    let one = ask_for(&mut world, "ada", 300);
    let two = ask_for(&mut world, "ada", 200);
    let staged = ask_for(&mut world, "ada", 150);
    world.ack_all();
    assert_eq!(world.lane.snapshot().staged, 1);
    let urgent = ask_urgently(&mut world, "bob", 200, 100);
    world.ack_all();
    assert_eq!(world.lane.snapshot().staged, 1);
    world.end_with(one, 300);
    assert_eq!(world.running(), [urgent, two]);
    // 70 are left of 720.
    assert!(world.disk.jobs[&staged].open.is_none());
    world.end_with(two, 10);
    world.end_with(urgent, 10);
    assert_eq!(world.running(), [staged]);
    world.finish();
}

#[test]
fn a_change_of_one_budget_frees_everybody_whom_it_alone_stopped() {
    let mut world = with(1, vec![all(100), each(1_000)]);
    let spent = ask_for(&mut world, "x", 100);
    world.ack_all();
    world.end_with(spent, 100);
    for _ in 0..40 {
        ask_for(&mut world, "x", 950);
    }
    let other = ask_for(&mut world, "y", 10);
    world.ack_all();
    assert!(world.running().is_empty());
    world.set_budgets(vec![all(1_000_000), each(1_000)]);
    world.runs([other], "x is over its own");
}

#[test]
fn what_a_fallback_has_no_room_for_goes_to_its_own_model_in_time() {
    let model = BudgetScope::One("dear".to_owned());
    let dear = budget("dear", BudgetScope::All, model, 10);
    let mut world = with(1, vec![dear]);
    let chain = ("glm-5".to_owned(), vec!["dear".to_owned()]);
    world.configure(|settings| settings.glm.fallbacks.extend([chain]));
    let first = ask_for(&mut world, "ada", 50);
    world.ack_all();
    world.call_ends(&failed(FailureClass::Overload));
    world.pass(5_000);
    world.runs([], "the fallback's budget is too small");
    assert!(world.release(&HoldScope::Model("glm-5".to_owned())));
    assert_eq!(world.running(), [first]);
}

#[test]
fn a_new_priority_counts_among_those_who_wait_for_room() {
    let mut world = with(1, vec![each(100)]);
    let open = ask_for(&mut world, "ada", 90);
    ask_for(&mut world, "ada", 80);
    let last = ask_for(&mut world, "ada", 80);
    world.ack_all();
    world.step(|lane, now| lane.reprioritise(last, 9, now));
    world.end_with(open, 1);
    assert_eq!(world.running(), [last]);
    world.finish();
}

#[test]
fn a_longer_answer_than_was_configured_is_reserved_for_when_it_is_sent() {
    let mut world = with(1, vec![each(1_000)]);
    world.configure(|settings| settings.glm.max_tokens = Some(2_000));
    let job = world.submit_as(|job| {
        job.worst = WorstCase {
            prompt: 10,
            completion: WorstCase::CONFIGURED,
        };
    });
    world.ack_all();
    world.runs([], "2010 of 1000");
    world.configure(|settings| settings.glm.max_tokens = Some(900));
    assert_eq!(world.running(), [job]);
    world.finish();
}

#[test]
fn the_first_call_that_ends_in_a_new_day_is_spent_in_it() {
    let mut world = with(1, vec![all(100)]);
    let job = ask_for(&mut world, "ada", 80);
    world.ack_all();
    let tomorrow = world.lane.gate.budgets().next_roll().unwrap();
    world.now = tomorrow.plus_ms(1);
    world.end_with(job, 70);
    assert_eq!(world.lane.statuses(10).budgets[0].spent.number(), 70);
}

#[test]
fn a_clock_that_is_set_back_over_midnight_spends_no_day_twice() {
    let mut world = with(1, vec![all(100)]);
    let job = ask_for(&mut world, "ada", 80);
    world.ack_all();
    world.end_with(job, 80);
    let waits = ask_for(&mut world, "ada", 60);
    world.ack_all();
    let tomorrow = world.lane.gate.budgets().next_roll().unwrap();
    let before = world.now;
    world.lane.pause(None, world.now).clear();
    world.now = tomorrow;
    world.advance(1);
    world.now = before;
    world.step(|lane, now| lane.resume(now));
    world.runs([], "what was spent is not known yet");
    assert!(world.lane.needs_ledger());
    world.load_budgets();
    world.pass(1);
    world.runs([], "80 of 100 are spent");
    world.now = tomorrow;
    world.pass(1);
    assert_eq!(world.running(), [waits]);
}

#[test]
fn who_waits_for_calls_takes_the_room_of_the_less_urgent_when_they_end() {
    let mut world = with(1, vec![each(100)]);
    let open = ask_for(&mut world, "ada", 60);
    let staged = ask_for(&mut world, "ada", 30);
    world.ack_all();
    assert_eq!(world.lane.snapshot().staged, 1);
    let urgent = ask_urgently(&mut world, "ada", 80, 10);
    world.ack_all();
    world.end_with(open, 5);
    assert_eq!(world.running(), [urgent]);
    world.end_with(urgent, 5);
    assert_eq!(world.running(), [staged]);
    world.finish();
}

#[test]
fn a_new_period_is_for_the_most_urgent_first() {
    let mut world = with(1, vec![all(100)]);
    let job = ask_for(&mut world, "ada", 90);
    world.ack_all();
    world.end_with(job, 90);
    for _ in 0..2_500 {
        ask_for(&mut world, "flood", 90);
    }
    let urgent = ask_urgently(&mut world, "ada", 90, 9);
    for _ in 0..10 {
        world.pass(1);
    }
    assert_eq!(world.lane.snapshot().over_budget, 2_501);
    let tomorrow = world.lane.gate.budgets().next_roll().unwrap();
    world.now = tomorrow;
    world.pass(1);
    assert_eq!(world.running(), [urgent]);
}

#[test]
fn who_waits_for_room_keeps_nobody_more_urgent_waiting_on_another_lane() {
    let mut world = with(2, vec![all(100)]);
    let fast = ("fast".to_owned(), lane_for("glm-4.7"));
    world.configure(|settings| settings.lanes.extend([fast]));
    let open = ask_for(&mut world, "ada", 60);
    world.ack_all();
    ask_for(&mut world, "ada", 50);
    let fast = |world: &mut World, priority| {
        world.submit_as(|job| {
            job.model = "glm-4.7".to_owned();
            job.priority = priority;
            job.worst = worst_case(30);
        })
    };
    fast(&mut world, -1);
    world.ack_all();
    world.runs([open], "it is behind the one that waits");
    let urgent = fast(&mut world, 10);
    world.ack_all();
    assert_eq!(world.running(), [open, urgent]);
    world.finish();
}

#[test]
fn a_call_that_no_budget_counted_when_it_was_sent_is_reserved_for_when_it_ends_in_doubt() {
    let mut world = with(1, Vec::new());
    ask_for(&mut world, "ada", 80);
    world.ack_all();
    world.set_budgets(vec![all(100)]);
    assert_eq!(world.lane.statuses(10).budgets[0].reserved.number(), 80);
    world.crash();
    world.ack_all();
    let status = &world.lane.statuses(10).budgets[0];
    assert_eq!(
        (status.in_doubt.number(), status.reserved.number()),
        (80, 0)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, u32, i32),
    End(usize, u64),
    Fail(usize),
    Cancel(u64),
    Prioritise(u64, i32),
    Limit(u64),
    Advance(u64),
    Ack,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3, 1_u32..90, 0_i32..3).prop_map(|(u, n, p)| Step::Ask(u, n, p)),
        4 => (0_usize..4, 0_u64..90).prop_map(|(slot, n)| Step::End(slot, n)),
        1 => (0_usize..4).prop_map(Step::Fail),
        1 => (1_u64..40).prop_map(Step::Cancel),
        1 => (1_u64..40, 0_i32..5).prop_map(|(n, p)| Step::Prioritise(n, p)),
        1 => (50_u64..400).prop_map(Step::Limit),
        1 => prop_oneof![Just(1_000), Just(40_000_000)].prop_map(Step::Advance),
        6 => Just(Step::Ack),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// Whatever happens: what is gone and reserved stays within the limit (a lower limit aside), nobody waits
    /// with a free slot and room for it, no event makes the disk work without end, and when room comes all
    /// come to their end.
    #[test]
    fn nobody_waits_in_vain_and_nobody_spends_too_much(
        slots in 1_u16..4,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = with(slots, vec![all(200), each(100)]);
        let (mut limit, mut lowered) = (200, false);
        for step in steps {
            match step {
                Step::Ask(user, tokens, priority) => {
                    ask_urgently(&mut world, &user.to_string(), tokens, priority);
                }
                Step::End(pick, tokens) => {
                    if let Some(slot) = world.busy_slot(pick) {
                        let worst = world.callers[&slot].as_ref().unwrap().job.worst;
                        let tokens = tokens.clamp(1, u64::from(worst.prompt));
                        world.end(slot, &used(tokens));
                    }
                }
                Step::Fail(pick) => {
                    if let Some(slot) = world.busy_slot(pick) {
                        world.end(slot, &failed(FailureClass::ServerTransient));
                    }
                }
                Step::Cancel(n) => {
                    world.cancel(id(n));

                }
                Step::Prioritise(n, priority) => {
                    world.tell(|lane, now| lane.reprioritise(id(n), priority, now));
                }
                Step::Limit(tokens) => {
                    lowered |= tokens < limit;
                    limit = tokens;
                    while world.ack() {}
                    world.set_budgets(vec![all(tokens), each(100)]);
                }
                Step::Advance(ms) => world.advance(ms),
                Step::Ack => { world.ack(); }
                Step::Crash => world.crash(),
            }
            let mut acks = 0;
            while world.in_work.len() > 4 {
                world.ack();
                acks += 1;
                prop_assert!(acks < 200, "the disk works without end: {:?}", world.in_work);
            }
            for status in world.lane.statuses(1_000).budgets {
                let within = status.gone() + status.reserved.number() <= status.limit.number();
                prop_assert!(within || lowered, "{:?}", status);
            }
        }
        let mut acks = 0;
        while world.ack() {
            acks += 1;
            prop_assert!(acks < 1_000, "the disk works without end");
        }
        for _ in 0..50 {
            world.pass(2);
        }
        world.assert_nobody_waits_in_vain();
        world.set_budgets(Vec::new());
        world.finish();
    }
}
