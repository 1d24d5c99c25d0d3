//! What clients see: the nouns of the lane in the words of the API. camelCase, times in RFC 3339 UTC,
//! durations in milliseconds, money as exact decimals.

mod billing;
mod budget;
mod call;
mod delivery;
mod estimate;
mod excerpt;
mod job;
mod lane;

pub(super) use billing::MaybeBilledView;
pub(super) use budget::StandingView;
pub(crate) use call::CallView;
pub(super) use delivery::{DeliveryView, EndpointView};
pub(super) use estimate::{EstimatesView, estimates};
pub(crate) use excerpt::Excerpt;
pub(crate) use job::JobView;
pub(super) use lane::MetricsView;

use onelane_core::model::Cost;
use serde_json::value::RawValue;

/// The amount as a JSON number, written from the integer: it never passes through a float.
fn decimal(cost: Cost) -> Box<RawValue> {
    // A decimal is JSON; `null` would stand for one that is not.
    RawValue::from_string(cost.decimal()).unwrap_or_default()
}
