//! `onelane keys`, beside a daemon.

use super::World;

#[test]
fn client_keys_of_a_running_daemon_are_made_listed_rotated_and_taken_back() {
    let world = World::start();
    assert!(
        world
            .told("keys ls")
            .starts_with("there are no client keys")
    );
    let made = world
        .ask_words(&[
            "keys",
            "create",
            "agent",
            "--user",
            "ada",
            "--budget",
            "5 CNY/day",
            "--calls-in-flight",
            "2",
        ])
        .with(0)
        .noting(&["shown this once"]);
    let key = made.stdout.trim().to_owned();
    let opens = crate::common::Http::bearing(&key);
    assert_eq!(
        opens
            .get(&format!("{}/v1/models", world.url))
            .unwrap()
            .status,
        200
    );
    let told = world.told("keys ls");
    assert!(
        told.contains("agent") && told.contains("live") && told.contains("1 in all"),
        "{told}"
    );
    let told = world.told("keys show agent");
    for part in ["ada", "¥5.00 a day", "calls in flight"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(world.json("keys show agent")["key"]["userId"], "ada");
    let again = world
        .ask("keys rotate agent")
        .with(0)
        .noting(&["opens nothing any more"]);
    assert_ne!(again.stdout.trim(), key);
    assert_eq!(
        opens
            .get(&format!("{}/v1/models", world.url))
            .unwrap()
            .status,
        401
    );
    assert!(world.told("keys revoke agent").contains("is revoked"));
    let ended = world
        .ask(&format!("keys show {key}"))
        .with(2)
        .noting(&["onelane keys ls"]);
    assert!(!ended.stderr.contains(&key), "{ended}");
}
