//! The layers put on top of each other: one checked configuration that remembers which of them said
//! what.

use std::collections::BTreeMap;
use std::path::Path;

use onelane_core::model::{Settings, SettingsError, Timestamp};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use super::change::StoredChanges;
use super::error::{ConfigError, Fault, Origin};
use super::layer::{Entry, Layer, NAMED_SECRETS, secrets_of};
use super::loader::{ZAI_KEY_VARIABLE, read_secret_again, read_secrets};
use super::notify::EndpointSection;
use super::path::{inside, join, parent};
use super::schema::{Entry as Under, KEYS, Key, Kind};
use super::sections::Config;
use super::text;

/// The base URL of somebody who has a key of the international site and says nothing else.
const ZAI_BASE_URL: &str = "https://api.z.ai/api/paas/v4";

/// What a configuration is made of.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The file, or the embedding program.
    pub(crate) below: Layer,
    /// Flags and environment.
    pub(crate) above: Layer,
    /// Secrets that were read from files, by the setting they belong to.
    pub(crate) secrets: BTreeMap<String, Entry>,
    /// Changes made while running.
    pub(crate) stored: Option<StoredChanges>,
}

/// A checked configuration that knows where each value comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration, secrets from files filled in.
    pub config: Config,
    /// What the lane is told by it.
    pub settings: Settings,
    /// What is allowed but probably not meant, for the log.
    pub warnings: Vec<String>,
    pub(crate) merged: Layer,
    pub(crate) sources: Sources,
}

/// One setting, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its path in `config.toml`.
    pub key: String,
    /// Its value, secrets masked; null when it is not set.
    pub value: Value,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Loaded {
    /// The configuration of an embedding program, in the place of a file: changes made while
    /// running win over it. Reads the files that hold secrets.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let defaults = shown(&Config::default());
        let mut below = Layer::default();
        for (path, value) in shown(config) {
            if defaults.get(&path) != Some(&value) {
                below.insert(path, Entry::new(value, Origin::Program));
            }
        }
        let secrets = [
            ("glm.api_key", &config.glm.api_key),
            ("server.admin_token", &config.server.admin_token),
            ("webhooks.secret", &config.webhooks.secret),
        ];
        let (group, given, _) = NAMED_SECRETS;
        let of_endpoint = |(name, endpoint): (&String, &'_ EndpointSection)| {
            (join(&join(group, name), given), endpoint.secret.clone())
        };
        let secrets = secrets
            .into_iter()
            .map(|(path, secret)| (path.to_owned(), secret.clone()))
            .chain(config.webhooks.endpoints.iter().map(of_endpoint));
        for (path, secret) in secrets {
            if let Some(secret) = secret {
                let value = Value::from(secret.expose());
                below.insert(path, Entry::new(value, Origin::Program));
            }
        }
        let above = Layer::default();
        let secrets = read_secrets(&below, &above, Path::new(""))?;
        Self::compose(Sources {
            below,
            above,
            secrets,
            stored: None,
        })
    }

    /// Puts the changes that the store keeps in their place: above the file, below environment and
    /// flags. `started` is now, for a store that keeps none yet.
    pub fn with_stored(&self, json: Option<&str>, started: Timestamp) -> Result<Self, ConfigError> {
        let (mut stored, mut dropped) = match json {
            Some(json) => StoredChanges::from_json(json)?,
            None => (StoredChanges::new(started), Vec::new()),
        };
        dropped.extend(stored.drop_orphans(&self.sources.below));
        let mut loaded = Self::compose(Sources {
            stored: Some(stored),
            ..self.sources.clone()
        })?;
        loaded.warnings.extend(dropped);
        Ok(loaded)
    }

    /// The configuration with what `glm.api_key_file` holds by now; `None` if that is what it held, or if
    /// there is no such file or the environment hides it.
    pub fn with_key_file_read_again(&self) -> Result<Option<Self>, ConfigError> {
        let Some(entry) = self.sources.secrets.get("glm.api_key") else {
            return Ok(None);
        };
        let Some(entry) = read_secret_again("glm.api_key_file", entry)? else {
            return Ok(None);
        };
        let mut sources = self.sources.clone();
        sources.secrets.insert("glm.api_key".to_owned(), entry);
        Self::compose(sources).map(Some)
    }

    /// Where the value of a setting comes from, by its path in `config.toml`.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        let entry = self.merged.get(path);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Every setting with its value and where the value comes from, in the order of `config.toml`.
    #[must_use]
    pub fn explain(&self) -> Vec<Setting> {
        let values = shown(&self.config);
        let mut settings = Vec::with_capacity(values.len());
        for key in KEYS {
            let is_of = |path: &str| path == key.path || inside(key.path, path).is_some();
            let of_key = values.iter().filter(|(path, _)| is_of(path));
            settings.extend(of_key.map(|(path, value)| Setting {
                key: path.clone(),
                value: without_token(path, value),
                origin: self.origin(path),
            }));
        }
        settings
    }

    pub(crate) fn compose(sources: Sources) -> Result<Self, ConfigError> {
        let mut merged = sources.below.clone();
        if let Some(stored) = &sources.stored {
            merged.cover(&stored.layer());
        }
        merged.cover(&sources.above);
        for (given, file) in secrets_of(merged.paths()) {
            if let Some(secret) = sources
                .secrets
                .get(&given)
                .filter(|_| merged.contains(&file))
            {
                merged.insert(given, secret.clone());
            }
        }
        let key_origin = merged.get("glm.api_key").map(|entry| &entry.origin);
        if key_origin == Some(&Origin::Env(ZAI_KEY_VARIABLE)) && !merged.contains("glm.base_url") {
            let origin = Origin::DefaultFor(ZAI_KEY_VARIABLE);
            merged.insert(
                "glm.base_url",
                Entry::new(Value::from(ZAI_BASE_URL), origin),
            );
        }
        let config = Config::deserialize(Value::Object(merged.nested()))
            .map_err(|error| ConfigError::Bug(format!("checked settings don't fit: {error}")))?;
        let located = |error| locate(error, &merged);
        let settings = config.settings().map_err(located)?;
        config.validate().map_err(located)?;
        Ok(Self {
            warnings: warnings(&settings),
            config,
            settings,
            merged,
            sources,
        })
    }
}

