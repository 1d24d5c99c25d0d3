//! `onelane context`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{TOKEN, World};
use crate::common::run;

#[test]
fn a_daemon_is_asked_by_its_name_with_its_own_token() {
    let world = World::start();
    let file = world.place.write("token", format!("{TOKEN}\n"));
    let url = &world.url;
    let say = |words: &str| run(&mut world.bare(words));
    assert!(
        say("context ls")
            .with(0)
            .stdout
            .contains("no daemon has a name")
    );
    say(&format!(
        "context set here --url {url} --token-file {} --use",
        file.display()
    ))
    .with(0);
    let mode = fs::metadata(world.place.path("config/onelane/contexts.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    say("jobs ls").with(0);
    // The token of this machine's daemon goes to nobody else.
    let mut with_another = world.bare("jobs ls");
    run(with_another.env("ONELANE_ADMIN_TOKEN", "of another daemon")).with(0);
    say("context set nowhere --url http://127.0.0.1:1").with(0);
    say("jobs ls --context nowhere")
        .with(5)
        .noting(&["context nowhere", "http://127.0.0.1:1"]);
    let mut by_variable = world.bare("jobs ls");
    run(by_variable.env("ONELANE_CONTEXT", "nowhere")).with(5);
    say("jobs ls --context none")
        .with(2)
        .noting(&["here", "nowhere"]);
    say("context use none").with(2);
    say("context use nowhere").with(0);
    let list = run(&mut world.bare("context ls --json")).with(0).json();
    assert_eq!(list["current"], "nowhere");
    assert_eq!(list["contexts"]["here"]["url"], url.as_str());
    assert!(say("context ls").with(0).stdout.contains("nowhere"));
    say("context rm nowhere").with(0);
    assert!(run(&mut world.bare("context ls --json")).json()["current"].is_null());
    say("context rm nowhere").with(2);
    say("context set new").with(2).noting(&["--url"]);
    say("context set new --url nonsense").with(2);
    world
        .place
        .write("config/onelane/contexts.toml", "current = [");
    say("jobs ls").with(2).noting(&["contexts.toml"]);
    assert_eq!(world.ask("jobs ls").code, Some(0), "a URL needs no context");
}

#[test]
fn a_daemon_on_a_socket_is_asked_there() {
    let place = crate::common::Place::new();
    place.write("onelane.toml", "[server]\nsocket = \"api.sock\"\n");
    let mut serve = place.bare(&["serve", "--simulate", "--listen", "none"]);
    let running = crate::common::Running::start(&mut serve);
    running.says("unix:api.sock");
    let mut status = place.bare(&["status", "--url", "unix:api.sock"]);
    assert!(run(&mut status).with(0).stdout.contains("default"));
    let mut status = place.bare(&["status", "--url", "unix:none.sock"]);
    run(&mut status).with(5).noting(&["unix:none.sock"]);
    // Told by the store alone.
    let mut keys = place.bare(&["keys", "ls"]);
    assert!(run(&mut keys).with(0).stdout.contains("no client keys"));
}
