//! The abort tokens of the open calls, by slot: a busy caller reads no mailbox, so that closing its call
//! goes round it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use onelane_core::model::{AttemptNo, JobId, SlotId};

/// The tokens. Supervisor and queues share them: a queue can close a call that the queue before it sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aborts(Arc<Mutex<BTreeMap<SlotId, OpenCall>>>);

#[derive(Debug)]
struct OpenCall {
    job_id: JobId,
    attempt: AttemptNo,
    token: CancellationToken,
}

impl Aborts {
    /// A fresh token for the slot's next call, which is for this attempt.
    pub(crate) fn arm(&self, slot: SlotId, job_id: JobId, attempt: AttemptNo) -> CancellationToken {
        let token = CancellationToken::new();
        self.put(slot, job_id, attempt, token.clone());
        token
    }

    /// The slot's call is for this attempt from now on, and this token closes it.
    pub(crate) fn put(
        &self,
        slot: SlotId,
        job_id: JobId,
        attempt: AttemptNo,
        token: CancellationToken,
    ) {
        let call = OpenCall {
            job_id,
            attempt,
            token,
        };
        self.lock().insert(slot, call);
    }

    /// Closes the slot's open call, if it is for this attempt: the slot may have gone on to another.
    pub(crate) fn abort(&self, slot: SlotId, job_id: JobId, attempt: AttemptNo) {
        if let Some(call) = self.lock().get(&slot)
            && call.job_id == job_id
            && call.attempt == attempt
        {
            call.token.cancel();
        }
    }

    /// Closes every open call.
    pub(crate) fn abort_all(&self) {
        for call in self.lock().values() {
            call.token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SlotId, OpenCall>> {
        // The map is whole at every moment: a panic elsewhere can't have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_attempt_that_is_meant_is_closed() {
        let aborts = Aborts::default();
        let (one, two) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let first = aborts.arm(SlotId(0), one, AttemptNo(1));
        let second = aborts.arm(SlotId(0), one, AttemptNo(2));
        let other = aborts.arm(SlotId(1), two, AttemptNo(1));
        // The slot has gone on since.
        aborts.abort(SlotId(0), one, AttemptNo(1));
        aborts.abort(SlotId(0), two, AttemptNo(2));
        assert!(!first.is_cancelled() && !second.is_cancelled());
        aborts.abort(SlotId(0), one, AttemptNo(2));
        assert!(second.is_cancelled() && !other.is_cancelled());
        aborts.abort_all();
        assert!(other.is_cancelled());
    }
}
