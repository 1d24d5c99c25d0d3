//! From a change to the step of a job's life that it stands for.

use super::{
    cancel, fail, note_task, reprioritise, requeue, resume, settle, stage, start, unstage,
};
use crate::model::{Job, JobId, Refusal, Transition};

impl Transition {
    /// The job that the change is about.
    #[must_use]
    pub fn job_id(&self) -> Option<JobId> {
        match self {
            Self::Insert(new) => Some(new.job.id),
            Self::Stage { job_id, .. }
            | Self::Unstage { job_id, .. }
            | Self::Start { job_id, .. }
            | Self::Resume { job_id, .. }
            | Self::Task { job_id, .. }
            | Self::Billing { job_id, .. }
            | Self::Fail { job_id, .. }
            | Self::Cancel { job_id, .. }
            | Self::Requeue { job_id }
            | Self::Adopt { job_id, .. }
            | Self::Forget { job_id }
            | Self::Reprioritise { job_id, .. } => Some(*job_id),
            Self::Settle(settlement) => Some(settlement.job_id),
            Self::Release(_)
            | Self::Lane(_)
            | Self::Breaker(_)
            | Self::Config(_)
            | Self::Clock(_)
            | Self::Alerts { .. }
            | Self::OpenBatch(_)
            | Self::Batch { .. }
            | Self::Audit(_)
            | Self::InsertKey(_)
            | Self::Key { .. }
            | Self::Delivery(_)
            | Self::Input(_)
            | Self::File(_)
            | Self::Prune(_) => None,
        }
    }
}

/// Applies a change that concerns one existing job to its row. `Insert`, `Release`, `Lane`, `Breaker`,
/// `Billing`, `Alerts`, `OpenBatch`, `Batch`, `Adopt`, `Forget`, `Audit`, `InsertKey`, `Key`, `Delivery`, `Prune` and `Config` are no steps
/// of a job's life and are the store's own.
pub fn apply(job: &mut Job, transition: &Transition) -> Result<(), Refusal> {
    match transition {
        Transition::Stage { at, reserve, .. } => stage(job, *at, *reserve),
        Transition::Unstage { .. } => unstage(job),
        Transition::Start {
            slot,
            at,
            served_by,
            reserve,
            ..
        } => start(job, *slot, *at, served_by.as_deref(), *reserve),
        Transition::Resume { slot, crashed, .. } => resume(job, *slot, *crashed),
        Transition::Task { attempt, task, .. } => note_task(job, *attempt, task),
        Transition::Settle(settlement) => settle(job, settlement),
        Transition::Fail { failure, at, .. } => fail(job, failure, *at),
        Transition::Cancel { at, .. } => cancel(job, *at),
        Transition::Requeue { .. } => requeue(job),
        Transition::Reprioritise { priority, .. } => reprioritise(job, *priority),
        Transition::Insert(_)
        | Transition::Release(_)
        | Transition::Lane(_)
        | Transition::Breaker(_)
        | Transition::Billing { .. }
        | Transition::Alerts { .. }
        | Transition::OpenBatch(_)
        | Transition::Batch { .. }
        | Transition::Input(_)
        | Transition::File(_)
        | Transition::Adopt { .. }
        | Transition::Forget { .. }
        | Transition::Audit(_)
        | Transition::InsertKey(_)
        | Transition::Key { .. }
        | Transition::Delivery(_)
        | Transition::Prune(_)
        | Transition::Config(_)
        | Transition::Clock(_) => Ok(()),
    }
}
