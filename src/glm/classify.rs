//! Gives a refusal its class: by GLM's code, then by the HTTP status, never by its words, except to read
//! the moment at which a quota opens again.

use std::borrow::Cow;

use onelane_actors::ports::Clock;
use onelane_core::model::{Face, Failure, FailureClass, Received, limits};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};

use super::errors::ErrorTable;
use super::retry_after::retry_after_ms;
use super::{layers, reset};
use crate::bounded;

/// The characters of a code that are kept; GLM's have four.
pub(super) const CODE_CHARS_MAX: usize = 64;
/// The characters that are shown of a body that is no GLM error.
const EXCERPT_CHARS_MAX: usize = 200;
/// Errors inside errors that are looked at.
const LEVELS_MAX: usize = 4;
/// A key shorter than this is no secret, and taking it out would spoil the words around it.
const KEY_CHARS_MIN: usize = 6;

/// What reading a response takes beside it: the time, for what it states relative to now, how its face
/// answers, and the secret that must not come through.
pub(crate) struct Reader<'a> {
    pub(crate) clock: &'a dyn Clock,
    /// The face that was called.
    pub(crate) face: Face,
    pub(crate) api_key: &'a str,
}

/// What a response with this status, these headers and this body (whole or not) failed of. Total: any
/// bytes give a failure.
pub(crate) fn classify(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    reader: &Reader<'_>,
) -> Failure {
    match json_in(body) {
        Some(json) => classify_json(status, headers, &json, reader),
        None => {
            // Before it is cut: half of a key would not be known as one.
            let body = reader.without_key(body);
            failure(status, headers, Stated::in_text(status, &body), reader)
        }
    }
}

/// Documents of a refusal that are looked at.
const DOCUMENTS_MAX: usize = 1_000;

/// The JSON of a body, whatever a relay wrapped around it: the error in it, else what it begins with.
fn json_in(body: &[u8]) -> Option<Value> {
    let text = layers::text(body);
    // Behind words only what is an error says more than they do.
    let begins = !layers::begins_with_words(&text);
    let mut first = None;
    // Pieces of an answer may come before the error.
    for document in layers::documents(&text)?.iter().take(DOCUMENTS_MAX) {
        let Ok(json) = bounded::excerpt(document) else {
            continue;
        };
        if json.get("error").or_else(|| json.get("code")).is_some() {
            return Some(json);
        }
        let says_something = begins && (json.is_object() || json.is_array());
        first = first.or_else(|| says_something.then_some(json));
    }
    first
}

/// The same for a body that is parsed already.
pub(crate) fn classify_json(
    status: u16,
    headers: &HeaderMap,
    json: &Value,
    reader: &Reader<'_>,
) -> Failure {
    failure(status, headers, Stated::in_json(status, json), reader)
}

fn failure(status: u16, headers: &HeaderMap, stated: Stated, reader: &Reader<'_>) -> Failure {
    let table = ErrorTable::shipped();
    let known = stated.code.as_deref().and_then(|code| table.class(code));
    let class = known.unwrap_or_else(|| class_of_status(stated.status(status)));
    let message = reader.shown(&stated.message, limits::FAILURE_MESSAGE_CHARS_MAX);
    let now = reader.clock.now();
    let reset_at = match (class, known) {
        // A code that the table doesn't know may be a new quota; the policy may know it.
        (FailureClass::QuotaWindow, _) | (_, None) => reset::stated_reset(&message, now),
        _ => None,
    };
    let code = stated
        .code
        .map(|code| reader.shown(&code, CODE_CHARS_MAX))
        .unwrap_or_else(|| format!("http_{status}"));
    let message = match is_chinese(&message) {
        true => in_both(&message, &table.explanation(&code, class), &stated.judged),
        false => {
            let room =
                limits::FAILURE_MESSAGE_CHARS_MAX.saturating_sub(stated.judged.chars().count());
            message
                .chars()
                .take(room)
                .chain(stated.judged.chars())
                .collect()
        }
    };
    Failure {
        class,
        status_code: Some(status),
        message,
        retry_after_ms: retry_after_ms(headers, now),
        // The only quota whose message states no time: it is a day's.
        reset_at: reset_at.or_else(|| (code == "1304").then(|| reset::next_midnight(now))),
        maybe_billed: false,
        received: None,
        code,
    }
}

/// Whether a text needs a translation.
fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| matches!(c, '\u{3400}'..='\u{9fff}'))
}

/// GLM's words with ours behind them, within the bound of a message.
fn in_both(words: &str, ours: &str, judged: &str) -> String {
    let ours = format!(" [{ours}]{judged}");
    let room = limits::FAILURE_MESSAGE_CHARS_MAX.saturating_sub(ours.chars().count());
    words.chars().take(room).chain(ours.chars()).collect()
}

