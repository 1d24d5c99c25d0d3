//! From the command line to a running lane: the only place that knows how configuration, store, GLM and
//! server are put together. Verbs see a [`Plan`] and a [`Lane`].

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onelane::api::Listening;
use onelane::config::{Config, Loaded, Loader, Origin, PriceList};
use onelane::model::{Scope, Settings};
use onelane::orchestrator::{LaneThread, Orchestrator, StartError};
use onelane::ports::{Clock as _, StoreError};
use onelane::simulator::{ScriptUpdate, Simulator, SimulatorConfig, Span};
use onelane::store::stored_config;
use onelane::system::SystemClock;

use super::args::{Common, SimulateArgs, Simulated};
use super::exit::{CliError, Exit};
use super::table;
use crate::telemetry::{Signal, Signals};

/// The store of simulated runs, beside the real one: fake answers must not land among real ones, nor
/// simulated jobs that still wait be sent to GLM later.
pub(crate) fn simulated_store(path: &str) -> String {
    let path = Path::new(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-simulated.{}", extension.to_string_lossy()),
        None => format!("{stem}-simulated"),
    };
    path.with_file_name(name).to_string_lossy().into_owned()
}

/// How long the simulator of `--simulate` takes for an answer, in milliseconds: short enough to try,
/// long enough to watch.
const SIMULATED_LATENCY_MS: u64 = 20;

/// What a lane will be, known before anything is opened.
pub(crate) struct Plan {
    loaded: Loaded,
    simulator: Option<Arc<Simulator>>,
}

impl Plan {
    /// The configuration without the changes that the store keeps.
    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Whether a setting, a flag or the environment says what is logged.
    pub(crate) fn log_was_chosen(&self) -> bool {
        self.loaded.origin("log.filter") != Origin::Default
    }

    /// What is special of the way to GLM.
    pub(crate) fn route_told(&self, settings: &Settings) -> Option<String> {
        self.loaded.route().ok()?.told(&settings.glm.base_url)
    }

    /// Whether the simulator answers in place of GLM.
    pub(crate) const fn is_simulated(&self) -> bool {
        self.simulator.is_some()
    }

    /// How long a draining lane waits for its open calls before it closes them.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.config().server.shutdown_deadline_ms)
    }
}

/// A running lane, and the simulator that it may talk to.
pub(crate) struct Lane {
    /// The lane.
    pub(crate) orchestrator: Orchestrator,
    /// How long it waits for its open calls when it is told to stop.
    pub(crate) drain: Duration,
    /// Runs until its last holder drops it.
    _simulator: Option<Arc<Simulator>>,
    _thread: LaneThread,
}

/// The configuration alone, and the simulator that it may lead to.
pub(crate) fn configuration(common: &Common) -> Result<(Loaded, Option<Arc<Simulator>>), CliError> {
    configure(common, &Simulated::default())
}

/// The configuration with the changes that its store keeps.
pub(crate) fn stored(loaded: Loaded) -> Result<Loaded, CliError> {
    Ok(with_stored(loaded)?)
}

fn loader(common: &Common) -> Loader<'static> {
    Loader::new(|name| std::env::var_os(name))
        .config_file(common.config.as_ref())
        .flag("--store", "store.path", common.store.as_ref())
        .flag("--listen", "server.listen", common.listen.as_ref())
        .flag("--base-url", "glm.base_url", common.base_url.as_ref())
        .flag("--model", "glm.model", common.model.as_ref())
}

/// Reads the configuration: flag > environment > file > default; with `--simulate` as the simulator, which
/// is started, and its store want it.
fn configure(
    common: &Common,
    simulated: &Simulated,
) -> Result<(Loaded, Option<Arc<Simulator>>), CliError> {
    if !common.simulate {
        return Ok((loader(common).load()?, None));
    }
    if common.base_url.is_some() {
        return Err(
            CliError::usage("--simulate and --base-url exclude each other")
                .help("leave out one: with --simulate no call leaves this machine"),
        );
    }
    let script = simulated.script.as_deref().map(script).transpose()?;
    let simulator = Simulator::start(SimulatorConfig {
        latency_ms: Span::Fixed(SIMULATED_LATENCY_MS),
        ..SimulatorConfig::default()
    })
    .map_err(|error| CliError::usage(format!("the simulator can't be started: {error}")))?;
    // A flag outweighs the script.
    let latency_ms = simulated
        .latency
        .map(|latency| Span::Fixed(whole_ms(latency)));
    let update = script.unwrap_or_default();
    simulator.update(ScriptUpdate {
        latency_ms: latency_ms.or(update.latency_ms),
        ..update
    });
    // Costs are shown as they would be without the simulator, whose URL tells no list.
    let configured = loader(common).load()?;
    let list = (configured.config.money.price_list == PriceList::Auto)
        .then(|| PriceList::name_of(configured.settings.prices.currency()));
    let loader = || {
        loader(common)
            .flag("--simulate", "glm.base_url", Some(simulator.base_url()))
            .flag("--simulate", "glm.api_key", Some("simulated"))
            .flag("--simulate", "money.price_list", list)
    };
    let mut loaded = loader().load()?;
    // A store that the command or the environment names is the one.
    let named = matches!(
        loaded.origin("store.path"),
        Origin::Flag(_) | Origin::Env(_)
    );
    if !named {
        let path = simulated_store(&loaded.config.store.path);
        loaded = loader()
            .flag("--simulate", "store.path", Some(path))
            .load()?;
    }
    Ok((loaded, Some(Arc::new(simulator))))
}

