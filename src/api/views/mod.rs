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
mod price;
mod statistics;

pub(super) use billing::{BillingView, MaybeBilledView};
pub(super) use budget::StandingView;
pub(super) use call::CallView;
pub(super) use delivery::DeliveryView;
pub(super) use estimate::EstimatesView;
pub(super) use excerpt::Excerpt;
pub(super) use job::{JobView, Shown};
pub(super) use lane::{BreakerView, MetricsView, ScopedHoldView};
pub(super) use statistics::{StatisticsRow, statistics};

use onelane_actors::model::{Cost, Currency, Nanos, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount of one currency.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CostView {
    currency: Currency,
    total_cost: Box<RawValue>,
}

impl CostView {
    fn new(cost: Cost) -> Self {
        Self {
            currency: cost.currency,
            total_cost: decimal(cost),
        }
    }
}

/// The amount as a JSON number, written from the integer: it never passes through a float.
fn decimal(cost: Cost) -> Box<RawValue> {
    // A decimal is JSON; `null` would stand for one that is not.
    RawValue::from_string(cost.decimal()).unwrap_or_default()
}

/// Zero, as a JSON number.
fn zero() -> Box<RawValue> {
    const NANOS: Nanos = 0;
    decimal(Cost {
        nanos: NANOS,
        currency: Currency::Cny,
    })
}

/// A moment as RFC 3339.
fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// A moment that may be missing.
fn rfc3339_option<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}
