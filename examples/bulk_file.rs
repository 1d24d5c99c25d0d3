//! A file of prompts through the lane: read JSON lines, submit all, wait for all, sum up.
//! `onelane run` does the same with progress, results and continuation.
//!
//! ```sh
//! cargo run --example bulk_file [FILE]     # default: examples/prompts.jsonl
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use onelane::model::{JobStatus, Secret, Submission, SubmissionError};
use onelane::simulator::{Simulator, SimulatorConfig};
use onelane::{Config, Orchestrator};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A line: a prompt, a chat body's own fields, or the batch form with its `body`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    prompt: Option<String>,
    body: Option<Value>,
    #[serde(default)]
    priority: i32,
    user_id: Option<String>,
    content_id: Option<String>,
    #[serde(flatten)]
    chat: Map<String, Value>,
}

impl Line {
    fn into_submission(self) -> Result<Submission, SubmissionError> {
        let mut submission = match (self.prompt, self.body) {
            (Some(prompt), _) => Submission::prompt(prompt)?,
            (None, Some(body)) => Submission::chat(&body.to_string())?,
            (None, None) => Submission::chat(&Value::Object(self.chat).to_string())?,
        };
        submission.priority = Some(self.priority);
        submission.content_id = self.content_id;
        if let Some(user) = self.user_id {
            submission.user_id = user;
        }
        Ok(submission)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let file = std::env::args().nth(1);
    let file = file.unwrap_or_else(|| "examples/prompts.jsonl".to_owned());
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    let mut submissions = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line: Line = serde_json::from_str(line).map_err(|e| format!("{file}:{n}: {e}"))?;
        let submission = line.into_submission();
        submissions.push(submission.map_err(|e| format!("{file}:{n}: {e}"))?);
    }

    let glm = Simulator::start(SimulatorConfig::default())?;
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.store.path = directory.path().join("lane.redb").display().to_string();
    config.glm.base_url = glm.base_url();
    config.glm.api_key = Some(Secret::new("any"));
    let lane = Orchestrator::start(&config).await?;

    // Many jobs in few transactions; one that is refused does not hinder the others.
    let started = Instant::now();
    let mut completed = 0;
    let submitted = lane.submit_many(submissions).await?;
    println!(
        "{} jobs on disk after {:?}",
        submitted.len(),
        started.elapsed()
    );
    for job in submitted {
        let record = lane.wait(job?.job_id).await?;
        completed += usize::from(record.job.status == JobStatus::Completed);
    }

    let usage = lane.metrics().await?.since_start.usage;
    let cost: Vec<String> = lane.spent().iter().map(ToString::to_string).collect();
    println!("{completed} completed after {:?}", started.elapsed());
    println!("{} tokens, {}", usage.total_tokens, cost.join(" + "));
    println!("in flight at most: {}", glm.stats().peak_in_flight);
    lane.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
