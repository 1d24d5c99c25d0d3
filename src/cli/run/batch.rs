//! The batch that a run sends: which one it is, what else waits in the store, and which of its jobs have no line
//! any more.

use std::collections::HashSet;
use std::path::Path;

use onelane::error::Error;
use onelane::model::{Batch, JobFilter, JobId, JobStatus, MoreFilter, limits};
use onelane::orchestrator::{Orchestrator, Submission};
use sha2::{Digest as _, Sha256};

use super::identity::Mode;
use crate::cli::exit::{CliError, Exit};

/// The name of the batch of an input: the one that was asked for, or the file's canonical path. Simulated jobs
/// are a batch of their own.
pub(crate) fn name(input: &Path, asked: Option<&str>, mode: Mode) -> Result<String, CliError> {
    let name = match asked {
        Some(name)
            if name.trim().is_empty() || name.chars().count() > limits::BATCH_NAME_CHARS_MAX =>
        {
            return Err(CliError::usage(format!(
                "--batch: must have 1 to {} characters",
                limits::BATCH_NAME_CHARS_MAX
            )));
        }
        Some(name) => name.to_owned(),
        None => of_path(input)?,
    };
    Ok(match mode {
        Mode::Real => name,
        Mode::Simulated => format!("{name} (simulated)"),
    })
}

fn of_path(input: &Path) -> Result<String, CliError> {
    let is_file = std::fs::metadata(input).is_ok_and(|found| found.is_file());
    if input.as_os_str() == "-" || !is_file {
        let what = super::input::name(input);
        return Err(CliError::usage(format!(
            "{what} has no path that would tell which batch it is"
        ))
        .help("name it with --batch NAME: the same name continues what an earlier run began"));
    }
    let path = input
        .canonicalize()
        .map_err(|error| CliError::usage(format!("{}: {error}", input.display())))?;
    Ok(path.display().to_string())
}

/// What a line's job is found by: its user and its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct LineKey([u8; 16]);

impl LineKey {
    fn of(user: &str, key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((user.len() as u64).to_be_bytes());
        hash.update(user);
        hash.update(key);
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(*first)
    }
}

/// The lines of an input, as the jobs that they are.
#[derive(Debug, Default)]
pub(crate) struct LineKeys(HashSet<LineKey>);

impl LineKeys {
    /// Notes a line.
    pub(crate) fn note(&mut self, submission: &Submission) {
        if let Some(key) = &submission.idempotency_key {
            self.0.insert(LineKey::of(&submission.user_id, key));
        }
    }

    fn have(&self, user: &str, key: Option<&str>) -> bool {
        key.is_some_and(|key| self.0.contains(&LineKey::of(user, key)))
    }
}

/// The jobs of a batch whose lines are not in its input any more.
#[derive(Debug, Default)]
struct Gone {
    /// Those that wait.
    waiting: Vec<JobId>,
    /// How many there are in all, ended ones too.
    all: u64,
    /// How many jobs the batch has.
    of: u64,
}

impl Gone {
    async fn find(lane: &Orchestrator, batch: &Batch, lines: &LineKeys) -> Result<Self, Error> {
        let mut gone = Self::default();
        let mut cursor = None;
        loop {
            let (jobs, next) = lane.batch_jobs(batch.id, cursor).await?;
            for job in jobs {
                gone.of += 1;
                if lines.have(&job.user_id, job.idempotency_key.as_deref()) {
                    continue;
                }
                gone.all += 1;
                // An open call is paid for in any case: its job ends by itself.
                if job.status == JobStatus::Pending {
                    gone.waiting.push(job.id);
                }
            }
            match next {
                Some(_) => cursor = next,
                None => return Ok(gone),
            }
        }
    }

    /// More than half: the file may have been caught half written.
    const fn is_most(&self) -> bool {
        self.all.saturating_mul(2) > self.of
    }
}

/// Cancels the jobs whose lines are gone, and answers how many. Where more than half of the lines are, it needs
/// the user's word.
pub(crate) async fn cancel_gone(
    lane: &Orchestrator,
    batch: &Batch,
    lines: &LineKeys,
    allowed: bool,
) -> Result<u64, CliError> {
    if batch.unfinished() == 0 {
        return Ok(0);
    }
    let gone = Gone::find(lane, batch, lines).await?;
    if gone.waiting.is_empty() {
        return Ok(0);
    }
    if gone.is_most() && !allowed {
        let (all, of, waiting) = (gone.all, gone.of, gone.waiting.len());
        let problem = format!(
            "{all} of the {of} lines of {} are not in the input any more, and {waiting} of them still wait; \
             nothing was sent",
            batch.name
        );
        return Err(CliError::usage(problem).help(
            "if the input is whole, --drop-gone cancels the jobs of the lines that are gone; a line is another \
             one under another user or default model",
        ));
    }
    cancel(lane, &gone.waiting).await
}

