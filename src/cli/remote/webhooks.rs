//! `onelane webhooks`: what was told to whom, tests, and what is sent again.

use onelane::model::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::selection::Many;
use super::words::{ago, now, one_line, short, until};
use crate::cli::args::remote::{ListDeliveriesArgs, RedeliverArgs, TestWebhooksArgs, WebhooksVerb};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Dispatches to the verb.
pub(super) async fn webhooks(
    verb: WebhooksVerb,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    match verb {
        WebhooksVerb::Ls(args) => list(&args, daemon, json).await,
        WebhooksVerb::Endpoints => endpoints(daemon, json).await,
        WebhooksVerb::Test(args) => test(&args, daemon, json).await,
        WebhooksVerb::Redeliver(args) => redeliver(args, daemon, json).await,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deliveries {
    deliveries: Vec<Delivery>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    id: String,
    event: String,
    job_id: Option<String>,
    endpoint: Option<String>,
    url: Option<String>,
    status: String,
    created_at: Timestamp,
    next_try_at: Option<Timestamp>,
    status_code: Option<u16>,
    error: Option<String>,
    tries: u32,
}

impl Delivery {
    /// What came of it, in a line.
    fn said(&self, now: Timestamp) -> String {
        let code = self.status_code.map(|code| format!("HTTP {code}"));
        let error = self.error.as_deref().map(one_line);
        let next = self
            .next_try_at
            .map(|at| format!("next {}", until(at, now)));
        let all = code.into_iter().chain(error).chain(next);
        all.collect::<Vec<_>>().join(", ")
    }
}

async fn list(args: &ListDeliveriesArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let query = Query::default()
        .maybe("status", args.status.as_ref())
        .maybe("endpoint", args.endpoint.as_ref())
        .with("limit", args.limit.clamp(1, 500))
        .maybe("cursor", args.cursor.as_ref());
    let path = "/api/admin/glm/webhooks/deliveries";
    let answer = daemon.get(path, &query).await?;
    answer.tell(json, |deliveries: Deliveries| text(&deliveries))?;
    Ok(Exit::Done)
}

fn text(found: &Deliveries) -> String {
    if found.deliveries.is_empty() {
        return "no notice is like that".to_owned();
    }
    let now = now();
    let row = |delivery: &Delivery| {
        let to = delivery.endpoint.as_ref().or(delivery.url.as_ref());
        let job = delivery.job_id.as_deref().map(short);
        [
            delivery.id.clone(),
            ago(delivery.created_at, now),
            delivery.event.clone(),
            job.unwrap_or_else(|| "-".to_owned()),
            to.cloned().unwrap_or_else(|| "-".to_owned()),
            delivery.status.clone(),
            delivery.tries.to_string(),
            delivery.said(now),
        ]
    };
    let rows: Vec<_> = found.deliveries.iter().map(row).collect();
    let head = [
        "ID", "MADE", "EVENT", "JOB", "TO", "STATUS", "TRIES", "SAID",
    ];
    let more = found.next_cursor.as_ref();
    let more = more.map_or_else(String::new, |cursor| format!("; more: --cursor {cursor}"));
    format!("{}\n{} shown{more}", fitting(head, &rows), rows.len())
}

#[derive(Deserialize)]
struct Endpoints {
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    name: String,
    site: String,
    events: Vec<String>,
    off_since: Option<Timestamp>,
    missing_since: Option<Timestamp>,
}

async fn endpoints(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let path = "/api/admin/glm/webhooks/endpoints";
    let answer = daemon.get(path, &Query::default()).await?;
    let now = now();
    answer.tell(json, |Endpoints { endpoints }| {
        if endpoints.is_empty() {
            return "no endpoint is configured\n[webhooks.endpoints.NAME] in the configuration makes one".to_owned();
        }
        let row = |endpoint: &Endpoint| {
            [
                endpoint.name.clone(),
                endpoint.site.clone(),
                match (endpoint.missing_since, endpoint.off_since) {
                    (Some(since), _) => format!("not configured, {}", ago(since, now)),
                    (None, Some(since)) => format!("off (410), {}", ago(since, now)),
                    (None, None) => "on".to_owned(),
                },
                endpoint.events.join(" "),
            ]
        };
        let rows: Vec<_> = endpoints.iter().map(row).collect();
        let table = fitting(["NAME", "SITE", "STATE", "EVENTS"], &rows);
        format!("{table}\n{} in all", rows.len())
    })?;
    Ok(Exit::Done)
}

#[derive(Deserialize)]
struct Tested {
    deliveries: Vec<String>,
}

async fn test(args: &TestWebhooksArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let endpoint = args.endpoint.as_ref();
    let body = endpoint.map_or_else(|| json!({}), |name| json!({"endpoint": name}));
    let path = "/api/admin/glm/webhooks/test";
    let answer = daemon.post(path, &body).await?;
    answer.tell(json, |Tested { deliveries }| match deliveries.as_slice() {
        [] => "no endpoint is configured: nothing was sent".to_owned(),
        ids => format!(
            "on the way: {}\n`onelane webhooks ls` tells what came of it",
            ids.join(", ")
        ),
    })?;
    Ok(Exit::Done)
}

async fn redeliver(args: RedeliverArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    if args.deliveries.is_empty() {
        let mut body = Map::new();
        match &args.endpoint {
            Some(name) => body.insert("filter".to_owned(), json!({"endpoint": name})),
            None => body.insert("all".to_owned(), Value::Bool(args.all)),
        };
        let many = Many {
            path: "/api/admin/glm/webhooks/redeliver".to_owned(),
            body,
            nouns: ["delivery", "deliveries"],
            done: "sent again",
        };
        return many.carry_out(args.dry_run, args.yes, daemon, json).await;
    }
    for id in &args.deliveries {
        let path = format!("/api/admin/glm/webhooks/deliveries/{id}/redeliver");
        daemon.order(&path).await?;
    }
    let ids: Vec<String> = args.deliveries.iter().map(u64::to_string).collect();
    let body = json!({"count": ids.len(), "deliveries": ids});
    crate::cli::answer(json, &body, |_| format!("sent again: {}", ids.join(", ")))?;
    Ok(Exit::Done)
}
