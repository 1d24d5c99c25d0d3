//! `onelane lane`: pause, resume, drain, and the bounds of a lane.

use serde_json::{Map, Value, json};

use super::client::{Answer, Daemon, Query};
use super::nouns::{Lane, Metrics};
use super::status::{stops, waiting};
use super::words::now;
use crate::cli::args::remote::{LaneVerb, ReasonArgs, SetLaneArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// The lane that has the settings without a name.
const DEFAULT: &str = "default";

/// Dispatches to the verb.
pub(super) async fn lane(verb: LaneVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        LaneVerb::Show => show(daemon, json).await,
        LaneVerb::Pause(args) => {
            let answer = said(daemon, "pause", args).await?;
            answer.tell(json, |_: Value| {
                "paused: the open call ends by itself; `onelane lane resume` goes on".to_owned()
            })?;
            Ok(Exit::Done)
        }
        LaneVerb::Drain(args) => {
            let answer = said(daemon, "drain", args).await?;
            answer.tell(json, |_: Value| {
                "the intake is closed and what waits is worked off; `onelane lane resume` opens it".to_owned()
            })?;
            Ok(Exit::Done)
        }
        LaneVerb::Resume => {
            let answer = daemon.order("/api/admin/glm/resume").await?;
            answer.tell(json, |_: Value| {
                "resumed: pause, holds and a closed intake are over".to_owned()
            })?;
            Ok(Exit::Done)
        }
        LaneVerb::Set(args) => set(&args, daemon, json).await,
    }
}

async fn said(daemon: &Daemon, what: &str, args: ReasonArgs) -> Result<Answer, CliError> {
    let body = match args.reason {
        Some(reason) => json!({"reason": reason}),
        None => json!({}),
    };
    daemon.post(&format!("/api/admin/glm/{what}"), &body).await
}

async fn show(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let answer = daemon
        .get("/api/admin/glm/metrics", &Query::default())
        .await?;
    let now = now();
    answer.tell(json, |metrics: Metrics| {
        let row = |lane: &Lane| {
            [
                lane.name.clone(),
                lane.in_flight.to_string(),
                lane.limit.to_string(),
                lane.max_concurrency.to_string(),
                lane.wait_reason
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |reason| reason.told(now)),
            ]
        };
        let rows: Vec<_> = metrics.lane.lanes.iter().map(row).collect();
        let mut lines = stops(&metrics.lane, now);
        lines.push(fitting(
            ["LANE", "BUSY", "LIMIT", "SLOTS", "WHY IT WAITS"],
            &rows,
        ));
        lines.push(format!("queue   {}", waiting(&metrics)));
        lines.join("\n")
    })?;
    Ok(Exit::Done)
}

async fn set(args: &SetLaneArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let mut bounds = Map::new();
    let given = [
        ("maxConcurrency", args.concurrency.map(u64::from)),
        ("requestsPerMinute", args.requests_per_minute.map(u64::from)),
        ("tokensPerMinute", args.tokens_per_minute),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            bounds.insert(name.to_owned(), json!(value));
        }
    }
    let told: Vec<String> = bounds
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let patch = match args.lane.as_str() {
        DEFAULT => Value::Object(bounds),
        name => json!({"lanes": {name: bounds}}),
    };
    super::config::change(
        &patch.to_string(),
        &format!("lane {}: {}", args.lane, told.join(", ")),
        daemon,
        json,
    )
    .await
}
