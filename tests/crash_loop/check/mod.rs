//! The loop: a real process is killed at random moments while programs talk to it and the lane works on a simulator that
//! lives here. What the programs were told, what the simulator saw, and what the store and the API say in the end has to
//! agree.

mod accounts;
mod batches;
mod books;
mod clients;
mod doubts;
mod gateway;
mod keys;
mod ledger;
mod report;
mod world;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use onelane::model::{Timestamp, limits};
use onelane::simulator::{ErrorFault, Fault, Lengths, Rule, Simulator, SimulatorConfig, Span};
use onelane_actors::testing::Dice;
use serde_json::{Value, json};

use self::batches::Batch;
use self::books::Books;
use self::clients::{Submitter, read_answers};
use self::doubts::{Doubted, Doubts, STORE};
use self::gateway::Streams;
use self::ledger::Ledger;
use self::report::Calls;
pub(crate) use self::report::Report;
use self::world::{ELSEWHERE, EndOnPanic, TOKEN, World};
use crate::common::{Answer, Http, Place, Running, until};

/// Kills must not look like a job's fault, nor faults like a reason to wait or to give up.
const CONFIG: &str = "\
[retry]
max_retries = 100
base_delay_ms = 1
max_delay_ms = 20
[breaker]
consecutive_failures = 1000
failure_rate = 0.0
[policy]
conn = \"server_transient\"
[lane]
quarantine_after = 1000000
";

/// The tokens that `user-0` may spend a month until the processes have stopped dying: some dozen of the user's
/// calls, of which every kill leaves one or three in doubt.
const BUDGET: u64 = 12_000;
/// Behind fewer kills some things may be left untried.
pub(crate) const KILLS_OF_A_LOOP: u64 = 30;
/// What a start is taken to take at least, and at most: a machine that stood still is no measure.
const START_MIN: Duration = Duration::from_millis(100);
const START_MAX: Duration = Duration::from_secs(5);
const SUBMITTERS: u64 = 4;
const GATEWAY_CLIENTS: u64 = 4;
const UPLOADERS: u64 = 2;

/// What a loop does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    /// Draws the moments of the kills, and what the programs do.
    pub(crate) seed: u64,
    pub(crate) slots: u64,
    /// One of the models is called by tasks.
    pub(crate) tasks: bool,
    /// A user has a budget, which nothing may exceed.
    pub(crate) budget: bool,
    /// Beside those who submit and read jobs there are clients of the gateway, uploaders of batches, and an operator who
    /// makes and revokes client keys.
    pub(crate) everybody: bool,
}

impl Plan {
    pub(crate) const fn new(rounds: u32, seed: u64, slots: u64) -> Self {
        Self {
            rounds,
            seed,
            slots,
            tasks: false,
            budget: false,
            everybody: false,
        }
    }

    fn config(&self) -> String {
        let mut config = format!("{CONFIG}max_concurrency = {}\n[glm]\n", self.slots);
        if self.tasks {
            config += "async_models = [\"glm-4.6\"]\nasync_poll_ms = 100\n";
        }
        if self.budget {
            config += &format!(
                "max_tokens = 200\n[money.budgets.month]\nperiod = \"month\"\nuser = \"user-0\"\ntokens = {BUDGET}\n"
            );
        }
        config
    }
}

/// A seed that nobody chose.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one("crash loop")
}

/// The first promise that is broken ends all programs: it alone is told.
fn quiet_about_those_who_follow() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some(ELSEWHERE) {
                tell(panic);
            }
        }));
    });
}

