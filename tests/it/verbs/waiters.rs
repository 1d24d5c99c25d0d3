//! `onelane waiters`.

use serde_json::json;

use super::World;

#[test]
fn who_waits_is_listed_in_the_order_of_service_with_the_reason_and_its_end() {
    let world = World::start();
    assert_eq!(world.told("waiters"), "no job waits\n");
    world.pause();
    let low = world.submit("one");
    let later = json!({"prompt": "later", "userId": "bob", "runAt": "2999-01-01T00:00:00Z"});
    world.post("/api/glm/jobs", &later);
    let high = json!({"prompt": "urgent", "userId": "carol", "priority": 9});
    world.post("/api/glm/jobs", &high);
    let told = world.told("waiters");
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].contains("WAITED") && lines[0].contains("WHY") && lines[0].contains("ENDS"),
        "{told}"
    );
    assert!(
        lines[1].contains("carol") && lines[1].contains("paused"),
        "{told}"
    );
    assert!(lines[2].starts_with(&low[..4]), "{told}");
    assert!(lines[3].contains("bob"), "{told}");
    assert_eq!(lines.last(), Some(&"3 in all"));
    assert!(world.told("waiters --limit 1").ends_with("and 2 more\n"));
    assert_eq!(world.told("waiters --user bob").lines().count(), 3);
    let json = world.json("waiters");
    let reason = &json["service"]["queue"][0]["waitReason"];
    assert_eq!(reason["name"], "paused");
    world.check_refusals("waiters");
}
