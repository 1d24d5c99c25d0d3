//! The layers put on top of each other: one checked configuration that remembers which of them said
//! what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onelane_core::model::setting::{self, KeyPath, Place, Setting as _, SettingsError};
use onelane_core::model::{Settings, Timestamp, site};
use serde::Serialize;
use serde_json::Value;

use super::error::{ConfigError, Origin, WrongValue};
use super::layer::{Entry, Layer};
use super::proxies::Proxies;
use super::read::{self, Refused};
use super::schema::{Naming, is_of_entries, nest, values};
use super::secrets::{self, Secrets};
use super::sections::Config;
use super::stored::StoredChanges;
use super::text;

/// The variable of the international site's key.
pub(crate) const ZAI_KEY_VARIABLE: &str = "ZAI_API_KEY";
/// The base URL of somebody who has a key of the international site and says nothing else.
const ZAI_BASE_URL: &str = "https://api.z.ai/api/paas/v4";

/// What a configuration is made of.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The file, or the embedding program.
    pub(crate) below: Layer,
    /// Flags and environment.
    pub(crate) above: Layer,
    /// Secrets that were read from files.
    pub(crate) secrets: Secrets,
    /// The proxies that the environment names.
    pub(crate) proxies: Proxies,
    /// Changes made while running.
    pub(crate) stored: Option<StoredChanges>,
    /// The configuration file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What was said, not understood and left out, as those want it who defined it.
    pub(crate) ignored: Vec<String>,
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
        let said = |config: &Config| values(&config.write(setting::Secrets::Clear));
        let defaults: BTreeMap<_, _> = said(&Config::default()).into_iter().collect();
        let mut own = said(config);
        own.retain(|(path, value)| !value.is_null() && defaults.get(path) != Some(value));
        let nested = nest(own.iter().map(|(path, value)| (path, value)));
        let (leaves, refused) = read::read(&nested, Naming::Toml, &|_| false);
        if !refused.is_empty() {
            let wrong_value =
                |Refused { path, problem }| WrongValue::of(Origin::Program, path, problem);
            return Err(ConfigError::Invalid(
                refused.into_iter().map(wrong_value).collect(),
            ));
        }
        let mut below = Layer::default();
        for (path, value) in leaves {
            below.insert(path, Entry::new(value.unwrap_or_default(), Origin::Program));
        }
        let above = Layer::default();
        let secrets = secrets::read(&below, &above, Path::new(""))?;
        Self::compose(Sources {
            below,
            above,
            secrets,
            proxies: Proxies::default(),
            stored: None,
            file: None,
            ignored: Vec::new(),
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
        let key = KeyPath::from("glm.api_key");
        let Some(entry) = self.sources.secrets.get(&key) else {
            return Ok(None);
        };
        let file = KeyPath::from("glm.api_key_file");
        let Some(entry) = secrets::read_again(&file, entry)? else {
            return Ok(None);
        };
        let mut sources = self.sources.clone();
        sources.secrets.insert(key, entry);
        Self::compose(sources).map(Some)
    }

    /// Where the value of a setting comes from, by its path in `config.toml`.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        self.origin_of(&KeyPath::from(path))
    }

    pub(crate) fn origin_of(&self, path: &KeyPath) -> Origin {
        let entry = self.merged.get(path);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// The files that were read: the configuration's, and those that hold secrets.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let secrets = self.sources.secrets.values().map(|entry| &entry.origin);
        let secrets = secrets.filter_map(|origin| match origin {
            Origin::File(path) => Some(path),
            _ => None,
        });
        let files = self.sources.file.iter().chain(secrets);
        files.map(|path| path.display().to_string()).collect()
    }

    /// Every setting with its value and where the value comes from, in the order of `config.toml`.
    #[must_use]
    pub fn explain(&self) -> Vec<Setting> {
        let shown = values(&self.config.write(setting::Secrets::Masked));
        let setting = |(path, value): (KeyPath, Value)| Setting {
            value: without_token(&path, value),
            origin: self.origin_of(&path),
            key: path.to_string(),
        };
        shown.into_iter().map(setting).collect()
    }

    pub(crate) fn compose(sources: Sources) -> Result<Self, ConfigError> {
        let mut merged = sources.below.clone();
        if let Some(stored) = &sources.stored {
            merged.cover(&stored.layer());
        }
        merged.cover(&sources.above);
        for (path, _) in merged.secret_files() {
            if let Some(secret) = sources.secrets.get(&path) {
                merged.insert(path, secret.clone());
            }
        }
        let base_url = KeyPath::from("glm.base_url");
        let key = merged.get(&KeyPath::from("glm.api_key"));
        let is_zais = key.is_some_and(|key| key.origin == Origin::Env(ZAI_KEY_VARIABLE));
        if is_zais && !merged.contains(&base_url) {
            let origin = Origin::DefaultFor(ZAI_KEY_VARIABLE);
            merged.insert(base_url, Entry::new(Value::from(ZAI_BASE_URL), origin));
        }
        let config = Config::take(&Value::Object(merged.nested()));
        let config = config.ok_or_else(|| ConfigError::Bug("checked settings don't fit".into()))?;
        let mut errors = Vec::new();
        config.check(&Place::default(), &mut errors);
        let settings = config.settings()?;
        if errors.is_empty() {
            errors = settings.check();
        }
        if !errors.is_empty() {
            let errors = errors.into_iter().map(|error| blame(error, &merged));
            return Err(ConfigError::Invalid(errors.collect()));
        }
        let mut warnings = warnings(&settings);
        warnings.extend(sources.ignored.iter().cloned());
        Ok(Self {
            warnings,
            config,
            settings,
            merged,
            sources,
        })
    }
}

