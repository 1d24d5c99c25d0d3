//! `onelane calls`.

use serde_json::Value;

use super::World;
use crate::common::Running;

#[test]
fn calls_are_listed_with_their_sums_and_followed_as_they_end() {
    let world = World::start();
    assert_eq!(world.told("calls ls"), "no call is like that\n");
    let ids = world.done(&["one", "two", "three"]);
    let told = world.told("calls ls");
    assert!(told.starts_with("ENDED"), "{told}");
    assert!(
        told.lines().last().unwrap().starts_with("3 calls, "),
        "{told}"
    );
    assert!(world.told("calls ls --limit 1").contains("more: --cursor "));
    assert_eq!(
        world.json(&format!("calls ls --job {}", ids[1]))["calls"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    world
        .ask("calls ls --outcome gone")
        .with(2)
        .noting(&["outcome"]);
    world.ask("calls ls --job zzzzz").with(2);
    let tail = Running::start(&mut world.command("calls tail --limit 1 --json"));
    let mut ended = None;
    crate::common::until("a call is told", || {
        world.done(&["more"]);
        ended = tail.line_if_said("requestId");
        ended.is_some()
    });
    let call: Value = serde_json::from_str(&ended.unwrap()).unwrap();
    assert_eq!(call["outcome"], "completed");
    tail.end().with(0);
    world.check_refusals("calls ls");
    world.check_refusals("calls tail");
}
