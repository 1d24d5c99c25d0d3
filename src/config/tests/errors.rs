//! Every mistake is answered with where it was made and what would be right; no answer tells a
//! secret.

use std::ffi::OsString;

use super::{Place, moment};
use crate::config::{Config, ConfigError, Loaded};

fn check(config: &str, expected: &str) {
    let error = Place::with_config(config).error();
    let error = error.replace(
        "\nit was read because it is in the working directory; --config names another",
        "",
    );
    assert_eq!(error, expected, "{config}");
}

/// A file a line, its line ends written as `\n`; beneath it what is said of `config.toml`, marked `>`.
fn check_all(cases: &str) {
    let lines = cases.trim().lines().filter(|line| !line.starts_with("; "));
    let mut told: Vec<(&str, Vec<String>)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("> "), told.last_mut()) {
            (Some(error), Some((_, errors))) => errors.push(format!("config.toml:{error}")),
            _ => told.push((line, Vec::new())),
        }
    }
    for (file, errors) in told {
        check(&file.replace("\\n", "\n"), &errors.join("\n"));
    }
}

#[test]
fn an_unknown_key_is_shown_with_the_one_that_was_meant() {
    check_all(
        r#"
[lane]\n\n  max_concurency = 2
> 3:3: lane.max_concurency: unknown key; did you mean `lane.max_concurrency`?
[glm]\nmax_retries = 2
> 2:1: glm.max_retries: unknown key; did you mean `retry.max_retries`?
[plugins]\nurl = ''
> 1:2: plugins: unknown key; config.toml has `glm`, `lane`, `lanes`, `retry`, `breaker`, `policy`, `money`, `account`, `store`, `server`, `gateway`, `alerts`, `webhooks`, `log`, `otlp`
[glm.timeouts]\nwait = 1
> 2:1: glm.timeouts.wait: unknown key; glm.timeouts has `connect_ms`, `first_byte_ms`, `idle_ms`, `stall_ms`, `total_ms`
"#,
    );
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    let error = Place::with_config("[glm]\nmodel = glm-4.7\n").error();
    assert!(error.starts_with("config.toml:2:9: "), "{error}");
    let error = Place::with_config("[lane]\nmax_concurrency = 1\nmax_concurrency = 2").error();
    let part = "config.toml:3:1: duplicate key";
    assert!(error.starts_with(part), "{error}");
    let error = Place::with_config("[glm").error();
    assert!(error.starts_with("config.toml:1:"), "{error}");
}

#[test]
fn a_wrong_type_is_named() {
    check_all(
        r#"
lane.max_concurrency = '2'
> 1:6: lane.max_concurrency: must be a whole number, not text
lane.max_concurrency = 1.5
> 1:6: lane.max_concurrency: must be a whole number from 1 to 256
lane.max_concurrency = -1
> 1:6: lane.max_concurrency: must be a whole number from 1 to 256
retry.jitter = nan
> 1:7: retry.jitter: must be a finite number
retry.jitter = 1979-05-27
> 1:7: retry.jitter: must not be a date
store.cache_bytes = 9223372036854775808
> 1:7: store.cache_bytes: is too large a number
glm.is_active = 1
> 1:5: glm.is_active: must be true or false, not a number
lane = 3
> 1:1: lane: must be a table, not a number
[lane]\non_interrupted = 'ignore'
> 2:1: lane.on_interrupted: must be one of `retry`, `park`, `fail`
[policy]\n1305 = 'fatal'
> 2:1: policy.1305: must be one of `throttle`, `overload`, `quota_window`, `operator_fatal`, `request_fatal`, `server_transient`, `unreachable`, `unattributed`, `duplicate_request`, `foreign_answer`
[policy]\n'a b' = 'throttle'
> 2:1: policy."a b": must be a code of GLM such as 1305, an HTTP status such as http_503 or http_5xx, or one of `api_error`, `authentication_error`, `billing_error`, `conn`, `context_length_exceeded`, `finish:model_context_window_exceeded`, `finish:network_error`, `finish:sensitive`, `insufficient_quota`, `invalid_request_error`, `model_not_found`, `overloaded`, `overloaded_error`, `rate_limit_error`, `rate_limit_exceeded`, `request_too_large`, `server_error`, `timeout_error`, `async_unsupported`, `base_url_invalid`, `body_invalid`, `body_too_large`, `conn_ended`, `face_unknown`, `foreign_answer`, `html_page`, `no_api_key`, `request_invalid`, `timeout_connect`, `timeout_first_byte`, `timeout_idle`, `timeout_total`, `tls_untrusted`, `unreachable`
"#,
    );
}

