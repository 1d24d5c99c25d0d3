//! Batches over HTTP: the lines of an uploaded file as jobs, which are a batch of the lane like that of `onelane run`.
//! Its results are made of the stored answers when they are asked for, and written nowhere twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onelane_core::model::{
    BatchId, BatchInput, BatchProgress, InputStage, JobId, JobStatus, PassedHeaders, Seq, Timestamp,
};
use onelane_core::money::forecast::Forecast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Json;
use super::files::{self, Named, Part};
use super::granted::Said;
use super::input::{Given, Ignored, Input, Nothing};
use super::limits;
use super::lines::{self, Lines};
use super::passed;
use super::principal::Principal;
use super::problem::{Faults, FieldError, Kind, Problem};
use super::submission::idempotency_key;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::files::BatchOfFile;
use crate::results::{LineError, ResultLine};

/// What is asked of a batch.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NewBatch {
    /// The file, as it was uploaded.
    input_file_id: String,
    /// The path that every line names as its `url`: that of a face, like `/v1/chat/completions` or `/v1/embeddings`.
    endpoint: String,
    /// How long it may take, in hours, days or minutes, at most 14 days: 24h, 7d, 90m; 24h without it. Lines that have
    /// not ended by then fail.
    completion_window: Option<String>,
    /// Your own notes: at most 16 of them, of 512 characters each.
    metadata: Option<BTreeMap<String, String>>,
    /// The file is deleted once its lines are jobs.
    auto_delete_input_file: Option<bool>,
}

/// What is wrong with a line.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchError")]
pub(super) struct BatchFault {
    /// Which kind of fault.
    code: String,
    /// What is wrong and what would be right.
    message: String,
    /// The member of the line.
    param: Option<String>,
    /// The line's number in the file, from 1.
    line: Option<u64>,
}

/// What is wrong with lines, the first of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchErrors")]
pub(super) struct BatchFaults {
    /// Always `list`.
    object: &'static str,
    data: Vec<BatchFault>,
}

/// The lines of a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchRequestCounts")]
pub(super) struct RequestCounts {
    /// All of them; 0 until they were looked through.
    total: u64,
    /// Those that have an answer.
    completed: u64,
    /// Those that failed or were cancelled.
    failed: u64,
}

/// A batch, as OpenAI and GLM show one. Moments are seconds since 1970.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchOfFile")]
pub(super) struct BatchCard {
    id: BatchId,
    /// Always `batch`.
    object: &'static str,
    endpoint: String,
    /// What is wrong with its lines; nothing was sent then.
    errors: Option<BatchFaults>,
    input_file_id: String,
    completion_window: String,
    status: BatchProgress,
    /// The answers, once the batch has ended and there are some.
    output_file_id: Option<String>,
    /// Why lines have no answer, once the batch has ended and there are such.
    error_file_id: Option<String>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: RequestCounts,
    metadata: Option<BTreeMap<String, String>>,
    /// What it comes to and when it ends, as its first calls tell: onelane's own.
    forecast: Option<Forecast>,
}

impl BatchCard {
    fn of(found: BatchOfFile, api: &Api) -> Self {
        let BatchOfFile { input, batch } = found;
        let slots = api.lane.settings().lane.rules.max_concurrency;
        let forecast = batch.as_ref();
        let forecast = forecast.and_then(|batch| Forecast::of(batch, slots, api.clock.now()));
        let status = input.progress(batch.as_ref());
        let ended_at = input.ended_at(batch.as_ref());
        let counts = batch.as_ref().map(|b| b.counts).unwrap_or_default();
        let missing = match input.stage {
            InputStage::Stopped => input.lines - input.jobs(batch.as_ref()),
            _ => 0,
        };
        let cancelling = input.cancelled_at.or(batch.and_then(|b| b.cancelled_at));
        let counts = RequestCounts {
            total: input.lines,
            completed: counts.completed,
            failed: counts.failed + counts.cancelled + missing,
        };
        let results = |some: u64, part| {
            let is_there = ended_at.is_some() && some > 0;
            is_there.then(|| Named::Results(input.id, part).to_string())
        };
        let ended = |is: BatchProgress| ended_at.filter(|_| status == is).map(seconds);
        let errors = (!input.faults.is_empty()).then(|| BatchFaults {
            object: "list",
            data: input
                .faults
                .iter()
                .map(|fault| BatchFault {
                    code: fault.code.clone(),
                    message: fault.message.clone(),
                    param: fault.param.clone(),
                    line: fault.line,
                })
                .collect(),
        });
        Self {
            id: input.id,
            object: "batch",
            errors,
            input_file_id: input.file.to_string(),
            status,
            output_file_id: results(counts.completed, Part::Answers),
            error_file_id: results(counts.failed, Part::Errors),
            created_at: seconds(input.created_at),
            in_progress_at: input.begun_at.map(seconds),
            expires_at: seconds(input.deadline),
            finalizing_at: ended(BatchProgress::Completed),
            completed_at: ended(BatchProgress::Completed),
            failed_at: ended(BatchProgress::Failed),
            expired_at: ended(BatchProgress::Expired),
            cancelling_at: cancelling.map(seconds),
            cancelled_at: ended(BatchProgress::Cancelled),
            request_counts: counts,
            endpoint: input.endpoint,
            completion_window: input.window,
            metadata: input.metadata,
            forecast,
        }
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1_000)
}

