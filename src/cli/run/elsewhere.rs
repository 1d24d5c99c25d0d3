//! Lines of the input that are jobs of other batches: of a file that was moved or renamed, of one of which the input
//! is a copy, of a batch of another name. No answer is paid for twice without the user's word.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use onelane::model::{Batch, BatchId, Job, JobId, JobStatus};

use super::batch::{Gone, LineKey, LineKeys, path_of};
use super::identity::{LineId, Mode, Source};
use super::ready::Ready;
use super::way::{Trouble, Way};
use crate::cli::exit::CliError;
use onelane::words::counted;

/// What the user said about lines that other batches have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing: ask.
    None,
    /// Send them again.
    Again,
    /// Take their jobs over.
    Adopt,
}

/// Why the jobs of another batch may be taken over without asking, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Its file is not there any more: it was moved or renamed.
    Moved,
    /// A file of the same name elsewhere: its lines have the same keys.
    SameName,
    /// It is another's.
    Other,
}

/// A job of another batch for a line of the input that is to be sent.
#[derive(Debug)]
struct Twin {
    job: JobId,
    /// The key that it is to have here.
    key: String,
    source: Source,
    status: JobStatus,
    claim: Claim,
    /// Which of the batches.
    batch: usize,
}

impl Twin {
    /// Whether sending its line again costs what was paid or will be paid for it.
    const fn is_bought(&self) -> bool {
        matches!(
            self.status,
            JobStatus::Completed | JobStatus::Processing | JobStatus::Pending
        )
    }
}

/// What another batch has, while it is looked at.
struct Part {
    /// Which of the batches.
    at: usize,
    /// Its file is gone from its path.
    moved: bool,
    /// Its jobs whose lines are not in the input.
    gone: Gone,
    /// Whether some line of the input is one of its lines.
    is_of_here: bool,
    /// Whether its file had the name of this one.
    has_our_name: bool,
}

/// The lines of the input that other batches have, and the jobs of lines that left it.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    batches: Vec<Batch>,
    twins: HashMap<LineKey, Twin>,
    /// Jobs of the own batch, and of those whose file was moved here, whose lines are not in the input.
    pub(crate) gone: Gone,
    /// Batches whose file was moved here and that some line of the input comes from.
    moved: Vec<BatchId>,
}

impl Elsewhere {
    /// Looks through the batches of a store.
    pub(crate) async fn find(
        lane: &Way,
        mine: Option<&Batch>,
        source: Source,
        lines: &LineKeys,
        word: Word,
    ) -> Result<Self, Trouble> {
        let mut found = Self::default();
        let mut own = HashSet::new();
        if let Some(mine) = mine {
            found.gone.of_batch(&mine.name);
            each_job(lane, Some(mine.id), |job| match key_of(&job, source.mode) {
                Some((line, _)) if lines.have(&line) => {
                    own.insert(line);
                    found.gone.is_here();
                }
                _ => found.gone.is_gone(&job),
            })
            .await?;
        }
        let nothing_to_send = lines.unsent().all(|line| own.contains(line));
        let mut parts: HashMap<BatchId, Part> = HashMap::new();
        for batch in others(lane, mine.map(|mine| mine.id)).await? {
            let moved = is_gone(&batch.name);
            // Most runs continue what they began: what others have does not matter to them.
            if nothing_to_send && !(moved && batch.unfinished() > 0) {
                continue;
            }
            let mut gone = Gone::default();
            gone.of_batch(&batch.name);
            let part = Part {
                at: found.batches.len(),
                moved,
                gone,
                is_of_here: false,
                has_our_name: false,
            };
            parts.insert(batch.id, part);
            found.batches.push(batch);
        }
        if parts.is_empty() {
            return Ok(found);
        }
        let (batches, twins) = (&found.batches, &mut found.twins);
        // One look at all of them: a store may have many batches.
        each_job(lane, None, |job| {
            let part = job.batch_id.and_then(|id| parts.get_mut(&id));
            let Some((part, (line, id))) = part.zip(key_of(&job, source.mode)) else {
                return;
            };
            if !lines.have(&line) {
                part.gone.is_gone(&job);
                return;
            }
            part.gone.is_here();
            part.is_of_here = true;
            part.has_our_name |= id.source == source;
            if !lines.is_unsent(&line) || own.contains(&line) {
                return;
            }
            let is_file = || {
                batches
                    .get(part.at)
                    .is_some_and(|b| is_file(&b.name, id.source))
            };
            let claim = match (part.moved && is_file(), id.source == source) {
                (true, _) => Claim::Moved,
                (false, true) => Claim::SameName,
                (false, false) => Claim::Other,
            };
            let twin = Twin {
                job: job.id,
                key: id.rekeyed(source, job.idempotency_key.as_deref().unwrap_or_default()),
                source: id.source,
                status: job.status,
                claim,
                batch: part.at,
            };
            let better = twins.get(&line).is_none_or(|known| {
                known.status != JobStatus::Completed && job.status == JobStatus::Completed
            });
            if better {
                twins.insert(line, twin);
            }
        })
        .await?;
        for (id, part) in parts {
            // With the user's word that a file of another name is another input, it is left alone.
            let ours = part.has_our_name || word != Word::Again;
            if part.moved && part.is_of_here && ours {
                found.gone.add(part.gone);
                found.moved.push(id);
            }
        }
        Ok(found)
    }

