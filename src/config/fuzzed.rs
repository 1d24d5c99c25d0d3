//! What reading a configuration promises for any text.

use std::path::Path;

use onelane_core::model::setting::{Secrets, Setting as _};
use onelane_core::model::{Settings, Timestamp};
use serde_json::Value;

use super::error::ConfigError;
use super::file::parse;
use super::layer::Layer;
use super::loaded::{Loaded, Sources};
use super::proxies::Proxies;
use super::stored::StoredChanges;

const PATH: &str = "onelane.toml";

/// A file's text, or the JSON of the changes that a store keeps. What is loaded can be shown, and what it says can be
/// loaded again.
pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if text.starts_with('{') {
        return stored(text);
    }
    let layer = match parse(Path::new(PATH), text) {
        Ok(layer) => layer,
        Err(error) => return refused(&error, text),
    };
    let written = match toml::to_string(&layer.nested()) {
        Ok(written) => written,
        Err(error) => unreachable!("what was read is no TOML: {error}"),
    };
    let loaded = match loaded(layer.clone()) {
        Ok(loaded) => loaded,
        Err(error) => return refused(&error, text),
    };
    shown(&loaded);
    match parse(Path::new(PATH), &written).and_then(self::loaded) {
        Ok(again) => same(&loaded, &again),
        Err(error) => unreachable!("{error} in what was loaded: {written}"),
    }
    // An embedding program says the same.
    if layer.secret_files().is_empty() {
        match Loaded::from_config(&loaded.config) {
            Ok(again) => same(&loaded, &again),
            Err(error) => unreachable!("{error} in what was loaded: {text}"),
        }
    }
}

fn loaded(below: Layer) -> Result<Loaded, ConfigError> {
    Loaded::compose(Sources {
        below,
        above: Layer::default(),
        // Files are no matter of the text.
        secrets: Default::default(),
        proxies: Proxies::default(),
        stored: None,
        file: None,
        ignored: Vec::new(),
    })
}

fn clear(loaded: &Loaded) -> Value {
    loaded.config.write(Secrets::Clear)
}

fn same(one: &Loaded, other: &Loaded) {
    assert_eq!(clear(one), clear(other));
    let (one, other): (&Settings, &Settings) = (&one.settings, &other.settings);
    assert!(one == other, "the same configuration, other settings");
}

/// Each setting is shown, and no secret in the clear.
fn shown(loaded: &Loaded) {
    let shown = loaded.explain();
    let key = loaded.config.glm.api_key.as_ref().map(|key| key.expose());
    if let Some(key) = key {
        let told = shown.iter().find(|setting| setting.key == "glm.api_key");
        let told = told.and_then(|setting| setting.value.as_str());
        assert!(told.is_some_and(|told| told != key), "a key is shown");
    }
    assert!(serde_json::to_string(&shown).is_ok());
}

/// Each problem has a place in the text, and words.
fn refused(error: &ConfigError, text: &str) {
    let lines = text.matches('\n').count() + 1;
    assert!(!error.to_string().is_empty());
    let places = match error {
        ConfigError::Syntax { position, .. } => vec![*position],
        ConfigError::Invalid(wrong) => {
            assert!(!wrong.is_empty());
            wrong.iter().filter_map(|wrong| wrong.position).collect()
        }
        _ => Vec::new(),
    };
    let is_there = |line| (1..=lines).contains(&line);
    assert!(places.iter().all(|place| is_there(place.line)), "{error}");
}

/// Changes that a store keeps: what is taken is written and read as the same, without a complaint.
fn stored(json: &str) {
    let Ok((changes, _)) = StoredChanges::from_json(json) else {
        return;
    };
    match StoredChanges::from_json(&changes.to_json()) {
        Ok((again, dropped)) => {
            assert_eq!(dropped, Vec::<String>::new());
            assert!(again == changes, "changes that change: {json}");
        }
        Err(error) => unreachable!("{error}: {json}"),
    }
    let Ok(loaded) = loaded(Layer::default()) else {
        return;
    };
    if let Ok(loaded) = loaded.with_stored(Some(json), Timestamp::from_millis(0)) {
        shown(&loaded);
    }
}
