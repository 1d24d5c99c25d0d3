//! `onelane keys`, asked of a daemon.

use std::time::Duration;

use onelane::model::{Amount, Face, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::money::Amount as Told;
use super::words::{ago, now, until};
use crate::cli::args::{CreateKeyArgs, KeysVerb, OverArg, RoleArg};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Where the keys are.
const PATH: &str = "/api/admin/glm/keys";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    id: String,
    name: String,
    state: String,
    role: String,
    user_id: Option<String>,
    default_priority: i32,
    max_priority: Option<i32>,
    #[serde(default)]
    models: Vec<String>,
    calls_in_flight: Option<u32>,
    requests_per_minute: Option<u32>,
    share: u32,
    budget: Option<KeyBudget>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct KeyBudget {
    cost: Option<super::money::Exact>,
    currency: Option<onelane::model::Currency>,
    tokens: Option<u64>,
    period: String,
}

#[derive(Deserialize)]
struct List {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct One {
    key: Key,
}

/// The one answer that holds a whole key.
#[derive(Deserialize)]
struct Made {
    key: String,
    id: String,
    name: String,
}

/// Dispatches to the verb.
pub(crate) async fn keys(verb: KeysVerb, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    match verb {
        KeysVerb::List(_) => {
            let answer = daemon.get(PATH, &Query::default()).await?;
            answer.tell(json, |List { keys }| text(&keys))?;
        }
        KeysVerb::Show(args) => {
            let id = find(daemon, &args.key).await?;
            let answer = daemon
                .get(&format!("{PATH}/{id}"), &Query::default())
                .await?;
            answer.tell(json, |One { key }| describe(&key))?;
        }
        KeysVerb::Create(args) => {
            let answer = daemon.post(PATH, &body(&args)).await?;
            let Made { id, name, .. } = answer.read()?;
            answer.tell(json, |made: Made| made.key)?;
            crate::cli::note(&format!("client key {id} ({name}); it is shown this once"));
        }
        KeysVerb::Revoke(args) => {
            let id = find(daemon, &args.key).await?;
            let answer = daemon.order(&format!("{PATH}/{id}/revoke")).await?;
            answer.tell(json, |One { key }| {
                format!("client key {} ({}) is revoked", key.id, key.name)
            })?;
        }
        KeysVerb::Rotate(args) => {
            let id = find(daemon, &args.key).await?;
            let body = json!({"overlapMs": ms(args.overlap)});
            let answer = daemon.post(&format!("{PATH}/{id}/rotate"), &body).await?;
            let Made { id, name, .. } = answer.read()?;
            answer.tell(json, |made: Made| made.key)?;
            let old = match args.overlap.is_zero() {
                true => "opens nothing any more".to_owned(),
                false => format!(
                    "opens for {} more",
                    humantime::format_duration(args.overlap)
                ),
            };
            crate::cli::note(&format!(
                "client key {id} ({name}); it is shown this once\nthe old one {old}"
            ));
        }
    }
    Ok(Exit::Done)
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The key that is meant: by its id, or by its name if that is one key's alone.
async fn find(daemon: &Daemon, asked: &str) -> Result<String, CliError> {
    let answer = daemon.get(PATH, &Query::default()).await?;
    let List { keys } = answer.read()?;
    if let Some(key) = keys.iter().find(|key| key.id == asked) {
        return Ok(key.id.clone());
    }
    let mut named = keys.iter().filter(|key| key.name == asked);
    match (named.next(), named.next()) {
        (Some(key), None) => Ok(key.id.clone()),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "several client keys are called {asked}"
        ))
        .help("give the id, as `onelane keys ls` tells it")),
        // Whoever gives the whole key shall not find it in a log.
        (None, _) => Err(CliError::usage("there is no such client key")
            .help("`onelane keys ls` tells ids and names")),
    }
}

