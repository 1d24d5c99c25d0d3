//! One line of the results of a batch: the batch output form of a job's end.

use std::fmt::Display;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::JobStatus;
use crate::orchestrator::JobDetail;

/// One line of the batch output form.
#[derive(Debug, Serialize)]
pub struct ResultLine<'a> {
    /// The line's id among the results.
    pub id: String,
    /// The line's own id, or `line-N`.
    pub custom_id: String,
    /// What GLM answered: an answer, or its refusal.
    pub response: Option<Response<'a>>,
    /// Why there is none, or why one is no answer whose status says that it is.
    pub error: Option<LineError>,
}

/// What GLM answered to a line.
#[derive(Debug, Serialize)]
pub struct Response<'a> {
    /// The HTTP status.
    pub status_code: u16,
    /// The `request_id` that GLM was sent.
    pub request_id: String,
    /// The body, as GLM sent it.
    pub body: &'a RawValue,
}

/// Why a line has no answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LineError {
    /// GLM's code, or one of ours.
    pub code: String,
    /// The problem in words.
    pub message: String,
    /// The HTTP status, if one arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Whether GLM may have billed it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maybe_billed: bool,
}

impl<'a> ResultLine<'a> {
    /// Of a job that ended: GLM's answer or refusal verbatim, or why there is none.
    #[must_use]
    pub fn of_job(id: impl Display, custom_id: impl Display, detail: &'a JobDetail) -> Self {
        let response = Response::of_job(detail);
        let is_answer = detail.record.job.status == JobStatus::Completed && response.is_some();
        let why = (!is_answer).then(|| LineError::of_job(detail));
        Self::of_end(id, custom_id, response, why)
    }

    /// Of what GLM answered and why that is no answer: a refusal says so itself.
    #[must_use]
    pub fn of_end(
        id: impl Display,
        custom_id: impl Display,
        response: Option<Response<'a>>,
        why: Option<LineError>,
    ) -> Self {
        let says_so = response
            .as_ref()
            .is_some_and(|response| !is_success(response.status_code));
        Self {
            id: id.to_string(),
            custom_id: custom_id.to_string(),
            response,
            error: why.filter(|_| !says_so),
        }
    }

    /// Of a line that has no answer.
    #[must_use]
    pub fn of_error(id: impl Display, custom_id: impl Display, error: LineError) -> Self {
        Self {
            id: id.to_string(),
            custom_id: custom_id.to_string(),
            response: None,
            error: Some(error),
        }
    }

    /// Whether it holds an answer, and no refusal.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        let status = self.response.as_ref().map(|response| response.status_code);
        is_answer(status, self.error.is_some())
    }

    /// As one line of text: what GLM may have put between its JSON's tokens is made blank.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        for byte in &mut bytes {
            // Inside a JSON string these two are always escaped.
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Whether a line holds an answer: a response of this status, and no error beside it.
#[must_use]
pub fn is_answer(status: Option<u16>, has_error: bool) -> bool {
    !has_error && status.is_some_and(is_success)
}

const fn is_success(status: u16) -> bool {
    status / 100 == 2
}

impl<'a> Response<'a> {
    /// What GLM answered to a job that ended, in JSON and whole; `None`: nothing that can be shown.
    fn of_job(detail: &'a JobDetail) -> Option<Self> {
        let (record, call) = (&detail.record, detail.attempts.last());
        let job = &record.job;
        let of_call = call.and_then(|call| call.status_code);
        let (status_code, body) = match (job.status, &job.error) {
            (JobStatus::Completed, _) => {
                let answer: &RawValue = record.response.as_ref()?;
                (of_call.unwrap_or(200), answer)
            }
            (JobStatus::Failed, Some(failure)) => {
                let refusal = record.refusal.as_deref();
                let whole = refusal.filter(|came| !came.is_begun() && !came.is_foreign());
                (failure.status_code?, whole?.json()?)
            }
            _ => return None,
        };
        let request_id = call.map_or_else(
            || job.request_id(job.attempts),
            |call| call.request_id.clone(),
        );
        Some(Self {
            status_code,
            request_id: request_id.to_string(),
            body,
        })
    }
}

