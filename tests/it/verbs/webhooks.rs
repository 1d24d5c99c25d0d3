//! `onelane webhooks`.

use std::net::TcpListener;

use onelane::simulator::{Simulator, SimulatorConfig};

use super::World;
use crate::common::{Place, until};
use crate::process::webhooks::{OPS_SECRET, Receiver};

/// A daemon with an endpoint, which answers as it is told.
fn with_receiver() -> (World, Receiver) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = Receiver::serve(listener);
    let place = Place::new();
    place.write(
        "config.toml",
        format!(
            "[webhooks]\nallow_http = true\nallow_private = true\n\
             [webhooks.endpoints.ops]\nurl = 'http://{address}/ops'\nsecret = '{OPS_SECRET}'\n\
             events = ['alert.raised']\n"
        ),
    );
    let simulator = Simulator::start(SimulatorConfig::default()).unwrap();
    (World::on(place, simulator), receiver)
}

#[test]
fn deliveries_are_listed_tested_and_all_that_were_given_up_are_sent_again() {
    let (world, receiver) = with_receiver();
    assert_eq!(world.told("webhooks ls"), "no notice is like that\n");
    let endpoints = world.told("webhooks endpoints");
    assert!(
        endpoints.contains("ops") && endpoints.contains("1 in all"),
        "{endpoints}"
    );
    // Who answers 410 wants no more: each is given up at once.
    receiver.answers(410);
    for given_up in 1..=3 {
        let told = world.told("webhooks test ops");
        assert!(told.starts_with("on the way: "), "{told}");
        until("it is given up", || {
            let failed = world.json("webhooks ls --status failed");
            failed["deliveries"].as_array().unwrap().len() == given_up
        });
    }
    let listed = world.told("webhooks ls --limit 2");
    for part in [
        "webhook.test",
        "ops",
        "failed",
        "410",
        "2 shown; more: --cursor ",
    ] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    assert!(world.told("webhooks endpoints").contains("off (410)"));
    receiver.answers(204);
    let again = "webhooks redeliver --all";
    assert_eq!(
        world.told(&format!("{again} --dry-run")),
        "3 deliveries would be sent again\n"
    );
    // Nobody sits there who could say yes.
    world.ask(again).with(2).noting(&["3 deliveries", "--yes"]);
    assert_eq!(receiver.taken().len(), 3, "nothing was sent yet");
    let first = world.json("webhooks ls --status failed --limit 1");
    let first = first["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let one = world.told(&format!("webhooks redeliver {first}"));
    assert_eq!(one, format!("sent again: {first}\n"));
    until("it is delivered", || {
        let delivered = world.json("webhooks ls --status delivered");
        delivered["deliveries"].as_array().unwrap().len() == 1
    });
    assert_eq!(
        world.told(&format!("{again} --yes")),
        "2 deliveries are sent again\n"
    );
    until("all are delivered", || {
        let delivered = world.json("webhooks ls --endpoint ops --status delivered");
        delivered["deliveries"].as_array().unwrap().len() == 3
    });
    assert_eq!(world.json(&format!("{again} --yes"))["count"], 0);
    assert_eq!(receiver.taken().len(), 6, "each was sent twice");
    world
        .ask("webhooks redeliver 4711")
        .with(2)
        .noting(&["4711", "onelane webhooks ls"]);
    world.ask("webhooks redeliver").with(2);
    world
        .ask("webhooks test none")
        .with(2)
        .noting(&["none", "onelane webhooks endpoints"]);
    world.check_refusals("webhooks ls");
    world.check_refusals("webhooks endpoints");
}