/// A value as people may see it: of an endpoint's URL scheme and host, since the rest may be a token.
fn without_token(path: &KeyPath, value: Value) -> Value {
    let is_endpoint = path.is_in(&KeyPath::from("webhooks.endpoints")) && path.name() == "url";
    match value.as_str().filter(|_| is_endpoint) {
        Some(url) => site(url).map_or(Value::Null, |site| format!("{site}/...").into()),
        None => value,
    }
}

/// Adds who said the value that does not go with others. When that was nobody, a default does not fit to
/// another setting, which the problem names and somebody set, or something is missing in an entry that
/// somebody made.
fn blame(error: SettingsError, merged: &Layer) -> WrongValue {
    let SettingsError { path, problem } = error;
    let beside = || {
        let entries = std::iter::successors(Some(path.clone()), KeyPath::parent);
        let mut entries = entries.take_while(is_of_entries);
        entries.find_map(|entry| merged.inside(&entry).into_iter().next())
    };
    let is_stored = |path: &KeyPath| {
        let said = merged.get(path);
        said.is_some_and(|said| said.origin == Origin::Stored)
    };
    let stored = match is_stored(&path) {
        true => Some(path.clone()),
        false => problem.settings().find(|other| is_stored(other)).cloned(),
    };
    let said = merged.get(&path);
    let said = said.or_else(|| problem.settings().find_map(|other| merged.get(other)));
    let said = said.or_else(beside);
    let wrong = match said {
        Some(entry) => entry.wrong_value(&path, problem),
        None => WrongValue::of(Origin::Default, path, problem),
    };
    // Something is missing in an entry that a change made.
    let of_entry = || {
        wrong
            .path
            .parent()
            .filter(|_| wrong.origin == Origin::Stored)
    };
    let stored = stored.or_else(of_entry);
    WrongValue { stored, ..wrong }
}

fn warnings(settings: &Settings) -> Vec<String> {
    let base_url = &settings.glm.base_url;
    if settings.glm.api_key.is_some() && text::is_exposed(base_url) {
        return vec![format!(
            "glm.base_url {base_url} is not https: the API key crosses the network in the clear"
        )];
    }
    Vec::new()
}
