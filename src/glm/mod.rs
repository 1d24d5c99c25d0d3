//! GLM over HTTP: the adapter behind the [`Glm`](onelane_actors::ports::Glm) port.
//!
//! * [`HttpGlm`] makes the call, under its timeouts, and closes what it does not finish.
//! * `wire` writes the request's body, `decode` reads the response's: both keep what they don't know.
//! * `usage` reads what an answer used, without filling up what it does not say.
//! * `classify` gives a failure its class, from the table in `errors.json` ([`ErrorTable`]).
//! * `tasks` hands calls over to GLM's asynchronous API and fetches their answers.
//! * `reset` reads the moment at which a quota opens again out of GLM's words.

mod classify;
mod connect;
mod decode;
mod errors;
mod exchange;
mod http;
mod reset;
mod tasks;
mod usage;
mod wire;

#[cfg(test)]
#[cfg(feature = "simulator")]
mod http_tests;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod tasks_tests;

pub(crate) use classify::{class_of_status, retry_after_ms};
pub use errors::{ErrorRow, ErrorTable, RowClass};
pub use http::{HttpGlm, HttpGlmError};
#[cfg(feature = "simulator")]
pub(crate) use reset::beijing_text;
