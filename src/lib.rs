//! onelane: one durable lane in front of the GLM API.
//!
//! GLM limits an account by *requests in flight*, often to one. A lane takes jobs from any number of
//! callers, puts each on disk before it says yes, and sends them to GLM one call at a time, most urgent
//! first. It retries what is worth retrying, holds when going on would only burn money, and accounts
//! for every token.
//!
//! # Embedding it
//!
//! [`Orchestrator::start`] opens the store and goes on with what it holds; clones of the
//! [`Orchestrator`] are cheap and mean the same lane. The built-in [`simulator`] takes GLM's place here,
//! so that this needs neither key nor network:
//!
//! ```
//! use onelane::model::Secret;
//! use onelane::simulator::{Simulator, SimulatorConfig};
//! use onelane::{Config, Orchestrator, Submission};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("onelane.redb").display().to_string();
//! let glm = Simulator::start(SimulatorConfig::default())?;
//!
//! let mut config = Config::default();
//! config.store.path = path;
//! config.glm.base_url = glm.base_url();
//! config.glm.api_key = Some(Secret::new("any"));
//! let lane = Orchestrator::start(&config).await?;
//!
//! // On disk when `submit` answers; answered when `wait` does, whatever happens between.
//! let submission = Submission::prompt("Name one river.")?.priority(10).user("alice");
//! let submitted = lane.submit(submission).await?;
//! let record = lane.wait(submitted.job_id).await?;
//! println!("{}", record.text().ok_or("no text")?);
//!
//! assert!(lane.shutdown(std::time::Duration::from_secs(10)).await.drained);
//! # Ok(())
//! # }
//! ```
//!
//! More of it runs in `examples/`: calling, waiting, a bulk file, priorities, plain messages to the
//! queue actor ([`protocol`]), live events.
//!
//! # Map
//!
//! | module | what it is for |
//! |---|---|
//! | [`orchestrator`] | the facade: start, submit, call, wait, cancel, retry, usage, events, shutdown |
//! | [`model`] | the nouns: job, attempt, failure, usage, money, settings, limits |
//! | [`object`] | a JSON object as it was written, for bodies that are kept verbatim |
//! | [`config`] | flags, environment, stored changes, file and defaults, checked, with their origins |
//! | [`estimate`] | what jobs may cost, told before they are submitted |
//! | [`registry`] | what the lane counts, for Prometheus or for a recorder of your own |
//! | [`error`] | what can go wrong for somebody who uses the lane |
//! | [`api`] | the HTTP API: admin, jobs, chat completions for OpenAI and GLM clients |
//! | [`desk`] | the operator's pages beside it |
//! | [`store`] | the store on redb, behind the [`ports::Store`] port |
//! | [`glm`] | GLM over HTTP, behind the [`ports::Glm`] port |
//! | [`statistics`] | usage summed by day or month, model and user |
//! | [`export`] | a store's content as JSON lines or CSV |
//! | [`system`] | the machine's clock and ids, behind [`ports::Clock`] and [`ports::Ids`] |
//! | [`tls`] | whom clients trust |
//! | [`webhooks`] | facts told to others over HTTP, signed and repeated until they arrive |
//! | [`simulator`] | a GLM-shaped server with a script of faults |
//! | [`protocol`] | what the actors say to each other: plain message submission |
//! | [`ports`] | what the lane needs from the world, for adapters of your own |
//!
//! The lane itself (decisions and actors) is the crate `onelane-actors`, which does no I/O.
//! `ARCHITECTURE.md` tells how it works and which test guards which promise.
//!
//! # Features
//!
//! A program compiles what it uses. Without default features the library is the lane on its store and
//! GLM's HTTP client.
//!
//! | feature | adds |
//! |---|---|
//! | `cli` (default) | the program `onelane`; brings all features below but `otlp` and `testing` |
//! | `api` | the HTTP API ([`api`]); brings `estimate` |
//! | `desk` | the operator's pages ([`desk`]); brings `api` |
//! | `estimate` | GLM's tokenizer with its vocabularies, and estimates made with it ([`estimate`]) |
//! | `otlp` | traces and logs for OpenTelemetry (`onelane::otlp`, [`config::OtlpSection`]) |
//! | `simulator` | the [`simulator`] |
//! | `testing` | `onelane::testing`: a store in memory, a scripted GLM, a simulated clock, seeded ids |

#[cfg(feature = "api")]
pub mod api;
mod bounded;
pub mod config;
mod csv;
#[cfg(feature = "desk")]
pub mod desk;
pub mod error;
pub mod estimate;
pub mod export;
#[cfg(all(feature = "api", any(test, feature = "testing")))]
#[doc(hidden)]
pub mod fuzzed;
pub mod glm;
mod meant;
pub mod object;
pub mod orchestrator;
#[cfg_attr(not(feature = "otlp"), path = "otlp/absent.rs")]
#[cfg_attr(not(feature = "otlp"), doc(hidden))]
pub mod otlp;
pub mod registry;
pub mod results;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod statistics;
pub mod store;
pub mod system;
pub mod tls;
mod trust;
mod views;
pub mod webhooks;

pub use config::Config;
pub use error::Error;
pub use onelane_actors::supervisor::RestartBudget;
#[cfg(feature = "testing")]
pub use onelane_actors::testing;
pub use onelane_actors::{FaultPoints, meters, ports, protocol, samples};
pub use onelane_core::model;
pub use onelane_core::money::forecast;
#[doc(hidden)]
pub use onelane_core::words;
pub use orchestrator::{Orchestrator, Submission};
/// The actor framework, whose references and reply ports plain messages use.
pub use ractor;
pub use registry::Registry;

/// The Rust in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The Rust in the page about embedding compiles.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
