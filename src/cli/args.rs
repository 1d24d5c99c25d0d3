//! The flags and their help. A flag that is not given stays `None`: which of flag, environment,
//! stored change, file and default counts is decided by the configuration, which also remembers
//! where each value came from. So the environment is named in the help here, and read there.

mod jobs;
pub(crate) mod remote;
mod tools;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use onelane::export::{Format, What};
use onelane::model::{Face, KeyBudget, OnDisconnect};

use remote::{ContextVerb, RemoteVerb, Target};
pub(crate) use tools::{
    BenchArgs, CompletionsArgs, DoctorArgs, GetSettingArgs, ManArgs, SetSettingArgs,
};

const AFTER_HELP: &str = "\
Examples:
  onelane run prompts.jsonl --simulate        try it: no key, no cost
  ZAI_API_KEY=... onelane run prompts.jsonl   results go to prompts.results.jsonl
  onelane serve                               point an OpenAI or GLM client at http://127.0.0.1:4700/v1
  onelane status                              what the daemon does, and why something waits
  onelane jobs submit \"Name one river.\" --wait

Exit codes:
  0  all done
  1  some jobs failed or are not done
  2  wrong usage or configuration
  3  the store can't be used
  4  the lane is held until an operator acts
  5  no daemon answers, or it is another one or of another version";

