//! Common parts of the verbs that look into a store while no lane runs on it. They need no valid settings: what keeps a
//! lane from starting must not keep its store from being read and mended.

use std::ffi::OsString;
use std::path::Path;

use onelane::config::{
    ConfigError, Loaded, Loader, Origin, setting_path, stored_changes, without_stored_change,
};
use onelane::model::{Settings, Transition};
use onelane::ports::{Clock as _, Store as _, StoreError};
use onelane::store::{RedbStore, StoreOptions};
use onelane::system::SystemClock;
use serde_json::json;

use super::args::{StoreArgs, UnsetArgs};
use super::exit::{CliError, Exit};
use super::start;

/// A store that is there and belongs to this process alone, and the configuration that names it.
pub(crate) struct Offline {
    /// The store.
    pub(crate) store: RedbStore,
    /// Its file.
    pub(crate) path: String,
    /// `None`: the configuration is wrong, and the store was named without it.
    loaded: Option<Loaded>,
}

/// Opens the store that flags, environment and file name. None is created; one in use is refused.
pub(crate) fn open(args: &StoreArgs) -> Result<Offline, CliError> {
    with(args, |path, options| {
        Ok(RedbStore::open_existing(path, options)?)
    })
}

/// The same; one that is not there is begun, and that is said.
pub(crate) fn open_or_create(args: &StoreArgs) -> Result<Offline, CliError> {
    with(args, |path, options| {
        let is_new = !Path::new(&path).exists();
        let store = RedbStore::open(path.clone(), options)?;
        if is_new {
            super::note(&format!("{path} was not there: it is a new store"));
        }
        Ok(store)
    })
}

/// The same, to look alone: the file stays as it is, also when it was not closed well.
pub(crate) fn look_for_damage(args: &StoreArgs) -> Result<Offline, CliError> {
    with(args, |path, options| {
        RedbStore::open_to_look(path, options).map_err(|error| {
            let nothing_is_left = matches!(error, StoreError::Damaged { .. });
            let error = CliError::from(error);
            match nothing_is_left {
                true => error.help("restore it from a backup, or name another store with --store"),
                false => error,
            }
        })
    })
}

/// As [`look_for_damage`], for whoever looks for something else: damage is told.
pub(crate) fn look(args: &StoreArgs) -> Result<Offline, CliError> {
    let offline = look_for_damage(args)?;
    if offline.store.is_remains() {
        super::note(&format!(
            "warning: {} is damaged beyond mending: this is what is left of it, some rows may be missing or older \
             than they were",
            offline.path
        ));
    }
    Ok(offline)
}

/// The file of the store that flags, environment and file name; `None`: the configuration is wrong, which whoever opens
/// the store says.
pub(crate) fn path(args: &StoreArgs) -> Option<String> {
    let loaded = load(args).ok()?;
    let path = loaded.config.store.path.clone();
    match Path::new(&path).exists() || is_named(&loaded) {
        true => Some(path),
        false => Some(start::simulated_store(&path)),
    }
}

/// The file of a store that is to be made: the one that flags, environment and file name, whether it is there or not.
pub(crate) fn path_to_make(args: &StoreArgs) -> Result<String, CliError> {
    match load(args) {
        Ok(loaded) => Ok(loaded.config.store.path),
        Err(error) => named(args, error),
    }
}

fn load(args: &StoreArgs) -> Result<Loaded, ConfigError> {
    Loader::new(|name| std::env::var_os(name))
        .config_file(args.config.as_ref())
        .flag("--store", "store.path", args.store.as_ref())
        .load()
}

/// Whether the command or the environment names the store.
fn is_named(loaded: &Loaded) -> bool {
    matches!(
        loaded.origin("store.path"),
        Origin::Flag(_) | Origin::Env(_)
    )
}

