//! Guards: what is refused of alerts and webhooks, and that no secret of a receiver shows.

use serde_json::json;

use super::Place;
use crate::config::{Config, Loaded};
use crate::webhooks::{EndpointSettings, SigningKeys};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn refused(config: &str, part: &str) {
    let error = Place::with_config(config).error();
    assert!(error.contains(part), "{config}: {error}");
    assert!(!error.contains("whsec_M"), "{error}");
}

#[test]
fn an_alert_rule_that_makes_no_sense_is_refused_where_it_stands() {
    refused(
        "[alerts.error_rate]\nthreshold = 0.3\nhysteresis = 0.0",
        "config.toml:3:1: alerts.error_rate.hysteresis: must be 0.001 to 1.0",
    );
    refused(
        "[alerts.budget]\nthreshold = 1.5",
        "config.toml:2:1: alerts.budget.threshold: must be a share above 0 and at most 1",
    );
    refused(
        "[alerts.spend]\nenabled = true",
        "config.toml:2:1: alerts.spend.threshold: is missing",
    );
    refused(
        "[alerts.spend]\nthreshold = 2.5",
        "alerts.spend.threshold: must be text, so that it stays exact: write \"2.5\"",
    );
    refused(
        "[alerts.spend]\nthreshold = '-1'",
        "alerts.spend.threshold: must be a decimal above 0",
    );
    refused(
        "[alerts.hold]\nkinds = ['lunch']",
        "must be one of `after_timeout`",
    );
    refused(
        "[alerts.error_rate]\nmin_calls = 501",
        "must be a whole number from 1 to 500",
    );
    refused("[alerts]\nevery_ms = 1", "alerts.every_ms");
    refused(
        "[alerts.a]\non = 'queue_length'\nthreshold = 1.5",
        "config.toml:3:1: alerts.a.threshold: must be a whole number",
    );
    refused(
        "[alerts.breaker]\nthreshold = 1",
        "alerts.breaker.threshold: means nothing for a rule on breaker",
    );
    refused(
        "[alerts.hold]\non = 'breaker'",
        "config.toml:2:1: alerts.hold.on: must stay hold: a rule on something else has another name",
    );
    refused(
        "[alerts.queue_age]\nwindow_ms = 1000",
        "config.toml:2:1: alerts.queue_age.window_ms: means nothing for a rule on queue_age",
    );
    refused(
        "[alerts.error_rate]\ntreshold = 0.3",
        "config.toml:2:1: alerts.error_rate.treshold: unknown key; did you mean `threshold`?",
    );
    refused(
        "[alerts.old]\nthreshold = 3",
        "config.toml:2:1: alerts.old.on: is missing; it is one of `error_rate`",
    );
    refused(
        "[alerts.'old jobs']\non = 'queue_age'",
        "must be named with 1 to 64 letters",
    );
    refused("[alerts]\nevery = 5", "alerts.every: must be a table");
}

#[test]
fn a_file_changes_a_built_in_rule_and_adds_rules_of_its_own() {
    let place = Place::with_config(
        "[alerts]\nevery_ms = 250\n[alerts.error_rate]\nthreshold = 0.9\n[alerts.hold]\nenabled = false\n\
         [alerts.usd]\non = 'spend'\ncurrency = 'USD'\nthreshold = '2.5'\n",
    );
    let loaded = place.load();
    let alerts = &loaded.config.alerts;
    assert_eq!(alerts.every_ms, 250);
    let names = alerts.rules.enabled().map(|(name, ..)| name);
    let names: Vec<&str> = names.collect();
    assert_eq!(
        names,
        [
            "balance",
            "breaker",
            "budget",
            "error_rate",
            "foreign_answer",
            "quota",
            "unreachable",
            "usd"
        ]
    );
    let levels = |name: &str| alerts.rules.0[name].levels();
    assert_eq!(levels("error_rate"), Some((900_000_000, 360_000_000)));
    assert_eq!(levels("usd"), Some((2_500_000_000, 2_000_000_000)));
    let view = serde_json::to_value(loaded.view()).unwrap();
    assert_eq!(view["alerts"]["every"], 250);
    assert_eq!(
        view["alerts"]["usd"],
        json!({"enabled": true, "on": "spend", "threshold": "2.5", "hysteresis": 0.2, "for": 0,
            "currency": "USD"})
    );
    let origin = |path: &str| loaded.origin(path).to_string();
    assert!(origin("alerts.usd.threshold").contains("config.toml"));
    assert_eq!(origin("alerts.usd.hysteresis"), "default");
    // What a program was given says the same.
    let again = Loaded::from_config(&loaded.config).unwrap();
    assert_eq!(again.config.alerts, loaded.config.alerts);
}

#[test]
fn alert_rules_change_while_the_program_runs_and_are_taken_back() {
    let place = Place::with_config("[alerts.old]\non = 'queue_age'\nthreshold = 60000\n");
    let loaded = place.load();
    let step = |loaded: &Loaded, patch: serde_json::Value| {
        loaded.change(&patch, super::moment(2)).unwrap().loaded
    };
    let changed = step(
        &loaded,
        json!({"alerts": {"old": {"threshold": 5000}, "breaker": {"for": 1},
            "new": {"on": "queue_length", "threshold": 7}}}),
    );
    let rule = |loaded: &Loaded, name: &str| loaded.config.alerts.rules.0[name].clone();
    assert_eq!(rule(&changed, "old").levels().unwrap().0, 5_000_000_000_000);
    assert_eq!(rule(&changed, "breaker").for_ms, 1);
    assert!(rule(&changed, "new").enabled);
    let back = step(
        &changed,
        json!({"alerts": {"old": {"threshold": null}, "breaker": null, "new": null}}),
    );
    assert_eq!(back.config.alerts, loaded.config.alerts);
    // A change of a rule that the file names no longer must not keep the program from starting.
    let stored = changed.stored_json().unwrap();
    let without = Place::new()
        .load()
        .with_stored(Some(&stored), super::moment(3));
    let without = without.unwrap();
    assert!(!without.config.alerts.rules.0.contains_key("old"));
    assert_eq!(rule(&without, "breaker").for_ms, 1);
    let warning = "alerts.old: watches nothing any more; it is ignored";
    assert!(without.warnings.iter().any(|told| told.contains(warning)));
}

