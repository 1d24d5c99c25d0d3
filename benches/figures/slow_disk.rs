//! A lane on a disk that takes longer for each sync than its own, as one over a network does.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use onelane::config::{Config, Loaded};
use onelane::glm::HttpGlm;
use onelane::orchestrator::{LaneThread, Orchestrator, Parts};
use onelane::store::{RedbStore, StoreOptions};
use onelane::system::{SystemClock, SystemIds};
use onelane::{FaultPoints, Registry, RestartBudget};
use redb::StorageBackend;
use redb::backends::FileBackend;

#[derive(Debug)]
struct SlowDisk {
    file: FileBackend,
    more: Duration,
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(self.more);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

/// As `start`, with so much more time for each sync, and without counting the prompts of its calls again.
pub(super) async fn start(config: Config, more: Duration) -> (LaneThread, Orchestrator) {
    let path = config.store.path.clone();
    let make = move || {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = FileBackend::new(file.open(&path)?).map_err(io::Error::other)?;
        Ok(SlowDisk { file, more })
    };
    let store = RedbStore::open_with_backend("a slow disk", StoreOptions::default(), make).unwrap();
    let clock = Arc::new(SystemClock);
    let parts = Parts {
        store: Arc::new(store),
        glm: Arc::new(HttpGlm::new(Arc::clone(&clock) as Arc<_>).unwrap()),
        clock,
        ids: Arc::new(SystemIds::new()),
        config: Loaded::from_config(&config).unwrap(),
        tokens: None,
        registry: Registry::default(),
        budget: RestartBudget::default(),
        fault_points: FaultPoints::default(),
    };
    let thread = LaneThread::new().unwrap();
    let lane = thread.run(async move { Orchestrator::start_with(parts).await });
    let lane = lane.await.unwrap();
    (thread, lane)
}
