//! `onelane run`: a file of prompts through the lane, in process, results as they come.
//!
//! | file | what |
//! |---|---|
//! | `input`, `parse`, `ready` | lines: read in bounded memory, checked, made into jobs |
//! | `identity` | what makes a line the same line in the next run: the rule behind "continues" |
//! | `output`, `result`, `written` | the results file, a line of it, and what an earlier run left in it |
//! | `drive` | the loop: submits, watches, writes |
//! | `tracker` | its decisions about jobs: which one to look at, what became of it |
//! | `left` | whether the lane, or all that is left of its jobs, waits for an operator |
//! | `release` | what a start ends, since it is the operator's act |
//! | `progress`, `summary` | what a person and a program see |

mod drive;
mod identity;
mod input;
mod left;
mod output;
mod parse;
mod progress;
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

use summary::{End, Spent, Summary};

pub(crate) use input::{Line, open, read};
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
    // A run is quiet: what it tells itself is not told again by its log.
    let log = if plan.log_was_chosen {
        plan.log.clone()
    } else {
        onelane::config::LogSection {
            filter: "warn".to_owned(),
            ..plan.log.clone()
        }
    };
    let writer = progress.log_writer();
    telemetry::init(&log, move || writer.clone())?;

    let lane = start::lane(&plan).await?;
    if plan.simulated && !json {
        super::note(start::SIMULATION);
    }
    let defaults = Defaults {
        user_id: args.user,
        priority: args.priority,
        model: lane.orchestrator.settings().glm.model.clone(),
    };
    let chunks = input::read(input)
        .map_err(|e| CliError::new(Exit::JobsFailed, format!("a thread can't be started: {e}")))?;
    if let Some(was) = release(&lane.orchestrator, Ends::HoldsAndOrders).await? {
        progress.note(&format!("resuming; {was}"));
    }
    let mut run = Run::new(&lane, source, defaults, chunks, &mut results, &mut progress);
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
        input: match args.input.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => args.input.display().to_string(),
        },
        results: results.path().display().to_string(),
        tally,
        spent: Spent::of(&lane.orchestrator),
        simulated: plan.simulated,
        end,
    };
    // Results on standard output are not mixed with anything.
    let told = if json { summary.json() } else { summary.text() };
    let exit = summary.exit();
    if !json || results.is_stdout() {
        super::note(&told);
    } else if let Err(error) = super::say(&told) {
        // What became of the jobs says more than that it could not be told.
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
