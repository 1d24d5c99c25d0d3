//! Attempts that GLM may have billed although no answer is stored: what somebody found out about them is
//! booked here.

use std::sync::Arc;

use onelane_actors::ports::CallFilter;
use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{AttemptNo, Billing, JobId, Refusal, Transition, Usage};

use super::{Orchestrator, Sends};
use crate::error::Error;

impl Orchestrator {
    /// Books what was found out about an attempt that may have been billed; those that nobody has looked
    /// at are [`Orchestrator::calls`] with `billing_open`. Tokens without a cost cost what the price list
    /// in force says; answered is what was booked.
    ///
    /// `Invalid` for tokens or a cost of what was not billed; `NoSuchAttempt` if the call log has none
    /// like it; `BillingSettled` if it was never in doubt, or somebody was faster.
    pub async fn settle_billing(
        &self,
        job_id: JobId,
        attempt: AttemptNo,
        mut billing: Billing,
    ) -> Result<Billing, Error> {
        check(&billing)?;
        let model = self.called_model(job_id, attempt).await?;
        billing.price = None;
        if billing.cost.is_none() {
            let prices = Arc::clone(&self.settings().prices);
            (billing.cost, billing.price) = prices.charge(&model, &billing.usage).unzip();
        }
        let (mut decisions, sends) = self
            .commit_counted(vec![Transition::Billing {
                job_id,
                attempt,
                billing: billing.clone(),
            }])
            .await?;
        match (decisions.pop(), sends) {
            // Asked again after a lost reply, it finds its own work done.
            (Some(Ok(_)), _) | (Some(Err(Refusal::BillingSettled(_))), Sends::Again) => {
                // The budgets hear of it. A queue that is just being restarted reads it from the store.
                if let Ok((_, refs)) = self.refs().await {
                    let _ = refs.queue.cast(QueueMsg::Billed {
                        job_id,
                        attempt,
                        billing: Box::new(billing.clone()),
                    });
                }
                Ok(billing)
            }
            (Some(Err(Refusal::BillingSettled(_))), Sends::Once) => {
                Err(Error::BillingSettled { job_id, attempt })
            }
            (Some(Err(Refusal::NotFound)), _) => Err(Error::NoSuchAttempt { job_id, attempt }),
            (Some(Err(refusal)), _) => Err(Error::Stopped(refusal.to_string())),
            (None, _) => Err(Error::Stopped("the store answered nothing".to_owned())),
        }
    }

    async fn called_model(&self, job_id: JobId, attempt: AttemptNo) -> Result<String, Error> {
        let filter = CallFilter {
            job_id: Some(job_id),
            ..CallFilter::default()
        };
        let calls = self.calls(filter, None, usize::MAX).await?.calls;
        let call = calls.into_iter().find(|call| call.attempt == attempt);
        call.map(|call| call.model)
            .ok_or(Error::NoSuchAttempt { job_id, attempt })
    }
}

fn check(billing: &Billing) -> Result<(), Error> {
    let refuse = |field: &str, problem: &str| {
        Err(Error::Invalid {
            field: field.to_owned(),
            problem: problem.to_owned(),
        })
    };
    if !billing.billed && billing.usage != Usage::default() {
        return refuse("usage", "is of what was billed; leave it out");
    }
    if !billing.billed && billing.cost.is_some() {
        return refuse("cost", "is of what was billed; leave it out");
    }
    if billing.cost.is_some_and(|cost| cost.nanos < 0) {
        return refuse("cost", "must not be negative");
    }
    if billing.usage.cached_tokens > billing.usage.prompt_tokens {
        return refuse("usage.cachedTokens", "must not be more than promptTokens");
    }
    Ok(())
}
