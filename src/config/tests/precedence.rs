//! Flag over environment over stored change over file over default, and everybody can see which.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onelane_core::model::{Currency, Secret, Settings};
use serde_json::{Value, json};

use super::{Place, moment};
use crate::config::{Change, Config, Loaded, Origin};

fn change(loaded: &Loaded, patch: Value, ms: i64) -> Change {
    loaded.change(&patch, moment(ms)).unwrap()
}

#[test]
fn nothing_said_is_the_defaults() {
    let loaded = Place::new().load();
    assert_eq!(loaded.config, Config::default());
    let expected = Settings::default();
    let settings = loaded.settings.clone();
    assert_eq!(
        Settings {
            prices: expected.prices.clone(),
            meanings: expected.meanings.clone(),
            // The shipped exceptions, beside which there is nothing.
            policy: BTreeMap::new(),
            ..settings
        },
        expected
    );
    assert!(loaded.explain().iter().all(|s| s.origin == Origin::Default));
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let place = Place::with_config("[glm]\nmodel = 'file'\nmax_tokens = 7")
        .env("ONELANE_MODEL", "env")
        .env("ONELANE_STORE", "env.redb");
    let file = place.path().join("config.toml");
    let check = |loaded: &Loaded, model: &str, origin: Origin| {
        assert_eq!(loaded.settings.glm.model, model);
        assert_eq!(loaded.origin("glm.model"), origin);
        assert_eq!(loaded.origin("glm.max_tokens"), Origin::File(file.clone()));
        assert_eq!(loaded.origin("lane.max_concurrency"), Origin::Default);
    };
    let stored = r#"{"createdAt":1,"updatedAt":2,"values":{"glm":{"model":"stored"}}}"#;

    let flagged = place.loader().flag("--model", "glm.model", Some("flag"));
    let flagged = flagged.flag("--store", "store.path", None::<PathBuf>);
    let flagged = flagged.load().unwrap();
    check(&flagged, "flag", Origin::Flag("--model"));
    assert_eq!(flagged.config.store.path, "env.redb");
    let flagged = flagged.with_stored(Some(stored), moment(9)).unwrap();
    check(&flagged, "flag", Origin::Flag("--model"));

    let from_env = place.load().with_stored(Some(stored), moment(9)).unwrap();
    check(&from_env, "env", Origin::Env("ONELANE_MODEL"));

    let place = Place {
        variables: [].into(),
        ..place
    };
    check(&place.load(), "file", Origin::File(file.clone()));
    let stored = place.load().with_stored(Some(stored), moment(9)).unwrap();
    check(&stored, "stored", Origin::Stored);
}

#[test]
fn a_policy_is_put_together_code_by_code() {
    let place = Place::with_config("[policy]\n1305 = 'throttle'\nhttp_503 = 'overload'");
    let stored = r#"{"createdAt":1,"updatedAt":2,"values":{"policy":{"1305":"request_fatal"}}}"#;
    let loaded = place.load().with_stored(Some(stored), moment(9)).unwrap();
    let classes: Vec<_> = loaded
        .config
        .policy
        .iter()
        .map(|(code, class)| (code.as_str(), class.class.unwrap().name()))
        .collect();
    assert_eq!(
        classes,
        [("1305", "request_fatal"), ("http_503", "overload")]
    );
    assert_eq!(loaded.origin("policy.1305.class"), Origin::Stored);
}

#[test]
fn every_variable_sets_what_it_says() {
    let place = Place::new()
        .env("ONELANE_STORE", "/data/x.redb")
        .env("ONELANE_LISTEN", "localhost:80")
        .env("ONELANE_BASE_URL", "http://127.0.0.1:9/v4/")
        .env("ONELANE_MODEL", "glm-5")
        .env("ONELANE_ADMIN_TOKEN", "tell-nobody")
        .env("ONELANE_API_KEY", "id.secret");
    let config = place.load().config;
    assert_eq!(config.store.path, "/data/x.redb");
    assert_eq!(
        config.listen_addr().unwrap().unwrap().to_string(),
        "127.0.0.1:80"
    );
    assert_eq!(config.glm.base_url, "http://127.0.0.1:9/v4");
    assert_eq!(config.glm.model, "glm-5");
    assert_eq!(config.server.admin_token, Some(Secret::new("tell-nobody")));
    assert_eq!(config.glm.api_key, Some(Secret::new("id.secret")));
}

#[test]
fn the_first_key_variable_counts_and_picks_the_site() {
    let check = |names: &[&str], key: Option<&str>, host: &str, currency: Currency| {
        let place = names.iter().fold(Place::new(), |place, name| {
            place.env(name, format!("key-of-{name}"))
        });
        let loaded = place.load();
        let found = loaded.config.glm.api_key.as_ref().map(Secret::expose);
        assert_eq!(found, key.map(|name| format!("key-of-{name}")).as_deref());
        let url = format!("https://{host}/api/paas/v4");
        assert_eq!(loaded.config.glm.base_url, url);
        assert_eq!(loaded.settings.prices.currency(), currency);
    };
    let cn = "open.bigmodel.cn";
    let keys = ["ZHIPUAI_API_KEY", "ZAI_API_KEY", "ONELANE_API_KEY"];
    check(&[], None, cn, Currency::Cny);
    check(&keys[..1], Some(keys[0]), cn, Currency::Cny);
    check(&keys[..2], Some(keys[1]), "api.z.ai", Currency::Usd);
    check(&keys, Some(keys[2]), cn, Currency::Cny);
}

