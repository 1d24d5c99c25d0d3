//! What a batch over HTTP is made of: the lines of an uploaded file, with the terms on which they were handed in. Says
//! how many of them are jobs, so that whoever makes jobs of them goes on where they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Batch, BatchId, BatchState, FileId, KeyId, PassedHeaders, Session, Timestamp, TraceContext,
};
use crate::section;

section! {
    /// Batches over HTTP and the files that they are made of.
    #[derive(Copy, Eq)]
    pub struct BatchSettings {
        /// Bytes of one file; a larger one is refused with 413.
        file_bytes_max: u64 = 100 * 1024 * 1024 => [within(1024..=1 << 40)];
        /// Bytes of all files together; what goes beyond is refused until some are deleted.
        files_total_bytes_max: u64 = 1024 * 1024 * 1024 => [within(1024..=1 << 50)];
        /// Bytes of the files of one client key together; what goes beyond is refused until the key deletes some.
        files_key_bytes_max: u64 = 256 * 1024 * 1024 => [within(1024..=1 << 50)];
        /// Lines of one file; a batch of more fails.
        lines_max: u64 = 50_000 => [within(1..=10_000_000)];
        /// How far below others their jobs stand: 100 gives them the priority -100, and other submissions have 0 unless
        /// they say otherwise.
        jobs_below: u32 = 100 => [within(0..=1_000_000)];
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// Its number in the file, from 1; `None`: the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Which kind of fault, in one word.
    pub code: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// The member that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// How far the lines are on their way to being jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputStage {
    /// They are looked through; none is a job yet.
    Validating,
    /// All are well, and they become jobs.
    Inserting,
    /// All are jobs.
    Inserted,
    /// Some are wrong, and none became a job.
    Failed,
    /// Not all became jobs, and no more will: the batch was given up, its time was over, or the lane takes a line of
    /// it no more.
    Stopped,
}

/// The lines of a file, as a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchInput {
    /// The batch.
    pub id: BatchId,
    /// The client key that handed it in, sees it, and whose rights its jobs have; `None`: an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// Whose jobs its jobs are, whatever its lines say; `None`: as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The priority of its jobs; `None`: below that of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The session of the lines that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Headers of the client that GLM gets with each of its jobs.
    #[serde(default, skip_serializing_if = "PassedHeaders::is_empty")]
    pub headers: PassedHeaders,
    /// The span of the request that made it, where that was said: those of its jobs are linked to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Box<TraceContext>>,
    /// The file.
    pub file: FileId,
    /// The path that the lines are for, as the submitter spelled it.
    pub endpoint: String,
    /// How long it may take, as the submitter spelled it.
    pub window: String,
    /// When it was handed in.
    pub created_at: Timestamp,
    /// When its time is over.
    pub deadline: Timestamp,
    /// The submitter's own notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The file goes once its lines are jobs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletes_file: bool,
    /// How far its lines are.
    pub stage: InputStage,
    /// How many lines there are; 0 until they were looked through.
    #[serde(default)]
    pub lines: u64,
    /// How many of them, from the first on, are jobs.
    #[serde(default)]
    pub inserted: u64,
    /// When the first of them became one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<Timestamp>,
    /// When its stage became the last one that it can have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// When somebody gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// What is wrong with its lines, the first of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<LineFault>,
    /// One more with each change: who changes it says which it was.
    #[serde(default)]
    pub version: u64,
}

/// A change of what a batch is made of. The batch follows: it is closed with the last line, given up with it, and gone
/// where no line became a job.
#[derive(Debug, Clone)]
pub enum InputChange {
    /// A batch begins, with version 1 of what it is made of.
    Begin(BatchInput, Box<Batch>),
    /// The next version of what is there.
    Put(BatchInput),
    /// It goes; its jobs stay.
    Forget(BatchId),
}

/// Where a batch over HTTP stands, in the field's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BatchStatus")]
pub enum BatchProgress {
    /// Its lines are looked through.
    Validating,
    /// Lines are wrong; nothing was sent.
    Failed,
    /// Its lines wait or run.
    InProgress,
    /// Its results are put together. That takes no time here, so it is never seen.
    Finalizing,
    /// Every line has ended.
    Completed,
    /// Its time was over before every line had ended.
    Expired,
    /// It was given up, and some lines have not ended.
    Cancelling,
    /// It was given up.
    Cancelled,
}

impl BatchInput {
    /// Lines that are still to be looked through.
    #[must_use]
    pub fn new(
        id: BatchId,
        file: FileId,
        endpoint: impl Into<String>,
        created_at: Timestamp,
        deadline: Timestamp,
    ) -> Self {
        Self {
            id,
            key_id: None,
            user_id: None,
            priority: None,
            session: None,
            headers: PassedHeaders::default(),
            trace: None,
            file,
            endpoint: endpoint.into(),
            window: String::new(),
            created_at,
            deadline,
            metadata: None,
            deletes_file: false,
            stage: InputStage::Validating,
            lines: 0,
            inserted: 0,
            begun_at: None,
            settled_at: None,
            cancelled_at: None,
            faults: Vec::new(),
            version: 1,
        }
    }

