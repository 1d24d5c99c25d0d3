//! Actors to actors: the queue's own protocol, for programs that are built of actors themselves.
//!
//! ```sh
//! cargo run --example plain_message
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::Duration;

use onelane::model::{Secret, Submission};
use onelane::protocol::QueueMsg;
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
    let lane = Orchestrator::start(&config).await?;

    // The queue of this moment. A restart replaces it: when a message can't be sent or its reply is
    // lost, ask for the queue again. The facade does that by itself, plain messages don't.
    let queue = lane.queue().await?;

    // A submission and its reply: on disk, with an id.
    let submission = Submission::prompt("Name one river.")?.idempotency_key("river-1");
    let submit = |reply| QueueMsg::Submit {
        submission: Box::new(submission),
        reply,
    };
    let answer = queue.call(submit, Some(PATIENCE)).await?;
    let submitted = answer.success_or("the queue was restarted; ask again")??;
    println!("submitted: {}", submitted.created);

    // Told when the job's end is on disk; `false` if the lane does not have the job (any more).
    let job_id = submitted.job_id;
    let wait = |reply| QueueMsg::Wait {
        job_id,
        early: false,
        reply,
    };
    let waited = queue.call(wait, Some(PATIENCE)).await?;
    waited.success_or("the queue was restarted; ask again")?;
    println!("status: {:?}", lane.job(job_id).await?.record.job.status);

    // The lane as it is.
    let snapshot = |reply| QueueMsg::Snapshot { reply };
    let lane_now = queue.call(snapshot, Some(PATIENCE)).await?;
    let lane_now = lane_now.success_or("the queue was restarted; ask again")?;
    println!(
        "in flight: {} of {}",
        lane_now.in_flight, lane_now.max_concurrency
    );

    lane.shutdown(PATIENCE).await;
    Ok(())
}
