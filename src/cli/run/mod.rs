//! `onelane run`: a file of prompts through the lane, in process, results as they come.
//!
//! | file | what |
//! |---|---|
//! | `input`, `parse`, `ready` | lines: read in bounded memory, checked, made into jobs |
//! | `identity` | when a line is the same line in the next run: the rule behind "continues" |
//! | `output`, `result`, `written` | the results file, a line of it, and the lines of earlier runs |
//! | `drive` | the loop: submits, watches, writes |
//! | `tracker` | its decisions about jobs: which one to look at, and the next step for it |
//! | `left` | whether the lane, or all that is left of its jobs, waits for an operator |
//! | `reach` | whether the run ever gets through to GLM |
//! | `release` | a start is the operator's act: it ends holds |
//! | `progress`, `summary` | views for a person and a program |

mod drive;
mod identity;
mod input;
mod left;
mod output;
mod parse;
mod progress;
mod reach;
mod ready;
mod release;
mod result;
mod summary;
mod tracker;
mod written;

use std::path::{Path, PathBuf};

use super::args::RunArgs;
use super::exit::{CliError, Exit};
use super::start;
use crate::telemetry::{self, Signals};
use drive::Run;
use identity::{Mode, Source};
use output::Results;
use progress::Progress;
use reach::Reach;

use summary::{End, Spent, Summary};

pub(crate) use input::{Line, name, open, read};
pub(crate) use left::{HeldUp, stuck};
pub(crate) use ready::Defaults;
pub(crate) use release::{Ends, release};

/// Runs a file of prompts.
pub(crate) async fn run(args: RunArgs, json: bool) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let mode = if args.common.simulate {
        Mode::Simulated
    } else {
        Mode::Real
    };
    let source = Source::of(&args.input, mode);
    let input = input::open(&args.input)?;
    let out = results_path(&args)?;
    let plan = start::plan(&args.common)?;
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

    let Some(lane) = start::lane(&plan, &mut signals).await? else {
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
        user_id: args.user,
        priority: args.priority,
        model: lane.orchestrator.settings().glm.model.clone(),
    };
    let chunks = input::read(input)?;
    if let Some(was) = release(&lane.orchestrator, Ends::HoldsAndOrders).await? {
        progress.note(&format!("resuming; {was}"));
    }
    let reach = Reach::new(args.connect_within);
    let mut run = Run::new(
        &lane,
        source,
        defaults,
        chunks,
        &mut results,
        &mut progress,
        reach,
    );
    let driven = run.drive(&mut signals).await;
    let (tally, drained) = (run.tally, run.drained);
    drop(run);
    progress.clear();
    if !drained {
        lane.drain(&mut signals).await;
    }
    let end = driven?;
    if end == End::Complete {
        results.finish()?;
    }
    let summary = Summary {
        input: input::name(&args.input),
        results: results.path().display().to_string(),
        tally,
        spent: Spent::of(&lane.orchestrator),
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
