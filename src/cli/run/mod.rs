//! `onelane run`: a file of prompts through the lane, results as they come: in process, or by the daemon that has the store
//! open.
//!
//! | file | what |
//! |---|---|
//! | `input`, `ready` | lines: read in bounded memory, checked, made into jobs |
//! | `shape` | files of another kind, recognised |
//! | `scan` | the whole input, looked at before anything is sent |
//! | `batch` | which batch a run is, what else waits, which lines are gone |
//! | `elsewhere` | lines that other batches have: moved and renamed files, and what is not paid for twice |
//! | `identity` | when a line is the same line in the next run: the rule behind "continues" |
//! | `output`, `written` | the results file, and the lines of earlier runs |
//! | `drive` | the loop: submits, watches, writes |
//! | `way` | where lines go: the lane of this process, or a daemon |
//! | `tracker` | its decisions about jobs: which one to look at, and the next step for it |
//! | `left` | whether the lane, or all that is left of its jobs, waits for an operator |
//! | `reach` | whether the run ever gets through to GLM |
//! | `release` | a start is the operator's act: it ends holds |
//! | `progress`, `summary` | views for a person and a program |

mod batch;
mod drive;
mod elsewhere;
mod identity;
mod input;
mod left;
mod output;
mod progress;
mod reach;
mod ready;
mod release;
mod scan;
mod shape;
mod summary;
mod tracker;
mod way;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onelane::model::{Batch, BatchId, Scope};
use onelane::orchestrator::Orchestrator;
use onelane::words::{counted, verb};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::args::RunArgs;
use super::exit::{CliError, Exit};
use super::remote::Daemon;
use super::start::{self, Lane};
use crate::telemetry::{self, Signals};
use batch::{LineKeys, Rest};
use drive::{Own, Run};
use elsewhere::{Elsewhere, Others, Word};
use identity::{Mode, Source};
use input::Input;
use output::Results;
use progress::Progress;
use reach::Reach;
use scan::Scan;
use summary::{End, Spent, Summary};
use way::Way;

pub(crate) use input::{Line, name, open, read};
pub(crate) use left::{HeldUp, stuck};
pub(crate) use progress::span;
pub(crate) use ready::Defaults;
pub(crate) use release::{Ends, release};

/// Who runs the lines.
struct Runner {
    way: Way,
    /// The lane of this process, if it is that.
    lane: Option<Lane>,
    /// For how long a lane that was told to stop waits for its open calls.
    drain: Duration,
    /// The model of lines that name none.
    model: String,
    /// Whether the simulator answers.
    simulated: bool,
    /// The command that lists the batches of the store.
    list: String,
}

impl Runner {
    /// The daemon that has the store open.
    async fn there(args: &RunArgs, daemon: Daemon, simulated: bool) -> Result<Self, CliError> {
        let model = match &args.common.model {
            Some(model) => model.clone(),
            None => daemon.default_model().await?,
        };
        Ok(Self {
            way: Way::There(Arc::new(daemon)),
            lane: None,
            drain: Duration::ZERO,
            model,
            simulated,
            list: "onelane batch ls".to_owned(),
        })
    }

    /// A lane in this process; `None`: a signal came before the store was open.
    async fn here(
        args: &RunArgs,
        plan: &start::Plan,
        signals: &mut Signals,
    ) -> Result<Option<Self>, CliError> {
        let Some(lane) = start::lane_in_scope(plan, Scope::Nothing, signals).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            way: Way::Here(lane.orchestrator.clone()),
            drain: lane.drain,
            model: lane.orchestrator.settings().glm.model.clone(),
            simulated: plan.is_simulated(),
            list: listing(args, &plan.config().store.path),
            lane: Some(lane),
        }))
    }

    /// Stops a lane of this process.
    async fn stop(&self, signals: &mut Signals) {
        if let Some(lane) = &self.lane {
            lane.drain(signals).await;
        }
    }
}