/// As `POST keys` takes it.
fn body(args: &CreateKeyArgs) -> Value {
    let mut body = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    add("name", Some(json!(args.name)));
    let role = match args.role {
        RoleArg::Client => "client",
        RoleArg::Viewer => "viewer",
    };
    add("role", Some(json!(role)));
    add("userId", args.user.as_ref().map(|user| json!(user)));
    add("defaultPriority", Some(json!(args.priority)));
    add("maxPriority", args.max_priority.map(|n| json!(n)));
    add(
        "models",
        (!args.models.is_empty()).then(|| json!(args.models)),
    );
    let faces: Vec<&str> = args.faces.iter().copied().map(Face::name).collect();
    add("faces", (!faces.is_empty()).then(|| json!(faces)));
    add(
        "namesSessions",
        args.no_sessions.then_some(Value::Bool(false)),
    );
    add("callsInFlight", args.calls_in_flight.map(|n| json!(n)));
    add(
        "requestsPerMinute",
        args.requests_per_minute.map(|n| json!(n)),
    );
    add("share", Some(json!(args.share)));
    let over = match args.over {
        OverArg::Wait => "wait",
        OverArg::Refuse => "refuse",
        OverArg::Warn => "warn",
    };
    let budget = args.budget.as_ref().map(|budget| {
        let period = budget.period.name();
        match budget.limit {
            Amount::Tokens(tokens) => json!({"tokens": tokens, "period": period, "over": over}),
            Amount::Money(cost) => {
                json!({"cost": cost.decimal(), "currency": cost.currency.code(), "period": period, "over": over})
            }
        }
    });
    add("budget", budget);
    let expires = args.expires_in.map(|span| json!(now().plus_ms(ms(span))));
    add("expiresAt", expires);
    add(
        "onDisconnect",
        args.on_disconnect.map(|what| json!(what.to_string())),
    );
    add("jwt", args.jwt.then_some(Value::Bool(true)));
    Value::Object(body)
}

fn text(keys: &[Key]) -> String {
    if keys.is_empty() {
        return "there are no client keys; `onelane keys create NAME` makes one".to_owned();
    }
    let now = now();
    let row = |key: &Key| {
        [
            key.id.clone(),
            key.state.clone(),
            key.role.clone(),
            key.user_id.clone().unwrap_or_else(|| "any".to_owned()),
            ago(key.created_at, now),
            ends(key, now),
            key.name.clone(),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let head = ["KEY", "STATE", "ROLE", "USER", "CREATED", "EXPIRES", "NAME"];
    format!("{}\n{} in all", fitting(head, &rows), rows.len())
}

fn ends(key: &Key, now: Timestamp) -> String {
    match key.expires_at {
        None => "never".to_owned(),
        Some(at) if at > now => until(at, now),
        Some(at) => ago(at, now),
    }
}

fn describe(key: &Key) -> String {
    let now = now();
    let mut lines = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<20} {value}")));
    };
    add("key", Some(key.id.clone()));
    add("name", Some(key.name.clone()));
    add("state", Some(key.state.clone()));
    add("role", Some(key.role.clone()));
    add("user", key.user_id.clone());
    add("priority", Some(key.default_priority.to_string()));
    add("highest priority", key.max_priority.map(|n| n.to_string()));
    add(
        "models",
        (!key.models.is_empty()).then(|| key.models.join(", ")),
    );
    add(
        "calls in flight",
        key.calls_in_flight.map(|n| n.to_string()),
    );
    add(
        "requests per minute",
        key.requests_per_minute.map(|n| n.to_string()),
    );
    add("share", Some(key.share.to_string()));
    let budget = key.budget.as_ref().map(|budget| {
        let amount = Told::of(budget.cost, budget.currency, budget.tokens);
        format!("{} a {}", amount.text(), budget.period)
    });
    add("budget", budget);
    add("created", Some(ago(key.created_at, now)));
    add("expires", key.expires_at.map(|_| ends(key, now)));
    add("revoked", key.revoked_at.map(|at| ago(at, now)));
    lines.join("\n")
}
