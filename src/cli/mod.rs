//! The command line: one file a verb, their common parts beside them.
//!
//! | file | what |
//! |---|---|
//! | `args`, `args/remote` | the flags, their help, nothing else |
//! | `exit` | exit codes, and errors with what to do about them |
//! | `start` | from a configuration to a running lane: the only place that knows how one is built |
//! | `serve`, `run`, `simulate`, `stats`, `batch`, `keys`, `db`, `policy`, `prices`, `estimate` | the verbs; `config show` is in `start`, `config unset` in `offline` |
//! | `remote/` | what a running daemon is asked, and `doctor`; its `owner` finds the daemon that has a store open |
//! | `bench` | what this machine adds to a call |
//! | `backup`, `new_file` | `db backup`, `restore`, `import` and `export` of a whole store; a file that is whole or not there |
//! | `manual` | completions for shells, and manual pages |
//! | `offline`, `table` | common parts of the verbs that look into a store; tables for people |
//!
//! A verb answers with an [`exit::Exit`] or a [`exit::CliError`]; nothing in here ends the process,
//! so that destructors run and the store is closed.

mod args;
mod backup;
mod batch;
mod bench;
mod check;
mod db;
mod estimate;
mod exit;
mod keys;
mod manual;
mod new_file;
mod offline;
mod policy;
mod prices;
mod remote;
mod run;
mod serve;
mod simulate;
mod start;
mod stats;
mod table;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::telemetry;
use args::remote::Target;
use args::{Cli, Common, ConfigVerb, StoreArgs, Verb};
use exit::{CliError, Exit};
use remote::{Daemon, Owner};
use serde::Serialize;

/// How long the end waits for work that nobody waits for any more.
const LEAVING: Duration = Duration::from_secs(5);

/// Runs the program and says how it ended.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    be_quiet_of_damage();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &args),
    };
    let json = cli.json;
    let done = match runtime() {
        Ok(runtime) => {
            let done = runtime.block_on(dispatch(cli));
            telemetry::last_exports();
            // Whatever still works on the file, the file bears to be left.
            runtime.shutdown_timeout(LEAVING);
            done
        }
        Err(error) => Err(error),
    };
    let exit = done.unwrap_or_else(|error| {
        error.print(json);
        error.exit
    });
    telemetry::last_words();
    exit.into()
}

/// What a damaged store makes its reader panic of is told as damage, in words and without a backtrace.
fn be_quiet_of_damage() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !onelane::store::panic_is_told() {
            others(panic);
        }
    }));
}

/// Names variables of the environment that are probably slips.
fn tell_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in onelane::config::unknown_variables(names) {
        note(&format!("warning: {warning}"));
    }
}

async fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let (json, target) = (cli.json, &cli.target);
    tell_unknown_variables();
    match cli.verb {
        Verb::Serve(args) => Box::pin(serve::serve(args, json)).await,
        Verb::Run(args) => {
            let daemon = beside_lane(&args.common, target).await?;
            Box::pin(run::run(args, daemon, json)).await
        }
        Verb::Simulate(args) => Box::pin(simulate::simulate(args, json)).await,
        Verb::Remote(verb) => Box::pin(remote::remote(verb, target, json)).await,
        Verb::Context(verb) => remote::contexts::context(verb, target, json),
        Verb::Doctor(args) => Box::pin(remote::doctor(&args, target, json)).await,
        Verb::Config(verb) => config(&verb, target, json).await,
        Verb::Stats(args) => match beside(&args.store, target).await? {
            Some(daemon) => remote::stats(&args, &daemon, json).await,
            None => stats::stats(&args, json),
        },
        Verb::Batch(verb) => match beside(verb.store(), target).await? {
            Some(daemon) => remote::batch(&verb, &daemon, json).await,
            None => batch::batch(&verb, json),
        },
        Verb::Keys(verb) => match beside(verb.store(), target).await? {
            Some(daemon) => remote::keys(verb, &daemon, json).await,
            None => keys::keys(verb, json),
        },
        Verb::Db(verb) => Box::pin(db::db(&verb, target, json)).await,
        Verb::Policy(args) => policy::policy(&args, json),
        Verb::Prices(args) => prices::prices(&args, json),
        Verb::Estimate(args) => {
            // Another place of GLM has other prices.
            let daemon = match args.common.base_url {
                None => beside_lane(&args.common, target).await?,
                Some(_) => None,
            };
            Box::pin(estimate::estimate(&args, daemon.as_ref(), json)).await
        }
        Verb::Bench(args) => Box::pin(bench::bench(&args, json)).await,
        Verb::Completions(args) => manual::completions(&args),
        Verb::Man(args) => manual::man(&args),
    }
}

