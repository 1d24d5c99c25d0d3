//! Guards: the simulator as a program of its own: it says where it is, plays a script from a file, and is a
//! GLM to `onelane run`.

use serde_json::json;

use crate::common::{Http, Place, Running, prompts, run};
use crate::support::shows;

#[test]
fn a_simulator_of_its_own_serves_a_run_by_its_script_until_ctrl_c() {
    let place = Place::new();
    place.write("prompts.jsonl", prompts(4));
    let script = json!({"script": [
        {"fault": {"error": {"code": "1234"}}},
        {"fault": {"answer": {"content": "from the script"}}},
    ]});
    place.write("faults.json", script.to_string());
    place.write("onelane.toml", "[retry]\nbase_delay_ms = 1\n");
    let args = [
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--latency",
        "0ms",
        "--script",
        "faults.json",
    ];
    let simulator = Running::start(&mut place.bare(&args));
    let url = simulator.url();
    assert!(url.ends_with("/api/paas/v4"), "{url}");
    let ended = run(&mut place.onelane(&["run", "prompts.jsonl", "--base-url", &url])).with(0);
    assert!(
        !ended.stderr.contains("SIMULATION"),
        "it can't know: {ended}"
    );
    assert!(
        place
            .read("prompts.results.jsonl")
            .contains("from the script")
    );
    let stats = format!("{}/__sim/stats", url.trim_end_matches("/api/paas/v4"));
    let stats = Http::new().get(&stats).unwrap().json();
    shows!(stats, {"calls": 5, "peakInFlight": 1, "scriptLeft": 0});
    simulator.signal("INT");
    simulator.end().with(0);
}

#[test]
fn its_base_url_is_json_when_asked() {
    let place = Place::new();
    let args = ["simulate", "--listen", "127.0.0.1:0", "--json"];
    let simulator = Running::start(&mut place.bare(&args));
    let line: serde_json::Value = serde_json::from_str(&simulator.says("baseUrl")).unwrap();
    assert_eq!(line["baseUrl"], simulator.url());
    simulator.signal("TERM");
    simulator.end().with(0);
}

#[test]
fn a_script_that_makes_no_sense_is_refused_with_its_place() {
    let place = Place::new();
    place.write("faults.json", "{\"script\": [{\"fault\": \"explode\"}]}");
    let args = ["simulate", "--listen", "127.0.0.1:0", "--script"];
    for (file, says) in [("faults.json", "explode"), ("none.json", "No such file")] {
        let mut command = place.bare(&args);
        run(command.arg(file))
            .with(2)
            .noting(&[file, says, "help: "]);
    }
}

#[test]
fn a_busy_port_is_named() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&mut place.bare(&["simulate", "--listen", &address]))
        .with(2)
        .noting(&[&address, "--listen"]);
}
