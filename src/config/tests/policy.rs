//! The table of failures in force is what the lane goes by, and everybody can see what is shipped and
//! what an operator said.

use onelane_core::model::{Failure, FailureClass, JobRule, code};
use serde_json::{Value, json};

use super::{Place, moment};
use crate::config::{Loaded, PolicyClass};
use crate::glm::ErrorTable;

fn row(loaded: &Loaded, code: &str) -> Value {
    serde_json::to_value(loaded.policy_of(code).unwrap()).unwrap()
}

#[test]
fn every_shipped_row_and_every_code_of_our_own_is_in_the_table() {
    let table = ErrorTable::shipped();
    let loaded = Place::new().load();
    let rows = loaded.policy();
    assert_eq!(rows.len(), table.rows().count() + table.own_rows().count());
    assert!(
        rows.iter()
            .all(|row| !row.overridden && row.origin.is_none())
    );
    assert_eq!(
        row(&loaded, "1302"),
        json!({
            "code": "1302",
            "statusCode": 429,
            "meaning": "account concurrency / request-rate limit for this model",
            "class": "throttle",
            "job": "keep",
            "lane": "cool_down",
            "breaker": "ignore",
            "overridden": false,
            "origin": null,
        })
    );
    assert_eq!(row(&loaded, "1311")["lane"], "hold_model_for_operator");
    assert_eq!(row(&loaded, "timeout_total")["breaker"], "count");
    let inner = row(&loaded, "body:200_error");
    assert_eq!(inner["class"], "map_by_inner_code");
    assert_eq!(&inner["job"], &Value::Null);
}

#[test]
fn a_kind_of_error_that_is_left_out_of_the_shipped_settings_fails_its_job_and_no_hold_does() {
    let failure = |class, code: &str, status_code| Failure {
        status_code,
        ..Failure::new(class, code, "words")
    };
    let kinds = ["timeout", "rate_limit", "network_error", "server_error"];
    let transient = FailureClass::ServerTransient;
    let of_a_kind = [
        ("timeout", transient, code::TIMEOUT_FIRST_BYTE, None),
        ("timeout", transient, code::TIMEOUT_IDLE, Some(200)),
        ("timeout", transient, code::TIMEOUT_TOTAL, None),
        ("timeout", transient, "http_408", Some(408)),
        ("timeout", transient, "http_504", Some(504)),
        ("rate_limit", FailureClass::Throttle, "1302", Some(429)),
        ("rate_limit", FailureClass::Throttle, "http_429", Some(429)),
        ("rate_limit", FailureClass::Overload, "1305", Some(429)),
        ("network_error", transient, code::CONNECTION, None),
        ("network_error", transient, code::CONNECTION, Some(200)),
        ("network_error", transient, code::CONNECTION_ENDED, None),
        (
            "network_error",
            FailureClass::ForeignAnswer,
            code::FOREIGN_ANSWER,
            Some(200),
        ),
        ("server_error", transient, "http_503", Some(503)),
        ("server_error", transient, "1234", Some(500)),
        ("server_error", transient, code::BODY_INVALID, Some(200)),
        ("server_error", transient, code::BODY_TOO_LARGE, Some(200)),
        ("server_error", transient, "finish:network_error", Some(200)),
    ];
    let of_none = [
        (FailureClass::QuotaWindow, "1308"),
        (FailureClass::OperatorFatal, "1113"),
        (FailureClass::OperatorFatal, "1311"),
        (FailureClass::OperatorFatal, code::HTML_PAGE),
        (FailureClass::OperatorFatal, code::TLS_UNTRUSTED),
        (FailureClass::Unreachable, code::TIMEOUT_CONNECT),
        (FailureClass::Unreachable, code::UNREACHABLE),
        (FailureClass::Unattributed, "http_404"),
        (FailureClass::DuplicateRequest, "1231"),
    ];
    let shipped = Place::new().load();
    for left_out in kinds {
        let kept: Vec<_> = kinds.iter().filter(|kind| **kind != left_out).collect();
        let config = format!("[retry]\nretryable_errors = {kept:?}\n");
        let loaded = Place::with_config(&config).load();
        for (kind, class, code, status) in of_a_kind {
            let failure = failure(class, code, status);
            let (_, rule) = loaded.settings.decide(&failure);
            let (_, usual) = shipped.settings.decide(&failure);
            assert_ne!(
                usual.job,
                JobRule::Fail,
                "{code}: all are retried by default"
            );
            match kind == left_out {
                true => assert_eq!(rule.job, JobRule::Fail, "{left_out}: {code}"),
                false => assert_eq!(rule, usual, "{left_out}: {code}"),
            }
            assert_eq!((rule.lane, rule.breaker), (usual.lane, usual.breaker));

            let config = format!("{config}[policy]\n\"{code}\" = {{ job = 'retry' }}");
            let told = Place::with_config(&config).load();
            let (_, rule) = told.settings.decide(&failure);
            assert_eq!(rule.job, JobRule::Retry, "{code}: the policy wins");
        }
        for (class, code) in of_none {
            let failure = failure(class, code, None);
            let rules = [&loaded, &shipped].map(|loaded| loaded.settings.decide(&failure));
            assert_eq!(rules[0], rules[1], "{left_out}: {code}");
            assert_ne!(rules[0].1.job, JobRule::Fail);
        }
    }
}

