//! Whether the lane takes work and sends it: asked on the way that a job takes, through queue and store.

use std::time::Duration;

use onelane_actors::protocol::StoreMsg;
use onelane_core::model::WaitReason;
use onelane_core::scheduler::SchedulerSnapshot;

use super::Orchestrator;
use crate::error::Error;

/// How a lane is that takes work.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// It takes work and sends it.
    Ready,
    /// It takes work and sends nothing: why.
    Degraded(WaitReason),
}

/// Why a lane takes no work.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// An actor or the disk takes too long.
    #[error("{0} has not answered within {1:?}")]
    Slow(&'static str, Duration),
    /// There is no room on the disk.
    #[error("the disk is full: nothing is taken until there is room")]
    DiskFull,
    /// An operator closed the intake.
    #[error("the intake is closed; POST /api/admin/glm/resume opens it")]
    IntakeClosed,
    /// It is shutting down.
    #[error("the lane is stopping")]
    Stopping,
    /// It has stopped, or its store can't be read.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Orchestrator {
    /// How the lane is, by a round trip: the queue answers, the store actor is done with what it was asked before, and
    /// a row is read. Each has so long.
    pub async fn health(&self, within: Duration) -> Result<Health, NotReady> {
        let lane = self.round_trip(within).await?;
        if lane.disk_full {
            return Err(NotReady::DiskFull);
        }
        if lane.draining.is_some() {
            return Err(NotReady::IntakeClosed);
        }
        if lane.stopping {
            return Err(NotReady::Stopping);
        }
        let lasts = |reason: &WaitReason| reason.stops_all() || reason.waits_for_operator();
        Ok(match lane.wait_reason.filter(lasts) {
            Some(reason) => Health::Degraded(reason),
            None => Health::Ready,
        })
    }

    /// The round trip alone: an error says that something does not work, not that somebody stopped it. A disk that is
    /// full is waited out, so that its store is not asked.
    pub async fn round_trip(&self, within: Duration) -> Result<SchedulerSnapshot, NotReady> {
        let asked = tokio::time::timeout(within, self.lane());
        let lane = asked
            .await
            .map_err(|_| NotReady::Slow("the queue", within))??;
        if lane.disk_full {
            return Ok(lane);
        }
        let store = async {
            self.ask(|refs, reply| refs.store.cast(StoreMsg::Ping { reply }))
                .await?;
            self.queue_status().await
        };
        tokio::time::timeout(within, store)
            .await
            .map_err(|_| NotReady::Slow("the store", within))??;
        Ok(lane)
    }
}
