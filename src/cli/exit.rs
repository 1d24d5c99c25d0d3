//! Exit codes, which are an interface, and errors that say what to do.

use std::process::ExitCode;

use onelane::api::BindError;
use onelane::config::ConfigError;
use onelane::error::Error;
use onelane::orchestrator::{StartError, StopReason};
use onelane::ports::StoreError;
use serde_json::json;

use crate::telemetry::LogError;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done.
    Done = 0,
    /// Some jobs failed, or are not done: the run was interrupted, the lane broke down; books that were compared differ.
    JobsFailed = 1,
    /// Wrong usage or configuration; nothing was sent.
    Usage = 2,
    /// The store can't be opened, or failed.
    Store = 3,
    /// The lane is held until an operator acts.
    Held = 4,
    /// No daemon answers there, or one that can't be asked this.
    NoDaemon = 5,
}

impl Exit {
    /// The code the shell sees.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::Store(_) => Self::Store,
            Error::Invalid { .. }
            | Error::Unpriced(_)
            | Error::Config(_)
            | Error::NotFound(_)
            | Error::IdempotencyConflict(_) => Self::Usage,
            // All others, later ones too, are about a job that did not get done.
            _ => Self::JobsFailed,
        }
    }
}

impl From<&StopReason> for Exit {
    fn from(reason: &StopReason) -> Self {
        match reason {
            StopReason::Shutdown => Self::Done,
            StopReason::Store(_) => Self::Store,
            StopReason::Failed(_) => Self::JobsFailed,
        }
    }
}

/// Why a command stops: the exit code, the problem, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CliError {
    /// The code to exit with.
    pub(crate) exit: Exit,
    /// The problem, and where.
    pub(crate) message: String,
    /// The way out.
    pub(crate) help: Option<String>,
}

impl CliError {
    /// An error without advice.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
        }
    }

    /// Wrong usage or configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same with advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Tells it on standard error: a JSON object, or two lines for a person.
    pub(crate) fn print(&self, json: bool) {
        super::note(&self.render(json));
    }

    fn render(&self, json: bool) -> String {
        if json {
            let error = json!({
                "error": {"message": self.message, "help": self.help, "exitCode": self.exit.code()}
            });
            return error.to_string();
        }
        match &self.help {
            Some(help) => format!("error: {}\nhelp: {help}", self.message),
            None => format!("error: {}", self.message),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let help = match &error {
            StoreError::Locked { .. } => {
                "stop the other process, send the work to its API, or name another store with --store"
            }
            StoreError::NoLocks { .. } => {
                "put the store on a local disk: name a file there with --store"
            }
            StoreError::Lost { .. } => {
                "put the copy where the store belongs, or name it with --store, and run the same command again"
            }
            StoreError::Full { .. } => {
                "free some space and run the same command again; nothing acknowledged is lost"
            }
            StoreError::Access { .. } => {
                "check the path and its permissions, or name another store with --store"
            }
            StoreError::Damaged { .. } => {
                "restore it from a backup, or name another store with --store; of a damaged one `onelane db check` says what can \
                 still be read, and `onelane db export` saves that"
            }
            StoreError::Version { found, known, .. } if found < known => {
                "move the file away, or name another store with --store"
            }
            StoreError::Version { .. } | StoreError::RowVersion { .. } => {
                "use the newer onelane that wrote it, or name another store with --store"
            }
            StoreError::Io { .. } => "check the device; run the same command again once it works",
        };
        Self::new(Exit::Store, error.to_string()).help(help)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            other => Self::new(Exit::from(&other), other.to_string()),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            StartError::Store(error) => error.into(),
            other => Self::new(Exit::JobsFailed, other.to_string()),
        }
    }
}

impl From<LogError> for CliError {
    fn from(error: LogError) -> Self {
        Self::usage(error.to_string())
            .help("give a level (error, warn, info, debug, trace) or target=level, comma-separated")
    }
}

impl From<StopReason> for CliError {
    fn from(reason: StopReason) -> Self {
        let exit = Exit::from(&reason);
        match reason {
            StopReason::Store(error) => error.into(),
            StopReason::Shutdown => Self::new(exit, "the lane was shut down"),
            StopReason::Failed(why) => Self::new(exit, format!("the lane broke down: {why}"))
                .help("run the same command again; what was accepted is on disk"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked() -> StoreError {
        StoreError::Locked {
            path: "jobs.redb".to_owned(),
        }
    }

    #[test]
    fn exit_codes_are_an_interface() {
        let codes = [
            Exit::Done,
            Exit::JobsFailed,
            Exit::Usage,
            Exit::Store,
            Exit::Held,
            Exit::NoDaemon,
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn every_way_to_store_trouble_ends_in_the_same_code() {
        assert_eq!(CliError::from(locked()).exit, Exit::Store);
        assert_eq!(CliError::from(Error::Store(locked())).exit, Exit::Store);
        assert_eq!(
            CliError::from(StopReason::Store(locked())).exit,
            Exit::Store
        );
    }

    #[test]
    fn wrong_input_is_usage_and_a_broken_lane_is_not() {
        let invalid = Error::Invalid {
            field: "model".to_owned(),
            problem: "is empty".to_owned(),
        };
        assert_eq!(Exit::from(&invalid), Exit::Usage);
        assert_eq!(
            Exit::from(&Error::Stopped("draining".to_owned())),
            Exit::JobsFailed
        );
        assert_eq!(
            Exit::from(&StopReason::Failed("queue".to_owned())),
            Exit::JobsFailed
        );
    }

    #[test]
    fn an_error_says_what_and_what_to_do() {
        let error = CliError::from(locked());
        let text = error.render(false);
        assert!(text.starts_with("error: jobs.redb is in use"), "{text}");
        assert!(text.contains("\nhelp: "), "{text}");
        let json: serde_json::Value = serde_json::from_str(&error.render(true)).unwrap();
        assert_eq!(json["error"]["exitCode"], 3);
        assert!(
            json["error"]["message"]
                .as_str()
                .unwrap()
                .contains("jobs.redb")
        );
    }
}
