use onelane_core::model::FailureClass as C;
use serde_json::{Value, json};

use super::super::errors::RowClass;
use onelane_core::model::Timestamp;

use super::*;

struct At(&'static str);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::parse_rfc3339(self.0).unwrap()
    }
}

const NOW: At = At("2026-11-23T10:00:00+08:00");
const KEY: &str = "0123456789abcdef.TopSecretTopSecret";

fn failure_of(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<HeaderMap>();
    let reader = Reader {
        clock: &NOW,
        face: Face::Chat,
        api_key: KEY,
    };
    classify(status, &headers, body.as_bytes(), &reader)
}

#[track_caller]
fn check(status: u16, body: &str, class: FailureClass, code: &str) -> Failure {
    let failure = check_any(status, body, code);
    assert_eq!(failure.class, class, "{body}");
    failure
}

#[track_caller]
fn check_any(status: u16, body: &str, code: &str) -> Failure {
    let failure = failure_of(status, &[], body);
    assert_eq!(failure.code, code, "{body}");
    assert_eq!(failure.status_code, Some(status));
    assert!(!failure.maybe_billed);
    failure
}

/// A line each: status, class, code and body.
#[track_caller]
fn check_all(lines: &str) {
    for line in lines.trim().lines() {
        let [status, class, code, body] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let failure = check_any(status.parse().unwrap(), body, code);
        assert_eq!(failure.class.name(), class, "{line}");
    }
}

/// The shapes in which GLM's surfaces and the relays before it state an error: of a code that is a
/// number both ways, of another as text alone.
fn bodies_of(code: &str, text: &str) -> Vec<(&'static str, Value)> {
    let bracketed = format!("[{code}][{text}][20261123]");
    let nested = |code: Value| json!({"error": {"code": code, "message": text}});
    let anthropic = |error: Value| json!({"type": "error", "error": error, "request_id": "2026"});
    let filter = json!([{"level": 1, "role": "user"}]);
    let mut filtered = nested(json!(code));
    filtered["contentFilter"] = filter;
    let told = json!({"type": "x_error", "code": code, "message": bracketed});
    let mut bodies = vec![
        ("nested text", nested(json!(code))),
        ("flat text", json!({"code": code, "message": text})),
        ("padded text", nested(json!(format!(" {code} ")))),
        ("with a filter", filtered),
        ("anthropic", anthropic(told)),
    ];
    if let Ok(number) = code.parse::<u32>() {
        let flat = json!({"code": number, "msg": text, "success": false});
        let told = json!({"type": "x_error", "message": bracketed});
        bodies.extend([
            ("nested number", nested(json!(number))),
            ("flat number", flat),
            (
                "flat with message",
                json!({"code": number, "message": text}),
            ),
            ("bracketed", anthropic(told)),
            ("bracketed flat", json!({"message": bracketed})),
            ("bracketed bare", json!({"error": bracketed})),
        ]);
    }
    bodies
}

/// What the table must say of each code, written out once more: a slip in `errors.json` is seen here.
const CLASSES: [(C, &str); 7] = [
    (
        C::Throttle,
        "1302 1303 rate_limit_exceeded rate_limit_error",
    ),
    (
        C::Overload,
        "1305 1312 http_529 overloaded overloaded_error",
    ),
    (C::QuotaWindow, QUOTAS),
    (
        C::OperatorFatal,
        "1000 1001 1002 1003 1004 1005 1110 1111 1112 1113 1121 1220 1300 1309 1311 1313 1314 1315 http_407 http_434 insufficient_quota \
         authentication_error billing_error",
    ),
    (
        C::RequestFatal,
        "1210 1211 1212 1213 1214 1215 1221 1222 1233 1261 1301 http_435 context_length_exceeded model_not_found \
         invalid_request_error request_too_large \
         finish:sensitive finish:model_context_window_exceeded",
    ),
    (
        C::ServerTransient,
        "500 1100 1120 1200 1230 1234 http_408 http_5xx conn finish:network_error \
         server_error api_error timeout_error",
    ),
    (C::DuplicateRequest, "1231"),
];

const QUOTAS: &str = "1304 1308 1310 1316 1317 1318 1319 1320 1321";

