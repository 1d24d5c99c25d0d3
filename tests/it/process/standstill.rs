//! Guards: what only an operator can mend holds the lane, fails no job, and says what to do; what ends by
//! itself is waited for.

use onelane::model::JobStatus;
use onelane::simulator::{ErrorFault, Fault, Rule};
use serde_json::json;

use super::{Daemon, once, run_prompts, serve, with_prompts, world};
use crate::common::{Running, prompts, run, until};
use crate::support::shows;

#[test]
fn no_balance_is_code_4_and_fails_no_job() {
    let (place, simulator) = with_prompts(5);
    simulator.add_rule(Rule::always(Fault::error("1113")));
    run(&mut run_prompts(&place, &simulator)).with(4).noting(&[
        "0 of 5 lines done, 5 not done",
        "held: GLM takes nothing until an operator acts: 1113",
        "help: no job failed",
        "run the same command again",
    ]);
    assert_eq!(simulator.stats().calls, 1, "one was enough to know");
    let left = place.store("onelane.redb");
    assert_eq!(left.count(JobStatus::Failed), 0);
    assert_eq!(left.count(JobStatus::Pending), 5);
    drop(left);

    simulator.clear_script();
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["5 of 5 lines done"]);
    assert_eq!(simulator.stats().calls, 6);
}

#[test]
fn a_hold_tells_a_program_its_reason_in_json() {
    let (place, simulator) = with_prompts(2);
    simulator.set_keys(["another-key"]);
    let mut command = run_prompts(&place, &simulator);
    let summary = run(command.arg("--json")).with(4).json();
    shows!(summary, {"end": "held", "exitCode": 4, "unfinished": 2});
    let reason = summary["reason"].as_str().unwrap();
    assert!(!reason.contains("test-key"), "the key is nobody's business");
    assert!(
        summary["help"]
            .as_str()
            .is_some_and(|help| help.contains("key"))
    );
    // Another key is what it waited for.
    let mut command = run_prompts(&place, &simulator);
    run(command.env("ONELANE_API_KEY", "another-key")).with(0);
}

#[test]
fn a_quota_with_a_reset_is_waited_for() {
    let (place, simulator) = with_prompts(3);
    simulator.push_fault(Fault::Error(ErrorFault {
        reset_in_ms: Some(2_000),
        ..ErrorFault::of("1308")
    }));
    run(&mut run_prompts(&place, &simulator)).with(0).noting(&[
        "quota is used up until",
        "1308",
        "3 of 3 lines done",
    ]);
    let arrivals = simulator.arrivals();
    assert_eq!(arrivals.len(), 4);
    let waited_us = arrivals[1].at_us - arrivals[0].at_us;
    assert!(waited_us >= 1_990_000, "only {waited_us} us");
}

#[test]
fn serve_once_is_the_act_that_a_hold_waited_for() {
    let (place, simulator) = with_prompts(2);
    simulator.add_rule(Rule::always(Fault::error("1113")));
    run(&mut run_prompts(&place, &simulator)).with(4);
    simulator.clear_script();
    once(&place, &simulator)
        .with(0)
        .noting(&["resuming; the lane was held: 1113"]);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 2);
}

#[test]
fn a_lane_switched_off_and_a_pause_are_ended_by_what_the_help_says() {
    let (place, simulator) = world();
    let off = place.write("off.toml", "[glm]\nis_active = false\n");
    let command = || {
        let mut command = serve(&place, &simulator);
        command.arg("--config").arg(&off);
        command
    };
    let once = || run(command().arg("--once"));

    let daemon = Daemon::of(&mut command());
    daemon.running.notes("the lane is switched off");
    daemon.submit(&json!({"prompt": "waits"}));
    daemon.post("/api/admin/glm/pause", &json!({"reason": "lunch"}), 200);
    daemon.stop();
    once().with(4).noting(&[
        "help: PUT {\"isActive\": true} to /api/admin/glm/config of a running `onelane serve`",
    ]);

    let daemon = Daemon::of(&mut command());
    daemon.put("/api/admin/glm/config", &json!({"isActive": true}));
    daemon.stop();
    once().with(4).noting(&[
        "lunch",
        "help: POST /api/admin/glm/resume to a running `onelane serve`, or start `onelane run --resume`",
    ]);
    assert_eq!(simulator.stats().calls, 0);

    let daemon = Daemon::of(&mut command());
    daemon.running.notes("the lane is paused since");
    daemon.post("/api/admin/glm/resume", &json!({}), 200);
    until("the job is called", || simulator.stats().calls == 1);
    daemon.stop();
}

