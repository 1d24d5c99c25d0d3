//! When a quota that is used up opens again: the provider's meter knows it, too, where its refusal does not say, and is
//! asked at that moment. All calls of the account are about to be held, so that the slot of the refused one is in nobody's
//! way for so long.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::{
    AccountAsk, AccountFuture, CallEnd, CallFuture, Clock, Glm, GlmCall, GlmFuture, GlmOutcome,
    TaskFuture, TaskOutcome,
};
use onelane_core::model::{Balance, Day, Endpoint, Face, Failure, FailureClass, Metered, Quota};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use crate::glm::span_of;

/// How long a refusal waits for the meter at most.
const WITHIN_MS_MAX: u64 = 5_000;

/// GLM, with resets of quotas from its meter.
#[derive(Clone)]
pub(super) struct Refusals {
    pub(super) glm: Arc<dyn Glm>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) account: Arc<Account>,
}

impl Refusals {
    /// Asks when the quota opens that a call was refused for. What its refusal states counts where the meter knows nothing.
    async fn dated(
        &self,
        failure: &mut Failure,
        ask: Option<AccountAsk>,
        abort: &CancellationToken,
    ) {
        let Some(mut ask) = ask.filter(|_| failure.class == FailureClass::QuotaWindow) else {
            return;
        };
        ask.timeout_ms = ask.timeout_ms.min(WITHIN_MS_MAX);
        let within = Duration::from_millis(ask.timeout_ms);
        let asked = tokio::time::timeout(within, self.glm.quota(ask));
        let told = tokio::select! {
            () = abort.cancelled() => return,
            told = asked => told,
        };
        let now = self.clock.now();
        let quota = match told {
            Ok(Ok(quota)) => {
                self.account.note(&quota, now);
                Some(quota)
            }
            // What was told last names the same window.
            _ => self.account.told().quota,
        };
        let opens_at = quota.and_then(|quota| quota.opens_at(span_of(&failure.code), now));
        failure.reset_at = opens_at.or(failure.reset_at);
    }

    fn asks(&self, call: &GlmCall) -> Option<AccountAsk> {
        self.account.ask(call.endpoint.clone())
    }
}

impl Glm for Refusals {
    fn call(&self, call: GlmCall, abort: CancellationToken) -> CallFuture {
        let (this, ask) = (self.clone(), self.asks(&call));
        let calling = self.glm.call(call, abort.clone());
        Box::pin(async move {
            let mut end = calling.await;
            if let CallEnd::Outcome(GlmOutcome::Failed(failure, _)) = &mut end {
                this.dated(failure, ask, &abort).await;
            }
            end
        })
    }

    fn submit_task(&self, call: GlmCall, abort: CancellationToken) -> TaskFuture {
        let (this, ask) = (self.clone(), self.asks(&call));
        Box::pin(async move {
            let mut outcome = this.glm.submit_task(call, abort.clone()).await;
            if let TaskOutcome::Failed(failure, _) = &mut outcome {
                this.dated(failure, ask, &abort).await;
            }
            outcome
        })
    }

    fn fetch_task(&self, call: GlmCall, task_id: String, abort: CancellationToken) -> GlmFuture {
        self.glm.fetch_task(call, task_id, abort)
    }

    fn quota(&self, ask: AccountAsk) -> AccountFuture<Quota> {
        self.glm.quota(ask)
    }

    fn balance(&self, ask: AccountAsk) -> AccountFuture<Balance> {
        self.glm.balance(ask)
    }

    fn metered(&self, ask: AccountAsk, day: Day) -> AccountFuture<Vec<Metered>> {
        self.glm.metered(ask, day)
    }

    fn url(&self, endpoint: &Endpoint, face: Face) -> String {
        self.glm.url(endpoint, face)
    }

    fn task_url(&self, endpoint: &Endpoint) -> String {
        self.glm.task_url(endpoint)
    }
}
