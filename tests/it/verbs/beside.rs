//! Verbs that open a store, beside the daemon that has it open: it is asked, and known by the store, not by an address.

use std::net::TcpListener;

use onelane::simulator::{Fault, Rule, Simulator};
use serde_json::{Value, json};

use super::{TOKEN, World};
use crate::common::{Http, Place, Running, run, until};

/// The store once its daemon has ended, and the server that it called.
pub(super) fn without_its_daemon(world: World) -> (Place, Simulator) {
    let World {
        place,
        running,
        simulator,
        ..
    } = world;
    running.signal("TERM");
    running.end().with(0);
    (place, simulator)
}

#[test]
fn verbs_that_open_a_store_ask_the_daemon_that_has_it_open() {
    let world = World::start();
    world.done(&["one", "two"]);
    let mut stats = world.bare("stats");
    let ended = run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0);
    assert!(
        ended.stdout.lines().any(|line| line.starts_with("total")),
        "{ended}"
    );
    let mut stats = world.bare("stats --format json");
    let json = run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0).json();
    assert_eq!(json["statistics"][0]["totalCalls"], 2);
    let mut export = world.bare("db export --what jobs");
    let ended = run(export.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0);
    assert_eq!(ended.stdout.lines().count(), 2);
    let mut export = world.bare("db export --what calls --format csv --out calls.csv --json");
    let json = run(export.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0).json();
    assert_eq!(
        (&json["rows"], &json["out"]),
        (&json!(2), &json!("calls.csv"))
    );
    assert_eq!(world.place.read("calls.csv").lines().count(), 3);
    // Without its token it tells nothing.
    run(&mut world.bare("stats"))
        .with(2)
        .noting(&["token", "ONELANE_ADMIN_TOKEN"]);
    // Gone, the store is opened.
    let (place, _simulator) = without_its_daemon(world);
    assert!(!place.has("onelane.redb.daemon"));
    run(&mut place.bare(&["stats"])).with(0);
}

#[test]
fn a_daemon_with_another_store_is_not_asked() {
    let world = World::start();
    let other = World::start();
    let sign = other.place.read("onelane.redb.daemon");
    world.place.write("onelane.redb.daemon", &sign);
    let mut stats = world.bare("stats");
    run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN))
        .with(3)
        .noting(&[&other.url, "another store", "is in use"]);
    // What a dead daemon left behind is in nobody's way.
    let World { place, running, .. } = world;
    running.kill();
    place.write(
        "onelane.redb.daemon",
        r#"{"listening": ["http://127.0.0.1:1"]}"#,
    );
    run(&mut place.bare(&["stats"])).with(0);
}

#[test]
fn a_daemon_says_which_version_it_is_and_which_store_it_has() {
    let world = World::start();
    let about: Value = world.get("/api/admin/glm/about");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let id = onelane::store::identity(world.place.path("onelane.redb")).unwrap();
    assert_eq!(about["storeId"], id.as_str());
    let url = format!("{}/api/admin/glm/about", world.url);
    assert_eq!(Http::new().get(&url).unwrap().status, 401);
}

/// Lines of a file of prompts, as many as there are.
fn lines(prompts: &[&str]) -> String {
    let each = prompts.iter();
    each.map(|prompt| format!("{}\n", json!({"id": prompt, "prompt": prompt})))
        .collect()
}

impl World {
    /// A verb that knows the daemon by its store alone, and its token.
    fn beside(&self, words: &str) -> std::process::Command {
        let mut command = self.bare(words);
        command.env("ONELANE_ADMIN_TOKEN", TOKEN);
        command
    }

    fn results(&self, name: &str) -> Vec<(String, bool)> {
        let lines = self.place.lines(name).into_iter();
        let mut lines: Vec<(String, bool)> = lines
            .map(|line| {
                let id = line["custom_id"].as_str().unwrap().to_owned();
                (id, line["error"].is_null())
            })
            .collect();
        lines.sort();
        lines
    }
}

