//! Where a delivery goes, or why there is nowhere for it to go at present.

use onelane_core::model::{Delivery, HookEndpoint, Receiver, Target};

use super::{SigningKeys, WebhookSettings};

/// Where a delivery goes.
pub(super) struct Destination {
    pub(super) url: String,
    pub(super) keys: SigningKeys,
    pub(super) is_callback: bool,
}

/// Which of the configured endpoints are told what happens, and not only what somebody asks for.
pub(super) fn endpoints<'a>(
    settings: &'a WebhookSettings,
    known: &'a [HookEndpoint],
) -> impl Iterator<Item = (Receiver, bool)> + 'a {
    settings.endpoints.keys().map(|name| {
        let off = |known: &HookEndpoint| known.name == *name && known.off_since.is_some();
        (Receiver::Endpoint(name.clone()), !known.iter().any(off))
    })
}

/// The way of a delivery. An error is no failure: it says what the delivery waits for.
pub(super) fn find(
    settings: &WebhookSettings,
    known: &[HookEndpoint],
    delivery: &Delivery,
) -> Result<Destination, String> {
    match &delivery.target {
        Target::Endpoint(name) => {
            let endpoint = settings.endpoints.get(name);
            let endpoint =
                endpoint.ok_or_else(|| format!("no endpoint {name} is configured any more"))?;
            let state = known.iter().find(|endpoint| endpoint.name == *name);
            match state.and_then(|endpoint| endpoint.off_since) {
                Some(since) if !delivery.by_hand => {
                    Err(format!("the endpoint is off: it answered 410 at {since}"))
                }
                _ => Ok(Destination {
                    url: endpoint.url.clone(),
                    keys: endpoint.secret.clone().ok_or_else(|| {
                        format!("no secret is configured for the endpoint {name}")
                    })?,
                    is_callback: false,
                }),
            }
        }
        Target::Callback(url) => Ok(Destination {
            url: url.0.clone(),
            keys: settings.secret.clone().ok_or_else(|| {
                "no secret is configured any more to sign callbacks with".to_owned()
            })?,
            is_callback: true,
        }),
    }
}
