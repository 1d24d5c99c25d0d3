//! Reads a whole response: any status, any headers, any bytes become an outcome. An answer stays
//! verbatim; of it only the usage and the finish reason are looked at.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use onelane_actors::ports::{GlmAnswer, GlmOutcome};
use onelane_core::model::{AnswerBody, Face, Failure, FailureClass, Received, Usage, code};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::classify::{CODE_CHARS_MAX, Reader, classify, classify_json, states_error};
use super::errors::ErrorTable;
use super::forms::{Form, Head, form};
use super::{layers, usage};
use crate::bounded::{self, First};

/// The type of a completion that was taken out of what was around it.
const JSON: &str = "application/json";

/// Reads a response. What came instead of an answer stays with the failure.
pub(crate) fn decode(
    status: u16,
    headers: &HeaderMap,
    body: Bytes,
    reader: &Reader<'_>,
) -> GlmOutcome {
    let outcome = outcome(status, headers, &body, reader);
    received_with(outcome, headers, &body, reader)
}

/// What counts of an answer of the usual shape, in one pass; `None`: whatever came has to be looked at more closely.
pub(super) fn usual_head(face: Face, status: u16, body: &[u8]) -> Option<Head> {
    let success = (200..300).contains(&status);
    success.then(|| form(face).head(&layers::text(body)))?
}

/// Reads the rest of a response whose head is known.
pub(super) fn decode_with(
    head: Head,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    reader: &Reader<'_>,
) -> GlmOutcome {
    let text = layers::text(body);
    let outcome = outcome_of(head, status, as_it_came(body, &text));
    received_with(outcome, headers, body, reader)
}

/// What came instead of an answer stays with the failure.
fn received_with(
    outcome: GlmOutcome,
    headers: &HeaderMap,
    body: &[u8],
    reader: &Reader<'_>,
) -> GlmOutcome {
    match outcome {
        GlmOutcome::Failed(failure, usage) => {
            GlmOutcome::Failed(with_received(failure, headers, body, reader), usage)
        }
        other => other,
    }
}

/// A failure with what came instead of an answer, unless it has that already.
pub(crate) fn with_received(
    failure: Failure,
    headers: &HeaderMap,
    body: &[u8],
    reader: &Reader<'_>,
) -> Failure {
    let refuses = !failure.is_under_success();
    let received = || match reader.received(headers, body) {
        // A refusal that says nothing says so to its client, too.
        None if refuses => Some(Received::new([], None)),
        came => came,
    };
    let received = failure.received.or_else(|| received().map(Arc::new));
    Failure {
        received,
        ..failure
    }
}

fn outcome(status: u16, headers: &HeaderMap, body: &[u8], reader: &Reader<'_>) -> GlmOutcome {
    if !(200..300).contains(&status) {
        let failure = classify(status, headers, body, reader);
        return GlmOutcome::Failed(failure, Usage::default());
    }
    let form = form(reader.face);
    let text = layers::text(body);
    if let Some(head) = form.head(&text) {
        return outcome_of(head, status, as_it_came(body, &text));
    }
    // Of another shape: wrapped into something, an error, or an answer with something odd in it.
    match Content::of(form, &text) {
        Content::Answer(text, head) => outcome_of(head, status, as_it_came(body, &text)),
        // An error in the script of a page is the page's own.
        Content::Error(_) if layers::begins_with_words(&text) && is_page(headers, &text) => {
            GlmOutcome::Failed(page(status), Usage::default())
        }
        Content::Error(json) => {
            // What it used is billed, answer or not.
            let failure = classify_json(status, headers, &json, reader);
            let failure = Failure {
                received: error_in(&text, reader).map(Arc::new),
                ..failure
            };
            GlmOutcome::Failed(failure, form.usage_in(&json))
        }
        // A website has no answer for anybody.
        Content::NoAnswer(_) | Content::Unreadable(_) if is_page(headers, &text) => {
            GlmOutcome::Failed(page(status), Usage::default())
        }
        Content::NoAnswer(json) => {
            let usage = form.usage_in(&json);
            let failure = Failure {
                maybe_billed: is_in_doubt(&usage),
                ..invalid(status, &format!("it has no {}", form.lacks))
            };
            GlmOutcome::Failed(failure, usage)
        }
        Content::Unreadable(why) => {
            let why = layers::unread_coding(headers).map_or(why, |coding| {
                let coding: String = coding.chars().take(CODE_CHARS_MAX).collect();
                format!("it is packed with {coding}, which is not read; only gzip, deflate, br and zstd are")
            });
            GlmOutcome::Failed(invalid(status, &why), Usage::default())
        }
    }
}

