//! Why a job, or the lane, is not running now: one noun for jobs, lists, the command line and the metrics.

mod text;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{
    Amount, AttemptNo, AttemptPhase, BreakerSnapshot, BudgetStatus, Hold, HoldKind, HoldScope, Job,
    JobId, JobStatus, KeyId, Parked, Pause, Timestamp,
};

/// Positions are told exactly up to here.
pub const POSITIONS_EXACT: u32 = 1_000;

/// Why a job, or the lane, is not running now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "name"
)]
pub enum WaitReason {
    /// Other jobs go before it.
    Behind {
        /// Its place in the order of service; 1: the next. Left out beyond 1,000.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u32>,
        /// More jobs than these go before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        more_than: Option<u32>,
        /// A guess from recent response times: milliseconds until its call begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        estimate_ms: Option<u64>,
    },
    /// Its next attempt is on record; a slot takes it as soon as one is free.
    Stage,
    /// It waits for its retry.
    Delayed {
        /// The moment of the retry.
        until: Timestamp,
    },
    /// Its submitter asked for a later start.
    Scheduled {
        /// The moment that was asked for.
        until: Timestamp,
    },
    /// The pace of its lane lets no call begin yet.
    Pace {
        /// When the next call may begin.
        until: Timestamp,
        /// The lane.
        lane: String,
    },
    /// An answer of GLM stopped the account, the lane or the model.
    Hold(HoldWait),
    /// The circuit breaker is open.
    Breaker {
        /// When a probe goes through; `null`: an operator has to reset it.
        until: Option<Timestamp>,
        /// An operator opened it.
        forced: bool,
        /// The failure, or the operator's words, that opened it.
        reason: String,
    },
    /// It was refused in a way that may be anybody's fault; the calls of other jobs find out whose.
    Aside {
        /// Our code of the refusal.
        code: String,
        /// What was said.
        message: String,
    },
    /// One call finds out whether GLM serves again; the others wait for its answer.
    Probe,
    /// It may cost more than a budget has left.
    Budget(Box<BudgetWait>),
    /// An operator paused the lane.
    Paused {
        /// Since when.
        since: Timestamp,
        /// The operator's words.
        reason: Option<String>,
    },
    /// The configuration switched the lane off.
    Inactive,
    /// An operator closed the intake, and nothing waits any more.
    Draining {
        /// Since when.
        since: Timestamp,
        /// The operator's words.
        reason: Option<String>,
    },
    /// The process is shutting down.
    Stopping,
    /// Other jobs have to be completed first.
    Blocked {
        /// Those jobs; of a lane none is named.
        by: Vec<JobId>,
    },
    /// Its call was interrupted and may have been billed: an operator decides.
    Parked {
        /// Since when; of a lane it is left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// The attempt that was interrupted; of a lane it is left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<u32>")]
        attempt: Option<AttemptNo>,
    },
    /// Its client key has as many calls open as it may.
    KeyBusy {
        /// The key.
        key: KeyId,
    },
    /// The free slots of its lane are kept for more urgent jobs.
    Reserved {
        /// For jobs of this priority or a higher one.
        priority: u32,
        /// The lane.
        lane: String,
    },
    /// The lane runs the jobs of another batch alone.
    OtherBatch,
    /// Too many outcomes wait for the disk.
    DiskBehind,
    /// The disk is full.
    DiskFull,
    /// The lane still reads its jobs, or its books, from the store.
    Reading,
    /// No lane runs.
    Offline,
}

/// A hold, as the reason of a wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldWait {
    /// `account`, `lane` or `model`.
    pub scope: &'static str,
    /// The lane that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// The model that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The kind of the hold.
    pub kind: HoldKind,
    /// GLM's code, or one of the lane's own.
    pub code: String,
    /// What the code means, in English.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// GLM's words.
    pub message: String,
    /// When it ends by itself, or an operator hold is probed; `null`: only an operator ends it.
    pub until: Option<Timestamp>,
}

/// A budget without room, as the reason of a wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetWait {
    /// How the budget stands.
    #[serde(flatten)]
    pub status: BudgetStatus,
    /// The most that the call may come to.
    pub needed: Amount,
    /// A whole period has no room for it: only another budget helps.
    pub too_large: bool,
}