#[test]
fn the_site_of_a_key_is_only_a_default() {
    let place = Place::with_config("[glm]\nbase_url = 'https://glm.example/v4'")
        .env("ZAI_API_KEY", "id.secret");
    assert_eq!(place.load().config.glm.base_url, "https://glm.example/v4");

    let place = Place::new().env("ZAI_API_KEY", "id.secret");
    let loaded = place.load();
    let origin = loaded.origin("glm.base_url").to_string();
    assert_eq!(origin, "default with ZAI_API_KEY");
    let change = change(
        &loaded,
        json!({"baseUrl": "https://open.bigmodel.cn/api/paas/v4"}),
        1,
    );
    assert_eq!(change.shadowed, []);
    assert_eq!(change.loaded.origin("glm.base_url"), Origin::Stored);
    assert_eq!(change.loaded.settings.prices.currency(), Currency::Cny);
}

#[test]
fn a_secret_can_come_from_a_file_and_gives_way_to_the_layers_above() {
    let place =
        Place::with_config("[glm]\napi_key_file = 'glm.key'\n[server]\nadmin_token_file = 'token'")
            .file("glm.key", "id.from-the-file\n")
            .file("token", "  tok  ");
    let loaded = place.load().with_stored(None, moment(1)).unwrap();
    let of_file = Some(Secret::new("id.from-the-file"));
    assert_eq!(loaded.settings.glm.api_key, of_file);
    assert_eq!(loaded.config.server.admin_token, Some(Secret::new("tok")));
    let file = place.path().join("glm.key");
    assert_eq!(loaded.origin("glm.api_key"), Origin::File(file));

    let changed = change(&loaded, json!({"apiKey": "id.changed"}), 2);
    let key = Some(Secret::new("id.changed"));
    assert_eq!(changed.loaded.settings.glm.api_key, key);
    assert_eq!(changed.loaded.config.glm.api_key_file, None);
    // The file need not be there any more: its key was read at the start.
    std::fs::remove_file(place.path().join("glm.key")).unwrap();
    let reset = change(&changed.loaded, json!({"apiKey": null}), 3);
    assert_eq!(reset.loaded.settings.glm.api_key, of_file);

    let place = place.env("ONELANE_API_KEY", "id.env");
    let from_env = place.load();
    assert_eq!(from_env.settings.glm.api_key, Some(Secret::new("id.env")));
}

#[test]
fn the_file_is_the_named_one_or_the_first_that_is_there() {
    let model = |loaded: Loaded| loaded.config.glm.model;
    let place = Place::with_config("glm.model = 'config'").file("a.toml", "glm.model = 'a'");
    assert_eq!(model(place.load()), "config");
    let place = place.file("onelane.toml", "glm.model = 'onelane'");
    assert_eq!(model(place.load()), "onelane");
    let place = place.env("ONELANE_CONFIG", "a.toml");
    assert_eq!(model(place.load()), "a");
    let named = place.loader().config_file(Some("config.toml"));
    assert_eq!(model(named.load().unwrap()), "config");
}

#[test]
fn explaining_names_every_setting_with_its_origin_and_no_secret() {
    let config = "[policy]\n1305 = 'throttle'\n[retry]\nmax_retries = 5\n\
        [lanes.big]\nmodels = ['glm-5']\n[glm.fallbacks]\n'glm-4.5' = ['glm-4.7']";
    let place = Place::with_config(config).env("ONELANE_API_KEY", "0123456789abcdef.topsecret");
    let loaded = place.load();
    let settings = loaded.explain();
    let check = |key: &str, value: Value, origin: &str| {
        let setting = settings.iter().find(|s| s.key == key).unwrap();
        assert_eq!(setting.value, value, "{key}");
        let origin_text = setting.origin.to_string();
        assert!(origin_text.starts_with(origin), "{key}: {origin_text}");
    };
    check("retry.max_retries", json!(5), "file ");
    check("policy.1305.class", json!("throttle"), "file ");
    check("lanes.big.models", json!(["glm-5"]), "file ");
    check("lanes.big.max_concurrency", json!(1), "default");
    check("glm.fallbacks.\"glm-4.5\"", json!(["glm-4.7"]), "file ");
    check(
        "glm.api_key",
        json!("****cret"),
        "environment ONELANE_API_KEY",
    );
    check("glm.max_tokens", Value::Null, "default");
    check("server.listen", json!("127.0.0.1:4700"), "default");
    let everything = format!(
        "{} {loaded:?} {}",
        serde_json::to_string(&settings).unwrap(),
        serde_json::to_string(&loaded.config).unwrap(),
    );
    assert!(!everything.contains("topsecret"), "{everything}");
}

#[test]
fn a_program_s_own_configuration_stands_where_a_file_would() {
    let mut config = Config::default();
    config.glm.api_key = Some(Secret::new("id.secret"));
    config.lane.rules.max_concurrency = 4;
    let loaded = Loaded::from_config(&config).unwrap();
    assert_eq!(loaded.config, config);
    assert_eq!(loaded.origin("lane.max_concurrency"), Origin::Program);
    assert_eq!(loaded.origin("glm.model"), Origin::Default);
    let changed = change(&loaded, json!({"maxConcurrency": 2}), 1);
    assert_eq!(changed.loaded.settings.lane.rules.max_concurrency, 2);
    assert_eq!(changed.shadowed, []);
    // A configuration that was loaded before can be used again, file of its key and all.
    let again = Loaded::from_config(&changed.loaded.config).unwrap();
    assert_eq!(again.config, changed.loaded.config);
}
