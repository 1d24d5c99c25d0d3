//! The cost actor: what this process has spent, on a watch for progress bars and metrics. These
//! totals are hints; the truth is in the store's usage rows.

use std::collections::{BTreeMap, BTreeSet};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use crate::Ports;
use crate::protocol::CostMsg;
use crate::samples::{Estimates, Sampler};
use onelane_core::model::{Cost, Currency, Nanos, Substitution, Usage, amount};

/// Totals since the start of the process: hints, the truth is in the usage rows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Calls that ended.
    pub calls: u64,
    /// Calls that were billed at a cost that is not known.
    pub unpriced_calls: u64,
    /// Tokens.
    pub usage: Usage,
    /// Costs by currency.
    #[serde(rename = "costs", serialize_with = "amount::by_currency")]
    #[schemars(with = "Vec<Cost>")]
    pub cost: BTreeMap<Currency, Nanos>,
    /// How far estimates of prompts, as `POST estimate` makes them, are from what GLM counted.
    #[serde(rename = "promptEstimates")]
    pub estimates: Estimates,
}

pub(crate) struct CostArgs {
    pub(crate) ports: Ports,
    pub(crate) watch: watch::Sender<Totals>,
}

pub(crate) struct CostState {
    ports: Ports,
    watch: watch::Sender<Totals>,
    /// Of which models the log has told why their costs are not known.
    told: Told,
    /// Counts prompts again, where a tokenizer is there.
    sampler: Option<Sampler>,
}

/// Warnings that were logged already, by what they are about: a cost that is not known and why, or (`None`) a model
/// that answered in another one's place. Repeated for every call they would fill the log.
#[derive(Debug, Default)]
struct Told(BTreeSet<(String, Option<Unknown>)>);

/// Why the cost of a call is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    /// The model is not in the list.
    NoPrice,
    /// The list has the model, and not for prompts as long as this one.
    TooLong,
    /// GLM did not say in full what it billed.
    NoUsage,
}

/// Models and reasons that are told at most: names come from outside.
const TOLD_MAX: usize = 1_000;

impl Told {
    /// Why the cost is not known, if that is news of this model.
    fn news(&mut self, model: &str, usage: &Usage, is_priced: bool) -> Option<Unknown> {
        let why = match (usage.is_chargeable(), is_priced) {
            (false, _) => Unknown::NoUsage,
            (true, false) => Unknown::NoPrice,
            (true, true) => Unknown::TooLong,
        };
        self.is_news(model.to_owned(), Some(why)).then_some(why)
    }

    fn is_news(&mut self, model: String, why: Option<Unknown>) -> bool {
        self.0.len() < TOLD_MAX && self.0.insert((model, why))
    }
}

pub(crate) struct CostActor;

