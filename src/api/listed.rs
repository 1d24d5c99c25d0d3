//! Jobs as lists show them: with the beginnings of their bodies, and why those wait that do.

use std::collections::BTreeMap;

use onelane_actors::ports::{JobPage, JobRecord};
use onelane_core::model::{JobId, WaitReason};

use super::Api;
use crate::views::{Audience, Excerpt, JobView};

/// The jobs of a page, each with the reason for which it waits.
pub(super) struct Listed {
    jobs: Vec<JobRecord>,
    reasons: BTreeMap<JobId, WaitReason>,
    chars: usize,
    audience: Audience,
}

impl Listed {
    pub(super) async fn of(api: &Api, page: JobPage, audience: Audience) -> Self {
        let jobs = page.jobs.iter().map(|record| &record.job);
        Self {
            reasons: api.lane.wait_reasons(jobs).await,
            jobs: page.jobs,
            chars: api.preview_chars,
            audience,
        }
    }

    /// As they are shown; it takes a while where they are large.
    pub(super) fn views(mut self) -> Vec<JobView> {
        let view = |record: JobRecord| {
            let excerpt = Excerpt::of(&record, self.chars);
            let reason = self.reasons.remove(&record.job.id);
            JobView::preview(record.job, &excerpt, self.audience).with_wait(reason)
        };
        self.jobs.into_iter().map(view).collect()
    }
}
