//! `onelane jobs submit` and `wait`: work handed in, and its answers.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use onelane::words::counted;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::Daemon;
use super::nouns::Job;
use super::selection;
use super::words::now;
use crate::cli::args::remote::{SubmitArgs, WaitArgs};
use crate::cli::exit::{CliError, Exit};

/// How long one request waits for a job.
const WAIT_AT_ONCE: Duration = Duration::from_secs(60);
/// Bytes of a file of jobs: more than the API takes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Deserialize)]
struct Accepted {
    id: Option<String>,
    created: Option<bool>,
    detail: Option<String>,
}

/// One job, or a list of them with what was refused among them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Submitted {
    Many { jobs: Vec<Accepted> },
    One(Accepted),
}

/// `onelane jobs submit`. Ends with 1 when some jobs of a list were refused.
pub(super) async fn submit(
    args: SubmitArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let body = match &args.file {
        Some(file) => read(file)?,
        None => from_flags(&args)?.to_string(),
    };
    let answer = daemon.post_text("/api/glm/jobs", body).await?;
    let jobs = match answer.read()? {
        Submitted::Many { jobs } => jobs,
        Submitted::One(job) => vec![job],
    };
    let refused = jobs.iter().filter(|job| job.id.is_none()).count();
    let ids: Vec<String> = jobs.iter().filter_map(|job| job.id.clone()).collect();
    for (at, job) in jobs.iter().enumerate() {
        if let Some(problem) = job.detail.as_ref().filter(|_| job.id.is_none()) {
            crate::cli::note(&format!("job {} of the list: {problem}", at + 1));
        }
    }
    if args.wait {
        let exit = wait_all(&ids, None, daemon, json).await?;
        return Ok(if refused > 0 { Exit::JobsFailed } else { exit });
    }
    answer.tell(json, |_: Value| {
        let line = |job: &Accepted| {
            let id = job.id.as_ref()?;
            let known = match job.created {
                Some(false) => " (was submitted before)",
                _ => "",
            };
            Some(format!("{id}{known}"))
        };
        jobs.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    })?;
    if refused > 0 {
        crate::cli::note(&format!(
            "{} refused",
            counted(refused as u64, "job was", "jobs were")
        ));
        return Ok(Exit::JobsFailed);
    }
    Ok(Exit::Done)
}

fn from_flags(args: &SubmitArgs) -> Result<Value, CliError> {
    let prompt = match args.prompt.as_deref() {
        Some("-") => read(Path::new("-"))?,
        prompt => prompt.unwrap_or_default().to_owned(),
    };
    let mut body = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    add("prompt", Some(json!(prompt)));
    add("userId", args.user.as_ref().map(|user| json!(user)));
    add("model", args.model.as_ref().map(|model| json!(model)));
    add("priority", args.priority.map(|priority| json!(priority)));
    add("max_tokens", args.max_tokens.map(|tokens| json!(tokens)));
    add("contentId", args.content.as_ref().map(|id| json!(id)));
    add(
        "idempotencyKey",
        args.idempotency_key.as_ref().map(|key| json!(key)),
    );
    Ok(Value::Object(body))
}

fn read(file: &Path) -> Result<String, CliError> {
    let shown = file.display();
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin()
            .lock()
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|error| {
        CliError::usage(format!("{shown} can't be read: {error}"))
            .help("name a readable file of JSON, or - for standard input")
    })?;
    Ok(text)
}

/// `onelane jobs wait`.
pub(super) async fn wait(args: &WaitArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let mut ids = Vec::new();
    for asked in &args.jobs {
        ids.push(selection::job(daemon, asked).await?);
    }
    wait_all(&ids, args.timeout, daemon, json).await
}

/// Waits for job after job and prints each answer when it is there.
async fn wait_all(
    ids: &[String],
    timeout: Option<Duration>,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let began = Instant::now();
    let mut exit = Exit::Done;
    for id in ids {
        let (job, text) = loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            let within = left.map_or(WAIT_AT_ONCE, |left| left.min(WAIT_AT_ONCE));
            let ms = within.as_millis().max(1);
            let path = format!("/api/glm/jobs/{id}?wait={ms}ms");
            let answer = daemon.get_slowly(&path, within).await?;
            let job: Job = answer.read()?;
            if job.processed_at.is_some() {
                break (job, answer.text);
            }
            if left.is_some_and(|left| left <= WAIT_AT_ONCE) {
                let now = now();
                let reason = job.wait_reason.as_ref().map(|reason| reason.told(now));
                let reason = reason.unwrap_or_else(|| format!("it is {}", job.status));
                return Err(CliError::new(
                    Exit::JobsFailed,
                    format!("job {id} has not ended: {reason}"),
                )
                .help(format!("it goes on; `onelane jobs wait {id}` waits again")));
            }
        };
        match json {
            true => crate::cli::say(text.trim_end())?,
            false => match answer_text(&job) {
                Some(answer) => crate::cli::say(&answer)?,
                None => {
                    let why = job.error_message.as_deref().unwrap_or("it has no answer");
                    crate::cli::note(&format!("job {id} is {}: {why}", job.status));
                }
            },
        }
        if job.status != "completed" {
            exit = Exit::JobsFailed;
        }
    }
    Ok(exit)
}

/// The text of an answer of any face; the whole answer where it holds none.
pub(super) fn answer_text(job: &Job) -> Option<String> {
    let result = job.result.as_ref()?;
    let read: Value = serde_json::from_str(result.get()).ok()?;
    let places = [
        "/choices/0/message/content",
        "/content/0/text",
        "/output/0/content/0/text",
    ];
    let text = places
        .iter()
        .find_map(|place| read.pointer(place)?.as_str());
    Some(text.map_or_else(|| result.get().to_owned(), str::to_owned))
}
