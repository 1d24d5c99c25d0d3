//! Logs and signals of the process.

use std::fmt;
use std::io;

use onelane::config::LogFormat;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
    /// The process logs already.
    #[error("logging can't be started: {0}")]
    Started(String),
}

/// Starts logging what `filter` lets through, in the language of `RUST_LOG`. `ONELANE_LOG`, or else `RUST_LOG`,
/// outweighs it. The error names the filter that can't be read.
pub(crate) fn init<W>(format: LogFormat, filter: &str, writer: W) -> Result<(), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let from_env = ["ONELANE_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        std::env::var(name)
            .ok()
            .filter(|v| !v.is_empty())
            .map(|v| (name, v))
    });
    let (name, filter) = from_env.unwrap_or(("log", filter.to_owned()));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(name, &filter)?)
        .with_writer(writer)
        .with_ansi(false);
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| LogError::Started(e.to_string()))
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
    /// The terminal is gone, or an operator wants the key file read again.
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
