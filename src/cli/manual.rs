//! What shells and `man` read of the commands: made of their definitions.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use onelane::words::counted;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::exit::{CliError, Exit};

/// `onelane completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "onelane", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// `onelane man`.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, CliError> {
    let mut all = Cli::command();
    all.build();
    if let Some(directory) = &args.out {
        let pages = write_all(&all, "onelane", directory)?;
        let pages = counted(pages, "page", "pages");
        super::say(&format!("{pages} written to {}", directory.display()))?;
        return Ok(Exit::Done);
    }
    let mut command = &all;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            CliError::usage(format!("{} has no command {name}", command.get_name()))
                .help("`onelane --help` lists the commands")
        })?;
    }
    let name = std::iter::once("onelane").chain(args.command.iter().map(String::as_str));
    let name: Vec<&str> = name.collect();
    super::print(
        &page(command, &name.join("-")).map_err(|error| unwritten(Path::new("-"), &error))?,
    )?;
    Ok(Exit::Done)
}

fn page(command: &Command, name: &str) -> std::io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A page for a command, and for each below it.
fn write_all(command: &Command, name: &str, directory: &Path) -> Result<u64, CliError> {
    let path = directory.join(format!("{name}.1"));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, page(command, name)?))
        .map_err(|error| unwritten(&path, &error))?;
    let mut pages = 1;
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        pages += write_all(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(pages)
}

fn unwritten(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(
        Exit::JobsFailed,
        format!("{} can't be written: {error}", path.display()),
    )
    .help("name another directory with --out")
}