#[test]
fn every_row_of_the_table_has_its_class_and_no_row_is_missing() {
    let table = ErrorTable::shipped();
    let of_class =
        |(class, codes): (C, &'static str)| codes.split(' ').map(move |code| (code, class));
    let listed = CLASSES.into_iter().flat_map(of_class);
    for (code, class) in listed.clone() {
        assert_eq!(table.class(code), Some(class), "{code}");
    }
    // The one row that is no class: a 200 that carries an error is what its inner code says.
    let inner = table
        .rows()
        .filter(|row| row.class == RowClass::MapByInnerCode);
    let inner: Vec<&str> = inner.map(|row| row.code.as_str()).collect();
    assert_eq!(inner, ["body:200_error"]);
    assert_eq!(listed.count() + inner.len(), table.rows().count());
}

#[test]
fn every_row_of_the_table_is_known_in_every_shape() {
    let (mut rows, mut shapes) = (0, 0);
    for row in ErrorTable::shipped().rows() {
        let RowClass::Is(class) = row.class else {
            continue;
        };
        rows += 1;
        for (shape, body) in bodies_of(&row.code, &row.meaning) {
            shapes += 1;
            // The code wins, whatever the status; also over one that nobody documents.
            for status in [row.http_status.unwrap_or(400), 200, 400, 401, 429, 500, 529] {
                let failure = check(status, &body.to_string(), class, &row.code);
                assert!(failure.message.contains(&row.meaning), "{shape}: {failure}");
            }
        }
    }
    assert_eq!((rows, shapes), (73, 49 * 11 + 24 * 5));
}

#[test]
fn every_status_row_of_the_table_is_known() {
    for row in ErrorTable::shipped().rows() {
        let (Some(status), RowClass::Is(class)) = (row.http_status, row.class) else {
            continue;
        };
        if !row.code.starts_with("http_") {
            continue;
        }
        let code = format!("http_{status}");
        for body in [
            "",
            "[]",
            "{}",
            "null",
            "7",
            "upstream says no",
            "<html><head><title>Bad</title></head><body>nginx</body></html>",
            r#"{"error":{"code":"1302","mess"#,
            r#"{"error":{"code":null,"message":"?"}}"#,
        ] {
            check(status, body, class, &code);
        }
    }
}

#[test]
fn without_a_known_code_the_status_decides() {
    check(401, "", C::OperatorFatal, "http_401");
    // A relay may ask it for one call alone, for what that may come to.
    check(402, "", C::Unattributed, "http_402");
    check(403, "", C::Unattributed, "http_403");
    check(404, "", C::Unattributed, "http_404");
    check(400, "", C::RequestFatal, "http_400");
    check(415, "", C::RequestFatal, "http_415");
    // A proxy's: no call gets past it, whatever it asks.
    check(407, "", C::OperatorFatal, "http_407");
    for status in [101, 301, 307, 308, 405, 410, 451, 499] {
        check(status, "", C::Unattributed, &format!("http_{status}"));
    }
    check(413, "", C::RequestFatal, "http_413");
    check(422, "", C::RequestFatal, "http_422");
    check(429, "", C::Throttle, "http_429");
    check(302, "", C::Unattributed, "http_302");
    for status in [408, 500, 502, 503, 504, 520, 599, 600, 999] {
        check(status, "", C::ServerTransient, &format!("http_{status}"));
    }
    check(529, "", C::Overload, "http_529");
}

#[test]
fn an_unknown_code_falls_back_to_the_status_and_is_kept() {
    check_all(
        r#"
429 throttle 1399 {"error":{"code":"1399","message":"new"}}
400 request_fatal weird {"error":{"code":"weird","message":"new"}}
401 operator_fatal 401 {"error":{"code":"401","message":"token expired or incorrect"}}
"#,
    );
    // Under a success, a code that is an HTTP status counts as one.
    check_all(
        r#"
200 operator_fatal 401 {"code":401,"msg":"token expired or incorrect","success":false}
200 throttle 429 {"code":429,"msg":"slow down","success":false}
200 server_transient 77 {"code":77,"msg":"?","success":false}
"#,
    );
}

#[test]
fn odd_bodies_are_read_as_far_as_they_go() {
    check(429, "\u{feff}", C::Throttle, "http_429");
    check_all(
        r#"
500 server_transient http_500 {"timestamp":"2026","status":500,"error":"Internal Server Error","path":"/v4"}
429 throttle 1302 {"error":{"code":1302.0}}
429 operator_fatal 1113 {"error":{"code":" 1113 "}}
429 throttle 1302 {"error":{"code":"1302\n","message":"[1113][x]"}}
429 operator_fatal 1113 {"error":{"message":" [1113][x][y]"}}
429 operator_fatal 1113 [{"error":{"code":"1113"}}]
429 throttle http_429 [[{"error":{"code":"1113"}}]]
429 operator_fatal 1113 {"error":[{"code":"1113","message":"x"}]}
429 operator_fatal 1113 {"error":{"error":{"code":1113,"message":"x"}}}
429 operator_fatal 1113 {"error":"{\"error\":{\"code\":\"1113\",\"message\":\"x\"}}","type":"upstream"}
500 operator_fatal 1113 {"error":{"message":"{\"error\":{\"code\":\"1113\",\"message\":\"x\"}}","type":"upstream_error","code":"bad_response_status_code"}}
500 server_transient bad_response {"error":{"message":"{\"code\":\"none of ours\"}","code":"bad_response"}}
400 request_fatal http_400 {"error":{"message":"a prompt with {\"code\":\"1113\"} in it"}}
429 operator_fatal 1113 {"error":{"code":null,"message":null},"code":1113}
429 throttle http_429 {"error":{"code":"","message":""}}
429 throttle http_429 {"error":[1],"code":true}
400 request_fatal http_400 []
400 request_fatal http_400 null
429 throttle http_429 {"error":{"code":"1302","mess
"#,
    );
    // A bracket is a code only where no field is one, and only with digits in it.
    check_all(
        r#"
429 throttle 1302 {"error":{"code":"1302","message":"[1308][x]"}}
400 request_fatal http_400 {"error":{"message":"[note] see [1308]"}}
"#,
    );
}

#[test]
fn a_page_of_a_proxy_is_told_in_a_line() {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\n<body><center>nginx</center></body></html>";
    let failure = check(502, page, C::ServerTransient, "http_502");
    assert_eq!(
        failure.message,
        "HTTP 502 without a GLM error: 502 Bad Gateway nginx"
    );
    assert_eq!(
        failure_of(502, &[], "").message,
        "HTTP 502 with an empty body"
    );
    let long = failure_of(500, &[], &"长".repeat(100_000)).message;
    assert!(long.chars().count() < 500, "{}", long.len());
}

#[test]
fn a_quota_states_its_reset_and_no_other_failure_does() {
    let body = |code: &str| {
        json!({"error": {"code": code, "message": "已达到 5 小时的使用上限。您的限额将在 2026-11-23 12:00:00 重置。"}}).to_string()
    };
    let noon = Timestamp::parse_rfc3339("2026-11-23T12:00:00+08:00");
    for code in QUOTAS.split(' ') {
        assert_eq!(check(429, &body(code), C::QuotaWindow, code).reset_at, noon);
    }
    let reset = |code, class| check(429, &body(code), class, code).reset_at;
    assert_eq!(reset("1302", C::Throttle), None);
    assert_eq!(reset("1113", C::OperatorFatal), None);
    // An unknown code may be mapped to a quota by the policy.
    assert_eq!(reset("1322", C::Throttle), noon);
}

#[test]
fn a_daily_quota_without_a_stamp_ends_at_midnight_in_beijing() {
    let reset = |code: &str| {
        let body = json!({"error": {"code": code, "message": "daily"}}).to_string();
        check(429, &body, C::QuotaWindow, code).reset_at
    };
    let midnight = Timestamp::parse_rfc3339("2026-11-24T00:00:00+08:00");
    assert_eq!(reset("1304"), midnight);
    assert_eq!(reset("1308"), None);
}

#[test]
fn a_failure_keeps_what_retry_after_asks_for() {
    let failure = failure_of(429, &[("retry-after", "3.2")], "");
    assert_eq!(failure.retry_after_ms, Some(3_200));
    assert_eq!(failure_of(429, &[], "").retry_after_ms, None);
}

#[test]
fn a_code_that_is_a_word_is_of_its_class_and_keeps_its_status() {
    for (word, status, class) in [
        ("insufficient_quota", 429, C::OperatorFatal),
        ("context_length_exceeded", 400, C::RequestFatal),
        ("overloaded", 503, C::Overload),
        ("model_not_found", 404, C::RequestFatal),
        ("a_word_of_tomorrow", 422, C::RequestFatal),
    ] {
        let body = json!({"error": {"code": word, "message": "words", "type": "x"}});
        let failure = failure_of(status, &[], &body.to_string());
        let got = (failure.class, failure.code.as_str(), failure.status_code);
        assert_eq!(got, (class, word, Some(status)));
    }
}

#[test]
fn the_key_never_comes_through() {
    for echo in [
        KEY.to_owned(),
        format!("bad key Bearer {KEY}, sorry"),
        format!("bad secret {}", KEY.split_once('.').unwrap().1),
        format!("{}{KEY}", "x".repeat(limits::FAILURE_MESSAGE_CHARS_MAX - 5)),
    ] {
        for body in [
            json!({"error": {"code": "1000", "message": echo}}).to_string(),
            json!({"error": {"code": echo, "message": "no"}}).to_string(),
            echo.clone(),
        ] {
            let failure = failure_of(401, &[], &body);
            let shown = format!("{failure:?}");
            assert!(!shown.contains("TopSecret"), "{shown}");
        }
    }
}

#[test]
fn a_message_is_bounded_and_without_control_characters() {
    let body = json!({"error": {"code": "1210", "message": "a\n\u{1b}[31mb\u{0}".to_owned() + &"字".repeat(10_000)}});
    let failure = check(400, &body.to_string(), C::RequestFatal, "1210");
    assert_eq!(
        failure.message.chars().count(),
        limits::FAILURE_MESSAGE_CHARS_MAX
    );
    assert!(failure.message.starts_with("a  [31mb 字"));
    assert!(!failure.message.chars().any(char::is_control));
}

proptest::proptest! {
    #[test]
    fn any_bytes_under_any_status_are_a_failure(
        status in 0_u16..1_000,
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let reader = Reader { clock: &NOW, face: Face::Chat, api_key: KEY };
        let failure = classify(status, &HeaderMap::new(), &body, &reader);
        proptest::prop_assert!(!failure.code.is_empty() && !failure.message.is_empty());
    }
}

#[test]
fn an_error_of_a_stream_that_states_its_type_alone_is_of_that_class() {
    let told =
        |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"words"}}}}"#);
    for (kind, class) in [
        ("overloaded_error", FailureClass::Overload),
        ("rate_limit_error", FailureClass::Throttle),
        ("invalid_request_error", FailureClass::RequestFatal),
    ] {
        check(200, &told(kind), class, kind);
    }
    // A status says more than a word of no table, and than any word where there is one.
    check(
        200,
        &told("of_tomorrow"),
        FailureClass::ServerTransient,
        "http_200",
    );
    check(
        529,
        &told("rate_limit_error"),
        FailureClass::Overload,
        "http_529",
    );
}

