//! A delivery as an operator sees it.

use onelane_core::model::{Delivery, JobId, Notice, Target, Timestamp};
use reqwest::Url;
use serde::Serialize;

use super::{rfc3339, rfc3339_option};
use crate::orchestrator::EndpointDetail;

/// A delivery. What was told is not repeated here: it may hold an answer of GLM's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct DeliveryView<'a> {
    id: String,
    webhook_id: &'a str,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    /// The configured endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    /// The host of a job's callback URL; its path may hold a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_host: Option<String>,
    status: &'static str,
    tries: u32,
    #[serde(serialize_with = "rfc3339")]
    created_at: Timestamp,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339_option"
    )]
    next_try_at: Option<Timestamp>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339_option"
    )]
    last_try_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> DeliveryView<'a> {
    /// The view of a delivery.
    pub(in crate::api) fn new(delivery: &'a Delivery) -> Self {
        let (endpoint, callback_host) = match &delivery.target {
            Target::Endpoint(name) => (Some(name.as_str()), None),
            Target::Callback(url) => (None, host(url)),
        };
        let last = delivery.last.as_ref();
        Self {
            id: delivery.id.to_string(),
            webhook_id: &delivery.message_id,
            event: delivery.notice.event(),
            job_id: match &delivery.notice {
                Notice::JobEnded(job) => Some(job.id),
                _ => None,
            },
            endpoint,
            callback_host,
            status: delivery.status.name(),
            tries: delivery.tries,
            created_at: delivery.created_at,
            next_try_at: delivery.due_at,
            last_try_at: last.map(|last| last.at),
            status_code: last.and_then(|last| last.status_code),
            error: last.and_then(|last| last.error.as_deref()),
        }
    }
}

/// An endpoint as an operator sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct EndpointView<'a> {
    name: &'a str,
    /// Scheme and host.
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a str>,
    events: &'a [String],
    /// `on`, `off` (it answered 410) or `missing` (it is not configured at present): what it is to be told
    /// waits unless it is on.
    state: &'static str,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339_option"
    )]
    off_since: Option<Timestamp>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "rfc3339_option"
    )]
    missing_since: Option<Timestamp>,
}

impl<'a> EndpointView<'a> {
    /// The view of an endpoint.
    pub(in crate::api) fn new(detail: &'a EndpointDetail) -> Self {
        let endpoint = &detail.endpoint;
        let state = match (endpoint.missing_since, endpoint.off_since) {
            (Some(_), _) => "missing",
            (None, Some(_)) => "off",
            (None, None) => "on",
        };
        Self {
            name: &endpoint.name,
            site: detail.site.as_deref(),
            events: &endpoint.events,
            state,
            off_since: endpoint.off_since,
            missing_since: endpoint.missing_since,
        }
    }
}

fn host(url: &str) -> Option<String> {
    Some(Url::parse(url).ok()?.host_str()?.to_owned())
}
