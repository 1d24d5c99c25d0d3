//! The table of metrics. A row says name, kind, unit, labels and meaning; what is registered, what `docs/metrics.md`
//! tells and how many series there may be come from these rows.

use onelane_core::model::{
    BreakerState, CallOutcome, Currency, DeliveryStatus, FailureClass, HoldKind, JobStatus,
    PriorityClass, WaitReason, limits,
};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only rises, from 0 at the start of the process.
    Counter,
    /// It rises and falls; told as it is at the moment of the scrape.
    Gauge,
    /// How often values up to each of these bounds occurred, and their sum.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    /// How many series it is for each combination of its labels.
    const fn series(self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            // One more bucket has everything; sum and count stand beside them.
            Self::Histogram(bounds) => bounds.len() + 3,
        }
    }
}

/// The values that a label may have.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These, and all of them are there from the start.
    Fixed(fn() -> Vec<&'static str>),
    /// The first that occur, so many at most; what comes after them is counted under [`OTHER`].
    First {
        /// What they are.
        what: &'static str,
        /// How many are told one by one.
        max: usize,
    },
}

/// The value of a label that stands for all that are not told one by one.
pub const OTHER: &str = "other";

/// A label.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    const fn of(name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        let values = Values::Fixed(values);
        Self { name, values }
    }

    const fn first(name: &'static str, what: &'static str, max: usize) -> Self {
        let values = Values::First { what, max };
        Self { name, values }
    }

    /// How many values it may have.
    fn values_max(&self) -> usize {
        match self.values {
            Values::Fixed(values) => values().len(),
            Values::First { max, .. } => max + 1,
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Its name, as Prometheus has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Of what it is a number.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
    about: &'static str,
}

impl Meter {
    /// What it means.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about.trim_start()
    }

    /// How many series it may have.
    #[must_use]
    pub fn series_max(&self) -> usize {
        let combinations: usize = self.labels.iter().map(Label::values_max).product();
        combinations * self.kind.series()
    }
}

/// How many series a lane may have in all, whatever its users and models.
#[must_use]
pub fn series_max() -> usize {
    ALL.iter().map(Meter::series_max).sum()
}

/// Buckets of what takes from a blink to an hour, in seconds.
const LONG: Kind = Kind::Histogram(&[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
]);
/// Buckets of what should take milliseconds, in seconds.
const SHORT: Kind = Kind::Histogram(&[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
]);
/// Buckets of how many there are.
const MANY: Kind = Kind::Histogram(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
]);

const PRIORITY: Label = Label::of("priority", || PriorityClass::NAMES.to_vec());
const MODEL: Label = Label::first("model", "models", limits::METERED_MODELS_MAX);
const SCOPE: Label = Label::of("scope", || vec!["account", "lane", "model"]);
const HOLD_KIND: Label = Label::of("kind", || HoldKind::ALL.map(HoldKind::name).to_vec());
/// The default lane beside the named ones.
const LANE: Label = Label::first("lane", "lanes", limits::LANES_MAX + 1);
/// Windows of the account's quota.
const WINDOW: Label = Label::first(
    "window",
    "windows of a quota",
    limits::QUOTA_WINDOWS_METERED_MAX,
);
const BUDGET: Label = Label::first("budget", "budgets", limits::BUDGETS_MAX);
/// What is counted in one currency, or in tokens.
const CURRENCY: Label = Label::of("currency", || {
    [Currency::Cny, Currency::Usd, Currency::Points]
        .map(Currency::code)
        .to_vec()
});
const CLASS: Label = Label::of("class", || {
    FailureClass::ALL.map(FailureClass::name).to_vec()
});
const OUTCOME: Label = Label::of("outcome", || {
    CallOutcome::ALL.map(CallOutcome::name).to_vec()
});

/// What is exported for OpenTelemetry.
const SIGNAL: Label = Label::of("signal", || vec!["traces", "logs"]);

/// The ends of attempts: their outcomes, failures by class.
fn results() -> Vec<&'static str> {
    let outcomes = CallOutcome::ALL.into_iter();
    let outcomes = outcomes.filter(|outcome| *outcome != CallOutcome::Failed);
    let classes = FailureClass::ALL.map(FailureClass::name);
    outcomes.map(CallOutcome::name).chain(classes).collect()
}