/// Refuses what only a lane of this process can do.
fn refuse_beside(args: &RunArgs, daemon: &Daemon, simulated: bool) -> Result<(), CliError> {
    let no = |flag: &str, why: &str, help: &str| {
        let url = daemon.url();
        Err(CliError::usage(format!(
            "{flag} is not for a run beside the daemon at {url}: {why}; nothing was sent"
        ))
        .help(help))
    };
    if args.all {
        let why = "it sends the other jobs of the store anyway";
        return no("--all", why, "leave it out");
    }
    if args.drop_rest {
        let why = "the other jobs are those of its clients";
        let help = "`onelane batch drop BATCH` or `onelane jobs cancel` give jobs of the daemon up";
        return no("--drop-rest", why, help);
    }
    if args.resume {
        let help =
            "`onelane lane resume` lifts a pause, `onelane breaker reset` closes the breaker";
        return no("--resume", "its lane is not this run's", help);
    }
    if args.common.simulate && !simulated {
        let help = "leave it out, or name a daemon of `onelane serve --simulate`";
        return no("--simulate", "it sends to GLM", help);
    }
    if args.common.base_url.is_some() {
        let why = "it calls GLM where it is configured to";
        return no("--base-url", why, "leave it out, or stop the daemon");
    }
    if args.simulated.latency.is_some() || args.simulated.script.is_some() {
        let why = "its simulator runs already";
        let help = "start the daemon with them: `onelane serve --simulate --latency TIME`";
        return no("--latency and --script", why, help);
    }
    Ok(())
}

/// Runs a file of prompts: by the daemon that has the store open, where there is one.
pub(crate) async fn run(
    args: RunArgs,
    daemon: Option<Daemon>,
    json: bool,
) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let began = Instant::now();
    // Who answers, the daemon knows.
    let simulated = match &daemon {
        Some(daemon) => daemon.is_simulated().await?,
        None => args.common.simulate,
    };
    let mode = match simulated {
        true => Mode::Simulated,
        false => Mode::Real,
    };
    let path = args.input.clone();
    let input = unless_signal(&mut signals, move || input::open(&path)).await?;
    let batch = batch::name(&args.input, args.batch.as_deref(), mode)?;
    let source = match &args.batch {
        Some(name) => Source::named(name, mode),
        None => Source::of(&args.input, mode),
    };
    let out = results_path(&args)?;
    let plan = match &daemon {
        Some(daemon) => {
            refuse_beside(&args, daemon, simulated)?;
            None
        }
        None => Some(start::plan(&args.common, &args.simulated)?),
    };
    let mut results = Results::open(&out, source)?;
    let mut progress = Progress::new(json);
    // A run is quiet: its log does not repeat what the run prints itself.
    let read;
    let config = match &plan {
        Some(plan) => plan.config(),
        None => {
            read = start::read(&args.common)?.config;
            &read
        }
    };
    let filter = match &plan {
        Some(plan) if plan.log_was_chosen() => &config.log.filter,
        _ => "warn",
    };
    telemetry::init(config, filter, progress.sink())?;

    let runner = match (daemon, &plan) {
        (Some(daemon), _) => {
            if !json {
                super::note(&format!(
                    "the daemon at {} has the store open and is asked",
                    daemon.url()
                ));
            }
            Some(Runner::there(&args, daemon, simulated).await?)
        }
        (None, Some(plan)) => Runner::here(&args, plan, &mut signals).await?,
        (None, None) => None,
    };
    let Some(runner) = runner else {
        let problem = "interrupted before the store was open; nothing was sent";
        return Err(CliError::new(Exit::JobsFailed, problem).help("run the same command again"));
    };
    if runner.simulated && !json {
        super::note(start::SIMULATION);
    }
    if let (Some(plan), Some(lane)) = (&plan, &runner.lane)
        && let Some(told) = plan.route_told(&lane.orchestrator.settings())
        && !json
    {
        super::note(&told);
    }
    let defaults = Defaults {
        user_id: args.user.clone(),
        priority: args.priority,
        model: runner.model.clone(),
        names_model: runner.lane.is_none() && args.common.model.is_some(),
        batch: Some(BatchId::named(&batch)),
    };
    let preparing = Preparing {
        args: &args,
        list: &runner.list,
        batch,
        source,
        defaults: &defaults,
    };
    let prepared = preparing
        .prepare(
            input,
            &runner.way,
            &mut results,
            &mut signals,
            &mut progress,
        )
        .await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            runner.stop(&mut signals).await;
            return Err(error);
        }
    };
    let Prepared { own, input, gone } = prepared;
    let before = own.before.clone();
    let chunks = input::read(input.reader(&args.input)?)?;
    let reach = Reach::new(args.connect_within);
    let mut run = Run::new(
        (runner.way.clone(), runner.drain),
        (source, own),
        defaults,
        chunks,
        &mut results,
        &mut progress,
        reach,
    );
    let driven = run.drive(&mut signals).await;
    let (tally, drained, spent) = (run.tally, run.drained, run.spent.clone());
    let failures = std::mem::take(&mut run.failures);
    drop(run);
    progress.clear();
    if !drained {
        runner.stop(&mut signals).await;
    }
    let end = driven?;
    if end == End::Complete {
        results.finish()?;
    }
    let (spent, rest) = books(&runner.way, &before, spent).await;
    let summary = Summary {
        input: input::name(&args.input),
        results: results.path().display().to_string(),
        tally,
        failures,
        elapsed_ms: elapsed_ms(began),
        batch_id: before.id,
        gone,
        other_jobs: rest.jobs,
        simulated: runner.simulated,
        list: runner.list,
        spent,
        end,
    };
    // Results on standard output are not mixed with anything.
    let told = if json { summary.json() } else { summary.text() };
    let exit = summary.exit();
    if !json || results.is_stdout() {
        super::note(&told);
    } else if let Err(error) = super::say(&told) {
        // The jobs' end says more than a full device.
        if exit == Exit::Done {
            return Err(error);
        }
        error.print(json);
    }
    Ok(exit)
}

