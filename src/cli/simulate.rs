//! `onelane simulate`: the GLM-shaped server on a port, until a signal stops it.

use serde_json::json;

use super::args::SimulateArgs;
use super::exit::{CliError, Exit};
use super::start;
use crate::telemetry::{Signal, Signals};

/// Runs the simulator until Ctrl-C or SIGTERM.
pub(crate) async fn simulate(args: SimulateArgs, json: bool) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let simulator = start::simulator(&args)?;
    let url = simulator.base_url();
    let answer = json!({"baseUrl": url, "simulated": true});
    super::answer(json, &answer, |_| announcement(&url))?;
    while signals.next().await == Signal::Hangup {}
    drop(simulator);
    Ok(Exit::Done)
}

fn announcement(url: &str) -> String {
    format!(
        "GLM simulator at {url} (Ctrl-C stops it)\n\
         try: curl -s {url}/chat/completions -H 'authorization: Bearer any' -H 'content-type: application/json' \\\n       \
         -d '{{\"model\":\"glm-4.7\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\
         or:  ONELANE_API_KEY=any onelane run examples/prompts.jsonl --base-url {url}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_can_be_pasted() {
        let text = announcement("http://127.0.0.1:4701/api/paas/v4");
        assert!(
            text.contains("curl -s http://127.0.0.1:4701/api/paas/v4/chat/completions"),
            "{text}"
        );
        let body = text
            .split("-d '")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