/// `24h`, `7d`, `90m`, in milliseconds.
fn window_ms(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(['m', 'h', 'd'])?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit: u64 = match text.chars().last()? {
        'm' => 60_000,
        'h' => 3_600_000,
        _ => 86_400_000,
    };
    let ms = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=limits::BATCH_WINDOW_MS_MAX)
        .contains(&ms)
        .then_some(ms)
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), String> {
    let (names, values) = (
        limits::BATCH_METADATA_NAME_CHARS_MAX,
        limits::BATCH_METADATA_VALUE_CHARS_MAX,
    );
    let is_long = |(name, value): (&String, &String)| {
        name.chars().count() > names || value.chars().count() > values
    };
    if metadata.len() > limits::BATCH_METADATA_MAX || metadata.iter().any(is_long) {
        return Err(format!(
            "must have at most {} names of {names} characters, with values of {values}",
            limits::BATCH_METADATA_MAX
        ));
    }
    Ok(())
}

/// `POST batches`.
pub(super) async fn create(
    api: Arc<Api>,
    input: Input<Nothing, Ignored, Given<NewBatch>>,
) -> Result<Json<BatchCard>, Problem> {
    let principal = &input.principal;
    let key = idempotency_key(&input.headers)?;
    let asked = Said::read(&input.headers)?;
    let new = input.body.0;
    let mut errors = Faults::default();
    let mut wrong = |field: &str, problem: String| errors.add(|| FieldError::new(field, problem));
    let mut headers = PassedHeaders::default();
    match lines::face_of(&new.endpoint) {
        Ok(face) => {
            api.allow(principal, face, &asked)?;
            headers = passed::read(face, &input.headers)?;
        }
        Err(problem) => wrong("endpoint", problem),
    }
    let window = new.completion_window.unwrap_or_else(|| "24h".to_owned());
    let window_ms = window_ms(&window);
    if window_ms.is_none() {
        let problem =
            format!("must be hours, days or minutes, at most 14 days, like 24h, not {window:?}");
        wrong("completion_window", problem);
    }
    if let Some(Err(problem)) = new.metadata.as_ref().map(check_metadata) {
        wrong("metadata", problem);
    }
    let file = match new.input_file_id.parse::<Named>() {
        Ok(Named::Uploaded(id)) => Some(id),
        _ => {
            let problem = format!(
                "must be the id of an uploaded file, not {:?}",
                new.input_file_id
            );
            wrong("input_file_id", problem);
            None
        }
    };
    let (Some(file), Some(window_ms), true) = (file, window_ms, errors.is_none()) else {
        return Err(Problem::of_fields(Kind::InvalidField, errors));
    };
    let id = match &key {
        Some(key) => {
            let of = principal.key_id().map(|id| id.to_string());
            BatchId::named(&format!("http\0{}\0{key}", of.unwrap_or_default()))
        }
        None => BatchId::new(api.lane.random_number()),
    };
    if let Some(known) = api.lane.batch_of_file(id).await? {
        if known.input.file == file && principal.sees(known.input.key_id) {
            return Ok(Json(BatchCard::of(known, &api)));
        }
        let problem = format!("the key was used for another file, by batch {id}; use a new one");
        return Err(Problem::new(Kind::IdempotencyConflict, problem));
    }
    let name = files::whole(&api.lane, principal, file).await?.name;
    api.check_open_batches(principal).await?;
    let now = api.clock.now();
    let Said {
        user,
        priority,
        session,
    } = asked;
    let input = BatchInput {
        key_id: principal.key_id(),
        user_id: user,
        priority,
        session,
        headers,
        trace: api.span_of(&input.headers),
        window,
        metadata: new.metadata,
        deletes_file: new.auto_delete_input_file == Some(true),
        ..BatchInput::new(id, file, new.endpoint, now, now.plus_ms(window_ms))
    };
    let begun = api.lane.begin_batch_of_file(input, name).await?;
    api.feeder.feed(id);
    Ok(Json(BatchCard::of(begun, &api)))
}

