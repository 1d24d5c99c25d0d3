//! One transaction of the store actor: what the batch asks for, who is answered what, and what the queue hears of it.

use std::sync::Arc;

use ractor::ActorRef;
use tokio::time::Instant;

use crate::meters::Meters;
use crate::ports::{Store, StoreError};
use crate::protocol::{CommitEnd, CommitReply, CommitRequest, Committed, QueueMsg};
use onelane_core::model::{Applied, Job, JobEntry, JobId, JobStatus, Refusal, Transition};

/// The disk is full: what is left of a commit to be stored later, which is what the queue asked for. Who submitted a job is
/// refused, and the job does not come in behind his back.
pub(super) fn of_the_queue(request: CommitRequest, error: &StoreError) -> Option<CommitRequest> {
    let CommitRequest {
        mut transitions,
        reply,
    } = request;
    let ticket = match reply {
        CommitReply::Port(port) => {
            let _ = port.send(Err(error.clone()));
            return None;
        }
        CommitReply::Queue { ticket } => ticket,
        CommitReply::Inserted { ticket, port } => {
            let _ = port.send(Err(error.clone()));
            transitions.retain(|change| !matches!(change, Transition::Insert(_)));
            ticket
        }
    };
    Some(CommitRequest {
        transitions,
        reply: CommitReply::Queue { ticket },
    })
}

/// Those of some jobs that are on disk and in line, whatever their submitters were told: nobody else tells the queue of
/// them before it is rebuilt. One whose attempt is open is found when the queue says its start again.
pub(super) fn came_in(store: &dyn Store, unheard: &[JobId]) -> Result<Vec<JobEntry>, StoreError> {
    let mut inserted = Vec::new();
    for id in unheard {
        inserted.extend(store.job_alone(*id)?.and_then(|job| in_line(&job)));
    }
    Ok(inserted)
}

/// A job that waits for its call, as the queue knows it.
fn in_line(job: &Job) -> Option<JobEntry> {
    let waits = job.status == JobStatus::Pending && job.open.is_none();
    waits.then(|| job.entry())
}

/// What a decision means to the queue beside its own changes: a job that is new, or of another batch.
fn news(decision: &Result<Applied, Refusal>) -> Option<JobEntry> {
    match decision {
        Ok(Applied::Inserted(job)) => Some(job.entry()),
        // The end of a call that is open may be known to the queue already, which would take the job for a new one.
        Ok(Applied::Adopted(job)) => in_line(job),
        _ => None,
    }
}

/// Tells the queue what is on disk.
pub(super) fn announce(
    queue: Option<&ActorRef<QueueMsg>>,
    inserted: Vec<JobEntry>,
    committed: Vec<Committed>,
) {
    if let Some(queue) = queue
        && (!inserted.is_empty() || !committed.is_empty())
    {
        let _ = queue.cast(QueueMsg::Stored {
            inserted,
            committed,
        });
    }
}

/// Commits a batch and answers everybody: first the queue, so that it has a job before its
/// submitter hears of it.
pub(super) fn commit(
    store: Arc<dyn Store>,
    batch: Vec<CommitRequest>,
    queue: Option<&ActorRef<QueueMsg>>,
    meters: &Meters,
) -> CommitEnd {
    let mut lengths = Vec::with_capacity(batch.len());
    let mut replies = Vec::with_capacity(batch.len());
    let mut transitions = Vec::new();
    for request in batch {
        lengths.push(request.transitions.len());
        replies.push(request.reply);
        transitions.extend(request.transitions);
    }
    let begun = Instant::now();
    let committed = store.commit(&transitions);
    meters.committed(transitions.len(), begun.elapsed(), committed.is_ok());
    // Before the answers go out: a program that then shuts down and drops its handles finds the file closed.
    drop(store);
    let decisions = match committed {
        Ok(decisions) => decisions,
        Err(error) => {
            let mut kept = Vec::new();
            let came = transitions.iter().filter_map(|change| match change {
                Transition::Insert(new) => Some(new.job.id),
                Transition::Adopt { job_id, .. } => Some(*job_id),
                _ => None,
            });
            let unheard = came.collect();
            let mut transitions = transitions.into_iter();
            for (length, reply) in lengths.into_iter().zip(replies) {
                let transitions = transitions.by_ref().take(length).collect();
                let request = CommitRequest { transitions, reply };
                kept.extend(of_the_queue(request, &error));
            }
            return match error {
                error @ StoreError::Full { .. } => CommitEnd::Full {
                    error,
                    kept,
                    unheard,
                },
                error => CommitEnd::Failed(error),
            };
        }
    };
    let inserted: Vec<JobEntry> = decisions.iter().filter_map(news).collect();
    let mut committed = Vec::new();
    let mut answers = Vec::new();
    let mut transitions = transitions.into_iter();
    let mut decisions = decisions.into_iter();
    for (length, reply) in lengths.into_iter().zip(replies) {
        match reply {
            CommitReply::Port(port) => {
                transitions.by_ref().take(length).for_each(drop);
                answers.push((port, decisions.by_ref().take(length).collect()));
            }
            CommitReply::Queue { ticket } | CommitReply::Inserted { ticket, .. } => {
                let own = transitions.by_ref().take(length);
                let decisions: Vec<_> = own.zip(decisions.by_ref()).collect();
                if let CommitReply::Inserted { port, .. } = reply {
                    let first = decisions.first().map(|(_, decision)| decision.clone());
                    answers.push((port, first.into_iter().collect()));
                }
                committed.push(Committed { ticket, decisions });
            }
        }
    }
    announce(queue, inserted, committed);
    for (port, answer) in answers {
        let _ = port.send(Ok(answer));
    }
    CommitEnd::Stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use onelane_core::model::{AttemptNo, AttemptPhase, OpenAttempt, SlotId};

    #[test]
    fn a_job_that_another_batch_adopts_in_the_middle_of_its_call_is_no_news() {
        let adopted = |status, phase: Option<AttemptPhase>| {
            let mut job = sample::new_job(1).job;
            job.status = status;
            job.open = phase.map(|phase| OpenAttempt {
                no: AttemptNo(1),
                phase,
                at: sample::START,
                slot: SlotId(0),
                reserve: None,
            });
            news(&Ok(Applied::Adopted(Box::new(job)))).is_some()
        };
        let (staged, started) = (Some(AttemptPhase::Staged), Some(AttemptPhase::Started));
        assert!(adopted(JobStatus::Pending, None));
        assert!(!adopted(JobStatus::Pending, staged));
        assert!(!adopted(JobStatus::Processing, started));
        assert!(!adopted(JobStatus::Completed, None));
    }
}