#[test]
fn no_part_of_a_key_is_told_however_often_and_wherever_it_comes() {
    let told = |failure: &Failure| {
        let all = format!("{} {}", failure.code, failure.message);
        let (_, secret) = KEY.split_once('.').unwrap();
        [KEY, secret].iter().any(|key| all.contains(&key[..8]))
    };
    for before in 0..80 {
        let body = json!({"error": {"code": "x".repeat(before) + &KEY.repeat(9), "message": "m"}});
        assert!(!told(&failure_of(400, &[], &body.to_string())), "{before}");
        // Of a page the beginning is shown, and nothing of its tags.
        let page = format!("<{}>{KEY}", "x".repeat(200 * 16 - before));
        assert!(!told(&failure_of(400, &[], &page)), "{before}");
        let words = "x".repeat(limits::FAILURE_MESSAGE_CHARS_MAX - before) + &KEY.repeat(3);
        let body = json!({"error": {"code": "1210", "message": KEY.repeat(20) + &words}});
        assert!(!told(&failure_of(400, &[], &body.to_string())), "{before}");
    }
}

#[test]
fn a_message_is_bounded_with_what_was_judged() {
    let judged = json!([{"role": "user", "level": 1}]);
    for words in ["unsafe ", "\u{4e0d}"] {
        let error = json!({"code": "1301", "message": words.repeat(2_000)});
        let failure = failure_of(
            400,
            &[],
            &json!({"error": error, "contentFilter": judged}).to_string(),
        );
        assert_eq!(
            failure.message.chars().count(),
            limits::FAILURE_MESSAGE_CHARS_MAX
        );
        assert!(failure.message.contains("the prompt (level 1"), "{failure}");
    }
}
