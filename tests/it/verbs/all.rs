//! All verbs at once: none is left out, whatever it is called, of what holds for each.

use std::collections::BTreeSet;

use serde_json::json;

use super::{World, nobody};
use crate::common::{Place, run};

/// An id that nothing has.
const NOBODY: &str = "0199a000-0000-7000-8000-000000000003";

/// Verbs that a daemon answers, each with what makes it whole.
const ASKED: &[(&str, &str)] = &[
    ("status", ""),
    ("jobs ls", ""),
    ("jobs show", NOBODY),
    ("jobs submit", "river"),
    ("jobs wait", NOBODY),
    ("jobs cancel", NOBODY),
    ("jobs retry", NOBODY),
    (
        "jobs move",
        "--priority 3 0199a000-0000-7000-8000-000000000003",
    ),
    ("jobs tail", ""),
    ("waiters", ""),
    ("lane show", ""),
    ("lane pause", ""),
    ("lane resume", ""),
    ("lane drain", ""),
    ("lane set", "--concurrency 2"),
    ("holds ls", ""),
    ("holds release", "account"),
    ("breaker show", ""),
    ("breaker reset", ""),
    ("breaker open", "--reason noon"),
    ("calls ls", ""),
    ("calls tail", ""),
    ("usage", ""),
    ("usage reconcile", ""),
    ("budget ls", ""),
    ("budget set", "daily unset"),
    ("webhooks ls", ""),
    ("webhooks endpoints", ""),
    ("webhooks test", ""),
    ("webhooks redeliver", "7"),
    ("events", ""),
    ("compare", "prompts.jsonl --models glm-5"),
    ("config get", ""),
    ("config set", "maxRetries 4"),
    ("config history", ""),
];

/// Verbs that read a store, and ask a daemon that has it open or that the command names.
const OF_A_STORE: &[(&str, &str)] = &[
    ("batch ls", ""),
    ("batch show", "none"),
    ("batch drop", "none"),
    ("keys create", "shop"),
    ("keys list", ""),
    ("keys show", "ol-0000000000000001"),
    ("keys revoke", "ol-0000000000000001"),
    ("keys rotate", "ol-0000000000000001"),
    ("stats", ""),
    ("db stats", ""),
    ("db check", ""),
    ("db export", "--what jobs"),
    ("db backup", "copy.redb"),
];

/// Verbs that need no daemon, or are one, or need a terminal; what they say has tests of its own.
const BY_THEMSELVES: &[&str] = &[
    "top",
    "serve",
    "run",
    "simulate",
    "config show",
    "config unset",
    "context ls",
    "context use",
    "context set",
    "context rm",
    "db compact",
    "db restore",
    "db import",
    "doctor",
    "bench",
    "completions",
    "man",
    "policy",
    "prices",
    "estimate",
];

#[test]
fn every_verb_that_there_is_says_alike_that_nobody_answers_or_that_the_token_is_wrong() {
    let place = Place::new();
    run(&mut place.bare(&["man", "--out", "pages"])).with(0);
    let pages = std::fs::read_dir(place.path("pages")).unwrap();
    let pages: BTreeSet<String> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| {
            let name = name.strip_suffix(".1")?.strip_prefix("onelane-")?;
            Some(name.replacen('-', " ", 1))
        })
        .filter(|name| !name.starts_with("help"))
        .collect();
    let has_verbs = |name: &String| {
        pages
            .iter()
            .any(|other| other.starts_with(&format!("{name} ")))
    };
    // `usage` alone is one, too.
    let verbs: BTreeSet<&str> = pages
        .iter()
        .filter(|name| !has_verbs(name) || *name == "usage")
        .map(String::as_str)
        .collect();
    let asked = ASKED.iter().chain(OF_A_STORE).map(|(verb, _)| *verb);
    let known: BTreeSet<&str> = asked.chain(BY_THEMSELVES.iter().copied()).collect();
    assert_eq!(verbs, known, "a verb is in neither list");

    let world = World::start();
    world.place.write("prompts.jsonl", "{\"prompt\": \"a\"}\n");
    for (verb, rest) in ASKED {
        world.check_refusals(&format!("{verb} {rest}"));
    }
    let nobody = nobody();
    for (verb, rest) in OF_A_STORE {
        let words = format!("{verb} {rest}");
        let named = format!("{words} --url {nobody}");
        let hints = [nobody.as_str(), "onelane serve", "--url"];
        world.ask(&named).with(5).noting(&hints);
        let ended = world.ask(&format!("{named} --json")).with(5);
        let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(error["error"]["exitCode"], 5, "{words}: {error}");
        world.check_strangers(&words);
    }
}

#[test]
fn every_verb_that_names_something_says_what_to_do_where_there_is_no_such_thing() {
    let world = World::start();
    for (verb, lists) in [
        ("jobs show", "onelane jobs ls"),
        ("jobs wait", "onelane jobs ls"),
        ("jobs cancel", "onelane jobs ls"),
        ("jobs retry", "onelane jobs ls"),
        ("jobs move --priority 3", "onelane jobs ls"),
        ("jobs tail", "onelane jobs ls"),
    ] {
        let words = format!("{verb} {NOBODY}");
        world.ask(&words).with(2).noting(&[NOBODY, lists]);
        let error = world.ask(&format!("{words} --json")).with(2);
        let error: serde_json::Value = serde_json::from_str(&error.stderr).unwrap();
        assert_eq!(error["error"]["exitCode"], 2, "{words}: {error}");
    }
    for (words, lists) in [
        ("batch show batch_none", "onelane batch ls"),
        ("batch cancel batch_none", "onelane batch ls"),
        ("keys show ol-0000000000000001", "onelane keys ls"),
        ("keys revoke ol-0000000000000001", "onelane keys ls"),
        ("keys rotate ol-0000000000000001", "onelane keys ls"),
        ("holds release lane none", "onelane holds ls"),
        ("webhooks redeliver 4711", "onelane webhooks ls"),
        ("webhooks test none", "onelane webhooks endpoints"),
    ] {
        world.ask(words).with(2).noting(&[lists]);
    }
}

#[test]
fn every_list_keeps_to_80_columns_and_is_whole_as_json_whatever_it_has_to_tell() {
    let world = World::start();
    let user = "a-user-with-a-name-".repeat(6);
    for n in 0..3 {
        let job = json!({"prompt": format!("用三句话总结第 {n} 份报告。").repeat(20), "userId": user,
            "model": "glm-4.7-a-model-with-a-very-long-name-indeed", "contentId": "article-".repeat(20)});
        world.post("/api/glm/jobs", &job);
    }
    world.until_counted("completed", 3);
    world.pause();
    let waits = json!({"prompt": "a", "userId": user, "runAt": "2999-01-01T00:00:00Z"});
    let id = world.post("/api/glm/jobs", &waits)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.post(
        "/api/admin/glm/keys",
        &json!({"name": "a key ".repeat(10).trim()}),
    );
    for verb in [
        "status",
        "jobs ls",
        "waiters",
        "lane show",
        "holds ls",
        "breaker show",
        "calls ls",
        "usage",
        "budget ls",
        "webhooks ls",
        "webhooks endpoints",
        "batch ls",
        "keys ls",
        "config history",
    ] {
        assert!(!world.told(verb).is_empty(), "{verb}");
        assert!(world.json(verb).is_object(), "{verb}");
    }
    assert!(world.json(&format!("jobs show {id}")).is_object());
}
