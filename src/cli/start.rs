//! From the command line to a running lane: the only place that knows how configuration, store, GLM and
//! server are put together. Verbs see a [`Plan`], a [`Lane`] and a [`Server`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use onelane::orchestrator::Orchestrator;

use super::args::{Common, SimulateArgs};
use super::exit::{CliError, Exit};
use crate::telemetry::{LogSettings, Signals};

/// What a lane will be, known before anything is opened.
pub(crate) struct Plan {
    /// How it logs.
    pub(crate) log: LogSettings,
    /// The store's file.
    pub(crate) store: String,
    /// Where calls go; the simulator's own address once that runs.
    pub(crate) base_url: String,
    /// The model of jobs that name none.
    pub(crate) model: String,
    /// Calls in flight at most.
    pub(crate) max_concurrency: u16,
    /// Whether the simulator answers in place of GLM.
    pub(crate) simulated: bool,
    /// How long a draining lane waits for its open calls before it closes them.
    pub(crate) drain: Duration,
}

/// A running lane, and the simulator that it may talk to.
pub(crate) struct Lane {
    /// The lane.
    pub(crate) orchestrator: Orchestrator,
    /// How long it waits for its open calls when it is told to stop.
    pub(crate) drain: Duration,
}

/// A listening API.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

/// A running simulator; dropping it stops it.
pub(crate) struct Simulation {
    /// What to give as base URL.
    pub(crate) base_url: String,
}

/// Reads the configuration: flag > environment > stored change > file > default. Refuses what can't
/// work: without a key and without `--simulate` there is nothing to call.
pub(crate) fn plan(_common: &Common) -> Result<Plan, CliError> {
    Err(absent("the configuration"))
}

/// Every setting, its value and where the value comes from, as text or JSON.
pub(crate) fn explain(_common: &Common, _json: bool) -> Result<String, CliError> {
    Err(absent("the configuration"))
}

/// Opens the store and starts the lane on it, with the simulator behind it if the plan says so.
pub(crate) async fn lane(_plan: &Plan) -> Result<Lane, CliError> {
    Err(absent("the lane"))
}

/// Binds the API. A busy port, or an open one without a token, is wrong configuration.
pub(crate) async fn server(_plan: &Plan, _lane: &Lane) -> Result<Server, CliError> {
    Err(absent("the server"))
}

/// Starts the simulator alone.
pub(crate) fn simulation(_args: &SimulateArgs) -> Result<Simulation, CliError> {
    Err(absent("the simulator"))
}

/// Told loudly: nobody should take the simulator's answers for GLM's.
pub(crate) const SIMULATION: &str = "\
**********************************************************************
*  SIMULATION: the built-in simulator answers, not GLM.              *
*  No call leaves this machine, nothing is billed, answers are fake. *
**********************************************************************";

/// The system gives no signals.
pub(crate) fn no_signals(error: io::Error) -> CliError {
    CliError::new(
        Exit::JobsFailed,
        format!("signals can't be taken over: {error}"),
    )
}

fn absent(part: &str) -> CliError {
    CliError::usage(format!("{part} is not part of this build"))
}

impl Lane {
    /// Stops the lane: open calls may finish until the deadline, or until the next signal. Answers
    /// whether they did. Harmless when the lane has stopped already.
    pub(crate) async fn drain(&self, signals: &mut Signals) -> bool {
        tokio::select! {
            end = self.orchestrator.shutdown(self.drain) => end.drained,
            _ = signals.next() => {
                tracing::warn!("told again: open calls are closed now");
                self.orchestrator.shutdown(Duration::ZERO).await.drained
            }
        }
    }
}

impl Server {
    /// Serves until `stop` resolves, then lets open requests finish until `drain` has passed.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>, _drain: Duration) {
        stop.await;
    }
}