/// How long ago that was, whatever the clock was set to meanwhile.
fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What a stopped lane's store says of a run: what its batch came to, and what else waits.
async fn books(lane: &Way, before: &Batch, known: Spent) -> (Spent, Rest) {
    let Ok(Some(now)) = lane.batch(before.id).await else {
        return (known, Rest::default());
    };
    // What else a daemon has is no business of a run.
    let rest = match lane.here() {
        Some(lane) => Rest::of(lane, &now).await.unwrap_or_default(),
        None => Rest::default(),
    };
    (Spent::since(before, &now), rest)
}

/// What a run needs to know before it sends anything.
struct Preparing<'a> {
    args: &'a RunArgs,
    /// The command that lists the batches of the store.
    list: &'a str,
    batch: String,
    source: Source,
    defaults: &'a Defaults,
}

/// What a run knows before it sends anything.
struct Prepared {
    own: Own,
    input: Input,
    /// Jobs that were cancelled since their lines are gone.
    gone: u64,
}

impl Preparing<'_> {
    /// Looks at the input and at what the store holds of it, and lets the lane send the batch.
    async fn prepare(
        &self,
        input: Input,
        lane: &Way,
        results: &mut Results,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<Prepared, CliError> {
        let args = self.args;
        if !args.resume
            && let Some(lane) = lane.here()
            && let Some(was) = release::order(lane).await?
        {
            return Err(batch::stopped_by_order(&was));
        }
        let known = lane.batch(BatchId::named(&self.batch)).await?;
        let begun = known.as_ref().is_some_and(|known| known.unfinished() > 0);
        let word = self.word();
        // A pipe is sent as it comes, unless what it holds decides what may be sent.
        let input = if begun || args.strict || word == Word::Adopt {
            let path = args.input.clone();
            unless_signal(signals, move || input.whole(&path)).await?
        } else {
            input
        };
        let scan = match input.again(&args.input)? {
            Some(again) => {
                let mut scan = Scan::new(self.source, self.defaults);
                let reader = again.reader(&args.input)?;
                scan.read(reader, results, signals, progress).await?;
                Some(scan)
            }
            None => None,
        };
        let name = input::name(&args.input);
        if args.strict
            && let Some(scan) = &scan
        {
            scan.refuse_bad(progress, &name)?;
        }
        let mut elsewhere = Elsewhere::default();
        let mut others_have = Others::default();
        if let Some(scan) = &scan {
            elsewhere =
                Elsewhere::find(lane, known.as_ref(), self.source, &scan.keys, word).await?;
            elsewhere.gone.ask(args.drop_gone)?;
            elsewhere.ask(word, self.source.mode, &scan.keys, &name)?;
        } else if word == Word::None && self.source.mode == Mode::Real {
            let mine = BatchId::named(&self.batch);
            others_have = Others::find(lane, mine, self.source, name).await?;
        }
        let mut before = lane.open_batch(&self.batch).await?;
        if let Some(scan) = &scan {
            self.take_over_results(&elsewhere, &scan.keys, results)?;
        }
        for told in elsewhere.adopt(lane, before.id, word).await? {
            progress.note(&told);
        }
        let gone = elsewhere.gone.cancel(lane).await?;
        if gone > 0 {
            progress.note(&format!(
                "{} gone from the input: cancelled, nothing of {} was sent",
                counted(gone, "line is", "lines are"),
                verb(gone, "it", "them"),
            ));
        }
        for id in elsewhere.moved() {
            if lane.batch(*id).await?.is_some() {
                lane.close_batch(*id).await?;
            }
        }
        if let Some(now) = lane.batch(before.id).await? {
            before = now;
        }
        // The lane of a daemon is its operator's.
        if let Some(lane) = lane.here() {
            self.rest(lane, &before, progress).await?;
            if let Some(was) = release(lane, self.ends()).await? {
                progress.note(&format!("resuming; {was}"));
            }
            let scope = if args.all {
                Scope::All
            } else {
                Scope::Batch(before.id)
            };
            lane.set_scope(scope).await?;
        }
        Ok(Prepared {
            own: Own {
                before,
                sends_all: args.all,
                others_have,
                lines: scan.map(|scan| scan.lines),
                since: Instant::now(),
            },
            input,
            gone,
        })
    }

    const fn word(&self) -> Word {
        match (self.args.adopt, self.args.again) {
            (true, _) => Word::Adopt,
            (false, true) => Word::Again,
            (false, false) => Word::None,
        }
    }

    /// Makes answers that the results have under the names of other inputs this one's. Before their jobs are taken
    /// over: whatever comes between, no line is sent that was answered.
    fn take_over_results(
        &self,
        elsewhere: &Elsewhere,
        lines: &LineKeys,
        results: &mut Results,
    ) -> Result<(), CliError> {
        let word = self.word();
        let sources = elsewhere.sources(word);
        match word {
            Word::Adopt => results.take_over_of(None, &lines.digests()),
            _ if sources.is_empty() => Ok(()),
            _ => results.take_over_of(Some(&sources), &lines.digests()),
        }
    }

    const fn ends(&self) -> Ends {
        if self.args.resume {
            Ends::HoldsAndOrders
        } else {
            Ends::Holds
        }
    }

    /// Tells what else waits, and drops it if that was asked for.
    async fn rest(
        &self,
        lane: &Orchestrator,
        mine: &Batch,
        progress: &Progress,
    ) -> Result<(), CliError> {
        let rest = Rest::of(lane, mine).await?;
        if rest.is_empty() {
            return Ok(());
        }
        let what = rest.words();
        if self.args.drop_rest {
            let dropped = batch::drop_rest(lane, mine).await?;
            progress.note(&format!("{what}: {dropped} cancelled"));
        } else if self.args.all {
            progress.note(&format!("{what}: sent too"));
        } else {
            progress.note(&format!(
                "{what}: not sent; --all sends them too, --drop-rest cancels them, and `{}` lists them",
                self.list
            ));
        }
        Ok(())
    }
}

