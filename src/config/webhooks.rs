//! `[webhooks]`: whom facts are told over HTTP, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use onelane_core::model::setting::{Place, Problem, SettingsError};
use onelane_core::model::{CallbackRules, NOTICE_EVENTS, RetrySettings, Secret, limits};
use onelane_core::notify::delivery::RetryPolicy;
use onelane_core::section;

use super::text;
use crate::webhooks::{EndpointSettings, SigningKeys, WebhookSettings};

section! {
    /// `[webhooks]`: whom facts are told over HTTP.
    pub struct WebhooksSection checked by Self::goes_together {
        /// Which callbackUrl a job may name.
        callbacks: CallbackRules = CallbackRules::default() => [flat("")];
        /// What callbacks are signed with: whsec_ and base64; two with a comma between while one replaces the other.
        secret: Option<Secret> = None => [sample("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"")];
        /// A file that holds what callbacks are signed with.
        secret_file: Option<String> = None => [sample("\"webhooks.secret\"")];
        /// false tells the end of a job without GLM's answer.
        include_result: bool = true;
        /// A receiver that takes longer is tried again.
        timeout_ms: u64 = 15_000 => [within(1..=600_000)];
        /// Deliveries under way at once. A receiver has half of them, and one while it gives no answer; a quarter is
        /// kept for endpoints.
        max_in_flight: u16 = 8 => [within(1..=256)];
        /// The delay before the second try of a delivery.
        retry_base_ms: u64 = 5_000 => [within(1..=limits::DAY_MS)];
        /// Each delay of a delivery is so many times the one before.
        retry_multiplier: f64 = 5.0 => [within(1.0..=100.0)];
        /// No delay of a delivery is longer, whatever Retry-After says.
        retry_max_ms: u64 = 43_200_000 => [within(1..=limits::DAY_MS)];
        /// When so long has passed, a delivery is kept as failed, and can be sent again by hand. As long it waits for
        /// an endpoint that is off (410) or not configured at present.
        give_up_ms: u64 = 259_200_000 => [within(0..=30 * limits::DAY_MS)];
        /// A delivery that has ended is forgotten after this.
        keep_ms: u64 = 604_800_000;
        /// Of deliveries that arrived only so many are kept.
        keep_rows: u64 = 10_000 => [within(1..=i64::MAX as u64)];
        /// Receivers of your own, wherever they are.
        endpoints: BTreeMap<String, EndpointSection> = BTreeMap::new() => [names(text::lane_name).sample("ops")];
    }
}

section! {
    /// `[webhooks.endpoints.NAME]`: one receiver.
    #[derive(Eq)]
    pub struct EndpointSection checked by Self::goes_together {
        /// Where facts are sent.
        url: String = String::new() => [text(text::endpoint_url).sample("\"https://example.com/hook\"")];
        /// What is signed with: whsec_ and base64; two with a comma between while one replaces the other.
        secret: Option<Secret> = None => [sample("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"")];
        /// A file that holds what is signed with.
        secret_file: Option<String> = None => [sample("\"ops.secret\"")];
        /// Which facts are sent: any of alert.raised, alert.cleared, job.completed, job.failed, job.cancelled.
        events: Vec<String> = Vec::new() => [
            words(&NOTICE_EVENTS).sample("[\"alert.raised\", \"alert.cleared\"]")
        ];
    }
}

/// What a secret signs with, if there is one.
fn keys(secret: Option<&Secret>) -> Result<Option<SigningKeys>, String> {
    let keys = secret.map(|secret| SigningKeys::parse(secret.expose()));
    keys.transpose()
}

impl WebhooksSection {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        match keys(self.secret.as_ref()) {
            Err(problem) => errors.push(SettingsError::new(place.at("secret"), problem)),
            Ok(None) if !self.callbacks.allowed_hosts.is_empty() => {
                let problem = Problem::from("is missing; where ")
                    .setting(place.at("allowed_hosts"))
                    .words(" names hosts, what they are sent is signed");
                errors.push(SettingsError::new(place.at("secret"), problem));
            }
            Ok(_) => {}
        }
    }

    /// What the sender is told. An endpoint that was not checked and has no key is left out.
    #[must_use]
    pub fn settings(&self) -> WebhookSettings {
        let endpoint = |(name, endpoint): (&String, &EndpointSection)| {
            let settings = EndpointSettings {
                url: endpoint.url.clone(),
                keys: keys(endpoint.secret.as_ref()).ok()??,
                events: endpoint.events.clone(),
            };
            Some((name.clone(), settings))
        };
        WebhookSettings {
            endpoints: self.endpoints.iter().filter_map(endpoint).collect(),
            callback_keys: keys(self.secret.as_ref()).ok().flatten(),
            callbacks: self.callbacks.clone(),
            include_result: self.include_result,
            timeout: Duration::from_millis(self.timeout_ms),
            max_in_flight: usize::from(self.max_in_flight),
            retry_policy: RetryPolicy {
                delays: RetrySettings {
                    base_delay_ms: self.retry_base_ms,
                    backoff_multiplier: self.retry_multiplier,
                    max_delay_ms: self.retry_max_ms,
                    ..RetrySettings::default()
                },
                give_up_ms: self.give_up_ms,
            },
            keep_ms: self.keep_ms,
            keep_rows: self.keep_rows,
        }
    }
}

impl EndpointSection {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        let mut refuse = |name: &str, problem: Problem| {
            errors.push(SettingsError::new(place.at(name), problem));
        };
        if self.url.is_empty() {
            refuse("url", "is missing".into());
        }
        if self.events.is_empty() {
            let events = onelane_core::model::setting::quoted(&NOTICE_EVENTS);
            refuse(
                "events",
                format!("must name one or more of {events}").into(),
            );
        }
        let missing = "is missing; make one with: echo whsec_$(openssl rand -base64 32)";
        match keys(self.secret.as_ref()) {
            Err(problem) => refuse("secret", problem.into()),
            Ok(None) => refuse("secret", missing.into()),
            Ok(Some(_)) => {}
        }
    }
}
