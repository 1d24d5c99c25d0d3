//! A change made while running: what was read can be sent back, what is wrong is named, what is
//! stored survives, and a flag still wins.

use onelane_actors::model::Secret;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Place, moment};
use crate::config::{Change, Config, FieldProblem, Loaded, Origin, Shadowed};

fn started() -> Loaded {
    Place::with_config(
        "[glm]\napi_key = '0123456789abcdef.topsecret'\n\
         [policy]\n1305 = 'throttle'\n\
         [[money.prices]]\nmodel = 'm'\ninput = '0.60'\noutput = 1\n",
    )
    .load()
    .with_stored(None, moment(1_000))
    .unwrap()
}

fn change(loaded: &Loaded, patch: &Value) -> Change {
    loaded.change(patch, moment(2_000)).unwrap()
}

fn view(loaded: &Loaded) -> Value {
    serde_json::to_value(loaded.view()).unwrap()
}

/// The same program started again on what the store kept.
fn restarted(loaded: &Loaded, json: &str) -> Loaded {
    let mut sources = loaded.sources.clone();
    sources.stored = None;
    let fresh = Loaded::compose(sources).unwrap();
    fresh.with_stored(Some(json), moment(9_999)).unwrap()
}

#[test]
fn the_view_has_the_field_names_of_the_api() {
    let expected = json!({
        "id": "default",
        "apiKey": null,
        "baseUrl": "https://open.bigmodel.cn/api/paas/v4",
        "model": "glm-4.7",
        "maxTokens": null,
        "temperature": null,
        "timeout": 600_000,
        "timeouts": {"connect": 10_000, "firstByte": 300_000, "idle": 60_000},
        "maxRetries": 3,
        "isActive": true,
        "maxConcurrency": 1,
        "maxQueueJobs": 1_000_000,
        "onInterrupted": "retry",
        "quarantineAfter": 3,
        "retry": {
            "baseDelay": 1_000, "backoffMultiplier": 2.0, "maxDelay": 30_000, "jitter": 0.2,
            "throttleBase": 5_000, "throttleMax": 120_000,
            "overloadBase": 30_000, "overloadMax": 300_000,
        },
        "breaker": {
            "consecutiveFailures": 5, "failureRate": 0.5, "window": 60_000, "minCalls": 20,
            "coolDown": 30_000, "coolDownMultiplier": 2.0, "coolDownMax": 600_000,
        },
        "policy": {},
        "priceList": "auto",
        "prices": [],
        "createdAt": "1970-01-01T00:00:01.000Z",
        "updatedAt": "1970-01-01T00:00:01.000Z",
    });
    let loaded = Place::new()
        .load()
        .with_stored(None, moment(1_000))
        .unwrap();
    assert_eq!(view(&loaded), expected);

    let shown = view(&started());
    assert_eq!(shown["apiKey"], "****cret");
    assert_eq!(shown["policy"], json!({"1305": "throttle"}));
    let price = json!({"model": "m", "input": "0.6", "cachedInput": null, "output": "1",
        "promptFrom": 0, "completionFrom": 0});
    assert_eq!(shown["prices"], json!([price]));
}

#[test]
fn what_was_read_can_be_sent_back() {
    let loaded = started();
    let same = change(&loaded, &view(&loaded));
    assert_eq!(same.changed, Vec::<String>::new());
    assert_eq!(view(&same.loaded), view(&loaded));
    assert_eq!(same.loaded.stored_json(), loaded.stored_json());

    let mut edited = view(&loaded);
    edited["maxConcurrency"] = json!(4);
    edited["retry"]["jitter"] = json!(1);
    let edited = change(&loaded, &edited);
    assert_eq!(edited.changed, ["maxConcurrency", "retry.jitter"]);
    assert_eq!(edited.loaded.settings.lane.max_concurrency, 4);
    let key = Secret::new("0123456789abcdef.topsecret");
    assert_eq!(edited.loaded.settings.endpoint.api_key, Some(key));
}

#[test]
fn a_change_is_live_dated_and_survives_a_restart() {
    let loaded = started();
    let patch = json!({
        "apiKey": "id.other",
        "maxTokens": 99,
        "timeouts": {"idle": 5},
        "timeout": 50,
        "policy": {"1234": "overload"},
        "prices": [{"model": "n", "input": 3, "cachedInput": "1.5", "output": "0"}],
    });
    let changed = change(&loaded, &patch).loaded;
    assert_eq!(
        changed.settings.endpoint.api_key,
        Some(Secret::new("id.other"))
    );
    assert_eq!(changed.settings.max_tokens, Some(99));
    assert_eq!(changed.settings.timeouts.idle_ms, 5);
    assert_eq!(changed.settings.timeouts.total_ms, 50);
    assert_eq!(changed.settings.policy.len(), 2);
    assert_eq!(changed.config.money.prices.len(), 1);
    assert_eq!(changed.origin("glm.max_tokens"), Origin::Stored);
    let shown = view(&changed);
    assert_eq!(shown["createdAt"], "1970-01-01T00:00:01.000Z");
    assert_eq!(shown["updatedAt"], "1970-01-01T00:00:02.000Z");

    let again = restarted(&loaded, &changed.stored_json().unwrap());
    assert_eq!(view(&again), shown);
    assert_eq!(again.config, changed.config);
    assert_eq!(again.warnings, Vec::<String>::new());
}