/// Goes through the rounds, and fails at the first promise that is broken. `told` hears of each kill.
pub(crate) fn crash_loop(plan: &Plan, told: &mut dyn FnMut(u32)) -> Report {
    quiet_about_those_who_follow();
    let seed = plan.seed;
    let simulator = simulator(plan);
    let kept = KeptOnPanic(Some(Place::new()));
    let place = kept.0.as_ref().expect("it is there until the end");
    place.write("onelane.toml", plan.config());
    let world = &World::default();
    let mut lives = Lives {
        plan,
        place,
        simulator: &simulator,
        world,
        http: Http::new(),
        dice: Dice::new(seed, "kills"),
        report: Report::default(),
        month: accounts::month_under_way(),
    };
    thread::scope(|scope| {
        // Whatever fails in here, the threads have to end, or the scope waits for them for ever.
        let _ends = EndOnPanic(world);
        let (gateway, uploaders, operators) = match plan.everybody {
            true => (GATEWAY_CLIENTS, UPLOADERS, 1),
            false => (0, 0, 0),
        };
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|n| scope.spawn(move || Submitter::new(n, seed, world).run()))
            .collect();
        let reader = scope.spawn(move || read_answers(world, seed));
        let gateway: Vec<_> = (0..gateway)
            .map(|n| scope.spawn(move || gateway::run(n, seed, world)))
            .collect();
        let uploaders: Vec<_> = (0..uploaders)
            .map(|n| scope.spawn(move || batches::run(n, seed, world)))
            .collect();
        let operators: Vec<_> = (0..operators)
            .map(|_| scope.spawn(move || keys::run(seed, world)))
            .collect();

        let mut doubts = Doubts::default();
        for round in 1..=plan.rounds {
            lives.live_and_die();
            doubts.look(place);
            assert!(!world.is_broken(), "a promise was broken in round {round}");
            told(round);
        }
        if plan.budget {
            lives.let_the_budget_run_out();
        }
        let last = Running::start(&mut serve(place, &simulator));
        let api = Api::of(&last);
        if plan.budget {
            api.raise_the_budget();
        }
        world.is_at(Some(last.url()));
        world.end();
        let mut ledger = Ledger::default();
        for submitter in submitters {
            let jobs = submitter.join();
            let jobs = jobs.expect("a submitter found its promise broken");
            ledger.submitted.extend(jobs);
        }
        let own = ledger.submitted.len();
        ledger.seen = reader.join().expect("the reader found its promise broken");
        let mut poor = None;
        for operator in operators {
            let known = operator.join();
            let known = known.expect("the operator found a promise broken");
            poor = Some(known.poor.clone());
            ledger.take_keys(known);
        }
        for client in gateway {
            let known = client.join();
            ledger.take_gateway(known.expect("a client found its promise broken"));
        }
        for uploader in uploaders {
            let known = uploader.join();
            ledger.take_batches(known.expect("an uploader found its promise broken"));
        }
        if let Some(poor) = &poor {
            api.give_up_what_never_fits(poor);
        }
        until("every job ends", || api.has_nothing_left());
        let by_day = api.text("statistics");
        let by_key = api.text("statistics?groupBy=key");
        let keys = api.json("keys");
        let budgets = api.json("budgets");
        last.signal("TERM");
        last.end().with(0);

        let books = Books::of(place.store(STORE));
        lives.report.peak = lives.peak();
        books::every_job_is_there_once_and_no_other(&books, &ledger);
        let own = &ledger.submitted[..own];
        let after = books::no_job_ran_before_its_turn(&books, own, &simulator);
        let calls = books::every_call_is_accounted_for(&books, &simulator);
        let doubts = doubts.are_all_there_are(&books.left);
        accounts::statistics_equal_the_call_log(&books, &by_day, &by_key);
        accounts::the_meter_of_glm_agrees(&books, &simulator);
        keys::every_key_is_as_it_was_left(&keys, &ledger.keys, &ledger.unheard_keys);
        if let Some(poor) = &poor {
            keys::the_budget_of_a_key_was_kept(&books, &budgets, poor, lives.month);
        }
        batches::every_line_is_there_once(&books, &ledger.batches, &ledger.unheard_files);
        let streams = gateway::what_was_told_is_stored_or_in_doubt(&books, &ledger.asked);
        lives.into_report(&ledger, after, calls, doubts, streams)
    })
}

/// What is left where a promise is broken is kept.
struct KeptOnPanic(Option<Place>);

impl Drop for KeptOnPanic {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(place) = self.0.take()
        {
            println!("kept for you to look at: {}", place.keep().display());
        }
    }
}

