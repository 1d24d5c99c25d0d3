//! What the operator decides: flags, environment, stored changes, `config.toml` and defaults, put on
//! top of each other into one checked [`Config`] that knows where each value comes from.
//!
//! - [`Loader`] reads everything but the store; [`Loaded::with_stored`] adds what the store keeps.
//! - [`Loaded::settings`] is what the lane is told, [`Loaded::config`] what everybody else is.
//! - [`Loaded::view`] and [`Loaded::change`] are `GET` and `PUT` of the admin API.
//! - [`Loaded::explain`] is `onelane config show`, [`Loaded::policy`] is `onelane policy`,
//!   [`Loaded::prices`] is `onelane prices`.
//!
//! A setting is a field of a section: its doc, default and bounds stand there, and everything else is made
//! from them: names, reading, writing, the schema, `config.toml` and `docs/configuration.md`.

mod change;
#[cfg(feature = "api")]
mod differences;
mod error;
mod file;
#[cfg(all(feature = "api", any(test, feature = "testing")))]
pub(crate) mod fuzzed;
mod json_schema;
mod layer;
mod loaded;
mod loader;
mod policy;
mod policy_table;
mod price_list;
mod prices;
mod proxies;
mod read;
mod reread;
mod schema;
mod secrets;
mod sections;
mod settings;
mod stored;
mod suggest;
mod text;

#[cfg(test)]
mod tests;

pub use crate::otlp::{OtlpSection, Propagate, Sampler};
#[cfg(feature = "api")]
pub(crate) use change::keep_exact;
pub use change::{Change, FieldProblem, GlmConfigView, PatchError, Shadowed};
#[cfg(feature = "api")]
pub use differences::differences;
pub use error::{ConfigError, Origin, Position, WrongValue};
pub use json_schema::json_schema;
pub use loaded::{Loaded, Setting};
pub use loader::{Loader, unknown_variables};
pub use policy::PolicyClass;
pub use policy_table::PolicyRow;
pub use price_list::{ChosenBy, PriceEntry, Prices};
pub use prices::{ModelPrice, PlanOnly, Price, PriceList};
pub use reread::Reread;
#[cfg(feature = "desk")]
pub(crate) use schema::{LEAVES, Leaf, at};
pub use sections::{
    AccountSection, BudgetSection, Config, LogFormat, LogSection, MoneySection, ServerSection,
    StoreSection,
};
pub use stored::{setting_path, stored_changes, without_stored_change};
#[cfg(feature = "api")]
pub(crate) use text::NOWHERE;
