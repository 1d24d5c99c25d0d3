//! `onelane calls`: the call log, as a list or as it grows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::client::{Daemon, Query};
use super::money;
use super::nouns::{Call, Calls};
use super::selection;
use super::status::call_cells;
use super::words::{grouped, now};
use crate::cli::args::remote::{CallFilterArgs, CallsVerb, ListCallsArgs, TailCallsArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::start;
use crate::cli::table::{cut, fitting, fitting_columns, width};
use crate::telemetry::Signals;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How often the log is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Calls of one look.
const LOOKED_AT: usize = 500;

/// Dispatches to the verb.
pub(super) async fn calls(verb: CallsVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        CallsVerb::Ls(args) => list(&args, daemon, json).await,
        CallsVerb::Tail(args) => tail(&args, daemon, json).await,
    }
}

async fn query(filter: &CallFilterArgs, daemon: &Daemon) -> Result<Query, CliError> {
    let job = match &filter.job {
        Some(asked) => Some(selection::job(daemon, asked).await?),
        None => None,
    };
    Ok(Query::default()
        .maybe("jobId", job.as_ref())
        .maybe("userId", filter.user.as_ref())
        .maybe("model", filter.model.as_ref())
        .maybe("outcome", filter.outcome.as_ref())
        .maybe("session", filter.session.as_ref()))
}

async fn list(args: &ListCallsArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = query(&args.filter, daemon).await?;
    let query = query.with("limit", args.limit.clamp(1, 500));
    let query = query.maybe("cursor", args.cursor.as_ref());
    let answer = daemon.get("/api/admin/glm/calls", &query).await?;
    answer.tell(json, |calls: Calls| text(&calls))?;
    Ok(Exit::Done)
}

fn text(calls: &Calls) -> String {
    let more = calls
        .next_cursor
        .as_ref()
        .map(|cursor| format!("more: --cursor {cursor}"));
    if calls.calls.is_empty() {
        return more.unwrap_or_else(|| "no call is like that".to_owned());
    }
    let now = now();
    let rows: Vec<_> = calls
        .calls
        .iter()
        .map(|call| call_cells(call, now))
        .collect();
    let head = [
        "ENDED", "JOB", "USER", "MODEL", "TOOK", "TOKENS", "COST", "END",
    ];
    let (mut sum, mut unpriced, mut tokens) = (Vec::new(), 0, 0);
    for call in &calls.calls {
        money::add(&mut sum, &call.costs());
        unpriced += u64::from(call.unpriced);
        tokens += call.response.tokens_used.unwrap_or(0);
    }
    let mut out = fitting(head, &rows);
    out.push_str(&format!(
        "\n{} calls, {} tokens, {}",
        grouped(rows.len() as u64),
        grouped(tokens),
        money::costs(&sum, unpriced)
    ));
    if let Some(more) = more {
        out.push_str(&format!("; {more}"));
    }
    out
}

/// A page whose calls are kept as they came.
#[derive(Deserialize)]
struct Page {
    calls: Vec<Box<RawValue>>,
}

/// Prints what ends from now on, until a signal.
async fn tail(args: &TailCallsArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = query(&args.filter, daemon).await?;
    let query = query.with("limit", LOOKED_AT);
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let mut known: Option<BTreeSet<String>> = None;
    let mut told = 0;
    loop {
        let looking = daemon.get("/api/admin/glm/calls", &query);
        let answer = tokio::select! {
            answer = looking => answer?,
            _ = signals.next() => return Ok(Exit::Done),
        };
        let (mut seen, mut new) = (BTreeSet::new(), Vec::new());
        for raw in answer.read::<Page>()?.calls {
            let call: Call = serde_json::from_str(raw.get()).map_err(|error| {
                CliError::new(
                    Exit::NoDaemon,
                    format!("a call is not what this version knows: {error}"),
                )
            })?;
            let is_new = known
                .as_ref()
                .is_some_and(|known| !known.contains(&call.id));
            seen.insert(call.id.clone());
            if is_new {
                new.push((call, raw));
            }
        }
        // The list has the newest first.
        for (call, raw) in new.iter().rev() {
            match json {
                true => crate::cli::say(raw.get())?,
                false => {
                    crate::cli::say(&cut(&fitting_columns(&[call_cells(call, now())]), width()))?
                }
            }
            told += 1;
            if args.limit.is_some_and(|limit| told >= limit) {
                return Ok(Exit::Done);
            }
        }
        known = Some(seen);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = signals.next() => return Ok(Exit::Done),
        }
    }
}