impl Actor for CostActor {
    type Msg = CostMsg;
    type State = CostState;
    type Arguments = CostArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<CostMsg>,
        args: CostArgs,
    ) -> Result<CostState, ActorProcessingErr> {
        let tokens = args.ports.tokens.clone();
        Ok(CostState {
            sampler: tokens.and_then(|tokens| Sampler::start(tokens, myself)),
            ports: args.ports,
            watch: args.watch,
            told: Told::default(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<CostMsg>,
        message: CostMsg,
        state: &mut CostState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.fault_points.point("cost");
        match message {
            CostMsg::Settled {
                usage,
                cost,
                unpriced,
                substituted,
            } => {
                let add = |totals: &mut Totals| totals.add(&usage, cost, unpriced.is_some());
                state.watch.send_modify(add);
                if let Some(model) = unpriced {
                    state.tell_unpriced(&model, &usage);
                }
                if let Some((model, other, what)) = substituted {
                    state.tell_substituted(&model, &other, what);
                }
            }
            CostMsg::Answered(sample) => {
                let sampler = state.sampler.as_ref();
                if sampler.is_some_and(|sampler| !sampler.offer(sample)) {
                    let skip = |totals: &mut Totals| totals.estimates.skipped_calls += 1;
                    state.watch.send_modify(skip);
                }
            }
            CostMsg::Counted {
                model,
                estimated_tokens,
                counted_tokens,
            } => state.watch.send_modify(|totals| {
                let estimates = &mut totals.estimates;
                estimates.add(model, estimated_tokens, counted_tokens);
            }),
        }
        Ok(())
    }
}

impl CostState {
    fn tell_substituted(&mut self, model: &str, other: &str, what: Substitution) {
        if !self.told.is_news(format!("{model} {other}"), None) {
            return;
        }
        match what {
            Substitution::Priced => tracing::warn!(
                model,
                answered_by = other,
                "another model answered than the one that was called: its price counts"
            ),
            Substitution::Assumed => tracing::warn!(
                model,
                answered_by = other,
                "another model answered than the one that was called, and it has no price: the price of the one \
                 that was called counts; add the other to money.prices"
            ),
        }
    }

    fn tell_unpriced(&mut self, model: &str, usage: &Usage) {
        let is_priced = self.ports.settings.borrow().prices.is_priced(model);
        match self.told.news(model, usage, is_priced) {
            Some(Unknown::NoPrice) => tracing::warn!(
                model,
                "the model has no price: what its calls cost is not known; add it to money.prices"
            ),
            Some(Unknown::TooLong) => tracing::warn!(
                model,
                prompt_tokens = usage.prompt_tokens,
                "the model has no price for prompts as long as this one: what the call cost is not \
                 known; add its prices to money.prices"
            ),
            Some(Unknown::NoUsage) => tracing::warn!(
                model,
                "GLM answered without saying in full what it billed: what the call cost is not known"
            ),
            None => {}
        }
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::conversations::Conversations;
    use crate::meters::Meters;
    use crate::protocol::Sample;
    use crate::relay::Relays;
    use crate::testing::{MemoryStore, ScriptedGlm, SeededIds, SimClock, sample};
    use crate::{Events, FaultPoints};
    use onelane_core::model::{Request, Settings};
    use onelane_core::money::estimate::CountTokens;

    /// Counts nothing before it may.
    #[derive(Default)]
    struct Gate(AtomicBool);

    impl CountTokens for Gate {
        fn count(&self, _: &str, _: &str) -> u64 {
            while !self.0.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            1
        }
    }

    async fn actor(tokens: Arc<Gate>) -> (ActorRef<CostMsg>, watch::Receiver<Totals>) {
        let (watch, totals) = watch::channel(Totals::default());
        let ports = Ports {
            instance: 1,
            store: Arc::new(MemoryStore::new()),
            glm: Arc::new(ScriptedGlm::answering(Duration::ZERO)),
            clock: Arc::new(SimClock::starting_at(sample::START)),
            ids: Arc::new(SeededIds::new(1)),
            settings: watch::channel(Arc::new(Settings::default())).1,
            events: Events::new(1),
            relays: Relays::default(),
            conversations: Conversations::default(),
            tokens: Some(tokens),
            meters: Meters::default(),
            fault_points: FaultPoints::default(),
        };
        let (actor, _) = Actor::spawn(None, CostActor, CostArgs { ports, watch })
            .await
            .unwrap();
        (actor, totals)
    }

    #[test]
    fn every_reason_is_told_once_of_every_model() {
        let mut told = Told::default();
        let billed = Usage {
            prompt_tokens: 1,
            ..Usage::default()
        };
        let silent = Usage::default();
        let mut news = |model: &str, usage, priced| told.news(model, usage, priced);
        assert_eq!(news("a", &silent, false), Some(Unknown::NoUsage));
        assert_eq!(news("a", &billed, false), Some(Unknown::NoPrice));
        assert_eq!(news("a", &billed, true), Some(Unknown::TooLong));
        assert_eq!(news("b", &silent, true), Some(Unknown::NoUsage));
        for (usage, priced) in [(&silent, false), (&billed, false), (&billed, true)] {
            assert_eq!(news("a", usage, priced), None);
        }
    }

    #[tokio::test]
    async fn prompts_that_come_faster_than_they_are_counted_are_skipped_and_told() {
        let gate = Arc::new(Gate::default());
        let (actor, mut totals) = actor(Arc::clone(&gate)).await;
        let request = Arc::new(Request::prompt("hello").unwrap());
        for _ in 0..20 {
            let sample = Sample {
                model: "glm-5".to_owned(),
                request: Arc::clone(&request),
                counted_tokens: 8,
            };
            actor.cast(CostMsg::Answered(sample)).unwrap();
        }
        // One is being counted or about to be, sixteen wait.
        let skipped = |totals: &Totals| totals.estimates.skipped_calls >= 3;
        totals.wait_for(skipped).await.unwrap();
        gate.0.store(true, Ordering::Release);
        let all =
            |totals: &Totals| totals.estimates.skipped_calls + totals.estimates.total.calls == 20;
        let seen = totals.wait_for(all).await.unwrap().estimates.clone();
        assert!((3..=4).contains(&seen.skipped_calls), "{seen:?}");
        // Three for the template, three for the message, one of text.
        assert_eq!(seen.total.mean_relative_error, Some(0.125));
        drop(actor);
    }
}
