//! `onelane compare`: the same prompts through several models, one call after the other, streamed, so that the first token
//! is seen.

use std::path::Path;
use std::time::Instant;

use onelane::ports::Ids as _;
use onelane::system::SystemIds;
use onelane::words::counted;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::money::{self, Cost};
use super::nouns::{Percentiles, Statistics, UsageRow};
use super::usage::per_second;
use super::words::seconds;
use crate::cli::args::remote::{CompareArgs, CompareFormat};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// What is ours of a line, and no part of a chat.
const OURS: [&str; 12] = [
    "prompt",
    "id",
    "custom_id",
    "userId",
    "contentId",
    "priority",
    "metadata",
    "idempotencyKey",
    "runAt",
    "deadline",
    "maxRetries",
    "session",
];

/// What a call showed.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    total_ms: f64,
    tokens: u64,
    failed: bool,
}

/// What the calls of a model came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfModel {
    model: String,
    calls: usize,
    failed: usize,
    /// Of answers: half of them took no longer.
    latency_p50: Option<f64>,
    latency_p90: Option<f64>,
    /// As the statistics have it, as the next one.
    first_token: Option<Percentiles>,
    tokens_per_second: Option<f64>,
    completion_tokens: u64,
    #[serde(skip)]
    costs: Vec<Cost>,
    /// As people read it; exact amounts are in the statistics of the run's user.
    cost: String,
    #[serde(skip)]
    unpriced: u64,
}

impl OfModel {
    fn first_token_p50(&self) -> Option<f64> {
        self.first_token.map(|times| times.p50 as f64)
    }
}

/// Asks all models, the prompts in turn, and tells what each showed. Ends with 1 when a call failed.
pub(super) async fn compare(
    args: &CompareArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let prompts = read(&args.file)?;
    // A user of its own: its books are those of this comparison.
    let user = format!("compare-{}", SystemIds::new().job_id(super::words::now()));
    let mut seen: Vec<Vec<Seen>> = args.models.iter().map(|_| Vec::new()).collect();
    let all = prompts.len() * args.models.len();
    let mut done = 0;
    for prompt in &prompts {
        for (model, seen) in args.models.iter().zip(&mut seen) {
            seen.push(call(prompt, model, &user, daemon).await?);
            done += 1;
            if !json && args.format == CompareFormat::Table {
                progress(done, all);
            }
        }
    }
    let query = Query::default()
        .with("userId", &user)
        .with("groupBy", "model");
    let books = daemon.get("/api/admin/glm/statistics", &query).await?;
    let Statistics { statistics, .. } = books.read()?;
    let models = args.models.iter().zip(seen).map(|(model, seen)| {
        let row = statistics
            .iter()
            .find(|row| row.model.as_deref() == Some(model));
        summed(model, &seen, row)
    });
    let models: Vec<OfModel> = models.collect();
    let format = if json {
        CompareFormat::Json
    } else {
        args.format
    };
    match format {
        CompareFormat::Json => {
            let answer = json!({"user": user, "prompts": prompts.len(), "models": models});
            crate::cli::answer(true, &answer, |_| String::new())?;
        }
        CompareFormat::Svg => crate::cli::say(&svg(&models))?,
        CompareFormat::Table => crate::cli::say(&text(&models, prompts.len()))?,
    }
    match models.iter().any(|model| model.failed > 0) {
        true => Ok(Exit::JobsFailed),
        false => Ok(Exit::Done),
    }
}

fn progress(done: usize, all: usize) {
    use std::io::IsTerminal as _;
    if std::io::stderr().is_terminal() && (done == all || done.is_multiple_of(10)) {
        crate::cli::note(&format!("{done} of {all} calls"));
    }
}

/// The chats of a file, without their models.
fn read(file: &Path) -> Result<Vec<Map<String, Value>>, CliError> {
    let shown = file.display();
    let text = match file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| {
        CliError::usage(format!("{shown} can't be read: {error}"))
            .help("name a file of prompts (JSONL), as `onelane run` takes it")
    })?;
    let mut chats = Vec::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let wrong = |problem: &str| {
            CliError::usage(format!("{shown}, line {}: {problem}", at + 1))
                .help("give a JSON object a line with a prompt or messages")
        };
        let line: Value = serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        let body = line
            .get("body")
            .or_else(|| line.get("request"))
            .unwrap_or(&line);
        let Some(body) = body.as_object() else {
            return Err(wrong("is no JSON object"));
        };
        let mut chat = body.clone();
        if let Some(prompt) = body.get("prompt").and_then(Value::as_str) {
            chat.insert(
                "messages".to_owned(),
                json!([{"role": "user", "content": prompt}]),
            );
        }
        if !chat.get("messages").is_some_and(Value::is_array) {
            return Err(wrong("has neither a prompt nor messages"));
        }
        chat.retain(|name, _| !OURS.contains(&name.as_str()));
        chats.push(chat);
    }
    if chats.is_empty() {
        return Err(
            CliError::usage(format!("{shown} has no prompt")).help("give a JSON object a line")
        );
    }
    Ok(chats)
}

