//! Client keys: made by an operator, shown by a program, and what that opens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac_sha256::HMAC;
use onelane_core::model::{ClientKey, KeyForm, KeyId, KeyRights, KeyRole, KeySecret, Transition};
use serde_json::json;

use super::*;

const KEYS: &str = "/api/admin/glm/keys";
const JOBS: &str = "/api/glm/jobs";
const CHAT: &str = "/v1/chat/completions";
const HI: &str = r#"{"prompt":"hi"}"#;

/// A key of these rights, and how it is sent.
fn key(n: u8, rights: KeyRights) -> (Transition, String) {
    let id = KeyId::new(n.into());
    let (secret, text) = KeySecret::make(id, &[n; 32], KeyForm::Plain);
    let key = ClientKey {
        rights,
        ..ClientKey::new(id, format!("key {n}"), secret, sample::NOW)
    };
    let text = text.expose().to_owned();
    (Transition::InsertKey(Box::new(key)), text)
}

/// An API with keys of these rights, numbered from 1, whose lane is paused.
async fn with_keys<const N: usize>(rights: [KeyRights; N]) -> (Running, [String; N]) {
    let mut texts = std::array::from_fn(|_| String::new());
    let mut changes = Vec::new();
    for ((n, rights), text) in (1..).zip(rights).zip(&mut texts) {
        let (change, shown) = key(n, rights);
        changes.push(change);
        *text = shown;
    }
    let api = World::after(changes).serve().await;
    api.lane.pause(None).await.unwrap();
    (api, texts)
}

async fn ask(api: &Running, key: &str, method: &str, path: &str, body: Option<&str>) -> Reply {
    let mut request = api.request(method, path).bearer_auth(key);
    if let Some(body) = body {
        let json = ("content-type", "application/json");
        request = request.header(json.0, json.1).body(body.to_owned());
    }
    Running::send(request).await
}

async fn submit(api: &Running, key: &str, body: &str) -> Reply {
    ask(api, key, "POST", JOBS, Some(body)).await
}

