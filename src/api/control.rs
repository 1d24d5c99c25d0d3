//! `/api/admin/glm`: what an operator says to a running lane: pause, drain, resume, breaker, holds.

use onelane_core::model::{BreakerSnapshot, HoldScope};
use serde::Serialize;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::{Fields, Object};
use super::problem::{Kind, Problem};
use super::views::{BreakerView, ScopedHoldView, StandingView};
use super::{Api, limits, reply};

/// `POST pause`, with a reason or without.
pub(super) async fn pause(api: &Api, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let reason = reason(headers, body).await?;
    api.lane.pause(reason).await?;
    Ok(reply::success())
}

/// `POST drain`, with a reason or without: what waits is worked off, nothing more is taken.
pub(super) async fn drain(api: &Api, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let reason = reason(headers, body).await?;
    api.lane.close_intake(reason).await?;
    Ok(reply::success())
}

/// `POST resume`.
pub(super) async fn resume(api: &Api) -> Result<Response, Problem> {
    api.lane.resume().await?;
    Ok(reply::success())
}

#[derive(Serialize)]
struct BreakerBody<'a> {
    breaker: BreakerView<'a>,
}

fn shown(breaker: &BreakerSnapshot) -> Response {
    let breaker = BreakerView::new(breaker);
    reply::json(StatusCode::OK, &BreakerBody { breaker })
}

/// `GET breaker`.
pub(super) fn breaker(api: &Api) -> Response {
    shown(&api.lane.breaker())
}

/// `POST breaker/reset`: answers the breaker as it is then.
pub(super) async fn reset_breaker(api: &Api) -> Result<Response, Problem> {
    Ok(shown(&api.lane.breaker_reset().await?))
}

/// `POST breaker/open`, for some milliseconds or until it is reset: answers the breaker as it is then.
pub(super) async fn open_breaker(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (mut reason, mut for_ms) = (None, None);
    if let Some(mut fields) = fields(headers, body).await? {
        reason = fields.text("reason", limits::REASON_CHARS_MAX);
        for_ms = fields.milliseconds("forMs", 1..=limits::BREAKER_OPEN_MS_MAX);
        finish(fields)?;
    }
    let reason = reason.unwrap_or_else(|| "opened by an operator".to_owned());
    let until = for_ms.map(|ms| api.clock.now().plus_ms(ms));
    Ok(shown(&api.lane.breaker_open(reason, until).await?))
}

#[derive(Serialize)]
struct HoldsBody<'a> {
    holds: Vec<ScopedHoldView<'a>>,
}

/// `GET holds`.
pub(super) async fn holds(api: &Api) -> Result<Response, Problem> {
    let lane = api.lane.lane().await?;
    let holds = ScopedHoldView::all(&lane.holds);
    Ok(reply::json(StatusCode::OK, &HoldsBody { holds }))
}

#[derive(Serialize)]
struct BudgetsBody<'a> {
    budgets: Vec<StandingView<'a>>,
}

/// `GET budgets`.
pub(super) async fn budgets(api: &Api) -> Result<Response, Problem> {
    let standings = api.lane.budgets().await?;
    let budgets = standings.iter().map(StandingView::new).collect();
    Ok(reply::json(StatusCode::OK, &BudgetsBody { budgets }))
}

/// `DELETE holds/...`: ends that one.
pub(super) async fn release(api: &Api, scope: HoldScope) -> Result<Response, Problem> {
    api.lane.release_hold(scope).await?;
    Ok(reply::success())
}

/// What an operator says, if anything.
async fn reason(headers: &HeaderMap, body: Body) -> Result<Option<String>, Problem> {
    let Some(mut fields) = fields(headers, body).await? else {
        return Ok(None);
    };
    let reason = fields.text("reason", limits::REASON_CHARS_MAX);
    finish(fields)?;
    Ok(reason)
}

/// The fields of a body that may be missing.
async fn fields(headers: &HeaderMap, body: Body) -> Result<Option<Fields>, Problem> {
    let Some(raw) = body.optional_json(headers).await? else {
        return Ok(None);
    };
    let object = Object::read(&raw)
        .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
    Ok(Some(Fields::new(String::new(), object)))
}

fn finish(fields: Fields) -> Result<(), Problem> {
    fields
        .finish()
        .map_err(|faults| Problem::faults(Kind::InvalidField, faults))
}
