//! Logs and signals of the process.

mod lines;

use std::fmt;
use std::io;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use onelane::api::LogLines;
use onelane::config::{Config, LogFormat};
use onelane::otlp::{LogExport, OtlpError, log_export};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt as lines_of, registry};

use lines::Lines;
pub(crate) use lines::Sink;

/// The lines of this process for standard error, once it logs.
static LINES: OnceLock<Lines> = OnceLock::new();

/// What exports them for OpenTelemetry, too.
static EXPORT: OnceLock<LogExport> = OnceLock::new();

/// How long the end of the process waits for lines to be taken.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why logging can't be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The filter can't be read.
    #[error("{name}: {filter:?} is not a log filter: {problem}")]
    Filter {
        /// The variable or setting it stands in.
        name: &'static str,
        /// The filter.
        filter: String,
        /// The problem with it.
        problem: String,
    },
    /// Lines can't be exported.
    #[error(transparent)]
    Export(#[from] OtlpError),
    /// The process logs already.
    #[error("logging can't be started: {0}")]
    Started(String),
}

/// Starts logging what `filter` lets through, in the language of `RUST_LOG`. `ONELANE_LOG`, or else `RUST_LOG`,
/// outweighs it. The error names the filter that can't be read. Answers the count of lines that are dropped.
pub(crate) fn init(config: &Config, filter: &str, sink: Sink) -> Result<LogLines, LogError> {
    let (name, filter) = filter_of_environment().unwrap_or(("log", filter.to_owned()));
    let filter = parse_filter(name, &filter)?;
    let lines = Lines::start(sink).map_err(|e| LogError::Started(e.to_string()))?;
    let count = lines.count();
    let layer = lines_of::layer()
        .with_writer(lines.clone())
        .with_ansi(false);
    let layer = match config.log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let export = log_export(&config.otlp)?;
    let exported = export.as_ref().map(LogExport::layer);
    let started = registry()
        .with(filter)
        .with(layer)
        .with(exported)
        .try_init();
    started.map_err(|e| LogError::Started(e.to_string()))?;
    // There is one log for each process.
    let _ = LINES.set(lines);
    if let Some(export) = export {
        let _ = EXPORT.set(export);
    }
    Ok(count)
}

/// Standard error as it is.
pub(crate) fn stderr() -> Sink {
    Box::new(|bytes| io::stderr().write(bytes))
}

/// Writes a line to standard error. Once the process logs nobody waits for its reader.
pub(crate) fn note(line: &str) {
    match LINES.get() {
        Some(lines) => lines.push(format!("{line}\n").as_bytes()),
        // A reader that is gone does not want the line any more.
        None => drop(writeln!(io::stderr().lock(), "{line}")),
    }
}

/// Waits a moment for the last lines to be exported, while there is a runtime that can send them.
pub(crate) fn last_exports() {
    if let Some(export) = EXPORT.get() {
        export.end();
    }
}

/// Waits a moment for the last lines to be taken.
pub(crate) fn last_words() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_WORDS);
    }
}

/// The filter that the environment sets, with its variable.
pub(crate) fn filter_of_environment() -> Option<(&'static str, String)> {
    ["ONELANE_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        let filter = std::env::var(name).ok().filter(|value| !value.is_empty());
        filter.map(|filter| (name, filter))
    })
}

fn parse_filter(name: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    // The actors' runtime would put a span with a number of its own before every line.
    let own = if filter.contains("ractor") {
        filter.to_owned()
    } else {
        format!("{filter},ractor=off")
    };
    EnvFilter::try_new(own).map_err(|e| LogError::Filter {
        name,
        filter: filter.to_owned(),
        problem: e.to_string(),
    })
}

/// A signal to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// From `kill`, a service manager or a container.
    Terminate,
    /// The terminal is gone, or an operator wants the files of the configuration read anew.
    Hangup,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        })
    }
}

/// The signals of this process. From its making on, none of them ends the process by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    streams: [(Signal, tokio::signal::unix::Signal); 3],
}

#[cfg(unix)]
impl Signals {
    /// Takes the signals over.
    pub(crate) fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            streams: [
                (Signal::Interrupt, signal(SignalKind::interrupt())?),
                (Signal::Terminate, signal(SignalKind::terminate())?),
                (Signal::Hangup, signal(SignalKind::hangup())?),
            ],
        })
    }

    /// The next signal. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Takes the signals over.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_refused_by_name() {
        let error = parse_filter("ONELANE_LOG", "onelane=loud")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ONELANE_LOG") && error.contains("loud"),
            "{error}"
        );
        assert!(parse_filter("log", "warn,onelane=debug").is_ok());
    }

    #[test]
    fn the_actors_runtime_speaks_only_when_asked() {
        let filter = |text: &str| parse_filter("log", text).unwrap().to_string();
        assert!(filter("info").contains("ractor=off"));
        assert!(filter("info,ractor=debug").contains("ractor=debug"));
    }
}
