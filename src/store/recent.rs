//! The jobs that were written last, read already: what starts is soon settled, and what is submitted is soon started.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Job, JobId};

/// How many are kept: the calls of some commits.
const KEPT: usize = 32;

/// Jobs with the rows that they were written as. A job is taken for that of a row only where the row is the very same
/// one in memory, so that nothing has to be forgotten here: not with a transaction that failed, nor with a change.
#[derive(Default)]
pub(super) struct RecentJobs(Mutex<VecDeque<Recent>>);

struct Recent {
    id: JobId,
    row: Arc<[u8]>,
    job: Arc<Job>,
}

impl RecentJobs {
    /// Whether there is room for so many that are written together: of more the first would push out the last.
    pub(super) const fn has_room(jobs: usize) -> bool {
        jobs <= KEPT
    }

    /// Keeps a job with its row.
    pub(super) fn keep(&self, row: &Arc<[u8]>, job: Arc<Job>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|recent| recent.id != job.id);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Recent {
            id: job.id,
            row: Arc::clone(row),
            job,
        });
    }

    /// The job of a row, if it is known.
    pub(super) fn of(&self, id: JobId, row: &Arc<[u8]>) -> Option<Arc<Job>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = kept.iter().rev().find(|recent| recent.id == id)?;
        Arc::ptr_eq(&recent.row, row).then(|| Arc::clone(&recent.job))
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::sample;

    use super::*;

    #[test]
    fn a_job_is_that_of_a_row_only_if_it_is_the_very_same_row() {
        let recent = RecentJobs::default();
        let job = Arc::new(sample::new_job(1).job);
        let row: Arc<[u8]> = Arc::from(b"row".as_slice());
        recent.keep(&row, Arc::clone(&job));
        assert!(
            recent
                .of(job.id, &row)
                .is_some_and(|known| Arc::ptr_eq(&known, &job))
        );
        // Of the same bytes, but written by another transaction.
        assert!(recent.of(job.id, &Arc::from(b"row".as_slice())).is_none());
        assert!(recent.of(sample::new_job(2).job.id, &row).is_none());
        let newer: Arc<[u8]> = Arc::from(b"newer".as_slice());
        recent.keep(&newer, Arc::clone(&job));
        assert!(recent.of(job.id, &row).is_none());
        for n in 0..KEPT as u64 {
            recent.keep(&row, Arc::new(sample::new_job(2 + n).job));
        }
        assert!(recent.of(job.id, &newer).is_none(), "no more than so many");
        assert!(recent.of(sample::new_job(2).job.id, &row).is_some());
    }
}
