//! `onelane usage`.

use super::World;

#[test]
fn usage_is_summed_with_a_total_and_given_as_json_and_csv() {
    let world = World::start();
    assert_eq!(world.told("usage"), "no calls in that time\n");
    world.done(&["one", "two"]);
    let told = world.told("usage --group-by user,model");
    assert!(told.starts_with("OF"), "{told}");
    assert!(told.contains("alice"), "{told}");
    let sums = told.split("\n\n").next().unwrap();
    assert!(sums.lines().last().unwrap().starts_with("total"), "{told}");
    assert_eq!(world.json("usage")["statistics"][0]["totalCalls"], 2);
    let csv = world.ask("usage --csv").with(0).stdout;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    world
        .ask("usage --group-by moon")
        .with(2)
        .noting(&["groupBy"]);
    world
        .ask("usage --start 2026-02-30")
        .with(2)
        .noting(&["startDate"]);
    world.check_refusals("usage");
}
