//! `onelane config get` and `set`: the settings in force in a running daemon.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Daemon, Query};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting_columns;

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