    /// Whether lines may still become jobs.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.stage, InputStage::Validating | InputStage::Inserting)
    }

    /// How many of its lines are jobs, pruned ones included. Lines become jobs before they are counted here: what is
    /// given up in between, or in a crash, has more jobs than `inserted` says.
    #[must_use]
    pub fn jobs(&self, batch: Option<&Batch>) -> u64 {
        let jobs = batch.map_or(0, |batch| batch.counts.total() + batch.pruned);
        jobs.max(self.inserted).min(self.lines)
    }

    /// The next version of it, with its last stage.
    #[must_use]
    pub fn settled(mut self, stage: InputStage, at: Timestamp) -> Self {
        self.stage = stage;
        self.settled_at.get_or_insert(at);
        self.next()
    }

    /// The next version of it, of which no more lines become jobs for this reason.
    #[must_use]
    pub fn given_up(mut self, why: LineFault, at: Timestamp) -> Self {
        self.faults.push(why);
        self.settled(InputStage::Stopped, at)
    }

    /// The next version of it.
    #[must_use]
    pub const fn next(mut self) -> Self {
        self.version += 1;
        self
    }

    /// Where the batch stands, with its own row, which is gone where it has no jobs any more.
    #[must_use]
    pub fn progress(&self, batch: Option<&Batch>) -> BatchProgress {
        let cancelled = self.cancelled_at.or(batch.and_then(|b| b.cancelled_at));
        let unfinished = batch.is_some_and(|batch| batch.unfinished() > 0);
        match (self.stage, cancelled) {
            (InputStage::Failed, _) => BatchProgress::Failed,
            (_, Some(_)) if unfinished || self.is_open() => BatchProgress::Cancelling,
            (_, Some(_)) => BatchProgress::Cancelled,
            (InputStage::Validating, None) => BatchProgress::Validating,
            (InputStage::Inserting, None) => BatchProgress::InProgress,
            (_, None) if unfinished => BatchProgress::InProgress,
            (InputStage::Stopped, None) if !self.faults.is_empty() => BatchProgress::Failed,
            (InputStage::Stopped, None) => BatchProgress::Expired,
            (InputStage::Inserted, None) if self.is_late(batch) => BatchProgress::Expired,
            (InputStage::Inserted, None) => BatchProgress::Completed,
        }
    }

    /// Whether lines ended without an answer once the time was over.
    fn is_late(&self, batch: Option<&Batch>) -> bool {
        batch.is_some_and(|batch| {
            let ended = batch.finished_at.is_some_and(|at| at >= self.deadline);
            ended && batch.counts.failed > 0
        })
    }

    /// When everything had ended.
    #[must_use]
    pub fn ended_at(&self, batch: Option<&Batch>) -> Option<Timestamp> {
        let is_over = batch.is_none_or(|batch| {
            batch.unfinished() == 0
                && matches!(batch.state, BatchState::Completed | BatchState::Cancelled)
        });
        if self.is_open() || !is_over {
            return None;
        }
        batch
            .and_then(|batch| batch.finished_at)
            .max(self.settled_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::JobStatus;
    use super::*;
    use crate::testing::sample::START;

    fn input() -> BatchInput {
        let file = FileId::from_bytes([1; 16]);
        let deadline = START.plus_ms(1_000);
        BatchInput::new(
            BatchId::new(1),
            file,
            "/v1/chat/completions",
            START,
            deadline,
        )
    }

    #[test]
    fn a_batch_over_http_says_where_it_stands_in_the_fields_words() {
        let mut input = input();
        let mut batch = Batch::new(input.id, "b", START);
        let says = |input: &BatchInput, batch: &Batch| input.progress(Some(batch));
        assert_eq!(says(&input, &batch), BatchProgress::Validating);
        input.stage = InputStage::Inserting;
        assert_eq!(says(&input, &batch), BatchProgress::InProgress);
        batch.moved(None, Some(JobStatus::Pending), START);
        input = input.settled(InputStage::Inserted, START);
        batch.close(START);
        assert_eq!(says(&input, &batch), BatchProgress::InProgress);
        assert_eq!(input.ended_at(Some(&batch)), None);

        let mut given_up = (input.clone(), batch.clone());
        given_up.0.cancelled_at = Some(START);
        given_up.1.cancel(START);
        assert_eq!(says(&given_up.0, &given_up.1), BatchProgress::Cancelling);
        given_up
            .1
            .moved(Some(JobStatus::Pending), Some(JobStatus::Cancelled), START);
        assert_eq!(says(&given_up.0, &given_up.1), BatchProgress::Cancelled);

        let at = START.plus_ms(2_000);
        let mut late = batch.clone();
        late.moved(Some(JobStatus::Pending), Some(JobStatus::Failed), at);
        assert_eq!(says(&input, &late), BatchProgress::Expired);
        batch.moved(Some(JobStatus::Pending), Some(JobStatus::Completed), at);
        assert_eq!(says(&input, &batch), BatchProgress::Completed);
        assert_eq!(input.ended_at(Some(&batch)), Some(at));
        input.stage = InputStage::Stopped;
        assert_eq!(says(&input, &batch), BatchProgress::Expired);
        input.stage = InputStage::Failed;
        assert_eq!(input.progress(None), BatchProgress::Failed);
    }
}
