//! The file and the files of secrets read anew while the program runs. What may change while it runs is in force then;
//! the rest is named, and waits for a restart.

use std::collections::BTreeMap;

use onelane_core::model::setting::{KeyPath, Secrets, Setting as _};
use serde_json::Value;

use super::error::ConfigError;
use super::layer::{Entry, Layer};
use super::loaded::{Loaded, Sources};
use super::schema::{leaf_of, secret_of_file, values};

/// What came of reading the files anew.
#[derive(Debug, Clone)]
pub struct Reread {
    /// The configuration with what may change while the program runs.
    pub loaded: Loaded,
    /// The settings whose values in force are others now, by their paths in `config.toml`.
    pub changed: Vec<String>,
    /// The settings that say something else now and wait for a restart.
    pub needs_restart: Vec<String>,
}

/// Whether a setting, or the secret that a file is named for, may change while the program runs.
fn is_live(path: &KeyPath) -> bool {
    let path = secret_of_file(path).unwrap_or_else(|| path.clone());
    leaf_of(&path).is_some_and(|(leaf, _)| leaf.json.is_some())
}

impl Loaded {
    /// What `fresh`, which was read from the same places by now, makes of this configuration, which is in force.
    /// Flags and environment stay as they are, and so do changes made while running, which win over the file.
    pub fn reread(&self, fresh: &Self) -> Result<Reread, ConfigError> {
        let mut below = Layer::default();
        let (old, new) = (&self.sources.below, &fresh.sources.below);
        take(&mut below, new, is_live);
        take(&mut below, old, |path| !is_live(path));
        let mut secrets = self.sources.secrets.clone();
        secrets.retain(|path, _| !is_live(path));
        let read = fresh.sources.secrets.iter();
        let live = read.filter(|(path, _)| is_live(path));
        secrets.extend(live.map(|(path, entry)| (path.clone(), entry.clone())));
        let mut stored = self.sources.stored.clone();
        let dropped = stored.as_mut().map(|stored| stored.drop_orphans(&below));
        let mut loaded = Self::compose(Sources {
            below,
            secrets,
            stored,
            file: fresh.sources.file.clone(),
            ..self.sources.clone()
        })?;
        loaded.warnings.extend(dropped.into_iter().flatten());
        let changed = differences(&self.clear(), &loaded.clear());
        let waits = differences(&fixed(self), &fixed(fresh));
        Ok(Reread {
            loaded,
            changed,
            needs_restart: waits,
        })
    }

    /// Every value in force, secrets as they are: to be compared, and shown to nobody.
    fn clear(&self) -> BTreeMap<KeyPath, Value> {
        let all = values(&self.config.write(Secrets::Clear));
        all.into_iter().collect()
    }
}

fn take(to: &mut Layer, from: &Layer, which: impl Fn(&KeyPath) -> bool) {
    for path in from.paths().filter(|path| which(path)) {
        if let Some(entry) = from.get(path) {
            to.insert(path.clone(), entry.clone());
        }
    }
}

/// What files say of settings that don't change while the program runs, unless something above them hides it.
fn fixed(loaded: &Loaded) -> BTreeMap<KeyPath, Value> {
    let Sources {
        below,
        above,
        secrets,
        ..
    } = &loaded.sources;
    let said = below
        .paths()
        .filter_map(|path| Some((path, below.get(path)?)));
    let all = said.chain(secrets);
    let fixed = all.filter(|(path, _)| !is_live(path) && !above.contains(path));
    fixed
        .map(|(path, Entry { value, .. })| (path.clone(), value.clone()))
        .collect()
}

fn differences(old: &BTreeMap<KeyPath, Value>, new: &BTreeMap<KeyPath, Value>) -> Vec<String> {
    let mut paths: Vec<&KeyPath> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ = |path: &&KeyPath| old.get(path) != new.get(path);
    let differing = paths.into_iter().filter(differ);
    differing.map(KeyPath::to_string).collect()
}
