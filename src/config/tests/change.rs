//! A change made while running: what was read can be sent back, what is wrong is named, what is
//! stored survives, and a flag still wins.

use onelane_core::model::{
    BreakerRule, FailureClass, JobRule, LaneRule, PolicyOverride, Secret, Settings,
};
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
fn the_view_masks_the_key_and_shows_what_was_configured() {
    let shown = view(&started());
    assert_eq!(shown["apiKey"], "****cret");
    assert_eq!(shown["policy"], json!({"1305": "throttle"}));
    let price = json!({"model": "m", "input": "0.6", "cachedInput": null, "output": "1",
        "promptFrom": 0, "completionFrom": 0, "promptTo": null, "currency": null,
        "validFrom": null, "validUntil": null, "hours": null, "days": null, "zone": null});
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
    assert_eq!(edited.loaded.settings.lane.rules.max_concurrency, 4);
    let key = Secret::new("0123456789abcdef.topsecret");
    assert_eq!(edited.loaded.settings.glm.api_key, Some(key));
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
    assert_eq!(changed.settings.glm.api_key, Some(Secret::new("id.other")));
    assert_eq!(changed.settings.glm.max_tokens, Some(99));
    assert_eq!(changed.settings.glm.timeouts.idle_ms, 5);
    assert_eq!(changed.settings.glm.timeouts.total_ms, 50);
    let class = |code: &str| changed.settings.policy[code].class;
    assert_eq!(class("1234"), Some(FailureClass::Overload));
    assert_eq!(class("1305"), Some(FailureClass::Throttle));
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
    assert_eq!(back.loaded.settings.glm.max_tokens, None);
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
fn lanes_are_made_changed_and_taken_back_while_running() {
    let loaded = Place::with_config(
        "[lane]\nmax_concurrency = 3\n[lanes.air]\nmodels = ['glm-4.5*']\nmax_concurrency = 4\n",
    )
    .load();
    let lane = |loaded: &Loaded, model: &str| {
        let name = loaded.settings.lane_of(model).to_owned();
        let rules = loaded.settings.rules_of(&name);
        (name, rules.max_concurrency)
    };
    let made = change(
        &loaded,
        &json!({"lanes": {"big": {"models": ["glm-5"], "requestsPerMinute": 30}}}),
    );
    assert_eq!(
        made.changed,
        ["lanes.big.models", "lanes.big.requestsPerMinute"]
    );
    // What is not said is as built in, not as [lane] says.
    assert_eq!(lane(&made.loaded, "glm-5"), ("big".to_owned(), 1));
    assert_eq!(lane(&made.loaded, "glm-4.5-air"), ("air".to_owned(), 4));
    assert_eq!(lane(&made.loaded, "glm-4.7"), ("default".to_owned(), 3));
    let shown = view(&made.loaded);
    assert_eq!(shown["lanes"]["big"]["requestsPerMinute"], 30);
    assert_eq!(shown["lanes"]["big"]["autoTrial"], 60_000);

    // The other lane, and what is not named of this one, stay as they are.
    let faster = change(
        &made.loaded,
        &json!({"lanes": {"big": {"maxConcurrency": 2}}}),
    )
    .loaded;
    assert_eq!(lane(&faster, "glm-5"), ("big".to_owned(), 2));
    assert_eq!(
        faster.settings.lanes["big"].rules.pace.requests_per_minute,
        30
    );
    assert_eq!(faster.settings.lanes.len(), 2);
    let again = restarted(&loaded, &faster.stored_json().unwrap());
    assert_eq!(again.settings, faster.settings);

    let slower = change(
        &faster,
        &json!({"lanes": {"big": {"maxConcurrency": null}}}),
    )
    .loaded;
    assert_eq!(lane(&slower, "glm-5"), ("big".to_owned(), 1));
    let back = change(&faster, &json!({"lanes": {"big": null}}));
    assert_eq!(back.changed, ["lanes.big"]);
    assert_eq!(lane(&back.loaded, "glm-5"), ("default".to_owned(), 3));
    let all = change(&faster, &json!({"lanes": null})).loaded;
    assert_eq!(all.settings, loaded.settings);
}

#[test]
fn a_stored_change_of_a_lane_that_the_file_names_no_more_is_told_and_ignored() {
    let config = "[lanes.air]\nmodels = ['glm-4.5*']\n";
    let patch = json!({"lanes": {"air": {"maxConcurrency": 2}}, "model": "m"});
    let stored = change(&Place::with_config(config).load(), &patch).loaded;
    let json = stored.stored_json().unwrap();
    let without = Place::new()
        .load()
        .with_stored(Some(&json), moment(3))
        .unwrap();
    assert_eq!(without.settings.lanes.len(), 0);
    assert_eq!(without.settings.glm.model, "m");
    assert_eq!(
        without.warnings,
        ["stored change: lanes.air: takes no model any more; it is ignored"]
    );
}

#[test]
fn fallbacks_are_changed_model_by_model_and_an_empty_chain_is_none() {
    let loaded = Place::with_config(
        "[glm.fallbacks]\n'glm-4.5' = ['glm-4.5-air']\n'glm-5' = ['glm-4.7', 'glm-4.6']\n",
    )
    .load();
    let chains = |loaded: &Loaded| {
        loaded
            .settings
            .glm
            .fallbacks
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(chains(&loaded), ["glm-4.5", "glm-5"]);
    let changed = change(
        &loaded,
        &json!({"fallbacks": {"glm-4.5": [], "glm-4.6": ["glm-4.5"]}}),
    );
    let quoted = ["fallbacks.\"glm-4.5\"", "fallbacks.\"glm-4.6\""];
    assert_eq!(changed.changed, quoted);
    assert_eq!(chains(&changed.loaded), ["glm-4.6", "glm-5"]);
    assert_eq!(
        view(&changed.loaded)["fallbacks"],
        json!({"glm-4.5": [], "glm-4.6": ["glm-4.5"], "glm-5": ["glm-4.7", "glm-4.6"]})
    );
    let again = restarted(&loaded, &changed.loaded.stored_json().unwrap());
    assert_eq!(again.settings, changed.loaded.settings);
    let back = change(&changed.loaded, &json!({"fallbacks": {"glm-4.5": null}})).loaded;
    assert_eq!(chains(&back), ["glm-4.5", "glm-4.6", "glm-5"]);
}

#[test]
fn a_code_is_changed_field_by_field_and_shown_as_shortly_as_it_can_be_said() {
    let loaded = started();
    let changed = change(
        &loaded,
        &json!({"policy": {"1305": {"job": "fail"}, "1234": {"class": "overload"}}}),
    );
    assert_eq!(changed.changed, ["policy.1234.class", "policy.1305.job"]);
    let word = |settings: &Settings, code: &str| settings.policy[code];
    assert_eq!(
        word(&changed.loaded.settings, "1305"),
        PolicyOverride {
            class: Some(FailureClass::Throttle),
            job: Some(JobRule::Fail),
            ..PolicyOverride::default()
        }
    );
    assert_eq!(
        view(&changed.loaded)["policy"],
        json!({"1234": "overload", "1305": {"class": "throttle", "job": "fail"}})
    );
    let again = restarted(&loaded, &changed.loaded.stored_json().unwrap());
    assert_eq!(again.settings, changed.loaded.settings);
    let back = change(&changed.loaded, &json!({"policy": {"1305": {"job": null}}})).loaded;
    assert_eq!(word(&back.settings, "1305"), FailureClass::Throttle.into());
}

#[test]
fn the_lane_is_told_the_shipped_exceptions_and_the_operators_words_over_them() {
    let told = |patch: Value| {
        let loaded = Place::new().load();
        change(&loaded, &json!({ "policy": patch }))
            .loaded
            .settings
            .policy
    };
    let of_the_model = PolicyOverride {
        lane: Some(LaneRule::HoldModelForOperator),
        ..PolicyOverride::default()
    };
    let shipped = told(json!({}));
    assert_eq!(shipped["1311"], of_the_model);
    // A single rule is laid over what is shipped...
    let breaker = told(json!({"1311": {"breaker": "open"}}))["1311"];
    let with_breaker = PolicyOverride {
        breaker: Some(BreakerRule::Open),
        ..of_the_model
    };
    assert_eq!(breaker, with_breaker);
    // ...another class replaces it as a whole...
    let word = told(json!({"1311": "request_fatal"}))["1311"];
    assert_eq!(word, FailureClass::RequestFatal.into());
    // ...and the row of all server errors is that of each that has none of its own.
    let words = told(json!({"http_5xx": "overload", "http_503": {"job": "keep"}}));
    assert_eq!(words["http_502"], FailureClass::Overload.into());
    assert_eq!(words["http_503"].job, Some(JobRule::Keep));
    assert_eq!(words["http_503"].class, Some(FailureClass::Overload));
    assert!(!words.contains_key("http_529"));
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
    assert_eq!(changed.loaded.settings.glm.model, "flag");
    assert_eq!(changed.loaded.settings.lane.rules.max_concurrency, 2);
    let json = changed.loaded.stored_json().unwrap();
    let without = Place::new()
        .load()
        .with_stored(Some(&json), moment(3))
        .unwrap();
    assert_eq!(without.settings.glm.model, "put");

    // It is checked all the same: the next start may be without the flag.
    let too_long = loaded.change(&json!({"model": "m".repeat(129)}), moment(2));
    assert_eq!(too_long.unwrap_err().problems[0].field, "model");
}

/// A change, and what is said of it.
const WRONG: &str = r#"[]
> : must be an object with a part of the configuration
{"max_tokens": 5}
> max_tokens: unknown key; did you mean `maxTokens`?
{"maxTokens": "5"}
> maxTokens: must be a whole number, not text
{"maxTokens": 131073}
> maxTokens: must be a whole number from 1 to 131072
{"maxConcurrency": 0}
> maxConcurrency: must be a whole number from 1 to 256
{"retry": 5}
> retry: must be an object, not a number
{"retry": {"maxDelay": 10}}
> retry.baseDelay: must not be longer than retry.maxDelay
{"retry": {"base": 10}}
> retry.base: unknown key; did you mean `retry.baseDelay`?
{"retry": {"wait": 10}}
> retry.wait: unknown key; retry has `retryableErrors`, `baseDelay`, `backoffMultiplier`, `maxDelay`, `jitter`, `throttleBase`, `throttleMax`, `maxThrottles`, `overloadBase`, `overloadMax`
{"baseUrl": "https://api.z.ai/api/paas/v4/chat/completions"}
> baseUrl: must leave out /chat/completions, which is appended: write https://api.z.ai/api/paas/v4
{"baseUrl": "https://u:p@x/v4"}
> baseUrl: must not hold a user or password; the key belongs in apiKey
{"apiKey": "****abcd"}
> apiKey: is a masked secret; leave it out to keep the one in force
{"id": "other"}
> id: can't change; it is `default`
{"server": {"listen": "0.0.0.0:1"}}
> server: can't change while the program runs; set it in config.toml
{"policy": []}
> policy: must be an object, not a list
{"onInterrupted": "never"}
> onInterrupted: must be one of `retry`, `park`, `fail`
{"policy": {"1305": {"lanes": "go_on"}}}
> policy.1305.lanes: unknown key; did you mean `lane`?
{"policy": {"1305": {"breaker": "shut"}}}
> policy.1305.breaker: must be one of `ignore`, `count`, `open`
{"lanes": {"big": {"maxConcurrency": 2}}}
> lanes.big.models: must name at least one model, each in 1 to 128 characters
{"lanes": {"x": {}}}
> lanes.x: must not be empty; it may have `models`, `maxConcurrency`, `autoConcurrency`, `autoMin`, `autoTrial`, `requestsPerMinute`, `tokensPerMinute`, `minSpacing`, `fairQuantumTokens`, `ageing`, `affinity`, `reserve`
{"policy": {"1301": {}}}
> policy.1301: must not be empty; it may have `class`, `job`, `lane`, `breaker`
{"lanes": {"big": {"models": ["glm-5"], "max_concurrency": 2}}}
> lanes.big.max_concurrency: unknown key; did you mean `maxConcurrency`?
{"lanes": {"big": {"models": ["glm-5"], "autoConcurrency": true, "autoMin": 2}}}
> lanes.big.autoMin: must be at least 1 and not above lanes.big.maxConcurrency
{"autoConcurrency": true, "autoMin": 2}
> autoMin: must be at least 1 and not above maxConcurrency
{"ageing": 5}
> ageing: must be 0 (off) or 1000 to 86400000 milliseconds (a day)
{"fallbacks": {"glm-4.5": ["glm-4.5"]}}
> fallbacks."glm-4.5": must name other models, each in 1 to 128 characters
{"retry.jitter": 0.5}
> "retry.jitter": unknown key; the configuration has `baseUrl`, `faces`, `apiKey`, `model`, `maxTokens`, `temperature`, `isActive`, `timeouts`, `timeout`, `reuse`, `asyncModels`, `asyncPoll`, `fallbacks`, `maxConcurrency`, `autoConcurrency`, `autoMin`, `autoTrial`, `requestsPerMinute`, `tokensPerMinute`, `minSpacing`, `fairQuantumTokens`, `ageing`, `affinity`, `reserve`, `pauseAfterTimeout`, `operatorProbe`, `maxQueueJobs`, `onInterrupted`, `quarantineAfter`, `lanes`, `maxRetries`, `retry`, `breaker`, `policy`, `priceList`, `prices`, `zone`, `budgets`, `doubt`, `doubtLapses`, `unpriced`, `account`, `retention`, `gateway`, `alerts`
{"prices": [{"model": "m", "input": 0.5, "output": "1"}]}
> prices[0].input: must be text, so that it stays exact: write "0.5"
{"prices": [{"model": "m", "input": "1", "cached_input": "1", "output": "1"}]}
> prices[0].cached_input: unknown key; did you mean `cachedInput`?
"#;

#[test]
fn every_wrong_field_is_named_with_what_would_be_right() {
    let loaded = started();
    let lines: Vec<&str> = WRONG.lines().collect();
    for case in lines.chunks(2) {
        let patch = serde_json::from_str(case[0]).unwrap();
        let error = loaded.change(&patch, moment(2)).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{patch}");
        assert_eq!(format!("> {error}"), case[1], "{patch}");
    }

    let error = loaded
        .change(&json!({"maxTokens": -1, "temperature": "hot"}), moment(2))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "maxTokens: must be a whole number from 1 to 131072; \
         temperature: must be a number, not text"
    );
}

#[test]
fn a_word_by_which_a_job_would_be_called_without_end_is_refused() {
    let loaded = started();
    let check = |patch: Value, code: &str| {
        let error = loaded.change(&patch, moment(2)).unwrap_err();
        let [FieldProblem { field, problem }] = error.problems.as_slice() else {
            panic!("{error}")
        };
        assert_eq!(*field, format!("policy.{code}"), "{patch}");
        let part = "without a bound; name a `lane` rule";
        assert!(problem.contains(part), "{problem}");
    };
    check(json!({"policy": {"1302": {"lane": "go_on"}}}), "1302");
    check(json!({"policy": {"1234": {"job": "keep"}}}), "1234");
    check(json!({"policy": {"http_5xx": {"job": "keep"}}}), "http_5xx");
    check(
        json!({"policy": {"timeout_total": {"job": "keep"}}}),
        "timeout_total",
    );
    let both = json!({"class": "overload", "job": "keep", "lane": "go_on"});
    check(json!({"policy": {"1301": both}}), "1301");
    // Its class is not known before, and may be one that lets the lane go on.
    check(json!({"policy": {"7777": {"job": "keep"}}}), "7777");
    // Half of it is in force already.
    let half = json!({"policy": {"1234": {"job": "keep", "lane": "cool_down"}}});
    let half = change(&loaded, &half).loaded;
    let other = json!({"policy": {"1234": {"lane": "go_on"}}});
    let error = half.change(&other, moment(3)).unwrap_err();
    assert_eq!(error.problems[0].field, "policy.1234");
    for fine in [
        json!({"1302": {"job": "retry", "lane": "go_on"}}),
        json!({"1234": {"job": "keep", "lane": "hold_model"}}),
        json!({"7777": {"class": "quota_window"}}),
    ] {
        change(&loaded, &json!({ "policy": fine }));
    }
}

#[test]
fn an_empty_entry_leaves_what_is_there_as_it_is() {
    let loaded = started();
    let lane = json!({"lanes": {"big": {"models": ["glm-5"]}}});
    let loaded = change(&loaded, &lane).loaded;
    let nothing = json!({"lanes": {"big": {}}, "policy": {"1305": {}}});
    assert_eq!(change(&loaded, &nothing).changed, Vec::<String>::new());
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
        (1_u16..=100).prop_map(|n| ("maxConcurrency", json!(n))),
        (0_u32..=100).prop_map(|n| ("maxRetries", json!(n))),
        (0_u64..=1_000, 0.0..=1.0)
            .prop_map(|(n, j): (u64, f64)| ("retry", json!({"baseDelay": n, "jitter": j}))),
        (1_u32..9, 0.0..=1.0).prop_map(|(n, r): (u32, f64)| (
            "breaker",
            json!({"consecutiveFailures": n, "failureRate": r})
        )),
        "[1-9][0-9]{3}".prop_map(|code| ("policy", json!({ code: "overload" }))),
        ("[1-9][0-9]{3}|http_50[0-9]|conn", 0_usize..3).prop_map(|(code, n)| {
            let job = ["keep", "retry", "fail"][n];
            let word = json!({"job": job, "lane": "cool_down", "breaker": "open"});
            ("policy", json!({ code: word }))
        }),
        ("[a-c]", "[a-z0-9.]{1,9}[*]?", 1_u16..=50).prop_map(|(name, model, n)| (
            "lanes",
            // No two lanes may name the same.
            json!({ &name: {"models": [format!("{name}{model}")], "maxConcurrency": n} })
        )),
        ("[a-c]", "[1-9]{1,3}").prop_map(|(model, n)| (
            "fallbacks",
            json!({ format!("glm-{model}.5"): [format!("glm-{n}")] })
        )),
        Just(("lanes", Value::Null)),
        Just(("policy", json!({"1234": null}))),
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
        name in "[a-zA-Z._]{0,12}|retry|breaker|policy|prices|timeouts|maxTokens|model|lanes|fallbacks",
        inner in "[a-zA-Z0-9._]{0,12}|baseDelay|idle|model|input|1305|big",
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
