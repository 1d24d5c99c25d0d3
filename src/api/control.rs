//! What an operator says to a running lane: pause, drain, resume, breaker, holds, and how budgets stand.

use std::sync::Arc;

use onelane_core::model::{BreakerSnapshot, BudgetStatuses, HoldScope, ScopedHold};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Json, Success};
use super::input::{Input, Nothing, Optional};
use super::problem::Problem;
use super::{Api, limits};

/// Why an operator does what they do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// Shown wherever the lane is.
    #[schemars(length(min = 1, max = limits::REASON_CHARS_MAX))]
    reason: Option<String>,
}

type Reasoned = Input<Nothing, Nothing, Optional<Reason>>;

/// `POST pause`, with a reason or without.
pub(super) async fn pause(api: Arc<Api>, input: Reasoned) -> Result<Json<Success>, Problem> {
    api.lane.pause(input.body.0.reason).await?;
    Ok(Success::done())
}

/// `POST drain`, with a reason or without: what waits is worked off, nothing more is taken.
pub(super) async fn drain(api: Arc<Api>, input: Reasoned) -> Result<Json<Success>, Problem> {
    api.lane.close_intake(input.body.0.reason).await?;
    Ok(Success::done())
}

/// `POST resume`.
pub(super) async fn resume(api: Arc<Api>, _: Input) -> Result<Json<Success>, Problem> {
    api.lane.resume().await?;
    Ok(Success::done())
}

/// The breaker as it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct BreakerAnswer {
    breaker: BreakerSnapshot,
}

/// `GET breaker`.
pub(super) async fn breaker(api: Arc<Api>, _: Input) -> Result<Json<BreakerAnswer>, Problem> {
    let breaker = api.lane.breaker();
    Ok(Json(BreakerAnswer { breaker }))
}

/// `POST breaker/reset`: answers the breaker as it is then.
pub(super) async fn reset_breaker(api: Arc<Api>, _: Input) -> Result<Json<BreakerAnswer>, Problem> {
    let breaker = api.lane.breaker_reset().await?;
    Ok(Json(BreakerAnswer { breaker }))
}

/// How the breaker is opened.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Opening {
    /// Shown wherever the breaker is.
    #[schemars(length(min = 1, max = limits::REASON_CHARS_MAX))]
    reason: Option<String>,
    /// For how many milliseconds; until it is reset without it.
    #[schemars(range(min = 1, max = limits::BREAKER_OPEN_MS_MAX))]
    for_ms: Option<u64>,
}

/// `POST breaker/open`, for some milliseconds or until it is reset: answers the breaker as it is then.
pub(super) async fn open_breaker(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Optional<Opening>>,
) -> Result<Json<BreakerAnswer>, Problem> {
    let Opening { reason, for_ms } = input.body.0;
    let reason = reason.unwrap_or_else(|| "opened by an operator".to_owned());
    let until = for_ms.map(|ms| api.clock.now().plus_ms(ms));
    let breaker = api.lane.breaker_open(reason, until).await?;
    Ok(Json(BreakerAnswer { breaker }))
}

/// Every hold in force: the account's first, then the lanes', then the models'.
#[derive(Serialize, JsonSchema)]
pub(super) struct HoldsAnswer {
    holds: Vec<ScopedHold>,
}

/// `GET holds`.
pub(super) async fn holds(api: Arc<Api>, _: Input) -> Result<Json<HoldsAnswer>, Problem> {
    let holds = api.lane.lane().await?.holds;
    Ok(Json(HoldsAnswer { holds }))
}

/// `GET budgets`.
pub(super) async fn budgets(api: Arc<Api>, _: Input) -> Result<Json<BudgetStatuses>, Problem> {
    Ok(Json(api.lane.budgets().await?))
}

/// What is held, by its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamePath {
    /// Of the lane or model, percent-encoded.
    #[schemars(length(min = 1))]
    name: String,
}

/// `DELETE holds/account`.
pub(super) async fn release_account(api: Arc<Api>, _: Input) -> Result<Json<Success>, Problem> {
    api.lane.release_hold(HoldScope::Account).await?;
    Ok(Success::done())
}

/// `DELETE holds/lane/{name}`.
pub(super) async fn release_lane(
    api: Arc<Api>,
    input: Input<NamePath>,
) -> Result<Json<Success>, Problem> {
    let scope = HoldScope::Lane(input.path.name);
    api.lane.release_hold(scope).await?;
    Ok(Success::done())
}

/// `DELETE holds/model/{name}`.
pub(super) async fn release_model(
    api: Arc<Api>,
    input: Input<NamePath>,
) -> Result<Json<Success>, Problem> {
    let scope = HoldScope::Model(input.path.name);
    api.lane.release_hold(scope).await?;
    Ok(Success::done())
}