/// The lives of the process, one after the other.
struct Lives<'a> {
    plan: &'a Plan,
    place: &'a Place,
    simulator: &'a Simulator,
    world: &'a World,
    http: Http,
    dice: Dice,
    report: Report,
    /// The month in which the first began: a budget that was used up has room again in the next one.
    month: Timestamp,
}

impl Lives<'_> {
    /// One life of the process, from its start to its sudden death: mostly while it works, sometimes while
    /// it starts.
    fn live_and_die(&mut self) {
        let began = Instant::now();
        let process = Running::start(&mut serve(self.place, self.simulator));
        if self.dice.below(5) > 0 {
            let url = process.url();
            self.world.is_at(Some(url.clone()));
            let is_ready = || {
                let ready = self.http.get(&format!("{url}/readyz"));
                ready.is_ok_and(|answer| answer.status == 200)
            };
            until("it takes work", is_ready);
            if self.report.kills > 0 {
                self.report.ready.push(began.elapsed());
            }
            let longest_ms = match self.plan.everybody {
                // What GLM cuts is booked, and its reader told, only after this grace: short lives end before.
                true if self.dice.below(5) == 0 => 700 + 8 * limits::CLOSE_GRACE_MS,
                true => 700,
                false => 350,
            };
            let lives_us = self.dice.below(longest_ms * 1_000);
            thread::sleep(Duration::from_micros(lives_us));
        } else {
            // As long as a start took, or a little longer.
            let took = self.report.ready.last().copied().unwrap_or_default();
            let most = took.clamp(START_MIN, START_MAX).as_micros() as u64 * 6 / 5;
            thread::sleep(Duration::from_micros(self.dice.below(most)));
            self.report.kills_at_start += 1;
        }
        process.kill();
        self.report.kills += 1;
        self.world.is_at(None);
    }

    /// Lets a process that nobody kills work until nothing more fits, and looks at the books.
    fn let_the_budget_run_out(&mut self) {
        let process = Running::start(&mut serve(self.place, self.simulator));
        let api = Api::of(&process);
        until("nothing more fits", || {
            let lane = api.json("metrics")["lane"].clone();
            let moving = ["inFlight", "ready", "waiting"];
            // A short loop spends less than there is.
            let is_over = lane["overBudget"].as_u64() > Some(0)
                || self.report.kills < KILLS_OF_A_LOOP
                || self.month != accounts::month_under_way();
            moving.iter().all(|what| lane[what] == 0) && is_over
        });
        let budgets = api.json("budgets");
        let of_user = |told: &&Value| told["budget"] == "month" && told["userId"] == "user-0";
        let told = budgets["budgets"].as_array().unwrap().iter().find(of_user);
        process.signal("TERM");
        process.end().with(0);
        let calls = self.place.store(STORE).calls();
        let of_user = calls.iter().filter(|call| call.user_id == "user-0");
        accounts::a_budget_was_kept(of_user.clone(), told, BUDGET, self.month);
        let spent: u64 = of_user.map(|call| call.usage.total_tokens).sum();
        assert!(
            spent > 0 || self.report.kills < KILLS_OF_A_LOOP,
            "{budgets}"
        );
    }

    /// The most calls that GLM saw at once: never more than there are slots.
    fn peak(&self) -> u64 {
        let peak = self.simulator.stats().peak_in_flight;
        // GLM works on at a task whose id died with the process, and nobody knows of it.
        let unknown = if self.plan.tasks { self.plan.slots } else { 0 };
        assert!(
            peak <= self.plan.slots + unknown,
            "{peak} calls were open at once"
        );
        peak
    }
}

/// What an operator asks at the end.
struct Api {
    http: Http,
    url: String,
}

impl Api {
    fn of(process: &Running) -> Self {
        Self {
            http: Http::bearing(TOKEN),
            url: format!("{}/api/admin/glm", process.url()),
        }
    }

    fn text(&self, path: &str) -> String {
        let url = format!("{}/{path}", self.url);
        self.ask(path, || self.http.get(&url)).text
    }

