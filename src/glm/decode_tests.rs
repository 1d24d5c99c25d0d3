use onelane_actors::ports::Clock;
use onelane_core::model::Timestamp;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::*;
use crate::system::SystemClock;

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_795_420_800_000)
    }
}

fn outcome_of(status: u16, body: impl Into<Bytes>) -> GlmOutcome {
    let reader = Reader {
        clock: &Epoch,
        face: Face::Chat,
        api_key: "0123456789abcdef.secret",
    };
    decode(status, &HeaderMap::new(), body.into(), &reader)
}

#[track_caller]
fn answered(body: &str) -> GlmAnswer {
    match outcome_of(200, body.to_owned()) {
        GlmOutcome::Answered(answer) => {
            assert_eq!(answer.body.text(), body, "verbatim");
            answer
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn failed(status: u16, body: &str) -> (Failure, Usage) {
    match outcome_of(status, body.to_owned()) {
        GlmOutcome::Failed(failure, usage) => (failure, usage),
        other => panic!("{body}: {other:?}"),
    }
}

/// As GLM sends it, with what the SDKs don't know and an odd spacing.
const REAL: &str = r#"{"choices":[{"finish_reason":"stop","index":0,"message":{"content":"你好！\n有什么可以帮你？","reasoning_content":"The user greets.","role":"assistant"}}],"created":1760029042,"id":"20261010005722dd102476a1894c3f","model":"glm-4.7","object":"chat.completion","request_id":"0707-1", "new_field":[1.50,null],"usage":{"completion_tokens":148,"completion_tokens_details":{"reasoning_tokens":121},"prompt_tokens":13,"prompt_tokens_details":{"cached_tokens":4},"total_tokens":161}}"#;

#[test]
fn an_answer_is_kept_verbatim_with_its_usage() {
    let answer = answered(REAL);
    assert_eq!(answer.status_code, 200);
    let usage = Usage {
        prompt_tokens: 13,
        completion_tokens: 148,
        total_tokens: 161,
        cached_tokens: 4,
        reasoning_tokens: 121,
        ..Usage::default()
    };
    assert_eq!(answer.usage, usage);
    answered(&format!(" {REAL}\n"));
}

#[test]
fn usage_that_is_odd_makes_no_odd_answer() {
    let used = |usage: &str| answered(&format!(r#"{{"choices":[{{}}],"usage":{usage}}}"#)).usage;
    for odd in ["null", "{}", "[]", r#""free""#] {
        assert_eq!(used(odd), Usage::default(), "{odd}");
    }
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 4,
        total_tokens: 7,
        ..Usage::default()
    };
    assert_eq!(
        used(r#"{"prompt_tokens":"3","total_tokens":7,"total":[]}"#),
        usage
    );
    // A count that is none does not go by in silence.
    let flagged = Usage {
        contradictory: true,
        ..usage
    };
    assert_eq!(
        used(r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":1e300}"#),
        flagged
    );
}

#[test]
fn a_200_without_an_answer_keeps_what_it_used() {
    let used = json!({"prompt_tokens": 5, "completion_tokens": 2});
    for body in [
        json!({"usage": used}),
        json!({"choices": [], "usage": used}),
        json!({"choices": null, "usage": used}),
        json!({"error": {"code": "1305", "message": "busy"}, "usage": used}),
        json!({"error": {"code": "1305", "message": "busy"}, "choices": [], "usage": used}),
        json!({"code": 1305, "msg": "busy", "success": false, "usage": used}),
    ] {
        let (failure, usage) = failed(200, &body.to_string());
        let tokens = (usage.prompt_tokens, usage.completion_tokens);
        assert_eq!(tokens, (5, 2), "{body}");
        assert!(!failure.maybe_billed, "what was billed is known");
    }
}

#[test]
fn an_answer_may_hold_nulls_and_the_unexpected() {
    for body in [
        r#"{"choices":[{"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[{"id":"c"}]}}]}"#,
        r#"{"choices":[{"finish_reason":"length","message":{"content":""}}]}"#,
        r#"{"choices":[{"finish_reason":null,"message":null}]}"#,
        r#"{"choices":[{"finish_reason":"st\u006fp","message":{"content":[{"type":"text"}]}}]}"#,
        r#"{"choices":[{"finish_reason":7}]}"#,
        r#"{"choices":[{"index":0},{"index":1}]}"#,
        r#"{"choices":["odd"]}"#,
        r#"{"choices":[{}],"choices":[{}]}"#,
        r#"{"error":{"code":"1302"},"choices":[{}]}"#,
    ] {
        answered(body);
    }
}

#[test]
fn a_finish_reason_that_is_a_failure_keeps_the_tokens() {
    let body = |reason: &str, content: &str, usage: bool| {
        let mut body =
            json!({"choices": [{"finish_reason": reason, "message": {"content": content}}]});
        if usage {
            body["usage"] = json!({"prompt_tokens": 5, "completion_tokens": 2});
        }
        body.to_string()
    };
    let check = |reason: &str, class: FailureClass| {
        let (failure, usage) = failed(200, &body(reason, "", true));
        assert_eq!(failure.code, format!("finish:{reason}"));
        assert_eq!(failure.class, class, "{reason}");
        assert_eq!((usage.total_tokens, failure.maybe_billed), (7, false));
        let (failure, _) = failed(200, &body(reason, "", false));
        assert!(failure.maybe_billed, "{reason}: nobody knows what it cost");
    };
    check("network_error", FailureClass::ServerTransient);
    check("sensitive", FailureClass::RequestFatal);
    check("model_context_window_exceeded", FailureClass::RequestFatal);
    // Partial content is valid there, and only there.
    answered(&body("model_context_window_exceeded", "so far", true));
    failed(200, &body("network_error", "so far", true));
    failed(200, &body("sensitive", "so far", true));
}

#[test]
fn a_200_that_carries_an_error_is_that_error() {
    let (failure, _) = failed(
        200,
        r#"{"code":1000,"msg":"身份验证失败。","success":false}"#,
    );
    assert_eq!(failure.code, "1000");
    assert_eq!(failure.class, FailureClass::OperatorFatal);
    assert_eq!(failure.status_code, Some(200));
    let (failure, _) = failed(
        200,
        r#"{"error":{"code":"1305","message":"busy"},"choices":[]}"#,
    );
    assert_eq!(failure.class, FailureClass::Overload);
    let (failure, _) = failed(200, r#"{"error":"out of order"}"#);
    assert_eq!(failure.class, FailureClass::ServerTransient);
}

#[test]
fn a_200_that_carries_a_code_is_of_its_class_in_every_shape() {
    for row in ErrorTable::shipped().rows() {
        let (Ok(number), Some(class)) = (
            row.code.parse::<u32>(),
            ErrorTable::shipped().class(&row.code),
        ) else {
            continue;
        };
        let (code, text) = (&row.code, &row.meaning);
        for body in [
            json!({"error": {"code": code, "message": text}}),
            json!({"error": {"code": number, "message": text}}),
            json!({"error": {"message": format!("[{code}][{text}][20261123]")}}),
            json!({"code": code, "message": text}),
            json!({"code": number, "msg": text, "success": false}),
            json!({"code": number, "msg": text, "choices": null, "data": null}),
        ] {
            let (failure, usage) = failed(200, &body.to_string());
            assert_eq!((failure.class, &failure.code), (class, code), "{body}");
            assert_eq!((failure.status_code, usage), (Some(200), Usage::default()));
            assert!(!failure.maybe_billed, "a refusal is not billed");
        }
    }
}

#[test]
fn a_web_page_under_200_is_for_an_operator_however_it_says_so() {
    let page = |kind: Option<&'static str>, body: &str| {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("content-type", HeaderValue::from_static(kind));
        }
        let reader = Reader {
            clock: &SystemClock,
            face: Face::Chat,
            api_key: "",
        };
        match decode(200, &headers, Bytes::from(body.to_owned()), &reader) {
            GlmOutcome::Failed(failure, _) => failure.code == code::HTML_PAGE,
            _ => false,
        }
    };
    for (kind, body) in [
        (Some("text/html"), "Welcome"),
        (Some("Text/HTML; charset=utf-8"), ""),
        (Some("application/xhtml+xml"), "<p/>"),
        (Some("text/html"), r#"{"status":"ok"}"#),
        (None, "\u{feff}\n <!DOCTYPE HTML><title>Login</title>"),
        (Some("text/plain"), "<HTML lang=en>"),
        // What its scripts hold is no error of GLM's.
        (
            Some("text/html"),
            r#"<!-- 7 --><html><script>var x = {"error":{"code":"1302"}}</script>"#,
        ),
    ] {
        assert!(page(kind, body), "{kind:?} {body}");
    }
    for (kind, body) in [
        (Some("application/json"), "not json"),
        (None, "<xml/>"),
        // A completion is one, whatever a proxy calls it.
        (
            Some("text/html"),
            r#"{"choices":[{"message":{"content":"hi"}}]}"#,
        ),
        (
            Some("text/html"),
            r#"{"error":{"code":"1302","message":"x"}}"#,
        ),
    ] {
        assert!(!page(kind, body), "{kind:?} {body}");
    }
}

#[test]
fn a_200_that_is_no_answer_may_have_been_billed() {
    for body in [
        "",
        " ",
        "OK",
        "{}",
        "[]",
        "7",
        "null",
        r#"{"choices":[]}"#,
        r#"{"choices":null}"#,
        r#"{"choices":{"0":{}}}"#,
    ] {
        let (failure, usage) = failed(200, body);
        assert_eq!(failure.code, code::BODY_INVALID, "{body}");
        assert_eq!(failure.class, FailureClass::ServerTransient);
        assert!(failure.maybe_billed);
        assert_eq!(usage, Usage::default());
    }
}

/// An answer that is taken although it does not stand alone, or not as it should.
#[track_caller]
fn taken(body: impl Into<Bytes>) -> Value {
    match outcome_of(200, body) {
        GlmOutcome::Answered(answer) => serde_json::from_str(answer.body.get()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_taken_whatever_a_relay_wraps_around_it() {
    let real: Value = serde_json::from_str(REAL).unwrap();
    for wrapped in [
        format!("\u{feff}{REAL}"),
        format!("{REAL}\n\ndata: [DONE]\n\n"),
        format!("{REAL}\r\n<!-- served by relay 3 -->"),
        format!("data: {REAL}\n\ndata: [DONE]\n\n"),
        format!("data:{REAL}"),
        format!(": ping\n\nevent: message\ndata: {REAL}\n\n"),
        format!(": RELAY PROCESSING\n\n: RELAY PROCESSING\n\n{REAL}"),
        format!(r#"{{"code":200,"msg":"操作成功","success":true,"data":{REAL}}}"#),
        format!("\n\n {REAL}"),
        format!(" \r\n\u{feff}\n\u{feff}{REAL}"),
        format!("data: \u{feff}{REAL}\r\rdata: [DONE]\r\r"),
        format!("data: data: {REAL}\n\n"),
        format!("{{\"status\":\"queued\"}}\n{REAL}\n"),
        format!("{{\"status\":\"queued\"}}\r\n\r\ndata:{REAL}\r\n\r\ndata:[DONE]"),
        format!("{{\"error\":{{\"code\":\"1305\"}}}}{REAL}"),
        format!("[{REAL}]"),
        format!("Warning: {{x}} is not set\n{REAL}"),
        format!("200 OK\r\n\r\n{REAL}\n-- \n"),
        format!("{{\"status\":\"queued\"}} and then\n{REAL}"),
        format!("relay 3\ndata: {REAL}\n\n"),
        serde_json::to_string(REAL).unwrap(),
        format!(
            r#"{{"code":"200","data":{}}}"#,
            serde_json::to_string(REAL).unwrap()
        ),
    ] {
        assert_eq!(taken(wrapped.clone()), real, "{wrapped}");
    }
    let broken = taken(&b"{\"choices\":[{\"message\":{\"content\":\"\xff!\"}}]}"[..]);
    assert_eq!(broken["choices"][0]["message"]["content"], "\u{fffd}!");
    let surrogate = r#"{"choices":[{"message":{"content":"\ud83d"}}]}"#;
    answered(surrogate);
}

#[test]
fn an_answer_that_came_in_pieces_is_put_together() {
    let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}],\
        \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";
    let GlmOutcome::Answered(answer) = outcome_of(200, stream) else {
        panic!("it is whole")
    };
    assert_eq!(answer.usage.total_tokens, 5);
    let answer: Value = serde_json::from_str(answer.body.get()).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    // An error behind what is whole takes nothing from it.
    let late = stream.replace("data: [DONE]", r#"data: {"error":{"code":"1234"}}"#);
    assert!(matches!(outcome_of(200, late), GlmOutcome::Answered(_)));
    let cut = stream
        .split("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo")
        .next();
    let (failure, _) = failed(200, cut.unwrap());
    assert_eq!(failure.code, code::BODY_INVALID);
    assert!(failure.maybe_billed);
}

#[test]
fn an_error_inside_a_frame_is_that_error() {
    let error = r#"{"error":{"code":"1302","message":"并发过高"}}"#;
    let piece = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    for body in [
        format!("data: {error}\n\n"),
        format!("data: {error}\n\ndata: [DONE]\n\n"),
        format!("data: {piece}\n\ndata: {error}\n\n"),
        format!("\u{feff}{error}"),
        format!("{error}\n\ndata: [DONE]\n\n"),
        format!("data:{error}\r\rdata:[DONE]\r\r"),
        format!("data: data: {error}\r\n\r\n"),
        format!("\n \u{feff}{error}"),
        format!("{{\"status\":\"queued\"}}\n{error}"),
        format!("[{error}]"),
        format!("data: [{error}]\n\n"),
        format!(
            "data: {}\n\n",
            serde_json::json!({"error": {"message": error}})
        ),
        format!("data: {}\n\n", serde_json::json!({"error": error})),
        format!("data: {{\"error\":{error}}}\n\n"),
    ] {
        let (failure, usage) = failed(200, &body);
        assert_eq!(
            (failure.class, &*failure.code),
            (FailureClass::Throttle, "1302"),
            "{body}"
        );
        assert!(!failure.maybe_billed, "a throttle is no purchase");
        assert_eq!(usage, Usage::default());
        let (refused, _) = failed(429, &body);
        assert_eq!(refused.code, "1302", "{body}");
    }
}

#[test]
fn an_error_in_an_envelope_that_says_all_is_well_is_that_error() {
    for body in [
        r#"{"code":200,"success":true,"data":{"error":{"code":"1302","message":"x"}}}"#,
        r#"{"code":200,"data":"{\"error\":{\"code\":\"1302\",\"message\":\"x\"}}"}"#,
    ] {
        let (failure, _) = failed(200, body);
        assert_eq!(failure.code, "1302", "{body}");
        assert!(!failure.maybe_billed);
    }
}

#[test]
fn what_came_stays_with_the_failure_to_the_byte_and_without_the_key() {
    let headers =
        HeaderMap::from_iter([(CONTENT_TYPE, "text/plain; charset=gbk".parse().unwrap())]);
    let reader = Reader {
        clock: &Epoch,
        face: Face::Chat,
        api_key: "0123456789abcdef.TopSecret",
    };
    for (body, want) in [
        (&b"no such thing\n"[..], &b"no such thing\n"[..]),
        (b"[1, 2]", b"[1, 2]"),
        (b"7", b"7"),
        (b" {\"error\" : {}}\r\n", b" {\"error\" : {}}\r\n"),
        (b"\xb7\xc3 TopSecret \xff", b"\xb7\xc3 **** \xff"),
        (b"0123456789abcdef.TopSecret", b"****"),
    ] {
        let outcome = decode(404, &headers, Bytes::copy_from_slice(body), &reader);
        let GlmOutcome::Failed(failure, _) = outcome else {
            panic!("{outcome:?}")
        };
        let came = failure.received.unwrap();
        assert_eq!(came.bytes(), want);
        assert_eq!(came.content_type(), Some("text/plain; charset=gbk"));
        assert!(!came.is_begun() && !came.is_foreign());
    }
    // Nothing came, and that is known, too.
    let empty = |status| match decode(status, &headers, Bytes::new(), &reader) {
        GlmOutcome::Failed(failure, _) => failure.received.map(|came| came.bytes().len()),
        other => panic!("{other:?}"),
    };
    assert_eq!((empty(404), empty(200)), (Some(0), None));
}

#[test]
fn every_truncation_of_an_answer_is_invalid() {
    for end in 0..REAL.len() {
        let GlmOutcome::Failed(failure, _) =
            outcome_of(200, Bytes::copy_from_slice(&REAL.as_bytes()[..end]))
        else {
            panic!("{end} bytes are no answer")
        };
        assert_eq!(failure.code, code::BODY_INVALID, "{end}");
        assert!(failure.maybe_billed);
    }
}

#[test]
fn the_answer_of_an_error_status_is_an_error() {
    let (failure, _) = failed(500, REAL);
    assert_eq!(failure.class, FailureClass::ServerTransient);
    assert_eq!(failure.code, "http_500");
}

#[test]
fn deep_nesting_does_not_break_the_stack() {
    let deep = "[".repeat(200_000);
    failed(200, &deep);
    failed(400, &deep);
    let nested = format!(
        r#"{{"x":{}{},"choices":[{{}}]}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(matches!(outcome_of(200, nested), GlmOutcome::Answered(_)));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_outcome(status in 0_u16..1_000, body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        outcome_of(status, body);
    }

    #[test]
    fn an_answer_with_a_byte_changed_is_an_outcome(at in 0..REAL.len(), byte in proptest::num::u8::ANY) {
        let mut body = REAL.as_bytes().to_vec();
        body[at] = byte;
        outcome_of(200, body);
    }
}

#[test]
fn an_envelope_that_states_success_by_a_code_is_no_error() {
    for body in [
        r#"{"code":200,"success":true,"data":{"choices":[{"finish_reason":"st\u006fp","message":{"content":"hi"}}]}}"#,
        r#"{"code":0,"data":{"choices":[{"finish_reason":7,"message":{"content":"hi"}}]}}"#,
    ] {
        assert!(
            matches!(outcome_of(200, body), GlmOutcome::Answered(_)),
            "{body}"
        );
    }
    for body in [
        r#"{"code":200,"success":true,"data":null}"#,
        r#"{"code":"0","message":"ok","data":{}}"#,
    ] {
        let (failure, _) = failed(200, body);
        assert_eq!(failure.code, code::BODY_INVALID, "{body}");
        assert!(failure.maybe_billed, "{body}");
    }
}

#[test]
fn an_event_that_is_no_piece_spoils_no_stream() {
    let piece = |content: &str, end: &str| {
        format!(
            "data: {{\"id\":\"a\",\"choices\":[{{\"index\":null,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":{end}}}]}}\n\n"
        )
    };
    let stream = [
        "data: ping\n\n".to_owned(),
        piece("he", "null"),
        "data: [done]\n\n".to_owned(),
        piece("llo", "\"stop\""),
    ]
    .concat();
    let GlmOutcome::Answered(answer) = outcome_of(200, stream.clone()) else {
        panic!("{stream}")
    };
    assert!(answer.body.get().contains("hello"), "{:?}", answer.body);
}
