//! `onelane waiters`: who waits, why, and for how long still.

use std::collections::BTreeSet;

use super::client::Daemon;
use super::jobs::waiter_cells;
use super::nouns::{Job, Queue};
use super::words::{grouped, now};
use crate::cli::args::remote::{JobFilterArgs, WaitersArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Those that go by their turn first, in that order; behind them those that have no place in it.
pub(super) async fn waiters(
    args: &WaitersArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let limit = args.limit.clamp(1, 500);
    let filter = JobFilterArgs {
        status: Some("pending".to_owned()),
        ..args.filter.clone()
    };
    let pending = filter.query().with("limit", 500);
    let service = filter.query().with("order", "service").with("limit", limit);
    let in_order = daemon.get("/api/admin/glm/queue", &service).await?;
    let Queue {
        queue: mut jobs, ..
    } = in_order.read()?;
    let others = daemon.get("/api/admin/glm/queue", &pending).await?;
    if json {
        let (service, pending) = (in_order.text.trim(), others.text.trim());
        crate::cli::say(&format!("{{\"service\":{service},\"pending\":{pending}}}"))?;
        return Ok(Exit::Done);
    }
    let Queue { queue, total, .. } = others.read()?;
    let known: BTreeSet<String> = jobs.iter().map(|job| job.id.clone()).collect();
    // Listed the newest first; who waits longest stands first here.
    let others = queue
        .into_iter()
        .rev()
        .filter(|job: &Job| !known.contains(&job.id));
    jobs.extend(others);
    jobs.truncate(limit);
    if jobs.is_empty() {
        crate::cli::say("no job waits")?;
        return Ok(Exit::Done);
    }
    let now = now();
    let rows: Vec<_> = jobs.iter().map(|job| waiter_cells(job, now)).collect();
    let head = ["JOB", "USER", "PRIORITY", "WAITED", "WHY", "ENDS"];
    let mut out = fitting(head, &rows);
    let more = total.saturating_sub(rows.len() as u64);
    if more > 0 {
        out.push_str(&format!("\nand {} more", grouped(more)));
    } else {
        out.push_str(&format!("\n{} in all", grouped(total)));
    }
    crate::cli::say(&out)?;
    Ok(Exit::Done)
}
