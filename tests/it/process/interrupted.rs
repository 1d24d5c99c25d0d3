//! Guards: work that was in flight when the process died and that is paid twice against its word, lost,
//! tried for ever, or not seen; money in doubt that is booked twice or forgotten.

use onelane::simulator::{Fault, Rule, ScriptUpdate, Simulator, Tokens};
use serde_json::{Value, json};

use super::{Daemon, once, world};
use crate::common::{Place, until};
use crate::support::shows;

/// A daemon whose calls hang, four at a time.
fn hanging(place: &Place, simulator: &Simulator, lane: &str) -> Daemon {
    let config = format!("[lane]\nmax_concurrency = 4\n{lane}");
    place.write("onelane.toml", config);
    simulator.add_rule(Rule::always(Fault::Hang));
    Daemon::start(place, simulator)
}

/// Kills it once so many calls are open, and starts it again with a server that answers.
fn killed(daemon: Daemon, open: u64, place: &Place, simulator: &Simulator) -> Daemon {
    until("the calls are open", || simulator.stats().in_flight == open);
    daemon.kill();
    until("the server saw them end", || {
        simulator.stats().in_flight == 0
    });
    simulator.clear_script();
    let daemon = Daemon::start(place, simulator);
    daemon.settled();
    daemon
}

#[test]
fn each_job_says_what_becomes_of_it_when_the_process_dies() {
    let (place, simulator) = world();
    let daemon = hanging(&place, &simulator, "on_interrupted = \"park\"\n");
    let submit = |prompt: &str, word: Option<&str>| {
        daemon.submit(&json!({"prompt": prompt, "onInterrupted": word}))
    };
    let unsaid = submit("unsaid", None);
    let retried = submit("retried", Some("retry"));
    let held = submit("held", Some("park"));
    let failed = submit("failed", Some("fail"));
    let behind = daemon.submit(&json!({"prompt": "behind", "after": [unsaid]}));
    let with_it = daemon.submit(&json!({"prompt": "with it", "after": [held]}));
    let daemon = killed(daemon, 4, &place, &simulator);

    assert_eq!(daemon.ended(&retried)["status"], "completed");
    let job = daemon.ended(&failed);
    assert_eq!(job["status"], "failed");
    shows!(job["error"], {"code": "interrupted", "maybeBilled": true});
    for id in [&unsaid, &held] {
        let job = daemon.job(id);
        assert_eq!(job["status"], "pending");
        assert_eq!(job["parked"]["attempt"], 1);
        assert!(job["parked"]["since"].is_string(), "{job}");
        shows!(job["attempts"][0], {"outcome": "interrupted", "maybeBilled": true});
    }
    assert_eq!(daemon.count("parked=true"), 2);
    // Those behind.
    assert_eq!(daemon.count("parked=false&status=pending"), 2);
    let metrics = daemon.get("/api/admin/glm/metrics");
    assert_eq!(metrics["lane"]["dormant"], 4);
    assert_eq!(metrics["maybeBilled"], 4);
    daemon.stop();
    // Only the one that is to be retried.
    assert_eq!(simulator.stats().calls, 5);

    // Nobody's word is given by a start.
    once(&place, &simulator).with(4).noting(&[
        "2 jobs are parked: a call was interrupted and may have been billed",
        "2 jobs are to run after such",
        "help: see GET /api/admin/glm/queue?parked=true and maybe-billed",
    ]);
    assert_eq!(simulator.stats().calls, 5);

    let daemon = Daemon::start(&place, &simulator);
    assert_eq!(daemon.count("parked=true"), 2);
    let nothing = json!({});
    daemon.post(&format!("/api/admin/glm/cancel/{held}"), &nothing, 200);
    for id in [&held, &with_it] {
        assert_eq!(daemon.ended(id)["status"], "cancelled");
    }
    for id in [&unsaid, &failed] {
        daemon.post(&format!("/api/admin/glm/retry/{id}"), &nothing, 200);
        let job = daemon.ended(id);
        assert_eq!(job["status"], "completed");
        assert_eq!((&job["attemptCount"], job.get("parked")), (&json!(2), None));
    }
    assert_eq!(daemon.ended(&behind)["status"], "completed");
    assert_eq!(daemon.count("parked=true"), 0);
    daemon.stop();
    assert_eq!(simulator.calls_of_prompt("held"), 1);
    let left = place.store("onelane.redb");
    left.knows_every_call_of(&simulator);
}

