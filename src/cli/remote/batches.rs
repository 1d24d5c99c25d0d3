//! `onelane batch`, asked of a daemon.

use std::path::Path;

use onelane::words::counted;
use serde::Deserialize;

use super::client::{Daemon, Query};
use super::money;
use super::nouns::{Batch, Batches};
use super::words::{ago, clock, now};
use crate::cli::args::BatchVerb;
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Where the batches are.
const PATH: &str = "/api/admin/glm/batches";

#[derive(Deserialize)]
struct One {
    batch: Batch,
}

#[derive(Deserialize)]
struct Cancelled {
    batch: Batch,
    cancelled: u64,
}

/// Dispatches to the verb.
pub(crate) async fn batch(verb: &BatchVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        BatchVerb::Ls(_) => {
            let answer = daemon.get(PATH, &Query::default()).await?;
            answer.tell(json, |batches: Batches| text(&batches))?;
        }
        BatchVerb::Show(args) => {
            let id = find(daemon, &args.batch).await?;
            let answer = daemon
                .get(&format!("{PATH}/{id}"), &Query::default())
                .await?;
            answer.tell(json, |One { batch }| describe(&batch))?;
        }
        BatchVerb::Drop(args) => {
            let id = find(daemon, &args.batch).await?;
            let answer = daemon.order(&format!("{PATH}/{id}/cancel")).await?;
            answer.tell(json, |Cancelled { batch, cancelled }| match cancelled {
                0 => format!("{}: nothing of it waits, no job was cancelled", batch.name),
                _ => format!(
                    "{}: {} cancelled",
                    batch.name,
                    counted(cancelled, "job", "jobs")
                ),
            })?;
        }
    }
    Ok(Exit::Done)
}

/// The batch that is meant: by its id, its name, its file, or the end of its name.
async fn find(daemon: &Daemon, asked: &str) -> Result<String, CliError> {
    let answer = daemon.get(PATH, &Query::default()).await?;
    let Batches { batches, .. } = answer.read()?;
    let canonical = Path::new(asked).canonicalize().ok();
    let canonical = canonical.map(|path| path.display().to_string());
    let is_exact = |batch: &&Batch| {
        batch.id == asked || batch.name == asked || canonical.as_ref() == Some(&batch.name)
    };
    if let Some(batch) = batches.iter().find(is_exact) {
        return Ok(batch.id.clone());
    }
    let plain = |name: &str| name.trim_end_matches(" (simulated)").to_owned();
    let ends = |batch: &&Batch| {
        let name = plain(&batch.name);
        canonical.as_ref() == Some(&name) || Path::new(&name).ends_with(asked)
    };
    let mut found = batches.iter().filter(ends);
    match (found.next(), found.next()) {
        (Some(batch), None) => Ok(batch.id.clone()),
        (Some(_), Some(_)) => Err(
            CliError::usage(format!("several batches are called {asked}"))
                .help("give the id, as `onelane batch ls` tells it"),
        ),
        (None, _) => Err(CliError::usage(format!("there is no batch {asked}"))
            .help("`onelane batch ls` lists them")),
    }
}

fn text(list: &Batches) -> String {
    let mut out = match list.batches.is_empty() {
        true => "there are no batches".to_owned(),
        false => {
            let row = |batch: &Batch| {
                let counts = &batch.counts;
                [
                    batch.id.clone(),
                    batch.state.clone(),
                    (counts.pending + counts.processing).to_string(),
                    counts.completed.to_string(),
                    (counts.failed + counts.cancelled).to_string(),
                    money::costs(&batch.costs, batch.unpriced_calls),
                    batch.name.clone(),
                ]
            };
            let mut rows: Vec<_> = list.batches.iter().map(row).collect();
            let sum = |of: fn(&Batch) -> u64| list.batches.iter().map(of).sum::<u64>().to_string();
            let (mut costs, mut unpriced) = (Vec::new(), 0);
            for batch in &list.batches {
                money::add(&mut costs, &batch.costs);
                unpriced += batch.unpriced_calls;
            }
            rows.push([
                "total".to_owned(),
                String::new(),
                sum(|batch| batch.counts.pending + batch.counts.processing),
                sum(|batch| batch.counts.completed),
                sum(|batch| batch.counts.failed + batch.counts.cancelled),
                money::costs(&costs, unpriced),
                String::new(),
            ]);
            fitting(
                ["BATCH", "STATE", "WAIT", "DONE", "NOT DONE", "COST", "NAME"],
                &rows,
            )
        }
    };
    if list.loose_jobs > 0 {
        let jobs = counted(
            list.loose_jobs,
            "job of no batch waits",
            "jobs of no batch wait",
        );
        out.push_str(&format!("\n{jobs} too"));
    }
    out
}

fn describe(batch: &Batch) -> String {
    let now = now();
    let counts = &batch.counts;
    let mut lines = vec![
        format!("batch      {}", batch.id),
        format!("name       {}", batch.name),
        format!("state      {}", batch.state),
        format!(
            "jobs       {} pending, {} processing, {} completed, {} failed, {} cancelled",
            counts.pending, counts.processing, counts.completed, counts.failed, counts.cancelled
        ),
        format!(
            "cost       {}",
            money::costs(&batch.costs, batch.unpriced_calls)
        ),
    ];
    let moments = [
        ("created", Some(batch.created_at)),
        ("finished", batch.finished_at),
        ("given up", batch.cancelled_at),
    ];
    for (name, at) in moments {
        lines.extend(at.map(|at| format!("{name:<10} {} ({})", clock(at, now), ago(at, now))));
    }
    lines.join("\n")
}
