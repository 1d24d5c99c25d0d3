//! The flags of settings of a running daemon, and of what looks around: doctor, bench, completions, manual.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Common;

#[derive(Debug, Args)]
pub(crate) struct GetSettingArgs {
    /// The setting, e.g. retry.baseDelay, or a group of them [default: all]
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetSettingArgs {
    /// The setting, e.g. retry.baseDelay
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Its value: JSON, or else a text
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: String,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Jobs that are sent
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) jobs: usize,
    /// Calls that are open at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) concurrency: u16,
    /// How long each answer of the simulator takes
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    pub(crate) latency: Duration,
    /// Where the store of the measurement is made, and removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command, e.g. jobs ls [default: onelane itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