/// Whose text a content filter judged, of `contentFilter: [{"role": "user", "level": 1}]`.
fn judged(json: &Map<String, Value>) -> String {
    let found = json.get("contentFilter").and_then(Value::as_array);
    let said = |entry: &Value| {
        let text = match entry.get("role")?.as_str()? {
            "user" => "the prompt",
            "assistant" => "the output",
            "history" => "an earlier message",
            "search" => "a search result",
            _ => return None,
        };
        let level = entry.get("level").and_then(Value::as_u64);
        Some(level.map_or_else(
            || text.to_owned(),
            |level| format!("{text} (level {level}, 0 is the gravest)"),
        ))
    };
    let judged: Vec<String> = found
        .into_iter()
        .flatten()
        .filter_map(said)
        .take(8)
        .collect();
    match judged.is_empty() {
        true => String::new(),
        false => format!(" (judged sensitive: {})", judged.join(", ")),
    }
}

/// Whether a 200 carries an error instead of an answer.
pub(crate) fn states_error(json: &Value) -> bool {
    let has = |name: &str| json.get(name).is_some_and(|v| !v.is_null());
    // An envelope of the older API states its success by a code, too.
    let is_good = json.get("code").is_some_and(|code| {
        matches!(code.as_u64(), Some(0 | 200)) || matches!(code.as_str(), Some("0" | "200" | ""))
    });
    has("error") || (has("code") && !is_good) || json.get("success") == Some(&Value::Bool(false))
}

/// The class of a failure whose code says nothing.
pub(crate) fn class_of_status(status: u16) -> FailureClass {
    if let Some(class) = ErrorTable::shipped().class(&format!("http_{status}")) {
        return class;
    }
    match status {
        // A key that is refused: every job would meet the same.
        401 => FailureClass::OperatorFatal,
        429 => FailureClass::Throttle,
        // What the server read of the request itself.
        400 | 413 | 415 | 422 => FailureClass::RequestFatal,
        425 => FailureClass::ServerTransient,
        // A base URL that leads elsewhere, a firewall that dislikes a prompt, a relay that asks 402 for what one call
        // may come to: other jobs tell which.
        100..=199 | 300..=499 => FailureClass::Unattributed,
        _ => FailureClass::ServerTransient,
    }
}

/// A body's own words about its failure.
struct Stated {
    code: Option<String>,
    message: String,
    /// Whose text a content filter judged; empty: it says nothing of that.
    judged: String,
}

impl Stated {
    /// Nested (`error.code`), flat (`code`), or Anthropic's (`error.message` begins with `[code]`). What stands
    /// further inside is nearer to its origin.
    fn in_json(status: u16, json: &Value) -> Self {
        let levels = levels(json);
        let innermost = |read: &dyn Fn(&Map<String, Value>) -> Option<String>| {
            levels.iter().rev().find_map(read)
        };
        let message = innermost(&|level| words_of(level).map(str::to_owned));
        let code = innermost(&|level| level.get("code").and_then(code_text))
            .or_else(|| message.as_deref().and_then(bracketed_code))
            .or_else(|| kind_of_message(status, json));
        let message = message.unwrap_or_else(|| match &code {
            Some(_) => format!("HTTP {status} without a message"),
            None => format!("HTTP {status} with JSON that is no GLM answer"),
        });
        Self {
            code,
            message,
            judged: levels
                .iter()
                .rev()
                .map(judged)
                .find(|told| !told.is_empty())
                .unwrap_or_default(),
        }
    }

    /// A page of a proxy, a word, nothing: no code.
    fn in_text(status: u16, body: &[u8]) -> Self {
        // Four bytes a character at most, and tags and spaces are not shown.
        let head = body.get(..EXCERPT_CHARS_MAX * 16).unwrap_or(body);
        let text = String::from_utf8_lossy(head);
        let excerpt: String = without_tags(&text)
            .chars()
            .take(EXCERPT_CHARS_MAX)
            .collect();
        let message = if excerpt.is_empty() {
            format!("HTTP {status} with an empty body")
        } else {
            format!("HTTP {status} without a GLM error: {excerpt}")
        };
        Self {
            code: None,
            message,
            judged: String::new(),
        }
    }

    /// The HTTP status that counts: the real one, or, under a success, the one in the body.
    fn status(&self, status: u16) -> u16 {
        let inner = self.code.as_ref().and_then(|code| code.parse().ok());
        match inner {
            Some(inner @ 400..=599) if (200..300).contains(&status) => inner,
            _ => status,
        }
    }
}

/// The objects of an error, from the outermost to the innermost: relays put an error into an error, into a list, or as
/// JSON into a text.
fn levels(json: &Value) -> Vec<Map<String, Value>> {
    let mut levels = Vec::new();
    let mut next = object_in(json);
    while let Some(level) = next.take()
        && levels.len() < LEVELS_MAX
    {
        next = level.get("error").and_then(object_in);
        next = next.or_else(|| quoted(&level));
        levels.push(level);
    }
    levels
}

