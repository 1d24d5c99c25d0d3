//! The routes: one table from method and path to what is asked. A path is looked up first, its
//! method second, its id last, so that a wrong method is a 405 that names the right ones, never a
//! 404, and a bad id on the right route is a 400.

use onelane_core::model::{AttemptNo, DeliveryId, HoldScope, JobId};
use warp::http::Method;

use super::problem::{Kind, Problem};
use super::query::decode_segment;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    ReadConfig,
    ChangeConfig,
    ReadPolicy,
    ReadPrices,
    Estimate,
    Statistics,
    Calls,
    Export,
    Queue,
    QueueJob(JobId),
    DeadLetters,
    Retry(JobId),
    RetryAll,
    Cancel(JobId),
    CancelAll,
    Reprioritise(JobId),
    ReprioritiseAll,
    Pause,
    Drain,
    Resume,
    Breaker,
    ResetBreaker,
    OpenBreaker,
    /// `GET budgets`.
    Budgets,
    Holds,
    ReleaseHold(HoldScope),
    MaybeBilled,
    SettleBilling(JobId, AttemptNo),
    Metrics,
    Alerts,
    WebhookEndpoints,
    Deliveries,
    Redeliver(DeliveryId),
    RedeliverAll,
    TestWebhooks,
    SubmitJobs,
    Job(JobId),
    ChatCompletions,
}

/// The methods of a path, each with what it asks for: a route, or how to make one of a job's id.
type Methods<T> = [(Method, T)];

/// Finds the route. Empty segments don't count: base URLs come with and without a slash at their
/// end.
pub(super) fn resolve(method: &Method, path: &str) -> Result<Route, Problem> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let plain = |methods: &Methods<Route>| pick(method, path, methods);
    let of_job = |id: &str, methods: &Methods<fn(JobId) -> Route>| {
        let make = pick(method, path, methods)?;
        job_id(id).map(make)
    };
    let of_hold = |name: &str, make: fn(String) -> HoldScope| {
        pick(method, path, &[(Method::DELETE, ())])?;
        let name = decode_segment(name).ok_or_else(|| {
            Problem::new(
                Kind::InvalidId,
                format!("{name} is not percent-encoded UTF-8"),
            )
        })?;
        Ok(Route::ReleaseHold(make(name)))
    };
    match segments.as_slice() {
        ["healthz"] => plain(&[(Method::GET, Route::Health)]),
        ["api", "admin", "glm", rest @ ..] => match rest {
            ["config"] => plain(&[
                (Method::GET, Route::ReadConfig),
                (Method::PUT, Route::ChangeConfig),
            ]),
            ["policy"] => plain(&[(Method::GET, Route::ReadPolicy)]),
            ["prices"] => plain(&[(Method::GET, Route::ReadPrices)]),
            ["estimate"] => plain(&[(Method::POST, Route::Estimate)]),
            ["statistics"] => plain(&[(Method::GET, Route::Statistics)]),
            ["calls"] => plain(&[(Method::GET, Route::Calls)]),
            ["export"] => plain(&[(Method::GET, Route::Export)]),
            ["metrics"] => plain(&[(Method::GET, Route::Metrics)]),
            ["alerts"] => plain(&[(Method::GET, Route::Alerts)]),
            ["webhooks", "deliveries"] => plain(&[(Method::GET, Route::Deliveries)]),
            ["webhooks", "endpoints"] => plain(&[(Method::GET, Route::WebhookEndpoints)]),
            ["webhooks", "redeliver"] => plain(&[(Method::POST, Route::RedeliverAll)]),
            ["webhooks", "deliveries", id, "redeliver"] => {
                pick(method, path, &[(Method::POST, ())])?;
                Ok(Route::Redeliver(delivery_id(id)?))
            }
            ["webhooks", "test"] => plain(&[(Method::POST, Route::TestWebhooks)]),
            ["queue"] => plain(&[(Method::GET, Route::Queue)]),
            ["queue", id] => of_job(id, &[(Method::GET, Route::QueueJob)]),
            ["dead-letters"] => plain(&[(Method::GET, Route::DeadLetters)]),
            ["retry"] => plain(&[(Method::POST, Route::RetryAll)]),
            ["cancel"] => plain(&[(Method::POST, Route::CancelAll)]),
            ["reprioritise"] => plain(&[(Method::POST, Route::ReprioritiseAll)]),
            ["retry", id] => of_job(id, &[(Method::POST, Route::Retry)]),
            ["cancel", id] => of_job(id, &[(Method::POST, Route::Cancel)]),
            ["reprioritise", id] => of_job(id, &[(Method::POST, Route::Reprioritise)]),
            ["pause"] => plain(&[(Method::POST, Route::Pause)]),
            ["drain"] => plain(&[(Method::POST, Route::Drain)]),
            ["resume"] => plain(&[(Method::POST, Route::Resume)]),
            ["breaker"] => plain(&[(Method::GET, Route::Breaker)]),
            ["breaker", "reset"] => plain(&[(Method::POST, Route::ResetBreaker)]),
            ["breaker", "open"] => plain(&[(Method::POST, Route::OpenBreaker)]),
            ["budgets"] => plain(&[(Method::GET, Route::Budgets)]),
            ["holds"] => plain(&[(Method::GET, Route::Holds)]),
            ["holds", "account"] => {
                plain(&[(Method::DELETE, Route::ReleaseHold(HoldScope::Account))])
            }
            ["holds", "lane", name] => of_hold(name, HoldScope::Lane),
            ["holds", "model", name] => of_hold(name, HoldScope::Model),
            ["maybe-billed"] => plain(&[(Method::GET, Route::MaybeBilled)]),
            ["maybe-billed", id, attempt] => {
                pick(method, path, &[(Method::POST, ())])?;
                Ok(Route::SettleBilling(job_id(id)?, attempt_no(attempt)?))
            }
            _ => Err(unknown(path)),
        },
        ["api", "glm", "jobs", rest @ ..] => match rest {
            [] => plain(&[(Method::POST, Route::SubmitJobs)]),
            [id] => of_job(
                id,
                &[(Method::GET, Route::Job), (Method::DELETE, Route::Cancel)],
            ),
            [id, "cancel"] => of_job(id, &[(Method::POST, Route::Cancel)]),
            _ => Err(unknown(path)),
        },
        ["v1", "chat", "completions"] | ["api", "paas", "v4", "chat", "completions"] => {
            plain(&[(Method::POST, Route::ChatCompletions)])
        }
        _ => Err(unknown(path)),
    }
}

