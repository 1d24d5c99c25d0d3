//! A reason in words, for people.

use crate::words::counted;
use std::fmt;

use super::{BudgetWait, HoldWait, WaitReason};
use crate::model::{AttemptNo, HoldKind};

impl HoldWait {
    /// What is stopped, and until when.
    #[must_use]
    pub fn stops(&self) -> String {
        let ends = self.until.filter(|_| self.kind != HoldKind::Operator);
        let part = match (&self.lane, &self.model) {
            (Some(lane), _) => Some(format!("lane {lane}")),
            (None, Some(model)) => Some(format!("model {model}")),
            (None, None) => None,
        };
        let Some(until) = ends else {
            return match part {
                None => "GLM takes nothing until an operator acts".to_owned(),
                Some(part) => format!("{part} is held until an operator acts"),
            };
        };
        let part = part.map_or_else(String::new, |part| format!("{part}: "));
        match self.kind {
            HoldKind::Unreachable => {
                format!("{part}GLM can't be reached, the next try is at {until}")
            }
            HoldKind::Quota => format!("{part}quota is used up until {until}"),
            _ => format!("{part}cooling down until {until}"),
        }
    }

    /// The code of what stopped it, what that means, and what was said.
    #[must_use]
    pub fn said(&self) -> String {
        let (code, message) = (&self.code, &self.message);
        match &self.meaning {
            Some(meaning) if message.is_empty() => format!("{code}: {meaning}"),
            // The transport said it, not GLM.
            Some(meaning) if self.kind == HoldKind::Unreachable => {
                format!("{code}: {meaning} ({message})")
            }
            // What GLM says in Chinese has its meaning beside it.
            Some(meaning) if message.contains(meaning.as_str()) => format!("{code}: {message}"),
            Some(meaning) => format!("{code}: {meaning} (GLM: {message})"),
            None => format!("{code}: {message}"),
        }
    }
}

impl fmt::Display for HoldWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stops(), self.said())
    }
}

impl fmt::Display for BudgetWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, needed, .. } = self;
        let (budget, limit, left) = (&status.account.budget, status.limit, status.left);
        if self.too_large {
            let period = status.period.name();
            write!(
                f,
                "it may come to {needed}, and budget {budget} allows {limit} a {period}"
            )
        } else {
            let until = status.until;
            write!(
                f,
                "it may come to {needed}, and of budget {budget} {left} are left until {until}"
            )
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |reason: &Option<String>| match reason {
            Some(reason) => reason.clone(),
            None => "no reason given".to_owned(),
        };
        match self {
            Self::Behind {
                position,
                more_than,
                estimate_ms,
            } => {
                match (position, more_than) {
                    (Some(1), _) => f.write_str("the next job to go")?,
                    (Some(position), _) => write!(f, "number {position} in the order of service")?,
                    (None, Some(more)) => {
                        let jobs = counted(u64::from(*more), "job goes", "jobs go");
                        write!(f, "more than {jobs} before it")?;
                    }
                    (None, None) => f.write_str("other jobs go before it")?,
                }
                match estimate_ms {
                    Some(ms) => write!(
                        f,
                        ", by recent response times in about {} s",
                        ms.div_ceil(1_000)
                    ),
                    None => Ok(()),
                }
            }
            Self::Stage => f.write_str("on record as the next: it goes as soon as a slot is free"),
            Self::Delayed { until } => write!(f, "delayed until its retry at {until}"),
            Self::Scheduled { until } => write!(f, "scheduled for {until}"),
            Self::Pace { until, lane } => {
                write!(
                    f,
                    "the pace of lane {lane} lets no call begin before {until}"
                )
            }
            Self::Hold(hold) => hold.fmt(f),
            Self::Breaker {
                until: Some(at),
                reason,
                ..
            } => write!(f, "breaker is open, next try at {at}: {reason}"),
            Self::Breaker {
                forced: true,
                reason,
                ..
            } => write!(f, "an operator opened the breaker: {reason}"),
            Self::Breaker { reason, .. } => write!(f, "breaker is open: {reason}"),
            Self::Probe => f.write_str("one call finds out whether GLM serves again"),
            Self::Aside { code, message } => write!(
                f,
                "stepped aside: other jobs find out whose fault this is: {code}: {message}"
            ),
            Self::Budget(budget) => budget.fmt(f),
            Self::Paused { since, reason } => {
                write!(f, "the lane is paused since {since}: {}", said(reason))
            }
            Self::Inactive => f.write_str("the lane is switched off"),
            Self::Draining { since, reason } => {
                write!(f, "the intake is closed since {since}: {}", said(reason))
            }
            Self::Stopping => {
                f.write_str("the process is shutting down; the next start goes on with it")
            }
            Self::Blocked { by } if by.is_empty() => f.write_str("waits for other jobs"),
            Self::Blocked { by } => {
                let ids: Vec<String> = by.iter().take(3).map(ToString::to_string).collect();
                write!(f, "waits for {}", ids.join(", "))?;
                match by.len().saturating_sub(ids.len()) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Parked { since, attempt } => {
                f.write_str("parked")?;
                if let Some(since) = since {
                    write!(f, " since {since}")?;
                }
                match attempt {
                    Some(AttemptNo(no)) => write!(
                        f,
                        ": attempt {no} was interrupted and may have been billed; an operator decides"
                    ),
                    None => f.write_str(
                        ": a call was interrupted and may have been billed; an operator decides",
                    ),
                }
            }
            Self::KeyBusy { key } => {
                write!(f, "client key {key} has as many calls open as it may")
            }
            Self::Reserved { priority, lane } => write!(
                f,
                "the free slots of lane {lane} are kept for jobs of priority {priority} and above"
            ),
            Self::OtherBatch => f.write_str(
                "this run sends the jobs of another batch alone; a run of its own goes on with it",
            ),
            Self::DiskBehind => f.write_str("the disk is behind: outcomes wait to be stored"),
            Self::DiskFull => f.write_str("the disk is full"),
            Self::Reading => f.write_str("the lane still reads its jobs and books from the store"),
            Self::Offline => f.write_str("no lane runs on this store"),
        }
    }
}
