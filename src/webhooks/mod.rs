//! Facts told to others over HTTP, as [Standard Webhooks](https://www.standardwebhooks.com): signed,
//! repeated until they arrive, under the same id.
//!
//! A delivery is a row of the store, made in the transaction of its fact
//! ([`onelane_core::notify::delivery`]). Here it is sent: `deliverer` finds what is due and notes what
//! came of it, `limiter` says how much at once, `way` where to, `body` says it in JSON, `sign` signs it,
//! `sender` brings it out of the house and nowhere it may not go, `cleanup` clears away what is over.

mod body;
mod cleanup;
mod deliverer;
mod destination;
mod limiter;
mod sender;
mod sign;

use std::collections::BTreeMap;
use std::time::Duration;

use onelane_core::model::{CallbackRules, DeliveryChange, HookEndpoint, Timestamp};
use onelane_core::notify::delivery::{RetryPolicy, configured};
use sha2::{Digest as _, Sha256};

#[cfg(feature = "api")]
pub(crate) use body::AlertView;
pub(crate) use body::Bodies;
pub(crate) use cleanup::Cleanup;
pub(crate) use deliverer::{Books, Deliverer};
pub use sender::{HttpSender, Post, Sender, Sending, Sent};
pub use sign::SigningKeys;

/// Where facts go and how.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// The configured receivers, by name.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// What callbacks are signed with.
    pub callback_keys: Option<SigningKeys>,
    /// Which callbacks may be called.
    pub callbacks: CallbackRules,
    /// Whether the end of a job is told with GLM's answer.
    pub include_result: bool,
    /// How long a receiver may take.
    pub timeout: Duration,
    /// Deliveries under way at once.
    pub max_in_flight: usize,
    /// When a delivery is tried again and when it is given up.
    pub retry_policy: RetryPolicy,
    /// What has ended is forgotten after so many milliseconds...
    pub keep_ms: u64,
    /// ...and of those that arrived more than this are not kept.
    pub keep_rows: u64,
}

/// One configured receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub url: String,
    /// What is signed with.
    pub keys: SigningKeys,
    /// What it is told.
    pub events: Vec<String>,
}

impl WebhookSettings {
    /// The endpoints as the store is to know them.
    fn hook_endpoints(&self) -> Vec<HookEndpoint> {
        let endpoint = |(name, settings): (&String, &EndpointSettings)| HookEndpoint {
            name: name.clone(),
            url_digest: digest(&settings.url),
            events: settings.events.clone(),
            off_since: None,
            missing_since: None,
        };
        self.endpoints.iter().map(endpoint).collect()
    }

    /// The change that tells the store of the endpoints; `None` if what it has `known` says it all. One
    /// that is not configured any more is forgotten when what it was to be told would be given up.
    pub(crate) fn told(&self, known: &[HookEndpoint], at: Timestamp) -> Option<DeliveryChange> {
        let endpoints = self.hook_endpoints();
        let forget_before = at.minus_ms(self.retry_policy.give_up_ms);
        let now = configured(known, endpoints.clone(), at, forget_before);
        (now != known).then_some(DeliveryChange::Endpoints {
            endpoints,
            at,
            forget_before,
        })
    }

    /// Whether the end of a job or an alert may have to be told to anybody.
    pub(crate) fn is_idle(&self) -> bool {
        self.endpoints.is_empty() && self.callbacks.refuse_all()
    }
}

/// Tells one URL from another, and nothing of what is in it.
fn digest(url: &str) -> String {
    let hash = Sha256::digest(url);
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
