//! A lane on virtual time whose store is a real file, so that it can be started again on it.

use std::sync::Arc;

use onelane::orchestrator::Orchestrator;
use onelane::store::{RedbStore, StoreOptions};
use onelane_actors::testing::{MemoryStore, ScriptedGlm};
use tempfile::TempDir;

use super::http::until;
use super::{VirtualLane, ms};

/// A lane on virtual time whose store is a real file.
pub(crate) struct FileLane {
    pub(crate) world: VirtualLane,
    dir: TempDir,
}

impl FileLane {
    pub(crate) fn new(glm: ScriptedGlm) -> Self {
        Self {
            world: VirtualLane::new(glm),
            dir: TempDir::new().unwrap(),
        }
    }

    /// Starts on the file as soon as the lane before has let go of it.
    pub(crate) async fn start(&mut self) -> Orchestrator {
        let file = self.dir.path().join("lane.redb");
        let mut opened = None;
        until("the file is free", async || {
            opened = RedbStore::open(&file, StoreOptions::default()).ok();
            opened.is_some()
        })
        .await;
        self.world.store = Arc::new(opened.unwrap());
        self.world.start().await
    }

    /// Lets go of the file, too.
    pub(crate) async fn shut_down(&mut self, lane: Orchestrator) {
        lane.shutdown(ms(10_000)).await;
        self.crash(lane);
    }

    /// Ends the lane without a word to anybody.
    pub(crate) fn crash(&mut self, lane: Orchestrator) {
        drop(lane);
        self.world.store = Arc::new(MemoryStore::new());
    }
}