#[test]
fn an_endpoint_without_url_secret_or_events_is_refused() {
    let endpoint = |rest: &str| format!("[webhooks.endpoints.ops]\n{rest}");
    let url = "url = 'https://example.com/hook'\n";
    let events = "events = ['alert.raised']\n";
    let secret = format!("secret = '{SECRET}'\n");
    refused(
        &endpoint(&format!("{events}{secret}")),
        "webhooks.endpoints.ops.url",
    );
    refused(
        &endpoint(&format!("{url}{secret}")),
        "webhooks.endpoints.ops.events",
    );
    refused(
        &endpoint(&format!("{url}{events}")),
        "webhooks.endpoints.ops.secret",
    );
    refused(
        &endpoint(&format!("{url}{events}secret = 'whsec_Mnone'")),
        "openssl rand",
    );
    refused(
        &endpoint(&format!("{url}{secret}events = ['job.done']")),
        "must be one of `alert.raised`",
    );
    refused(
        &endpoint("url = 'ftp://example.com'"),
        "must be an http or https URL",
    );
    refused(
        &endpoint(&format!("{url}{events}{secret}secret_file = 'x'")),
        "can't stand beside webhooks.endpoints.ops.secret",
    );
    refused(
        "[webhooks]\nallowed_hosts = ['example.com']",
        "webhooks.secret: is missing",
    );
    refused(
        "[webhooks]\nallowed_hosts = ['http://x']",
        "must be a host such as",
    );
}

#[test]
fn secrets_of_receivers_come_from_files_and_never_show() {
    let place = Place::with_config(
        "[webhooks]\nallowed_hosts = ['*.example.com']\nsecret_file = 'callback.secret'\n\
         [webhooks.endpoints.ops]\nurl = 'http://127.0.0.1:9/hook-token'\nsecret_file = 'ops.secret'\n\
         events = ['alert.raised', 'job.failed']\n",
    )
    .file("ops.secret", &format!("{SECRET},{OTHER}\n"))
    .file("callback.secret", OTHER);
    let loaded = place.load();
    let settings = &loaded.config.webhooks;
    let both = SigningKeys::parse(&format!("{SECRET},{OTHER}")).unwrap();
    assert_eq!(settings.endpoints["ops"].secret, Some(both));
    assert!(settings.secret.is_some());
    assert_eq!(loaded.settings.callbacks.allowed_hosts, ["*.example.com"]);
    let shown = format!(
        "{loaded:?} {} {}",
        serde_json::to_string(&loaded.explain()).unwrap(),
        serde_json::to_string(&loaded.config).unwrap()
    );
    for secret in [SECRET, OTHER] {
        assert!(!shown.contains(&secret[..20]), "{shown}");
    }
    assert!(shown.contains("webhooks.endpoints.ops.secret"), "{shown}");
    let told = serde_json::to_string(&loaded.explain()).unwrap();
    assert!(told.contains("http://127.0.0.1/..."), "{told}");
    assert!(!told.contains("hook-token"), "{told}");
}

#[test]
fn a_file_that_holds_no_signing_key_is_named_and_not_repeated() {
    let place = Place::with_config("[webhooks]\nsecret_file = 'callback.secret'\n");
    let error = place.file("callback.secret", "whsec_Mnone").error();
    assert!(error.contains("webhooks.secret_file: "), "{error}");
    assert!(error.contains("openssl rand"), "{error}");
    assert!(!error.contains("Mnone"), "{error}");
}

#[test]
fn one_delay_of_deliveries_that_is_set_leaves_the_others_as_they_are() {
    let place = Place::with_config("[webhooks.retry]\nmax_delay_ms = 60000\n");
    let retry = place.load().config.webhooks.retry;
    assert_eq!(
        (
            retry.base_delay_ms,
            retry.backoff_multiplier,
            retry.max_delay_ms
        ),
        (5_000, 5.0, 60_000)
    );
    refused(
        "[webhooks.retry]\nmax_delay_ms = 10",
        "config.toml:2:1: webhooks.retry.base_delay_ms: must not be longer than webhooks.retry.max_delay_ms",
    );
}

#[test]
fn an_embedding_program_gives_secrets_in_the_clear_and_they_arrive() {
    let mut config = Config::default();
    let endpoint = EndpointSettings {
        url: "https://example.com/hook".to_owned(),
        secret: SigningKeys::parse(SECRET).ok(),
        secret_file: None,
        events: vec!["job.failed".to_owned()],
    };
    config.webhooks.endpoints.insert("ops".to_owned(), endpoint);
    let loaded = Loaded::from_config(&config).unwrap();
    assert_eq!(loaded.config.webhooks, config.webhooks);
    let stored = loaded.with_stored(None, super::moment(1)).unwrap();
    assert_eq!(stored.config.webhooks, config.webhooks);
}