/// A value as people may see it: of an endpoint's URL scheme and host, since the rest may be a token.
fn without_token(path: &str, value: &Value) -> Value {
    let is_endpoint = inside("webhooks.endpoints", path).is_some() && path.ends_with(".url");
    match value.as_str().filter(|_| is_endpoint) {
        Some(url) => super::site(url).map_or(Value::Null, |site| format!("{site}/...").into()),
        None => value.clone(),
    }
}

/// Adds who said the value that is out of its range. When that was nobody, a default does not fit
/// to another setting, which the problem names and somebody set, or something is missing in an entry
/// that somebody made.
fn locate(error: ConfigError, merged: &Layer) -> ConfigError {
    let ConfigError::Setting(SettingsError { field, problem }) = error else {
        return error;
    };
    // The lane does not quote names in paths.
    let said = merged
        .paths()
        .find(|path| *path == field || path.replace('"', "") == field);
    let named = || merged.paths().find(|path| problem.contains(path));
    let beside = || {
        let groups = std::iter::successors(Some(&*field), |path| parent(path));
        let mut named = groups.take_while(|group| is_named(group));
        named.find_map(|group| merged.paths().find(|path| inside(group, path).is_some()))
    };
    let key = said.unwrap_or(&field);
    let entry = said.or_else(named).or_else(beside);
    let fault = match entry.and_then(|path| merged.get(path)) {
        Some(entry) => entry.fault(key, problem),
        None => Fault::of(Origin::Default, key, problem),
    };
    ConfigError::Invalid(vec![fault])
}

/// Whether a path is one of named entries, or of all of them.
fn is_named(path: &str) -> bool {
    let is_of = |key: &Key| path == key.path || inside(key.path, path).is_some();
    KEYS.iter()
        .any(|key| matches!(key.kind, Kind::Named(_)) && is_of(key))
}

fn warnings(settings: &Settings) -> Vec<String> {
    let endpoint = &settings.endpoint;
    if endpoint.api_key.is_some() && text::is_exposed(&endpoint.base_url) {
        return vec![format!(
            "glm.base_url {} is not https: the API key crosses the network in the clear",
            endpoint.base_url
        )];
    }
    Vec::new()
}

/// Every setting's value by its path in `config.toml`, secrets masked, unset ones null. Named
/// entries have a value for each of their settings.
pub(crate) fn shown(config: &Config) -> BTreeMap<String, Value> {
    let nested = serde_json::to_value(config).unwrap_or_default();
    let mut values = BTreeMap::new();
    for key in KEYS {
        match (&key.kind, at(&nested, key.path)) {
            (Kind::Named(named), Some(Value::Object(entries))) => {
                for (name, entry) in entries {
                    let path = join(key.path, name);
                    match (&named.entry, entry) {
                        (Under::Group { .. }, Value::Object(fields)) => {
                            let fields = fields.iter();
                            values.extend(fields.map(|(name, v)| (join(&path, name), v.clone())));
                        }
                        _ => {
                            values.insert(path, entry.clone());
                        }
                    }
                }
            }
            (_, value) => {
                values.insert(key.path.to_owned(), value.cloned().unwrap_or_default());
            }
        }
    }
    values
}

/// What stands at a dotted path.
pub(crate) fn at<'a>(nested: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(nested, |group, name| group.get(name))
}
