//! `onelane doctor`.

use onelane::simulator::{Fault, Rule};

use super::{TOKEN, World};
use crate::common::{Place, run, until};

#[test]
fn doctor_looks_at_everything_and_says_what_to_do() {
    let world = World::start();
    let url = world.simulator.base_url();
    let mut doctor = world.bare(&format!("doctor --base-url {url}"));
    doctor
        .env("ONELANE_ADMIN_TOKEN", TOKEN)
        .env("ONELANE_API_KEY", "test-key");
    let ended = run(&mut doctor).with(0);
    for part in [
        "ok    config",
        "ok    key",
        "ok    glm",
        "ok    store",
        "MB free beside the store",
        "ok    daemon",
        "ok    lane",
        "all well",
    ] {
        assert!(ended.stdout.contains(part), "{part} in {ended}");
    }
    assert!(!ended.stdout.contains("test-key"));
    // Without a key there is nothing to ask GLM with.
    let place = Place::new();
    let ended = run(&mut place.bare(&["doctor"])).with(2);
    assert!(
        ended.stdout.contains("FAIL  key") && ended.stdout.contains("1 failure"),
        "{ended}"
    );
    let report = run(&mut place.bare(&["doctor", "--json"])).with(2).json();
    assert_eq!(report["failures"], 1);
    place.write("onelane.redb", "no store");
    let mut doctor = place.onelane(&["doctor", "--base-url", &url]);
    let ended = run(&mut doctor).with(3);
    assert!(ended.stdout.contains("FAIL  store"), "{ended}");
    let mut doctor = place.onelane(&[
        "doctor",
        "--base-url",
        "http://127.0.0.1:1",
        "--store",
        "new.redb",
    ]);
    assert!(run(&mut doctor).with(4).stdout.contains("FAIL  glm"));
    assert!(!place.has("new.redb"), "who looks makes nothing");
}

#[test]
fn doctor_ends_with_4_while_an_operator_has_to_act() {
    let world = World::start();
    world.simulator.add_rule(Rule::always(Fault::error("1113")));
    world.submit("one");
    until("it is held", || {
        world.get("/api/admin/glm/holds")["holds"][0].is_object()
    });
    let mut doctor = world.bare("doctor --simulate");
    doctor
        .env("ONELANE_ADMIN_TOKEN", TOKEN)
        .env("ONELANE_STORE", "onelane.redb");
    let ended = run(&mut doctor).with(4);
    assert!(
        ended.stdout.contains("FAIL  lane") && ended.stdout.contains("1113"),
        "{ended}"
    );
}
