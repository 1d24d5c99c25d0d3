//! The `onelane` program: parse, run, exit code. Everything else is in [`cli`].

mod cli;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
