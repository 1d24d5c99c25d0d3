//! What the daemon says of itself: that it answers, and what it can be asked.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Json;
use super::input::{Ignored, Input, Nothing};
use super::problem::{Kind, Problem};
use super::{Api, openapi};

/// How long the lane may take to say how it is.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// That it answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `ok`, or `ready`.
    status: &'static str,
}

/// `GET healthz`.
pub(super) async fn health(
    _: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Json<Health>, Problem> {
    Ok(Json(Health { status: "ok" }))
}

/// `GET readyz`: whether work is taken. `GET healthz` says no more than that the daemon answers.
pub(super) async fn ready(
    api: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Json<Health>, Problem> {
    let asked = tokio::time::timeout(READY_WITHIN, api.lane.lane()).await;
    let slow = || Problem::new(Kind::Stopped, "the lane does not answer");
    let lane = asked.map_err(|_| slow())??;
    if lane.disk_full {
        let problem = "the disk is full: nothing is taken until there is room";
        return Err(Problem::new(Kind::StoreFailed, problem));
    }
    if lane.draining.is_some() {
        let problem = "the intake is closed; POST /api/admin/glm/resume opens it";
        return Err(Problem::new(Kind::Draining, problem));
    }
    if lane.stopping {
        return Err(Problem::new(Kind::Stopped, "the lane is stopping"));
    }
    Ok(Json(Health { status: "ready" }))
}

/// `GET openapi.json`.
pub(super) async fn openapi(api: Arc<Api>, _: Input) -> Result<Json<Map<String, Value>>, Problem> {
    Ok(Json(openapi::document(&api.router)))
}
