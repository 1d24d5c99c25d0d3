//! The HTTP API: one warp filter that hands every request to a small routing table, so that every
//! answer, good or bad, is made in one place.
//!
//! | module | what it is for |
//! |---|---|
//! | [`server`] | the listener: bounds, timeouts, graceful end |
//! | `route` | method and path to what is asked; 404, 405, bad ids |
//! | `auth` | who may ask |
//! | `body`, `query`, `fields`, `submission` | what is asked, checked |
//! | `admin`, `control`, `bulk`, `billing` | the answers for operators: what is, what is to be, many jobs, money in doubt |
//! | `log` | the call log, and all that the store has as lines |
//! | `notify` | alerts, and deliveries to webhooks |
//! | `policy`, `prices` | the tables in force: rules, prices |
//! | `estimate` | what jobs may cost |
//! | `jobs`, `gateway` | the answers for programs, and for OpenAI and GLM SDKs |
//! | `views`, `reply`, `problem` | how answers look |
//! | [`lane`] | what all this needs of the orchestrator |

mod admin;
mod auth;
mod billing;
mod body;
mod bulk;
mod control;
mod estimate;
mod fields;
mod gateway;
mod jobs;
mod log;
mod notify;
mod policy;
mod prices;
mod problem;
mod query;
mod reply;
mod route;
mod submission;
pub(crate) mod views;

pub mod lane;
pub mod limits;
pub mod server;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf;
use futures_util::Stream;
use onelane_actors::ports::Clock;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;

use auth::Auth;
use body::Body;
use lane::Lane;
use problem::{Dialect, Problem};
use query::Query;
use route::Route;

pub use server::{ApiConfig, BindError, Listening, Server};

/// What every answer needs.
struct Api {
    lane: Arc<dyn Lane>,
    clock: Arc<dyn Clock>,
    auth: Auth,
    max_body_bytes: usize,
    body_idle: Duration,
    preview_chars: usize,
}

/// The whole API as one filter. It never rejects: what is wrong is an answer, too.
fn filter(api: Arc<Api>) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method, path, query, headers, body| {
            let api = Arc::clone(&api);
            async move { api.answer(method, path, query, headers, body).await }
        })
        .boxed()
}

impl Api {
    async fn answer<B: Buf>(
        &self,
        method: Method,
        path: FullPath,
        query: String,
        headers: HeaderMap,
        chunks: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Response {
        let started = Instant::now();
        let path = path.as_str();
        let body = Body::new(chunks, self.max_body_bytes, self.body_idle);
        let served = self.serve(&method, path, &query, &headers, body).await;
        let mut response =
            served.unwrap_or_else(|problem| problem.into_response(Dialect::of(path)));
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        tracing::debug!(
            %method,
            path,
            status = response.status().as_u16(),
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        response
    }

    async fn serve(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Problem> {
        let route = route::resolve(method, path);
        if route != Ok(Route::Health) {
            // Before anything else: who may not ask learns nothing and sends no body.
            self.auth.check(headers)?;
        }
        let route = route?;
        if !takes_parameters(&route) {
            Query::parse(query, &[])?;
        }
        match route {
            Route::Health => Ok(reply::json(StatusCode::OK, &json!({ "status": "ok" }))),
            Route::ReadConfig => Ok(admin::read_config(self)),
            Route::ChangeConfig => admin::change_config(self, headers, body).await,
            Route::ReadPolicy => Ok(policy::read_policy(self)),
            Route::ReadPrices => prices::read_prices(self, query),
            Route::Estimate => estimate::estimate(self, headers, body).await,
            Route::Statistics => admin::read_statistics(self, query).await,
            Route::Calls => log::calls(self, query).await,
            Route::Export => log::export(self, query).await,
            Route::Queue => admin::read_queue(self, query).await,
            Route::QueueJob(id) => admin::read_job(self, id).await,
            Route::Metrics => admin::metrics(self).await,
            Route::Alerts => Ok(notify::alerts(self)),
            Route::WebhookEndpoints => notify::endpoints(self).await,
            Route::Deliveries => notify::deliveries(self, query).await,
            Route::RedeliverAll => notify::redeliver_all(self, headers, body).await,
            Route::Redeliver(id) => {
                body.nothing(headers).await?;
                notify::redeliver(self, id).await
            }
            Route::TestWebhooks => notify::test(self, headers, body).await,
            Route::DeadLetters => admin::dead_letters(self, query).await,
            Route::Pause => control::pause(self, headers, body).await,
            Route::Drain => control::drain(self, headers, body).await,
            Route::Resume => {
                body.nothing(headers).await?;
                control::resume(self).await
            }
            Route::Breaker => Ok(control::breaker(self)),
            Route::ResetBreaker => {
                body.nothing(headers).await?;
                control::reset_breaker(self).await
            }
            Route::OpenBreaker => control::open_breaker(self, headers, body).await,
            Route::Budgets => control::budgets(self).await,
            Route::Holds => control::holds(self).await,
            Route::ReleaseHold(scope) => {
                body.nothing(headers).await?;
                control::release(self, scope).await
            }
            Route::RetryAll => bulk::retry(self, headers, body).await,
            Route::CancelAll => bulk::cancel(self, headers, body).await,
            Route::Reprioritise(id) => bulk::reprioritise_one(self, id, headers, body).await,
            Route::ReprioritiseAll => bulk::reprioritise(self, headers, body).await,
            Route::MaybeBilled => billing::list(self, query).await,
            Route::SettleBilling(id, attempt) => {
                billing::settle(self, id, attempt, headers, body).await
            }
            Route::Retry(id) => {
                body.nothing(headers).await?;
                admin::retry(self, id).await
            }
            Route::Cancel(id) => {
                body.nothing(headers).await?;
                admin::cancel(self, id).await
            }
            Route::SubmitJobs => jobs::submit(self, headers, body).await,
            Route::Job(id) => jobs::read(self, id, query).await,
            Route::ChatCompletions => gateway::chat_completions(self, headers, body).await,
        }
    }
}

/// Routes that read their query themselves. The SDKs' route does not look at its query: some SDKs
/// add an API version there.
const fn takes_parameters(route: &Route) -> bool {
    matches!(
        route,
        Route::Statistics
            | Route::Calls
            | Route::Export
            | Route::ReadPrices
            | Route::Queue
            | Route::DeadLetters
            | Route::MaybeBilled
            | Route::Deliveries
            | Route::Job(_)
            | Route::ChatCompletions
    )
}