/// Does something that may wait for a pipe, on a thread that is left behind when a signal comes first: it ends
/// with the process.
async fn unless_signal<T: Send + 'static>(
    signals: &mut Signals,
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let (done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("input".to_owned());
    let started = thread.spawn(move || {
        let _ = done.send(work());
    });
    if let Err(error) = started {
        let problem = format!("a thread can't be started: {error}");
        return Err(CliError::new(Exit::JobsFailed, problem));
    }
    tokio::select! {
        ended = ended => ended.unwrap_or_else(|_| Err(interrupted())),
        _ = signals.next() => Err(interrupted()),
    }
}

/// A signal came before anything was sent.
fn interrupted() -> CliError {
    CliError::new(Exit::JobsFailed, "interrupted; nothing was sent")
}

/// The command that lists the batches of the store, as it finds this one.
fn listing(args: &RunArgs, store: &str) -> String {
    if args.common.simulate || args.common.store.is_some() {
        return format!("onelane batch ls --store {store}");
    }
    match &args.common.config {
        Some(config) => format!("onelane batch ls --config {}", config.display()),
        None => "onelane batch ls".to_owned(),
    }
}

/// Where results go; not into the input itself.
fn results_path(args: &RunArgs) -> Result<PathBuf, CliError> {
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| output::default_path(&args.input));
    if same_file(&out, &args.input) {
        return Err(
            CliError::usage(format!("{} is the input itself", out.display()))
                .help("name another results file with --out"),
        );
    }
    Ok(out)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_lasted_as_long_as_it_did_whatever_the_wall_clock_was_set_to() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(elapsed_ms(began), 65_000);
    }
}