const RUN_AFTER_HELP: &str = "\
Input, one JSON object a line:
  {\"prompt\": \"...\", \"id\": \"a\", \"model\": \"glm-4.7\", \"priority\": 5, \"userId\": \"u\", \"contentId\": \"c\"}
  {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}], \"temperature\": 0.2}
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {...}}
  {\"face\": \"embeddings\", \"request\": {\"model\": \"embedding-3\", \"input\": \"...\"}}

Output, one JSON object a line, in the order in which they are done:
  {\"id\": \"...\", \"custom_id\": \"a\", \"response\": {\"status_code\": 200, \"request_id\": \"...\", \"body\": {...}}, \"error\": null}

The same command again continues: lines that are done are not sent again, lines that failed are
tried again. A line is known by its content and its id, not by its place; a changed line is new.
A run is a batch and sends its own lines: what else waits in the store is told and stays. Jobs whose
lines left the input are cancelled; their results stay. See `onelane batch ls`.
The first Ctrl-C lets the open call finish, the second stops at once.

Examples:
  onelane run prompts.jsonl --simulate
  onelane run prompts.jsonl --out answers.jsonl --user nightly --priority -5
  jq -c '{prompt: .text}' articles.json | onelane run - --batch articles > answers.jsonl";

const ESTIMATE_AFTER_HELP: &str = "\
Prompts are counted with GLM's own tokenizer. Answers count as long as max_tokens lets them get, or
else as long as the model can: the highest cost is what has to be there. What to expect stands beside it:
answers as long as those of the store were, or, where there is none, as GLM's usually are. The lowest cost is
that of the prompts alone, all of them from GLM's cache.

Needs no key and no store. The daemon that has the store open is asked, where there is one, unless another
base URL is named. Exit code 1: some lines are no jobs.

Examples:
  onelane estimate prompts.jsonl
  onelane estimate prompts.jsonl --model glm-5.3-flash --base-url https://api.z.ai/api/paas/v4 --json";

const STATS_AFTER_HELP: &str = "\
The daemon that has the store open is asked, where there is one.

Examples:
  onelane stats
  onelane stats --start 2026-01-01 --group-by month,user --format csv > spend.csv";

const CREATE_KEY_AFTER_HELP: &str = "\
The key alone goes to standard output, so that it can be piped; the store keeps its digest. Where any key was ever made, the routes for SDKs
and jobs ask for one, or for the admin token.

Examples:
  onelane keys create agent-1 --user ada --max-priority 10 --calls-in-flight 1
  onelane keys create nightly --budget \"5 CNY/day\" --priority -5 > nightly.key
  onelane keys create old-sdk --jwt --expires-in 90days";

const RESTORE_AFTER_HELP: &str = "\
A backup knows nothing of what came after it: jobs that were done since then it would do, and pay for, again. So the lane is
paused: look at what waits (`onelane jobs ls`), cancel what was done, then `onelane lane resume`. Calls that were open when
the backup was made are in doubt, as after a crash. Let no two lanes run on copies of one store: each does the work of both.

Examples:
  onelane db backup monday.redb
  onelane db restore monday.redb --force";

/// One durable lane in front of the GLM API.
#[derive(Debug, Parser)]
#[command(name = "onelane", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon: HTTP in, one call at a time out
    Serve(ServeArgs),
    /// Push a file of prompts through the lane and write the results
    Run(RunArgs),
    /// Run a server that behaves like GLM, for trying and testing
    Simulate(SimulateArgs),
    /// Tell what calls came to, by day, month, model or user
    Stats(StatsArgs),
    #[command(flatten)]
    Remote(RemoteVerb),
    /// Look at batches, or give one up: asks the daemon that has the store open, else opens the store
    #[command(subcommand)]
    Batch(BatchVerb),
    /// Make, look at, replace and take back client keys: asks the daemon that has the store open, else opens the store
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Look into a store, check it, export it: asks the daemon that has it open, else opens it; or make its file smaller
    #[command(subcommand)]
    Db(DbVerb),
    /// Look at the configuration, and change the settings of a running daemon
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Give daemons names, and say which one is asked
    #[command(subcommand)]
    Context(ContextVerb),
    /// Look at configuration, key, GLM, clock, store and daemon, and say what to do
    Doctor(DoctorArgs),
    /// Measure what this machine and its disk add to a call, with the built-in simulator: no key, no cost
    Bench(BenchArgs),
    /// Print a script that completes commands, for a shell
    Completions(CompletionsArgs),
    /// Print the manual page of a command, or write those of all commands
    Man(ManArgs),
    /// Show what each error code means: to the job, to the lane, to the breaker
    Policy(PolicyArgs),
    /// Show what each model costs: the price list in force, with the source of every row
    Prices(PricesArgs),
    /// Say what a file of prompts may cost, without sending anything
    Estimate(EstimateArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show every setting, its value and where the value comes from; with --url those of that daemon
    Show(ShowArgs),
    /// Ask a running daemon for a setting, or all of them, as its API names them
    Get(GetSettingArgs),
    /// Change a setting of a running daemon: checked, stored and live at once; null takes a stored change back
    Set(SetSettingArgs),
    /// List the changes of a running daemon's settings, newest first: when, who, and what was before and after
    History(HistoryArgs),
    /// Take a change back that was made while running and is kept in the store; no lane may run on it
    Unset(UnsetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UnsetArgs {
    /// The setting as in config.toml, e.g. glm.base_url, or a group of them
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// The flags of every verb that has a configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Configuration (flag > environment > stored change > file > default)"
)]
pub(crate) struct Common {
    /// Configuration file [env: ONELANE_CONFIG] [default: onelane.toml or config.toml, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Store file; with --simulate, unless named here or in the environment, the one beside it with
    /// -simulated in its name [env: ONELANE_STORE] [default: onelane.redb]
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Address of the HTTP API [env: ONELANE_LISTEN] [default: 127.0.0.1:4700]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// Base URL of GLM [env: ONELANE_BASE_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Model of jobs that name none [env: ONELANE_MODEL]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Let the built-in simulator answer instead of GLM: no key, no cost, no real answers
    #[arg(long)]
    pub(crate) simulate: bool,
}

/// How the simulator behaves that a verb starts for itself.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Simulated {
    /// How long each answer of the simulator takes, e.g. 50ms or 2s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "simulate")]
    pub(crate) latency: Option<Duration>,
    /// File with a script for the simulator; see docs/simulator.md
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Finish the jobs that wait, then exit
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) simulated: Simulated,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = RUN_AFTER_HELP)]
pub(crate) struct RunArgs {
    /// File of prompts (JSONL), or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Where results go, or - for standard output [default: next to the input; - for -]
    #[arg(long, short, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// User of lines without userId
    #[arg(long, value_name = "USER", default_value = "default")]
    pub(crate) user: String,
    /// Priority of lines without one; higher is more urgent
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) priority: i32,
    /// Name of the batch that the lines belong to; needed for standard input [default: the file's path]
    #[arg(long, value_name = "NAME")]
    pub(crate) batch: Option<String>,
    /// Send nothing while any line is bad
    #[arg(long)]
    pub(crate) strict: bool,
    /// Send the other jobs that wait in the store too, and end when none is left
    #[arg(long)]
    pub(crate) all: bool,
    /// Cancel the other jobs that wait in the store
    #[arg(long, conflicts_with = "all")]
    pub(crate) drop_rest: bool,
    /// Cancel the jobs of lines that are gone from the input even where these are more than half
    #[arg(long)]
    pub(crate) drop_gone: bool,
    /// Send lines again that another batch has answered or will: GLM bills them once more
    #[arg(long, conflicts_with = "adopt")]
    pub(crate) again: bool,
    /// Take the jobs and answers over that another batch has of these lines, at no cost
    #[arg(long)]
    pub(crate) adopt: bool,
    /// Lift an operator's pause, closed intake or open breaker
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) simulated: Simulated,
    /// How long a run that never got through to GLM tries; 0s: for ever
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) connect_within: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4701")]
    pub(crate) listen: SocketAddr,
    /// How long each answer takes, e.g. 50ms or 2s
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub(crate) latency: Duration,
    /// File with a script of answers and faults; see docs/simulator.md
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Changes that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Go on where the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Which store, for verbs that need nothing else of the configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreArgs {
    /// Configuration file [env: ONELANE_CONFIG] [default: onelane.toml or config.toml, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Store file; no other process may have it open [env: ONELANE_STORE] [default: onelane.redb]
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
}