/// The metrics, a row each: the doc comment is what is told of it.
macro_rules! meters {
    ($($(#[doc = $about:literal])+ $id:ident: $kind:expr, $name:literal, $unit:literal, [$($label:expr),*];)+) => {
        $(
            $(#[doc = $about])+
            pub const $id: Meter = Meter {
                name: $name,
                kind: $kind,
                unit: $unit,
                labels: &[$($label),*],
                about: concat!($($about),+),
            };
        )+

        /// All of them, in the order in which they are told.
        pub const ALL: &[Meter] = &[$($id),+];
    };
}

meters! {
    /// Jobs that were taken: on disk, and acknowledged.
    JOBS_SUBMITTED: Kind::Counter, "onelane_jobs_submitted_total", "jobs", [];
    /// Jobs that ended, by how.
    JOBS_ENDED: Kind::Counter, "onelane_jobs_ended_total", "jobs",
        [Label::of("status", || vec![JobStatus::Completed.name(), JobStatus::Failed.name(), JobStatus::Cancelled.name()])];
    /// Jobs in the store by their status. What retention deleted is not among them.
    JOBS: Kind::Gauge, "onelane_jobs", "jobs", [Label::of("status", || JobStatus::ALL.map(JobStatus::name).to_vec())];
    /// Jobs that wait, whatever for, by class of their priority: urgent is 100 and above, high 1 to 99, normal 0, low below.
    QUEUE_JOBS: Kind::Gauge, "onelane_queue_jobs", "jobs", [PRIORITY];
    /// For how long the oldest job of the class that is due could have run; 0 when none is due.
    QUEUE_OLDEST: Kind::Gauge, "onelane_queue_oldest_seconds", "seconds", [PRIORITY];
    /// Jobs that wait, by the reason for which they do.
    WAITING_JOBS: Kind::Gauge, "onelane_waiting_jobs", "jobs", [Label::of("reason", || WaitReason::NAMES.to_vec())];
    /// How long jobs waited for their first attempt, from their submission or their runAt on.
    WAIT: LONG, "onelane_wait_seconds", "seconds", [PRIORITY];

    /// Attempts that ended: completed, cancelled, interrupted, or the class of their failure.
    ATTEMPTS: Kind::Counter, "onelane_attempts_total", "attempts", [Label::of("result", results)];
    /// Attempts after which the job went back in line, by the class of their failure.
    RETRIES: Kind::Counter, "onelane_retries_total", "attempts", [CLASS];
    /// How long attempts held their slots, by how they ended. The rate of its sum, divided by onelane_slots, is the use of the slots.
    CALL: LONG, "onelane_call_seconds", "seconds", [OUTCOME];
    /// How long answers took that are whole, from the first byte sent to the last byte read.
    RESPONSE: LONG, "onelane_response_seconds", "seconds", [MODEL];
    /// How long it took until the first piece of a streamed answer told something.
    FIRST_TOKEN: LONG, "onelane_first_token_seconds", "seconds", [MODEL];
    /// From the end of a call to the beginning of the next on the same slot, where the job of the next was due by then; of first attempts alone.
    /// Holds, pauses and paces are among it.
    SLOT_GAP: SHORT, "onelane_slot_gap_seconds", "seconds", [];
    /// Tokens that GLM billed, as the calls were settled. Cached ones are prompt tokens, too, and reasoning ones completion tokens.
    TOKENS: Kind::Counter, "onelane_tokens_total", "tokens",
        [MODEL, Label::of("kind", || vec!["prompt", "cached", "completion", "reasoning"])];
    /// What calls cost as they were settled, in billionths of the currency: exact, so divide as late as possible.
    COST: Kind::Counter, "onelane_cost_nanos_total", "billionths of the currency", [MODEL, CURRENCY];
    /// Calls that were billed and whose cost is not known.
    UNPRICED: Kind::Counter, "onelane_unpriced_calls_total", "calls", [MODEL];
    /// Attempts that may have been billed, where nobody has found out yet; counted up to 1000.
    MAYBE_BILLED: Kind::Gauge, "onelane_maybe_billed_attempts", "attempts", [];
    /// What is gone of a budget in the period under way, 1 is all; of one that each user or model has, what is gone of the fullest.
    /// The budgets of client keys are one: client_keys.
    BUDGET_USED: Kind::Gauge, "onelane_budget_used_ratio", "share", [BUDGET];

    /// What is used of a window of the plan's quota, as GLM told of it last, 1 is all. Nothing is told where account.enabled is false.
    QUOTA_USED: Kind::Gauge, "onelane_quota_used_ratio", "share", [WINDOW];
    /// What is left of the account's money, as GLM told of it last; NaN where that is not told.
    ACCOUNT_BALANCE: Kind::Gauge, "onelane_account_balance", "the currency", [CURRENCY];

    /// Calls that may be open at once, over all lanes.
    SLOTS: Kind::Gauge, "onelane_slots", "calls", [];
    /// Calls that are open or about to be.
    SLOTS_BUSY: Kind::Gauge, "onelane_slots_busy", "calls", [];
    /// Calls that a lane may have open for now.
    LANE_LIMIT: Kind::Gauge, "onelane_lane_limit", "calls", [LANE];
    /// Calls that a lane has open or about to be.
    LANE_BUSY: Kind::Gauge, "onelane_lane_busy", "calls", [LANE];
    /// Holds in force, by what they stop and of what kind they are.
    HOLDS: Kind::Gauge, "onelane_holds", "holds", [SCOPE, HOLD_KIND];
    /// Holds that began or were renewed.
    HOLDS_BEGUN: Kind::Counter, "onelane_holds_begun_total", "holds",
        [SCOPE, HOLD_KIND];
    /// 1 for the state in which the breaker is.
    BREAKER: Kind::Gauge, "onelane_breaker_state", "0 or 1", [Label::of("state", || {
        [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen].map(BreakerState::name).to_vec()
    })];
    /// How often the breaker opened.
    BREAKER_OPENINGS: Kind::Counter, "onelane_breaker_openings_total", "openings", [];
    /// Whether an operator paused the lane.
    PAUSED: Kind::Gauge, "onelane_paused", "0 or 1", [];
    /// Whether the intake is closed.
    INTAKE_CLOSED: Kind::Gauge, "onelane_intake_closed", "0 or 1", [];
    /// Whether the disk is full, so that nothing is sent or taken.
    DISK_FULL: Kind::Gauge, "onelane_disk_full", "0 or 1", [];
    /// Whether the clock is too far ahead to be believed, so that nothing is pruned.
    CLOCK_DOUBTED: Kind::Gauge, "onelane_clock_doubted", "0 or 1", [];

    /// How long transactions took.
    COMMIT: SHORT, "onelane_commit_seconds", "seconds", [];
    /// How many changes a transaction stored.
    COMMIT_CHANGES: MANY, "onelane_commit_changes", "changes", [];
    /// Transactions that failed.
    COMMIT_FAILURES: Kind::Counter, "onelane_commit_failures_total", "transactions", [];
    /// Outcomes that wait for their transaction.
    UNSETTLED: Kind::Gauge, "onelane_unsettled_outcomes", "outcomes", [];
    /// How large the store's file is.
    STORE_BYTES: Kind::Gauge, "onelane_store_bytes", "bytes", [];

    /// Actors that failed and were started anew.
    RESTARTS: Kind::Counter, "onelane_actor_restarts_total", "restarts",
        [Label::of("actor", || vec!["caller", "store", "breaker", "cost", "queue"])];
    /// Events that subscribers missed, since they were too slow.
    EVENTS_MISSED: Kind::Counter, "onelane_events_missed_total", "events", [];
    /// Notices to webhooks by their status.
    DELIVERIES: Kind::Gauge, "onelane_deliveries", "deliveries", [Label::of("status", || {
        [DeliveryStatus::Pending, DeliveryStatus::Delivered, DeliveryStatus::Failed].map(DeliveryStatus::name).to_vec()
    })];
    /// Alerts that are active.
    ALERTS: Kind::Gauge, "onelane_alerts_active", "alerts", [];

    /// Connections to the API.
    CONNECTIONS: Kind::Gauge, "onelane_connections", "connections", [];
    /// Connections that the API takes; 0 while it serves none.
    CONNECTIONS_MAX: Kind::Gauge, "onelane_connections_max", "connections", [];
    /// Connections that were closed to make way for others.
    CONNECTIONS_MADE_WAY: Kind::Counter, "onelane_connections_made_way_total", "connections", [];
    /// Requests that are being answered, those of operators left out.
    REQUESTS: Kind::Gauge, "onelane_requests_in_progress", "requests", [];
    /// Requests that may be answered at once.
    REQUESTS_MAX: Kind::Gauge, "onelane_requests_max", "requests", [];
    /// Requests that were refused since there was too much to do.
    REQUESTS_REFUSED: Kind::Counter, "onelane_requests_refused_total", "requests", [];
    /// Answers whose clients did not take them in time.
    ANSWERS_UNTAKEN: Kind::Counter, "onelane_answers_untaken_total", "answers", [];
    /// Memory that bodies of requests hold.
    BODY_MEMORY: Kind::Gauge, "onelane_body_memory_bytes", "bytes", [];
    /// Memory that bodies of requests may hold.
    BODY_MEMORY_MAX: Kind::Gauge, "onelane_body_memory_max_bytes", "bytes", [];
    /// Lines of the log that were dropped, since nobody took them.
    LOG_LINES_DROPPED: Kind::Counter, "onelane_log_lines_dropped_total", "lines", [];
    /// Spans and log records that OpenTelemetry's collector took. Rises in builds with the feature otlp alone.
    OTLP_SENT: Kind::Counter, "onelane_otlp_sent_total", "spans or log records", [SIGNAL];
    /// Spans and log records that were dropped: there was no room, or the collector was down, too slow, or refused them. Rises in
    /// builds with the feature otlp alone.
    OTLP_DROPPED: Kind::Counter, "onelane_otlp_dropped_total", "spans or log records", [SIGNAL];
    /// Always 1, with the version of the program.
    BUILD_INFO: Kind::Gauge, "onelane_build_info", "1", [Label::of("version", || vec![env!("CARGO_PKG_VERSION")])];
}
