//! Which jobs are meant: one by its id or an end of it, or all that a filter leaves.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use onelane::model::JobId;
use onelane::words::counted;
use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::nouns::{Changed, Queue};
use super::words::short;
use crate::cli::args::remote::{JobFilterArgs, SelectArgs};
use crate::cli::exit::{CliError, Exit};

/// Jobs among which the end of an id is looked for.
const LOOKED_AT: usize = 500;
/// Characters that an end of an id has at least.
const END_MIN: usize = 3;
/// Ids that are told.
const NEAR_TOLD: usize = 5;

impl JobFilterArgs {
    /// As parameters of a list.
    pub(super) fn query(&self) -> Query {
        let query = Query::default()
            .maybe("status", self.status.as_ref())
            .maybe("userId", self.user.as_ref())
            .maybe("model", self.model.as_ref())
            .maybe("batchId", self.batch.as_ref())
            .maybe("session", self.session.as_ref())
            .maybe("keyId", self.key.as_ref())
            .maybe("contentId", self.content.as_ref())
            .maybe("errorCode", self.error_code.as_ref())
            .maybe("errorClass", self.error_class.as_ref());
        query
            .maybe("parked", self.parked.then_some(&true))
            .maybe("delayed", self.delayed.then_some(&true))
    }

    /// As the filter of an order.
    fn filter(&self) -> Map<String, Value> {
        let texts = [
            ("status", &self.status),
            ("userId", &self.user),
            ("model", &self.model),
            ("batchId", &self.batch),
            ("session", &self.session),
            ("keyId", &self.key),
            ("contentId", &self.content),
            ("errorCode", &self.error_code),
            ("errorClass", &self.error_class),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| {
            let text = text.as_ref()?;
            Some((name.to_owned(), json!(text)))
        });
        let flags = [("parked", self.parked), ("delayed", self.delayed)];
        let flags = flags.into_iter().filter(|(_, given)| *given);
        let flags = flags.map(|(name, _)| (name.to_owned(), json!(true)));
        texts.chain(flags).collect()
    }
}

/// The job that is meant: by its id, or by its beginning, its end, or both with a sign between.
pub(super) async fn job(daemon: &Daemon, asked: &str) -> Result<String, CliError> {
    let asked = asked.trim();
    if asked.parse::<JobId>().is_ok() {
        return Ok(asked.to_owned());
    }
    let (head, tail) = match asked
        .split_once(['…', '*'])
        .or_else(|| asked.split_once("..."))
    {
        Some((head, tail)) => (head, Some(tail)),
        None => (asked, None),
    };
    if head.len() + tail.map_or(0, str::len) < END_MIN {
        return Err(CliError::usage(format!("{asked:?} is no id of a job"))
            .help("give its id, or an end of it of three characters or more; `onelane jobs ls --json` has them whole"));
    }
    let query = Query::default().with("limit", LOOKED_AT);
    let answer = daemon.get("/api/admin/glm/queue", &query).await?;
    let Queue { queue, total, .. } = answer.read()?;
    let is_meant = |id: &&str| match tail {
        Some(tail) => id.starts_with(head) && id.ends_with(tail),
        None => id.starts_with(head) || id.ends_with(head),
    };
    let ids: Vec<&str> = queue.iter().map(|job| job.id.as_str()).collect();
    let found: Vec<&str> = ids.iter().copied().filter(is_meant).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            let problem = match total as usize > ids.len() {
                true => format!("no job among the latest {} is {asked}", ids.len()),
                false => format!("there is no job {asked}"),
            };
            let near = near(&ids, head);
            let help = match near.is_empty() {
                true => "`onelane jobs ls` lists the jobs".to_owned(),
                false => format!(
                    "there are {}; `onelane jobs ls` lists the jobs",
                    near.join(", ")
                ),
            };
            Err(CliError::usage(problem).help(help))
        }
        several => {
            let told: Vec<&str> = several.iter().copied().take(NEAR_TOLD).collect();
            let problem = format!("{asked} may be {} jobs", several.len());
            Err(CliError::usage(problem).help(format!("give more of it: {}", told.join(", "))))
        }
    }
}

