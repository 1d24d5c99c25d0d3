//! A response that goes on from another one: who submits it may name that by an id of ours, and GLM gets its own id of it.
//! Whichever way the request comes in, this is where it passes.

use onelane_actors::ports::{JobRecord, Store, StoreError};
use onelane_core::model::{
    Face, JobId, JobStatus, KeyId, Request, ResponseId, Session, Sessions, Submission,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Orchestrator;
use crate::error::Error;
use crate::object::Object;

const FIELD: &str = "previous_response_id";

/// What a body of the responses face says of the one before.
#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(default, borrow)]
    previous_response_id: Option<&'a RawValue>,
}

/// The response that a request goes on from, as its body names it.
fn named(request: &Request) -> Option<&RawValue> {
    match request {
        Request::Body(Face::Responses, raw) => {
            let head: Head<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
            head.previous_response_id
        }
        _ => None,
    }
}

/// The same as text.
fn name(request: &Request) -> Option<String> {
    serde_json::from_str(named(request)?.get()).ok()
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::Invalid {
        field: FIELD.to_owned(),
        problem: problem.into(),
    }
}

/// The job of a response of ours, for a client key or, without one, for an operator; `None`: it is not there, and only GLM
/// may know what was named. That of another key is not there, as far as this one is concerned.
fn found(
    store: &dyn Store,
    ResponseId(id): ResponseId,
    key: Option<KeyId>,
) -> Result<Option<JobRecord>, StoreError> {
    let is_own = |record: &JobRecord| {
        let job = &record.job;
        job.face == Face::Responses && key.is_none_or(|key| job.key_id == Some(key))
    };
    Ok(store.job(id)?.filter(is_own))
}

/// GLM's own id of a response, as JSON.
fn id_at_glm(record: &JobRecord) -> Result<String, Error> {
    let glms = record.response.as_ref().and_then(|response| {
        let object: Object<'_> = serde_json::from_str(response.get()).ok()?;
        Some(object.get("id")?.get().to_owned())
    });
    glms.ok_or_else(|| match record.job.status {
        JobStatus::Completed => wrong(format!(
            "the answer of {} was pruned; send what was said instead",
            ResponseId(record.job.id)
        )),
        status => wrong(format!(
            "{} is {}; only a response that is completed can be gone on from",
            ResponseId(record.job.id),
            status.of_response()
        )),
    })
}

/// Refuses a submission that goes on from a response of ours that has no answer.
#[cfg(feature = "api")]
pub(crate) fn check(store: &dyn Store, submission: &Submission) -> Result<(), Error> {
    let name = name(&submission.request);
    let Some(id) = name.as_deref().and_then(ResponseId::parse) else {
        return Ok(());
    };
    match found(store, id, submission.key_id)? {
        Some(record) => id_at_glm(&record).map(drop),
        None => Ok(()),
    }
}

/// The request with another id of the one before; the rest stays to the byte.
fn renamed(request: &Request, id: &str) -> Result<Request, Error> {
    let lost = || wrong("could not be replaced");
    let (Some(named), Request::Body(face, raw)) = (named(request), request) else {
        return Err(lost());
    };
    let (body, named) = (raw.get(), named.get());
    let at = named.as_ptr().addr().checked_sub(body.as_ptr().addr());
    let parts = at.and_then(|at| Some((body.get(..at)?, body.get(at + named.len()..)?)));
    let (before, behind) = parts.ok_or_else(lost)?;
    Request::body(*face, &format!("{before}{id}{behind}")).map_err(|error| wrong(error.to_string()))
}

impl Orchestrator {
    /// The submission with GLM's own id of the response that it goes on from, where it names one of ours, and of the
    /// same session where it names none; and the job of that response.
    pub(super) async fn going_on(
        &self,
        submission: Submission,
    ) -> Result<(Submission, Option<JobId>), Error> {
        let Some(name) = name(&submission.request) else {
            return Ok((submission, None));
        };
        let derives = self.inner.settings.borrow().gateway.sessions == Sessions::Derive;
        let key = submission.key_id;
        let record = match ResponseId::parse(&name) {
            None => None,
            Some(id) => self.read(move |store| found(store, id, key)).await?,
        };
        let conversations = &self.inner.ports.conversations;
        let of_before = |before: Option<Session>| before.filter(|_| derives);
        let Some(record) = record else {
            let before = of_before(conversations.session_of(&name, key));
            let session = submission.session.or(before);
            let submission = Submission {
                session,
                ..submission
            };
            return Ok((submission, None));
        };
        let request = renamed(&submission.request, &id_at_glm(&record)?)?;
        let before = of_before(record.job.as_named());
        let submission = Submission {
            request,
            session: submission.session.or(before),
            ..submission
        };
        Ok((submission, Some(record.job.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Request {
        Request::body(Face::Responses, json).unwrap()
    }

    #[test]
    fn only_the_id_of_the_one_before_is_replaced_and_the_rest_stays_to_the_byte() {
        let asked = request(
            r#"{ "input":"\u0061", "previous_response_id" : "resp_0199a00000007000800000000000000a" ,"x":1.50}"#,
        );
        assert!(
            name(&asked)
                .as_deref()
                .and_then(ResponseId::parse)
                .is_some()
        );
        let Request::Body(_, sent) = renamed(&asked, "\"glm-1\"").unwrap() else {
            unreachable!()
        };
        let want = r#"{ "input":"\u0061", "previous_response_id" : "glm-1" ,"x":1.50}"#;
        assert_eq!(sent.get(), want);
    }

    #[test]
    fn what_names_none_before_it_goes_on_from_none() {
        for json in [
            r#"{"input":"a"}"#,
            r#"{"input":"a","previous_response_id":null}"#,
            r#"{"input":"a","previous_response_id":7}"#,
        ] {
            assert_eq!(name(&request(json)), None, "{json}");
        }
        let chat = r#"{"messages":[{}],"previous_response_id":"resp_1"}"#;
        assert_eq!(name(&Request::body(Face::Chat, chat).unwrap()), None);
    }
}
