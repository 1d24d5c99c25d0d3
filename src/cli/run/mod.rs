//! `onelane run`: a file of prompts through the lane, in process, results as they come.
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
mod written;

use std::path::{Path, PathBuf};

use onelane::model::{Batch, BatchId, Scope};
use onelane::orchestrator::Orchestrator;
use onelane::words::{counted, verb};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::args::RunArgs;
use super::exit::{CliError, Exit};
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

pub(crate) use input::{Line, name, open, read};
pub(crate) use left::{HeldUp, stuck};
pub(crate) use progress::span;
pub(crate) use ready::Defaults;
pub(crate) use release::{Ends, release};

/// Runs a file of prompts.
pub(crate) async fn run(args: RunArgs, json: bool) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let began = Instant::now();
    let mode = if args.common.simulate {
        Mode::Simulated
    } else {
        Mode::Real
    };
    let path = args.input.clone();
    let input = unless_signal(&mut signals, move || input::open(&path)).await?;
    let batch = batch::name(&args.input, args.batch.as_deref(), mode)?;
    let source = match &args.batch {
        Some(name) => Source::named(name, mode),
        None => Source::of(&args.input, mode),
    };
    let out = results_path(&args)?;
    let plan = start::plan(&args.common, &args.simulated)?;
    let mut results = Results::open(&out, source)?;
    let mut progress = Progress::new(json);
    // A run is quiet: its log does not repeat what the run prints itself.
    let log = &plan.config().log;
    let filter = if plan.log_was_chosen() {
        &log.filter
    } else {
        "warn"
    };
    telemetry::init(log.format, filter, progress.sink())?;

    let Some(lane) = start::lane_in_scope(&plan, Scope::Nothing, &mut signals).await? else {
        let problem = "interrupted before the store was open; nothing was sent";
        return Err(CliError::new(Exit::JobsFailed, problem).help("run the same command again"));
    };
    if plan.is_simulated() && !json {
        super::note(start::SIMULATION);
    }
    if let Some(told) = plan
        .route_told(&lane.orchestrator.settings())
        .filter(|_| !json)
    {
        super::note(&told);
    }
    let defaults = Defaults {
        user_id: args.user.clone(),
        priority: args.priority,
        model: lane.orchestrator.settings().glm.model.clone(),
        batch: Some(BatchId::named(&batch)),
    };
    let list = listing(&args, &plan.config().store.path);
    let preparing = Preparing {
        args: &args,
        list: &list,
        batch,
        source,
        defaults: &defaults,
    };
    let prepared = preparing
        .prepare(input, &lane, &mut results, &mut signals, &mut progress)
        .await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            lane.drain(&mut signals).await;
            return Err(error);
        }
    };
    let Prepared { own, input, gone } = prepared;
    let before = own.before.clone();
    let chunks = input::read(input.reader(&args.input)?)?;
    let reach = Reach::new(args.connect_within);
    let mut run = Run::new(
        &lane,
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
        lane.drain(&mut signals).await;
    }
    let end = driven?;
    if end == End::Complete {
        results.finish()?;
    }
    let (spent, rest) = books(&lane.orchestrator, &before, spent).await;
    let summary = Summary {
        input: input::name(&args.input),
        results: results.path().display().to_string(),
        tally,
        failures,
        elapsed_ms: elapsed_ms(began),
        batch_id: before.id,
        gone,
        other_jobs: rest.jobs,
        list,
        spent,
        simulated: plan.is_simulated(),
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
async fn books(lane: &Orchestrator, before: &Batch, known: Spent) -> (Spent, Rest) {
    let Ok(Some(now)) = lane.batch(before.id).await else {
        return (known, Rest::default());
    };
    let rest = Rest::of(lane, &now).await.unwrap_or_default();
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
        lane: &Lane,
        results: &mut Results,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<Prepared, CliError> {
        let (args, lane) = (self.args, &lane.orchestrator);
        if !args.resume
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
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_lasted_as_long_as_it_did_whatever_the_wall_clock_was_set_to() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(elapsed_ms(began), 65_000);
    }
}
