//! `onelane config get`, `set` and `history`: the settings in force in a running daemon, and who changed them.

use onelane::model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Daemon, Query};
use super::words::{ago, now};
use crate::cli::args::HistoryArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::{fitting, fitting_columns};

/// Settings that are told where a name is none.
const NEAR_TOLD: usize = 3;
/// How alike names have to be for one to be meant by the other.
const NEAR_ENOUGH: f64 = 0.7;

#[derive(Deserialize)]
struct ConfigAnswer {
    warning: Option<String>,
    config: Value,
}

/// The settings without the structure above them: `retry.baseDelay` and its value.
fn flat(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => out.push((prefix.to_owned(), value.clone())),
        Some(fields) => {
            for (name, value) in fields {
                let path = match prefix {
                    "" => name.clone(),
                    prefix => format!("{prefix}.{name}"),
                };
                flat(&path, value, out);
            }
        }
    }
}

/// Tells a setting, a group of them, or all.
pub(crate) async fn get(key: Option<&str>, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let answer = daemon
        .get("/api/admin/glm/config", &Query::default())
        .await?;
    let ConfigAnswer { config, .. } = answer.read()?;
    let mut all = Vec::new();
    flat("", &config, &mut all);
    let Some(key) = key else {
        answer.tell(json, |_: Value| {
            let rows: Vec<_> = all
                .iter()
                .map(|(name, value)| [name.clone(), shown(value)])
                .collect();
            fitting_columns(&rows)
        })?;
        return Ok(Exit::Done);
    };
    let pointer = format!("/{}", key.replace('.', "/"));
    let Some(value) = config.pointer(&pointer) else {
        let mut near: Vec<_> = all
            .iter()
            .map(|(name, _)| (strsim::jaro_winkler(name, key), name.as_str()))
            .filter(|(alike, _)| *alike > NEAR_ENOUGH)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<&str> = near
            .into_iter()
            .take(NEAR_TOLD)
            .map(|(_, name)| name)
            .collect();
        let help = match near.is_empty() {
            true => "`onelane config get` lists all of them".to_owned(),
            false => format!(
                "did you mean {}? `onelane config get` lists all of them",
                near.join(" or ")
            ),
        };
        return Err(CliError::usage(format!("there is no setting {key}")).help(help));
    };
    if json {
        // An amount stays what it is: the text of the setting, not a number read and written again.
        crate::cli::answer(true, &json!({"key": key, "value": value}), |_| {
            String::new()
        })?;
        return Ok(Exit::Done);
    }
    let mut below = Vec::new();
    flat("", value, &mut below);
    let rows: Vec<_> = below
        .iter()
        .map(|(name, value)| [name.clone(), shown(value)])
        .collect();
    match rows.as_slice() {
        [[name, value]] if name.is_empty() => crate::cli::say(value)?,
        rows => crate::cli::say(&fitting_columns(rows))?,
    }
    Ok(Exit::Done)
}

/// The order by which settings change, as the audit list has it.
const CHANGES: &str = "PUT /api/admin/glm/config";
/// Orders of a look at the audit list.
const LOOKED_AT: usize = 500;

/// A page of the audit list, its orders as they came.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditPage {
    audit: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// An order, as far as changes are told of.
#[derive(Deserialize)]
struct Order {
    id: String,
    at: Timestamp,
    by: String,
    from: String,
    what: String,
    outcome: String,
    #[serde(default)]
    detail: Value,
}

/// Changes of settings, newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    history: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Tells who changed which settings when.
pub(crate) async fn history(
    args: &HistoryArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let limit = args.limit.max(1);
    let (mut cursor, mut found, mut more) = (args.cursor.clone(), Vec::new(), None);
    'pages: loop {
        let query = Query::default()
            .with("limit", LOOKED_AT)
            .maybe("cursor", cursor.as_ref());
        let answer = daemon.get("/api/admin/glm/audit", &query).await?;
        let page: AuditPage = answer.read()?;
        for raw in page.audit {
            let order: Order = serde_json::from_str(raw.get()).map_err(|error| {
                let problem = format!("an order is not what this version knows: {error}");
                CliError::new(Exit::NoDaemon, problem)
            })?;
            if order.what != CHANGES || order.outcome != "done" {
                continue;
            }
            if found.len() == limit {
                more = found.last().map(|(last, _): &(Order, _)| last.id.clone());
                break 'pages;
            }
            found.push((order, raw));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let (orders, history): (Vec<Order>, Vec<_>) = found.into_iter().unzip();
    let told = History {
        history,
        next_cursor: more,
    };
    crate::cli::answer(json, &told, |told| {
        changes(&orders, told.next_cursor.as_deref())
    })?;
    Ok(Exit::Done)
}

/// Changes as a table: a row for each setting.
fn changes(orders: &[Order], more: Option<&str>) -> String {
    if orders.is_empty() {
        return "no setting was changed".to_owned();
    }
    let now = now();
    let row = |order: &Order, name: &str, change: &Value| {
        let side = |side: &str| match change.get(side) {
            Some(value) => shown(value),
            // Masked, and so alike before and after.
            None => "-".to_owned(),
        };
        [
            ago(order.at, now),
            format!("{} ({})", order.by, order.from),
            name.to_owned(),
            side("before"),
            side("after"),
        ]
    };
    let mut rows = Vec::new();
    for order in orders {
        match order.detail.as_object().filter(|detail| !detail.is_empty()) {
            Some(detail) => {
                rows.extend(detail.iter().map(|(name, change)| row(order, name, change)))
            }
            // What it was is too long, or it changed nothing.
            None => rows.push(row(order, "-", &Value::Null)),
        }
    }
    let mut out = fitting(["WHEN", "WHO", "SETTING", "BEFORE", "AFTER"], &rows);
    if let Some(more) = more {
        out.push_str(&format!("\nmore: --cursor {more}"));
    }
    out
}

/// A value for a person.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Changes a setting.
pub(crate) async fn set(
    key: &str,
    value: &str,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let names: Vec<&str> = key.split('.').collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err(CliError::usage(format!("{key:?} is no setting"))
            .help("name one as `onelane config get` lists them, e.g. retry.baseDelay"));
    }
    // What is JSON is taken as it is written, all else is a text.
    let value = match RawValue::from_string(value.to_owned()) {
        Ok(raw) => raw.get().to_owned(),
        Err(_) => json!(value).to_string(),
    };
    let patch = names.iter().rev().fold(value.clone(), |inner, name| {
        format!("{{{}:{inner}}}", json!(name))
    });
    change(&patch, &format!("{key} is {value}"), daemon, json).await
}

/// Sends a part of the settings, and tells what is in force.
pub(super) async fn change(
    patch: &str,
    told: &str,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let answer = daemon
        .put_text("/api/admin/glm/config", patch.to_owned())
        .await?;
    let ConfigAnswer { warning, .. } = answer.read()?;
    if let Some(warning) = &warning {
        crate::cli::note(&format!("warning: {warning}"));
    }
    let end = match warning {
        Some(_) => "stored",
        None => "stored, and in force",
    };
    answer.tell(json, |_: Value| format!("{told}; {end}"))?;
    Ok(Exit::Done)
}
