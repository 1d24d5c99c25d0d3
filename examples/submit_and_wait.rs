//! Submit now, fetch later, also from another process: a job is on disk when `submit` answers, and
//! the next lane on the same store goes on with it.
//!
//! ```sh
//! cargo run --example submit_and_wait
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::Duration;

use onelane::model::{Secret, Submission};
use onelane::simulator::{Simulator, SimulatorConfig};
use onelane::{Config, Orchestrator};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let glm = Simulator::start(SimulatorConfig::default())?;
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.store.path = directory.path().join("lane.redb").display().to_string();
    config.glm.base_url = glm.base_url();
    config.glm.api_key = Some(Secret::new("any"));

    // The first process: it submits, and ends before anything was sent.
    let lane = Orchestrator::start(&config).await?;
    lane.pause(Some("nothing before tonight".to_owned()))
        .await?;
    // The idempotency key makes asking again safe, across restarts too.
    let report =
        || Submission::prompt("Summarise order 88213.").map(|s| s.idempotency_key("88213"));
    let submitted = lane.submit(report()?).await?;
    println!("job {} is on disk", submitted.job_id);
    lane.shutdown(PATIENCE).await;
    // One lane at a time owns a store: the file is closed with the last handle.
    drop(lane);
    println!("calls so far: {}", glm.stats().calls);

    // The second one: the same store, and everything is still there, the pause included.
    let lane = Orchestrator::start(&config).await?;
    let counts = lane.queue_status().await?;
    let paused = lane.lane().await?.paused.and_then(|pause| pause.reason);
    println!("{} pending; paused: {paused:?}", counts.pending);

    let again = lane.submit(report()?).await?;
    let same = again.job_id == submitted.job_id && !again.created;
    println!("asked again: the same job: {same}");

    lane.resume().await?;
    let record = lane.wait_for(submitted.job_id, PATIENCE).await?;
    println!(
        "{:?} after {} attempt",
        record.job.status, record.job.attempts
    );

    // One job whole, with its attempts: what was called, how it ended, what it cost.
    for call in lane.job(submitted.job_id).await?.attempts {
        let cost = call.cost.map_or("unknown".to_owned(), |c| c.to_string());
        println!("attempt {}: {:?}, cost {cost}", call.attempt, call.outcome);
    }
    lane.shutdown(PATIENCE).await;
    Ok(())
}
