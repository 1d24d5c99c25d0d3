//! Common parts of the verbs that look into a store while no lane runs on it.

use std::path::Path;

use onelane::config::{Loaded, Loader};
use onelane::model::Settings;
use onelane::ports::{Clock as _, Store as _, StoreError};
use onelane::store::{RedbStore, StoreOptions};
use onelane::system::SystemClock;

use super::args::StoreArgs;
use super::exit::CliError;

/// A store that is there and belongs to this process alone, and the configuration that names it.
pub(crate) struct Offline {
    /// The store.
    pub(crate) store: RedbStore,
    /// Its file.
    pub(crate) path: String,
    loaded: Loaded,
}

/// Opens the store that flags, environment and file name. None is created; one in use is refused.
pub(crate) fn open(args: &StoreArgs) -> Result<Offline, CliError> {
    with(args, RedbStore::open_existing)
}

/// The same, to look alone: the file stays as it is, also when it was not closed well.
pub(crate) fn look(args: &StoreArgs) -> Result<Offline, CliError> {
    with(args, RedbStore::open_to_look)
}

fn with(
    args: &StoreArgs,
    open: fn(String, StoreOptions) -> Result<RedbStore, StoreError>,
) -> Result<Offline, CliError> {
    let loaded = Loader::new(|name| std::env::var_os(name))
        .config_file(args.config.as_ref())
        .flag("--store", "store.path", args.store.as_ref())
        .load()?;
    let options = StoreOptions {
        cache_bytes: loaded.config.store.cache_bytes,
        quick_repair: loaded.config.store.quick_repair,
    };
    let path = loaded.config.store.path.clone();
    Ok(Offline {
        store: open(path.clone(), options)?,
        path,
        loaded,
    })
}

impl Offline {
    /// The settings in force: changes made while running, which the store keeps, included.
    pub(crate) fn settings(&self) -> Result<Settings, CliError> {
        let stored = self.store.config()?;
        let now = SystemClock.now();
        let loaded = self.loaded.with_stored(stored.as_deref(), now)?;
        Ok(loaded.settings)
    }

    /// The bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        std::fs::metadata(Path::new(&self.path)).map_or(0, |file| file.len())
    }
}
