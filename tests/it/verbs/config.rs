//! `onelane config get`, `set` and `history`.

use super::World;
use crate::common::run;

#[test]
fn a_setting_of_a_running_daemon_is_read_and_changed_by_its_name() {
    let world = World::start();
    assert_eq!(world.told("config get retry.baseDelay"), "1000\n");
    assert!(
        world
            .told("config set retry.baseDelay 2000")
            .contains("in force")
    );
    assert_eq!(world.json("config get retry.baseDelay")["value"], 2000);
    world.told("config set retry.baseDelay null");
    assert_eq!(world.told("config get retry.baseDelay"), "1000\n");
    assert!(world.told("config get retry").contains("backoffMultiplier"));
    assert!(
        world
            .told("config get")
            .contains("breaker.consecutiveFailures")
    );
    assert_eq!(world.json("config get")["config"]["maxConcurrency"], 1);
    world.told("config set model glm-5");
    assert_eq!(world.told("config get model"), "glm-5\n");
    world
        .ask("config get retry.baseDelai")
        .with(2)
        .noting(&["retry.baseDelay"]);
    world
        .ask("config set retry.baseDelay soon")
        .with(2)
        .noting(&["baseDelay"]);
    world.ask("config set retry..x 1").with(2);
    world.check_refusals("config get");
    world.check_refusals("config set maxRetries 4");
}

#[test]
fn settings_are_shown_of_the_daemon_that_is_named_and_of_this_place_where_none_is() {
    let world = World::start();
    let told = world.told(&format!("config show --url {}", world.url));
    assert!(told.contains("maxConcurrency"), "{told}");
    let mut here = world.bare("config show");
    let ended = run(&mut here)
        .with(0)
        .noting(&["is in use", "onelane config get"]);
    assert!(ended.stdout.contains("lane.max_concurrency"), "{ended}");
}

#[test]
fn who_changed_which_setting_when_is_listed_newest_first() {
    let world = World::start();
    assert_eq!(world.told("config history"), "no setting was changed\n");
    world.told("config set retry.baseDelay 2000");
    world.told("config set maxRetries 4");
    world.ask("config set retry.baseDelay soon").with(2);
    world.told("lane pause");
    let told = world.told("config history");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("WHEN"), "{told}");
    assert_eq!(lines.len(), 3, "neither a refusal nor a pause: {told}");
    for word in ["admin (api)", "maxRetries", "3", "4"] {
        assert!(lines[1].contains(word), "{word}: {told}");
    }
    for word in ["retry.baseDelay", "1000", "2000"] {
        assert!(lines[2].contains(word), "{word}: {told}");
    }
    let first = world.json("config history --limit 1");
    let history = first["history"].as_array().unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["detail"]["maxRetries"]["after"], 4);
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = world.json(&format!("config history --cursor {cursor}"));
    assert_eq!(rest["history"].as_array().unwrap().len(), 1);
    assert_eq!(rest["nextCursor"], serde_json::Value::Null);
    world
        .ask("config history --cursor nonsense")
        .with(2)
        .noting(&["cursor"]);
    world.check_refusals("config history");
}