fn job_id(id: &str) -> Result<JobId, Problem> {
    id.parse().map_err(|_| {
        Problem::new(
            Kind::InvalidId,
            format!("{id} is not a job id; an id is a UUID, as in the answer to a submission"),
        )
    })
}

fn attempt_no(text: &str) -> Result<AttemptNo, Problem> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(AttemptNo).ok_or_else(|| {
        Problem::new(
            Kind::InvalidId,
            format!("{text} is not an attempt; attempts are numbered from 1"),
        )
    })
}

fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map(DeliveryId).map_err(|_| {
        Problem::new(
            Kind::InvalidId,
            format!("{text} is not a delivery; its id is a number, as in the list of deliveries"),
        )
    })
}

fn unknown(path: &str) -> Problem {
    Problem::new(Kind::UnknownRoute, format!("there is nothing at {path}"))
}

/// What `method` asks for; HEAD asks what GET asks, and the server leaves the body out.
fn pick<T: Clone>(method: &Method, path: &str, methods: &Methods<T>) -> Result<T, Problem> {
    let wanted = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let found = methods.iter().find(|(allowed, _)| allowed == wanted);
    found.map(|(_, what)| what.clone()).ok_or_else(|| {
        let mut allowed: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        Problem::wrong_method(method.as_str(), path, &allowed.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0199a000-0000-7000-8000-000000000001";

    fn check(method: &str, path: &str, want: Route) {
        let method = method.parse().unwrap();
        assert_eq!(resolve(&method, path), Ok(want), "{path}");
    }

    #[test]
    fn every_route_is_found() {
        let id: JobId = ID.parse().unwrap();
        check("GET", "/healthz", Route::Health);
        check("HEAD", "/healthz", Route::Health);
        check("GET", "/api/admin/glm/config", Route::ReadConfig);
        check("PUT", "/api/admin/glm/config", Route::ChangeConfig);
        check("GET", "/api/admin/glm/policy", Route::ReadPolicy);
        check("GET", "/api/admin/glm/prices", Route::ReadPrices);
        check("POST", "/api/admin/glm/estimate", Route::Estimate);
        check("GET", "/api/admin/glm/statistics", Route::Statistics);
        check("GET", "/api/admin/glm/calls", Route::Calls);
        check("GET", "/api/admin/glm/export", Route::Export);
        check("GET", "/api/admin/glm/queue", Route::Queue);
        check(
            "GET",
            &format!("/api/admin/glm/queue/{ID}"),
            Route::QueueJob(id),
        );
        check(
            "POST",
            &format!("/api/admin/glm/retry/{ID}"),
            Route::Retry(id),
        );
        check(
            "POST",
            &format!("/api/admin/glm/cancel/{ID}"),
            Route::Cancel(id),
        );
        check("GET", "/api/admin/glm/dead-letters", Route::DeadLetters);
        check("POST", "/api/admin/glm/retry", Route::RetryAll);
        check("POST", "/api/admin/glm/cancel", Route::CancelAll);
        check(
            "POST",
            "/api/admin/glm/reprioritise",
            Route::ReprioritiseAll,
        );
        check(
            "POST",
            &format!("/api/admin/glm/reprioritise/{ID}"),
            Route::Reprioritise(id),
        );
        check("POST", "/api/admin/glm/drain", Route::Drain);
        check("GET", "/api/admin/glm/breaker", Route::Breaker);
        check("POST", "/api/admin/glm/breaker/reset", Route::ResetBreaker);
        check("POST", "/api/admin/glm/breaker/open", Route::OpenBreaker);
        check("GET", "/api/admin/glm/budgets", Route::Budgets);
        check("GET", "/api/admin/glm/holds", Route::Holds);
        check(
            "DELETE",
            "/api/admin/glm/holds/account",
            Route::ReleaseHold(HoldScope::Account),
        );
        check(
            "DELETE",
            "/api/admin/glm/holds/lane/a%20b%2Fc+d",
            Route::ReleaseHold(HoldScope::Lane("a b/c+d".to_owned())),
        );
        check(
            "DELETE",
            "/api/admin/glm/holds/model/glm-4.7",
            Route::ReleaseHold(HoldScope::Model("glm-4.7".to_owned())),
        );
        check("GET", "/api/admin/glm/maybe-billed", Route::MaybeBilled);
        check(
            "POST",
            &format!("/api/admin/glm/maybe-billed/{ID}/3"),
            Route::SettleBilling(id, AttemptNo(3)),
        );
        check("POST", "/api/admin/glm/pause", Route::Pause);
        check("POST", "/api/admin/glm/resume", Route::Resume);
        check("GET", "/api/admin/glm/metrics", Route::Metrics);
        check("GET", "/api/admin/glm/alerts", Route::Alerts);
        let webhooks = "/api/admin/glm/webhooks";
        check("GET", &format!("{webhooks}/deliveries"), Route::Deliveries);
        check("POST", &format!("{webhooks}/test"), Route::TestWebhooks);
        check(
            "GET",
            &format!("{webhooks}/endpoints"),
            Route::WebhookEndpoints,
        );
        check(
            "POST",
            &format!("{webhooks}/redeliver"),
            Route::RedeliverAll,
        );
        check(
            "POST",
            &format!("{webhooks}/deliveries/7/redeliver"),
            Route::Redeliver(DeliveryId(7)),
        );
        check("POST", "/api/glm/jobs", Route::SubmitJobs);
        check("GET", &format!("/api/glm/jobs/{ID}"), Route::Job(id));
        check("DELETE", &format!("/api/glm/jobs/{ID}"), Route::Cancel(id));
        check(
            "POST",
            &format!("/api/glm/jobs/{ID}/cancel"),
            Route::Cancel(id),
        );
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/v1//chat/completions",
            "/api/paas/v4/chat/completions",
            "/api/paas/v4//chat/completions/",
        ] {
            check("POST", path, Route::ChatCompletions);
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones_even_beside_a_bad_id() {
        let check = |method: &str, path: &str, allowed: &str| {
            let problem = resolve(&method.parse().unwrap(), path).unwrap_err();
            let want = Problem::wrong_method(method, path, allowed);
            assert_eq!(problem, want);
        };
        check("POST", "/api/admin/glm/config", "GET, PUT, HEAD");
        let redeliver = "/api/admin/glm/webhooks/deliveries/x/redeliver";
        check("GET", redeliver, "POST");
        check("GET", "/api/admin/glm/retry/nonsense", "POST");
        check("PUT", "/api/glm/jobs/nonsense", "GET, DELETE, HEAD");
        check("OPTIONS", "/v1/chat/completions", "POST");
        check("GET", "/api/admin/glm/holds/model/glm-5", "DELETE");
        check("GET", "/api/admin/glm/maybe-billed/1/0", "POST");
    }

    #[test]
    fn what_is_not_there_is_named() {
        for path in [
            "/",
            "/api",
            "/api/admin/glm",
            "/v1/models",
            "/api/glm/jobs/a/b/c",
            "*",
        ] {
            let problem = resolve(&Method::GET, path).unwrap_err();
            assert_eq!(problem, unknown(path));
        }
        let problem = resolve(&Method::GET, "/api/glm/jobs/17").unwrap_err();
        assert_eq!(problem.status(), 400);
        let body = serde_json::to_value(problem.body()).unwrap();
        assert_eq!(body["title"], "wrong id");
        let refused = |method, path: &str| resolve(&method, path).unwrap_err().status();
        let attempt = format!("/api/admin/glm/maybe-billed/{ID}/0");
        assert_eq!(refused(Method::POST, &attempt), 400);
        assert_eq!(
            refused(Method::DELETE, "/api/admin/glm/holds/model/%ff"),
            400
        );
    }
}
