//! Reads the files that hold secrets.

use std::collections::BTreeMap;
use std::path::Path;

use onelane_core::model::setting::{KeyPath, Problem};
use serde_json::Value;

use super::error::{ConfigError, Origin};
use super::layer::{Entry, Layer};
use super::schema::{kind_at, secret_of_file};

/// Secrets that were read from files, by the setting they belong to.
pub(crate) type Secrets = BTreeMap<KeyPath, Entry>;

/// Reads the files that `below` names, unless a flag or the environment gives the secret: those can't be taken
/// back while the program runs.
pub(crate) fn read(below: &Layer, above: &Layer, directory: &Path) -> Result<Secrets, ConfigError> {
    let mut secrets = Secrets::new();
    for (secret, file) in below.secret_files() {
        let Some(entry) = below.get(&file) else {
            continue;
        };
        if above.contains(&secret) || below.contains(&secret) {
            continue;
        }
        let path = directory.join(entry.value.as_str().unwrap_or_default());
        let value = content(&path, &file, entry)?;
        secrets.insert(secret, Entry::new(value, Origin::File(path)));
    }
    Ok(secrets)
}

/// Reads the file of a secret again, which the setting `file` names and its own origin; `None`: it holds what
/// it held, or there is none.
pub(crate) fn read_again(file: &KeyPath, secret: &Entry) -> Result<Option<Entry>, ConfigError> {
    let Origin::File(path) = &secret.origin else {
        return Ok(None);
    };
    let value = content(path, file, secret)?;
    Ok((value != secret.value).then(|| Entry::new(value, secret.origin.clone())))
}

/// What stands in a file; what is wrong with it is the fault of `entry`.
fn content(path: &Path, setting: &KeyPath, entry: &Entry) -> Result<Value, ConfigError> {
    let read = || {
        let content = std::fs::read_to_string(path);
        let content = content.map_err(|error| format!("can't be read: {error}"))?;
        let secret = secret_of_file(setting);
        let kind = secret.as_ref().and_then(kind_at);
        let kind = kind.ok_or("belongs to no secret")?;
        kind.accept(&content.trim().into())
    };
    read().map_err(|problem: Problem| {
        let problem = format!("{}: {problem}", path.display());
        ConfigError::Invalid(vec![entry.wrong_value(setting, problem)])
    })
}