#[test]
fn a_mistake_under_a_name_of_the_operators_own_is_shown_where_it_was_made() {
    check_all(
        r#"
[policy]\n1305 = { class = 'overload', jobs = 'keep' }
> 2:30: policy.1305.jobs: unknown key; did you mean `job`?
[policy]\n1305 = { job = 'again' }
> 2:10: policy.1305.job: must be one of `keep`, `retry`, `backoff`, `once`, `step_aside`, `fail`
[policy]\n1305 = 5
> 2:1: policy.1305: must be text or a table, not a number
[lanes.big]\nmodels = ['glm-5', 5, 'glm-*-air']
> 2:20: lanes.big.models[1]: must be text, not a number
> 2:23: lanes.big.models[2]: may have a `*` at its end only, as in glm-4.5*
[lanes.big]\nmodels = 'glm-5'
> 2:1: lanes.big.models: must be a list of texts, not text
[lanes.big]\n\nmax_concurrency = 2
> 3:1: lanes.big.models: must name at least one model, each in 1 to 128 characters
[lanes.big]
> 1:8: lanes.big: must not be empty; it may have `models`, `max_concurrency`, `auto_concurrency`, `auto_min`, `auto_trial_ms`, `requests_per_minute`, `tokens_per_minute`, `min_spacing_ms`, `fair_quantum_tokens`, `ageing_ms`, `affinity`, `reserve`
[lanes.'b g']\nmodels = ['glm-5']
> 1:8: lanes."b g": must be named with 1 to 64 letters, digits, `-` or `_`, and not `default`, which is [lane]
[lanes.big]\nmodels = ['glm-5']\nmax_concurency = 2
> 3:1: lanes.big.max_concurency: unknown key; did you mean `max_concurrency`?
[lane]\nmax_concurrency = 200\n[lanes.a]\nmodels = ['m']\nmax_concurrency = 57
> 5:1: lanes: must have at most 256 calls in flight together, the default lane included
[glm.fallbacks]\n\n'glm-4.5' = ['glm-4.5']
> 3:1: glm.fallbacks."glm-4.5": must name other models, each in 1 to 128 characters
[glm]\nasync_models = ['']
> 2:17: glm.async_models[0]: must not be empty
'glm.model' = 'm'
> 1:1: "glm.model": unknown key; config.toml has `glm`, `lane`, `lanes`, `retry`, `breaker`, `policy`, `money`, `account`, `store`, `server`, `gateway`, `alerts`, `webhooks`, `log`, `otlp`
"#,
    );
}

