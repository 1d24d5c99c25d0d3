//! The cost actor: what this process has spent, on a watch for progress bars and metrics. These
//! totals are hints; the truth is in the store's usage rows. Budgets will be kept here too.

use std::collections::{BTreeMap, BTreeSet};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::Ports;
use crate::model::{Cost, Currency, Nanos, Usage};

/// Totals since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Calls that ended.
    pub calls: u64,
    /// Calls that were billed at a cost that is not known.
    pub unpriced_calls: u64,
    /// Tokens.
    pub usage: Usage,
    /// Costs by currency.
    pub cost: BTreeMap<Currency, Nanos>,
    /// How far the estimates of prompts were off.
    pub estimates: EstimateError,
}

/// How far estimated prompts are from what GLM counted, over the calls that have both figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EstimateError {
    /// The calls.
    pub calls: u64,
    /// Tokens of their prompts as estimated.
    pub estimated_tokens: u64,
    /// Tokens of their prompts as GLM counted them.
    pub counted_tokens: u64,
    /// Sum of the relative errors |estimated - counted| / counted, in millionths.
    pub relative_error_ppm: u64,
}

impl EstimateError {
    fn add(&mut self, estimated: u64, counted: u64) {
        let error = u128::from(estimated.abs_diff(counted)) * 1_000_000;
        // Without a count there is nothing to compare with.
        let Some(ppm) = error.checked_div(u128::from(counted)) else {
            return;
        };
        let ppm = u64::try_from(ppm).unwrap_or(u64::MAX);
        self.calls += 1;
        self.estimated_tokens = self.estimated_tokens.saturating_add(estimated);
        self.counted_tokens = self.counted_tokens.saturating_add(counted);
        self.relative_error_ppm = self.relative_error_ppm.saturating_add(ppm);
    }

    /// The mean relative error: 0.1 is ten per cent off, either way. `None` without calls.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.relative_error_ppm as f64 / 1e6 / self.calls as f64)
    }
}

/// The cost actor's protocol.
#[derive(Debug)]
pub enum CostMsg {
    /// A call was settled: its row is on disk.
    Settled {
        /// Its tokens.
        usage: Usage,
        /// Its cost, if it is known.
        cost: Option<Cost>,
        /// The model, when it was billed at a cost that is not known.
        unpriced: Option<String>,
        /// What its prompt was estimated at, in tokens.
        estimated_prompt_tokens: Option<u64>,
    },
}

pub(crate) struct CostArgs {
    pub(crate) ports: Ports,
    pub(crate) watch: watch::Sender<Totals>,
}

pub(crate) struct CostState {
    ports: Ports,
    watch: watch::Sender<Totals>,
    /// The models whose missing price the log has told of.
    told: BTreeSet<String>,
}

/// Models that are told of at most: their names come from outside.
const TOLD_MAX: usize = 1_000;

pub(crate) struct CostActor;

impl Actor for CostActor {
    type Msg = CostMsg;
    type State = CostState;
    type Arguments = CostArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<CostMsg>,
        args: CostArgs,
    ) -> Result<CostState, ActorProcessingErr> {
        Ok(CostState {
            ports: args.ports,
            watch: args.watch,
            told: BTreeSet::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<CostMsg>,
        message: CostMsg,
        state: &mut CostState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.faults.point("cost");
        let CostMsg::Settled {
            usage,
            cost,
            unpriced,
            estimated_prompt_tokens,
        } = message;
        state.watch.send_modify(|totals| {
            totals.add(&usage, cost, unpriced.is_some());
            if let Some(estimated) = estimated_prompt_tokens {
                totals.estimates.add(estimated, usage.prompt_tokens);
            }
        });
        if let Some(model) = unpriced {
            state.tell_unpriced(model, &usage);
        }
        Ok(())
    }
}

impl CostState {
    /// Once for each model: every call of it would fill the log.
    fn tell_unpriced(&mut self, model: String, usage: &Usage) {
        if self.told.len() >= TOLD_MAX || self.told.contains(&model) {
            return;
        }
        if usage.is_chargeable() {
            tracing::warn!(
                model,
                "the model has no price: what its calls cost is not known; add it to money.prices"
            );
        } else {
            tracing::warn!(
                model,
                "GLM answered without saying what it billed: what the call cost is not known"
            );
        }
        self.told.insert(model);
    }
}

impl Totals {
    fn add(&mut self, usage: &Usage, cost: Option<Cost>, unpriced: bool) {
        self.calls += 1;
        self.usage.add(usage);
        self.unpriced_calls += u64::from(unpriced);
        if let Some(cost) = cost {
            let sum = self.cost.entry(cost.currency).or_default();
            *sum = sum.saturating_add(cost.nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_estimates_is_the_mean_of_every_calls_own() {
        let mut error = EstimateError::default();
        assert_eq!(error.mean(), None);
        error.add(110, 100);
        error.add(500, 1_000);
        error.add(7, 0);
        assert_eq!(error.calls, 2);
        assert_eq!((error.estimated_tokens, error.counted_tokens), (610, 1_100));
        assert_eq!(error.mean(), Some(0.3));
        error.add(u64::MAX, 1);
        assert_eq!(error.relative_error_ppm, u64::MAX);
    }
}
