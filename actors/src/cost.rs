//! The cost actor: what this process has spent, on a watch for progress bars and metrics. These
//! totals are hints; the truth is in the store's usage rows. Budgets will be kept here too.

use std::collections::BTreeMap;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::Ports;
use crate::model::{Cost, Currency, Nanos, Usage};

/// Totals since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Calls that ended.
    pub calls: u64,
    /// Calls with tokens but without a known price.
    pub unpriced_calls: u64,
    /// Tokens.
    pub usage: Usage,
    /// Costs by currency.
    pub cost: BTreeMap<Currency, Nanos>,
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
    },
}

pub(crate) struct CostArgs {
    pub(crate) ports: Ports,
    pub(crate) watch: watch::Sender<Totals>,
}

pub(crate) struct CostState {
    ports: Ports,
    watch: watch::Sender<Totals>,
}

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
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<CostMsg>,
        message: CostMsg,
        state: &mut CostState,
    ) -> Result<(), ActorProcessingErr> {
        state.ports.faults.point("cost");
        let CostMsg::Settled { usage, cost } = message;
        state.watch.send_modify(|totals| totals.add(&usage, cost));
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, usage: &Usage, cost: Option<Cost>) {
        self.calls += 1;
        self.usage.add(usage);
        match cost {
            Some(cost) => {
                let sum = self.cost.entry(cost.currency).or_default();
                *sum = sum.saturating_add(cost.nanos);
            }
            None if usage.total_tokens > 0 => self.unpriced_calls += 1,
            None => {}
        }
    }
}
