//! Live events: watch what the lane does while it does it. Each event is a fact that is on disk.
//!
//! ```sh
//! cargo run --example live_events
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::Duration;

use onelane::model::{Event, Secret, Submission};
use onelane::orchestrator::Feed;
use onelane::simulator::{Fault, Simulator, SimulatorConfig};
use onelane::{Config, Orchestrator};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    // The first call meets a server error and is made again.
    let glm = Simulator::start(SimulatorConfig::default())?;
    glm.push_fault(Fault::error("500"));

    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.store.path = directory.path().join("lane.redb").display().to_string();
    config.glm.base_url = glm.base_url();
    config.glm.api_key = Some(Secret::new("any"));
    config.retry.delays.base_delay_ms = 50;
    let lane = Orchestrator::start(&config).await?;

    // Only what happens from here on is told; what was before is in the store.
    let mut events = lane.subscribe();
    let watcher = tokio::spawn(async move {
        while let Some(feed) = events.next().await {
            match feed {
                Feed::Event(at, event) => println!("{at} {}{}", event.name(), details(&event)),
                // A slow listener holds nobody up. It reads the store to catch up.
                Feed::Missed(events) => println!("missed {events} events"),
            }
        }
    });

    lane.call(Submission::prompt("Name one river.")?).await?;
    lane.pause(Some("lunch".to_owned())).await?;
    let waiting = lane.submit(Submission::prompt("Name a lake.")?).await?;
    lane.cancel(waiting.job_id).await?;
    lane.resume().await?;

    lane.shutdown(Duration::from_secs(10)).await;
    // The feed ends with the last handle of the lane.
    drop(lane);
    watcher.await?;
    Ok(())
}

fn details(event: &Event) -> String {
    match event {
        Event::JobCompleted { usage, cost, .. } => {
            let cost = cost.map_or("unknown".to_owned(), |cost| cost.to_string());
            format!(": {} tokens, cost {cost}", usage.total_tokens)
        }
        Event::JobRetrying { failure, .. } | Event::JobFailed { failure, .. } => {
            format!(": {failure}")
        }
        Event::LanePaused { pause } => {
            format!(": {}", pause.reason.as_deref().unwrap_or("no reason given"))
        }
        _ => String::new(),
    }
}