#[tokio::test]
async fn a_key_that_an_operator_makes_opens_at_once_and_is_shown_this_once() {
    let api = Running::paused().await;
    // A loopback lane without any key is open, as ever.
    api.submit(HI).await;
    let made = api
        .post(
            KEYS,
            r#"{"name":"agent","userId":"ada","callsInFlight":2,"models":["GLM-5"]}"#,
        )
        .await;
    let made = made.expect(201);
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(text.starts_with(&format!("{id}-")), "{made}");
    let place = format!("{KEYS}/{id}");
    assert_eq!(made["models"], json!(["glm-5"]));
    let refused = api.post(JOBS, HI).await.expect(401);
    assert_eq!(kind(&refused), "unauthorized");
    let job = r#"{"prompt":"hi","model":"glm-5"}"#;
    submit(&api, text, job).await.expect(202);
    for shown in [api.get(KEYS).await, api.get(&place).await] {
        assert_eq!(shown.status, 200);
        assert!(shown.text.contains(id) && shown.text.contains("\"state\":\"live\""));
        let digest = KeySecret::digest(text);
        for secret in [&text[20..], digest.as_str(), "sha256", "secret"] {
            assert!(!shown.text.contains(secret), "{secret} in {}", shown.text);
        }
    }
    let again = api
        .post(&format!("{place}/rotate"), r#"{"overlapMs":1000}"#)
        .await;
    let newer = again.expect(201)["key"].as_str().unwrap().to_owned();
    for key in [text, &newer] {
        submit(&api, key, job).await.expect(202);
    }
    let newest = api.post(&format!("{place}/rotate"), "").await.expect(201);
    submit(&api, &newer, job).await.expect(401);
    let newest = newest["key"].as_str().unwrap();
    submit(&api, newest, job).await.expect(202);
    let revoked = api.post(&format!("{place}/revoke"), "").await.expect(200);
    assert_eq!(revoked["key"]["state"], "revoked");
    let refused = submit(&api, newest, job).await;
    assert!(refused.detail().contains("was revoked at"), "{refused:?}");
    refused.expect(401);
    let dead = api.post(&format!("{place}/rotate"), "").await.expect(409);
    assert_eq!(kind(&dead), "dead-key");
    let nobody = api.get(&format!("{KEYS}/ol-00000000000000ff")).await;
    assert_eq!(kind(&nobody.expect(404)), "unknown-key");
    api.post(JOBS, HI).await.expect(401);
    // A change of the settings leaves the keys in force.
    let change = Running::send(
        api.request("PUT", "/api/admin/glm/config")
            .header("content-type", "application/json")
            .body(r#"{"maxRetries":5}"#),
    );
    change.await.expect(200);
    api.post(JOBS, HI).await.expect(401);
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_refused_by_its_field() {
    let api = Running::paused().await;
    let check = async |body: &str, want: &str| {
        let refused = api.post(KEYS, body).await;
        assert_eq!(refused.status, 400, "{body}: {refused:?}");
        assert!(refused.detail().starts_with(want), "{body}: {refused:?}");
    };
    check("{}", "name: is missing").await;
    check(
        r#"{"name":"a","callsInFlight":0}"#,
        "callsInFlight: must be",
    )
    .await;
    check(
        r#"{"name":"a","faces":["chats"]}"#,
        "faces[0]: must be one of chat",
    )
    .await;
    check(
        r#"{"name":"a","onDisconnect":"drain"}"#,
        "onDisconnect: must be abort",
    )
    .await;
    check(
        r#"{"name":"a","maxPriority":1,"defaultPriority":2}"#,
        "defaultPriority:",
    )
    .await;
    check(
        r#"{"name":"a","budget":{"period":"day"}}"#,
        "budget: must have either",
    )
    .await;
    check(r#"{"name":"a","user":"b"}"#, "user: is unknown").await;
    check(
        r#"{"name":"a","expiresAt":"2001-01-01T00:00:00Z"}"#,
        "expiresAt: must be in",
    )
    .await;
    assert_eq!(api.get(KEYS).await.expect(200)["keys"], json!([]));
    api.submit(HI).await;
}

#[tokio::test]
async fn a_key_sees_its_own_jobs_and_nobody_elses() {
    let (api, [one, two]) = with_keys([KeyRights::default(), KeyRights::default()]).await;
    let taken = async |key: &str, body: &str| {
        let taken = submit(&api, key, body).await.expect(202);
        taken["id"].as_str().unwrap().to_owned()
    };
    let keyed = r#"{"prompt":"hi","idempotencyKey":"k"}"#;
    let mine = taken(&one, keyed).await;
    let theirs = taken(&two, keyed).await;
    assert_ne!(mine, theirs, "an idempotency key is its client's own");
    assert_eq!(taken(&one, keyed).await, mine);
    let path = |id: &str| format!("{JOBS}/{id}");
    ask(&api, &one, "GET", &path(&mine), None).await.expect(202);
    let nothing = path("0199a000-0000-7000-8000-00000000ffff");
    let gone = ask(&api, &one, "GET", &nothing, None).await;
    for (method, path) in [
        ("GET", path(&theirs)),
        ("GET", format!("{}?wait=1s", path(&theirs))),
        ("DELETE", path(&theirs)),
        ("POST", format!("{}/cancel", path(&theirs))),
    ] {
        let refused = ask(&api, &one, method, &path, None).await;
        let words = refused.detail();
        let problem = refused.expect(404);
        assert_eq!(kind(&problem), kind(&gone.json()));
        assert_eq!(words, format!("there is no job {theirs}"));
    }
    let after = format!(r#"{{"prompt":"hi","after":["{theirs}"]}}"#);
    let refused = submit(&api, &one, &after).await.expect(422);
    assert_eq!(kind(&refused), "unknown-dependency");
    let listed = async |query: &str| {
        let list = ask(&api, &one, "GET", &format!("{JOBS}{query}"), None).await;
        let list = list.expect(200);
        let jobs = list["jobs"].as_array().unwrap().clone();
        assert_eq!(list["total"], jobs.len());
        jobs
    };
    let own = listed("").await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["id"], mine);
    assert_eq!(listed("?keyId=ol-0000000000000002").await.len(), 0);
    assert_eq!(listed(&format!("?ids={theirs}")).await.len(), 0);
    // The operators of a lane without tokens see all.
    let all = api
        .get("/api/admin/glm/queue?keyId=ol-0000000000000002")
        .await;
    let all = all.expect(200);
    assert_eq!(all["queue"][0]["id"], theirs);
    assert_eq!(all["total"], 1);
    ask(&api, &one, "DELETE", &path(&mine), None)
        .await
        .expect(200);
    for path in [
        "/api/admin/glm/queue",
        "/api/admin/glm/keys",
        "/api/admin/glm/metrics",
    ] {
        let refused = ask(&api, &one, "GET", path, None).await;
        assert_eq!(kind(&refused.expect(403)), "forbidden");
    }
}

#[tokio::test]
async fn what_is_beyond_a_key_is_refused_with_the_right_that_is_missing() {
    let narrow = KeyRights {
        user_id: Some("ada".into()),
        default_priority: 3,
        max_priority: Some(5),
        models: vec!["glm-5".into()],
        ..KeyRights::default()
    };
    let chatless = KeyRights {
        faces: vec![onelane_core::model::Face::Messages],
        ..KeyRights::default()
    };
    let (api, [narrow, chatless]) = with_keys([narrow, chatless]).await;
    let job = r#"{"prompt":"hi","model":"glm-5"}"#;
    let taken = submit(&api, &narrow, job).await.expect(202);
    let path = format!("{JOBS}/{}", taken["id"].as_str().unwrap());
    let read = ask(&api, &narrow, "GET", &path, None).await.expect(202);
    assert_eq!(
        (&read["userId"], &read["priority"]),
        (&json!("ada"), &json!(3))
    );
    let refused = async |key: &str, headers: &[(&str, &str)], body: &str, want: &str| {
        let mut request = api.request("POST", JOBS).bearer_auth(key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("content-type", "application/json");
        let refused = Running::send(request.body(body.to_owned())).await;
        assert!(refused.detail().contains(want), "{refused:?}");
        assert_eq!(kind(&refused.expect(403)), "beyond-rights");
    };
    refused(
        &narrow,
        &[("x-onelane-user", "bob")],
        job,
        "of user ada alone",
    )
    .await;
    refused(
        &narrow,
        &[("x-onelane-priority", "6")],
        job,
        "priority 6 is above 5",
    )
    .await;
    refused(&narrow, &[], HI, "it may ask for glm-5").await;
    refused(&chatless, &[], HI, "the face chat; it may use messages").await;
    let list = r#"[{"prompt":"a","model":"glm-5"},{"prompt":"b","model":"glm-5","userId":"bob"}]"#;
    refused(&narrow, &[], list, "of user ada alone").await;
    // In GLM's words where the route is one of its own.
    let chat = r#"{"model":"glm-4.6","messages":[{"role":"user","content":"hi"}]}"#;
    let refused = ask(&api, &narrow, "POST", CHAT, Some(chat))
        .await
        .expect(403);
    assert_eq!(refused["error"]["type"], "permission_error");
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("may not ask for model glm-4.6"), "{words}");
    let models = ask(&api, &narrow, "GET", "/v1/models", None)
        .await
        .expect(200);
    let models = models["data"].as_array().unwrap();
    assert!(
        models.iter().all(|model| model["id"] == "glm-5"),
        "{models:?}"
    );
    let other = ask(&api, &narrow, "GET", "/v1/models/glm-4.6", None).await;
    assert_eq!(other.status, 404);
    let unknown = Running::send(api.request("POST", CHAT).bearer_auth("sk-1").body(chat));
    let unknown = unknown.await.expect(401);
    assert_eq!(unknown["error"]["code"], "1000");
}

#[tokio::test]
async fn headers_say_whose_and_how_urgent_a_job_is_where_no_key_forbids_it() {
    let (api, [key]) = with_keys([KeyRights::default()]).await;
    let said = async |body: &str| {
        let request = api.request("POST", JOBS).bearer_auth(&key);
        let request = request.header("x-onelane-user", "eve");
        let request = request.header("x-onelane-priority", "-4");
        let request = request.header("content-type", "application/json");
        let taken = Running::send(request.body(body.to_owned()))
            .await
            .expect(202);
        let path = format!("{JOBS}/{}", taken["id"].as_str().unwrap());
        let job = ask(&api, &key, "GET", &path, None).await.expect(202);
        (
            job["userId"].as_str().unwrap().to_owned(),
            job["priority"].clone(),
        )
    };
    assert_eq!(said(HI).await, ("eve".to_owned(), json!(-4)));
    let named = r#"{"prompt":"hi","userId":"ada","priority":0}"#;
    assert_eq!(said(named).await, ("ada".to_owned(), json!(0)));
    let request = api.request("POST", JOBS).bearer_auth(&key);
    let request = request.header("x-onelane-priority", "high");
    let request = request.header("content-type", "application/json");
    let refused = Running::send(request.body(HI)).await.expect(400);
    assert_eq!(kind(&refused), "invalid-header");
}

#[tokio::test]
async fn a_key_hands_in_so_many_jobs_a_minute_and_is_told_when_to_come_back() {
    let bound = KeyRights {
        requests_per_minute: Some(2),
        ..KeyRights::default()
    };
    let (api, [key, other]) = with_keys([bound, KeyRights::default()]).await;
    let two = r#"[{"prompt":"a"},{"prompt":"b"}]"#;
    submit(&api, &key, two).await.expect(202);
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let refused = ask(&api, &key, "POST", CHAT, Some(chat)).await;
    assert_eq!(refused.headers["retry-after"], "60");
    assert_eq!(refused.headers["x-should-retry"], "true");
    let refused = refused.expect(429);
    assert_eq!(refused["error"]["type"], "rate_limit_error");
    assert_eq!(refused["error"]["code"], "1302");
    assert_eq!(
        kind(&submit(&api, &key, HI).await.expect(429)),
        "rate-limited"
    );
    let list = submit(&api, &key, two).await;
    assert_eq!(list.headers["retry-after"], "60", "of a list, too");
    assert_eq!(list.expect(429)["refused"], 2);
    submit(&api, &other, HI).await.expect(202);
    // Looking is not counted.
    ask(&api, &key, "GET", JOBS, None).await.expect(200);
}

#[tokio::test]
async fn an_old_sdk_signs_with_a_key_that_was_made_for_it_and_with_no_other() {
    let api = Running::paused().await;
    let made = async |jwt: bool| {
        let body = json!({"name": "old", "jwt": jwt}).to_string();
        let made = api.post(KEYS, &body).await.expect(201);
        made["key"].as_str().unwrap().to_owned()
    };
    let (signing, plain) = (made(true).await, made(false).await);
    // As `zhipuai` does it; its time has long been over.
    let sign = |id: &str, secret: &str| {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let head = part(br#"{"alg":"HS256","sign_type":"SIGN"}"#);
        let claims = json!({"api_key": id, "exp": 1, "timestamp": 0}).to_string();
        let signed = format!("{head}.{}", part(claims.as_bytes()));
        let signature = part(&HMAC::mac(signed.as_bytes(), secret.as_bytes()));
        format!("{signed}.{signature}")
    };
    let (id, secret) = signing.split_once('.').unwrap();
    for key in [&sign(id, secret), &signing, &plain] {
        ask(&api, key, "GET", JOBS, None).await.expect(200);
    }
    let (plain_id, plain_secret) = plain.rsplit_once('-').unwrap();
    for key in [sign(id, plain_secret), sign(plain_id, plain_secret)] {
        ask(&api, &key, "GET", JOBS, None).await.expect(401);
    }
    let path = format!("{KEYS}/{id}/revoke");
    api.post(&path, "").await.expect(200);
    let refused = ask(&api, &sign(id, secret), "GET", JOBS, None).await;
    assert!(refused.detail().contains("was revoked"), "{refused:?}");
}

#[tokio::test]
async fn a_viewers_key_looks_at_everything_but_whole_prompts_and_changes_nothing() {
    let (change, text) = key(1, KeyRights::default());
    let Transition::InsertKey(mut viewer) = change else {
        unreachable!()
    };
    viewer.role = KeyRole::Viewer;
    let api = World::after([Transition::InsertKey(viewer)]).serve().await;
    for path in ["/api/admin/glm/queue", "/api/admin/glm/metrics", KEYS] {
        ask(&api, &text, "GET", path, None).await.expect(200);
    }
    for (method, path) in [
        ("POST", JOBS),
        ("POST", "/api/admin/glm/pause"),
        ("GET", JOBS),
    ] {
        let body = (method == "POST" && path == JOBS).then_some(HI);
        let refused = ask(&api, &text, method, path, body).await.expect(403);
        assert_eq!(kind(&refused), "forbidden");
    }
}
