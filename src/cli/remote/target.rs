//! Which daemon is asked, and by what token: flag > environment > context > default.

use std::fmt;
use std::path::{Path, PathBuf};

use onelane::model::Secret;

use super::contexts::{Context, Contexts};
use crate::cli::args::remote::Target;
use crate::cli::exit::CliError;

/// Where a daemon listens that nobody told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:4700";
/// The variable that the daemon reads, too.
const TOKEN_VARIABLE: &str = "ONELANE_ADMIN_TOKEN";

/// Who named something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedBy {
    Flag(&'static str),
    Env(&'static str),
    Context(String),
    /// The daemon itself, beside its store.
    Store(String),
    Default,
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "from {name}"),
            Self::Env(name) => write!(f, "from {name}"),
            Self::Context(name) => write!(f, "of context {name}"),
            Self::Store(path) => write!(f, "which has {path} open"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// What is known of the daemon before it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) named_by: NamedBy,
    pub(crate) token: Option<(Secret, NamedBy)>,
    pub(crate) ca_file: Option<PathBuf>,
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

impl Target {
    /// Whether the command itself names a daemon.
    pub(crate) const fn is_named(&self) -> bool {
        self.url.is_some() || self.context.is_some()
    }

    /// The daemon that is meant.
    pub(crate) fn place(&self) -> Result<Place, CliError> {
        if let Some(url) = self.url.clone() {
            return self.at(url, NamedBy::Flag("--url"), None);
        }
        if let Some(name) = &self.context {
            return self.of_context(name);
        }
        if let Some(url) = variable("ONELANE_URL") {
            return self.at(url, NamedBy::Env("ONELANE_URL"), None);
        }
        if let Some(name) = variable("ONELANE_CONTEXT") {
            return self.of_context(&name);
        }
        match Contexts::load()?.current {
            Some(name) => self.of_context(&name),
            None => self.at(URL_DEFAULT.to_owned(), NamedBy::Default, None),
        }
    }

    /// The daemon at this URL, with the token that flag or environment give.
    pub(crate) fn at(
        &self,
        url: String,
        named_by: NamedBy,
        context: Option<&Context>,
    ) -> Result<Place, CliError> {
        let of_context = context.and_then(|context| context.token_file.as_deref());
        // A context has its own token: that of this machine's daemon is no business of another one.
        let file = self
            .token_file
            .as_deref()
            .map(|file| (file, NamedBy::Flag("--token-file")));
        let file = file.or_else(|| of_context.map(|file| (file, named_by.clone())));
        let token = match file {
            Some((file, named_by)) => Some((read_token(file)?, named_by)),
            None => variable(TOKEN_VARIABLE)
                .map(|token| (Secret::new(token.trim()), NamedBy::Env(TOKEN_VARIABLE))),
        };
        let ca_file = self.ca_file.clone();
        let ca_file = ca_file.or_else(|| context.and_then(|context| context.ca_file.clone()));
        Ok(Place {
            url,
            named_by,
            token,
            ca_file,
        })
    }

    fn of_context(&self, name: &str) -> Result<Place, CliError> {
        let contexts = Contexts::load()?;
        let context = contexts.find(name)?;
        let named_by = NamedBy::Context(name.to_owned());
        self.at(context.url.clone(), named_by, Some(context))
    }
}

fn read_token(file: &Path) -> Result<Secret, CliError> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::usage(format!("the token's file {shown} can't be read: {error}"))
            .help("name a readable file with --token-file, or set ONELANE_ADMIN_TOKEN")
    })?;
    match text.trim() {
        "" => Err(
            CliError::usage(format!("the token's file {shown} is empty"))
                .help("write the daemon's admin token into it"),
        ),
        token => Ok(Secret::new(token)),
    }
}