/// A batch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchPath {
    /// Its id.
    id: String,
}

/// A batch by its name. Those of others are not there.
async fn found(
    lane: &Orchestrator,
    principal: &Principal,
    name: &str,
) -> Result<BatchOfFile, Problem> {
    let found = match name.parse::<BatchId>() {
        Ok(id) => lane.batch_of_file(id).await?,
        Err(_) => None,
    };
    let seen = |found: &BatchOfFile| principal.sees(found.input.key_id);
    found.filter(seen).ok_or_else(|| {
        let problem = format!("there is no batch {name:?} that was made of an uploaded file");
        Problem::new(Kind::UnknownBatch, problem)
    })
}

/// `GET batches/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<BatchPath, Ignored>,
) -> Result<Json<BatchCard>, Problem> {
    let found = found(&api.lane, &input.principal, &input.path.id).await?;
    Ok(Json(BatchCard::of(found, &api)))
}

/// Which batches.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct BatchesQuery {
    /// The id of the last batch of the page before.
    after: Option<String>,
    /// Batches of a page; 20 without it.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
}

/// A page of batches.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchesOfFiles")]
pub(super) struct BatchList {
    /// Always `list`.
    object: &'static str,
    data: Vec<BatchCard>,
    first_id: Option<BatchId>,
    last_id: Option<BatchId>,
    has_more: bool,
}

/// `GET batches`: those that were made of uploaded files, newest first; for a client key its own.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<Nothing, BatchesQuery>,
) -> Result<Json<BatchList>, Problem> {
    let BatchesQuery { after, limit } = input.query;
    let mut all = api.lane.all_inputs().await?;
    let principal = &input.principal;
    all.retain(|input| principal.sees(input.key_id));
    all.sort_by_key(|input| std::cmp::Reverse((input.created_at, input.id)));
    let mut ids = all.iter().map(|input| input.id.to_string());
    let skipped = match &after {
        None => 0,
        Some(after) => ids
            .position(|id| id == *after)
            .map_or(all.len(), |at| at + 1),
    };
    let limit = limit.unwrap_or(20);
    let has_more = all.len() > skipped + limit;
    let mut data = Vec::new();
    for input in all.into_iter().skip(skipped).take(limit) {
        let batch = api.lane.batch(input.id).await?;
        data.push(BatchCard::of(BatchOfFile { input, batch }, &api));
    }
    Ok(Json(BatchList {
        object: "list",
        first_id: data.first().map(|batch| batch.id),
        last_id: data.last().map(|batch| batch.id),
        has_more,
        data,
    }))
}

/// `POST batches/{id}/cancel`. Its jobs that wait or run are cancelled afterwards.
pub(super) async fn cancel(
    api: Arc<Api>,
    input: Input<BatchPath, Ignored>,
) -> Result<Json<BatchCard>, Problem> {
    let (principal, name) = (&input.principal, &input.path.id);
    loop {
        let BatchOfFile { input, batch } = found(&api.lane, principal, name).await?;
        let id = input.id;
        if input.ended_at(batch.as_ref()).is_some() && input.cancelled_at.is_none() {
            let problem = format!("batch {id} has ended; only one that goes on can be cancelled");
            return Err(Problem::new(Kind::WrongStatus, problem));
        }
        if input.cancelled_at.is_none() {
            let given_up = BatchInput {
                cancelled_at: Some(api.clock.now()),
                ..input
            };
            if !api.lane.put_input(given_up.next()).await? {
                continue;
            }
        }
        api.feeder.feed(id);
        let found = found(&api.lane, principal, name).await?;
        return Ok(Json(BatchCard::of(found, &api)));
    }
}

/// The results of a batch that has ended, written as they are read.
pub(super) struct Results {
    input: BatchInput,
    part: Part,
    pub(super) ended_at: Timestamp,
    /// The jobs that have such a result, the last first.
    jobs: Vec<(Seq, JobId)>,
    /// The lines that never became jobs are still to be told: those that none of these jobs' names has.
    lost: Option<BTreeSet<String>>,
}

