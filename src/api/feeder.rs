//! Makes jobs of the lines of files: a task a batch. What a task has done is on disk, so that the next start goes on
//! where the last one ended: a line has a key of its own, and is one job however often it is handed in.

use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::Clock;
use onelane_core::model::{BatchId, BatchInput, BatchSettings, InputStage, LineFault, limits};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::limits::{BATCH_CHUNK_BYTES, BATCH_CHUNK_LINES, BATCHES_READ_MAX};
use super::lines::{Lines, look_through};
use super::rates::Rates;
use super::terms::Terms;
use crate::error::Error;
use crate::model::BudgetRefusal;
use crate::orchestrator::files::{BatchOfFile, FilePlace, FileReader};
use crate::orchestrator::{Orchestrator, Submission, previous};

/// How long to wait before lines that were not let in are handed in again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often files and batches that are old enough are looked for.
const CLEAN_EVERY: Duration = Duration::from_millis(limits::PRUNE_EVERY_MS);
const DAY_MS: i64 = limits::DAY_MS.cast_signed();

/// Makes jobs of lines. Dropped, it stops.
pub(super) struct Feeder {
    work: Work,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Work {
    lane: Orchestrator,
    clock: Arc<dyn Clock>,
    settings: BatchSettings,
    /// How many jobs client keys hand in within a minute.
    rates: Arc<Rates>,
    /// Batches whose lines are looked through or handed in at once.
    readers: Arc<Semaphore>,
}

/// What becomes of a batch for now.
enum Step {
    /// Something more is to be done.
    On,
    /// Nothing more is.
    Over,
    /// It was not let in.
    Later,
}

impl Feeder {
    pub(super) fn new(
        lane: Orchestrator,
        clock: Arc<dyn Clock>,
        settings: BatchSettings,
        rates: Arc<Rates>,
    ) -> Self {
        let work = Work {
            lane,
            clock,
            settings,
            rates,
            readers: Arc::new(Semaphore::new(BATCHES_READ_MAX)),
        };
        Self {
            work,
            tasks: std::sync::Mutex::default(),
        }
    }

    /// Counts what client keys handed in within the last minute, before this process began.
    pub(super) async fn remember(&self) {
        let Work {
            lane, clock, rates, ..
        } = &self.work;
        if let Err(error) = rates.restore(lane, clock.now()).await {
            tracing::debug!(%error, "requests of the last minute are counted anew");
        }
    }

    /// Goes on with what the last process left, and clears away what is old.
    pub(super) fn resume(self: &Arc<Self>) {
        let (weak, work) = (Arc::downgrade(self), self.work.clone());
        self.spawn(async move {
            for id in work.left().await {
                if let Some(feeder) = weak.upgrade() {
                    feeder.feed(id);
                }
            }
            loop {
                if let Err(error) = work.clean().await {
                    tracing::debug!(%error, "files could not be cleared away");
                }
                tokio::time::sleep(CLEAN_EVERY).await;
            }
        });
    }

    /// Makes jobs of a batch's lines, or ends them where it was given up.
    pub(super) fn feed(&self, id: BatchId) {
        let work = self.work.clone();
        self.spawn(async move { work.feed(id).await });
    }

