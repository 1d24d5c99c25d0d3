//! `GET /api/admin/glm/policy`: what each error code means to the job, the lane and the breaker.

use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use super::{Api, reply};
use crate::config::PolicyRow;

#[derive(Serialize)]
struct PolicyBody {
    policy: Vec<PolicyRow>,
}

/// The table in force.
pub(super) fn read_policy(api: &Api) -> Response {
    let body = PolicyBody {
        policy: api.lane.policy(),
    };
    reply::json(StatusCode::OK, &body)
}
