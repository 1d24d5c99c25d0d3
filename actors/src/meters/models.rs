//! What is counted by model. Models are whatever submitters write: the first are told one by one, the others together.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram, Recorder};
use onelane_core::model::{CallOutcome, CallRecord, Currency, limits};

use super::table::{self, OTHER};
use super::{counter, histogram, seconds};

/// What is counted of a model.
pub(super) struct Model {
    response: Histogram,
    first_token: Histogram,
    prompt: Counter,
    cached: Counter,
    completion: Counter,
    reasoning: Counter,
    unpriced: Counter,
    cny: Counter,
    usd: Counter,
    points: Counter,
}

impl Model {
    fn new(to: &dyn Recorder, name: &str) -> Self {
        let tokens = |kind| counter(to, &table::TOKENS, &[name, kind]);
        let cost = |currency: Currency| counter(to, &table::COST, &[name, currency.code()]);
        Self {
            response: histogram(to, &table::RESPONSE, &[name]),
            first_token: histogram(to, &table::FIRST_TOKEN, &[name]),
            prompt: tokens("prompt"),
            cached: tokens("cached"),
            completion: tokens("completion"),
            reasoning: tokens("reasoning"),
            unpriced: counter(to, &table::UNPRICED, &[name]),
            cny: cost(Currency::Cny),
            usd: cost(Currency::Usd),
            points: cost(Currency::Points),
        }
    }

    /// An attempt ended after so many seconds.
    pub(super) fn settled(&self, call: &CallRecord, took: f64) {
        if call.outcome == CallOutcome::Completed {
            self.response.record(took);
        }
        if let Some(ms) = call.parts.first_token_ms {
            self.first_token.record(seconds(Duration::from_millis(ms)));
        }
        let usage = &call.usage;
        self.prompt.increment(usage.prompt_tokens);
        self.cached.increment(usage.cached_tokens);
        self.completion.increment(usage.completion_tokens);
        self.reasoning.increment(usage.reasoning_tokens);
        if call.is_unpriced() {
            self.unpriced.increment(1);
        }
        if let Some(cost) = call.cost {
            let counter = match cost.currency {
                Currency::Cny => &self.cny,
                Currency::Usd => &self.usd,
                Currency::Points => &self.points,
            };
            counter.increment(u64::try_from(cost.nanos).unwrap_or(0));
        }
    }
}

/// The models that were met.
#[derive(Default)]
pub(super) struct Models(RwLock<BTreeMap<String, Arc<Model>>>);

impl Models {
    /// What is counted of a model. Once there are [`limits::METERED_MODELS_MAX`], new ones are counted together.
    pub(super) fn of(&self, to: &dyn Recorder, name: &str) -> Arc<Model> {
        // The map is whole at every moment: a panic elsewhere can't have left it half changed.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let is_full = known.len() >= limits::METERED_MODELS_MAX;
        let others = || known.get(OTHER).filter(|_| is_full);
        if let Some(model) = known.get(name).or_else(others) {
            return Arc::clone(model);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let told = match known.len() < limits::METERED_MODELS_MAX {
            true => name,
            false => OTHER,
        };
        let model = known
            .entry(told.to_owned())
            .or_insert_with(|| Arc::new(Model::new(to, told)));
        Arc::clone(model)
    }
}