#[test]
fn a_job_that_is_in_flight_in_every_crash_is_called_no_more() {
    let (place, simulator) = world();
    let config = "[lane]\nquarantine_after = 2\n";
    place.write("onelane.toml", config);
    let poison = Rule::for_prompt("poison", Fault::Hang);
    simulator.add_rule(poison.clone());
    let daemon = Daemon::start(&place, &simulator);
    let id = daemon.submit(&json!({"prompt": "poison"}));
    let harmless = daemon.submit(&json!({"prompt": "harmless"}));
    until("its call is open", || simulator.stats().in_flight == 1);
    daemon.kill();
    let daemon = Daemon::start(&place, &simulator);
    until("it is called again", || simulator.stats().calls == 2);
    daemon.kill();
    let daemon = Daemon::start(&place, &simulator);
    let job = daemon.ended(&id);
    assert_eq!(job["error"]["code"], "quarantined", "{job}");
    // What waited behind it bears no blame.
    assert_eq!(daemon.ended(&harmless)["status"], "completed");
    daemon.kill();
    let daemon = Daemon::start(&place, &simulator);
    daemon.settled();
    assert_eq!(daemon.job(&id)["status"], "failed");
    assert_eq!(simulator.calls_of_prompt("poison"), 2);

    // By hand it may be tried again, and starts afresh.
    daemon.post(&format!("/api/admin/glm/retry/{id}"), &json!({}), 200);
    until("it is called", || simulator.calls_of_prompt("poison") == 3);
    daemon.kill();
    simulator.clear_script();
    let daemon = Daemon::start(&place, &simulator);
    assert_eq!(daemon.ended(&id)["status"], "completed");
    daemon.stop();
}

/// The one row of the statistics.
fn statistics(daemon: &Daemon) -> Value {
    let all = daemon.get("/api/admin/glm/statistics");
    let [row] = all["statistics"].as_array().unwrap().as_slice() else {
        panic!("{all}")
    };
    row.clone()
}

#[test]
fn many_attempts_in_doubt_are_settled_at_once_by_a_filter() {
    let (place, simulator) = world();
    let daemon = hanging(&place, &simulator, "");
    for user in ["ann", "ann", "bob"] {
        daemon.submit(&json!({"prompt": "x", "userId": user, "onInterrupted": "fail"}));
    }
    let daemon = killed(daemon, 3, &place, &simulator);
    let settle =
        |body: Value, status| daemon.post("/api/admin/glm/maybe-billed/settle", &body, status);
    let of = |user: &str| json!({"userId": user});
    let look = settle(
        json!({"filter": of("ann"), "billed": false, "dryRun": true}),
        200,
    );
    assert_eq!((&look["count"], &look["dryRun"]), (&json!(2), &json!(true)));
    let nothing = settle(json!({"filter": {}, "billed": false}), 400);
    assert!(
        nothing["detail"]
            .as_str()
            .unwrap()
            .contains("every attempt in doubt"),
        "{nothing}"
    );
    let unknown = settle(json!({"filter": {"user": "ann"}, "billed": false}), 400);
    assert!(
        unknown["detail"].as_str().unwrap().contains("filter.user"),
        "{unknown}"
    );
    settle(json!({"filter": of("ann")}), 400);
    let ann = settle(json!({"filter": of("ann"), "billed": false}), 200);
    assert_eq!(ann["count"], 2);
    assert_eq!(daemon.get("/api/admin/glm/metrics")["maybeBilled"], 1);
    let rest = settle(json!({"all": true, "billed": true}), 200);
    assert_eq!(rest["count"], 1);
    assert_eq!(daemon.get("/api/admin/glm/metrics")["maybeBilled"], 0);
    let again = settle(json!({"all": true, "billed": false}), 200);
    assert_eq!(again["count"], 0, "booked once");
    // What budgets would keep for the third is booked as its cost.
    assert!(statistics(&daemon)["totalCost"].as_f64().unwrap() > 0.0);
    daemon.kill();
}

