//! `GET /api/admin/glm/prices`: the price list in force.

use warp::http::StatusCode;
use warp::reply::Response;

use super::problem::Problem;
use super::query::Query;
use super::{Api, reply};

/// All of it, or the rows of one model.
pub(super) fn read_prices(api: &Api, query: &str) -> Result<Response, Problem> {
    let query = Query::parse(query, &["model"])?;
    let mut list = api.lane.prices();
    if let Some(model) = query.text("model") {
        list.prices.retain(|row| row.model == model);
    }
    Ok(reply::json(StatusCode::OK, &list))
}
