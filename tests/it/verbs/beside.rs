//! Verbs that open a store, beside the daemon that has it open: it is asked, and known by the store, not by an address.

use serde_json::{Value, json};

use super::{TOKEN, World};
use crate::common::{Http, run};

#[test]
fn verbs_that_open_a_store_ask_the_daemon_that_has_it_open() {
    let world = World::start();
    world.done(&["one", "two"]);
    let mut stats = world.bare("stats");
    let ended = run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0);
    assert!(
        ended.stdout.lines().last().unwrap().starts_with("total"),
        "{ended}"
    );
    let mut stats = world.bare("stats --format json");
    let json = run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0).json();
    assert_eq!(json["statistics"][0]["totalCalls"], 2);
    let mut export = world.bare("db export --what jobs");
    let ended = run(export.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0);
    assert_eq!(ended.stdout.lines().count(), 2);
    let mut export = world.bare("db export --what calls --format csv --out calls.csv --json");
    let json = run(export.env("ONELANE_ADMIN_TOKEN", TOKEN)).with(0).json();
    assert_eq!(
        (&json["rows"], &json["out"]),
        (&json!(2), &json!("calls.csv"))
    );
    assert_eq!(world.place.read("calls.csv").lines().count(), 3);
    // Without its token it tells nothing.
    run(&mut world.bare("stats"))
        .with(2)
        .noting(&["token", "ONELANE_ADMIN_TOKEN"]);
    // Gone, the store is opened.
    let World { place, running, .. } = world;
    running.signal("TERM");
    running.end().with(0);
    assert!(!place.has("onelane.redb.daemon"));
    run(&mut place.bare(&["stats"])).with(0);
}

#[test]
fn a_daemon_with_another_store_is_not_asked() {
    let world = World::start();
    let other = World::start();
    let sign = other.place.read("onelane.redb.daemon");
    world.place.write("onelane.redb.daemon", &sign);
    let mut stats = world.bare("stats");
    run(stats.env("ONELANE_ADMIN_TOKEN", TOKEN))
        .with(3)
        .noting(&[&other.url, "another store", "is in use"]);
    // What a dead daemon left behind is in nobody's way.
    let World { place, running, .. } = world;
    running.kill();
    place.write(
        "onelane.redb.daemon",
        r#"{"listening": ["http://127.0.0.1:1"]}"#,
    );
    run(&mut place.bare(&["stats"])).with(0);
}

#[test]
fn a_daemon_says_which_version_it_is_and_which_store_it_has() {
    let world = World::start();
    let about: Value = world.get("/api/admin/glm/about");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let id = onelane::store::identity(world.place.path("onelane.redb")).unwrap();
    assert_eq!(about["storeId"], id.as_str());
    let url = format!("{}/api/admin/glm/about", world.url);
    assert_eq!(Http::new().get(&url).unwrap().status, 401);
}
