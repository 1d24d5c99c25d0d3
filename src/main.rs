//! The `onelane` program: parse, run, exit code. Everything else is in [`cli`].

mod cli;
mod telemetry;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Gives the memory of large bodies back to the system once they are gone; the system's own keeps it for later, for every
/// thread apart.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
