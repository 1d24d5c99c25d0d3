//! What the operator decides: flags, environment, stored changes, `config.toml` and defaults, put on
//! top of each other into one checked [`Config`] that knows where each value comes from.
//!
//! - [`Loader`] reads everything but the store; [`Loaded::with_stored`] adds what the store keeps.
//! - [`Loaded::settings`] is what the lane is told, [`Loaded::config`] what everybody else is.
//! - [`Loaded::view`] and [`Loaded::change`] are `GET` and `PUT` of the admin API.
//! - [`Loaded::explain`] is `onelane config show`, [`Loaded::policy`] is `onelane policy`,
//!   [`Loaded::prices`] is `onelane prices`.
//!
//! The table of all settings, `schema.rs`, is the one place that knows their names.

mod change;
mod defaults;
mod error;
mod file;
mod layer;
mod loaded;
mod loader;
mod notify;
mod path;
mod policy;
mod price_list;
mod prices;
mod read;
mod read_prices;
mod schema;
mod sections;
mod settings;
mod suggest;
mod text;

#[cfg(test)]
mod tests;

pub use change::{Change, FieldProblem, GlmConfigView, PatchError, Shadowed};
pub use error::{ConfigError, Fault, Origin, Position};
pub use loaded::{Loaded, Setting};
pub use loader::Loader;
pub(crate) use notify::site;
pub use notify::{
    AlertsSection, BreakerAlertSection, BudgetAlertSection, EndpointSection, ErrorRateSection,
    HoldAlertSection, QueueAgeSection, QueueLengthSection, ResponseTimeSection, SpendSection,
    WebhooksSection,
};
pub use policy::{PolicyClass, PolicyRow};
pub use price_list::{ChosenBy, PriceEntry, Prices};
pub use prices::{ModelPrice, Price, PriceList};
#[cfg(feature = "api")]
pub(crate) use read_prices::keep_exact;
pub use sections::{
    BreakerSection, BudgetSection, Config, GlmSection, LaneSection, LogFormat, LogSection,
    MoneySection, NamedLaneSection, RetentionSection, RetrySection, ServerSection, StoreSection,
    TimeoutsSection,
};
