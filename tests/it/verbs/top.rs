//! `onelane top`.

use super::World;
use crate::common::Running;

#[test]
fn top_needs_a_terminal_or_prints_a_document_a_look() {
    let world = World::start();
    world.done(&["one"]);
    world
        .ask("top")
        .with(2)
        .noting(&["terminal", "onelane status"]);
    let told = world.ask("top --json --limit 2 --every 10ms").with(0);
    let looks: Vec<serde_json::Value> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(looks.len(), 2);
    assert_eq!(looks[1]["metrics"]["jobs"]["completed"], 1);
    let endless = Running::start(&mut world.command("top --json --every 10ms"));
    endless.says("metrics");
    endless.signal("TERM");
    endless.end().with(0);
    let mut absent = world.command("top --json");
    crate::common::run(absent.env("ONELANE_URL", "http://127.0.0.1:1")).with(5);
}
