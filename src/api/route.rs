//! The routes: one table from method and path to what is asked. A path is looked up first, its
//! method second, its id last, so that a wrong method is a 405 that names the right ones, never a
//! 404, and a bad id on the right route is a 400.

use onelane_actors::model::JobId;
use warp::http::Method;

use super::problem::{Kind, Problem};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    ReadConfig,
    ChangeConfig,
    ReadPolicy,
    Statistics,
    Queue,
    QueueJob(JobId),
    Retry(JobId),
    Cancel(JobId),
    Pause,
    Resume,
    Metrics,
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
        id.parse().map(make).map_err(|_| {
            Problem::new(
                Kind::InvalidId,
                format!("{id} is not a job id; an id is a UUID, as in the answer to a submission"),
            )
        })
    };
    match segments.as_slice() {
        ["healthz"] => plain(&[(Method::GET, Route::Health)]),
        ["api", "admin", "glm", rest @ ..] => match rest {
            ["config"] => plain(&[
                (Method::GET, Route::ReadConfig),
                (Method::PUT, Route::ChangeConfig),
            ]),
            ["policy"] => plain(&[(Method::GET, Route::ReadPolicy)]),
            ["statistics"] => plain(&[(Method::GET, Route::Statistics)]),
            ["metrics"] => plain(&[(Method::GET, Route::Metrics)]),
            ["queue"] => plain(&[(Method::GET, Route::Queue)]),
            ["queue", id] => of_job(id, &[(Method::GET, Route::QueueJob)]),
            ["retry", id] => of_job(id, &[(Method::POST, Route::Retry)]),
            ["cancel", id] => of_job(id, &[(Method::POST, Route::Cancel)]),
            ["pause"] => plain(&[(Method::POST, Route::Pause)]),
            ["resume"] => plain(&[(Method::POST, Route::Resume)]),
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

fn unknown(path: &str) -> Problem {
    Problem::new(Kind::UnknownRoute, format!("there is nothing at {path}"))
}

/// What `method` asks for; HEAD asks what GET asks, and the server leaves the body out.
fn pick<T: Copy>(method: &Method, path: &str, methods: &Methods<T>) -> Result<T, Problem> {
    let wanted = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let found = methods.iter().find(|(allowed, _)| allowed == wanted);
    found.map(|(_, what)| *what).ok_or_else(|| {
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
        check("GET", "/api/admin/glm/statistics", Route::Statistics);
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
        check("POST", "/api/admin/glm/pause", Route::Pause);
        check("POST", "/api/admin/glm/resume", Route::Resume);
        check("GET", "/api/admin/glm/metrics", Route::Metrics);
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
        check("GET", "/api/admin/glm/retry/nonsense", "POST");
        check("PUT", "/api/glm/jobs/nonsense", "GET, DELETE, HEAD");
        check("OPTIONS", "/v1/chat/completions", "POST");
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
    }
}
