//! What operators did, as the store keeps it.

#[cfg(feature = "api")]
use onelane_core::model::{ActedBy, ActedFrom, ActedHow, Transition};
use onelane_core::model::{AuditEntry, AuditId, limits};

use super::Orchestrator;
use crate::error::Error;

impl Orchestrator {
    /// Orders of operators, newest first, from the one before `before` on: at most `limit`, and no more than a page.
    pub async fn audit(
        &self,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| store.audit(before, limit)).await
    }

    /// An order that was just given, not on record yet.
    #[cfg(feature = "api")]
    pub(crate) fn given(&self, by: ActedBy, from: ActedFrom, what: String) -> AuditEntry {
        let ports = &self.inner.ports;
        let at = ports.clock.now();
        AuditEntry {
            id: AuditId::of(ports.ids.job_id(at)),
            at,
            by,
            from,
            what,
            on: None,
            detail: None,
            outcome: ActedHow::Begun,
            count: None,
            problem: None,
        }
    }

    /// Puts an order on record, or what became of one that is.
    #[cfg(feature = "api")]
    pub(crate) async fn put_on_record(&self, entry: &AuditEntry) -> Result<(), Error> {
        let change = Transition::Audit(Box::new(entry.clone()));
        self.commit(vec![change]).await.map(drop)
    }
}
