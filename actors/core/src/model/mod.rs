//! The nouns: what a job, an attempt, a failure, an amount of money *is*.
//!
//! Types here have no behaviour beyond their own invariants. A noun's serde form is that of its row and
//! that of the wire: a member that rows alone keep is marked at its field (`private.rs`).

mod account;
mod admission;
mod alert;
mod alert_rule;
mod answer_body;
mod audit;
mod batch;
mod batch_input;
mod budget;
mod calendar;
mod call;
mod callback;
mod client_key;
mod clock_steps;
mod condition;
mod delay;
mod delivery;
mod event;
mod face;
mod failure;
mod file;
mod filter;
mod gateway;
mod half;
mod histogram;
mod id;
mod job;
pub mod json;
mod lane;
mod lanes;
pub mod model_name;
mod moments;
mod money;
mod outcome;
mod page;
mod parts;
mod passed;
mod policy;
mod price;
mod priority_class;
mod private;
mod pruning;
mod request;
mod retention;
mod retry;
mod session;
pub mod setting;
mod settings;
mod store_error;
mod submission;
mod text;
mod time;
mod time_band;
mod trace;
mod transition;
mod unattributed;
mod usage;
mod wait;
mod waiting_jobs;

pub mod limits;

pub use account::{Balance, Metered, Quota, QuotaKind, QuotaSpan, QuotaWindow, WHOLE_E4};
pub use admission::{Admission, NotAdmitted, OverRate};
pub use alert::{Alert, AlertBook, AlertKey, ClearedAlert};
pub use alert_rule::{AlertRule, AlertRules, AlertSettings, Measure, Threshold, WHOLE, Watched};
pub use answer_body::AnswerBody;
pub use audit::{ActedBy, ActedFrom, ActedHow, AuditEntry, AuditId};
pub use batch::{Batch, BatchId, BatchState, BatchStep, Learnt, NoBatchId, Scope};
pub use batch_input::{
    BatchInput, BatchProgress, BatchSettings, InputChange, InputStage, LineFault,
};
pub use budget::{
    Amount, Budget, BudgetKey, BudgetRefusal, BudgetRules, BudgetScope, BudgetStatus,
    BudgetStatuses, OverBudget, Payer, Period, Reserve,
};
pub use calendar::Calendar;
pub use call::{Billing, CallOutcome, CallRecord, Substitution};
pub use callback::{CallbackRules, host_rule, is_public};
pub use client_key::{
    ClientKey, ClientKeys, KeyBudget, KeyError, KeyForm, KeyId, KeyRights, KeyRole, KeySecret,
    KeyState, KeyStep, NoKeyBudget, NoKeyId, OldSecret,
};
pub use clock_steps::ClockSteps;
pub use condition::{Finding, Findings, Prunable, StoreFigures, TableFigures, TimeSpan};
pub use delay::{Due, Wait};
pub use delivery::{
    CallbackUrl, DELIVERY_EVENTS, Delivery, DeliveryChange, DeliveryCounts, DeliveryId,
    DeliveryStatus, DestinationId, DuePlace, EndedJob, HookEndpoint, NOTICE_EVENTS, Notice,
    Receiver, Target, Try, TryOutcome, site,
};
pub use event::Event;
pub use face::{Envelope, Face, FaceSettings, KeyHeader, Needs, NoUpstream};
pub use failure::{Failure, FailureClass, code};
pub use file::{FileChange, FileId, NoFileId, StoredFile};
pub use filter::{CallFilter, DeliveryFilter, JobFilter, MoreFilter, UsageFilter};
pub use gateway::{AnswerWhen, GatewaySettings, OnDisconnect};
pub use half::HalfACharacter;
pub use histogram::Histogram;
pub use id::{AttemptNo, JobId, RequestId, ResponseId, Seq, SlotId};
pub use job::{
    AsyncTask, AttemptPhase, Job, JobEntry, JobStatus, OpenAttempt, Parked, Phase, WorstCase,
};
pub use lane::{
    BreakerSnapshot, BreakerState, DEFAULT_LANE, Hold, HoldKind, HoldScope, LaneCondition,
    LearntLimit, ModelCondition, Pause, RouteCondition, SchedulerState, ScopedHold,
};
pub use lanes::{
    AutoSettings, LaneRules, NamedLane, OrderSettings, PaceSettings, SlotReserve, lane_for,
};
pub use moments::Moments;
pub use money::{Cost, Currency, Doubt, DoubtSettings, Nanos, PriceUsed, Unpriced, amount};
pub use outcome::{GlmAnswer, GlmOutcome, Received, TaskOutcome};
pub use page::{
    CallPage, DeliveryPage, Ending, JobPage, JobRecord, Places, Recovered, Salvage, StatusCounts,
    UsageDay,
};
pub use parts::{Parts, Speed};
pub use passed::{CALL_ID_HEADERS, PassedHeaders};
pub use policy::{BreakerRule, JobRule, LaneRule, PolicyOverride, Rule};
pub use price::{PriceRow, PriceTable};
pub use priority_class::PriorityClass;
pub use private::row;
use private::{in_head, private, private_or_default, private_or_none};
pub(crate) use pruning::Part;
pub use pruning::{
    Bodies, Bonds, Cutoff, Finished, FinishedKind, Prune, PruneCursor, Pruned, Unreadable,
};
pub use request::{Fingerprint, Request, RequestError};
pub use retention::Retention;
pub use retry::{CoolDownSettings, RetryPolicy, RetrySettings, RetryableError};
pub use session::{NoSessionId, Session, SessionId, SessionTag, Sessions};
pub use settings::{
    BreakerSettings, Endpoint, GlmSettings, LaneSettings, OnInterrupted, Reuse, Secret, Settings,
    Timeouts,
};
pub use store_error::StoreError;
pub use submission::{DEFAULT_USER, Deadline, Submission, SubmissionError, UnpricedModel};
pub use time::{Day, Timestamp};
pub use time_band::{Hours, TimeBand, Weekdays};
pub use trace::{TRACEPARENT, TRACESTATE, TraceContext, TraceOrigin};
pub use transition::{Applied, Dispatch, NewJob, Next, Refusal, Settlement, Transition};
pub use unattributed::{Met, Refused, RefusedPlace, Unattributed};
pub use usage::{Assumed, Usage, UsageKey, UsageRow};
pub(crate) use wait::told_wait;
pub use wait::{BudgetWait, HoldWait, POSITIONS_EXACT, ToldWait, WaitReason, Waiting};
pub use waiting_jobs::{SharedByJobs, Standing, WaitingJobs};
