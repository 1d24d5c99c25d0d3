//! `onelane breaker`: its state, closed and opened by hand.

use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::nouns::{Breaker, BreakerAnswer};
use super::words::{ago, now, until};
use crate::cli::args::remote::{BreakerVerb, OpenBreakerArgs};
use crate::cli::exit::{CliError, Exit};

/// Dispatches to the verb. All of them tell how it is then.
pub(super) async fn breaker(
    verb: BreakerVerb,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let answer = match verb {
        BreakerVerb::Show => {
            daemon
                .get("/api/admin/glm/breaker", &Query::default())
                .await?
        }
        BreakerVerb::Reset => daemon.order("/api/admin/glm/breaker/reset").await?,
        BreakerVerb::Open(args) => {
            daemon
                .post("/api/admin/glm/breaker/open", &opening(&args))
                .await?
        }
    };
    answer.tell(json, |BreakerAnswer { breaker }| text(&breaker))?;
    Ok(Exit::Done)
}

fn opening(args: &OpenBreakerArgs) -> Value {
    let mut body = Map::new();
    if let Some(span) = args.span {
        body.insert(
            "forMs".to_owned(),
            json!(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        );
    }
    if let Some(reason) = &args.reason {
        body.insert("reason".to_owned(), json!(reason));
    }
    Value::Object(body)
}

fn text(breaker: &Breaker) -> String {
    let now = now();
    let state = breaker.state.replace('_', "-");
    let mut lines = vec![format!("state     {state}, {}", ago(breaker.since, now))];
    if let Some(reason) = &breaker.reason {
        let by = if breaker.forced { "an operator: " } else { "" };
        lines.push(format!("why       {by}{reason}"));
    }
    match (breaker.probe_at, breaker.state.as_str()) {
        (Some(at), "open") => lines.push(format!("next try  {}", until(at, now))),
        (None, "open") => lines.push("next try  after `onelane breaker reset`".to_owned()),
        _ => {}
    }
    lines.push(format!(
        "failures  {} in a row, {} of the {} calls of its window",
        breaker.consecutive_failures, breaker.window_failures, breaker.window_calls
    ));
    lines.join("\n")
}
