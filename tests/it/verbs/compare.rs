//! `onelane compare`, and `onelane bench`.

use onelane::simulator::{Fault, Rule};

use super::World;

#[test]
fn the_same_prompts_go_to_every_model_and_what_each_showed_is_told() {
    let world = World::with_latency(40);
    world.place.write(
        "prompts.jsonl",
        "{\"prompt\": \"one\", \"id\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"two\"}], \"temperature\": 0.2}\n",
    );
    let told = world.told("compare prompts.jsonl --models glm-4.7,glm-5");
    assert!(
        told.starts_with("MODEL") && told.contains("glm-4.7") && told.contains("2 prompts each"),
        "{told}"
    );
    let json = world.json("compare prompts.jsonl --models glm-4.7,glm-5");
    let of = &json["models"][1];
    assert_eq!(
        (&of["model"], &of["calls"], &of["failed"]),
        (&"glm-5".into(), &2.into(), &0.into())
    );
    assert!(of["latencyP90"].is_number(), "{of}");
    let statistics = world.json("usage --group-by model")["statistics"].clone();
    let books = statistics.as_array().unwrap();
    let row = books.iter().find(|row| row["model"] == "glm-5").unwrap();
    let fields = |row: &serde_json::Value| {
        let fields = row["firstToken"].as_object().unwrap().keys();
        fields.cloned().collect::<Vec<_>>()
    };
    assert_eq!(fields(of), ["p50", "p90", "p95", "p99"], "the same noun");
    assert_eq!(fields(row), fields(of));
    // Of an answer that comes at once nobody can say how fast it came.
    assert!(of.get("tokensPerSecond").is_some() && row.get("tokensPerSecond").is_some());
    let usage = world.told("usage --group-by model");
    assert!(
        usage.contains("FIRST TOKEN P50") && usage.contains("TOKENS/S"),
        "{usage}"
    );
    assert_eq!(world.simulator.calls_of_prompt("two"), 4);
    let svg = world
        .ask("compare prompts.jsonl --models glm-5 --format svg")
        .with(0);
    assert!(
        svg.stdout.starts_with("<svg") && svg.stdout.trim_end().ends_with("</svg>"),
        "{svg}"
    );
    world
        .simulator
        .add_rule(Rule::for_prompt("one", Fault::error("1301")));
    let ended = world
        .ask("compare prompts.jsonl --models glm-5 --json")
        .with(1);
    assert_eq!(ended.json()["models"][0]["failed"], 1);
    world
        .ask("compare none.jsonl --models glm-5")
        .with(2)
        .noting(&["none.jsonl"]);
    world.place.write("bad.jsonl", "{\"promt\": 1}\n");
    world
        .ask("compare bad.jsonl --models glm-5")
        .with(2)
        .noting(&["line 1"]);
    world.check_refusals("compare prompts.jsonl --models glm-5");
}

#[test]
fn what_this_machine_adds_to_a_call_is_measured_without_a_key_and_leaves_nothing() {
    let place = crate::common::Place::new();
    let ended = crate::common::run(&mut place.bare(&["bench", "--jobs", "20", "--json"])).with(0);
    let measured = ended.json();
    assert_eq!(measured["jobs"], 20);
    assert!(measured["jobsPerSecond"].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0);
    crate::common::run(&mut place.bare(&["bench", "--dir", "none"])).with(2);
}
