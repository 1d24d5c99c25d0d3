//! The nouns: what a job, an attempt, a failure, an amount of money *is*.
//!
//! Types here have no behaviour beyond their own invariants. Their serde form is the stored form;
//! what a client of the HTTP API sees is shaped at that boundary, not here.

mod alert;
mod budget;
mod calendar;
mod call;
mod callback;
mod delivery;
mod event;
mod failure;
mod histogram;
mod id;
mod job;
mod lane;
mod lanes;
mod money;
mod policy;
mod request;
mod retention;
pub mod setting;
mod settings;
mod submission;
mod time;
mod usage;

pub mod limits;

pub use alert::{
    Alert, AlertBook, AlertKey, AlertSettings, CallWindow, ClearedAlert, HeldKey, Measure,
    Thresholds, WHOLE_SHARE,
};
pub use budget::{
    Budget, BudgetKey, BudgetRefusal, BudgetScope, BudgetStatus, Limit, OverBudget, Period, Reserve,
};
pub use calendar::Calendar;
pub use call::{Billing, CallOutcome, CallRecord};
pub use callback::{CallbackRules, host_rule, is_public};
pub use delivery::{
    Delivery, DeliveryCounts, DeliveryId, DeliveryStatus, DestinationId, DuePlace, HookEndpoint,
    NOTICE_EVENTS, Notice, Receiver, Target, Try,
};
pub use event::Event;
pub use failure::{Failure, FailureClass, code};
pub use histogram::Histogram;
pub use id::{AttemptNo, JobId, RequestId, Seq, SlotId};
pub use job::{
    AsyncTask, AttemptPhase, Job, JobEntry, JobStatus, OpenAttempt, Parked, Phase, WorstCase,
};
pub use lane::{
    BreakerSnapshot, BreakerState, DEFAULT_LANE, Hold, HoldKind, HoldScope, LaneCondition,
    LearntLimit, ModelCondition, Pause, SchedulerState,
};
pub use lanes::{AutoSettings, LaneRules, NamedLane, OrderSettings, PaceSettings, lane_for};
pub use money::{Cost, Currency, Nanos, PriceUsed, Unpriced};
pub use policy::{BreakerRule, JobRule, LaneRule, PolicyOverride, Rule};
pub use request::{Fingerprint, Request, RequestError};
pub use retention::Retention;
pub use settings::{
    BreakerSettings, CoolDownSettings, Endpoint, GlmSettings, LaneSettings, OnInterrupted,
    RetrySettings, Secret, Settings, Timeouts,
};
pub use submission::{DEFAULT_USER, Submission, SubmissionError, UnpricedModel};
pub use time::{Day, Timestamp};
pub use usage::{Assumed, Usage, UsageKey, UsageRow};
