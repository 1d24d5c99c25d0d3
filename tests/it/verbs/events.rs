//! `onelane events`.

use serde_json::Value;

use super::World;
use crate::common::{Running, until};

#[test]
fn events_are_printed_as_they_happen_by_kind_until_a_signal() {
    let world = World::start();
    let all = Running::start(&mut world.command("events"));
    let paused = Running::start(&mut world.command("events --only lane --limit 1 --json"));
    until("both hear", || {
        world.pause();
        world.post("/api/admin/glm/resume", &serde_json::json!({}));
        paused.line_if_said("lane.").is_some() && all.line_if_said("lane.paused").is_some()
    });
    let ended = paused.end().with(0);
    let event: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    assert!(
        event["event"].as_str().unwrap().starts_with("lane."),
        "{event}"
    );
    all.signal("INT");
    all.end().with(0);
    world.check_refusals("events");
}