fn with(
    args: &StoreArgs,
    open: fn(String, StoreOptions) -> Result<RedbStore, CliError>,
) -> Result<Offline, CliError> {
    let (loaded, path) = match load(args) {
        Ok(loaded) => {
            let path = found(&loaded);
            (Some(loaded), path)
        }
        Err(error) => (None, named(args, error)?),
    };
    let options = loaded.as_ref().map(|loaded| StoreOptions {
        cache_bytes: loaded.config.store.cache_bytes,
    });
    Ok(Offline {
        store: open(path.clone(), options.unwrap_or_default())?,
        path,
        loaded,
    })
}

/// The store's file; where nobody named one and it is not there, that of simulated runs beside it.
fn found(loaded: &Loaded) -> String {
    let path = loaded.config.store.path.clone();
    let simulated = start::simulated_store(&path);
    if is_named(loaded) || Path::new(&path).exists() || !Path::new(&simulated).exists() {
        return path;
    }
    super::note(&format!(
        "{path} is not there: this is {simulated}, of simulated runs"
    ));
    simulated
}

/// The store that flag or environment name, where the configuration can't be read.
fn named(args: &StoreArgs, error: ConfigError) -> Result<String, CliError> {
    let by_flag = args.store.clone().map(OsString::from);
    let by_env = || std::env::var_os("ONELANE_STORE").filter(|path| !path.is_empty());
    let named = by_flag
        .or_else(by_env)
        .and_then(|path| path.into_string().ok());
    let Some(path) = named else {
        let help = "name the store with --store, then the configuration is not needed";
        return Err(CliError::from(error).help(help));
    };
    super::note(&format!(
        "warning: the configuration is wrong and not used: {error}"
    ));
    Ok(path)
}

impl Offline {
    /// The settings in force: changes made while running, which the store keeps, included. Where these can't be used
    /// it is without them, and says so.
    pub(crate) fn settings(&self) -> Settings {
        let Some(loaded) = &self.loaded else {
            return Settings::default();
        };
        let now = SystemClock.now();
        let in_force = self.store.config().map_err(CliError::from);
        let in_force = in_force.and_then(|json| Ok(loaded.with_stored(json.as_deref(), now)?));
        match in_force {
            Ok(loaded) => loaded.settings,
            Err(error) => {
                super::note(&format!(
                    "warning: the changes made while running are not used: {error}"
                ));
                loaded.settings.clone()
            }
        }
    }

    /// The bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        bytes_of(&self.path)
    }

    /// Closes the store, which gives room back that was there for writing alone; where it was, and the bytes of its file then.
    pub(crate) fn closed(self) -> (String, u64) {
        drop(self.store);
        let bytes = bytes_of(&self.path);
        (self.path, bytes)
    }
}

fn bytes_of(path: &str) -> u64 {
    std::fs::metadata(Path::new(path)).map_or(0, |file| file.len())
}

/// `onelane config unset`: takes a stored change back.
pub(crate) fn unset(args: &UnsetArgs, json: bool) -> Result<Exit, CliError> {
    let key = &setting_path(&args.key).map_err(CliError::usage)?;
    let offline = open(&args.store)?;
    let path = &offline.path;
    let nothing = |changes: &[String]| {
        let help = match changes {
            [] => "no change of any setting is stored".to_owned(),
            changes => format!("there are changes of {}", changes.join(", ")),
        };
        CliError::usage(format!("{path} keeps no change of {key}")).help(help)
    };
    let Some(stored) = offline.store.config()? else {
        return Err(nothing(&[]));
    };
    let Some(left) = without_stored_change(&stored, key, SystemClock.now())? else {
        return Err(nothing(&stored_changes(&stored)?));
    };
    offline.store.commit(&[Transition::Config(left)])?;
    let answer = json!({"path": path, "unset": key});
    super::answer(json, &answer, |_| {
        format!("{path}: the change of {key} is taken back; file and defaults count again")
    })?;
    Ok(Exit::Done)
}