    /// Refuses to pay for lines again that another batch has, or the results file under another input's name, unless
    /// the user gave the word for it.
    pub(crate) fn ask(
        &self,
        word: Word,
        mode: Mode,
        lines: &LineKeys,
        input: &str,
    ) -> Result<(), CliError> {
        if word != Word::None || mode == Mode::Simulated {
            return Ok(());
        }
        let mut counts: Vec<(u64, u64)> = vec![(0, 0); self.batches.len()];
        for twin in self.twins.values() {
            let asked = twin.claim == Claim::Other && twin.is_bought();
            if let Some((answered, waiting)) = counts.get_mut(twin.batch).filter(|_| asked) {
                match twin.status {
                    JobStatus::Completed => *answered += 1,
                    _ => *waiting += 1,
                }
            }
        }
        let of_batches = self.batches.iter().zip(&counts);
        let of_batches = of_batches.filter(|(_, (answered, waiting))| answered + waiting > 0);
        let mut told: Vec<String> = of_batches
            .map(|(batch, (answered, waiting))| {
                let counts = [(*answered, "answered"), (*waiting, "not answered yet")];
                let counts = counts.iter().filter(|(count, _)| *count > 0);
                let counts: Vec<String> = counts.map(|(n, what)| format!("{n} {what}")).collect();
                format!("{} in batch {}", counts.join(" and "), batch.name)
            })
            .collect();
        let written = lines.written_elsewhere();
        let written = written
            .filter(|line| !self.twins.contains_key(line))
            .count() as u64;
        if written > 0 {
            told.push(format!(
                "{written} answered in the results file, under another input's name"
            ));
        }
        let all: u64 = counts.iter().map(|(a, w)| a + w).sum::<u64>() + written;
        if all == 0 {
            return Ok(());
        }
        Err(asked_before(
            input,
            all,
            &told.join(", "),
            "nothing was sent",
        ))
    }

    /// Takes over what may be taken: jobs of files that were moved here or of the same name, and with the user's word
    /// the others. Answers how many jobs of which batches.
    pub(crate) async fn adopt(
        &self,
        lane: &Way,
        mine: BatchId,
        word: Word,
    ) -> Result<Vec<String>, Trouble> {
        let mut told = Vec::new();
        for (at, batch) in self.batches.iter().enumerate() {
            let jobs = self.taken(word).filter(|twin| twin.batch == at);
            let jobs: Vec<_> = jobs.map(|twin| (twin.job, twin.key.clone())).collect();
            if jobs.is_empty() {
                continue;
            }
            let moved = lane.adopt(mine, jobs).await?;
            let jobs = counted(moved, "job", "jobs");
            told.push(format!(
                "{jobs} of {} taken over with what was answered",
                batch.name
            ));
        }
        Ok(told)
    }

    /// The inputs, by whose names the results file may have answers to the jobs that are taken over.
    pub(crate) fn sources(&self, word: Word) -> HashSet<Source> {
        self.taken(word).map(|twin| twin.source).collect()
    }

