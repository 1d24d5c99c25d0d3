//! Guards: a key that is lost among notes, that stands in the file, that a running lane is asked for in vain, or that
//! opens after it was taken back.

use serde_json::json;

use super::{serve, world};
use crate::common::{Http, Place, Running, run};

/// `onelane keys` of these words.
fn keys(place: &Place, words: &[&str]) -> std::process::Command {
    let args: Vec<&str> = ["keys"].into_iter().chain(words.iter().copied()).collect();
    place.onelane(&args)
}

#[test]
fn a_key_made_on_the_command_line_can_be_piped_and_opens_the_lane_until_it_is_taken_back() {
    let (place, simulator) = world();
    let words = ["create", "agent", "--user", "ada", "--budget", "5 CNY/day"];
    let made = run(&mut keys(&place, &words)).with(0);
    let key = made.stdout.trim_end().to_owned();
    let (id, secret) = key.split_at(19);
    assert_eq!(key.len(), 3 + 16 + 1 + 64, "{key}");
    let made = made.noting(&["it is shown this once", id, "new store"]);
    assert!(!made.stderr.contains(&secret[1..]), "{}", made.stderr);
    let file = std::fs::read(place.path("onelane.redb")).unwrap();
    let in_file = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(
        in_file(id) && !in_file(&secret[1..]),
        "the digest alone is kept"
    );

    let daemon = Running::start(&mut serve(&place, &simulator));
    let url = format!("{}/v1/chat/completions", daemon.url());
    // The daemon that has the store open is asked.
    let listed = run(&mut keys(&place, &["list"])).with(0);
    assert!(listed.stdout.contains("agent"), "{listed}");
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let ask = |key: &str| Http::bearing(key).post(&url, &chat).unwrap();
    assert_eq!(ask(&key).status, 200);
    assert_eq!(ask("sk-1").status, 401);
    daemon.kill();

    let rotated = run(&mut keys(
        &place,
        &["rotate", "agent", "--overlap", "1h", "--json"],
    ))
    .with(0);
    let newer = rotated.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(&newer[..19], id);
    run(&mut keys(&place, &["revoke", id])).with(0);
    let listed = run(&mut keys(&place, &["list", "--json"])).with(0).json();
    assert_eq!(listed["keys"][0]["state"], "revoked");
    let shown = run(&mut keys(&place, &["show", "agent"])).with(0);
    assert!(shown.stdout.contains("5 CNY a day") && shown.stdout.contains("ada"));
    assert!(!shown.stdout.contains(&secret[1..]));
    run(&mut keys(&place, &["rotate", "agent"])).with(1);
    run(&mut keys(&place, &["show", &newer])).with(2);
}
