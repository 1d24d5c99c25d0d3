//! Jobs by what somebody remembers of them: a content id, or words of the prompt. Bodies are looked at newest first, so
//! many at a time; the page says how far that got, and where to go on.

use onelane_actors::ports::{JobFilter, JobPage, JobRecord};
use onelane_core::model::Request;

use crate::error::Error;
use crate::orchestrator::Orchestrator;

/// Jobs whose texts are looked at for one page.
const LOOKED_AT_MAX: usize = 2_000;
/// Those that are read together.
const READ_TOGETHER: usize = 200;

/// What a search found.
pub(super) struct Found {
    pub(super) page: JobPage,
    /// Jobs that were looked at.
    pub(super) looked_at: usize,
}

/// Jobs that the filter leaves whose content id is `words`, or whose prompt has them.
pub(super) async fn find(
    lane: &Orchestrator,
    filter: JobFilter,
    words: &str,
    cursor: Option<u64>,
    rows: usize,
) -> Result<Found, Error> {
    if filter.more.content_id.is_none() {
        let mut about = filter.clone();
        about.more.content_id = Some(words.to_owned());
        let page = lane.jobs(about, cursor, rows).await?;
        if !page.jobs.is_empty() {
            let looked_at = page.jobs.len();
            return Ok(Found { page, looked_at });
        }
    }
    let mut found = Found {
        page: JobPage {
            cursor,
            ..JobPage::default()
        },
        looked_at: 0,
    };
    loop {
        let page = lane
            .jobs(filter.clone(), found.page.cursor, READ_TOGETHER)
            .await?;
        found.looked_at += page.jobs.len();
        let (words, cursor) = (words.to_lowercase(), page.cursor);
        let keep = move || -> Vec<JobRecord> {
            let has = |record: &JobRecord| {
                let text = record.request.as_deref().and_then(Request::text);
                text.is_some_and(|text| text.to_lowercase().contains(&words))
            };
            page.jobs.into_iter().filter(has).collect()
        };
        let stopped = |_| Error::Stopped("the runtime is ending".to_owned());
        let kept = tokio::task::spawn_blocking(keep).await.map_err(stopped)?;
        found.page.jobs.extend(kept);
        found.page.cursor = cursor;
        // The cursor is that of the jobs that were looked at: none is left out.
        let is_full = found.page.jobs.len() >= rows || found.looked_at >= LOOKED_AT_MAX;
        if cursor.is_none() || is_full {
            return Ok(found);
        }
    }
}
