//! One line of the input, from its text to a job: the three forms, and what is wrong with any other.

use onelane::model::{OnInterrupted, Request, Timestamp};
use onelane::object::Object;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a line asks for. What it leaves open is `None`.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The prompt or chat body.
    pub(crate) request: Request,
    /// The model, if it stands outside the chat body.
    pub(crate) model: Option<String>,
    /// Whose job it is.
    pub(crate) user_id: Option<String>,
    /// What it is about.
    pub(crate) content_id: Option<String>,
    /// How urgent it is.
    pub(crate) priority: Option<i32>,
    /// Retries of transient failures.
    pub(crate) max_retries: Option<u32>,
    /// It fails if it is not done by this moment.
    pub(crate) deadline: Option<Timestamp>,
    /// The total time of one call, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    /// What becomes of it when its call is interrupted.
    pub(crate) on_interrupted: Option<OnInterrupted>,
    /// Where its end is to be told.
    pub(crate) callback_url: Option<String>,
    /// Any JSON of the submitter's own.
    pub(crate) metadata: Option<Box<RawValue>>,
}

/// Fields of a job that a line can't have, and why. They would go to GLM as parameters otherwise.
const NOT_IN_A_FILE: [(&str, &str); 3] = [
    (
        "runAt",
        "a run sends its lines now; for a job of a later time POST /api/glm/jobs of `onelane serve`",
    ),
    (
        "after",
        "lines have no job ids that others could name; POST /api/glm/jobs of `onelane serve` has them",
    ),
    (
        "idempotencyKey",
        "a line is known by its content and its id; give it an id instead",
    ),
];

/// What was read from a line.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Its `custom_id` or `id`, also when something else is wrong.
    pub(crate) id: Option<String>,
    /// What it asks for, or what is wrong.
    pub(crate) asked: Result<Asked, String>,
}

/// Reads one line.
pub(crate) fn parse(text: &str) -> Parsed {
    let failed = |problem| Parsed {
        id: None,
        asked: Err(problem),
    };
    let mut fields = match Object::read(text) {
        Ok(object) => Fields(object),
        Err(error) => return failed(json_problem(&error)),
    };
    match fields.take_id() {
        Ok(id) => Parsed {
            id,
            asked: read(fields),
        },
        Err(problem) => failed(problem),
    }
}

fn read(mut fields: Fields<'_>) -> Result<Asked, String> {
    let user_id = fields.take_text("userId")?;
    let content_id = fields.take_text("contentId")?;
    let priority = fields.take_priority()?;
    for (name, why) in NOT_IN_A_FILE {
        if fields.take_value(name).is_some() {
            return Err(format!("{name}: can't stand in a line: {why}"));
        }
    }
    let max_retries = fields.take_as("maxRetries", "a whole number of retries")?;
    let timeout_ms = fields.take_as("timeout", "a whole number of milliseconds")?;
    let on_interrupted = fields.take_as("onInterrupted", "one of retry, park, fail")?;
    let deadline = fields.take_deadline()?;
    let callback_url = fields.take_text("callbackUrl")?;
    let metadata = fields.take_value("metadata").map(RawValue::to_owned);
    let forms = ["prompt", "messages", "body"];
    let given: Vec<&str> = forms.into_iter().filter(|name| fields.has(name)).collect();
    let (request, model) = match given.as_slice() {
        ["prompt"] => read_prompt(fields)?,
        ["messages"] => (chat(&fields)?, None),
        ["body"] => (read_batch(fields)?, None),
        [] => return Err("needs one of prompt, messages and body".to_owned()),
        several => return Err(format!("has {}; give one of them", several.join(" and "))),
    };
    Ok(Asked {
        request,
        model,
        user_id,
        content_id,
        priority,
        max_retries,
        deadline,
        timeout_ms,
        on_interrupted,
        callback_url,
        metadata,
    })
}

