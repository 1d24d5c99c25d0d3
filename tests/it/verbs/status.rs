//! `onelane status`.

use onelane::simulator::{Fault, Rule};

use super::World;

#[test]
fn status_says_what_goes_on_what_stops_it_and_what_it_costs() {
    let world = World::start();
    world.done(&["one", "two"]);
    let told = world.told("status");
    for part in [
        "lane    default   1 slot, 0 busy",
        "queue   0 waiting",
        "2 done, 0 failed",
        "spend",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    world.pause();
    let id = world.submit("three");
    let told = world.told("status");
    assert!(told.starts_with("paused"), "{told}");
    assert!(told.contains("noon") && told.contains("paused 1"), "{told}");
    assert!(told.contains(&id[..4]), "the next one: {told}");
    let json = world.json("status");
    assert_eq!(json["metrics"]["jobs"]["completed"], 2);
    assert_eq!(json["next"]["queue"][0]["id"], id.as_str());
    assert!(json["budgets"]["budgets"].is_array() && json["days"]["statistics"].is_array());
    world.check_refusals("status");
}

#[test]
fn status_ends_with_4_while_an_operator_has_to_act_and_says_what_to_do() {
    let world = World::start();
    world.simulator.add_rule(Rule::always(Fault::error("1113")));
    world.submit("one");
    crate::common::until("it is held", || {
        !world.metrics()["lane"]["holds"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    let ended = world.ask("status").with(4);
    assert!(ended.stdout.starts_with("held"), "{ended}");
    assert!(ended.stdout.contains("1113"), "{ended}");
}
