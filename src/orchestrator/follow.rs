//! Somebody who reads the streamed answer of a job that is not theirs to keep alive: it begins, goes on and ends without
//! them.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_actors::relay::{RelayHead, RelayReader};
use onelane_core::model::JobId;

use super::Orchestrator;
use crate::error::Error;

/// What there is to read.
pub(crate) enum Followed {
    /// The pieces of its answer, from the first on.
    Begun(Arc<RelayHead>, RelayReader),
    /// The job has ended, and its pieces are not there.
    Ended(Box<JobRecord>),
}

impl Orchestrator {
    /// Waits until a job's answer begins to come in pieces, or has ended and left none. This future may be dropped at any
    /// moment.
    pub(crate) async fn follow(&self, id: JobId) -> Result<Followed, Error> {
        let mut reader = self.inner.ports.relays.to_read(id).reader();
        let begun = tokio::select! {
            biased;
            Some(head) = reader.head() => Ok(head),
            record = self.wait(id) => Err(record),
        };
        match begun {
            Ok(head) => Ok(Followed::Begun(head, reader)),
            Err(record) => Ok(Followed::Ended(Box::new(record?))),
        }
    }
}
