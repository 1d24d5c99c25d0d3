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
        Request::Body(_, raw) => raw.get(),
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
    for (name, meant) in [
        ("maxRetry", "maxRetries"),
        ("retries", "maxRetries"),
        ("prio", "priority"),
        ("user", "userId"),
        ("idempotency_key", "idempotencyKey"),
        ("callback", "callbackUrl"),
        ("max_completion_tokens", "max_tokens"),
        ("temp", "temperature"),
        ("deadLine", "deadline"),
        ("timeoutMs", "timeout"),
        ("customId", "custom_id"),
    ] {
        let text = format!(r#"{{"prompt":"a","{name}":1}}"#);
        let want = format!("{name}: is unknown; did you mean {meant}?");
        check(&text, &want);
        let errors = posted(&text).err().unwrap().first;
        assert!(told(&errors).contains(&want), "{errors:?}");
    }
    check(
        r#"{"prompt":"a","presence_penalty":1}"#,
        "presence_penalty: is unknown; there are ",
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
        r#"{"prompt":"hi","id":"a","model":"glm-5","priority":-3,"userId":"u","contentId":"c","session":"s"}"#,
    );
    assert_eq!(parsed.id.as_deref(), Some("a"));
    let asked = parsed.asked.unwrap();
    assert!(matches!(&asked.request, Request::Prompt(text) if text == "hi"));
    assert_eq!(asked.model.as_deref(), Some("glm-5"));
    assert_eq!(asked.priority, Some(-3));
    assert_eq!(asked.user_id.as_deref(), Some("u"));
    assert_eq!(asked.content_id.as_deref(), Some("c"));
    assert_eq!(asked.session.unwrap().as_str(), "s");
    for bad in [r#""""#, r#""a b""#, r#""é""#, "7"] {
        let line = line(&format!(r#"{{"prompt":"hi","session":{bad}}}"#));
        let problem = line.asked.unwrap_err();
        assert!(problem.starts_with("session: must be "), "{problem}");
        assert!(problem.contains("1 to 256 characters"), "{problem}");
    }
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

/// What a request to the API is told of a wrong job.
fn refused(text: &str) -> String {
    told(&posted(text).expect_err(text).first)
}

#[test]
fn a_bad_job_is_told_what_and_where() {
    for (text, want) in [
        (r#"{}"#, "prompt: is missing; give a prompt, or messages"),
        (
            r#"{"prompt":"a","messages":[{}]}"#,
            "messages: can't stand beside prompt",
        ),
        (
            r#"{"prompt":"a","prompt":"b"}"#,
            "prompt: is given twice; give it once",
        ),
        (r#"{"prompt":7}"#, "prompt: must be a string"),
        (r#"{"prompt":["hi"]}"#, "prompt: must be a string"),
        (r#"{"prompt":" "}"#, "prompt: is empty"),
        (r#"{"prompt":" ","top_p":1}"#, "prompt: is empty"),
        (
            r#"{"messages":[]}"#,
            "messages: must be a list that is not empty",
        ),
        (
            r#"{"messages":"hi"}"#,
            "messages: must be a list that is not empty",
        ),
        (
            r#"{"messages":[{}],"stream":true}"#,
            "stream: a stored job is not streamed",
        ),
        (
            r#"{"messages":[{}],"parameters":{"stream":true}}"#,
            "parameters.stream: a stored job",
        ),
        (
            r#"{"messages":[{}],"parameters":{"model":"m"}}"#,
            "parameters.model: belongs beside parameters",
        ),
        (
            r#"{"prompt":"a","temperature":1,"parameters":{"temperature":0}}"#,
            "parameters.temperature: stands beside parameters too",
        ),
        (
            r#"{"request":{"messages":[]}}"#,
            "request.messages: must be a list",
        ),
        (r#"{"request":"hi"}"#, "request: must be a JSON object"),
        (
            r#"{"request":{"messages":[{}],"model":7}}"#,
            "request: model must be a string",
        ),
        (
            r#"{"request":{"messages":[{}],"stream":true}}"#,
            "request.stream: a stored job",
        ),
        (
            r#"{"prompt":"a","model":""}"#,
            "model: must be a string of 1 to 128 characters",
        ),
        (
            r#"{"prompt":"a","priority":"high"}"#,
            "priority: must be a whole number",
        ),
        (
            r#"{"prompt":"a","priority":2147483648}"#,
            "priority: must be a whole number",
        ),
        (
            r#"{"prompt":"a","maxRetries":101}"#,
            "maxRetries: must be a whole number from 0 to 100",
        ),
        (
            r#"{"prompt":"a","maxRetries":-1}"#,
            "maxRetries: must be a whole number from 0 to 100",
        ),
        (
            r#"{"prompt":"a","timeout":0}"#,
            "timeout: must be a whole number from 1 to 86400000",
        ),
        (
            r#"{"prompt":"a","timeout":"9s"}"#,
            "timeout: must be a whole number",
        ),
        (
            r#"{"prompt":"a","onInterrupted":"never"}"#,
            "onInterrupted: must be one of retry, park, fail",
        ),
        (
            r#"{"prompt":"a","deadline":"tomorrow"}"#,
            "deadline: must be a time in RFC 3339",
        ),
        (r#"{"prompt":"a","userId":1}"#, "userId: must be a string"),
        (
            r#"{"prompt":"a","urgent":1}"#,
            "urgent: is unknown; there are after, body, callbackUrl",
        ),
        (r#"{"prompt":"a","id":{}}"#, "id: must be a string"),
        (r#"{"prompt":"a","id":""}"#, "id: must be a string of 1 to"),
        (
            r#"{"prompt":"a","id":"x","custom_id":"y"}"#,
            "custom_id: can't stand beside id",
        ),
        (
            r#"{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{}}"#,
            "method: must be POST",
        ),
        (
            r#"{"custom_id":"a","url":"/v1/images/generations","body":{}}"#,
            "url: must end in",
        ),
        (
            r#"{"prompt":"a","url":"/v1/chat/completions"}"#,
            "url: belongs to the batch form",
        ),
        (
            r#"{"custom_id":"a","body":"hi"}"#,
            "body: must be a JSON object",
        ),
        (
            r#"{"custom_id":"a","body":{}}"#,
            "body.messages: must be a list",
        ),
        (
            r#"{"custom_id":"a","body":{"stream":true}}"#,
            "body.stream: a stored job",
        ),
        (
            r#"{"custom_id":"a","body":{},"temperature":1}"#,
            "temperature: belongs into body, which is the whole body",
        ),
    ] {
        let problem = line(text).asked.unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
        assert_eq!(problem, refused(text), "{text}");
    }
}

#[test]
fn a_bad_line_is_told_what_is_wrong_with_it() {
    for (text, want) in [
        ("{", "at column 1"),
        ("hello", "not a JSON object"),
        ("[1]", "expected a JSON object"),
        (r#""text""#, "expected a JSON object"),
        (r#"{"prompt":"a"} {"prompt":"b"}"#, "trailing characters"),
        (
            r#"{"prompt":"a","runAt":"2026-11-23T08:00:00Z"}"#,
            "runAt: can't stand in a line: a run sends its lines now",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"after":[]}"#,
            "after: can't stand in a line: lines have no job ids",
        ),
        (
            r#"{"custom_id":"a","body":{},"idempotencyKey":"k"}"#,
            "idempotencyKey: can't stand in a line: a line is known by its content",
        ),
    ] {
        let problem = line(text).asked.unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
    }
}

#[test]
fn a_bad_request_to_the_api_is_told_what_is_wrong_with_it() {
    let ids = vec!["\"0199a000-0000-7000-8000-000000000001\""; 101].join(",");
    let long = "x".repeat(70_000);
    for (text, want) in [
        ("[1]", "the body: must be a JSON object"),
        (
            r#"{"prompt":"a","runAt":"soon"}"#,
            "runAt: must be a time in RFC 3339",
        ),
        (
            r#"{"prompt":"a","runAt":"2026-11-23T08:00:00Z","deadline":"2026-11-23T07:00:00Z"}"#,
            "deadline: must not be before runAt",
        ),
        (
            r#"{"prompt":"a","after":["17"]}"#,
            "after[0]: must be a UUID",
        ),
        (
            r#"{"prompt":"a","after":"17"}"#,
            "after: must be a list of at most 100 elements",
        ),
        (
            &format!(r#"{{"prompt":"a","after":[{ids}]}}"#),
            "after: must be a list of at most 100 elements; it has 101",
        ),
        (
            &format!(r#"{{"prompt":"a","metadata":"{long}"}}"#),
            "metadata: must have at most",
        ),
    ] {
        let problem = refused(text);
        assert!(problem.contains(want), "{text}: {problem}");
    }
}

#[test]
fn what_has_too_many_parts_is_told_which_and_how_many_may_be() {
    let list = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
    let names: Vec<String> = (0..1_000_000).map(|n| format!("\"n{n}\":1")).collect();
    let names = names.join(",");
    for (text, want) in [
        (
            format!(r#"{{"messages":{}}}"#, list(1_000_000)),
            "messages: has 1000000 elements; 10000 are allowed at most",
        ),
        (
            format!(r#"{{"body":{{"messages":{}}}}}"#, list(1_000_000)),
            "body.messages: has 1000000 elements; 10000 are allowed at most",
        ),
        (
            format!(r#"{{"prompt":"a","tools":{}}}"#, list(2_000)),
            "tools has 2000 elements; 1024 are allowed at most",
        ),
        (
            format!(r#"{{"prompt":"a",{names}}}"#),
            "it has more than 10000 fields",
        ),
        (
            format!(r#"{{"prompt":"a","parameters":{{{names}}}}}"#),
            "it has more than 10000 fields",
        ),
    ] {
        let problem = refused(&text);
        assert!(problem.contains(want), "{problem}");
        assert!(problem.len() < 500);
        let of_line = line(&text).asked.unwrap_err();
        assert!(of_line.contains(want), "{of_line}");
    }
}

#[test]
fn a_line_with_another_fault_still_says_its_id() {
    assert_eq!(line(r#"{"id":"a","prompt":7}"#).id.as_deref(), Some("a"));
}

#[test]
fn a_job_of_another_face_is_told_by_its_name_or_its_path() {
    let read = |text: &str| line(text).asked.unwrap().request;
    let body = r#"{"model":"embedding-3","input":["a"],"x":1.50}"#;
    for text in [
        format!(r#"{{"face":"embeddings","request":{body}}}"#),
        format!(r#"{{"custom_id":"a","method":"POST","url":"/v4/embeddings","body":{body}}}"#),
        format!(r#"{{"face":"embeddings","url":"/v1/embeddings","body":{body}}}"#),
    ] {
        let Request::Body(face, raw) = read(&text) else {
            panic!("a body: {text}")
        };
        assert_eq!((face, raw.get()), (Face::Embeddings, body));
    }
    assert_eq!(read(r#"{"face":null,"prompt":"hi"}"#).face(), Face::Chat);
    assert_eq!(read(r#"{"face":"chat","prompt":"hi"}"#).face(), Face::Chat);
    for (text, want) in [
        (
            r#"{"face":"messages","prompt":"hi"}"#,
            "prompt: is of a chat; give the whole body of messages as request",
        ),
        (
            r#"{"face":"embeddings","request":{}}"#,
            "request: input must be a text or a list",
        ),
        (
            r#"{"face":"messages","request":{"messages":[]}}"#,
            "request.messages: must be a list",
        ),
        (
            r#"{"face":"chat","url":"/v1/responses","body":{"input":"hi"}}"#,
            "face: is chat, and url is of responses",
        ),
        (
            r#"{"url":"/v1/images","body":{}}"#,
            "url: must end in one of /chat/completions, /responses, /messages, /embeddings",
        ),
        (r#"{"face":"image","request":{}}"#, "face: must be"),
    ] {
        let problem = line(text).asked.unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
    }
}