impl LineError {
    /// One of our own making.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status_code: None,
            maybe_billed: false,
        }
    }

    /// Why a job has no answer.
    #[must_use]
    pub fn of_job(detail: &JobDetail) -> Self {
        let job = &detail.record.job;
        let status = job.status.name();
        match &job.error {
            Some(failure) if job.status == JobStatus::Failed => Self {
                code: failure.code.clone(),
                message: failure.message.clone(),
                status_code: failure.status_code,
                maybe_billed: failure.maybe_billed,
            },
            _ if job.bodies_pruned => {
                Self::new("pruned", format!("the answer of job {} was pruned", job.id))
            }
            _ => Self::new(status, format!("job {} is {status}", job.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::model::{
        AttemptNo, Failure, FailureClass, Job, JobId, Received, Request, Timestamp,
    };
    use crate::ports::JobRecord;

    fn detail(status: JobStatus, response: Option<&str>, error: Option<Failure>) -> JobDetail {
        let id = JobId::from_bytes([7; 16]);
        let job = Job {
            status,
            attempts: AttemptNo(2),
            error,
            ..Job::new(id, "u", "glm-5", Timestamp::default())
        };
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        JobDetail {
            wait_reason: None,
            record: JobRecord {
                job,
                request: Some(Arc::new(Request::prompt("hi").unwrap())),
                response: response.map(|text| raw(text).into()),
                refusal: None,
            },
            attempts: Vec::new(),
        }
    }

    fn text(detail: &JobDetail) -> String {
        let id = "run-00000000-00000000000000000000000000000001";
        let line = ResultLine::of_job(id, "line-3", detail);
        String::from_utf8(line.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn an_answer_is_one_line_in_the_batch_form() {
        let body = "{\n  \"content\": \"a\\nb\",\r\n  \"x\": 1.50\n}";
        assert_eq!(
            text(&detail(JobStatus::Completed, Some(body), None)),
            "{\"id\":\"run-00000000-00000000000000000000000000000001\",\"custom_id\":\"line-3\",\
             \"response\":{\"status_code\":200,\"request_id\":\"07070707070707070707070707070707-2\",\
             \"body\":{   \"content\": \"a\\nb\",    \"x\": 1.50 }},\"error\":null}\n"
        );
    }

    #[test]
    fn a_failure_says_its_code_and_whether_it_may_be_billed() {
        let mut failure = Failure::new(FailureClass::ServerTransient, "timeout_total", "too slow");
        failure.maybe_billed = true;
        let line: serde_json::Value =
            serde_json::from_str(&text(&detail(JobStatus::Failed, None, Some(failure)))).unwrap();
        assert_eq!(line["response"], serde_json::Value::Null);
        assert_eq!(line["error"]["code"], "timeout_total");
        assert_eq!(line["error"]["message"], "too slow");
        assert_eq!(line["error"]["maybe_billed"], true);
    }

    fn refused(status_code: u16, came: Received) -> serde_json::Value {
        let failure = Failure {
            status_code: Some(status_code),
            ..Failure::new(FailureClass::RequestFatal, "1210", "no such parameter")
        };
        let mut detail = detail(JobStatus::Failed, None, Some(failure));
        detail.record.refusal = Some(Arc::new(came));
        let line = ResultLine::of_job("id", "line-3", &detail);
        assert!(!line.is_answer());
        serde_json::from_slice(&line.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_line_that_glm_refused_has_its_status_and_its_words() {
        let body = r#"{"error":{"code":"1210","message":"no"},"more":1}"#;
        let whole = || Received::new(body.as_bytes(), None);
        let line = refused(400, whole());
        assert_eq!(line["error"], serde_json::Value::Null);
        assert_eq!(line["response"]["status_code"], 400);
        assert_eq!(
            line["response"]["request_id"],
            "07070707070707070707070707070707-2"
        );
        assert_eq!(line["response"]["body"]["more"], 1);
        // A status that says nothing of it.
        let line = refused(200, whole());
        assert_eq!(line["response"]["body"]["more"], 1);
        assert_eq!(line["error"]["code"], "1210");
        // What is no answer to it, or can't be shown.
        let html = Received::new(&b"<html>"[..], None);
        for odd in [whole().begun(), whole().foreign(), html] {
            let line = refused(502, odd);
            assert_eq!(line["response"], serde_json::Value::Null);
            assert_eq!(line["error"]["status_code"], 502);
        }
    }

    #[test]
    fn a_cancelled_job_is_an_error_of_its_own() {
        let line: serde_json::Value =
            serde_json::from_str(&text(&detail(JobStatus::Cancelled, None, None))).unwrap();
        assert_eq!(line["error"]["code"], "cancelled");
    }
}