/// The ids that begin most like what was asked for.
fn near(ids: &[&str], asked: &str) -> Vec<String> {
    let alike = |id: &str| {
        id.chars()
            .zip(asked.chars())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let mut ids: Vec<&str> = ids.to_vec();
    ids.sort_by_key(|id| std::cmp::Reverse(alike(id)));
    ids.into_iter().take(NEAR_TOLD).map(short).collect()
}

/// What is done to jobs, for one by its id and for many by a filter.
pub(super) struct Order {
    /// Below `/api/admin/glm/`.
    pub(super) path: &'static str,
    /// What they are then.
    pub(super) done: &'static str,
    /// What the body says beside the jobs.
    pub(super) with: Option<(&'static str, Value)>,
}

/// Carries an order out, and tells how many jobs it was.
pub(super) async fn carry_out(
    order: Order,
    args: &SelectArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let filter = args.filter.filter();
    let path = format!("/api/admin/glm/{}", order.path);
    match (args.jobs.is_empty(), filter.is_empty(), args.all) {
        (false, true, false) => return one_by_one(&path, &order, args, daemon, json).await,
        (false, ..) => {
            return Err(
                CliError::usage("ids of jobs stand alone: without a filter and --all")
                    .help("leave out one of them"),
            );
        }
        (true, true, false) => {
            return Err(CliError::usage("no job is named")
                .help("give ids, flags that leave some jobs, such as --status failed, or --all"));
        }
        (true, false, true) => {
            return Err(CliError::usage("--all and a filter exclude each other")
                .help("leave out one of them"));
        }
        (true, ..) => {}
    }
    let mut body = Map::new();
    match args.all {
        true => body.insert("all".to_owned(), json!(true)),
        false => body.insert("filter".to_owned(), Value::Object(filter)),
    };
    if let Some((name, value)) = order.with {
        body.insert(name.to_owned(), value);
    }
    let many = Many {
        path,
        body,
        nouns: ["job", "jobs"],
        done: order.done,
    };
    many.carry_out(args.dry_run, args.yes, daemon, json).await
}

/// All that a body names, to be changed once it is known how many they are.
pub(super) struct Many {
    pub(super) path: String,
    pub(super) body: Map<String, Value>,
    /// One of them, and several.
    pub(super) nouns: [&'static str; 2],
    /// What they are then.
    pub(super) done: &'static str,
}

impl Many {
    /// Changes them, unless that is only a try or nobody says yes.
    pub(super) async fn carry_out(
        self,
        dry_run: bool,
        yes: bool,
        daemon: &Daemon,
        json: bool,
    ) -> Result<Exit, CliError> {
        let ([one, more], done) = (self.nouns, self.done);
        if !yes || dry_run {
            let mut body = self.body.clone();
            body.insert("dryRun".to_owned(), json!(true));
            let would = daemon.post(&self.path, &Value::Object(body)).await?;
            let Changed { count } = would.read()?;
            let all = counted(count, one, more);
            if dry_run || count == 0 {
                would.tell(json, |_: Changed| format!("{all} would be {done}"))?;
                return Ok(Exit::Done);
            }
            if !is_meant(&format!("{all} will be {done}"))? {
                return Err(
                    CliError::usage(format!("{all} would be {done}, and nobody said yes"))
                        .help("say --yes, or --dry-run to look alone"),
                );
            }
        }
        let changed = daemon.post(&self.path, &Value::Object(self.body)).await?;
        changed.tell(json, |Changed { count }| {
            let be = if count == 1 { "is" } else { "are" };
            format!("{} {be} {done}", counted(count, one, more))
        })?;
        Ok(Exit::Done)
    }
}

fn told(count: u64, order: &Order) -> String {
    format!("{} {}", counted(count, "job is", "jobs are"), order.done)
}

/// Asks whoever sits at the terminal; nobody does: no.
fn is_meant(question: &str) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    let asked = write!(std::io::stderr(), "{question}; go on? [y/N] ");
    let mut said = String::new();
    let heard = asked.and_then(|()| std::io::stdin().lock().read_line(&mut said));
    heard.map_err(|error| {
        CliError::usage(format!("the terminal can't be asked: {error}")).help("say --yes")
    })?;
    Ok(matches!(said.trim(), "y" | "Y" | "yes"))
}

async fn one_by_one(
    path: &str,
    order: &Order,
    args: &SelectArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let mut ids = Vec::new();
    // All of them are known before the first is changed.
    for asked in &args.jobs {
        ids.push(job(daemon, asked).await?);
    }
    if args.dry_run {
        let body = json!({"count": ids.len(), "dryRun": true});
        crate::cli::answer(json, &body, |_| {
            format!("{} named", counted(ids.len() as u64, "job is", "jobs are"))
        })?;
        return Ok(Exit::Done);
    }
    let body = order
        .with
        .as_ref()
        .map(|(name, value)| json!({*name: value}));
    for id in &ids {
        let path = format!("{path}/{id}");
        match &body {
            Some(body) => daemon.post(&path, body).await?,
            None => daemon.order(&path).await?,
        };
    }
    let body = json!({"count": ids.len(), "jobs": ids});
    crate::cli::answer(json, &body, |_| told(ids.len() as u64, order))?;
    Ok(Exit::Done)
}
