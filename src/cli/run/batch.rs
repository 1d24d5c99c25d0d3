//! The batch that a run sends: which one it is, what else waits in the store, and which of its jobs have no line
//! any more.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use onelane::error::Error;
use onelane::model::{Batch, Job, JobFilter, JobId, JobStatus, limits};
use onelane::orchestrator::{Orchestrator, Submission};
use sha2::{Digest as _, Sha256};

use super::identity::{Digest, LineId, Mode};
use super::way::Way;
use crate::cli::exit::{CliError, Exit};
use onelane::words::{counted, verb};

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
        Mode::Simulated => format!("{name}{SIMULATED}"),
    })
}

/// What follows the name of a batch that the simulator answers.
const SIMULATED: &str = " (simulated)";

/// The path, or the name that was asked for, of which a batch has its name.
pub(crate) fn path_of(name: &str) -> &str {
    name.strip_suffix(SIMULATED).unwrap_or(name)
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

/// A line of whichever input: whose it is, its content and the model that it falls to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LineKey([u8; 16]);

impl LineKey {
    /// The line of a job of this user, with this line's id and this model in its key.
    pub(crate) fn of(user: &str, id: LineId, model: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((user.len() as u64).to_be_bytes());
        hash.update(user);
        hash.update(id.line.bytes());
        hash.update(model);
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(*first)
    }

    /// The line that is submitted so.
    pub(crate) fn of_submission(submission: &Submission) -> Option<Self> {
        let (id, model) = LineId::of_key(submission.idempotency_key.as_deref()?)?;
        Some(Self::of(&submission.user_id, id, model))
    }
}

/// What is known of a line before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// The results file has its answer.
    Done,
    /// The results file has an answer to it under another input's name.
    WrittenElsewhere,
    /// Nothing.
    Unsent,
}

/// The lines of an input, as the jobs that they are.
#[derive(Debug, Default)]
pub(crate) struct LineKeys(HashMap<LineKey, (Known, Digest)>);

impl LineKeys {
    /// Notes a line.
    pub(crate) fn note(&mut self, submission: &Submission, known: Known, line: Digest) {
        if let Some(key) = LineKey::of_submission(submission) {
            self.0.insert(key, (known, line));
        }
    }

    /// The lines as the results know them.
    pub(crate) fn digests(&self) -> HashSet<Digest> {
        self.0.values().map(|(_, line)| *line).collect()
    }

    /// Whether the input has this line.
    pub(crate) fn have(&self, line: &LineKey) -> bool {
        self.0.contains_key(line)
    }

    /// Whether the input has this line, and it is to be sent.
    pub(crate) fn is_unsent(&self, line: &LineKey) -> bool {
        self.0
            .get(line)
            .is_some_and(|(known, _)| *known != Known::Done)
    }

    /// The lines that are to be sent.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = &LineKey> {
        self.0.keys().filter(|line| self.is_unsent(line))
    }

    /// The lines of which the results file has an answer under another input's name.
    pub(crate) fn written_elsewhere(&self) -> impl Iterator<Item = &LineKey> {
        let lines = self.0.iter();
        lines
            .filter(|(_, (known, _))| *known == Known::WrittenElsewhere)
            .map(|(line, _)| line)
    }
}

/// The jobs of batches whose lines are not in the input any more.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Those that wait.
    waiting: Vec<JobId>,
    /// How many there are in all, ended ones too.
    all: u64,
    /// How many jobs the batches have.
    of: u64,
    /// The batches' names.
    names: Vec<String>,
}

impl Gone {
    /// Counts a batch.
    pub(crate) fn of_batch(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    /// Counts a job whose line is there.
    pub(crate) const fn is_here(&mut self) {
        self.of += 1;
    }

    /// Counts a job whose line is not.
    pub(crate) fn is_gone(&mut self, job: &Job) {
        self.of += 1;
        self.all += 1;
        // An open call is paid for in any case: its job ends by itself.
        if job.status == JobStatus::Pending {
            self.waiting.push(job.id);
        }
    }

    /// Counts those of another batch too.
    pub(crate) fn add(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.all += other.all;
        self.of += other.of;
        self.names.extend(other.names);
    }

    /// More than half: the file may have been caught half written.
    const fn is_most(&self) -> bool {
        self.all.saturating_mul(2) > self.of
    }

    /// Where more than half of the lines are gone, the user's word is needed.
    pub(crate) fn ask(&self, allowed: bool) -> Result<(), CliError> {
        if self.waiting.is_empty() || !self.is_most() || allowed {
            return Ok(());
        }
        let (gone, of) = (self.all, self.of);
        let problem = format!(
            "{gone} of the {} of {} {} not in the input any more, and {} of them still {}; nothing was sent",
            counted(of, "line", "lines"),
            self.names.join(" and "),
            verb(gone, "is", "are"),
            self.waiting.len(),
            verb(self.waiting.len() as u64, "waits", "wait"),
        );
        Err(CliError::usage(problem).help(
            "if the input is whole, --drop-gone cancels the jobs of the lines that are gone; a line is another \
             one under another user or default model",
        ))
    }

    /// Cancels the jobs that wait, and answers how many.
    pub(crate) async fn cancel(&self, lane: &Way) -> Result<u64, CliError> {
        Ok(lane.cancel(&self.waiting).await?)
    }
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
            more => {
                let batches = counted(more as u64, "more batch", "more batches");
                parts.push(format!("some of {batches}"));
            }
        }
        match self.jobs.saturating_sub(of_batches) {
            0 => {}
            loose => parts.push(format!("{loose} of no batch")),
        }
        let jobs = counted(self.jobs, "other job", "other jobs");
        format!("{jobs} in the store ({})", parts.join(", "))
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
    Ok(Way::Here(lane.clone()).cancel(&others).await?)
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
            all,
            of,
            ..Gone::default()
        };
        assert!(!gone(5, 10).is_most());
        assert!(gone(6, 10).is_most());
        assert!(!gone(0, 0).is_most());
    }
}