#[test]
fn what_the_table_shows_is_what_the_lane_decides() {
    let config = "[policy]\n1234 = 'overload'\n1311 = { job = 'fail' }\n\
                  http_5xx = { lane = 'cool_down' }\n7777 = { class = 'throttle', breaker = 'open' }";
    let loaded = Place::with_config(config).load();
    let mut codes: Vec<_> = loaded.policy().into_iter().map(|row| row.code).collect();
    assert!(codes.contains(&"7777".to_owned()));
    codes.extend(["http_502", "http_418"].map(str::to_owned));
    for code in codes {
        let row = loaded.policy_of(&code).unwrap();
        let shipped = ErrorTable::shipped();
        let shipped = shipped
            .class(&code)
            .or_else(|| shipped.own_row(&code)?.failure_class());
        let Some(of_call) = shipped.or(match row.class {
            PolicyClass::Is(class) => Some(class),
            _ => None,
        }) else {
            continue;
        };
        let failure = Failure::new(of_call, &code, "words");
        let (class, rule) = loaded.settings.decide(&failure);
        assert_eq!(row.class, PolicyClass::Is(class), "{code}");
        let shown = (row.job, row.lane, row.breaker);
        assert_eq!(
            shown,
            (Some(rule.job), Some(rule.lane), Some(rule.breaker)),
            "{code}"
        );
    }
}

#[test]
fn an_operators_word_is_shown_with_where_it_was_said() {
    let config =
        "[policy]\n1305 = { job = 'keep' }\nhttp_5xx = 'overload'\n7777 = { lane = 'cool_down' }";
    let place = Place::with_config(config);
    let loaded = place.load();
    let patch = json!({"policy": {"1305": {"class": "throttle"}, "1234": {"class": "overload"}}});
    let loaded = loaded.change(&patch, moment(1)).unwrap().loaded;
    let said = |code: &str| {
        let row = loaded.policy_of(code).unwrap();
        assert_eq!(row.overridden, row.origin.is_some());
        row.origin
            .map(|o| o.replace(&format!("{}/", place.path().display()), ""))
    };
    assert_eq!(said("1234").as_deref(), Some("stored change"));
    assert_eq!(
        said("1305").as_deref(),
        Some("stored change, file config.toml")
    );
    assert_eq!(said("http_502").as_deref(), Some("file config.toml"));
    assert_eq!(said("http_529"), None);
    assert_eq!(row(&loaded, "http_502")["class"], "overload");
    // Of a code that the table does not know, the class is up to the status it comes with.
    let unknown = row(&loaded, "7777");
    assert_eq!(unknown["class"], "by_http_status");
    assert_eq!(unknown["lane"], "cool_down");
    assert_eq!(&unknown["job"], &Value::Null);
}

#[test]
fn a_status_has_a_row_and_an_unknown_code_has_none() {
    let loaded = Place::new().load();
    let class = |code: &str| loaded.policy_of(code).map(|row| row.class);
    assert_eq!(
        class("http_418"),
        Some(PolicyClass::Is(FailureClass::Unattributed))
    );
    assert_eq!(
        class("http_503"),
        Some(PolicyClass::Is(FailureClass::ServerTransient))
    );
    for unknown in ["9999", "http_999", "http_0503", "", "nonsense"] {
        assert_eq!(class(unknown), None, "{unknown}");
    }
}

#[test]
fn the_table_shows_what_the_list_of_retryable_errors_makes_fail() {
    let config =
        "[retry]\nretryable_errors = ['timeout']\n[policy]\nhttp_502 = { job = 'backoff' }";
    let loaded = Place::with_config(config).load();
    for (code, job, said) in [
        ("http_500", "fail", true),
        ("1302", "fail", true),
        ("http_502", "backoff", true),
        ("timeout_total", "backoff", false),
        ("1311", "keep", false),
    ] {
        let row = row(&loaded, code);
        assert_eq!(
            (&row["job"], row["overridden"].as_bool()),
            (&json!(job), Some(said)),
            "{row}"
        );
    }
}
