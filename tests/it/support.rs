//! What the tests share: a lane on virtual time here, with a real file in `file`, the real thing in
//! `http`, its API in `api`, chance that can be repeated in `dice`, its tables behind its back in `tables`, and what went over the wire in `tap`.

pub(crate) mod api;
pub(crate) mod dice;
pub(crate) mod file;
pub(crate) mod h2;
pub(crate) mod http;
pub(crate) mod tables;
pub(crate) mod tap;
pub(crate) mod tls;
pub(crate) mod upstream;

use std::sync::Arc;
use std::time::Duration;

use onelane::config::{Config, Loaded};
use onelane::estimate::CountTokens;
use onelane::orchestrator::{Orchestrator, Parts};
use onelane_actors::FaultPoints;
use onelane_actors::ports::{Clock as _, Store};
use onelane_actors::supervisor::RestartBudget;
use onelane_actors::testing::{MemoryStore, ScriptedGlm, SeededIds, SimClock};
use onelane_core::model::{Settings, Timestamp};

/// Checks members of an object, and shows all of it when one is another.
macro_rules! shows {
    ($object:expr, { $($name:literal: $value:expr),+ }) => {{
        let object = &$object;
        $(assert_eq!(object[$name], serde_json::json!($value), "{}: {object}", $name);)+
    }};
}
pub(crate) use shows;

/// 2026-11-23T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_392_000_000);

/// A budget that chaos does not use up.
pub(crate) const GENEROUS: RestartBudget = RestartBudget {
    max: usize::MAX,
    window_ms: 1,
};

/// A lane on virtual time: store in memory, scripted GLM.
pub(crate) struct VirtualLane {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) glm: ScriptedGlm,
    /// Goes on over restarts of the lane.
    pub(crate) clock: SimClock,
    pub(crate) settings: Settings,
    pub(crate) tokens: Option<Arc<dyn CountTokens>>,
    pub(crate) budget: RestartBudget,
    pub(crate) fault_points: FaultPoints,
}

impl VirtualLane {
    pub(crate) fn new(glm: ScriptedGlm) -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            glm,
            clock: SimClock::starting_at(START),
            settings: Settings::default(),
            tokens: None,
            budget: RestartBudget::default(),
            fault_points: FaultPoints::default(),
        }
    }

    pub(crate) async fn start(&self) -> Orchestrator {
        Orchestrator::start_with(Parts {
            store: Arc::clone(&self.store),
            glm: Arc::new(self.glm.clone()),
            clock: Arc::new(self.clock.clone()),
            ids: Arc::new(SeededIds::new(7)),
            config: {
                let mut loaded = Loaded::from_config(&Config::default()).expect("defaults load");
                loaded.settings = self.settings.clone();
                loaded
            },
            registry: onelane::Registry::default(),
            tokens: self.tokens.clone(),
            budget: self.budget,
            fault_points: self.fault_points.clone(),
        })
        .await
        .expect("the lane starts")
    }

    /// Sleeps until the clock shows this moment.
    pub(crate) async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(ms(at.since(self.clock.now()))).await;
    }
}

/// Milliseconds, virtual ones where time is.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
