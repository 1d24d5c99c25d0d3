//! `/api/admin/glm/alerts` and `/api/admin/glm/webhooks`: what is bad, and what was told of it and of jobs.

use onelane_actors::model::{DeliveryId, DeliveryStatus, NOTICE_EVENTS};
use onelane_actors::ports::DeliveryFilter;
use serde::Serialize;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::{Fields, Object};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::views::DeliveryView;
use super::{Api, reply};
use crate::webhooks::AlertView;

/// Characters of an endpoint's name.
const NAME_CHARS_MAX: usize = 64;

#[derive(Serialize)]
struct Alerts<'a> {
    active: Vec<AlertView<'a>>,
    recent: Vec<AlertView<'a>>,
}

/// `GET alerts`: those that are active, and those that are over, newest first.
pub(super) fn alerts(api: &Api) -> Response {
    let book = api.lane.alerts();
    let body = Alerts {
        active: book.active.iter().map(AlertView::active).collect(),
        recent: book.past.iter().map(AlertView::past).collect(),
    };
    reply::json(StatusCode::OK, &body)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    deliveries: Vec<DeliveryView<'a>>,
    next_cursor: Option<String>,
}

/// `GET webhooks/deliveries`: newest first.
pub(super) async fn deliveries(api: &Api, query: &str) -> Result<Response, Problem> {
    let query = Query::parse(query, &["status", "event", "jobId", "limit", "cursor"])?;
    let status = query.one_of("status", &DeliveryStatus::ALL.map(|s| (s.name(), s)))?;
    let events = NOTICE_EVENTS.map(|event| (event, event));
    let test = [("webhook.test", "webhook.test")];
    let event = query.one_of("event", &[&events[..], &test].concat())?;
    let filter = DeliveryFilter {
        status,
        event: event.map(str::to_owned),
        job_id: query.job_id("jobId")?,
    };
    let page = api
        .lane
        .deliveries(filter, query.cursor()?, query.limit()?)
        .await?;
    let body = Page {
        deliveries: page.deliveries.iter().map(DeliveryView::new).collect(),
        next_cursor: page.cursor.map(|cursor| cursor.to_string()),
    };
    Ok(reply::json(StatusCode::OK, &body))
}

/// `POST webhooks/deliveries/{id}/redeliver`.
pub(super) async fn redeliver(api: &Api, id: DeliveryId) -> Result<Response, Problem> {
    api.lane.redeliver(id).await?;
    Ok(reply::success())
}

#[derive(Serialize)]
struct Tested {
    /// As text, like every number that may be larger than what a JavaScript number holds.
    deliveries: Vec<String>,
}

/// `POST webhooks/test`, to one endpoint or to all.
pub(super) async fn test(api: &Api, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let mut endpoint = None;
    if let Some(raw) = body.optional_json(headers).await? {
        let object = Object::read(&raw)
            .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
        let mut fields = Fields::new(String::new(), object);
        endpoint = fields.text("endpoint", NAME_CHARS_MAX);
        fields
            .finish()
            .map_err(|faults| Problem::faults(Kind::InvalidField, faults))?;
    }
    let ids = api.lane.test_webhooks(endpoint).await?;
    let deliveries = ids.iter().map(DeliveryId::to_string).collect();
    Ok(reply::json(StatusCode::OK, &Tested { deliveries }))
}
