//! GLM over HTTP: the adapter behind the [`Glm`](onelane_actors::ports::Glm) port.
//!
//! * [`HttpGlm`] makes the call, under its timeouts, and closes what it does not finish.
//! * `wire` writes the request's body, `decode` reads the response's: both keep what they don't know.
//! * `pool` keeps connections, and tells an answer to the call from that to another one.
//! * `route` is the way there: straight or through a proxy, and whom TLS trusts on it.
//! * `forms` is how each face's answers are read: a row a face.
//! * `layers` takes off what relays wrap around an answer, `stream` puts one together that came in pieces.
//! * `live` hands the pieces of a stream on while they come.
//! * `usage` reads what an answer used, without filling up what it does not say.
//! * `classify` gives a failure its class, from the table in `errors.json` ([`ErrorTable`]).
//! * `tasks` hands calls over to GLM's asynchronous API and fetches their answers.
//! * `account` asks what GLM itself counts: quota, balance, tokens by model.
//! * `reset` reads the moment at which a quota opens again out of GLM's words, `retry_after` the header of that name.

mod account;
mod classify;
mod connect;
mod decode;
mod errors;
mod exchange;
mod fault;
mod forms;
#[cfg(all(feature = "api", any(test, feature = "testing")))]
pub(crate) mod fuzzed;
mod http;
mod layers;
mod live;
mod pool;
mod reset;
mod retry_after;
mod route;
mod stream;
mod tasks;
mod usage;
mod wire;

#[cfg(test)]
#[cfg(feature = "simulator")]
mod http_tests;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod tasks_tests;

pub(crate) use account::span_of;
pub(crate) use classify::class_of_status;
pub use errors::{ErrorRow, ErrorTable, RowClass};
pub use fault::HttpGlmError;
#[cfg(feature = "api")]
pub(crate) use forms::{ends, events_of, is_failed_answer};
pub use http::HttpGlm;
pub(crate) use http::PassOn;
#[cfg(feature = "simulator")]
pub(crate) use reset::beijing_text;
pub(crate) use retry_after::retry_after_ms;
pub(crate) use route::Hop;
pub use route::Route;
