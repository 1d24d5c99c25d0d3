//! What the daemon says of itself: that it answers, and what it can be asked.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Json;
use super::input::{Ignored, Input, Nothing};
use super::problem::Problem;
use super::{Api, openapi};

/// That it answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// `GET healthz`.
pub(super) async fn health(
    _: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Json<Health>, Problem> {
    Ok(Json(Health { status: "ok" }))
}

/// `GET openapi.json`.
pub(super) async fn openapi(api: Arc<Api>, _: Input) -> Result<Json<Map<String, Value>>, Problem> {
    Ok(Json(openapi::document(&api.router)))
}
