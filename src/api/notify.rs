//! `/api/admin/glm/alerts` and `/api/admin/glm/webhooks`: what is bad, and what was told of it and of jobs.

use onelane_actors::ports::DeliveryFilter;
use onelane_core::model::{DeliveryId, DeliveryStatus, NOTICE_EVENTS};
use serde::Serialize;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::{Fields, Object};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::views::{DeliveryView, EndpointView};
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
    let allowed = ["status", "event", "jobId", "endpoint", "limit", "cursor"];
    let query = Query::parse(query, &allowed)?;
    let status = query.one_of("status", &DeliveryStatus::ALL.map(|s| (s.name(), s)))?;
    let event = query.one_of("event", &events())?;
    let filter = DeliveryFilter {
        status,
        event: event.map(str::to_owned),
        job_id: query.job_id("jobId")?,
        endpoint: query.text("endpoint").map(str::to_owned),
        ..DeliveryFilter::default()
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

/// Every kind of notice, by its name.
fn events() -> Vec<(&'static str, &'static str)> {
    let events = NOTICE_EVENTS.into_iter().chain(["webhook.test"]);
    events.map(|event| (event, event)).collect()
}

#[derive(Serialize)]
struct Endpoints<'a> {
    endpoints: Vec<EndpointView<'a>>,
}

/// `GET webhooks/endpoints`.
pub(super) async fn endpoints(api: &Api) -> Result<Response, Problem> {
    let details = api.lane.webhook_endpoints().await?;
    let endpoints = details.iter().map(EndpointView::new).collect();
    Ok(reply::json(StatusCode::OK, &Endpoints { endpoints }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redelivered {
    count: u64,
    dry_run: bool,
}

/// `POST webhooks/redeliver`: all that a filter leaves.
pub(super) async fn redeliver_all(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let raw = body.json(headers).await?;
    let object = Object::read(&raw)
        .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
    let mut fields = Fields::new(String::new(), object);
    let dry_run = fields.boolean("dryRun").unwrap_or(false);
    let all = fields.boolean("all").unwrap_or(false);
    let filter = match fields.object("filter") {
        Some(_) if all => {
            fields.fault("all", "can't stand beside a filter; give one");
            DeliveryFilter::default()
        }
        Some(object) => filter(&mut fields, object),
        None if all => DeliveryFilter::default(),
        None => {
            if !fields.has("filter") {
                let problem = "is missing; to mean all that were given up say {\"all\": true}";
                fields.fault("filter", problem);
            }
            DeliveryFilter::default()
        }
    };
    fields
        .finish()
        .map_err(|faults| Problem::faults(Kind::InvalidField, faults))?;
    let count = api.lane.redeliver_all(filter, dry_run).await?;
    Ok(reply::json(StatusCode::OK, &Redelivered { count, dry_run }))
}

fn filter(outer: &mut Fields, object: Object) -> DeliveryFilter {
    let mut inner = Fields::new("filter.".to_owned(), object);
    let filter = DeliveryFilter {
        status: inner.choice("status", &DeliveryStatus::ALL.map(|s| (s.name(), s))),
        event: inner.choice("event", &events()).map(str::to_owned),
        job_id: inner.job_id("jobId"),
        endpoint: inner.text("endpoint", NAME_CHARS_MAX),
        created_from: inner.moment("createdFrom"),
        created_before: inner.moment("createdBefore"),
    };
    match inner.finish() {
        Err(faults) => outer.extend(faults),
        Ok(()) if filter == DeliveryFilter::default() => {
            let problem = "is empty; to mean all that were given up say {\"all\": true}";
            outer.fault("filter", problem);
        }
        Ok(()) => {}
    }
    filter
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
