//! Why jobs wait, and in which order they will go.

use std::collections::BTreeMap;

use onelane_actors::ports::{JobFilter, JobPage, StoreError};
use onelane_actors::protocol::QueueMsg;
use onelane_actors::runtime::StopReason;
use onelane_core::model::{Job, JobId, JobStatus, WaitReason, Waiting, limits};

use super::Orchestrator;
use crate::error::Error;

impl Orchestrator {
    /// Why jobs are not running now, of each that waits.
    pub async fn wait_reasons<'j>(
        &self,
        jobs: impl IntoIterator<Item = &'j Job>,
    ) -> BTreeMap<JobId, WaitReason> {
        let waiting: Vec<Waiting> = jobs.into_iter().filter_map(Waiting::of).collect();
        if waiting.is_empty() {
            return BTreeMap::new();
        }
        let asked = self
            .ask(|refs, reply| {
                let jobs = waiting.clone();
                refs.queue.cast(QueueMsg::WaitReasons { jobs, reply })
            })
            .await;
        let ids = waiting.iter().map(|job| job.id);
        match asked {
            Ok(reasons) => ids.zip(reasons).collect(),
            // A lane that has stopped still tells what it knows of a job.
            Err(_) => ids
                .zip(waiting.iter().map(|job| self.without_lane(job)))
                .collect(),
        }
    }

    fn without_lane(&self, job: &Waiting) -> WaitReason {
        let runtime = self.inner.runtime.borrow();
        match (job.offline(), &runtime.stopped) {
            (WaitReason::Offline, Some(StopReason::Store(StoreError::Full { .. }))) => {
                WaitReason::DiskFull
            }
            (reason, _) => reason,
        }
    }

    /// The first of the waiting jobs in the order in which they will go, with those alone that the filter
    /// leaves. It is one page: the order changes with every job that comes.
    pub async fn jobs_in_service_order(
        &self,
        filter: JobFilter,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        let ids = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::ServiceOrder { limit, reply }))
            .await?;
        let page = self.read(move |store| {
            let mut page = JobPage::default();
            let mut bytes = 0;
            for id in ids {
                let Some(record) = store.job(id)? else {
                    continue;
                };
                // One that was sent meanwhile waits no more.
                let job = &record.job;
                let is_listed = job.status == JobStatus::Pending
                    && filter.matches(job.status, &job.user_id, &job.model)
                    && filter.more.matches(job);
                if !is_listed {
                    continue;
                }
                bytes += record.request.as_ref().map_or(0, |request| request.len());
                page.jobs.push(record);
                if bytes >= limits::PAGE_BODY_BYTES_MAX {
                    break;
                }
            }
            page.total = page.jobs.len() as u64;
            Ok(page)
        });
        Ok(self.page_as_told(page.await?))
    }
}
