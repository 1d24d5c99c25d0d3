//! The flags of the verbs about jobs of a running daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

const JOBS_AFTER_HELP: &str = "\
A job is named by its id, or by its beginning or end where that is one job's alone: 01a2…c9f1 as lists show it.

Examples:
  onelane jobs submit \"Name one river.\" --user alice --wait
  onelane jobs ls --status failed --error-code 1234
  onelane jobs retry --status failed --error-code 1234 --yes
  onelane jobs move --user nightly --priority -10 --yes";

#[derive(Debug, Subcommand)]
#[command(after_help = JOBS_AFTER_HELP)]
pub(crate) enum JobsVerb {
    /// List jobs, newest first
    Ls(ListJobsArgs),
    /// Show one job with its attempts, and why it waits
    Show(ShowJobArgs),
    /// Submit a job, or the jobs of a JSON file
    Submit(SubmitArgs),
    /// Wait for the end of jobs and print their answers; ends with 1 when one failed
    Wait(WaitArgs),
    /// Give jobs up
    Cancel(SelectArgs),
    /// Put failed, cancelled, parked or delayed jobs back in line
    Retry(SelectArgs),
    /// Change the priority of pending jobs
    Move(MoveArgs),
    /// Print what happens to a job up to its end, or to all jobs
    Tail(TailArgs),
}

/// Which jobs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs")]
pub(crate) struct JobFilterArgs {
    /// With this status: pending, processing, completed, failed or cancelled
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Of this user
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// For this model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Of this batch
    #[arg(long, value_name = "BATCH")]
    pub(crate) batch: Option<String>,
    /// Of this session
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// Handed in by this client key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// About this content
    #[arg(long, value_name = "ID")]
    pub(crate) content: Option<String>,
    /// Whose latest failure has this code
    #[arg(long, value_name = "CODE")]
    pub(crate) error_code: Option<String>,
    /// Whose latest failure is of this class, e.g. server_transient
    #[arg(long, value_name = "CLASS")]
    pub(crate) error_class: Option<String>,
    /// Parked: an operator has to decide
    #[arg(long)]
    pub(crate) parked: bool,
    /// Waiting for a retry
    #[arg(long)]
    pub(crate) delayed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListJobsArgs {
    #[command(flatten)]
    pub(crate) filter: JobFilterArgs,
    /// Jobs that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Go on where the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowJobArgs {
    /// Its id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Prompt and answer whole, not their beginnings
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The prompt, or - to read it from standard input
    #[arg(
        value_name = "PROMPT",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub(crate) prompt: Option<String>,
    /// A job as JSON, or a list of jobs, as POST /api/glm/jobs takes them; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Whose job it is
    #[arg(long, value_name = "USER", conflicts_with = "file")]
    pub(crate) user: Option<String>,
    /// The model
    #[arg(long, value_name = "MODEL", conflicts_with = "file")]
    pub(crate) model: Option<String>,
    /// Higher is more urgent
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "file"
    )]
    pub(crate) priority: Option<i32>,
    /// The most tokens of the answer
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub(crate) max_tokens: Option<u32>,
    /// What it is about, in your own terms
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub(crate) content: Option<String>,
    /// The same key with the same request is the same job
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    pub(crate) idempotency_key: Option<String>,
    /// Wait for the end and print the answers
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Their ids
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// How long, e.g. 30s or 10m [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Jobs by their ids, or all that a filter leaves.
#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// Their ids; without any all jobs that the flags below leave
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: JobFilterArgs,
    /// All jobs
    #[arg(long)]
    pub(crate) all: bool,
    /// Only say how many it would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask whether that many are meant
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The new priority; higher is more urgent
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: i32,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// This job alone, up to its end
    #[arg(value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitersArgs {
    /// Jobs that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) filter: JobFilterArgs,
}
