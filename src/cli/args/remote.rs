//! The flags of the verbs that ask a running daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use super::jobs::{
    JobFilterArgs, JobsVerb, ListJobsArgs, MoveArgs, SelectArgs, ShowJobArgs, SubmitArgs, TailArgs,
    WaitArgs, WaitersArgs,
};

/// The flags that name a running daemon.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "A running daemon (flag > environment > context > default)")]
pub(crate) struct Target {
    /// Where it listens: http://HOST:PORT, https://HOST:PORT or unix:PATH [env: ONELANE_URL] [default: http://127.0.0.1:4700]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The daemon of this name; see `onelane context` [env: ONELANE_CONTEXT]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        conflicts_with = "url",
        id = "context_name"
    )]
    pub(crate) context: Option<String>,
    /// A file with its admin or viewer token [env: the token itself, ONELANE_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with the authority of its certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// What is asked of a running daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum RemoteVerb {
    /// Show what goes on: holds, lanes, queue, the next job, spend
    Status,
    /// List, show, submit, await, cancel, retry and re-prioritise jobs
    #[command(subcommand)]
    Jobs(JobsVerb),
    /// List the jobs that wait, in the order in which they will go, with the reason and for how long
    Waiters(WaitersArgs),
    /// Pause, resume and drain the lane, and set its bounds
    #[command(subcommand)]
    Lane(LaneVerb),
    /// List what is held, why and until when, and end holds
    #[command(subcommand)]
    Holds(HoldsVerb),
    /// Look at the circuit breaker, close or open it
    #[command(subcommand)]
    Breaker(BreakerVerb),
    /// List the call log, or follow it
    #[command(subcommand)]
    Calls(CallsVerb),
    /// Show what calls came to, with a total
    Usage(UsageCommand),
    /// Look at budgets, and set them
    #[command(subcommand)]
    Budget(BudgetVerb),
    /// List notices to webhooks, send test notices, send again what was given up
    #[command(subcommand)]
    Webhooks(WebhooksVerb),
    /// Print events as they happen
    Events(EventsArgs),
    /// Show the lane as it goes, on the whole terminal; q ends
    Top(TopArgs),
    /// Send the same prompts to several models, and tell how long each takes and what it costs
    Compare(CompareArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LaneVerb {
    /// Show the lanes, and why one lets nothing go
    Show,
    /// Stop before the next call; the open one ends by itself. Outlives a restart
    Pause(ReasonArgs),
    /// End a pause, every hold and a closed intake
    Resume,
    /// Take nothing new and work off what waits. Outlives a restart
    Drain(ReasonArgs),
    /// Set the bounds of a lane; stored, and live at once
    Set(SetLaneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Shown wherever the lane is
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("bound").required(true).multiple(true)
    .args(["concurrency", "requests_per_minute", "tokens_per_minute"]))]
pub(crate) struct SetLaneArgs {
    /// Which lane
    #[arg(value_name = "LANE", default_value = "default")]
    pub(crate) lane: String,
    /// Calls that may be open at once
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// Calls that may begin within any minute; 0: any number
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens that calls of any minute may come to; 0: any number
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_minute: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldsVerb {
    /// List the holds in force
    Ls,
    /// End a hold
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// What is held
    #[arg(value_name = "SCOPE")]
    pub(crate) scope: HoldScopeArg,
    /// The name of the lane or model
    #[arg(value_name = "NAME", required_if_eq_any = [("scope", "lane"), ("scope", "model")])]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HoldScopeArg {
    Account,
    Lane,
    Model,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakerVerb {
    /// Show its state
    Show,
    /// Close it
    Reset,
    /// Open it: nothing is sent
    Open(OpenBreakerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OpenBreakerArgs {
    /// For how long, e.g. 10m [default: until it is reset]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) span: Option<Duration>,
    /// Shown wherever the breaker is
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksVerb {
    /// List deliveries, newest first
    Ls(ListDeliveriesArgs),
    /// List the endpoints that notices go to
    Endpoints,
    /// Send a notice to try whether it arrives
    Test(TestWebhooksArgs),
    /// Send deliveries again
    Redeliver(RedeliverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListDeliveriesArgs {
    /// With this status: pending, delivered or failed
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// To this endpoint
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,
    /// Deliveries that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Go on where the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TestWebhooksArgs {
    /// The endpoint's name [default: all of them]
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RedeliverArgs {
    /// Their ids, as `webhooks ls` tells them
    #[arg(
        value_name = "DELIVERY",
        required_unless_present_any = ["all", "endpoint"],
        conflicts_with_all = ["all", "endpoint", "dry_run", "yes"]
    )]
    pub(crate) deliveries: Vec<u64>,
    /// All that were given up
    #[arg(long, conflicts_with = "endpoint")]
    pub(crate) all: bool,
    /// Those to this endpoint that were given up
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,
    /// Only say how many it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask whether that many are meant
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CallsVerb {
    /// List calls, newest first
    Ls(ListCallsArgs),
    /// Print each call when it has ended
    Tail(TailCallsArgs),
}

/// Which calls.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CallFilterArgs {
    /// Of this job
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// Of this user
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// For this model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// That ended so: completed, failed, cancelled or interrupted
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,
    /// Of this session
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListCallsArgs {
    #[command(flatten)]
    pub(crate) filter: CallFilterArgs,
    /// Calls that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Go on where the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TailCallsArgs {
    #[command(flatten)]
    pub(crate) filter: CallFilterArgs,
    /// End after so many calls
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct UsageCommand {
    #[command(flatten)]
    pub(crate) usage: UsageArgs,
    #[command(subcommand)]
    pub(crate) verb: Option<UsageVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsageVerb {
    /// Compare our books with GLM's meter, day by day and model by model; needs account.enabled
    Reconcile(ReconcileArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// First day, YYYY-MM-DD, of GLM's [default: 7 days up to the last]
    #[arg(long, value_name = "DAY")]
    pub(crate) start: Option<String>,
    /// Last day, inclusive, of UTC+8 [default: the latest that is over]
    #[arg(long, value_name = "DAY")]
    pub(crate) end: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    pub(crate) sums: super::SumsArgs,
    /// As CSV
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetVerb {
    /// List the budgets and how they stand
    Ls,
    /// Set a budget, or take the change of one back; stored, and live at once
    Set(SetBudgetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetBudgetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The limit: 12.50 CNY/day, 3 USD/month or 1000000 tokens/day; unset takes a stored change back
    #[arg(value_name = "LIMIT")]
    pub(crate) limit: String,
    /// Of this user; * is each user
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// For this model; * is each model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Beyond the limit: wait for the next period, refuse new jobs, or only warn [default: as it is, else wait]
    #[arg(long, value_name = "WHAT")]
    pub(crate) over: Option<super::OverArg>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Of these kinds alone, with commas between: job.failed, or job for all of jobs
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// List the daemons that have a name
    Ls,
    /// Ask this one from now on
    Use(ContextNameArgs),
    /// Give a daemon a name, or change what is known of it
    Set(SetContextArgs),
    /// Forget a name
    Rm(ContextNameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ContextNameArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The URL, and the files of token and authority, are those of --url, --token-file and --ca-file."
)]
pub(crate) struct SetContextArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Ask this one from now on
    #[arg(long = "use")]
    pub(crate) is_used: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) every: Duration,
    /// End after so many looks
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// File of prompts (JSONL, as for `onelane run`), or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The models, with commas between
    #[arg(long, value_name = "MODELS", value_delimiter = ',', required = true)]
    pub(crate) models: Vec<String>,
    /// How it is told
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: CompareFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompareFormat {
    Table,
    Json,
    Svg,
}