/// The error in a frame of a stream, as it came: its client is told that and not the frame.
fn error_in(text: &str, reader: &Reader<'_>) -> Option<Received> {
    #[derive(Deserialize)]
    struct Frame {
        error: Option<IgnoredAny>,
    }

    if layers::leading_json(text).is_some() {
        return None;
    }
    let says_so = |json: &&str| {
        let frame: Option<Frame> = serde_json::from_str(json).ok();
        frame.is_some_and(|frame| frame.error.is_some())
    };
    let documents = layers::documents(text)?;
    let error = documents.iter().map(|json| &**json).find(says_so)?;
    Some(Received::new(
        reader.without_key(error.as_bytes()),
        Some(JSON),
    ))
}

/// What a success holds, once what was wrapped around it is off.
enum Content<'t> {
    /// An answer, as JSON.
    Answer(Cow<'t, str>, Head),
    /// An error in an answer's place.
    Error(Value),
    /// JSON that is neither.
    NoAnswer(Value),
    /// Nothing that can be read, and why.
    Unreadable(String),
}

impl<'t> Content<'t> {
    fn of(form: &Form, text: &'t str) -> Self {
        let Some(mut documents) = layers::documents(text) else {
            return Self::Unreadable(why_not_json(text));
        };
        // One alone is no piece of a stream, whatever its shape. A number before words is none of an answer.
        if documents.len() > 1 && layers::begins_with_words(text) {
            documents.retain(|json| json.starts_with('{'));
        }
        let only = match documents.len() {
            1 if layers::leading_json(text).is_some() || !layers::is_stream(text) => {
                documents.pop()
            }
            _ => None,
        };
        match only {
            Some(only) => Self::of_json(form, only),
            None => Self::of_documents(form, documents),
        }
    }

    fn of_json(form: &Form, text: Cow<'t, str>) -> Self {
        if let Some(head) = form.head(&text) {
            return Self::Answer(text, head);
        }
        match bounded::excerpt(&text) {
            Ok(json) => match form.odd_head(&json) {
                Some(head) => Self::Answer(text, head),
                None => match wrapped(form, &text, &json) {
                    Some(content) => content,
                    None if states_error(&json) => Self::Error(json),
                    None => Self::NoAnswer(json),
                },
            },
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    /// The content of several documents, those of a stream among them: the completion that one of them is, or their
    /// error, or the completion of which they are pieces.
    fn of_documents(form: &Form, documents: Vec<Cow<'t, str>>) -> Self {
        let assembled = (form.assemble)(&documents);
        let (mut last, mut error) = (None, None);
        for document in documents {
            match Self::of_json(form, document) {
                stated @ Self::Error(_) => error = error.or(Some(stated)),
                Self::Answer(text, head) if head.is_whole => return Self::Answer(text, head),
                Self::Answer(..) => {}
                other => last = Some(other),
            }
        }
        // An error behind a whole answer takes nothing from it.
        match (assembled, error.or(last)) {
            (Some(text), _) => Self::of_json(form, Cow::Owned(text)),
            (None, Some(other)) => other,
            (None, None) => {
                Self::Unreadable("it is a stream without an end, or with a hole".to_owned())
            }
        }
    }
}

/// The completion or the error that JSON of another shape holds: the `data` of
/// `{"code": 200, "success": true, "data": {...}}`, the envelope of GLM's older API, the first in a list, or the JSON
/// in a text.
fn wrapped<'t>(form: &Form, text: &str, json: &Value) -> Option<Content<'t>> {
    let inner = match json {
        Value::String(_) => serde_json::from_str(text).ok()?,
        Value::Array(_) => {
            let list: First<&RawValue, 1> = serde_json::from_str(text).ok()?;
            list.0.first()?.get().to_owned()
        }
        Value::Object(_) => {
            #[derive(Deserialize)]
            struct Envelope<'a> {
                #[serde(borrow)]
                data: &'a RawValue,
            }
            let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
            let data = envelope.data.get();
            match data.starts_with('"') {
                true => serde_json::from_str(data).ok()?,
                false => data.to_owned(),
            }
        }
        _ => return None,
    };
    if let Some(head) = form.head(&inner) {
        return Some(Content::Answer(Cow::Owned(inner), head));
    }
    let json = bounded::excerpt(&inner).ok().filter(Value::is_object)?;
    match form.odd_head(&json) {
        Some(head) => Some(Content::Answer(Cow::Owned(inner), head)),
        None => states_error(&json).then_some(Content::Error(json)),
    }
}

/// Whether a success says all that it has to, a completion or an error, whatever became of the body that brought it.
pub(crate) fn is_readable(face: Face, text: &str) -> bool {
    let form = form(face);
    form.head(text).is_some()
        || matches!(
            Content::of(form, text),
            Content::Answer(..) | Content::Error(_)
        )
}

/// Whether a success is a page for people, by what it says it is or by how it begins.
pub(crate) fn is_page(headers: &HeaderMap, text: &str) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    let named = kind.is_some_and(|kind| {
        let kind = kind.trim();
        ["text/html", "application/xhtml+xml"]
            .iter()
            .any(|html| kind.eq_ignore_ascii_case(html))
    });
    named || layers::is_page(text)
}

