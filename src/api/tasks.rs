//! GLM's asynchronous pair, served by the queue: a chat is answered with the id of its job once that is on disk, and
//! looked at until it has ended. It is a job like any other, which belongs to no connection.

use std::sync::Arc;

use onelane_actors::ports::JobRecord;
use onelane_core::model::limits as bounds;
use onelane_core::model::{Failure, JobId, JobStatus, Received};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use warp::http::StatusCode;

use super::Api;
use super::answer::{Answer, JSON, Reply, Shapes};
use super::ended::{self, FINISH, JOB, stated};
use super::gateway::{CALLBACK, Call, Chat};
use super::granted::Said;
use super::input::{Ignored, Input, Nothing};
use super::problem::{Kind, Problem};
use super::submission::{header_text, idempotency_key};
use crate::error::Error;
use crate::object::Object;
use crate::orchestrator::Submission;

/// GLM's code for a task that it does not know.
const UNKNOWN: u32 = 1233;

/// How GLM says where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum TaskStatus {
    /// It waits or runs.
    Processing,
    /// Its answer is there.
    Success,
    /// It has failed, or was cancelled.
    Fail,
}

/// A chat that was handed over.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Task")]
pub(super) struct Task {
    /// The job.
    id: String,
    /// The client's own, or the job's id.
    request_id: String,
    model: String,
    task_status: TaskStatus,
}

impl Task {
    fn of(record: &JobRecord, task_status: TaskStatus) -> Self {
        let job = &record.job;
        let own = record.request.as_deref().and_then(|r| r.request_id());
        Self {
            id: job.id.to_string(),
            request_id: own.unwrap_or_else(|| job.id.to_string()),
            model: job.model.clone(),
            task_status,
        }
    }
}

impl Answer for Task {
    fn reply(self) -> Reply {
        Reply::json(StatusCode::OK, &self).with(JOB, &self.id)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<Self>("200", "The chat is on disk as a job.");
        shapes.header("x-onelane-job", "The job.");
    }
}

/// `POST .../async/chat/completions`.
pub(super) async fn submit(
    api: Arc<Api>,
    input: Input<Nothing, Ignored, Call<Chat>>,
) -> Result<Task, Problem> {
    let mut submission = Submission {
        idempotency_key: idempotency_key(&input.headers)?,
        callback_url: header_text(&input.headers, CALLBACK, bounds::CALLBACK_URL_BYTES_MAX)?,
        trace: api.parent_in(&input.headers),
        ..input.body.submission
    };
    Said::read(&input.headers)?.prevail(&mut submission);
    let mut place = api.grant(&input.principal, std::slice::from_mut(&mut submission))?;
    let request_id = submission.request.request_id();
    let model = submission.model_in(&api.lane.settings());
    let submitted = api.lane.submit(submission).await?;
    place.used(usize::from(submitted.created));
    if !submitted.created {
        let record = api.lane.job(submitted.job_id).await?.record;
        return Ok(Task::of(&record, status(&record)));
    }
    let id = submitted.job_id.to_string();
    Ok(Task {
        request_id: request_id.unwrap_or_else(|| id.clone()),
        id,
        model,
        task_status: TaskStatus::Processing,
    })
}

/// A task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskPath {
    /// Its id, as in the answer to its submission.
    id: String,
}

/// How a task stands.
pub(super) enum TaskState {
    Known(JobId, Reply),
    Unknown(String),
}

impl Answer for TaskState {
    fn reply(self) -> Reply {
        match self {
            Self::Known(id, reply) => reply.with(JOB, id),
            Self::Unknown(message) => Reply::json(
                StatusCode::BAD_REQUEST,
                &json!({"code": UNKNOWN, "msg": message, "success": false}),
            ),
        }
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "`id`, `request_id`, `model` and `task_status`: `PROCESSING`, `SUCCESS` with the whole of GLM's \
                     answer beside it, or `FAIL` with GLM's `error`.";
        shapes.json::<Map<String, Value>>("200", about);
        shapes.header("x-onelane-job", "The job.");
        ended::describe(shapes);
        let about = "There is no such task: GLM's code 1233, as a number outside an error object.";
        shapes.json::<Map<String, Value>>("400", about);
    }
}

/// `GET .../async-result/{id}`.
pub(super) async fn read(
    api: Arc<Api>,
    input: Input<TaskPath, Ignored>,
) -> Result<TaskState, Problem> {
    let name = input.path.id;
    let unknown = || TaskState::Unknown(format!("任务不存在 (there is no task {name:?})"));
    let Ok(id) = name.parse::<JobId>() else {
        return Ok(unknown());
    };
    if api.check_own(&input.principal, id).await.is_err() {
        return Ok(unknown());
    }
    let record = match api.lane.job(id).await {
        Ok(detail) => detail.record,
        Err(Error::NotFound(_)) => return Ok(unknown()),
        Err(error) => return Err(error.into()),
    };
    if record.job.status == JobStatus::Completed && record.response.is_none() {
        let problem = format!("任务不存在 (the answer of task {id} was pruned)");
        return Ok(TaskState::Unknown(problem));
    }
    let reply = Reply::text(StatusCode::OK, JSON, told(&record).into_bytes());
    // An answer that is there is given without it, too.
    let last = match record.job.status.is_terminal() {
        true => api.lane.last_call(id).await.ok().flatten(),
        false => return Ok(TaskState::Known(id, reply)),
    };
    let reply = ended::told(reply, &record.job, last.as_ref());
    Ok(TaskState::Known(id, reply))
}

