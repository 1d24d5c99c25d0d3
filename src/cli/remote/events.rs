//! `onelane events`: what happens, as it happens.

use serde_json::Value;

use super::client::{Daemon, Query};
use super::parts::Event;
use super::words::{clock, now, one_line, short};
use crate::cli::args::remote::EventsArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::start;
use crate::cli::table::{cut, width};
use crate::telemetry::Signals;

/// Prints events until a signal, or so many of them.
pub(super) async fn events(
    args: &EventsArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    follow("/api/glm/events", &args.only, args.limit, daemon, json).await
}

/// Prints the events of a path, of these kinds alone where some are named.
pub(super) async fn follow(
    path: &str,
    only: &[String],
    limit: Option<u64>,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let none = Query::default();
    let mut parts = tokio::select! {
        parts = daemon.stream(path, &none) => parts?,
        _ = signals.next() => return Ok(Exit::Done),
    };
    let mut told = 0;
    loop {
        let event = tokio::select! {
            event = parts.event() => event?,
            _ = signals.next() => return Ok(Exit::Done),
        };
        let Some(event) = event else {
            return Ok(Exit::Done);
        };
        if !is_among(&event.kind, only) {
            continue;
        }
        match json {
            true => crate::cli::say(&event.line())?,
            false => crate::cli::say(&text(&event))?,
        }
        told += 1;
        if limit.is_some_and(|limit| told >= limit) {
            return Ok(Exit::Done);
        }
    }
}

/// `job` is all of `job.failed`, `job.started` and so on.
fn is_among(kind: &str, only: &[String]) -> bool {
    let covers = |name: &String| {
        let rest = kind.strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    only.is_empty() || only.iter().any(covers)
}

fn text(event: &Event) -> String {
    let now = now();
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let fields = data.as_object().into_iter().flatten();
    let fields = fields.filter(|(_, value)| !value.is_null());
    let told = fields.map(|(name, value)| match value {
        Value::String(text) if name == "jobId" => short(text),
        Value::String(text) => format!("{name} {}", one_line(text)),
        value => format!("{name} {value}"),
    });
    let told: Vec<String> = told.collect();
    let line = format!(
        "{}  {:<22} {}",
        clock(now, now),
        event.kind,
        told.join(", ")
    );
    cut(line.trim_end(), width())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_events_is_named_whole_or_by_its_noun() {
        let only = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(is_among("job.failed", &[]));
        assert!(is_among("job.failed", &only(&["job"])));
        assert!(is_among("job.failed", &only(&["lane", "job.failed"])));
        assert!(!is_among("job.failed", &only(&["job.fail"])));
        assert!(!is_among("lane.held", &only(&["job"])));
    }
}
