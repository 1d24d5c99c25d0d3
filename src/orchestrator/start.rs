//! From a configuration to a running lane on the real adapters.

use std::sync::Arc;

use onelane_actors::FaultPoints;
use onelane_actors::ports::{Clock as _, Store as _, StoreError};
use onelane_actors::supervisor::RestartBudget;
use onelane_core::model::{Scope, Transition};

use super::{Orchestrator, Parts};
use crate::config::{Config, ConfigError, Loaded};
#[cfg(feature = "estimate")]
use crate::estimate::GlmTokenizer;
use crate::glm::{HttpGlm, HttpGlmError};
use crate::otlp::{self, OtlpError};
use crate::registry::Registry;
use crate::store::{RedbStore, StoreOptions};
use crate::system::{SystemClock, SystemIds};

/// Why a lane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store can't be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client can't be built.
    #[error(transparent)]
    Glm(#[from] HttpGlmError),
    /// Nothing can be exported for OpenTelemetry.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// An actor did not start.
    #[error("the lane did not start: {0}")]
    Actors(String),
}

impl Orchestrator {
    /// Starts the lane of an embedding program: opens (or creates) the store that `config` names
    /// and goes on with what it holds. Changes that were made while running, and are kept in the
    /// store, win over `config`.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        // On the heap: a configuration is large, and lies in each of the steps below.
        Box::pin(Self::start_loaded(Loaded::from_config(config)?)).await
    }

    /// As [`Orchestrator::start`], with a configuration from file, environment and flags.
    pub async fn start_loaded(loaded: Loaded) -> Result<Self, StartError> {
        Box::pin(Self::start_in_scope(loaded, Scope::All)).await
    }

    /// The same, for the jobs of this scope alone: the others wait.
    pub async fn start_in_scope(loaded: Loaded, scope: Scope) -> Result<Self, StartError> {
        Box::pin(Self::start_in(loaded, scope, Registry::default())).await
    }

    /// As [`Orchestrator::start`], with its counts kept in this registry, such as that of a recorder of the program's
    /// own.
    pub async fn start_counted(config: &Config, registry: Registry) -> Result<Self, StartError> {
        let loaded = Loaded::from_config(config)?;
        Box::pin(Self::start_in(loaded, Scope::All, registry)).await
    }

    async fn start_in(
        loaded: Loaded,
        scope: Scope,
        registry: Registry,
    ) -> Result<Self, StartError> {
        let options = StoreOptions {
            cache_bytes: loaded.config.store.cache_bytes,
        };
        let path = loaded.config.store.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = RedbStore::open(path, options)?;
            let stored = store.config()?;
            Ok::<_, StoreError>((store, stored))
        });
        let (store, stored) = opened
            .await
            .map_err(|error| StartError::Actors(error.to_string()))??;
        let clock = Arc::new(SystemClock);
        let mut loaded = loaded.with_stored(stored.as_deref(), clock.now())?;
        loaded.settings.scope = scope;
        let store = match loaded.stored_json().filter(|_| stored.is_none()) {
            Some(first) => keep(store, first).await?,
            None => store,
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        loaded.tell_price_list();
        let route = loaded.route()?;
        if let Some(told) = route.told(&loaded.settings.glm.base_url) {
            tracing::info!("{told}");
        }
        let pass_on = otlp::pass_on(&loaded.config.otlp);
        let glm = HttpGlm::by(route, Arc::clone(&clock) as Arc<_>)?.passing_on(pass_on);
        Self::start_with(Parts {
            store: Arc::new(store),
            glm: Arc::new(glm),
            clock,
            ids: Arc::new(SystemIds::new()),
            config: loaded,
            #[cfg(feature = "estimate")]
            tokens: Some(Arc::new(GlmTokenizer)),
            #[cfg(not(feature = "estimate"))]
            tokens: None,
            registry,
            budget: RestartBudget::default(),
            fault_points: FaultPoints::default(),
        })
        .await
    }
}

/// Stores the first form of the configuration, with the moment of the first start in it.
async fn keep(store: RedbStore, config: String) -> Result<RedbStore, StartError> {
    let kept = tokio::task::spawn_blocking(move || {
        store.commit(&[Transition::Config(config)])?;
        Ok::<_, StoreError>(store)
    });
    Ok(kept
        .await
        .map_err(|error| StartError::Actors(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::orchestrator::Submission;

    #[tokio::test]
    async fn the_first_start_is_remembered_without_any_change() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = directory.path().join("lane.redb").display().to_string();
        let mut created = Vec::new();
        for _ in 0..2 {
            let lane = Orchestrator::start(&config).await.unwrap();
            created.push(lane.config_view()["createdAt"].clone());
            lane.shutdown(Duration::from_secs(10)).await;
            drop(lane);
            // The clock counts milliseconds: a later start is another moment.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(created[0].is_string());
        assert_eq!(created[0], created[1]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shutdown_waits_for_reads_that_nobody_waits_for_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = directory.path().join("lane.redb").display().to_string();
        let lane = Orchestrator::start(&config).await.unwrap();
        let (goes_on, may_go_on) = std::sync::mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let work = move || {
            let _ = may_go_on.recv();
            told.store(true, Ordering::Release);
        };
        tokio::select! {
            biased;
            _ = lane.off_the_workers(work) => panic!("it can't have ended"),
            () = std::future::ready(()) => {}
        }
        let ending = tokio::spawn({
            let lane = lane.clone();
            async move { lane.shutdown(Duration::from_secs(10)).await }
        });
        let mut gone = lane.inner.gone.clone();
        gone.wait_for(|gone| *gone).await.unwrap();
        // All else has ended.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!ending.is_finished());
        goes_on.send(()).unwrap();
        ending.await.unwrap();
        assert!(ended.load(Ordering::Acquire));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_store_is_free_once_the_last_handle_of_a_stopped_lane_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = directory.path().join("lane.redb").display().to_string();
        for round in 0..60 {
            let lane = Orchestrator::start(&config).await.unwrap();
            assert_eq!(lane.queue_status().await.unwrap().pending, round);
            lane.pause(None).await.unwrap();
            let job = Submission::prompt("one more").unwrap();
            lane.submit(job).await.unwrap();
            assert!(lane.shutdown(Duration::from_secs(10)).await.drained);
        }
    }
}