#[test]
fn what_was_found_out_about_money_in_doubt_is_booked_once_and_stays_booked() {
    let (place, simulator) = world();
    simulator.update(ScriptUpdate {
        tokens: Some(Tokens::Fixed {
            prompt: 1_000,
            completion: 100,
            cached: 0,
        }),
        ..ScriptUpdate::default()
    });
    let daemon = hanging(&place, &simulator, "");
    let ids = ["one", "two", "three"].map(|prompt| {
        daemon.submit(&json!({"prompt": prompt, "userId": prompt, "onInterrupted": "fail"}))
    });
    let daemon = killed(daemon, 3, &place, &simulator);
    let paid = daemon.submit(&json!({"prompt": "paid"}));
    daemon.ended(&paid);

    let list = daemon.get("/api/admin/glm/maybe-billed");
    let open = list["maybeBilled"].as_array().unwrap();
    assert_eq!(open.len(), 3, "{list}");
    for row in open {
        let seen = row["id"].as_str().unwrap();
        assert_eq!(
            simulator.calls_of_request_id(seen),
            1,
            "as GLM knows it: {row}"
        );
        shows!(row, {"outcome": "interrupted", "attempt": 1});
    }
    let of_two = daemon.get("/api/admin/glm/maybe-billed?userId=two");
    assert_eq!(of_two["maybeBilled"][0]["requestId"], ids[1].as_str());

    // The call that was paid has as many tokens as the first that turns out to be billed.
    let before = statistics(&daemon);
    let settle = |id: &str, found: Value, status| {
        daemon.post(
            &format!("/api/admin/glm/maybe-billed/{id}/1"),
            &found,
            status,
        )
    };
    let usage = json!({"promptTokens": 1_000, "completionTokens": 100});
    let priced = settle(&ids[0], json!({"billed": true, "usage": usage}), 200);
    let exact = json!({"billed": true, "cost": "0.000000001", "currency": "CNY"});
    settle(&ids[1], exact, 200);
    settle(&ids[2], json!({"billed": false}), 200);
    for id in &ids {
        let twice = settle(id, json!({"billed": false}), 409);
        assert_eq!(twice["type"], "urn:onelane:problem:billing-settled");
    }
    // What was never in doubt is none of it.
    settle(&paid, json!({"billed": false}), 409);

    let after = statistics(&daemon);
    let nanos = |row: &Value| (row["totalCost"].as_f64().unwrap() * 1e9).round() as i64;
    assert_eq!(
        priced["billing"]["cost"], before["totalCost"],
        "as the call that was paid"
    );
    assert_eq!(nanos(&after), 2 * nanos(&before) + 1);
    assert_eq!(after["totalTokens"], 2_200);
    for unchanged in "totalCalls successfulCalls failedCalls averageResponseTime".split(' ') {
        assert_eq!(after[unchanged], before[unchanged], "{unchanged}");
    }
    assert_eq!(daemon.get("/api/admin/glm/metrics")["maybeBilled"], 0);
    daemon.kill();

    let daemon = Daemon::start(&place, &simulator);
    assert_eq!(statistics(&daemon), after);
    let list = daemon.get("/api/admin/glm/maybe-billed");
    assert_eq!(list["maybeBilled"], json!([]));
    let attempt = &daemon.job(&ids[0])["attempts"][0];
    assert_eq!(attempt["billing"]["usage"]["totalTokens"], 1_100);
    assert_eq!(attempt["maybeBilled"], true, "what it was stays on record");
    daemon.stop();
}