impl Results {
    /// `None`: there is no such batch for this one, it has not ended, or nothing of it is left.
    pub(super) async fn of(
        lane: &Orchestrator,
        principal: &Principal,
        id: BatchId,
        part: Part,
    ) -> Result<Option<Self>, Problem> {
        let found = lane.batch_of_file(id).await?;
        let seen = |found: &BatchOfFile| principal.sees(found.input.key_id);
        let Some(BatchOfFile { input, batch }) = found.filter(seen) else {
            return Ok(None);
        };
        let Some(ended_at) = input.ended_at(batch.as_ref()) else {
            return Ok(None);
        };
        let mut lost = (part == Part::Errors
            && input.stage == InputStage::Stopped
            && input.jobs(batch.as_ref()) < input.lines)
            .then(BTreeSet::new);
        let mut jobs = Vec::new();
        let mut cursor = None;
        loop {
            let (page, next) = lane.batch_jobs(id, cursor).await?;
            if let Some(names) = &mut lost {
                names.extend(page.iter().filter_map(|job| job.content_id.clone()));
            }
            let of_part = page
                .iter()
                .filter(|job| (job.status == JobStatus::Completed) == (part == Part::Answers));
            jobs.extend(of_part.map(|job| (job.seq, job.id)));
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        // Each page is newest first; taken from the end they are in the order of the lines.
        jobs.sort_unstable_by(|a, b| b.cmp(a));
        Ok((lost.is_some() || !jobs.is_empty()).then_some(Self {
            input,
            part,
            ended_at,
            jobs,
            lost,
        }))
    }

    pub(super) fn file_name(&self) -> String {
        let part = match self.part {
            Part::Answers => "output",
            Part::Errors => "error",
        };
        format!("{}_{part}.jsonl", self.input.id)
    }

    /// The next lines of them; `None`: there are no more.
    pub(super) async fn next(&mut self, lane: &Orchestrator) -> Result<Option<Vec<u8>>, Problem> {
        let mut text = Vec::new();
        while text.len() < limits::RESULTS_PART_BYTES {
            let Some((_, id)) = self.jobs.pop() else {
                break;
            };
            let detail = match lane.job(id).await {
                Ok(detail) => detail,
                // It was pruned meanwhile.
                Err(crate::error::Error::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let custom_id = detail.record.job.content_id.clone().unwrap_or_default();
            let line = ResultLine::of_job(result_id(id), custom_id, &detail);
            text.extend(line.to_bytes().map_err(unwritten)?);
        }
        if text.is_empty()
            && let Some(jobs) = self.lost.take()
        {
            text = self.lost(lane, jobs).await?;
        }
        Ok((!text.is_empty()).then_some(text))
    }

    /// The lines that never became jobs, as long as their file is there.
    async fn lost(&self, lane: &Orchestrator, jobs: BTreeSet<String>) -> Result<Vec<u8>, Problem> {
        let input = self.input.clone();
        let (code, why) = match (input.cancelled_at, input.faults.last()) {
            (Some(_), _) => ("cancelled", "the batch was cancelled"),
            (None, Some(fault)) => (&*fault.code, &*fault.message),
            (None, None) => ("expired", "the batch's time was over"),
        };
        let (code, message) = (
            code.to_owned(),
            format!("{why}, before this line was a job"),
        );
        let reading = lane.read_file(input.file, move |reader| {
            let mut lines = Lines::new(reader, 0);
            let (mut nth, mut text) = (0, Vec::new());
            while let Some(line) = lines.next_line(&input.endpoint)? {
                nth += 1;
                let Ok(line) = line else { continue };
                if nth <= input.inserted || jobs.contains(&line.custom_id) {
                    continue;
                }
                let id = format!("batch_req_{}_{nth}", input.id);
                let error = LineError::new(&code, &*message);
                let line = ResultLine::of_error(id, line.custom_id, error);
                text.extend(line.to_bytes().map_err(std::io::Error::other)?);
            }
            Ok::<_, std::io::Error>(text)
        });
        let read = reading.await?;
        read.map_err(|error| Problem::new(Kind::StoreFailed, error.to_string()))
    }
}

fn result_id(job: JobId) -> String {
    format!("batch_req_{}", job.to_string().replace('-', ""))
}

fn unwritten(error: serde_json::Error) -> Problem {
    Problem::new(Kind::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_number_of_hours_days_or_minutes() {
        assert_eq!(window_ms("24h"), Some(86_400_000));
        assert_eq!(window_ms("1d"), Some(86_400_000));
        assert_eq!(window_ms("90m"), Some(5_400_000));
        for bad in [
            "",
            "h",
            "24",
            "-1h",
            "0h",
            "15d",
            "24 h",
            "1.5h",
            "99999999999999999999h",
        ] {
            assert_eq!(window_ms(bad), None, "{bad}");
        }
    }
}
