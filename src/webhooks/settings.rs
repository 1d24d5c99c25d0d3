//! `[webhooks]`: whom facts are told over HTTP, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use onelane_core::model::setting::{Place, Problem, SettingsError, named, quoted};
use onelane_core::model::{
    CallbackRules, DeliveryChange, HookEndpoint, NOTICE_EVENTS, RetryPolicy, Timestamp, limits,
};
use onelane_core::notify::delivery::configured;
use onelane_core::section;
use reqwest::Url;

use super::SigningKeys;

section! {
    /// `[webhooks]`: whom facts are told over HTTP.
    pub struct WebhookSettings checked by Self::goes_together {
        /// Which callbackUrl a job may name.
        callbacks: CallbackRules = CallbackRules::default() => [flat("")];
        /// What callbacks are signed with: whsec_ and base64; two with a comma between while one replaces the other.
        secret: Option<SigningKeys> = None => [sample("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"")];
        /// A file that holds what callbacks are signed with.
        secret_file: Option<String> = None => [sample("\"webhooks.secret\"")];
        /// false tells the end of a job without GLM's answer.
        include_result: bool = true;
        /// A receiver that takes longer is tried again.
        timeout_ms: u64 = 15_000 => [within(1..=600_000)];
        /// Deliveries under way at once. A receiver has half of them, and one while it gives no answer; a quarter is
        /// kept for endpoints.
        max_in_flight: u16 = 8 => [within(1..=256)];
        /// When a delivery that did not arrive is tried again. Retry-After counts up to max_delay_ms.
        retry: RetryPolicy = RetryPolicy {
            base_delay_ms: 5_000,
            backoff_multiplier: 5.0,
            max_delay_ms: 43_200_000,
            jitter: 0.2,
        };
        /// When so long has passed, a delivery is kept as failed, and can be sent again by hand. As long it waits for
        /// an endpoint that is off (410) or not configured at present.
        give_up_ms: u64 = 259_200_000 => [within(0..=30 * limits::DAY_MS)];
        /// A delivery that has ended is forgotten after this.
        keep_ms: u64 = 604_800_000;
        /// Of deliveries that arrived only so many are kept.
        keep_rows: u64 = 10_000 => [within(1..=i64::MAX as u64)];
        /// Receivers of your own, wherever they are.
        endpoints: BTreeMap<String, EndpointSettings> = BTreeMap::new() => [names(named).sample("ops")];
    }
}

section! {
    /// `[webhooks.endpoints.NAME]`: one receiver.
    #[derive(Eq)]
    pub struct EndpointSettings checked by Self::goes_together {
        /// Where facts are sent.
        url: String = String::new() => [text(endpoint_url).sample("\"https://example.com/hook\"")];
        /// What is signed with: whsec_ and base64; two with a comma between while one replaces the other.
        secret: Option<SigningKeys> = None => [sample("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"")];
        /// A file that holds what is signed with.
        secret_file: Option<String> = None => [sample("\"ops.secret\"")];
        /// Which facts are sent: any of alert.raised, alert.cleared, job.completed, job.failed, job.cancelled.
        events: Vec<String> = Vec::new() => [
            words(&NOTICE_EVENTS).sample("[\"alert.raised\", \"alert.cleared\"]")
        ];
    }
}

/// Where an endpoint is: an operator's own word, so any host will do.
fn endpoint_url(text: &str) -> Result<String, Problem> {
    let problem = "must be an http or https URL such as https://example.com/hook";
    let url = Url::parse(text).map_err(|_| problem)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem.into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; what arrives is signed".into());
    }
    Ok(url.into())
}

impl WebhookSettings {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        if self.secret.is_none() && !self.callbacks.allowed_hosts.is_empty() {
            let problem = Problem::from("is missing; where ")
                .setting(place.at("allowed_hosts"))
                .words(" names hosts, what they are sent is signed");
            errors.push(SettingsError::new(place.at("secret"), problem));
        }
    }

    /// How long a receiver may take.
    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The change that tells the store of the endpoints; `None` if what it has `known` says it all. One
    /// that is not configured any more since before `forget_before` is forgotten.
    pub(crate) fn told(
        &self,
        known: &[HookEndpoint],
        at: Timestamp,
        forget_before: Timestamp,
    ) -> Option<DeliveryChange> {
        let endpoints = self.endpoints.iter();
        let endpoints: Vec<HookEndpoint> = endpoints
            .map(|(name, endpoint)| HookEndpoint::new(name, &endpoint.url, &endpoint.events))
            .collect();
        let now = configured(known, endpoints.clone(), at, forget_before);
        (now != known).then_some(DeliveryChange::Endpoints {
            endpoints,
            at,
            forget_before,
        })
    }

    /// Whether nobody can have to be told of the end of a job or of an alert.
    pub(crate) fn is_idle(&self) -> bool {
        self.endpoints.is_empty() && self.callbacks.refuse_all()
    }
}

impl EndpointSettings {
    fn goes_together(&self, place: &Place, errors: &mut Vec<SettingsError>) {
        let mut refuse = |name: &str, problem: Problem| {
            errors.push(SettingsError::new(place.at(name), problem));
        };
        if self.url.is_empty() {
            refuse("url", "is missing".into());
        }
        if self.events.is_empty() {
            let events = quoted(&NOTICE_EVENTS);
            refuse(
                "events",
                format!("must name one or more of {events}").into(),
            );
        }
        if self.secret.is_none() {
            let missing = "is missing; make one with: echo whsec_$(openssl rand -base64 32)";
            refuse("secret", missing.into());
        }
    }
}