#[test]
fn null_takes_a_change_back() {
    let loaded = started();
    let patch = json!({"maxTokens": 5, "retry": {"jitter": 0.9, "maxDelay": 40_000},
        "policy": {"1305": "overload", "1234": "overload"}, "prices": []});
    let changed = change(&loaded, &patch).loaded;
    assert_eq!(changed.config.money.prices, []);

    let back = change(
        &changed,
        &json!({"maxTokens": null, "policy": {"1305": null}}),
    );
    assert_eq!(back.changed, ["maxTokens", "policy.1305"]);
    assert_eq!(back.loaded.settings.max_tokens, None);
    assert_eq!(
        view(&back.loaded)["policy"],
        json!({"1234": "overload", "1305": "throttle"})
    );

    let all = json!({"maxTokens": null, "retry": null, "policy": null, "prices": null});
    let back = change(&changed, &all);
    assert_eq!(back.loaded.config, loaded.config);
    assert_eq!(change(&back.loaded, &all).changed, Vec::<String>::new());
}

#[test]
fn a_field_fixed_by_flag_or_environment_is_stored_and_reported() {
    let place = Place::new().env("ONELANE_API_KEY", "id.env");
    let loader = place.loader().flag("--model", "glm.model", Some("flag"));
    let loaded = loader.load().unwrap();
    let patch = json!({"model": "put", "apiKey": "id.put", "maxConcurrency": 2});
    let changed = change(&loaded, &patch);
    let shadowed = |field: &str, origin| Shadowed {
        field: field.to_owned(),
        origin,
    };
    assert_eq!(
        changed.shadowed,
        [
            shadowed("apiKey", Origin::Env("ONELANE_API_KEY")),
            shadowed("model", Origin::Flag("--model")),
        ]
    );
    assert_eq!(changed.loaded.settings.model, "flag");
    assert_eq!(changed.loaded.settings.lane.max_concurrency, 2);
    let json = changed.loaded.stored_json().unwrap();
    let without = Place::new()
        .load()
        .with_stored(Some(&json), moment(3))
        .unwrap();
    assert_eq!(without.settings.model, "put");

    // It is checked all the same: the next start may be without the flag.
    let too_long = loaded.change(&json!({"model": "m".repeat(129)}), moment(2));
    assert_eq!(too_long.unwrap_err().problems[0].field, "model");
}

#[test]
fn every_wrong_field_is_named_with_what_would_be_right() {
    let loaded = started();
    let check = |patch: Value, field: &str, problem: &str| {
        let error = loaded.change(&patch, moment(2)).unwrap_err();
        let expected = FieldProblem {
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        assert_eq!(error.problems, [expected], "{patch}");
    };
    check(
        json!([]),
        "",
        "must be an object with a part of the configuration",
    );
    check(
        json!({"max_tokens": 5}),
        "max_tokens",
        "unknown key; did you mean `maxTokens`?",
    );
    check(
        json!({"maxTokens": "5"}),
        "maxTokens",
        "must be a whole number, not text",
    );
    check(
        json!({"maxTokens": 131_073}),
        "maxTokens",
        "must be 1 to 131072, GLM's own range",
    );
    check(
        json!({"maxConcurrency": 0}),
        "maxConcurrency",
        "must be a whole number from 1 to 256",
    );
    check(
        json!({"retry": 5}),
        "retry",
        "must be an object, not a number",
    );
    check(
        json!({"retry": {"maxDelay": 10}}),
        "retry.baseDelay",
        "must not be longer than retry.maxDelay",
    );
    check(
        json!({"retry": {"base": 10}}),
        "retry.base",
        "unknown key; retry has `baseDelay`, `backoffMultiplier`, `maxDelay`, `jitter`, \
         `throttleBase`, `throttleMax`, `overloadBase`, `overloadMax`",
    );
    check(
        json!({"baseUrl": "https://api.z.ai/api/paas/v4/chat/completions"}),
        "baseUrl",
        "must leave out /chat/completions, which is appended: write https://api.z.ai/api/paas/v4",
    );
    check(
        json!({"baseUrl": "https://u:p@x/v4"}),
        "baseUrl",
        "must not hold a user or password; the key belongs in apiKey",
    );
    check(
        json!({"apiKey": "****abcd"}),
        "apiKey",
        "is a masked secret; leave it out to keep the one in force",
    );
    check(
        json!({"id": "other"}),
        "id",
        "can't change; it is `default`",
    );
    check(
        json!({"server": {"listen": "0.0.0.0:1"}}),
        "server",
        "can't change while the program runs; set it in config.toml",
    );
    check(
        json!({"policy": []}),
        "policy",
        "must be an object, not a list",
    );
    check(
        json!({"onInterrupted": "never"}),
        "onInterrupted",
        "must be one of `retry`, `fail`",
    );
    check(
        json!({"prices": [{"model": "m", "input": 0.5, "output": "1"}]}),
        "prices[0].input",
        "must be text, so that it stays exact: write \"0.5\"",
    );
    check(
        json!({"prices": [{"model": "m", "input": "1", "cached_input": "1", "output": "1"}]}),
        "prices[0].cached_input",
        "unknown key; did you mean `cachedInput`?",
    );

    let error = loaded
        .change(&json!({"maxTokens": -1, "temperature": "hot"}), moment(2))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "maxTokens: must be a whole number from 0 to 4294967295; \
         temperature: must be a number, not text"
    );
}