async fn config(verb: &ConfigVerb, target: &Target, json: bool) -> Result<Exit, CliError> {
    match verb {
        ConfigVerb::Show(args) if !target.is_named() => start::show(&args.common, json),
        ConfigVerb::Unset(args) => offline::unset(args, json),
        ConfigVerb::Show(_) => remote::get_setting(None, &Daemon::of(target)?, json).await,
        ConfigVerb::Get(args) => {
            remote::get_setting(args.key.as_deref(), &Daemon::of(target)?, json).await
        }
        ConfigVerb::History(args) => {
            remote::setting_history(args, &Daemon::of(target)?, json).await
        }
        ConfigVerb::Set(args) => {
            remote::set_setting(&args.key, &args.value, &Daemon::of(target)?, json).await
        }
    }
}

/// The daemon that is asked in place of a lane of this process.
async fn beside_lane(common: &Common, target: &Target) -> Result<Option<Daemon>, CliError> {
    if target.is_named() {
        return Daemon::of(target).map(Some);
    }
    // What is wrong with the configuration, whoever starts the lane says.
    match start::store_path(common) {
        Some(path) => of_store(&path, target).await,
        None => Ok(None),
    }
}

/// The daemon that is asked in place of a store: the one that the command names, or that has the store open.
async fn beside(store: &StoreArgs, target: &Target) -> Result<Option<Daemon>, CliError> {
    if target.is_named() {
        return Daemon::of(target).map(Some);
    }
    let Some(path) = offline::path(store) else {
        return Ok(None);
    };
    of_store(&path, target).await
}

/// The daemon that has the store of this file open.
async fn of_store(path: &str, target: &Target) -> Result<Option<Daemon>, CliError> {
    Ok(match remote::owner(path, target).await? {
        Owner::Daemon(daemon) => Some(*daemon),
        Owner::Nobody => None,
        // Who has the store, if anybody has, the opening tells.
        Owner::Gone(error) => {
            note(&format!("note: {}", error.message));
            None
        }
    })
}

/// What serves HTTP and everything else but the lane, which has a thread of its own: one of the processors is left to it.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(start::no_thread)
}

/// Prints clap's words about a command line that it does not take; help and version are such too.
fn refuse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if error.use_stderr() && args.iter().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        CliError::usage(first.trim_start_matches("error: "))
            .help("see `onelane --help`")
            .print(true);
    } else {
        let told = error.print().or_else(|error| unsaid(&error));
        if let Err(error) = told {
            error.print(false);
            return error.exit.into();
        }
    }
    let exit = if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    };
    exit.into()
}

/// Writes a line to standard output. A reader that went away is no error: it does not want the
/// line any more. A full device is one: the answer is not there.
pub(crate) fn say(line: &str) -> Result<(), CliError> {
    print(&format!("{line}\n"))
}

/// Writes an answer to standard output: as JSON for a program, or else as text for a person.
pub(crate) fn answer<T: Serialize + ?Sized>(
    json: bool,
    answer: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    if !json {
        return say(&text(answer));
    }
    let line = serde_json::to_string(answer)
        .map_err(|error| CliError::new(Exit::JobsFailed, error.to_string()))?;
    say(&line)
}

/// Writes text that has its line ends to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .or_else(|error| unsaid(&error))
}

/// The error, if it is one, when standard output did not take something.
pub(crate) fn unsaid(error: &std::io::Error) -> Result<(), CliError> {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    let problem = format!("standard output can't be written: {error}");
    Err(CliError::new(Exit::JobsFailed, problem)
        .help("free some space, or send the output elsewhere"))
}

pub(crate) use telemetry::note;