    /// Stops, and lets go of the lane. What is left goes on with the next start.
    pub(super) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Work {
    /// Batches of which something is still to be done.
    async fn left(&self) -> Vec<BatchId> {
        let inputs = loop {
            let torn = self.lane.remove_torn_files().await;
            match (torn, self.lane.all_inputs().await) {
                (Ok(()), Ok(inputs)) => break inputs,
                (Err(error), _) | (_, Err(error)) => {
                    if matches!(error, Error::Stopped(_)) {
                        return Vec::new();
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let is_left = |input: &&BatchInput| input.is_open() || input.cancelled_at.is_some();
        inputs
            .iter()
            .filter(is_left)
            .map(|input| input.id)
            .collect()
    }

    async fn feed(&self, id: BatchId) {
        let mut place = None;
        loop {
            match self.step(id, &mut place).await {
                Ok(Step::On) => {}
                Ok(Step::Over) | Err(Error::Stopped(_)) => return,
                Ok(Step::Later) => tokio::time::sleep(AGAIN).await,
                Err(error) => {
                    tracing::warn!(batch_id = %id, %error, "lines wait to become jobs");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn step(&self, id: BatchId, place: &mut Option<Place>) -> Result<Step, Error> {
        let Some(BatchOfFile { input, batch }) = self.lane.batch_of_file(id).await? else {
            return Ok(Step::Over);
        };
        let now = self.clock.now();
        let given_up = input.cancelled_at.is_some()
            || batch
                .as_ref()
                .is_none_or(|batch| batch.cancelled_at.is_some());
        if input.is_open() && (given_up || now >= input.deadline) {
            self.lane
                .put_input(input.settled(InputStage::Stopped, now))
                .await?;
            return Ok(Step::On);
        }
        let below = self.settings.jobs_below;
        let terms = match Terms::of(&input, self.lane.settings(), below, now) {
            Err(ended) if input.is_open() => {
                self.lane.put_input(input.given_up(ended, now)).await?;
                return Ok(Step::On);
            }
            terms => terms.ok(),
        };
        match (input.stage, terms) {
            (InputStage::Validating, Some(terms)) => self.validate(input, terms).await,
            (InputStage::Inserting, Some(terms)) => self.insert(input, terms, place).await,
            (InputStage::Failed, _) => Ok(Step::Over),
            _ => {
                if given_up && batch.is_some_and(|batch| batch.unfinished() > 0) {
                    self.lane.cancel_batch(id).await?;
                }
                Ok(Step::Over)
            }
        }
    }

    async fn validate(&self, input: BatchInput, terms: Terms) -> Result<Step, Error> {
        let _right = self.readers.acquire().await;
        let (file, now) = (input.file, self.clock.now());
        let lines_max = self.settings.lines_max;
        let looking = self.lane.read_file(file, move |reader| {
            let store = reader.store();
            let goes_on = |job: &Submission| previous::check(store, job);
            let looked = look_through(reader, &input, lines_max, &terms, now, goes_on);
            (looked, input)
        });
        let (looked, input) = looking.await?;
        let looked = looked.map_err(unreadable)?;
        let input = BatchInput {
            lines: looked.lines,
            faults: looked.faults,
            ..input
        };
        let next = if input.faults.is_empty() {
            BatchInput {
                stage: InputStage::Inserting,
                begun_at: Some(self.clock.now()),
                ..input
            }
            .next()
        } else {
            input.settled(InputStage::Failed, self.clock.now())
        };
        self.lane.put_input(next).await?;
        Ok(Step::On)
    }

    /// Hands some lines in, those that are not jobs yet.
    async fn insert(
        &self,
        input: BatchInput,
        terms: Terms,
        place: &mut Option<Place>,
    ) -> Result<Step, Error> {
        let _right = self.readers.acquire().await;
        let left = input.lines.saturating_sub(input.inserted);
        let most = usize::try_from(left).map_or(BATCH_CHUNK_LINES, |n| n.min(BATCH_CHUNK_LINES));
        let mut room = self.rates.take(terms.key(), most.max(1), self.clock.now());
        if room.jobs() == 0 {
            return Ok(Step::Later);
        }
        let from = place.filter(|place| place.lines == input.inserted);
        let lines = room.jobs();
        let reading = self.lane.read_file(input.file, move |reader| {
            let chunk = Chunk::read(reader, &input, from, lines, &terms);
            (chunk, input)
        });
        let (chunk, mut input) = reading.await?;
        let chunk = chunk.map_err(unreadable)?;
        let is_over = chunk.jobs.is_empty();
        let (mut taken, mut refused) = (0, None);
        let answers = self.lane.submit_many(chunk.jobs).await?;
        let are_new = answers.iter().flatten().filter(|job| job.created);
        room.used(are_new.count());
        for answer in answers {
            match answer {
                // The same line, of a time when another model was the default one.
                Ok(_) | Err(Error::IdempotencyConflict(_)) => taken += 1,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        *place = refused.is_none().then_some(chunk.end);
        input.inserted += taken as u64;
        let now = self.clock.now();
        let next = match (&refused, chunk.beyond) {
            // Its key may less by now than when the lines were looked through.
            (None, Some(beyond)) => input.given_up(beyond, now),
            (None, None) if input.inserted >= input.lines => {
                input.settled(InputStage::Inserted, now)
            }
            // Nothing of the file is left.
            (None, None) if is_over => input.settled(InputStage::Stopped, now),
            (None, None) => input.next(),
            (Some(Error::BatchClosed(_) | Error::NoSuchBatch(_)), _) => {
                input.settled(InputStage::Stopped, now)
            }
            (Some(error), _) if will_never_be(error) => {
                let fault = LineFault {
                    line: None,
                    code: "refused".to_owned(),
                    message: format!("line {} that is not blank: {error}", input.inserted + 1),
                    param: None,
                };
                input.given_up(fault, now)
            }
            (Some(_), _) if taken == 0 => return Ok(Step::Later),
            (Some(_), _) => input.next(),
        };
        self.lane.put_input(next).await?;
        Ok(Step::On)
    }

    /// Removes what is older than retention keeps jobs: files that no batch is being made of, and batches that never
    /// got a job.
    async fn clean(&self) -> Result<(), Error> {
        let days = self.lane.settings().retention.jobs_days;
        if days == 0 {
            return Ok(());
        }
        let before = self.clock.now().as_millis() - i64::from(days) * DAY_MS;
        for input in self.lane.all_inputs().await? {
            let is_old = input.settled_at.is_some_and(|at| at.as_millis() < before);
            if is_old && self.lane.batch(input.id).await?.is_none() {
                self.lane.forget_input(input.id).await?;
            }
        }
        for file in self.lane.all_files().await? {
            if file.is_whole() && file.created_at.as_millis() < before {
                match self.lane.remove_file(file.id).await {
                    Ok(()) | Err(Error::FileInUse { .. } | Error::NoSuchFile(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Where a reader is: behind so many lines.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    lines: u64,
    number: u64,
    at: FilePlace,
}

/// Lines that are handed in together.
struct Chunk {
    jobs: Vec<Submission>,
    /// The line behind them is beyond the rights of its key.
    beyond: Option<LineFault>,
    end: Place,
}

impl Chunk {
    /// Reads the next lines that are not jobs yet.
    fn read(
        reader: FileReader<'_>,
        input: &BatchInput,
        from: Option<Place>,
        most: usize,
        terms: &Terms,
    ) -> std::io::Result<Self> {
        let from = from.unwrap_or_default();
        let mut lines = Lines::new(reader.beginning_at(from.at), from.number);
        let mut end = from;
        while end.lines < input.inserted && lines.next()?.is_some() {
            end.lines += 1;
        }
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        let mut beyond = None;
        while jobs.len() < most && bytes < BATCH_CHUNK_BYTES {
            let Some(read) = lines.next_line(&input.endpoint)? else {
                break;
            };
            // They were looked through before.
            let line = read.map_err(|fault| std::io::Error::other(fault.message))?;
            match terms.grant(line.job(input, end.lines + 1)) {
                Ok(job) => {
                    end.lines += 1;
                    bytes += job.request.len();
                    jobs.push(job);
                }
                Err(error) => {
                    beyond = Some(lines.beyond(&error));
                    break;
                }
            }
        }
        end.number = lines.number;
        end.at = lines.reader().place();
        Ok(Self { jobs, beyond, end })
    }
}

/// Whether a line is refused whenever it is handed in.
fn will_never_be(error: &Error) -> bool {
    match error {
        Error::Invalid { .. } | Error::Unpriced(_) => true,
        Error::OverBudget(refusal) => matches!(**refusal, BudgetRefusal::TooLarge { .. }),
        _ => false,
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Invalid {
        field: "file".to_owned(),
        problem: error.to_string(),
    }
}