/// Reads what the lane will be. Refuses a configuration without a key, unless `--simulate` is given: there is
/// nothing to call.
pub(crate) fn plan(common: &Common, simulated: &Simulated) -> Result<Plan, CliError> {
    let (loaded, simulator) = configure(common, simulated)?;
    if !common.simulate && loaded.config.check_key().is_err() {
        // A key that was set while running is as good as any, and the lane will find it there.
        with_stored(loaded.clone())?.config.check_key()?;
    }
    Ok(Plan { loaded, simulator })
}

/// The file of the store that a lane of this configuration has; `None`: the configuration is wrong.
pub(crate) fn store_path(common: &Common) -> Option<String> {
    let loaded = loader(common).load().ok()?;
    let path = &loaded.config.store.path;
    let named = matches!(
        loaded.origin("store.path"),
        Origin::Flag(_) | Origin::Env(_)
    );
    Some(match common.simulate && !named {
        true => simulated_store(path),
        false => path.clone(),
    })
}

/// Reads the configuration anew, without what a store keeps.
pub(crate) fn read(common: &Common) -> Result<Loaded, CliError> {
    Ok(loader(common).load()?)
}

/// Adds the changes made while running, if there is a store that may hold some.
fn with_stored(loaded: Loaded) -> Result<Loaded, StartError> {
    let path = Path::new(&loaded.config.store.path);
    if !path.exists() {
        return Ok(loaded);
    }
    let stored = stored_config(path)?;
    Ok(loaded.with_stored(stored.as_deref(), SystemClock.now())?)
}

/// The configuration, to be looked at: with the changes made while running, if their store is there
/// and free.
pub(crate) fn look(common: &Common) -> Result<Loaded, CliError> {
    let (mut loaded, _simulator) = configure(common, &Simulated::default())?;
    match with_stored(loaded.clone()) {
        Ok(with_changes) => loaded = with_changes,
        Err(StartError::Store(StoreError::Locked { path })) => super::note(&format!(
            "note: {path} is in use, so changes made while running are not shown; `onelane config get` asks the daemon"
        )),
        Err(error) => return Err(error.into()),
    }
    for warning in &loaded.warnings {
        super::note(&format!("warning: {warning}"));
    }
    Ok(loaded)
}

/// `onelane config show`: every setting, its value and where the value comes from. Secrets are masked.
/// Beside them, on standard error, the files that were read. The filter of the log is the one in force.
pub(crate) fn show(common: &Common, json: bool) -> Result<Exit, CliError> {
    let loaded = look(common)?;
    let mut settings = loaded.explain();
    if let Some((variable, filter)) = crate::telemetry::filter_of_environment()
        && let Some(log) = settings
            .iter_mut()
            .find(|setting| setting.key == "log.filter")
    {
        log.value = filter.into();
        log.origin = Origin::Env(variable);
    }
    let files = loaded.files();
    super::note(&match files.as_slice() {
        [] => "no configuration file was read".to_owned(),
        files => format!("read: {}", files.join(", ")),
    });
    if json {
        let text = serde_json::to_string_pretty(&settings);
        super::say(&text.map_err(|error| CliError::usage(error.to_string()))?)?;
        return Ok(Exit::Done);
    }
    let rows = settings.into_iter().map(|setting| {
        let value = match setting.value {
            serde_json::Value::Null => "(not set)".to_owned(),
            value => value.to_string(),
        };
        [setting.key, value, setting.origin.to_string()]
    });
    super::say(&table::columns(&rows.collect::<Vec<_>>()))?;
    Ok(Exit::Done)
}

/// Raises this process's bound on open files as far as the system lets it: connections are files.
pub(crate) fn allow_files() {
    #[cfg(unix)]
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the bound on open files stays; see `ulimit -n`");
    }
}

