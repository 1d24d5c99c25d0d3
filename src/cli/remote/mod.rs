//! The command line for a running daemon: what it is asked by HTTP, and how the answers read.
//!
//! | file | what |
//! |---|---|
//! | `target`, `contexts`, `url` | which daemon is asked and by what token; daemons by name |
//! | `owner` | the daemon that has a store open, for the verbs that else open the store themselves |
//! | `client`, `parts`, `fault` | one request and its answer, at once or part by part; what is wrong, as words and an exit code |
//! | `words`, `money` | moments, ids and amounts as people read them |
//! | all others | one noun a file |

mod account;
mod batches;
mod breaker;
mod budgets;
mod calls;
mod client;
mod compare;
mod config;
pub(crate) mod contexts;
mod doctor;
mod estimates;
mod events;
mod fault;
mod findings;
mod holds;
mod jobs;
mod keys;
mod lane;
mod money;
mod nouns;
mod owner;
mod parts;
mod runs;
mod selection;
mod status;
mod submit;
mod target;
mod top;
mod url;
mod usage;
mod waiters;
mod webhooks;
mod words;

pub(crate) use batches::batch;
pub(crate) use client::Daemon;
pub(crate) use config::{get as get_setting, history as setting_history, set as set_setting};
pub(crate) use doctor::doctor;
pub(crate) use keys::keys;
pub(crate) use owner::{Owner, owner, post};
pub(crate) use parts::Parts;
pub(crate) use runs::{Ended, HandedIn, Heard};
pub(crate) use usage::{export, stats};

use super::args::remote::{RemoteVerb, Target, UsageVerb};
use super::exit::{CliError, Exit};

/// Dispatches to the noun.
pub(crate) async fn remote(
    verb: RemoteVerb,
    target: &Target,
    json: bool,
) -> Result<Exit, CliError> {
    let daemon = Daemon::of(target)?;
    match verb {
        RemoteVerb::Status => status::status(&daemon, json).await,
        RemoteVerb::Jobs(verb) => jobs::jobs(verb, &daemon, json).await,
        RemoteVerb::Waiters(args) => waiters::waiters(&args, &daemon, json).await,
        RemoteVerb::Lane(verb) => lane::lane(verb, &daemon, json).await,
        RemoteVerb::Holds(verb) => holds::holds(verb, &daemon, json).await,
        RemoteVerb::Breaker(verb) => breaker::breaker(verb, &daemon, json).await,
        RemoteVerb::Calls(verb) => calls::calls(verb, &daemon, json).await,
        RemoteVerb::Usage(verb) => match &verb.verb {
            Some(UsageVerb::Reconcile(args)) => account::reconcile(args, &daemon, json).await,
            None => usage::usage(&verb.usage, &daemon, json).await,
        },
        RemoteVerb::Budget(verb) => budgets::budget(verb, &daemon, json).await,
        RemoteVerb::Webhooks(verb) => webhooks::webhooks(verb, &daemon, json).await,
        RemoteVerb::Events(args) => events::events(&args, &daemon, json).await,
        RemoteVerb::Top(args) => Box::pin(top::top(&args, &daemon, json)).await,
        RemoteVerb::Compare(args) => Box::pin(compare::compare(&args, &daemon, json)).await,
    }
}