/// Which calls are summed up, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SumsArgs {
    /// First day, YYYY-MM-DD [default: 30 days up to the last; 7 where sessions are asked for]
    #[arg(long, value_name = "DAY")]
    pub(crate) start: Option<String>,
    /// Last day, inclusive, in the zone of money.zone [default: today]
    #[arg(long, value_name = "DAY")]
    pub(crate) end: Option<String>,
    /// Calls of this model alone
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Calls of this user alone
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Calls of this session alone, from the call log
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// A row for each: day or month, model, user, key, session, with commas between; or none [default: day,model]
    #[arg(long, value_name = "NAMES")]
    pub(crate) group_by: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = STATS_AFTER_HELP)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) sums: SumsArgs,
    /// How it is written [default: table; json with --json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<StatsFormat>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchVerb {
    /// List the batches, those that are not done first
    Ls(StoreArgs),
    /// Show one batch
    Show(OneBatchArgs),
    /// Give a batch up: cancel its jobs that wait
    #[command(visible_alias = "cancel")]
    Drop(OneBatchArgs),
}

impl BatchVerb {
    /// The store that is meant.
    pub(crate) const fn store(&self) -> &StoreArgs {
        match self {
            Self::Ls(store) => store,
            Self::Show(args) | Self::Drop(args) => &args.store,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OneBatchArgs {
    /// Its id, its name, or the file that it was made from
    #[arg(value_name = "BATCH")]
    pub(crate) batch: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make a client key and print it: it is shown this once
    Create(Box<CreateKeyArgs>),
    /// List the client keys, newest first
    #[command(visible_alias = "ls")]
    List(StoreArgs),
    /// Show one client key, without its secret
    Show(OneKeyArgs),
    /// Take a client key back: it opens nothing any more
    Revoke(OneKeyArgs),
    /// Give a client key another secret and print it
    Rotate(RotateKeyArgs),
}

impl KeysVerb {
    /// The store that is meant.
    pub(crate) fn store(&self) -> &StoreArgs {
        match self {
            Self::Create(args) => &args.store,
            Self::List(store) => store,
            Self::Show(args) | Self::Revoke(args) => &args.store,
            Self::Rotate(args) => &args.store,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = CREATE_KEY_AFTER_HELP)]
pub(crate) struct CreateKeyArgs {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What it is for: client hands work in, viewer looks at everything and changes nothing
    #[arg(long, value_name = "ROLE", default_value = "client")]
    pub(crate) role: RoleArg,
    /// Whose jobs its jobs are [default: each says so itself]
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Priority of jobs that name none; higher is more urgent
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) priority: i32,
    /// Highest priority that a job may name [default: any]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max_priority: Option<i32>,
    /// Models that it may ask for, with commas between [default: all]
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    pub(crate) models: Vec<String>,
    /// Faces that it may use: chat, responses, messages, embeddings [default: all]
    #[arg(long, value_name = "FACES", value_delimiter = ',', value_parser = face)]
    pub(crate) faces: Vec<Face>,
    /// Its jobs may not say of which session they are
    #[arg(long)]
    pub(crate) no_sessions: bool,
    /// Calls that may be open at once [default: as many as the lane makes]
    #[arg(long, value_name = "N")]
    pub(crate) calls_in_flight: Option<u16>,
    /// Jobs that it may hand in within any minute [default: any number]
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Its weight among the client keys, which take turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) share: u32,
    /// What its calls may come to, like 12.50 CNY/day, 3 USD/month or 1000000 tokens/day
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<KeyBudget>,
    /// Beyond the budget: wait for the next period, refuse new jobs, or only warn
    #[arg(long, value_name = "WHAT", default_value = "wait", requires = "budget")]
    pub(crate) over: OverArg,
    /// How long it opens, e.g. 30days [default: for good]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) expires_in: Option<Duration>,
    /// What becomes of a call whose client is gone: abort, keep or drain:SECONDS [default: as configured]
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_disconnect: Option<OnDisconnect>,
    /// For GLM's older SDKs, which sign with it: its secret stays readable in the store
    #[arg(long)]
    pub(crate) jwt: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// A face by its name.
fn face(name: &str) -> Result<Face, String> {
    let names = Face::ALL.map(Face::name).join(", ");
    Face::parse(name).ok_or_else(|| format!("must be one of {names}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    Client,
    Viewer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverArg {
    Wait,
    Refuse,
    Warn,
}

#[derive(Debug, Args)]
pub(crate) struct OneKeyArgs {
    /// Its id, with which the key begins, or its name
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RotateKeyArgs {
    /// Its id, with which the key begins, or its name
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// How long the old one opens, too, e.g. 24h; at most 30 days
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) overlap: Duration,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbVerb {
    /// Show tables, jobs by status, ages, size, and what retention would remove
    Stats(StoreArgs),
    /// Check that the file is whole and its tables fit together; ends with 3 when they don't. A daemon that has it
    /// open checks the tables alone
    Check(CheckArgs),
    /// Write all of the store as JSON lines, for `onelane db import`; or all jobs, calls or usage, as JSON lines or CSV, which
    /// ends with 3 when some can't be read
    Export(ExportArgs),
    /// Make a store of the lines of an exported one: a new file, whole or not there
    Import(ImportArgs),
    /// Make a copy of the store as it is at this moment, also while a daemon has it open
    Backup(BackupArgs),
    /// Check a backup and put it in the place of the store; the lane is paused then
    #[command(after_help = RESTORE_AFTER_HELP)]
    Restore(RestoreArgs),
    /// Give the file's free space back to the device; no daemon may have it open
    Compact(StoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Mend damaged pages from those that are whole; make a copy of the file first
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file of the copy; it is written on this machine, whichever the daemon is on
    #[arg(value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup; it stays as it is
    #[arg(value_name = "BACKUP")]
    pub(crate) from: PathBuf,
    /// Replace the store that is there; it is kept beside it, under a name that is told
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave the lane as it was: what was done after the backup is done and paid for again when it is started
    #[arg(long)]
    pub(crate) no_pause: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Lines that `onelane db export` wrote, or - for standard input
    #[arg(value_name = "LINES")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Which rows; all of the store without it
    #[arg(long, value_name = "WHAT")]
    pub(crate) what: Option<What>,
    /// How they are written
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub(crate) format: Format,
    /// A new file, or - for standard output
    #[arg(long, short, value_name = "PATH", default_value = "-")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Explain this code alone, e.g. 1305, http_503 or timeout_total
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct PricesArgs {
    /// Show this model alone
    #[arg(id = "priced", value_name = "MODEL")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = ESTIMATE_AFTER_HELP)]
pub(crate) struct EstimateArgs {
    /// File of prompts (JSONL, as for `onelane run`), or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_that_are_not_given_stay_open_for_the_other_layers() {
        let Verb::Serve(args) = parse("onelane serve").unwrap().verb else {
            panic!("serve")
        };
        assert!(!args.once && !args.common.simulate);
        assert_eq!(args.common.store, None);
        assert_eq!(args.common.listen, None);
        assert_eq!(args.common.base_url, None);
        assert_eq!(args.common.model, None);
    }

    #[test]
    fn run_takes_standard_input_and_negative_priorities() {
        let cli = parse("onelane run - --priority -5 --user u --out - --json").unwrap();
        let Verb::Run(args) = cli.verb else {
            panic!("run")
        };
        assert!(cli.json);
        assert_eq!(args.input.to_str(), Some("-"));
        assert_eq!(args.out.as_deref().and_then(|p| p.to_str()), Some("-"));
        assert_eq!((args.priority, args.user.as_str()), (-5, "u"));
    }

    #[test]
    fn a_time_needs_its_unit() {
        let latency = |time: &str| match parse(&format!("onelane simulate --latency {time}"))?.verb
        {
            Verb::Simulate(args) => Ok(args.latency),
            other => panic!("{other:?}"),
        };
        assert_eq!(latency("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(latency("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(latency("1m").unwrap(), Duration::from_secs(60));
        for bad in [
            "50",
            "ms",
            "1x",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            let refused: Result<_, clap::Error> = latency(bad);
            assert!(refused.is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_is_named_in_the_help_but_read_elsewhere() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        // clap is built without its feature `env`, so no flag can take its value from there by itself.
        let help = serve.render_long_help().to_string();
        for name in [
            "ONELANE_CONFIG",
            "ONELANE_STORE",
            "ONELANE_LISTEN",
            "ONELANE_BASE_URL",
            "ONELANE_MODEL",
        ] {
            assert!(help.contains(name), "{name} in {help}");
        }
    }
}
