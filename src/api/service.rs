//! What the daemon says of itself: that it answers, and what it can be asked.

use std::sync::Arc;
use std::time::Duration;

use onelane_core::model::{Timestamp, WaitReason};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Json;
use super::input::{Ignored, Input, Nothing};
use super::problem::{Kind, Problem};
use super::{Api, openapi};
use crate::config::Origin;
use crate::orchestrator::{self as lane, NotReady};

/// Which onelane this is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    /// Its version.
    version: &'static str,
    /// What tells its store from every other one of its machine; `null` where the store is no file.
    store_id: Option<String>,
    /// Whether the built-in simulator answers in place of GLM.
    simulated: bool,
}

/// `GET about`.
pub(super) async fn about(api: Arc<Api>, _: Input) -> Result<Json<About>, Problem> {
    let loaded = api.lane.config();
    let simulated = loaded.origin("glm.base_url") == Origin::Flag("--simulate");
    let path = loaded.config.store.path;
    let asking = tokio::task::spawn_blocking(move || crate::store::identity(path).ok());
    Ok(Json(About {
        version: env!("CARGO_PKG_VERSION"),
        store_id: asking.await.unwrap_or_default(),
        simulated,
    }))
}

/// How long queue and store may take each to say how they are.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// That it answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// That work is taken, and whether it is sent.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ready {
    /// `ready`, or `degraded`: work is taken, and nothing is sent.
    status: &'static str,
    /// The name of the reason for which nothing is sent. What is more to say of it is for whoever may look.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Until when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// `GET healthz`.
pub(super) async fn health(
    _: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Json<Health>, Problem> {
    Ok(Json(Health { status: "ok" }))
}

/// `GET readyz`: whether work is taken, and whether it is sent. `GET healthz` says no more than that the daemon answers.
pub(super) async fn ready(
    api: Arc<Api>,
    _: Input<Nothing, Ignored>,
) -> Result<Json<Ready>, Problem> {
    let health = api.lane.health(READY_WITHIN).await;
    let reason = match health {
        Ok(lane::Health::Ready) => None,
        Ok(lane::Health::Degraded(reason)) => Some(reason),
        Err(NotReady::Failed(error)) => return Err(error.into()),
        Err(problem) => {
            let kind = match problem {
                NotReady::DiskFull => Kind::StoreFailed,
                NotReady::IntakeClosed => Kind::Draining,
                NotReady::Slow(..) | NotReady::Stopping | NotReady::Failed(_) => Kind::Stopped,
            };
            return Err(Problem::new(kind, problem.to_string()));
        }
    };
    Ok(Json(Ready {
        status: match reason {
            None => "ready",
            Some(_) => "degraded",
        },
        until: reason.as_ref().and_then(WaitReason::until),
        reason: reason.as_ref().map(WaitReason::name),
    }))
}

/// `GET openapi.json`.
pub(super) async fn openapi(api: Arc<Api>, _: Input) -> Result<Json<Map<String, Value>>, Problem> {
    Ok(Json(openapi::document(&api.router)))
}
