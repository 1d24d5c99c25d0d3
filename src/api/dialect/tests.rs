//! One dialect: whatever a line may say, a request to the API may, and the other way round.

use super::*;

fn line(text: &str) -> Line {
    Dialect::new().line(text)
}

fn asked(text: &str) -> Asked {
    line(text)
        .asked
        .unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn chat_text(request: &Request) -> &str {
    match request {
        Request::Chat(raw) => raw.get(),
        Request::Prompt(text) => panic!("a plain prompt: {text}"),
    }
}

fn posted(text: &str) -> Result<Asked, Faults> {
    Dialect::new().read(serde_json::from_str(text).unwrap(), "")
}

#[test]
fn a_line_and_a_request_to_the_api_say_the_same() {
    for text in [
        r#"{"prompt":"hi","priority":5,"userId":"alice","id":"a"}"#,
        r#"{"prompt":"hi","temperature":0.2,"max_tokens":9}"#,
        r#"{"messages":[{"role":"user","content":"hi"}],"model":"glm-4.7","temperature":0.2}"#,
        r#"{"messages":[{"role":"user","content":"hi"}],"parameters":{"n":2},"thinking":null}"#,
        r#"{"request":{"model":"glm-5","messages":[{}]},"maxRetries":1}"#,
        r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[{}]}}"#,
    ] {
        let (of_line, of_post) = (asked(text), posted(text).unwrap());
        assert_eq!(format!("{of_line:?}"), format!("{of_post:?}"));
    }
    for text in [
        r#"{"prompt":"hi","temprature":0.2}"#,
        r#"{"prompt":"hi","n":2}"#,
        r#"{"prompt":"hi","max_token":2}"#,
        r#"{"prompt":7}"#,
        r#"{"messages":[]}"#,
        r#"{"custom_id":"a","body":{"messages":[{}]},"temperature":1}"#,
    ] {
        let problem = line(text).asked.unwrap_err();
        assert_eq!(problem, told(&posted(text).err().unwrap().first), "{text}");
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_one_that_was_meant() {
    let check = |text: &str, want: &str| {
        let problem = line(text).asked.unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
    };
    check(r#"{"prompt":"a","prio":1}"#, "prio: is unknown; ");
    check(
        r#"{"prompt":"a","temprature":1}"#,
        "did you mean temperature?",
    );
    check(
        r#"{"prompt":"a","maxTokens":1}"#,
        "did you mean max_tokens?",
    );
    check(r#"{"prompt":"a","topP":1}"#, "did you mean top_p?");
    check(r#"{"promt":"a"}"#, "did you mean prompt?");
    check(r#"{"message":[]}"#, "did you mean messages?");
    check(
        r#"{"prompt":"a","content_id":"c"}"#,
        "did you mean contentId?",
    );
    check(
        r#"{"prompt":"a","presence_penalty":1}"#,
        "presence_penalty: is unknown",
    );
    let taken = asked(r#"{"prompt":"a","parameters":{"presence_penalty":1.50,"x":[ ]}}"#);
    assert_eq!(
        chat_text(&taken.request),
        r#"{"messages":[{"role":"user","content":"a"}],"presence_penalty":1.50,"x":[ ]}"#
    );
}

#[test]
fn glms_parameters_stand_flat_beside_prompts_and_messages_alike() {
    let flat: Vec<String> = PARAMETERS
        .iter()
        .filter(|(name, _)| *name != "stream")
        .map(|(name, _)| format!("{name:?}:1"))
        .collect();
    let flat = flat.join(",");
    for form in [
        r#""prompt":"hi""#,
        r#""messages":[{"role":"user","content":"hi"}]"#,
    ] {
        let asked = asked(&format!("{{{form},{flat}}}"));
        let want = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],{flat}}}"#);
        assert_eq!(chat_text(&asked.request), want);
    }
    assert!(matches!(
        asked(r#"{"prompt":"hi","model":"glm-5"}"#).request,
        Request::Prompt(_)
    ));
}

#[test]
fn a_prompt_with_its_fields() {
    let parsed = line(
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
    let problem = line(&inside).asked.unwrap_err();
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
fn the_submitters_own_name_is_what_the_job_is_about() {
    assert_eq!(line(r#"{"id":7,"prompt":"hi"}"#).id.as_deref(), Some("7"));
    assert_eq!(
        asked(r#"{"id":7,"prompt":"hi"}"#).content_id.as_deref(),
        Some("7")
    );
    let both = asked(r#"{"custom_id":"r-1","contentId":"c","body":{"messages":[{}]}}"#);
    assert_eq!(both.content_id.as_deref(), Some("c"));
}

#[test]
fn the_batch_form_keeps_its_body_to_the_byte() {
    let parsed = line(
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
    let parsed = line(r#"{"prompt":"hi","id":null,"model":null,"priority":null,"userId":null}"#);
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
        let problem = line(text).asked.unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
    };
    check("{", "at column 1");
    check("hello", "not a JSON object");
    check("[1]", "expected a JSON object");
    check(r#""text""#, "expected a JSON object");
    check(r#"{"prompt":"a"} {"prompt":"b"}"#, "trailing characters");
    check("{}", "prompt: is missing; give a prompt, or messages");
    check(
        r#"{"prompt":"a","messages":[{}]}"#,
        "messages: can't stand beside prompt",
    );
    check(r#"{"prompt":"a","prompt":"b"}"#, "given twice");
    check(r#"{"prompt":7}"#, "prompt: must be a string");
    check(r#"{"prompt":" "}"#, "prompt: is empty");
    check(r#"{"prompt":" ","top_p":1}"#, "prompt: is empty");
    check(
        r#"{"messages":[]}"#,
        "messages: must be a list that is not empty",
    );
    check(
        r#"{"messages":[{"role":"user","content":"a"}],"stream":true}"#,
        "stream: a stored job is not streamed",
    );
    check(
        r#"{"prompt":"a","priority":"high"}"#,
        "priority: must be a whole number",
    );
    check(
        r#"{"prompt":"a","priority":3000000000}"#,
        "priority: must be a whole number",
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
        "maxRetries: must be a whole number",
    );
    check(
        r#"{"prompt":"a","timeout":"9s"}"#,
        "timeout: must be a whole number",
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
    check(r#"{"prompt":"a","id":{}}"#, "id: must be a string");
    check(r#"{"prompt":"a","id":""}"#, "id: must be a string of 1 to");
    check(
        r#"{"prompt":"a","id":"x","custom_id":"y"}"#,
        "custom_id: can't stand beside id",
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
        r#"{"prompt":"a","url":"/v1/chat/completions"}"#,
        "url: belongs to the batch form",
    );
    check(
        r#"{"custom_id":"a","body":"hi"}"#,
        "body: must be a JSON object",
    );
    check(
        r#"{"custom_id":"a","body":{}}"#,
        "body.messages: must be a list",
    );
    check(
        r#"{"custom_id":"a","body":{"stream":true}}"#,
        "body.stream: a stored job",
    );
    check(
        r#"{"custom_id":"a","body":{},"temperature":1}"#,
        "temperature: belongs into body, which is the whole chat body",
    );
    check(
        r#"{"prompt":"a","temperature":1,"parameters":{"temperature":0}}"#,
        "parameters.temperature: stands beside parameters too",
    );
}

#[test]
fn a_line_with_another_fault_still_says_its_id() {
    assert_eq!(line(r#"{"id":"a","prompt":7}"#).id.as_deref(), Some("a"));
}