    fn taken(&self, word: Word) -> impl Iterator<Item = &Twin> {
        self.twins.values().filter(move |twin| match twin.claim {
            Claim::SameName => true,
            Claim::Moved => word != Word::Again,
            Claim::Other => word == Word::Adopt,
        })
    }

    /// Batches of which nothing more comes from anywhere: their file is this one now.
    pub(crate) fn moved(&self) -> &[BatchId] {
        &self.moved
    }
}

/// Lines that other batches have, for an input that is sent as it comes.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// What the input is called.
    input: String,
    lines: HashMap<LineKey, usize>,
    batches: Vec<String>,
}

impl Others {
    /// What the other batches of a store have answered or will.
    pub(crate) async fn find(
        lane: &Way,
        mine: BatchId,
        source: Source,
        input: String,
    ) -> Result<Self, Trouble> {
        let mut known = Self {
            input,
            ..Self::default()
        };
        let batches = others(lane, Some(mine)).await?;
        let places = batches.iter().enumerate();
        let places: HashMap<BatchId, usize> = places.map(|(at, batch)| (batch.id, at)).collect();
        if places.is_empty() {
            return Ok(known);
        }
        each_job(lane, None, |job| {
            let at = job.batch_id.and_then(|id| places.get(&id));
            let bought = !matches!(job.status, JobStatus::Failed | JobStatus::Cancelled);
            if let Some((at, (line, id))) = at.zip(key_of(&job, source.mode))
                && bought
                && id.source != source
            {
                known.lines.insert(line, *at);
            }
        })
        .await?;
        known.batches = batches.into_iter().map(|batch| batch.name).collect();
        // Those that are here already were sent with the user's word.
        each_job(lane, Some(mine), |job| {
            if let Some((line, _)) = key_of(&job, source.mode) {
                known.lines.remove(&line);
            }
        })
        .await?;
        Ok(known)
    }

    /// Refuses lines that another batch has.
    pub(crate) fn refuse(&self, ready: &[Ready]) -> Result<(), CliError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let keys = ready
            .iter()
            .filter_map(|r| LineKey::of_submission(&r.submission));
        let at: Vec<usize> = keys
            .filter_map(|key| self.lines.get(&key).copied())
            .collect();
        let Some(name) = at.first().and_then(|at| self.batches.get(*at)) else {
            return Ok(());
        };
        let told = format!("the first in batch {name}");
        Err(asked_before(
            &self.input,
            at.len() as u64,
            &told,
            "the lines before are on their way",
        ))
    }
}

fn asked_before(input: &str, lines: u64, told: &str, sent: &str) -> CliError {
    let have = counted(lines, "line is a line", "lines are lines");
    CliError::usage(format!(
        "{input}: {have} of another batch too ({told}); {sent}"
    ))
    .help(
        "--adopt takes their jobs and answers over, which costs nothing; --again sends them once more, which GLM bills \
         once more",
    )
}

/// The line that a job is of, if a run in this mode made it.
fn key_of(job: &Job, mode: Mode) -> Option<(LineKey, LineId)> {
    let (id, model) = LineId::of_key(job.idempotency_key.as_deref()?)?;
    (id.source.mode == mode).then(|| (LineKey::of(&job.user_id, id, model), id))
}

/// Whether the batch is that of a file, whose lines have this source.
fn is_file(name: &str, source: Source) -> bool {
    Source::of(Path::new(path_of(name)), source.mode) == source
}

/// Whether a batch is that of a path at which no file is any more.
fn is_gone(name: &str) -> bool {
    let path = Path::new(path_of(name));
    path.is_absolute() && matches!(path.try_exists(), Ok(false))
}

async fn others(lane: &Way, mine: Option<BatchId>) -> Result<Vec<Batch>, Trouble> {
    let mut batches = lane.batches().await?;
    batches.retain(|batch| Some(batch.id) != mine);
    Ok(batches)
}

async fn each_job(
    lane: &Way,
    batch: Option<BatchId>,
    mut each: impl FnMut(Job),
) -> Result<(), Trouble> {
    let mut cursor = None;
    loop {
        let (jobs, next) = lane.batch_jobs(batch, cursor).await?;
        jobs.into_iter().for_each(&mut each);
        match next {
            Some(_) => cursor = next,
            None => return Ok(()),
        }
    }
}