async fn cancel(lane: &Orchestrator, jobs: &[JobId]) -> Result<u64, CliError> {
    let mut count = 0;
    for ids in jobs.chunks(limits::NAMED_JOBS_MAX) {
        let filter = JobFilter {
            more: MoreFilter {
                ids: Some(ids.to_vec()),
                ..MoreFilter::default()
            },
            ..JobFilter::default()
        };
        count += lane.cancel_all(filter, false).await?;
    }
    Ok(count)
}

/// What waits in the store beside the jobs of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rest {
    /// How many jobs.
    pub(crate) jobs: u64,
    /// How many of each batch, by its name.
    batches: Vec<(String, u64)>,
}

impl Rest {
    /// What waits in a store beside this batch.
    pub(crate) async fn of(lane: &Orchestrator, mine: &Batch) -> Result<Self, Error> {
        let counts = lane.queue_status().await?;
        let all = counts.pending + counts.processing;
        let mut rest = Self {
            jobs: all.saturating_sub(mine.unfinished()),
            batches: Vec::new(),
        };
        let mut after = None;
        while rest.jobs > 0 {
            let page = lane.batches(after).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let others = page.into_iter().filter(|batch| batch.id != mine.id);
            rest.batches.extend(
                others
                    .filter(|batch| batch.unfinished() > 0)
                    .map(|batch| (batch.name.clone(), batch.unfinished())),
            );
        }
        Ok(rest)
    }

    /// Whether there is nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// How many jobs of which batch.
    pub(crate) fn words(&self) -> String {
        const NAMED_MAX: usize = 5;
        let of_batches: u64 = self.batches.iter().map(|(_, jobs)| jobs).sum();
        let named = self.batches.iter().take(NAMED_MAX);
        let mut parts: Vec<String> = named
            .map(|(name, jobs)| format!("{jobs} of {name}"))
            .collect();
        match self.batches.len().saturating_sub(NAMED_MAX) {
            0 => {}
            more => parts.push(format!("some of {more} more batches")),
        }
        match self.jobs.saturating_sub(of_batches) {
            0 => {}
            loose => parts.push(format!("{loose} of no batch")),
        }
        let jobs = if self.jobs == 1 { "job" } else { "jobs" };
        format!(
            "{} other {jobs} in the store ({})",
            self.jobs,
            parts.join(", ")
        )
    }
}

/// Cancels everything that waits in the store beside this batch, and answers how many jobs.
pub(crate) async fn drop_rest(lane: &Orchestrator, mine: &Batch) -> Result<u64, CliError> {
    let mut others = Vec::new();
    for status in [JobStatus::Pending, JobStatus::Processing] {
        let mut cursor = None;
        loop {
            let filter = JobFilter {
                status: Some(status),
                ..JobFilter::default()
            };
            let page = lane.jobs(filter, cursor, limits::PAGE_ROWS_MAX).await?;
            let jobs = page.jobs.into_iter().map(|record| record.job);
            others.extend(
                jobs.filter(|job| job.batch_id != Some(mine.id))
                    .map(|job| job.id),
            );
            match page.cursor {
                Some(_) => cursor = page.cursor,
                None => break,
            }
        }
    }
    cancel(lane, &others).await
}

/// Refuses to send anything while an operator's order stops the lane, unless the user lifts it.
pub(crate) fn stopped_by_order(was: &str) -> CliError {
    CliError::new(Exit::Held, was).help(
        "nothing was sent; --resume lifts it, as POST /api/admin/glm/resume to a running `onelane serve` does",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_batch_of_its_canonical_path_and_a_pipe_needs_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "").unwrap();
        let of = |path: &Path, asked| name(path, asked, Mode::Real);
        let plain = of(&path, None).unwrap();
        assert_eq!(of(&dir.path().join("./a.jsonl"), None).unwrap(), plain);
        assert_eq!(of(&path, Some("nightly")).unwrap(), "nightly");
        assert_eq!(of(Path::new("-"), Some("nightly")).unwrap(), "nightly");
        let refused = of(Path::new("-"), None).unwrap_err();
        assert!(
            refused.help.unwrap().contains("--batch"),
            "{}",
            refused.message
        );
        assert!(of(&path, Some(" ")).is_err());
        let simulated = name(&path, None, Mode::Simulated).unwrap();
        assert_ne!(simulated, plain, "fake answers are another batch's");
    }

    #[test]
    fn what_else_waits_is_told_by_batch() {
        let rest = Rest {
            jobs: 7,
            batches: vec![("/a/A.jsonl".to_owned(), 5)],
        };
        assert_eq!(
            rest.words(),
            "7 other jobs in the store (5 of /a/A.jsonl, 2 of no batch)"
        );
    }

    #[test]
    fn more_than_half_is_most() {
        let gone = |all, of| Gone {
            waiting: Vec::new(),
            all,
            of,
        };
        assert!(!gone(5, 10).is_most());
        assert!(gone(6, 10).is_most());
        assert!(!gone(0, 0).is_most());
    }
}
