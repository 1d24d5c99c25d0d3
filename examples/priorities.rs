//! The order: the most urgent first, within one priority in the order of submission; and an urgent
//! job that arrives during a call is the very next one.
//!
//! ```sh
//! cargo run --example priorities
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::Duration;

use onelane::model::{Event, Secret, Submission};
use onelane::orchestrator::Feed;
use onelane::simulator::{Simulator, SimulatorConfig, Span};
use onelane::{Config, Orchestrator};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let glm = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(100),
        ..SimulatorConfig::default()
    })?;
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.store.path = directory.path().join("lane.redb").display().to_string();
    config.glm.base_url = glm.base_url();
    config.glm.api_key = Some(Secret::new("any"));
    let lane = Orchestrator::start(&config).await?;
    let mut events = lane.subscribe();

    // A backlog, submitted in no good order while the lane is paused.
    lane.pause(None).await?;
    let backlog = [
        ("nightly report", -5),
        ("first question", 0),
        ("second question", 0),
        ("customer waits", 5),
    ];
    let mut jobs = Vec::new();
    for (prompt, priority) in backlog {
        let submission = Submission::prompt(prompt)?.priority(priority);
        jobs.push(lane.submit(submission).await?.job_id);
    }
    lane.resume().await?;

    // While the first call is open, something more urgent than the whole backlog comes in.
    while let Some(feed) = events.next().await {
        if matches!(&feed, Feed::Event(_, event) if matches!(**event, Event::JobStarted { .. })) {
            break;
        }
    }
    let alarm = Submission::prompt("alarm")?.priority(100);
    jobs.push(lane.submit(alarm).await?.job_id);

    for job in jobs {
        lane.wait(job).await?;
    }
    // What the server saw, in its order.
    for arrival in glm.arrivals() {
        println!("{}", arrival.prompt);
    }
    lane.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
