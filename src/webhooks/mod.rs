//! Facts told to others over HTTP, as [Standard Webhooks](https://www.standardwebhooks.com): signed,
//! repeated until they arrive, under the same id.
//!
//! A delivery is a row of the store, made in the transaction of its fact
//! ([`onelane_core::notify::delivery`]). Here it is sent: `deliverer` finds what is due and notes what
//! came of it, `limiter` says how much at once, `destination` where to, `body` says it in JSON, `sign` signs it,
//! `sender` brings it out of the house and nowhere it may not go, `cleanup` clears away what is over.

mod body;
mod cleanup;
mod deliverer;
mod destination;
mod limiter;
mod sender;
mod settings;
mod sign;

pub(crate) use body::Bodies;
pub(crate) use cleanup::Cleanup;
pub(crate) use deliverer::{Books, Deliverer};
pub use sender::{HttpSender, Post, Sender, Sending, Sent};
pub use settings::{EndpointSettings, WebhookSettings};
pub use sign::SigningKeys;
