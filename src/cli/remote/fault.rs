//! What is wrong with a request to a daemon, as words and an exit code: the only place that knows which is which.

use std::error::Error as _;

use serde::Deserialize;

use super::client::Daemon;
use super::target::NamedBy;
use crate::cli::exit::{CliError, Exit};

/// A problem as the API tells it.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Field>,
}

/// What the types of problems begin with.
const PROBLEM: &str = "urn:onelane:problem:";

/// An error in the form of OpenAI's.
#[derive(Debug, Deserialize)]
struct OfSdks {
    error: ErrorOfSdks,
}

#[derive(Debug, Deserialize)]
struct ErrorOfSdks {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Field {
    field: String,
    problem: String,
}

/// Nobody answers.
pub(super) fn unreachable(daemon: &Daemon, error: &reqwest::Error) -> CliError {
    let (url, named_by) = (daemon.url(), &daemon.place.named_by);
    if error.is_timeout() && !error.is_connect() {
        return broken(daemon, error);
    }
    let why = innermost(error);
    let problem = format!("no daemon answers at {url} ({named_by}): {why}");
    let help = if why.contains("certificate") {
        "name the authority of its certificate with --ca-file"
    } else if url.starts_with("https://") {
        "start one with `onelane serve`, or name another with --url, ONELANE_URL or --context; without TLS the URL begins with http://"
    } else {
        "start one with `onelane serve`, or name another with --url, ONELANE_URL or --context"
    };
    CliError::new(Exit::NoDaemon, problem).help(help)
}

/// The answer did not come whole.
pub(super) fn broken(daemon: &Daemon, error: &reqwest::Error) -> CliError {
    let why = match error.is_timeout() {
        true => "it took too long".to_owned(),
        false => innermost(error),
    };
    let problem = format!("the answer of {} broke off: {why}", daemon.url());
    CliError::new(Exit::NoDaemon, problem)
        .help("see whether the daemon still runs; what it has accepted is on disk")
}

/// The last words of a chain of errors: the system's.
fn innermost(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = inner.to_string();
        source = inner.source();
    }
    words
}

/// The answer is a problem.
pub(super) fn problem(daemon: &Daemon, status: u16, body: &str, asked: &str) -> CliError {
    let url = daemon.url();
    let problem: Problem = serde_json::from_str(body).unwrap_or_default();
    // The routes of SDKs tell in their own form that nobody gets in.
    let of_sdks = serde_json::from_str::<OfSdks>(body).ok();
    let refused = of_sdks.filter(|_| matches!(status, 401 | 403));
    let problem = match refused {
        Some(OfSdks { error }) => Problem {
            kind: format!("{PROBLEM}unauthorized"),
            detail: error.message,
            ..problem
        },
        None => problem,
    };
    let Some(kind) = problem.kind.strip_prefix(PROBLEM) else {
        let answered = format!("{url} answered {status} to {asked}, and not as onelane does");
        return CliError::new(Exit::NoDaemon, answered).help(
            "another program listens there; name the daemon with --url, ONELANE_URL or --context",
        );
    };
    let mut words = match problem.detail.is_empty() {
        true => problem.title.clone(),
        false => problem.detail.clone(),
    };
    for Field { field, problem } in &problem.errors {
        if !words.contains(problem.as_str()) {
            words.push_str(&format!("; {field} {problem}"));
        }
    }
    let (exit, help) = judge(kind, daemon);
    let words = match exit {
        Exit::NoDaemon => format!("the daemon at {url} does not know {asked}: {words}"),
        _ => words,
    };
    let error = CliError::new(exit, words);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// The exit code of a problem, and the way out.
fn judge(kind: &str, daemon: &Daemon) -> (Exit, Option<String>) {
    let url = daemon.url();
    let help = |text: &str| Some(text.to_owned());
    match kind {
        "unauthorized" => {
            let help = match &daemon.place.token {
                None => format!(
                    "{url} wants a token: set ONELANE_ADMIN_TOKEN to the one that the daemon was started with, or name a \
                     file with --token-file"
                ),
                Some((_, NamedBy::Env(name))) => {
                    format!("{url} does not take the token of {name}; set that of this daemon")
                }
                Some((_, named_by)) => {
                    format!("{url} does not take the token {named_by}; give that of this daemon")
                }
            };
            (Exit::Usage, Some(help))
        }
        "forbidden" => (
            Exit::Usage,
            help("use the daemon's admin token: a viewer's only looks"),
        ),
        "unknown-route" | "wrong-method" => (
            Exit::NoDaemon,
            help(
                "it is of another version: use the onelane of that version, or start the daemon anew with this one",
            ),
        ),
        "unknown-job" => (Exit::Usage, help("`onelane jobs ls` lists the jobs")),
        "unknown-batch" => (Exit::Usage, help("`onelane batch ls` lists the batches")),
        "unknown-key" => (Exit::Usage, help("`onelane keys ls` lists the client keys")),
        "unknown-delivery" => (
            Exit::Usage,
            help("`onelane webhooks ls` lists the deliveries"),
        ),
        "unknown-endpoint" => (
            Exit::Usage,
            help("`onelane webhooks endpoints` lists the endpoints"),
        ),
        "unknown-hold" => (Exit::Usage, help("`onelane holds ls` lists what is held")),
        "wrong-status"
        | "dead-key"
        | "idempotency-conflict"
        | "request-pruned"
        | "dependency-ended"
        | "no-stream" => (Exit::JobsFailed, None),
        "queue-full" | "over-budget" | "rate-limited" | "waits-for-quota" | "busy"
        | "waits-in-vain" | "wait-timeout" => (
            Exit::JobsFailed,
            help("run the same command again a little later"),
        ),
        "draining" => (Exit::Held, help("`onelane lane resume` opens the intake")),
        "store-failed" => (Exit::Store, help("see the daemon's log, and its disk")),
        "stopped" | "internal" | "job-failed" | "job-cancelled" => {
            (Exit::JobsFailed, help("see the daemon's log"))
        }
        // What is left is about what was asked.
        _ => (Exit::Usage, None),
    }
}