#[test]
fn a_value_out_of_range_is_shown_where_it_was_said() {
    check_all(
        r#"
[lane]\nmax_concurrency = 0
> 2:1: lane.max_concurrency: must be a whole number from 1 to 256
; The default of one does not fit to the other, which is the one that was said.
[retry]\n# short\nmax_delay_ms = 10
> 3:1: retry.base_delay_ms: must not be longer than retry.max_delay_ms
[retry]\nthrottle_max_ms = 10
> 2:1: retry.throttle_base_ms: must be at least 1 and not longer than retry.throttle_max_ms
[server]\npreview_chars = 100001
> 2:1: server.preview_chars: must be a whole number from 0 to 100000
[server]\nlisten = ':4700'
> 2:1: server.listen: must be an IP address and a port such as 127.0.0.1:4700
[store]\ncache_bytes = 0
> 2:1: store.cache_bytes: must be 1048576 to 1099511627776 bytes (1 TiB)
"#,
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    check(
        "[server]\nlistn = 'x'\n[lane]\nmax_concurrency = true\n[glm]\nmodel = ''",
        "config.toml:2:1: server.listn: unknown key; did you mean `server.listen`?\n\
         config.toml:4:1: lane.max_concurrency: must be a whole number, not true or false\n\
         config.toml:6:1: glm.model: must not be empty",
    );
}

#[test]
fn a_file_that_nobody_named_is_explained() {
    let error = Place::with_config("title = 'some other program'").error();
    assert!(error.ends_with("--config names another"), "{error}");
}

#[test]
fn a_named_file_must_be_there() {
    let place = Place::new();
    let named = place.loader().config_file(Some("none.toml"));
    assert!(matches!(named.load(), Err(ConfigError::Read { .. })));
    let error = place.env("ONELANE_CONFIG", "none.toml").error();
    assert!(error.starts_with("none.toml: can't be read: "), "{error}");
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let check = |name: &str, value: OsString, expected: &str| {
        assert_eq!(Place::new().env(name, value).error(), expected);
    };
    check(
        "ONELANE_LISTEN",
        "here".into(),
        "ONELANE_LISTEN: server.listen: must be an IP address and a port such as 127.0.0.1:4700",
    );
    check(
        "ONELANE_MODEL",
        "".into(),
        "ONELANE_MODEL: glm.model: is set but empty; give it a value or unset it",
    );
    check(
        "ONELANE_CONFIG",
        "".into(),
        "ONELANE_CONFIG: is set but empty; give it a value or unset it",
    );
    check(
        "ZHIPUAI_API_KEY",
        "two words".into(),
        "ZHIPUAI_API_KEY: glm.api_key: must be printable ASCII without blanks",
    );
    let place = Place::new();
    let flag = |key: &'static str, value: &str| {
        let loaded = place.loader().flag("--flag", key, Some(value)).load();
        loaded.unwrap_err().to_string()
    };
    assert_eq!(
        flag("glm.base_url", "api.z.ai"),
        "--flag: glm.base_url: must be an http or https URL such as \
         https://open.bigmodel.cn/api/paas/v4"
    );
    assert_eq!(
        flag("lane.max_concurrency", "many"),
        "--flag: lane.max_concurrency: must be a whole number, not text"
    );
    assert_eq!(
        flag("lane.max_concurrency", "0"),
        "--flag: lane.max_concurrency: must be a whole number from 1 to 256"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let place = Place::new().env("ONELANE_STORE", OsString::from_vec(vec![0xff]));
    assert_eq!(
        place.error(),
        "ONELANE_STORE: store.path: is not UTF-8 text"
    );
}

#[test]
fn secrets_are_given_once_and_never_told() {
    check_all(
        r#"
[glm]\napi_key = 'a'\napi_key_file = 'b'
> 3:1: glm.api_key_file: can't stand beside glm.api_key; set one of them
[glm]\napi_key = 12345678
> 2:1: glm.api_key: must be text, not a number
[glm]\nmodel = 'm'\napi_key = 'my secret'
> 3:1: glm.api_key: must be printable ASCII without blanks
"#,
    );
}

#[test]
fn a_secret_file_that_can_t_be_read_is_named() {
    let config = "[glm]\napi_key_file = 'key'";
    let error = Place::with_config(config).error();
    let part = "config.toml:2:1: glm.api_key_file: key: can't be read: ";
    assert!(error.starts_with(part), "{error}");
    let error = Place::with_config(config).file("key", "\n").error();
    assert_eq!(
        error,
        "config.toml:2:1: glm.api_key_file: key: must not be empty"
    );
}

#[test]
fn prices_are_checked_row_by_row() {
    check_all(
        r#"
[[money.prices]]\nmodel = 'm'\ninput = 0.6\noutput = '1'
> 3:1: money.prices[0].input: must be text, so that it stays exact: write "0.6"
[[money.prices]]\nmodel = 'm'\ninput = 'x'\noutput = -1
> 3:1: money.prices[0].input: must be a plain decimal such as "0.6"
> 4:1: money.prices[0].output: must not be negative
[[money.prices]]\nmodel = 'm'\ninput = '0.0000000001'\noutput = '1000001'
> 3:1: money.prices[0].input: must have at most nine decimals
> 4:1: money.prices[0].output: must be at most 1000000
[[money.prices]]\nmodel = 'm'\ninput = 1\noutput = 1\n[[money.prices]]\nmodel = 'n'\ninput = 1\noutput = 1\nprompt_from = 5
> 5:1: money.prices[1]: `n` needs a row without bounds, or calls below them have no price
[[money.prices]]\nmodel = 'm'\ninput = 1\noutput = 1\n[[money.prices]]\nmodel = 'm'\ninput = 2\noutput = 1
> 5:1: money.prices[1]: `m` has two rows with the same bounds
[[money.prices]]\nmodel = 'm'\ninput = 1\noutput = 1\n[[money.prices]]\nmodel = 'm'\ninput = 2\noutput = 1\ncurrency = 'USD'
> 1:1: money.prices[0]: `m` has rows with a currency and rows without; say it in all of them or in none
[[money.prices]]\nmodel = 'm'\ninput = 1
> 1:1: money.prices[0]: needs `output`
[[money.prices]]\nmodel = 'm'\ninptu = 1\noutput = 1
> 3:1: money.prices[0].inptu: unknown key; did you mean `input`?
money.prices = 'free'
> 1:7: money.prices: must be a list of tables, not text
"#,
    );
}

#[test]
fn a_server_that_others_can_reach_needs_a_token() {
    let check = |listen: &str, token: bool, guarded: bool| {
        let place = Place::new().env("ONELANE_LISTEN", listen);
        let place = if token {
            place.env("ONELANE_ADMIN_TOKEN", "tell-nobody")
        } else {
            place
        };
        let result = place.load().config.check_server();
        assert_eq!(result.is_ok(), guarded, "{listen} {token}: {result:?}");
        if let Err(error) = result {
            assert!(error.to_string().contains("ONELANE_ADMIN_TOKEN"), "{error}");
        }
    };
    for loopback in "127.0.0.1:1 127.9.9.9:1 [::1]:1 [::ffff:127.0.0.1]:1".split(' ') {
        check(loopback, false, true);
    }
    for open in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
        check(open, false, false);
        check(open, true, true);
    }
}

