//! `onelane usage reconcile`, and what `status` and `doctor` say of quota and balance.

use onelane::simulator::{
    AccountScript, BalanceScript, Planted, QuotaScript, ScriptUpdate, Simulator, SimulatorConfig,
};

use super::{TOKEN, World};
use crate::common::{Place, run, until};

fn world() -> World {
    let place = Place::new();
    place.write(
        "onelane.toml",
        "[account]\nenabled = true\nevery_ms = 1000\n",
    );
    let simulator = Simulator::start(SimulatorConfig::default()).unwrap();
    simulator.update(ScriptUpdate {
        account: Some(AccountScript {
            quota: vec![QuotaScript {
                kind: "CREDIT_LIMIT".to_owned(),
                unit: Some(6),
                number: Some(1),
                usage: Some(10_000),
                current_value: Some(9_500),
                reset_in_ms: Some(86_400_000),
                ..QuotaScript::default()
            }],
            balance: Some(BalanceScript {
                available: "3.5".to_owned(),
                currency: "USD".to_owned(),
            }),
            planted: vec![Planted {
                day: Some("2026-01-02".to_owned()),
                model: "glm-5".to_owned(),
                calls: 1,
                tokens: 1_234,
            }],
        }),
        ..ScriptUpdate::default()
    });
    World::on(place, simulator)
}

#[test]
fn books_are_compared_in_a_table_and_as_json_and_a_difference_is_an_exit_code() {
    let world = world();
    let days = "usage reconcile --start 2026-01-05 --end 2026-01-06";
    let told = world.told(days);
    assert!(told.starts_with("the books agree"), "{told}");
    let days = "usage reconcile --start 2026-01-01 --end 2026-01-03";
    let ended = world.ask(days).with(1);
    for part in [
        "+1234 not ours",
        "1,234 tokens that are not ours",
        "1 difference",
    ] {
        assert!(ended.stdout.contains(part), "{part} in {ended}");
    }
    for line in ended.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let json = world.ask(&format!("{days} --json")).with(1).json();
    assert_eq!(json["differences"][0]["cause"], "notOurs");
    world
        .ask("usage reconcile --start soon")
        .with(2)
        .noting(&["startDate"]);
    world.check_refusals("usage reconcile");
    let silent = World::start();
    silent
        .ask("usage reconcile")
        .with(2)
        .noting(&["account.enabled"]);
}

#[test]
fn status_and_doctor_tell_quota_and_balance() {
    let world = world();
    until("GLM has told", || {
        !world.get("/api/admin/glm/account")["account"]["askedAt"].is_null()
    });
    let told = world.told("status");
    for part in ["quota   1 w credits  95% used, anew", "balance $3.50 left"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let json = world.json("status");
    assert_eq!(json["account"]["account"]["enabled"], true);
    let url = world.simulator.base_url();
    let mut doctor = world.bare(&format!("doctor --base-url {url}"));
    doctor
        .env("ONELANE_ADMIN_TOKEN", TOKEN)
        .env("ONELANE_API_KEY", "test-key");
    let ended = run(&mut doctor).with(0);
    for part in ["WARN  quota", "95% used", "ok    balance"] {
        assert!(ended.stdout.contains(part), "{part} in {ended}");
    }
}