/// The error that an error's message quotes, where that has a code of GLM's and the one around it has none.
fn quoted(level: &Map<String, Value>) -> Option<Map<String, Value>> {
    let is_known = |level: &Map<String, Value>| {
        let code = level.get("code").and_then(code_text);
        code.is_some_and(|code| ErrorTable::shipped().row(&code).is_some())
    };
    let quoted = object_in(&Value::String(words_of(level)?.to_owned()))?;
    let error = quoted.get("error").and_then(object_in)?;
    (!is_known(level) && is_known(&error)).then_some(error)
}

/// An object, the first of a list, or that in a text.
fn object_in(json: &Value) -> Option<Map<String, Value>> {
    match json {
        Value::Object(object) => Some(object.clone()),
        Value::Array(list) => list.first()?.as_object().cloned(),
        Value::String(text) if text.trim_start().starts_with('{') => {
            let inner = bounded::excerpt(layers::leading_json(text)?.get()).ok()?;
            inner.as_object().cloned()
        }
        _ => None,
    }
}

/// What an error says for people.
fn words_of(level: &Map<String, Value>) -> Option<&str> {
    let words = |name: &str| level.get(name).and_then(Value::as_str);
    ["message", "msg", "error"]
        .into_iter()
        .filter_map(words)
        .find(|text| !text.is_empty())
}

fn code_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(match number.as_f64() {
            // 1302.0 is 1302.
            Some(float) if number.as_i64().is_none() && float.fract() == 0.0 => float.to_string(),
            _ => number.to_string(),
        }),
        _ => None,
    }
}

/// The type of an error of the messages API that states no code, under a success: there it is all that says what it is.
fn kind_of_message(status: u16, json: &Value) -> Option<String> {
    if !(200..300).contains(&status) || json.get("type")?.as_str()? != "error" {
        return None;
    }
    let kind = json.get("error")?.get("type")?.as_str()?;
    ErrorTable::shipped().row(kind).map(|row| row.code.clone())
}

/// The code of `[1308][words][request id]`.
fn bracketed_code(message: &str) -> Option<String> {
    let (code, _) = message.trim_start().strip_prefix('[')?.split_once(']')?;
    let digits = (3..=6).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| code.to_owned())
}

/// The words of a page in one line.
fn without_tags(text: &str) -> String {
    let mut words = String::new();
    let mut in_tag = false;
    for c in text.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                words.push(' ');
            }
            _ if in_tag => {}
            c => words.push(c),
        }
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ")
}

/// Bytes with `****` for what must not be shown.
fn replaced(bytes: Vec<u8>, hidden: &[u8]) -> Vec<u8> {
    if !bytes.windows(hidden.len()).any(|part| part == hidden) {
        return bytes;
    }
    let mut shown = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some(first) = rest.first() {
        match rest.strip_prefix(hidden) {
            Some(behind) => {
                shown.extend_from_slice(b"****");
                rest = behind;
            }
            None => {
                shown.push(*first);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    shown
}

impl Reader<'_> {
    /// What came in a body instead of an answer, without the key if the server sent it back; `None`: nothing.
    pub(crate) fn received(&self, headers: &HeaderMap, body: &[u8]) -> Option<Received> {
        if body.is_empty() {
            return None;
        }
        let bytes = self.without_key(body);
        let content_type = headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|name| name.to_str().ok());
        Some(Received::new(bytes, content_type))
    }

    /// Bytes without the key.
    pub(crate) fn without_key(&self, bytes: &[u8]) -> Vec<u8> {
        let hidden = self.hidden();
        hidden.fold(bytes.to_vec(), |bytes, hidden| {
            replaced(bytes, hidden.as_bytes())
        })
    }

    /// What must not come through: a GLM key is `id.secret`, and the secret alone is as good as the whole.
    fn hidden(&self) -> impl Iterator<Item = &str> {
        let secret = self.api_key.split_once('.').map(|(_, secret)| secret);
        let hidden = std::iter::once(self.api_key).chain(secret);
        hidden.filter(|hidden| hidden.chars().count() >= KEY_CHARS_MIN)
    }

    /// `text` as it may be shown: bounded, in one line, and without the key if the server sent it back.
    pub(crate) fn shown(&self, text: &str, chars_max: usize) -> String {
        // Before it is cut: half of a key would not be known as one.
        let shown = self.hidden().fold(Cow::Borrowed(text), |text, hidden| {
            match text.contains(hidden) {
                true => Cow::Owned(text.replace(hidden, "****")),
                false => text,
            }
        });
        let one_line = |c: char| if c.is_control() { ' ' } else { c };
        shown.chars().take(chars_max).map(one_line).collect()
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