#[test]
fn a_breaker_that_an_operator_opened_is_code_4_until_somebody_says_resume() {
    let (place, simulator) = with_prompts(2);
    let daemon = Daemon::start(&place, &simulator);
    let incident = json!({"reason": "incident 7"});
    daemon.post("/api/admin/glm/breaker/open", &incident, 200);
    daemon.submit(&json!({"prompt": "waits"}));
    daemon.stop();
    once(&place, &simulator)
        .with(4)
        .noting(&["an operator opened the breaker: incident 7", "help: POST"]);
    assert_eq!(simulator.stats().calls, 0);
    run(&mut run_prompts(&place, &simulator)).with(4).noting(&[
        "an operator had opened the breaker: incident 7",
        "--resume lifts it",
    ]);
    run(run_prompts(&place, &simulator).args(["--resume", "--all"]))
        .with(0)
        .noting(&["resuming; an operator had opened the breaker: incident 7"]);
    assert_eq!(place.store("onelane.redb").count(JobStatus::Completed), 3);
}

#[test]
fn a_drained_lane_finishes_its_backlog_once_and_a_run_that_resumes_opens_its_intake_again() {
    let (place, simulator) = with_prompts(2);
    let off = place.write("off.toml", "[glm]\nis_active = false\n");
    let daemon = Daemon::of(serve(&place, &simulator).arg("--config").arg(&off));
    daemon.submit(&json!({"prompt": "waits"}));
    daemon.post("/api/admin/glm/drain", &json!({"reason": "moving"}), 200);
    daemon.post("/api/glm/jobs", &json!({"prompt": "late"}), 503);
    daemon.stop();
    once(&place, &simulator)
        .with(0)
        .noting(&["the intake is closed until"]);
    assert_eq!(simulator.stats().calls, 1);
    run(run_prompts(&place, &simulator).arg("--resume"))
        .with(0)
        .noting(&["resuming; the intake was closed since", "moving"]);
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn a_model_that_the_plan_has_not_keeps_its_own_jobs_and_no_other() {
    let (place, simulator) = world();
    let lines = ["glm-5", "glm-4.7", "glm-5", "glm-4.7"]
        .iter()
        .enumerate()
        .map(|(n, model)| json!({"prompt": format!("prompt {n}"), "model": model}).to_string());
    place.write("prompts.jsonl", lines.collect::<Vec<_>>().join("\n"));
    simulator.add_rule(Rule::for_model("glm-5", Fault::error("1311")));
    for calls in [3, 4] {
        run(&mut run_prompts(&place, &simulator)).with(4).noting(&[
            "2 of 4 lines done",
            "2 not done",
            "model glm-5 is held until an operator acts: 1311",
            "help: no job failed; see to it",
        ]);
        assert_eq!(simulator.stats().calls, calls, "each start is one try");
    }
    // So is a daemon that works off what is left.
    once(&place, &simulator).with(4).noting(&[
        "resuming; model glm-5 was held: 1311",
        "error: model glm-5 is held until an operator acts: 1311",
    ]);
    assert_eq!(simulator.stats().calls, 5);
    let left = place.store("onelane.redb");
    assert_eq!(left.count(JobStatus::Failed), 0);
    assert_eq!(left.count(JobStatus::Pending), 2);
    drop(left);
    simulator.clear_script();
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["4 of 4 lines done"]);
    assert_eq!(simulator.stats().calls, 7);
}