#[test]
fn a_missing_key_says_what_to_set() {
    let error = Config::default().check_key().unwrap_err().to_string();
    for name in "ONELANE_API_KEY ZAI_API_KEY ZHIPUAI_API_KEY api_key_file --simulate".split(' ') {
        assert!(error.contains(name), "{error}");
    }
    let place = Place::new().env("ZAI_API_KEY", "id.secret");
    assert_eq!(place.load().config.check_key(), Ok(()));
}

#[test]
fn a_key_in_the_clear_is_warned_of() {
    let place = Place::new()
        .env("ONELANE_BASE_URL", "http://glm.example/v4")
        .env("ONELANE_API_KEY", "id.secret");
    let warnings = place.load().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("in the clear"), "{warnings:?}");
    assert!(!warnings[0].contains("secret"));
}

#[test]
fn a_stored_change_of_another_version_does_not_keep_the_program_from_starting() {
    let stored = r#"{"createdAt":1,"updatedAt":2,"values":
        {"glm":{"model":"m","sparkle":true},"lane":{"max_concurrency":"two"}}}"#;
    let loaded = Place::new()
        .load()
        .with_stored(Some(stored), moment(9))
        .unwrap();
    assert_eq!(loaded.config.glm.model, "m");
    assert_eq!(loaded.config.lane.rules.max_concurrency, 1);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(
        loaded.warnings[0].ends_with("; it is ignored"),
        "{:?}",
        loaded.warnings
    );

    let broken = Place::new().load().with_stored(Some("{"), moment(9));
    assert!(matches!(broken, Err(ConfigError::Stored(_))));
}

#[test]
fn a_stored_change_that_does_not_go_with_the_file_names_the_command_that_takes_it_back() {
    let stored = r#"{"createdAt":1,"updatedAt":2,"values":{"retry":{"max_delay_ms":1}}}"#;
    let refused = Place::new().load().with_stored(Some(stored), moment(9));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("retry."), "{error}");
    let command = "`onelane config unset retry.max_delay_ms --store FILE`";
    assert!(error.contains(command), "{error}");
}

#[test]
fn a_program_s_bad_value_is_named() {
    let mut config = Config::default();
    config.glm.base_url = "nowhere".to_owned();
    let error = Loaded::from_config(&config).unwrap_err().to_string();
    let part = "glm.base_url: must be an http or https URL";
    assert!(error.starts_with(part), "{error}");
    let mut config = Config::default();
    config.retry.delays.jitter = f64::NAN;
    assert!(Loaded::from_config(&config).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z_.=\"'0-9{},\n #-]{0,80}") {
        drop(crate::config::file::parse(std::path::Path::new("config.toml"), &text));
    }
}

#[test]
fn a_word_by_which_a_job_would_be_called_without_end_is_shown_with_what_to_say_instead() {
    check(
        "[policy]\n1301 = { job = 'keep' }",
        "config.toml:2:10: policy.1301: keeps the job in its place (`job = \"keep\"`) while the lane \
         goes on (`lane = \"go_on\"`), so that GLM would be called again and again without a bound; \
         name a `lane` rule that waits, such as \"cool_down\", or another `job` rule, such as \
         \"backoff\"",
    );
}

#[test]
fn a_model_that_two_lanes_name_is_shown_with_both() {
    check(
        "[lanes.a]\nmodels = ['glm-5']\n[lanes.b]\nmodels = ['x', 'glm-5']",
        "config.toml:4:1: lanes.b.models: must not name glm-5, which lanes.a.models names already; \
         take it out of one of them",
    );
}
