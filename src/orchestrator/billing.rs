//! Attempts that GLM may have billed although no answer is stored: what somebody found out about them is
//! booked here.

use std::sync::Arc;

use onelane_actors::ports::CallFilter;
use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{
    AttemptNo, Billing, CallRecord, JobId, Refusal, Timestamp, Transition, Usage,
};

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
        let (model, at) = self.called_model(job_id, attempt).await?;
        billing.price = None;
        if billing.cost.is_none() {
            let prices = Arc::clone(&self.settings().prices);
            (billing.cost, billing.price) = prices.charge(&model, &billing.usage, at).unzip();
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

    /// Books the same of every attempt in doubt that the filter leaves: that nothing of it was billed, or, where
    /// `billed`, all that budgets keep reserved for it. Answers how many; a dry run books nothing and answers how many
    /// it would be. One that somebody settles meanwhile is not counted. If the lane or its store fails on the way,
    /// what was booked stays booked. Without a filter every one is meant.
    pub async fn settle_all_billing(
        &self,
        filter: Option<CallFilter>,
        billed: bool,
        dry_run: bool,
        at: Timestamp,
    ) -> Result<u64, Error> {
        let filter = CallFilter {
            billing_open: true,
            ..filter.unwrap_or_default()
        };
        let (mut count, mut cursor) = (0, None);
        loop {
            let page = self.calls(filter.clone(), cursor, PAGE).await?;
            for call in page.calls {
                if dry_run {
                    count += 1;
                    continue;
                }
                let (job_id, attempt) = (call.job_id, call.attempt);
                let settled = self
                    .settle_billing(job_id, attempt, as_reserved(&call, billed, at))
                    .await;
                match settled {
                    Ok(_) => count += 1,
                    // Somebody was faster, or its row was pruned meanwhile.
                    Err(Error::BillingSettled { .. } | Error::NoSuchAttempt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }

    async fn called_model(
        &self,
        job_id: JobId,
        attempt: AttemptNo,
    ) -> Result<(String, Timestamp), Error> {
        let filter = CallFilter {
            job_id: Some(job_id),
            ..CallFilter::default()
        };
        let calls = self.calls(filter, None, usize::MAX).await?.calls;
        let call = calls.into_iter().find(|call| call.attempt == attempt);
        call.map(|call| (call.model, call.started_at))
            .ok_or(Error::NoSuchAttempt { job_id, attempt })
    }
}

/// Attempts that are looked at together.
const PAGE: usize = 500;

/// What is booked of an attempt that nobody looks at by itself.
fn as_reserved(call: &CallRecord, billed: bool, at: Timestamp) -> Billing {
    let reserve = call.reserved.filter(|_| billed).unwrap_or_default();
    Billing {
        billed,
        usage: Usage {
            total_tokens: reserve.tokens,
            ..Usage::default()
        },
        cost: reserve.cost,
        price: None,
        at,
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
