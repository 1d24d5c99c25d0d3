//! What is bad, and what was told of it and of jobs.

use std::sync::Arc;

use onelane_actors::ports::DeliveryFilter;
use onelane_core::model::{AlertBook, Delivery, DeliveryId, HookEndpoint, limits as bounds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::{Json, Success};
use super::bulk::{Changed, Many};
use super::input::{Given, Input, Nothing, Optional};
use super::pages::{NextCursor, Page};
use super::problem::Problem;

/// `GET alerts`: those that are active, and those that are over, newest first.
pub(super) async fn alerts(api: Arc<Api>, _: Input) -> Result<Json<AlertBook>, Problem> {
    Ok(Json(api.lane.alerts()))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct DeliveriesQuery {
    #[serde(flatten)]
    filter: DeliveryFilter,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveriesAnswer {
    deliveries: Vec<Delivery>,
    next_cursor: NextCursor,
}

/// `GET webhooks/deliveries`: newest first.
pub(super) async fn deliveries(
    api: Arc<Api>,
    input: Input<Nothing, DeliveriesQuery>,
) -> Result<Json<DeliveriesAnswer>, Problem> {
    let DeliveriesQuery { filter, page } = input.query;
    let found = api.lane.deliveries(filter, page.cursor(), page.limit());
    let found = found.await?;
    Ok(Json(DeliveriesAnswer {
        deliveries: found.deliveries,
        next_cursor: found.cursor.into(),
    }))
}

/// One delivery.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryPath {
    /// A number, as in the list of deliveries.
    id: u64,
}

/// `POST webhooks/deliveries/{id}/redeliver`.
pub(super) async fn redeliver(
    api: Arc<Api>,
    input: Input<DeliveryPath>,
) -> Result<Json<Success>, Problem> {
    api.lane.redeliver(DeliveryId(input.path.id)).await?;
    Ok(Success::done())
}

/// Where webhooks go.
#[derive(Serialize, JsonSchema)]
pub(super) struct EndpointsAnswer {
    endpoints: Vec<HookEndpoint>,
}

/// `GET webhooks/endpoints`.
pub(super) async fn endpoints(api: Arc<Api>, _: Input) -> Result<Json<EndpointsAnswer>, Problem> {
    let endpoints = api.lane.webhook_endpoints().await?;
    Ok(Json(EndpointsAnswer { endpoints }))
}

/// `POST webhooks/redeliver`: all that a filter leaves; without a status those that were given up.
pub(super) async fn redeliver_all(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Given<Many<DeliveryFilter>>>,
) -> Result<Json<Changed>, Problem> {
    let Given(many) = input.body;
    let meant = many.meant("all that were given up")?;
    let (filter, dry_run) = (meant.filter.unwrap_or_default(), meant.dry_run);
    let count = api.lane.redeliver_all(filter, dry_run).await?;
    Ok(Json(Changed { count, dry_run }))
}

/// To whom a test goes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tested {
    /// The endpoint's name; to all of them without it.
    #[schemars(length(min = 1, max = bounds::ENDPOINT_CHARS_MAX))]
    endpoint: Option<String>,
}

/// What was put on its way.
#[derive(Serialize, JsonSchema)]
pub(super) struct TestAnswer {
    deliveries: Vec<DeliveryId>,
}

/// `POST webhooks/test`, to one endpoint or to all.
pub(super) async fn test(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Optional<Tested>>,
) -> Result<Json<TestAnswer>, Problem> {
    let deliveries = api.lane.test_webhooks(input.body.0.endpoint).await?;
    Ok(Json(TestAnswer { deliveries }))
}
