//! Completions and manual pages.

use crate::common::{Place, run};

#[test]
fn every_command_has_a_manual_page_and_completions_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ended = run(&mut place.bare(&["completions", shell])).with(0);
        assert!(ended.stdout.contains("waiters"), "{shell}");
    }
    run(&mut place.bare(&["completions", "tea"])).with(2);
    let page = run(&mut place.bare(&["man", "jobs", "ls"])).with(0).stdout;
    assert!(
        page.contains("ONELANE\\-JOBS\\-LS") || page.contains("ONELANE-JOBS-LS"),
        "{page}"
    );
    run(&mut place.bare(&["man", "frobnicate"])).with(2);
    run(&mut place.bare(&["man", "--out", "pages"])).with(0);
    for name in [
        "onelane",
        "onelane-serve",
        "onelane-jobs-ls",
        "onelane-config-set",
    ] {
        assert!(place.has(&format!("pages/{name}.1")), "{name}");
    }
}