impl BudgetWait {
    /// Why a call that may come to `needed` waits for this budget.
    #[must_use]
    pub fn new(status: BudgetStatus, needed: u64) -> Self {
        Self {
            needed: status.limit.of(needed),
            too_large: needed > status.limit.number(),
            status,
        }
    }
}

impl From<BudgetWait> for WaitReason {
    fn from(wait: BudgetWait) -> Self {
        Self::Budget(Box::new(wait))
    }
}

impl WaitReason {
    /// The name of each, in the order in which counts are shown.
    pub const NAMES: [&'static str; 23] = [
        "behind",
        "stage",
        "delayed",
        "scheduled",
        "pace",
        "hold",
        "breaker",
        "probe",
        "aside",
        "budget",
        "paused",
        "inactive",
        "draining",
        "stopping",
        "blocked",
        "parked",
        "keyBusy",
        "reserved",
        "otherBatch",
        "diskBehind",
        "diskFull",
        "reading",
        "offline",
    ];

    /// The name used in the API, in logs and in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "behind",
            Self::Stage => "stage",
            Self::Delayed { .. } => "delayed",
            Self::Scheduled { .. } => "scheduled",
            Self::Pace { .. } => "pace",
            Self::Hold(_) => "hold",
            Self::Breaker { .. } => "breaker",
            Self::Probe => "probe",
            Self::Aside { .. } => "aside",
            Self::Budget(_) => "budget",
            Self::Paused { .. } => "paused",
            Self::Inactive => "inactive",
            Self::Draining { .. } => "draining",
            Self::Stopping => "stopping",
            Self::Blocked { .. } => "blocked",
            Self::Parked { .. } => "parked",
            Self::KeyBusy { .. } => "keyBusy",
            Self::Reserved { .. } => "reserved",
            Self::OtherBatch => "otherBatch",
            Self::DiskBehind => "diskBehind",
            Self::DiskFull => "diskFull",
            Self::Reading => "reading",
            Self::Offline => "offline",
        }
    }

    /// The reason that a hold is.
    #[must_use]
    pub fn hold(scope: &HoldScope, hold: &Hold) -> Self {
        let (scope, lane, model) = match scope {
            HoldScope::Account => ("account", None, None),
            HoldScope::Lane(name) => ("lane", Some(name.clone()), None),
            HoldScope::Model(name) => ("model", None, Some(name.clone())),
        };
        Self::Hold(HoldWait {
            scope,
            lane,
            model,
            kind: hold.kind,
            code: hold.code.clone(),
            meaning: None,
            message: hold.message.clone(),
            until: hold.until.map(|wait| wait.until),
        })
    }

    /// The reason that an open breaker is.
    #[must_use]
    pub fn breaker(breaker: &BreakerSnapshot) -> Self {
        let reason = breaker.reason.as_deref();
        Self::Breaker {
            until: breaker.probe_at.map(|wait| wait.until),
            forced: breaker.forced,
            reason: reason.unwrap_or("too many failures").to_owned(),
        }
    }

    /// The reason that a pause is.
    #[must_use]
    pub fn paused(pause: &Pause) -> Self {
        Self::Paused {
            since: pause.since,
            reason: pause.reason.clone(),
        }
    }

    /// The reason that a closed intake is.
    #[must_use]
    pub fn draining(closed: &Pause) -> Self {
        Self::Draining {
            since: closed.since,
            reason: closed.reason.clone(),
        }
    }

    /// With what the code of a hold means. `meaning` knows the codes.
    #[must_use]
    pub fn explained(mut self, meaning: impl FnOnce(&str) -> Option<String>) -> Self {
        if let Self::Hold(hold) = &mut self {
            hold.meaning = meaning(&hold.code);
        }
        self
    }

    /// Whether time, or the lane's own work, ends it.
    #[must_use]
    pub fn ends_by_itself(&self) -> bool {
        match self {
            Self::Behind { .. }
            | Self::Stage
            | Self::Delayed { .. }
            | Self::Scheduled { .. }
            | Self::Pace { .. }
            | Self::Probe
            | Self::Aside { .. }
            | Self::DiskBehind
            | Self::DiskFull
            | Self::Reading
            // No job waits for the intake, and the next start goes on with what a shutdown leaves.
            | Self::Draining { .. }
            | Self::Stopping
            // The run of its own batch goes on with it.
            | Self::KeyBusy { .. }
            | Self::Reserved { .. }
            | Self::OtherBatch
            | Self::Blocked { .. } => true,
            Self::Hold(hold) => hold.kind != HoldKind::Operator && hold.until.is_some(),
            Self::Breaker { until, forced, .. } => !forced || until.is_some(),
            Self::Budget(budget) => !budget.too_large,
            Self::Paused { .. }
            | Self::Inactive
            | Self::Parked { .. }
            | Self::Offline => false,
        }
    }

    /// Whether a client that will wait for no longer than `left_ms` waits in vain: it has no stated end, or a
    /// later one.
    #[must_use]
    pub fn outlasts(&self, left_ms: u64, now: Timestamp) -> bool {
        let is_later = |until: Timestamp| until.since(now) > left_ms;
        match self {
            // A probe of one that only an operator ends is no end of it.
            Self::Hold(hold) if hold.kind == HoldKind::Operator => true,
            Self::Hold(hold) => hold.until.is_none_or(is_later),
            Self::Breaker { until, .. } => until.is_none_or(is_later),
            Self::Budget(budget) => budget.too_large || is_later(budget.status.until),
            Self::Delayed { until } | Self::Scheduled { until } | Self::Pace { until, .. } => {
                is_later(*until)
            }
            Self::Paused { .. }
            | Self::Inactive
            | Self::Blocked { .. }
            | Self::Parked { .. }
            | Self::OtherBatch
            | Self::Offline => true,
            Self::Behind { .. }
            | Self::Stage
            | Self::KeyBusy { .. }
            | Self::Reserved { .. }
            | Self::Probe
            | Self::Aside { .. }
            | Self::DiskBehind
            | Self::DiskFull
            | Self::Reading
            | Self::Draining { .. }
            | Self::Stopping => false,
        }
    }

    /// Until when it lasts, where that is known.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Hold(hold) if hold.kind == HoldKind::Operator => None,
            Self::Hold(hold) => hold.until,
            Self::Breaker { until, .. } => *until,
            Self::Budget(budget) if !budget.too_large => Some(budget.status.until),
            Self::Delayed { until } | Self::Scheduled { until } | Self::Pace { until, .. } => {
                Some(*until)
            }
            _ => None,
        }
    }

    /// Whether it lasts until an operator does something.
    #[must_use]
    pub fn waits_for_operator(&self) -> bool {
        !self.ends_by_itself()
    }

    /// Whether it stops every job, whichever its lane and model.
    #[must_use]
    pub fn stops_all(&self) -> bool {
        match self {
            Self::Hold(hold) => hold.scope == "account",
            Self::Breaker { .. }
            | Self::Paused { .. }
            | Self::Inactive
            | Self::Stopping
            | Self::DiskBehind
            | Self::DiskFull
            | Self::Reading
            | Self::Offline => true,
            Self::Behind { .. }
            | Self::Stage
            | Self::Delayed { .. }
            | Self::Scheduled { .. }
            | Self::Pace { .. }
            | Self::Probe
            | Self::Aside { .. }
            | Self::Budget(_)
            | Self::Draining { .. }
            | Self::Blocked { .. }
            | Self::KeyBusy { .. }
            | Self::Reserved { .. }
            | Self::OtherBatch
            | Self::Parked { .. } => false,
        }
    }

    /// What to do about it; `None`: to wait is enough.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        if self.ends_by_itself() && !matches!(self, Self::Draining { .. } | Self::DiskFull) {
            return None;
        }
        Some(match self {
            Self::Hold(_) => {
                "no job failed; see to it (key, base URL, balance, plan, terms), then run the same command again, or \
                 POST /api/admin/glm/resume to a running `onelane serve`"
            }
            Self::Breaker { .. } => {
                "POST /api/admin/glm/breaker/reset to a running `onelane serve`, or start `onelane run --resume`"
            }
            Self::Budget(_) => "raise the budget, or submit the job again with a lower max_tokens",
            Self::Paused { .. } | Self::Draining { .. } => {
                "POST /api/admin/glm/resume to a running `onelane serve`, or start `onelane run --resume`"
            }
            Self::Inactive => {
                "PUT {\"isActive\": true} to /api/admin/glm/config of a running `onelane serve`: that stored change \
                 beats the file; where only the file says false, is_active = true in it is enough"
            }
            Self::Parked { .. } => {
                "see GET /api/admin/glm/queue?parked=true and maybe-billed of a running `onelane \
                 serve`, then POST /api/admin/glm/retry/ID or cancel/ID for each job"
            }
            Self::DiskFull => "free some space; the lane goes on by itself",
            Self::Offline => "start `onelane serve` or `onelane run` on this store",
            Self::Behind { .. }
            | Self::Stage
            | Self::Delayed { .. }
            | Self::Scheduled { .. }
            | Self::Pace { .. }
            | Self::Probe
            | Self::Aside { .. }
            | Self::Stopping
            | Self::Blocked { .. }
            | Self::KeyBusy { .. }
            | Self::Reserved { .. }
            | Self::OtherBatch
            | Self::DiskBehind
            | Self::Reading => return None,
        })
    }
}