async fn call(
    chat: &Map<String, Value>,
    model: &str,
    user: &str,
    daemon: &Daemon,
) -> Result<Seen, CliError> {
    let mut body = chat.clone();
    body.insert("model".to_owned(), json!(model));
    body.insert("stream".to_owned(), json!(true));
    let began = Instant::now();
    let mut seen = Seen::default();
    let body = Value::Object(body).to_string();
    let mut parts = match daemon.chat(&body, user).await? {
        Some(parts) => parts,
        None => {
            seen.failed = true;
            return Ok(seen);
        }
    };
    let mut is_whole = false;
    while let Some(event) = parts.event().await? {
        if event.data == "[DONE]" {
            is_whole = true;
            break;
        }
        let chunk: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if chunk.get("error").is_some() {
            break;
        }
        let tokens = chunk
            .pointer("/usage/completion_tokens")
            .and_then(Value::as_u64);
        seen.tokens = tokens.unwrap_or(seen.tokens);
    }
    seen.total_ms = began.elapsed().as_secs_f64() * 1_000.0;
    seen.failed = !is_whole;
    Ok(seen)
}

fn summed(model: &str, seen: &[Seen], books: Option<&UsageRow>) -> OfModel {
    let answered: Vec<&Seen> = seen.iter().filter(|seen| !seen.failed).collect();
    let mut totals: Vec<f64> = answered.iter().map(|seen| seen.total_ms).collect();
    let costs = books.map(|row| row.costs.clone()).unwrap_or_default();
    let unpriced = books.map_or(0, |row| row.unpriced_calls);
    OfModel {
        model: model.to_owned(),
        calls: seen.len(),
        failed: seen.len() - answered.len(),
        latency_p50: quantile(&mut totals, 0.5),
        latency_p90: quantile(&mut totals, 0.9),
        first_token: books.and_then(|row| row.first_token),
        tokens_per_second: books.and_then(|row| row.tokens_per_second),
        completion_tokens: answered.iter().map(|seen| seen.tokens).sum(),
        cost: money::costs(&costs, unpriced),
        costs,
        unpriced,
    }
}

/// The smallest value that so large a share does not exceed.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied()
}

fn text(models: &[OfModel], prompts: usize) -> String {
    let told = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), seconds);
    let row = |of: &OfModel| {
        [
            of.model.clone(),
            of.calls.to_string(),
            of.failed.to_string(),
            told(of.latency_p50),
            told(of.latency_p90),
            told(of.first_token_p50()),
            per_second(of.tokens_per_second),
            of.cost.clone(),
        ]
    };
    let rows: Vec<_> = models.iter().map(row).collect();
    let head = [
        "MODEL", "CALLS", "FAILED", "P50", "P90", "FIRST", "TOKENS/S", "COST",
    ];
    let (mut sum, mut unpriced) = (Vec::new(), 0);
    for of in models {
        money::add(&mut sum, &of.costs);
        unpriced += of.unpriced;
    }
    format!(
        "{}\n{} each, {}; P50 and P90 are a caller's, with what the queue adds",
        fitting(head, &rows),
        counted(prompts as u64, "prompt", "prompts"),
        money::costs(&sum, unpriced)
    )
}

/// Bars of the times, a group a model.
fn svg(models: &[OfModel]) -> String {
    const BAR: usize = 18;
    const GROUP: usize = 3 * BAR + 16;
    const LEFT: f64 = 160.0;
    const RIGHT: f64 = 420.0;
    let most = models
        .iter()
        .filter_map(|of| of.latency_p90)
        .fold(1.0, f64::max);
    let height = models.len() * GROUP + 24;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for (at, of) in models.iter().enumerate() {
        let top = at * GROUP + 12;
        out.push_str(&format!(
            "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>\n",
            top + BAR,
            escaped(&of.model)
        ));
        let bars = [
            ("first token", of.first_token_p50(), "#4c9be8"),
            ("p50", of.latency_p50, "#2f6f4f"),
            ("p90", of.latency_p90, "#b8860b"),
        ];
        for (no, (name, ms, colour)) in bars.into_iter().enumerate() {
            let Some(ms) = ms else { continue };
            let (y, width) = (top + no * BAR, ms / most * RIGHT);
            out.push_str(&format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{name} {}</text>\n",
                BAR - 4,
                LEFT + width + 6.0,
                y + 12,
                seconds(ms)
            ));
        }
    }
    out.push_str("</svg>");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_counted_and_is_in_no_time() {
        let answered = |total_ms: f64| Seen {
            total_ms,
            tokens: 11,
            failed: false,
        };
        let failed = Seen {
            failed: true,
            ..Seen::default()
        };
        let books = json!({"totalCalls": 3, "failedCalls": 1, "totalTokens": 36, "promptTokens": 14,
            "cachedTokens": 0, "costs": [], "unpricedCalls": 1, "averageResponseTime": 1_600,
            "percentiles": null, "tokensPerSecond": 6.7,
            "firstToken": {"p50": 100, "p90": 100, "p95": 100, "p99": 111}});
        let books: UsageRow = serde_json::from_value(books).unwrap();
        let of = summed(
            "glm-5",
            &[answered(1_100.0), failed, answered(2_100.0)],
            Some(&books),
        );
        assert_eq!((of.calls, of.failed), (3, 1));
        assert_eq!(
            (of.latency_p50, of.latency_p90),
            (Some(1_100.0), Some(2_100.0))
        );
        assert_eq!(of.tokens_per_second, Some(6.7));
        assert_eq!(of.first_token_p50(), Some(100.0));
        assert_eq!(of.cost, "1 unpriced");
        assert!(svg(&[of]).contains("glm-5"));
    }
}
