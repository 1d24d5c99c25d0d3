//! The file and the files of secrets read anew while the program runs. What may change while it runs is in force then;
//! the rest is named, and waits for a restart.

use std::collections::BTreeMap;

use onelane_core::model::setting::{KeyPath, Secrets, Setting as _};
use serde_json::Value;

use super::error::ConfigError;
use super::layer::Layer;
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
        // What flags and environment fix is no matter of files.
        let above = &self.sources.above;
        let fixed = |loaded: &Self| {
            let mut all = loaded.clear();
            all.retain(|path, _| !is_live(path) && !above.contains(path));
            all
        };
        let needs_restart = differences(&fixed(self), &fixed(fresh));
        Ok(Reread {
            loaded,
            changed,
            needs_restart,
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

fn differences(old: &BTreeMap<KeyPath, Value>, new: &BTreeMap<KeyPath, Value>) -> Vec<String> {
    let mut paths: Vec<&KeyPath> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ = |path: &&KeyPath| old.get(path) != new.get(path);
    let differing = paths.into_iter().filter(differ);
    differing.map(KeyPath::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::Loader;

    #[test]
    fn what_is_fixed_stays_as_it_was_and_what_a_flag_fixes_waits_for_no_restart() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(directory.path().join("onelane.toml"), text).unwrap();
        let loader = || Loader::new(|_| None).directory(directory.path());
        write("[server]\nrequests_max = 5\n\n[retry]\nmax_retries = 4\n");
        let flagged = loader().flag("--store", "store.path", Some("x.redb"));
        let in_force = flagged.load().unwrap();
        write("[server]\nrequests_max = 7\n\n[glm]\nmodel = 'glm-5'\n");
        let reread = in_force.reread(&loader().load().unwrap()).unwrap();
        assert_eq!(reread.changed, ["glm.model", "retry.max_retries"]);
        assert_eq!(reread.needs_restart, ["server.requests_max"]);
        let config = &reread.loaded.config;
        assert_eq!(config.server.requests_max, 5);
        assert_eq!(
            (&*config.store.path, &*config.glm.model),
            ("x.redb", "glm-5")
        );
        // Asked again, what waits still waits, and the file as it was is no change.
        let again = reread.loaded.reread(&loader().load().unwrap()).unwrap();
        assert_eq!(again.changed, [""; 0]);
        assert_eq!(again.needs_restart, ["server.requests_max"]);
    }
}