/// A website under 200: nothing was done for it.
pub(crate) fn page(status: u16) -> Failure {
    Failure {
        status_code: Some(status),
        ..Failure::new(
            FailureClass::OperatorFatal,
            code::HTML_PAGE,
            "the response is a web page, not an answer of GLM: see to glm.base_url and to the network",
        )
    }
}

fn why_not_json(text: &str) -> String {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => "it is no JSON object".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A success without an answer: the work may have been done all the same.
pub(crate) fn invalid(status: u16, why: &str) -> Failure {
    Failure {
        status_code: Some(status),
        maybe_billed: true,
        ..Failure::new(
            FailureClass::ServerTransient,
            code::BODY_INVALID,
            format!("the response is not a GLM answer: {why}"),
        )
    }
}

/// Whether a call that did not end in an answer is in doubt: with usage, the bill is known.
fn is_in_doubt(usage: &Usage) -> bool {
    !usage.is_reported()
}

/// Whether an answer with this head is one, however it ended.
pub(super) fn is_answer(head: &Head, status: u16) -> bool {
    failure_of(head, status).is_none()
}

/// An answer that ended in a way that makes it a failure.
fn failure_of(head: &Head, status: u16) -> Option<Failure> {
    let reason = head.finish_reason.as_deref()?;
    let message = match reason {
        "network_error" => "the inference failed midway (finish_reason network_error)",
        "sensitive" => "the output was cut by moderation (finish_reason sensitive)",
        // A partial answer is valid, as one cut by `length` is.
        "model_context_window_exceeded" if !head.has_content => {
            "the context window had no room for an answer; shorten the prompt"
        }
        _ => return None,
    };
    let code = format!("finish:{reason}");
    let class = ErrorTable::shipped().class(&code)?;
    Some(Failure {
        status_code: Some(status),
        maybe_billed: is_in_doubt(&head.usage),
        ..Failure::new(class, &code, message)
    })
}

/// An answer with the blanks around it, where nothing else was: it goes back to the byte.
fn as_it_came<'t>(body: &'t [u8], answer: &'t str) -> &'t str {
    let whole = std::str::from_utf8(body).ok();
    whole
        .filter(|whole| AnswerBody::is_around(whole, answer))
        .unwrap_or(answer)
}

/// What the call came to, with this text as its answer.
fn outcome_of(head: Head, status: u16, text: &str) -> GlmOutcome {
    match AnswerBody::new(text) {
        Ok(body) if let Some(failure) = failure_of(&head, status) => {
            let came = Received::new(body.text().as_bytes(), Some(JSON));
            let received = Some(Arc::new(came));
            GlmOutcome::Failed(
                Failure {
                    received,
                    ..failure
                },
                head.usage,
            )
        }
        Ok(body) => GlmOutcome::Answered(GlmAnswer {
            body,
            status_code: status,
            usage: usage::of_answer(head.usage, head.has_content),
            model: head.model,
        }),
        Err(error) => GlmOutcome::Failed(invalid(status, &error.to_string()), Usage::default()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
