//! `onelane holds`: what is held, why and until when.

use serde_json::Value;

use super::client::{Daemon, Query};
use super::nouns::{Hold, Holds};
use super::url::segment;
use super::words::{ago, now, one_line, until};
use crate::cli::args::remote::{HoldScopeArg, HoldsVerb, ReleaseArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Dispatches to the verb.
pub(super) async fn holds(verb: HoldsVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        HoldsVerb::Ls => list(daemon, json).await,
        HoldsVerb::Release(args) => release(&args, daemon, json).await,
    }
}

async fn list(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let answer = daemon
        .get("/api/admin/glm/holds", &Query::default())
        .await?;
    let now = now();
    answer.tell(json, |Holds { holds }| {
        if holds.is_empty() {
            return "nothing is held".to_owned();
        }
        let row = |hold: &Hold| {
            [
                hold.scope.clone(),
                hold.name.clone().unwrap_or_else(|| "-".to_owned()),
                hold.kind.clone(),
                ago(hold.since, now),
                hold.until
                    .map_or_else(|| "an operator acts".to_owned(), |at| until(at, now)),
                format!("{}: {}", hold.code, one_line(&hold.message)),
            ]
        };
        let rows: Vec<_> = holds.iter().map(row).collect();
        let table = fitting(["SCOPE", "NAME", "KIND", "SINCE", "ENDS", "WHY"], &rows);
        format!("{table}\n{} in all", rows.len())
    })?;
    Ok(Exit::Done)
}

async fn release(args: &ReleaseArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let name = args.name.as_deref().unwrap_or_default();
    let (path, what) = match args.scope {
        HoldScopeArg::Account => ("account".to_owned(), "the account".to_owned()),
        HoldScopeArg::Lane => (format!("lane/{}", segment(name)), format!("lane {name}")),
        HoldScopeArg::Model => (format!("model/{}", segment(name)), format!("model {name}")),
    };
    let answer = daemon
        .delete(&format!("/api/admin/glm/holds/{path}"))
        .await?;
    answer.tell(json, |_: Value| format!("the hold on {what} is over"))?;
    Ok(Exit::Done)
}