#[test]
fn a_file_is_run_by_the_daemon_that_has_the_store_open_and_nothing_is_sent_twice() {
    let world = World::start();
    world
        .place
        .write("a.jsonl", lines(&["one", "two", "three"]) + "nonsense\n");
    let ended = run(&mut world.beside("run a.jsonl")).with(1);
    assert!(ended.stdout.is_empty(), "{ended}");
    let ended = ended.noting(&[&world.url, "3 of 4 lines done, 1 bad", "a.results.jsonl"]);
    assert!(
        ended.stderr.lines().all(|line| line.chars().count() < 200),
        "{ended}"
    );
    let want = [
        ("line-4", false),
        ("one", true),
        ("three", true),
        ("two", true),
    ];
    let want = want.map(|(id, answered)| (id.to_owned(), answered));
    assert_eq!(world.results("a.results.jsonl"), want);
    // As a lane of the run's own writes them.
    let body = &world.place.lines("a.results.jsonl")[1]["response"];
    assert_eq!(body["status_code"], 200);
    assert!(
        body["body"]["choices"][0]["message"]["content"].is_string(),
        "{body}"
    );
    // The jobs are the batch of its file, in the store of the daemon.
    let batch = world.json("batch show a.jsonl");
    assert_eq!(batch["batch"]["state"], "completed", "{batch}");
    assert_eq!(batch["batch"]["counts"]["completed"], 3);
    assert_eq!(world.simulator.stats().calls, 3);
    // The same command again sends nothing; without the results it fetches them.
    run(&mut world.beside("run a.jsonl")).with(1);
    std::fs::remove_file(world.place.path("a.results.jsonl")).unwrap();
    let again = run(&mut world.beside("run a.jsonl --json")).with(1).json();
    assert_eq!(
        (&again["completed"], &again["bad"]),
        (&json!(3), &json!(1)),
        "{again}"
    );
    assert_eq!(world.results("a.results.jsonl"), want);
    assert_eq!(world.simulator.stats().calls, 3);
    // Nor does a lane of the run's own, once the daemon is gone.
    std::fs::remove_file(world.place.path("a.results.jsonl")).unwrap();
    let (place, simulator) = without_its_daemon(world);
    let base_url = simulator.base_url();
    run(&mut place.onelane(&["run", "a.jsonl", "--base-url", &base_url])).with(1);
    assert_eq!(place.lines("a.results.jsonl").len(), 4);
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn a_run_beside_a_daemon_that_is_interrupted_is_gone_on_with_and_what_failed_is_tried_again() {
    let world = World::with_latency(100);
    let prompts: Vec<String> = (0..30).map(|n| format!("p{n}")).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    world.place.write("a.jsonl", lines(&prompts));
    world
        .simulator
        .add_rule(Rule::for_prompt("p7", Fault::error("1214")).times(1));
    let running = Running::start(&mut world.beside("run a.jsonl"));
    until("some results", || {
        world.place.has("a.results.jsonl")
            && world.place.read("a.results.jsonl").lines().count() > 2
    });
    running.signal("INT");
    running.end().with(1).noting(&[
        "the daemon goes on",
        "interrupted; run the same command again",
    ]);
    world.until_counted("pending", 0);
    let again = run(&mut world.beside("run a.jsonl --json")).with(0).json();
    assert_eq!(again["end"], "complete", "{again}");
    assert!(
        world
            .results("a.results.jsonl")
            .iter()
            .all(|(_, answered)| *answered)
    );
    assert_eq!(world.place.lines("a.results.jsonl").len(), 30);
    for prompt in prompts {
        let calls = if prompt == "p7" { 2 } else { 1 };
        assert_eq!(world.simulator.calls_of_prompt(prompt), calls, "{prompt}");
    }
}

#[test]
fn lines_of_another_batch_of_the_daemon_are_not_paid_for_twice_without_the_word() {
    let world = World::start();
    world.place.write("a.jsonl", lines(&["one", "two"]));
    run(&mut world.beside("run a.jsonl")).with(0);
    world.place.write("b.jsonl", lines(&["one", "three"]));
    run(&mut world.beside("run b.jsonl"))
        .with(2)
        .noting(&["1 line is a line of another batch too", "--adopt"]);
    assert_eq!(world.simulator.stats().calls, 2);
    run(&mut world.beside("run b.jsonl --adopt")).with(0);
    assert_eq!(world.simulator.stats().calls, 3);
    run(&mut world.beside("run b.jsonl --batch once-more --out c.jsonl --again")).with(0);
    assert_eq!(world.simulator.stats().calls, 5);
    // A file that was renamed goes on with its jobs.
    std::fs::rename(world.place.path("b.jsonl"), world.place.path("d.jsonl")).unwrap();
    run(&mut world.beside("run d.jsonl --out d.results.jsonl")).with(2);
    assert_eq!(world.simulator.stats().calls, 5);
}

#[test]
fn a_line_that_left_the_file_is_cancelled_in_the_daemon_and_its_pause_is_the_operators() {
    let world = World::start();
    world.pause();
    world
        .place
        .write("a.jsonl", lines(&["one", "two", "three"]));
    run(&mut world.beside("run a.jsonl"))
        .with(4)
        .noting(&["noon", "same command again fetches it"]);
    world.until_counted("pending", 3);
    world.place.write("a.jsonl", lines(&["one", "three"]));
    run(&mut world.beside("run a.jsonl"))
        .with(4)
        .noting(&["1 line is gone from the input"]);
    world.until_counted("cancelled", 1);
    world.ask("lane resume").with(0);
    run(&mut world.beside("run a.jsonl")).with(0);
    assert_eq!(world.simulator.calls_of_prompt("two"), 0);
    assert_eq!(world.simulator.stats().calls, 2);
}

#[test]
fn what_only_a_lane_of_its_own_can_do_a_run_beside_a_daemon_refuses_in_words() {
    let world = World::start();
    world.place.write("a.jsonl", lines(&["one"]));
    for (flag, help) in [
        ("--all", "leave it out"),
        ("--drop-rest", "jobs cancel"),
        ("--resume", "lane resume"),
        ("--simulate --store onelane.redb", "serve --simulate"),
        ("--base-url http://127.0.0.1:1", "stop the daemon"),
    ] {
        run(&mut world.beside(&format!("run a.jsonl {flag}")))
            .with(2)
            .noting(&[&world.url, "nothing was sent", help]);
    }
    assert_eq!(world.simulator.stats().calls, 0);
    // A model of its own goes with the lines.
    run(&mut world.beside("run a.jsonl --model glm-5")).with(0);
    assert_eq!(world.get("/api/glm/jobs")["jobs"][0]["model"], "glm-5");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    for verb in ["run a.jsonl", "estimate a.jsonl", "db stats", "db check"] {
        run(&mut world.beside(&format!("{verb} --url {nobody}")))
            .with(5)
            .noting(&[&nobody, "onelane serve"]);
        let mut stranger = world.bare(verb);
        run(stranger.env("ONELANE_ADMIN_TOKEN", "another"))
            .with(2)
            .noting(&["token", "ONELANE_ADMIN_TOKEN"]);
        let ended = run(&mut world.bare(&format!("{verb} --json"))).with(2);
        let error: Value = serde_json::from_str(ended.stderr.trim()).unwrap();
        assert_eq!(error["error"]["exitCode"], 2, "{error}");
    }
    // Without its token nothing is taken.
    run(&mut world.bare("run a.jsonl"))
        .with(2)
        .noting(&["token", "ONELANE_ADMIN_TOKEN"]);
}

#[test]
fn an_estimate_beside_a_daemon_is_the_one_of_its_store() {
    let world = World::start();
    let done: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
    world.done(&done.iter().map(String::as_str).collect::<Vec<_>>());
    let long = lines(&["one", "two", "three"]) + "nonsense\n";
    world
        .place
        .write("a.jsonl", long + "{\"prompt\":\"x\",\"model\":\"glm-5\"}\n");
    let by_daemon = run(&mut world.beside("estimate a.jsonl --json"))
        .with(1)
        .json();
    assert_eq!(by_daemon["total"]["jobs"], 4, "{by_daemon}");
    assert_eq!(by_daemon["bad"], 1);
    let text = run(&mut world.beside("estimate a.jsonl")).with(1);
    assert!(
        text.stdout.lines().any(|line| line.starts_with("total")),
        "{text}"
    );
    // What the store's answers tell is in it: those of the simulator are far shorter than GLM's usually are.
    let lengths = |json: &Value| json["models"][0]["expectedCompletionTokens"].clone();
    let (place, simulator) = without_its_daemon(world);
    let base_url = simulator.base_url();
    let mut offline = place.onelane(&["estimate", "a.jsonl", "--json", "--base-url", &base_url]);
    let offline = run(&mut offline).with(1).json();
    assert_eq!(by_daemon, offline);
    let mut unlearnt = place.onelane(&[
        "estimate",
        "a.jsonl",
        "--json",
        "--store",
        "none.redb",
        "--base-url",
        &base_url,
    ]);
    let unlearnt = run(&mut unlearnt).with(1).json();
    assert_ne!(lengths(&by_daemon), lengths(&unlearnt));
}

#[test]
fn the_store_is_looked_at_and_checked_by_the_daemon_that_has_it_open() {
    let world = World::start();
    world.done(&["one", "two"]);
    let told = run(&mut world.beside("db stats")).with(0);
    assert_eq!(told.stderr, "", "{told}");
    for words in ["TABLE", "2 completed", "keeps all for ever"] {
        assert!(told.stdout.contains(words), "{told}");
    }
    assert!(
        told.stdout.lines().all(|line| line.chars().count() <= 80),
        "{told}"
    );
    let by_daemon = run(&mut world.beside("db stats --json")).with(0).json();
    let checked = run(&mut world.beside("db check")).with(0);
    assert!(
        checked.stdout.contains("the tables are in order"),
        "{checked}"
    );
    let checked = checked.noting(&["pages are checked when nobody has it open"]);
    assert!(
        checked
            .stdout
            .lines()
            .all(|line| line.chars().count() <= 80),
        "{checked}"
    );
    let json = run(&mut world.beside("db check --json")).with(0).json();
    assert_eq!(
        (&json["ok"], &json["findingsTotal"]),
        (&json!(true), &json!(0))
    );
    for verb in ["compact", "check --repair"] {
        run(&mut world.beside(&format!("db {verb}")))
            .with(3)
            .noting(&[&world.url, "stop the daemon", &format!("onelane db {verb}")]);
    }
    let (place, _simulator) = without_its_daemon(world);
    let offline = run(&mut place.bare(&["db", "stats", "--json"]))
        .with(0)
        .json();
    assert_eq!(by_daemon["jobs"], offline["jobs"]);
    assert_eq!(by_daemon["callsEnded"], offline["callsEnded"]);
    run(&mut place.bare(&["db", "compact"])).with(0);
}