/// A reason with its words: the form in which clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "WaitReason")]
#[serde(rename_all = "camelCase")]
pub struct ToldWait {
    /// The reason.
    #[serde(flatten)]
    pub reason: WaitReason,
    /// The reason in a sentence.
    pub text: String,
    /// What to do about it, where to wait is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<&'static str>,
}

impl From<WaitReason> for ToldWait {
    fn from(reason: WaitReason) -> Self {
        Self {
            text: reason.to_string(),
            help: reason.help(),
            reason,
        }
    }
}

/// Writes the reason of a wait with its words: how fields of snapshots show it.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(crate) fn told_wait<S: Serializer>(
    reason: &Option<WaitReason>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    reason.clone().map(ToldWait::from).serialize(serializer)
}

/// What of a pending job's row decides why it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub id: JobId,
    /// The jobs that have to be completed first.
    pub waits_for: Vec<JobId>,
    /// Set while an operator has to decide.
    pub parked: Option<Parked>,
    /// The moment of its retry.
    pub next_retry_at: Option<Timestamp>,
    /// The start that its submitter asked for.
    pub run_at: Option<Timestamp>,
    /// Whether its next attempt is on record.
    pub staged: bool,
}

impl Waiting {
    /// A job that nothing but the lane keeps waiting, as far as its row goes.
    #[must_use]
    pub const fn for_its_turn(id: JobId) -> Self {
        Self {
            id,
            waits_for: Vec::new(),
            parked: None,
            next_retry_at: None,
            run_at: None,
            staged: false,
        }
    }

    /// What decides for this job; `None`: it does not wait.
    #[must_use]
    pub fn of(job: &Job) -> Option<Self> {
        (job.status == JobStatus::Pending).then(|| Self {
            id: job.id,
            waits_for: job.waits_for.clone(),
            parked: job.parked.clone(),
            next_retry_at: job.next_retry_at.map(|wait| wait.until),
            run_at: job.run_at,
            staged: job
                .open
                .is_some_and(|open| open.phase == AttemptPhase::Staged),
        })
    }

    /// The reason that an operator or other jobs are.
    #[must_use]
    pub fn on_others(&self) -> Option<WaitReason> {
        if let Some(parked) = &self.parked {
            return Some(WaitReason::Parked {
                since: Some(parked.since),
                attempt: Some(parked.attempt),
            });
        }
        (!self.waits_for.is_empty()).then(|| WaitReason::Blocked {
            by: self.waits_for.clone(),
        })
    }

    /// The reason where no lane runs.
    #[must_use]
    pub fn offline(&self) -> WaitReason {
        self.on_others().unwrap_or(WaitReason::Offline)
    }
}

#[cfg(test)]
mod tests;
