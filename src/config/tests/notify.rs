//! Guards: what is refused of alerts and webhooks, and that no secret of a receiver shows.

use onelane_core::model::{Currency, HoldKind, Secret};

use super::Place;
use crate::config::{Config, EndpointSection, Loaded};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn refused(config: &str, part: &str) {
    let error = Place::with_config(config).error();
    assert!(error.contains(part), "{config}: {error}");
    assert!(!error.contains("whsec_M"), "{error}");
}

#[test]
fn levels_that_would_flap_are_refused() {
    refused(
        "[alerts.error_rate]\nraise = 0.2",
        "alerts.error_rate.clear: must be lower",
    );
    refused(
        "[alerts.queue_age]\nclear_ms = 3600000",
        "alerts.queue_age.clear_ms: must be lower",
    );
    refused(
        "[alerts.budget]\nraise = 1.5",
        "alerts.budget.raise: must be 0.0 to 1.0",
    );
    refused(
        "[alerts.spend]\nclear_share = 1.0",
        "alerts.spend.clear_share",
    );
    refused(
        "[alerts.spend]\nusd_per_hour = '-1'",
        "must not be negative",
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
}

#[test]
fn rules_that_are_on_are_told_in_whole_numbers() {
    let mut config = Config::default();
    config.alerts.spend.on = true;
    config.alerts.spend.usd_per_hour = "2.5".parse().unwrap();
    config.alerts.spend.points_per_hour = "3".parse().unwrap();
    let settings = config.alerts.settings();
    let (rate, window) = settings.error_rate.unwrap();
    assert_eq!(
        (rate.raise, rate.clear, window.min_calls),
        (500_000, 200_000, 20)
    );
    let spend = settings.spend[&Currency::Usd];
    assert_eq!((spend.raise, spend.clear), (2_500_000_000, 2_000_000_000));
    assert_eq!(settings.spend[&Currency::Points].raise, 3_000_000_000);
    assert!(!settings.spend.contains_key(&Currency::Cny));
    let kinds: Vec<HoldKind> = settings.holds.into_keys().collect();
    assert_eq!(kinds, [HoldKind::Quota, HoldKind::Operator]);
    assert_eq!(settings.response_time, None);
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
    let settings = loaded.config.webhooks.settings();
    let ops = &settings.endpoints["ops"];
    assert_eq!(format!("{:?}", ops.keys), "SigningKeys(2)");
    assert!(settings.callback_keys.is_some());
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
fn an_embedding_program_gives_secrets_in_the_clear_and_they_arrive() {
    let mut config = Config::default();
    let endpoint = EndpointSection {
        url: "https://example.com/hook".to_owned(),
        secret: Some(Secret::new(SECRET)),
        secret_file: None,
        events: vec!["job.failed".to_owned()],
    };
    config.webhooks.endpoints.insert("ops".to_owned(), endpoint);
    let loaded = Loaded::from_config(&config).unwrap();
    assert_eq!(loaded.config.webhooks, config.webhooks);
    let stored = loaded.with_stored(None, super::moment(1)).unwrap();
    assert_eq!(stored.config.webhooks, config.webhooks);
}
