//! What the configuration promises, each module one promise.

mod change;
mod complete;
mod errors;
mod notify;
mod otlp;
mod papers;
mod policy;
mod precedence;
mod price_rows;
mod prices;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use onelane_core::model::Timestamp;
use tempfile::TempDir;

use super::{Loaded, Loader};

/// A working directory with an environment of its own.
struct Place {
    directory: TempDir,
    variables: BTreeMap<String, OsString>,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            variables: BTreeMap::new(),
        }
    }

    fn with_config(text: &str) -> Self {
        Self::new().file("config.toml", text)
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn loader(&self) -> Loader<'_> {
        Loader::new(|name| self.variables.get(name).cloned()).directory(self.path())
    }

    fn load(&self) -> Loaded {
        self.loader().load().unwrap()
    }

    /// The error's text, with the directory's path cut out.
    fn error(&self) -> String {
        let error = self.loader().load().unwrap_err().to_string();
        error.replace(&format!("{}/", self.path().display()), "")
    }
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}