#[test]
fn a_breaker_that_is_opened_for_a_while_is_waited_for() {
    let (place, simulator) = world();
    let daemon = Daemon::start(&place, &simulator);
    let open = json!({"reason": "maintenance", "forMs": 2_500});
    daemon.post("/api/admin/glm/breaker/open", &open, 200);
    daemon.submit(&json!({"prompt": "waits"}));
    daemon.stop();
    once(&place, &simulator)
        .with(0)
        .noting(&["breaker is open, next try at", "maintenance"]);
    assert_eq!(simulator.stats().calls, 1);
}

#[test]
fn a_run_says_which_of_its_lines_wait_for_somebodys_word() {
    let (place, simulator) = world();
    place.write("onelane.toml", "[lane]\non_interrupted = \"park\"\n");
    place.write("prompts.jsonl", prompts(3));
    simulator.add_rule(Rule::for_prompt("prompt 1.", Fault::Hang).times(1));
    let running = Running::start(&mut run_prompts(&place, &simulator));
    until("the first call hangs", || simulator.stats().in_flight == 1);
    running.kill();
    // The next may have been sent, too, for all that the store knows, if it was on record by then.
    let jobs = place.store("onelane.redb").jobs();
    let doubtful = jobs.iter().filter(|job| job.job.open.is_some()).count();
    let done = 3 - doubtful;
    run(&mut run_prompts(&place, &simulator)).with(4).noting(&[
        "parked: a call was interrupted and may have been billed",
        "POST /api/admin/glm/retry/ID or cancel/ID",
        &format!("{done} of 3 lines done, {doubtful} not done"),
    ]);
    let daemon = Daemon::start(&place, &simulator);
    let all = json!({"filter": {"parked": true}});
    let count = daemon.post("/api/admin/glm/retry", &all, 200)["count"].clone();
    assert_eq!(count, doubtful);
    until("they are done", || daemon.count("status=completed") == 3);
    daemon.stop();
    run(&mut run_prompts(&place, &simulator))
        .with(0)
        .noting(&["3 of 3 lines done"]);
    assert_eq!(simulator.stats().calls, 4);
}

#[test]
fn an_operators_word_is_on_disk_when_it_is_answered() {
    let words = [
        ("pause", "paused", json!({"reason": "lunch"})),
        ("drain", "draining", json!({"reason": "moving"})),
        ("breaker/open", "breaker", json!({"reason": "incident 7"})),
    ];
    let (place, simulator) = world();
    for _ in 0..2 {
        for (word, field, body) in &words {
            let daemon = Daemon::start(&place, &simulator);
            daemon.post(&format!("/api/admin/glm/{word}"), body, 200);
            daemon.kill();
            let daemon = Daemon::start(&place, &simulator);
            let lane = daemon.get("/api/admin/glm/metrics")["lane"].clone();
            assert_eq!(lane[field]["reason"], body["reason"], "{word}: {lane}");
            daemon.post("/api/admin/glm/resume", &json!({}), 200);
            daemon.kill();
            let daemon = Daemon::start(&place, &simulator);
            let lane = daemon.get("/api/admin/glm/metrics")["lane"].clone();
            let nothing = json!([null, null, "closed"]);
            let now = json!([lane["paused"], lane["draining"], lane["breaker"]["state"]]);
            assert_eq!(now, nothing, "{word}: {lane}");
            daemon.kill();
        }
    }
}

#[test]
fn a_base_url_that_leads_nowhere_is_code_4_and_fails_no_line() {
    for fault in [
        Fault::EmptyBody { status: 404 },
        Fault::HtmlPage { status: 404 },
        Fault::HtmlPage { status: 200 },
        Fault::EmptyBody { status: 302 },
        Fault::EmptyBody { status: 405 },
    ] {
        let (place, simulator) = with_prompts(8);
        simulator.add_rule(Rule::always(fault.clone()));
        run(&mut run_prompts(&place, &simulator)).with(4).noting(&[
            "held",
            "0 of 8 lines done, 8 not done",
            "base URL",
        ]);
        let called = simulator.stats().calls;
        assert!(called <= 3, "{fault:?}: {called} calls");
        simulator.clear_script();
        run(&mut run_prompts(&place, &simulator))
            .with(0)
            .noting(&["8 of 8 lines done"]);
    }
}
