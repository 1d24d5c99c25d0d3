//! `onelane breaker`.

use super::World;

#[test]
fn the_breaker_is_shown_opened_for_a_time_and_reset() {
    let world = World::start();
    assert!(world.told("breaker show").starts_with("state     closed"));
    let told = world.told("breaker open --for 10m --reason incident");
    for part in ["state     open", "an operator: incident", "next try  in "] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(world.json("breaker show")["breaker"]["forced"], true);
    assert!(world.told("breaker open").contains("onelane breaker reset"));
    assert!(world.told("breaker reset").starts_with("state     closed"));
    world
        .ask("breaker open --for 99999h")
        .with(2)
        .noting(&["forMs"]);
    world.ask("breaker open --for soon").with(2);
    world.check_refusals("breaker show");
}
