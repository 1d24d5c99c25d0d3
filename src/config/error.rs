//! Why a configuration is refused: what is wrong, where it was said, and what would be right.

use std::fmt;
use std::path::PathBuf;

use onelane_core::model::setting::{KeyPath, Problem};
use serde::{Serialize, Serializer};

/// Where a value comes from; the earlier kinds win over the later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// A change made while running, kept in the store.
    Stored,
    /// A file: the configuration, or the one that holds a secret.
    File(PathBuf),
    /// The embedding program's own [`Config`](super::Config).
    Program,
    /// The default that belongs to the environment variable in use.
    DefaultFor(&'static str),
    /// The default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Env(variable) => write!(f, "environment {variable}"),
            Self::Stored => f.write_str("stored change"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Program => f.write_str("program"),
            Self::DefaultFor(variable) => write!(f, "default with {variable}"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A place in a text file, counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// Of the byte `offset` in `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: in_line.chars().count() + 1,
        }
    }
}

/// One wrong value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongValue {
    /// Who said it.
    pub origin: Origin,
    /// Where in the file, if it was a file.
    pub position: Option<Position>,
    /// The setting, by its path in `config.toml`; empty: what was said is no setting.
    pub path: KeyPath,
    /// What is wrong and what would be right. Never holds the value.
    pub problem: Problem,
    /// The stored change that has a part in it: it keeps a lane from starting, and so from being told otherwise.
    pub stored: Option<KeyPath>,
}

impl WrongValue {
    /// What is wrong with a setting that was said outside any file, or somewhere in one.
    pub(crate) fn of(origin: Origin, path: KeyPath, problem: impl Into<Problem>) -> Self {
        Self {
            origin,
            position: None,
            path,
            problem: problem.into(),
            stored: None,
        }
    }
}

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.position) {
            (Origin::File(path), Some(at)) => {
                write!(f, "{}:{}:{}: ", path.display(), at.line, at.column)?;
            }
            (Origin::File(path), None) => write!(f, "{}: ", path.display())?,
            (Origin::Flag(name) | Origin::Env(name), _) => write!(f, "{name}: ")?,
            (Origin::Stored, _) => f.write_str("stored change: ")?,
            (Origin::Program | Origin::DefaultFor(_) | Origin::Default, _) => {}
        }
        if !self.path.steps().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        fmt::Display::fmt(&self.problem, f)
    }
}

/// Why there is no usable configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file can't be read.
    #[error("{}: can't be read: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// The file is not TOML.
    #[error("{}:{}:{}: {message}", path.display(), position.line, position.column)]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where.
        position: Position,
        /// What is wrong there.
        message: String,
    },
    /// Values are wrong: all of them that were found.
    #[error("{}", lines(.0))]
    Invalid(Vec<WrongValue>),
    /// The file that nobody named, but that was found, is wrong.
    #[error("{0}\nit was read because it is in the working directory; --config names another")]
    Found(Box<ConfigError>),
    /// The stored changes can't be read at all.
    #[error("the stored configuration can't be read: {0}")]
    Stored(String),
    /// An address that others can reach, without a token.
    #[error(
        "server.listen is {listen}, which other machines can reach, and there is no admin token: \
         set ONELANE_ADMIN_TOKEN, server.admin_token_file or server.admin_token, or listen on \
         127.0.0.1"
    )]
    Unguarded {
        /// The address.
        listen: String,
    },
    /// No key for GLM.
    #[error(
        "there is no API key: set ONELANE_API_KEY, ZAI_API_KEY or ZHIPUAI_API_KEY, or \
         glm.api_key_file in config.toml; --simulate needs none"
    )]
    NoApiKey,
    /// The program contradicts itself.
    #[error("{0}; this is a bug in onelane")]
    Bug(String),
}

fn lines(errors: &[WrongValue]) -> String {
    let way_out = |wrong: &WrongValue| match &wrong.stored {
        Some(stored) => {
            format!("; `onelane config unset {stored} --store FILE` takes the stored change back")
        }
        None => String::new(),
    };
    let line = |wrong: &WrongValue| format!("{wrong}{}", way_out(wrong));
    let lines: Vec<_> = errors.iter().map(line).collect();
    lines.join("\n")
}
