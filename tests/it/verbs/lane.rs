//! `onelane lane`.

use super::World;

#[test]
fn the_lane_is_paused_drained_and_resumed_with_the_operators_words() {
    let world = World::start();
    assert!(
        world
            .told("lane pause --reason noon")
            .contains("onelane lane resume")
    );
    let told = world.told("lane show");
    assert!(
        told.starts_with("paused") && told.contains("noon"),
        "{told}"
    );
    assert!(world.told("lane resume").starts_with("resumed"));
    assert_eq!(world.metrics()["lane"]["paused"], serde_json::Value::Null);
    assert_eq!(world.json("lane drain")["success"], true);
    world
        .ask("jobs submit one")
        .with(4)
        .noting(&["intake", "onelane lane resume"]);
    world.told("lane resume");
    world.check_refusals("lane pause");
}

#[test]
fn the_bounds_of_a_lane_are_set_while_it_runs() {
    let world = World::start();
    let told = world.told("lane set --concurrency 3 --requests-per-minute 60");
    assert!(
        told.contains("maxConcurrency 3") && told.contains("in force"),
        "{told}"
    );
    let config = &world.get("/api/admin/glm/config")["config"];
    assert_eq!(
        (&config["maxConcurrency"], &config["requestsPerMinute"]),
        (&3.into(), &60.into())
    );
    assert!(world.told("lane show").contains("default"));
    world.ask("lane set").with(2);
    world
        .ask("lane set --concurrency 0")
        .with(2)
        .noting(&["maxConcurrency"]);
    world.check_refusals("lane set --concurrency 2");
}
