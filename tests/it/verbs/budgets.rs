//! `onelane budget`.

use super::World;

#[test]
fn a_budget_is_set_shown_as_it_stands_and_taken_back() {
    let world = World::start();
    assert!(world.told("budget ls").starts_with("no budget is set"));
    let told = world
        .ask_words(&["budget", "set", "daily", "50 CNY/day"])
        .with(0);
    assert!(told.stdout.contains("in force"), "{told}");
    world.done(&["one"]);
    let told = world.told("budget ls");
    for part in ["daily", "¥50.00 a day", "wait", "1 in all"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(world.json("budget ls")["budgets"][0]["limit"]["cost"], 50);
    // Of another kind from now on.
    world
        .ask_words(&[
            "budget",
            "set",
            "daily",
            "9000 tokens/month",
            "--over",
            "refuse",
        ])
        .with(0);
    let budget = world.get("/api/admin/glm/config")["config"]["budgets"]["daily"].clone();
    assert_eq!(
        (&budget["tokens"], &budget["over"]),
        (&9000.into(), &"refuse".into()),
        "{budget}"
    );
    world.told("budget set daily unset");
    assert!(world.get("/api/admin/glm/config")["config"]["budgets"]["daily"].is_null());
    world
        .ask("budget set daily much")
        .with(2)
        .noting(&["much", "tokens/day"]);
    world.check_refusals("budget ls");
}