/// Takes the address of the API, before anything is sent. A busy port, or an open one without a
/// token, is wrong configuration.
pub(crate) async fn listen(plan: &Plan) -> Result<Listening, CliError> {
    plan.config().check_server()?;
    Ok(Listening::on(plan.config().server.clone()).await?)
}

/// Opens the store and starts the lane on it, with the simulator behind it if the plan says so. `None`: a signal came
/// first.
pub(crate) async fn lane(plan: &Plan, signals: &mut Signals) -> Result<Option<Lane>, CliError> {
    lane_in_scope(plan, Scope::All, signals).await
}

/// The same, for the jobs of this scope alone.
pub(crate) async fn lane_in_scope(
    plan: &Plan,
    scope: Scope,
    signals: &mut Signals,
) -> Result<Option<Lane>, CliError> {
    let thread = LaneThread::new().map_err(no_thread)?;
    let starting = Orchestrator::start_in_scope(plan.loaded.clone(), scope);
    let mut starting = Box::pin(thread.run(starting));
    let signal = loop {
        tokio::select! {
            biased;
            started = &mut starting => {
                return Ok(Some(Lane {
                    orchestrator: started?,
                    drain: plan.drain(),
                    _simulator: plan.simulator.clone(),
                    _thread: thread,
                }));
            }
            signal = signals.next() => match signal {
                Signal::Hangup => {}
                signal => break signal,
            },
        }
    };
    tracing::info!(%signal, "stopping before the lane has started; the store is as it was");
    if let Ok(Ok(lane)) = tokio::time::timeout(STOPPING, starting).await {
        lane.shutdown(Duration::ZERO).await;
    }
    Ok(None)
}

/// How long a start that is not wanted any more may take to come to its end.
const STOPPING: Duration = Duration::from_secs(5);

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Starts the simulator alone.
pub(crate) fn simulator(args: &SimulateArgs) -> Result<Simulator, CliError> {
    let script = args.script.as_deref().map(script).transpose()?;
    let simulator = Simulator::start(SimulatorConfig {
        listen: args.listen,
        latency_ms: Span::Fixed(whole_ms(args.latency)),
        ..SimulatorConfig::default()
    })
    .map_err(|error| {
        CliError::usage(format!("{} can't be listened on: {error}", args.listen))
            .help("free the port or name another one with --listen")
    })?;
    if let Some(update) = script {
        simulator.update(update);
    }
    Ok(simulator)
}

fn script(path: &Path) -> Result<ScriptUpdate, CliError> {
    let wrong = |problem: String| {
        CliError::usage(format!("{}: {problem}", path.display()))
            .help("give JSON as docs/simulator.md has it, e.g. {\"script\": [{\"fault\": ...}]}")
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    ScriptUpdate::read(&text).map_err(|e| wrong(e.to_string()))
}

/// Told loudly, lest a user take the simulator's answers for GLM's.
pub(crate) const SIMULATION: &str = "\
**********************************************************************
*  SIMULATION: the built-in simulator answers, not GLM.              *
*  No call leaves this machine, nothing is billed, answers are fake. *
**********************************************************************";

/// The system gives no thread.
pub(crate) fn no_thread(error: io::Error) -> CliError {
    CliError::new(
        Exit::JobsFailed,
        format!("the runtime can't be started: {error}"),
    )
    .help("the system is out of threads or files; see `ulimit -a`")
}

/// The system gives no signals.
pub(crate) fn no_signals(error: io::Error) -> CliError {
    CliError::new(
        Exit::JobsFailed,
        format!("signals can't be taken over: {error}"),
    )
}

impl Lane {
    /// Stops the lane: open calls may finish until the deadline, or until the next signal. Answers
    /// whether they did. Harmless when the lane has stopped already.
    pub(crate) async fn drain(&self, signals: &mut Signals) -> bool {
        tokio::select! {
            end = self.orchestrator.shutdown(self.drain) => {
                if !end.drained {
                    tracing::warn!(
                        deadline_ms = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX),
                        "the deadline has passed: open calls were closed and may have been billed; \
                         those that GLM holds as tasks are fetched by the next start"
                    );
                }
                end.drained
            }
            _ = signals.next() => {
                tracing::warn!("a second signal: open calls are closed now");
                self.orchestrator.shutdown(Duration::ZERO).await.drained
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_run_has_a_store_of_its_own_beside_the_real_one() {
        let check = |real, simulated| assert_eq!(simulated_store(real), simulated);
        check("onelane.redb", "onelane-simulated.redb");
        check("data/jobs.redb", "data/jobs-simulated.redb");
        check("jobs", "jobs-simulated");
    }
}
