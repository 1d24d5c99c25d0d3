//! `onelane config show`: what every setting is and where it comes from.

use super::args::ShowArgs;
use super::exit::{CliError, Exit};
use super::start;

/// Shows the configuration. The key is masked.
pub(crate) fn show(args: &ShowArgs, json: bool) -> Result<Exit, CliError> {
    super::say(start::explain(&args.common, json)?.trim_end())?;
    Ok(Exit::Done)
}
