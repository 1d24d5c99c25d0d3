//! A file that a command writes for its user: whole or not there, and never over another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::exit::{CliError, Exit};

/// A new file, readable by its owner alone: it holds prompts. One that is there is not overwritten. Until
/// all is written it has another name, so that it is whole or not there, and a failed export is in the
/// way of none after it.
pub(crate) struct NewFile<'a> {
    path: &'a Path,
    partial: PathBuf,
    /// To be written.
    pub(crate) out: File,
}

impl<'a> NewFile<'a> {
    /// Begins one.
    pub(crate) fn begin(path: &'a Path) -> Result<Self, CliError> {
        let shown = path.display();
        if path.symlink_metadata().is_ok() {
            let problem = format!("{shown} is there already, and no export overwrites a file");
            let help = "name another place with --out, or - for standard output";
            return Err(CliError::usage(problem).help(help));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let out = options.open(&partial).map_err(|error| {
            CliError::usage(format!("{shown} can't be written: {error}"))
                .help("name another place with --out, or - for standard output")
        })?;
        Ok(Self { path, partial, out })
    }

    /// Gives it its name, once it is whole; the inner error is that of the file.
    pub(crate) fn end<T>(self, written: Result<io::Result<T>, CliError>) -> Result<T, CliError> {
        let written = written.and_then(|written| {
            written
                .and_then(|written| {
                    self.out.sync_all()?;
                    fs::rename(&self.partial, self.path)?;
                    Ok(written)
                })
                .map_err(|error| {
                    let problem = format!("{} can't be written: {error}", self.path.display());
                    CliError::new(Exit::JobsFailed, problem)
                        .help("free some space, or name another place with --out")
                })
        });
        if written.is_err() {
            // A part is of no use; the next export overwrites one that stays.
            let _ = fs::remove_file(&self.partial);
        }
        written
    }
}