/// `{"prompt": ...}`: a plain prompt, or, with GLM parameters beside it, the chat body that it means.
fn read_prompt(mut fields: Fields<'_>) -> Result<(Request, Option<String>), String> {
    let model = fields.take_text("model")?;
    let prompt = fields
        .take("prompt")
        .filter(|raw| raw.get().starts_with('"'))
        .ok_or("prompt: must be a string")?;
    let text: String = serde_json::from_str(prompt.get()).map_err(|e| json_problem(&e))?;
    let plain = Request::prompt(text).map_err(|e| e.to_string())?;
    if fields.0.iter().next().is_none() {
        return Ok((plain, model));
    }
    fields.refuse_stream()?;
    let messages = format!(r#"[{{"role":"user","content":{}}}]"#, prompt.get());
    let rest = fields.members();
    let body = format!(r#"{{"messages":{messages},{rest}}}"#);
    let request = Request::chat(&body).map_err(|e| e.to_string())?;
    Ok((request, model))
}

/// `{"custom_id", "method", "url", "body"}`: the batch form of OpenAI and GLM.
fn read_batch(mut fields: Fields<'_>) -> Result<Request, String> {
    if let Some(method) = fields.take_text("method")?
        && method != "POST"
    {
        return Err(format!("method: must be POST, not {method:?}"));
    }
    if let Some(url) = fields.take_text("url")?
        && !url.ends_with("/chat/completions")
    {
        return Err(format!("url: must end in /chat/completions, not {url:?}"));
    }
    let body = fields.take("body").ok_or("body: is missing")?;
    if let Some((name, _)) = fields.0.iter().next() {
        return Err(format!(
            "{name}: is not a field of the batch form; put it into body"
        ));
    }
    let inner = Object::read(body.get()).map(Fields);
    let inner = inner.map_err(|_| "body: must be a JSON object".to_owned())?;
    inner.refuse_stream().map_err(|e| format!("body.{e}"))?;
    if inner.has("callbackUrl") {
        return Err("body.callbackUrl: is no parameter of GLM's; put it beside body".to_owned());
    }
    Request::chat(body.get()).map_err(|e| format!("body: {e}"))
}

/// What is left of the fields, as a chat body: order, spelling and unknown fields are kept.
fn chat(fields: &Fields<'_>) -> Result<Request, String> {
    fields.refuse_stream()?;
    Request::chat(&format!("{{{}}}", fields.members())).map_err(|e| e.to_string())
}

/// The fields of a line.
struct Fields<'a>(Object<'a>);

impl<'a> Fields<'a> {
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.0.take(name)
    }

    /// A field that is `null` is as good as missing.
    fn take_value(&mut self, name: &str) -> Option<&'a RawValue> {
        self.take(name).filter(|raw| raw.get() != "null")
    }

    fn take_text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.take_value(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| format!("{name}: must be a string"))
    }

    fn take_priority(&mut self) -> Result<Option<i32>, String> {
        self.take_value("priority")
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| {
                format!(
                    "priority: must be an integer from {} to {}",
                    i32::MIN,
                    i32::MAX
                )
            })
    }

    fn take_as<T: Deserialize<'a>>(&mut self, name: &str, what: &str) -> Result<Option<T>, String> {
        self.take_value(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| format!("{name}: must be {what}"))
    }

    fn take_deadline(&mut self) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.take_text("deadline")? else {
            return Ok(None);
        };
        let deadline = Timestamp::parse_rfc3339(&text).ok_or_else(|| {
            "deadline: must be a time in RFC 3339, like 2026-11-23T08:00:00Z".to_owned()
        })?;
        Ok(Some(deadline))
    }

    /// The line's own id; a number counts as its text.
    fn take_id(&mut self) -> Result<Option<String>, String> {
        let custom_id = self.take_value("custom_id");
        let id = self.take_value("id");
        let (name, raw) = match (custom_id, id) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err("has custom_id and id; give one of them".to_owned()),
            (Some(raw), None) => ("custom_id", raw),
            (None, Some(raw)) => ("id", raw),
        };
        let problem =
            || format!("{name}: must be a string of 1 to {ID_CHARS_MAX} characters, or a number");
        let text = match raw.get().chars().next() {
            Some('"') => serde_json::from_str(raw.get()).map_err(|_| problem())?,
            Some('-' | '0'..='9') => raw.get().to_owned(),
            _ => return Err(problem()),
        };
        if (1..=ID_CHARS_MAX).contains(&text.chars().count()) {
            Ok(Some(text))
        } else {
            Err(problem())
        }
    }

    /// A file has no use for a stream.
    fn refuse_stream(&self) -> Result<(), String> {
        match self.0.get("stream") {
            Some(raw) if raw.get() == "true" => {
                Err("stream: a result is written whole; leave it out".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The fields as the inside of a JSON object.
    fn members(&self) -> String {
        let members: Vec<String> = self
            .0
            .iter()
            .map(|(name, raw)| format!("{}:{}", serde_json::Value::from(name), raw.get()))
            .collect();
        members.join(",")
    }
}

/// Characters of a line's id.
const ID_CHARS_MAX: usize = 256;

/// The parser counts lines within the text it got, which is one line: only its column tells anything.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    match error.column() {
        // Found when the object was read to its end.
        0 => format!("not a JSON object: {what}"),
        column => format!("not a JSON object: {what} at column {column}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        parse(text).asked.unwrap()
    }

    fn chat_text(request: &Request) -> &str {
        match request {
            Request::Chat(raw) => raw.get(),
            Request::Prompt(text) => panic!("a plain prompt: {text}"),
        }
    }

    #[test]
    fn a_prompt_with_its_fields() {
        let parsed = parse(
            r#"{"prompt":"hi","id":"a","model":"glm-5","priority":-3,"userId":"u","contentId":"c"}"#,
        );
        assert_eq!(parsed.id.as_deref(), Some("a"));
        let asked = parsed.asked.unwrap();
        assert!(matches!(&asked.request, Request::Prompt(text) if text == "hi"));
        assert_eq!(asked.model.as_deref(), Some("glm-5"));
        assert_eq!(asked.priority, Some(-3));
        assert_eq!(asked.user_id.as_deref(), Some("u"));
        assert_eq!(asked.content_id.as_deref(), Some("c"));
    }

    #[test]
    fn a_callback_is_the_jobs_in_every_form_and_no_parameter() {
        let callback = r#""callbackUrl":"https://example.com/""#;
        let message = r#""messages":[{"role":"user","content":"hi"}]"#;
        for form in [
            r#""prompt":"hi","temperature":0.2"#.to_owned(),
            message.to_owned(),
            format!(r#""custom_id":"a","body":{{{message}}}"#),
        ] {
            let asked = asked(&format!("{{{form},{callback}}}"));
            assert_eq!(asked.callback_url.as_deref(), Some("https://example.com/"));
            assert!(!chat_text(&asked.request).contains("callbackUrl"), "{form}");
        }
        let inside = format!(r#"{{"body":{{{message},{callback}}}}}"#);
        let problem = parse(&inside).asked.unwrap_err();
        assert!(problem.contains("put it beside body"), "{problem}");
    }

    #[test]
    fn parameters_beside_a_prompt_are_not_lost() {
        let asked = asked(r#"{"prompt":"say \"hi\"","temperature":0.20,"model":"glm-5"}"#);
        assert_eq!(
            chat_text(&asked.request),
            r#"{"messages":[{"role":"user","content":"say \"hi\""}],"temperature":0.20}"#
        );
        assert_eq!(asked.model.as_deref(), Some("glm-5"));
    }

    #[test]
    fn a_chat_body_keeps_everything_that_is_not_ours() {
        let asked = asked(
            r#"{"id":7,"model":"glm-4.7","messages":[{"role":"user","content":"hi"}],"priority":2,"thinking":null,"x":1.50,"user_id":"theirs"}"#,
        );
        assert_eq!(
            chat_text(&asked.request),
            r#"{"model":"glm-4.7","messages":[{"role":"user","content":"hi"}],"thinking":null,"x":1.50,"user_id":"theirs"}"#
        );
        assert_eq!(asked.request.model().as_deref(), Some("glm-4.7"));
        assert_eq!((asked.model, asked.priority), (None, Some(2)));
    }

    #[test]
    fn fields_of_a_job_are_the_jobs_and_no_parameters() {
        let fields = r#""maxRetries":0,"timeout":9000,"onInterrupted":"park","metadata":{"n": 1.50},
            "deadline":"2026-11-23T08:00:00Z""#;
        let message = r#""messages":[{"role":"user","content":"hi"}]"#;
        for (form, body) in [
            (r#""prompt":"hi""#.to_owned(), None),
            (message.to_owned(), Some(format!("{{{message}}}"))),
            (
                format!(r#""custom_id":"a","body":{{{message}}}"#),
                Some(format!("{{{message}}}")),
            ),
        ] {
            let asked = asked(&format!("{{{form},{fields}}}"));
            assert_eq!(
                (asked.max_retries, asked.timeout_ms),
                (Some(0), Some(9_000))
            );
            assert_eq!(asked.on_interrupted, Some(OnInterrupted::Park));
            assert_eq!(
                asked.deadline,
                Timestamp::parse_rfc3339("2026-11-23T08:00:00Z")
            );
            assert_eq!(asked.metadata.unwrap().get(), r#"{"n": 1.50}"#);
            match body {
                None => assert!(matches!(asked.request, Request::Prompt(_))),
                Some(body) => assert_eq!(chat_text(&asked.request), body),
            }
        }
        let none = asked(r#"{"prompt":"hi","runAt":null,"maxRetries":null,"metadata":null}"#);
        assert!(matches!(none.request, Request::Prompt(_)));
    }

    #[test]
    fn a_number_is_an_id_too() {
        assert_eq!(parse(r#"{"id":7,"prompt":"hi"}"#).id.as_deref(), Some("7"));
    }

    #[test]
    fn the_batch_form_keeps_its_body_to_the_byte() {
        let parsed = parse(
            r#"{"custom_id":"r-1","method":"POST","url":"/v4/chat/completions","body":{ "model":"glm-4.7", "messages":[{"role":"user","content":"hi"}]},"priority":9}"#,
        );
        assert_eq!(parsed.id.as_deref(), Some("r-1"));
        let asked = parsed.asked.unwrap();
        assert_eq!(
            chat_text(&asked.request),
            r#"{ "model":"glm-4.7", "messages":[{"role":"user","content":"hi"}]}"#
        );
        assert_eq!(asked.priority, Some(9));
    }

    #[test]
    fn null_is_as_good_as_missing() {
        let parsed =
            parse(r#"{"prompt":"hi","id":null,"model":null,"priority":null,"userId":null}"#);
        assert_eq!(parsed.id, None);
        let asked = parsed.asked.unwrap();
        assert!(matches!(asked.request, Request::Prompt(_)));
        assert_eq!(
            (asked.model, asked.priority, asked.user_id),
            (None, None, None)
        );
    }

    #[test]
    fn a_bad_line_is_told_what_is_wrong_with_it() {
        let check = |text: &str, want: &str| {
            let problem = parse(text).asked.unwrap_err();
            assert!(problem.contains(want), "{text}: {problem}");
        };
        check("{", "at column 1");
        check("hello", "not a JSON object");
        check("[1]", "expected a JSON object");
        check(r#""text""#, "expected a JSON object");
        check(r#"{"prompt":"a"} {"prompt":"b"}"#, "trailing characters");
        check("{}", "one of prompt, messages and body");
        check(r#"{"text":"hi"}"#, "one of prompt, messages and body");
        check(
            r#"{"prompt":"a","messages":[]}"#,
            "prompt and messages; give one",
        );
        check(r#"{"prompt":"a","prompt":"b"}"#, "given twice");
        check(r#"{"prompt":7}"#, "prompt: must be a string");
        check(r#"{"prompt":" "}"#, "prompt is empty");
        check(r#"{"messages":[]}"#, "at least one message");
        check(
            r#"{"messages":[{"role":"user","content":"a"}],"stream":true}"#,
            "stream: ",
        );
        check(
            r#"{"prompt":"a","priority":"high"}"#,
            "priority: must be an integer",
        );
        check(
            r#"{"prompt":"a","priority":1.5}"#,
            "priority: must be an integer",
        );
        check(
            r#"{"prompt":"a","priority":3000000000}"#,
            "priority: must be an integer",
        );
        check(
            r#"{"prompt":"a","runAt":"2026-11-23T08:00:00Z"}"#,
            "runAt: can't stand in a line: a run sends its lines now",
        );
        check(
            r#"{"messages":[{"role":"user","content":"a"}],"after":[]}"#,
            "after: can't stand in a line: lines have no job ids",
        );
        check(
            r#"{"custom_id":"a","body":{},"idempotencyKey":"k"}"#,
            "idempotencyKey: can't stand in a line: a line is known by its content",
        );
        check(
            r#"{"prompt":"a","maxRetries":-1}"#,
            "maxRetries: must be a whole number of retries",
        );
        check(
            r#"{"prompt":"a","timeout":"9s"}"#,
            "timeout: must be a whole number of milliseconds",
        );
        check(
            r#"{"prompt":"a","onInterrupted":"never"}"#,
            "onInterrupted: must be one of retry, park, fail",
        );
        check(
            r#"{"prompt":"a","deadline":"tomorrow"}"#,
            "deadline: must be a time in RFC 3339",
        );
        check(r#"{"prompt":"a","userId":1}"#, "userId: must be a string");
        check(
            r#"{"prompt":"a","model":["glm-5"]}"#,
            "model: must be a string",
        );
        check(r#"{"prompt":"a","id":{}}"#, "id: must be a string");
        check(r#"{"prompt":"a","id":""}"#, "id: must be a string of 1 to");
        check(
            r#"{"prompt":"a","id":"x","custom_id":"y"}"#,
            "custom_id and id",
        );
        check(
            r#"{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{}}"#,
            "method: must be POST",
        );
        check(
            r#"{"custom_id":"a","url":"/v1/embeddings","body":{}}"#,
            "url: must end in",
        );
        check(
            r#"{"custom_id":"a","body":"hi"}"#,
            "body: must be a JSON object",
        );
        check(r#"{"custom_id":"a","body":{}}"#, "body: messages");
        check(r#"{"custom_id":"a","body":{"stream":true}}"#, "body.stream");
        check(
            r#"{"custom_id":"a","body":{},"temperature":1}"#,
            "temperature: is not a field of the batch form",
        );
    }

    #[test]
    fn a_line_with_another_fault_still_says_its_id() {
        assert_eq!(parse(r#"{"id":"a","prompt":7}"#).id.as_deref(), Some("a"));
    }
}
