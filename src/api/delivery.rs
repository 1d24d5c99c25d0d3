//! A delivery as an operator sees it.

use onelane_core::model::{Delivery, DeliveryStatus, JobId, Notice, Target, Timestamp};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Serialize;

use crate::orchestrator::EndpointDetail;

/// A delivery. What was told is not repeated here: it may hold an answer of GLM's.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct DeliveryView {
    id: String,
    webhook_id: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    /// The configured endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The host of a job's callback URL; its path may hold a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_host: Option<String>,
    status: DeliveryStatus,
    tries: u32,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_try_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl DeliveryView {
    /// The view of a delivery.
    pub(in crate::api) fn new(delivery: Delivery) -> Self {
        let (endpoint, callback_host) = match &delivery.target {
            Target::Endpoint(name) => (Some(name.clone()), None),
            Target::Callback(url) => (None, host(url)),
        };
        let last = delivery.last;
        Self {
            id: delivery.id.to_string(),
            webhook_id: delivery.message_id,
            event: delivery.notice.event(),
            job_id: match &delivery.notice {
                Notice::JobEnded(job) => Some(job.id),
                _ => None,
            },
            endpoint,
            callback_host,
            status: delivery.status,
            tries: delivery.tries,
            created_at: delivery.created_at,
            next_try_at: delivery.due_at,
            last_try_at: last.as_ref().map(|last| last.at),
            status_code: last.as_ref().and_then(|last| last.status_code),
            error: last.and_then(|last| last.error),
        }
    }
}

/// An endpoint as an operator sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct EndpointView {
    name: String,
    /// Scheme and host.
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    events: Vec<String>,
    /// `on`, `off` (it answered 410) or `missing` (it is not configured at present): what it is to be told
    /// waits unless it is on.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    off_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_since: Option<Timestamp>,
}

impl EndpointView {
    /// The view of an endpoint.
    pub(in crate::api) fn new(detail: EndpointDetail) -> Self {
        let EndpointDetail { endpoint, site } = detail;
        let state = match (endpoint.missing_since, endpoint.off_since) {
            (Some(_), _) => "missing",
            (None, Some(_)) => "off",
            (None, None) => "on",
        };
        Self {
            name: endpoint.name,
            site,
            events: endpoint.events,
            state,
            off_since: endpoint.off_since,
            missing_since: endpoint.missing_since,
        }
    }
}

fn host(url: &str) -> Option<String> {
    Some(Url::parse(url).ok()?.host_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{DeliveryId, HookEndpoint, Try};
    use onelane_core::notify::delivery::made;
    use serde_json::json;

    use super::*;
    use crate::views::tests::sample;

    #[test]
    fn a_delivery_to_a_callback_shows_its_host_alone() {
        let job = Notice::JobEnded(Box::new(sample::failed(1).job));
        let callback = Target::Callback("https://example.com/token".to_owned());
        let mut delivery = made(DeliveryId(1), "a", job, callback, sample::NOW);
        delivery.last = Some(Try {
            at: sample::NOW.plus_ms(5),
            status_code: Some(503),
            error: Some("the receiver answered 503".to_owned()),
        });
        delivery.tries = 1;
        assert_eq!(
            serde_json::to_value(DeliveryView::new(delivery)).unwrap(),
            json!({"id": "1", "webhookId": "msg_a_1", "event": "job.failed",
                "jobId": sample::id(1), "callbackHost": "example.com", "status": "pending",
                "tries": 1, "createdAt": "2026-11-23T08:00:00.000Z",
                "nextTryAt": "2026-11-23T08:00:00.000Z",
                "lastTryAt": "2026-11-23T08:00:00.005Z",
                "statusCode": 503, "error": "the receiver answered 503"})
        );
    }

    #[test]
    fn an_endpoint_is_on_off_or_missing() {
        let view = |off_since, missing_since| {
            let endpoint = HookEndpoint {
                name: "a".to_owned(),
                url_digest: "d".to_owned(),
                events: vec!["job.failed".to_owned()],
                off_since,
                missing_since,
            };
            let detail = EndpointDetail {
                endpoint,
                site: None,
            };
            serde_json::to_value(EndpointView::new(detail)).unwrap()
        };
        let at = Some(sample::NOW);
        assert_eq!(view(None, None)["state"], "on");
        assert_eq!(view(at, None)["state"], "off");
        let missing = view(at, at);
        assert_eq!(
            (&missing["state"], &missing["offSince"]),
            (&json!("missing"), &missing["missingSince"])
        );
    }
}
