//! `onelane holds`.

use onelane::simulator::{Fault, Rule};

use super::World;
use crate::common::until;

#[test]
fn a_hold_is_listed_with_its_reason_and_released() {
    let world = World::start();
    assert_eq!(world.told("holds ls"), "nothing is held\n");
    world.simulator.add_rule(Rule::always(Fault::error("1113")));
    world.submit("one");
    until("it is held", || {
        world.get("/api/admin/glm/holds")["holds"][0].is_object()
    });
    let told = world.told("holds ls");
    for part in [
        "account",
        "operator",
        "an operator acts",
        "1113",
        "1 in all",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(world.json("holds ls")["holds"][0]["code"], "1113");
    world.simulator.clear_script();
    assert!(world.told("holds release account").contains("is over"));
    world.until_counted("completed", 1);
    world
        .ask("holds release lane none")
        .with(2)
        .noting(&["onelane holds ls"]);
    world.ask("holds release lane").with(2);
    world.check_refusals("holds ls");
}