#[test]
fn no_debug_form_tells_a_secret() {
    let changed = change(
        &started(),
        &json!({"apiKey": "abcdefghijklmnop.othersecret"}),
    );
    let told = format!("{changed:?} {}", view(&changed.loaded));
    for secret in ["topsecret", "othersecret"] {
        assert!(!told.contains(secret), "{told}");
    }
}

fn valid_patch() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        (1_u32..=131_072).prop_map(|n| ("maxTokens", json!(n))),
        (0.0..=1.0).prop_map(|t: f64| ("temperature", json!(t))),
        any::<bool>().prop_map(|b| ("isActive", json!(b))),
        "[a-z0-9.-]{1,20}".prop_map(|m| ("model", json!(m))),
        "[!-)+-~]{1,40}".prop_map(|k| ("apiKey", json!(k))),
        (1_u64..=86_400_000).prop_map(|n| ("timeout", json!(n))),
        (1_u16..=256).prop_map(|n| ("maxConcurrency", json!(n))),
        (0_u32..=100).prop_map(|n| ("maxRetries", json!(n))),
        (0_u64..=1_000, 0.0..=1.0)
            .prop_map(|(n, j): (u64, f64)| ("retry", json!({"baseDelay": n, "jitter": j}))),
        (1_u32..9, 0.0..=1.0).prop_map(|(n, r): (u32, f64)| (
            "breaker",
            json!({"consecutiveFailures": n, "failureRate": r})
        )),
        "[a-z0-9_]{1,8}".prop_map(|code| ("policy", json!({ code: "overload" }))),
        (0_u64..1_000_000, 0_u64..1_000_000_000).prop_map(|(units, nanos)| (
            "prices",
            json!([{"model": "p", "input": format!("{units}.{nanos:09}"), "output": units}])
        )),
        Just(("priceList", json!("usd"))),
        Just(("maxTokens", Value::Null)),
        Just(("retry", Value::Null)),
        Just(("apiKey", Value::Null)),
    ];
    proptest::collection::vec(field, 0..8).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Value::Object(fields.collect::<Map<_, _>>())
    })
}

proptest! {
    #[test]
    fn any_valid_change_is_stored_shown_and_can_be_sent_back(
        patches in proptest::collection::vec(valid_patch(), 1..4)
    ) {
        let first = Loaded::from_config(&Config::default()).unwrap();
        let mut loaded = first.with_stored(None, moment(1)).unwrap();
        for patch in &patches {
            loaded = loaded.change(patch, moment(2)).unwrap().loaded;
        }
        let shown = view(&loaded);
        let same = loaded.change(&shown, moment(3)).unwrap();
        prop_assert!(same.changed.is_empty(), "{:?}", same.changed);
        let again = restarted(&loaded, &loaded.stored_json().unwrap());
        prop_assert_eq!(view(&again), shown);
        prop_assert_eq!(&again.config, &loaded.config);
        prop_assert_eq!(&again.settings, &loaded.settings);
    }

    #[test]
    fn whatever_is_sent_is_a_change_or_an_error_with_a_field(
        name in "[a-zA-Z._]{0,12}|retry|breaker|policy|prices|timeouts|maxTokens|model",
        inner in "[a-zA-Z0-9._]{0,12}|baseDelay|idle|model|input",
        leaf in prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ],
        shape in 0..4,
    ) {
        let value = match shape {
            0 => leaf,
            1 => json!({ inner: leaf }),
            2 => json!([{ inner: leaf }]),
            _ => json!([leaf]),
        };
        let loaded = started();
        if let Err(error) = loaded.change(&json!({ name: value }), moment(2)) {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.problems.iter().all(|p| !p.problem.contains("bug")), "{error}");
        }
    }
}
