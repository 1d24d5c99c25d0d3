//! The shortest way: start a lane inside your program, ask, get the answer, see what it cost.
//!
//! ```sh
//! cargo run --example embed_and_call
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error as StdError;
use std::time::Duration;

use onelane::model::{Secret, Submission};
use onelane::ports::UsageFilter;
use onelane::simulator::{Fault, Rule, Simulator, SimulatorConfig};
use onelane::{Config, Error, Orchestrator};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    // GLM's place is taken by the simulator, a server on a local port. With a real key leave out
    // `base_url` and this line.
    let glm = Simulator::start(SimulatorConfig::default())?;
    glm.add_rule(Rule::for_prompt("forbidden", Fault::error("1301")));

    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.store.path = directory.path().join("lane.redb").display().to_string();
    config.glm.base_url = glm.base_url();
    config.glm.api_key = Some(Secret::new("any"));
    let lane = Orchestrator::start(&config).await?;

    // A prompt. Model, max_tokens and temperature come from the configuration.
    let answered = lane.call(Submission::prompt("Name one river.")?).await?;
    // `response` has GLM's answer whole, kept to the byte.
    println!("answer: {}", answered.text().unwrap_or_default());

    // A whole chat body, passed on to the byte with whatever parameters GLM knows.
    let chat = r#"{"model": "glm-4.6", "temperature": 0.2, "messages": [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "The capital of France?"}]}"#;
    let answered = lane.call(Submission::chat(chat)?.user("alice")).await?;
    println!("chat: job {} {:?}", answered.job.id, answered.job.status);

    // A job that is itself at fault fails at once; the lane goes on.
    match lane.call(Submission::prompt("a forbidden thing")?).await {
        Err(Error::JobFailed { failure, .. }) => println!("failed: {failure}"),
        other => return Err(format!("expected a failed job, got {other:?}").into()),
    }

    // The books: day x model x user, equal to the call log to the last digit.
    let today = answered.job.created_at.day();
    let books = UsageFilter {
        start: today,
        end: today,
        model: None,
        user_id: None,
    };
    for row in lane.usage(books).await? {
        let (model, user) = (&row.key.model, &row.key.user_id);
        let tokens = row.usage.total_tokens;
        println!("{model} for {user}: {} calls, {tokens} tokens", row.calls);
    }
    for cost in lane.spent() {
        println!("spent: {cost}");
    }

    lane.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