    /// Asks once more where the process closed a connection that was idle for long as it was used again.
    fn ask<E: std::fmt::Debug>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> Result<Answer, E>,
    ) -> Answer {
        let answer = ask().or_else(|_| ask());
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        answer
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    fn raise_the_budget(&self) {
        let raised = json!({"budgets": {"month": {"tokens": 1_000_000_000}}});
        let url = format!("{}/config", self.url);
        self.ask("config", || self.http.put(&url, &raised));
    }

    /// How many jobs the store has that `filter` lets through.
    fn count(&self, filter: &str) -> u64 {
        let page = self.json(&format!("queue?limit=1{filter}"));
        page["total"].as_u64().unwrap()
    }

    fn has_nothing_left(&self) -> bool {
        // A job goes back and forth between pending and processing, so two reads may both miss it;
        // none comes back from its end.
        let ended = ["completed", "failed", "cancelled"];
        let ended = ended
            .iter()
            .map(|status| self.count(&format!("&status={status}")));
        ended.sum::<u64>() == self.count("")
    }

    /// Jobs of this client key wait for the next month once nothing else goes on.
    fn give_up_what_never_fits(&self, key: &str) {
        until("all others end", || {
            let lane = self.json("metrics")["lane"].clone();
            let moving = ["inFlight", "ready", "waiting"];
            moving.iter().all(|what| lane[what] == 0)
        });
        let filter = json!({"filter": {"keyId": key, "status": "pending"}});
        let url = format!("{}/cancel", self.url);
        self.ask("cancel", || self.http.post(&url, &filter));
    }
}

impl Lives<'_> {
    fn into_report(
        self,
        ledger: &Ledger,
        ran_after_others: u64,
        calls: Calls,
        doubts: Doubted,
        streams: Streams,
    ) -> Report {
        let batches = &ledger.batches;
        let count = |of: fn(&Batch) -> bool| batches.iter().filter(|one| of(one)).count() as u64;
        let acknowledged = ledger.submitted.iter().filter(|job| job.id.is_some());
        let store = std::fs::metadata(self.place.path(STORE));
        let report = Report {
            acknowledged: acknowledged.count() as u64,
            answers_seen: ledger.seen.len() as u64,
            ran_after_others,
            calls,
            doubts,
            streams,
            batches: batches.len() as u64,
            batches_wrong: count(|batch| batch.is_wrong),
            batches_given_up: count(|batch| batch.is_given_up),
            lines: batches.iter().map(|one| one.lines.len() as u64).sum(),
            results: batches.iter().map(|one| one.results.len() as u64).sum(),
            keys: ledger.keys.len() as u64,
            keys_revoked: ledger.keys.iter().filter(|key| key.is_revoked).count() as u64,
            rotations: ledger.rotations,
            shown_in_vain: ledger.shown_in_vain,
            refused: ledger.refused,
            store_bytes: store.map_or(0, |store| store.len()),
            ..self.report
        };
        report.has_tried_chains();
        report
    }
}

fn serve(place: &Place, simulator: &Simulator) -> std::process::Command {
    let url = simulator.base_url();
    let mut serve = place.onelane(&["serve", "--base-url", &url, "--listen", "127.0.0.1:0"]);
    serve.env("ONELANE_ADMIN_TOKEN", TOKEN);
    serve
}

fn simulator(plan: &Plan) -> Simulator {
    let rule = |probability, fault| Rule {
        probability,
        ..Rule::always(fault)
    };
    let failing = Fault::Error(ErrorFault {
        status: Some(500),
        ..ErrorFault::of("500")
    });
    Simulator::start(SimulatorConfig {
        latency_ms: Span::Between { min: 0, max: 2 },
        task_ms: Span::Between { min: 0, max: 60 },
        // So no two attempts are answered alike.
        lengths: match plan.everybody {
            true => Lengths::HeavyTailed {
                median: 30,
                max: 150,
            },
            false => Lengths::Short,
        },
        seed: plan.seed,
        rules: vec![
            // Many of those whose streams are cut die before that is told.
            Rule {
                probability: 0.2,
                ..Rule::for_prompt("gateway ", Fault::CutBody)
            },
            rule(0.03, failing),
            rule(0.01, Fault::CutBody),
            rule(0.01, Fault::Reset),
            rule(0.01, Fault::SlowHeaders { delay_ms: 30 }),
        ],
        ..SimulatorConfig::default()
    })
    .unwrap()
}