fn status(record: &JobRecord) -> TaskStatus {
    match record.job.status {
        JobStatus::Pending | JobStatus::Processing => TaskStatus::Processing,
        JobStatus::Completed => TaskStatus::Success,
        JobStatus::Failed if answer(record).is_some() => TaskStatus::Success,
        JobStatus::Failed | JobStatus::Cancelled => TaskStatus::Fail,
    }
}

/// What GLM answered. A completion that is a failure, cut by moderation for one, was an answer to the client.
fn answer(record: &JobRecord) -> Option<&RawValue> {
    match (record.job.status, &record.job.error) {
        (JobStatus::Completed, _) => record.response.as_deref(),
        (JobStatus::Failed, Some(failure)) if failure.code.starts_with(FINISH) => {
            record.refusal.as_deref().and_then(Received::json)
        }
        _ => None,
    }
}

/// A task as GLM tells of it.
fn told(record: &JobRecord) -> String {
    let task = Task::of(record, status(record));
    let mut body = member("id", &json!(task.id));
    body += &member("request_id", &json!(task.request_id));
    body += &member("task_status", &json!(task.task_status));
    let answer = answer(record).and_then(|raw| serde_json::from_str::<Object<'_>>(raw.get()).ok());
    match answer {
        // Its values as GLM spelled them.
        Some(answer) => {
            if answer.get("model").is_none() {
                body += &member("model", &json!(task.model));
            }
            for (name, value) in answer.iter() {
                if !matches!(name, "id" | "request_id" | "task_status") {
                    body += &format!("{}:{},", Value::from(name), value.get());
                }
            }
        }
        None => {
            body += &member("model", &json!(task.model));
            match (&record.job.error, record.job.status) {
                (Some(failure), JobStatus::Failed) => {
                    let came = record.refusal.as_deref().and_then(Received::json);
                    let error = refused(failure, came);
                    body += &format!("\"error\":{error},");
                }
                (_, JobStatus::Cancelled) => {
                    let code = Kind::JobCancelled.glm_code();
                    let message = Error::JobCancelled(record.job.id).to_string();
                    body += &member("error", &json!({"code": code, "message": message}));
                }
                _ => {}
            }
        }
    }
    body.pop();
    format!("{{{body}}}")
}

fn member(name: &str, value: &Value) -> String {
    format!("\"{name}\":{value},")
}

/// GLM's error object as it came, or one that says the same.
fn refused(failure: &Failure, refusal: Option<&RawValue>) -> String {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let own = refusal.and_then(|raw| serde_json::from_str::<Refusal<'_>>(raw.get()).ok());
    match own.filter(|own| own.error.get().starts_with('{')) {
        Some(own) => own.error.get().to_owned(),
        None => {
            let code = stated(failure).code;
            json!({"code": code, "message": failure.message}).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::FailureClass;

    use super::*;
    use crate::views::tests::sample;

    #[test]
    fn an_answer_keeps_its_spelling_and_gets_the_fields_of_a_task() {
        let mut record = sample::completed(1);
        let raw =
            r#"{"id":"glm's","created":1.50,"choices":[{"index":0 }],"request_id":"x","usage":{}}"#;
        record.response = RawValue::from_string(raw.to_owned()).ok().map(Into::into);
        let body = told(&record);
        assert!(
            body.contains(r#""created":1.50,"choices":[{"index":0 }]"#),
            "{body}"
        );
        let json: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["id"], record.job.id.to_string());
        assert_eq!(json["task_status"], "SUCCESS");
        assert_eq!(json["model"], record.job.model);
        assert!(Object::read(&body).is_ok(), "no name comes twice: {body}");
    }

    #[test]
    fn a_failed_task_has_glms_own_error_object() {
        let mut record = sample::waiting(1);
        record.job.status = JobStatus::Failed;
        record.job.error = Some(Failure::new(FailureClass::RequestFatal, "1301", "m"));
        let error = |record: &JobRecord| {
            let json: Value = serde_json::from_str(&told(record)).unwrap();
            assert_eq!(json["task_status"], "FAIL");
            json["error"].clone()
        };
        assert_eq!(error(&record), json!({"code": "1301", "message": "m"}));
        let raw = r#"{"contentFilter":[],"error":{"code":"1301","message":"系统"}}"#;
        let came = Received::new(raw.as_bytes(), Some(JSON));
        record.refusal = Some(came.into());
        assert_eq!(error(&record), json!({"code": "1301", "message": "系统"}));
        record.job.status = JobStatus::Cancelled;
        assert_eq!(error(&record)["code"], "409");
    }
}
