//! Guards: the desk: who gets in, what its pages may load, that nothing is done unseen or by somebody else's page, and that
//! nobody sees what is not for them.

mod books;
mod browser;
mod pages;
mod watched;

use std::time::Duration;

use futures_util::StreamExt as _;
use onelane::config::ServerSection;
use onelane::model::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{HttpLane, KEY, served, stop};
use browser::{ADMIN, Browser, VIEWER, desk, open_desk, with_tokens};

const AUDIT: &str = "/api/admin/glm/audit";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_token_gets_a_session_whose_cookie_no_script_and_no_other_site_sees() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let mut browser = Browser::of(&api);
    for path in ["/", "/desk/jobs", "/desk/audit"] {
        let sent = browser.get(path).await;
        assert_eq!(sent.status, 303, "{sent:?}");
        assert!(sent.header("location").starts_with("/desk/login"));
    }
    assert_eq!(browser.get("/desk/live").await.status, 401);
    for wrong in ["", "wrong", KEY, "ol-0000000000000001-00"] {
        let refused = browser.post("/desk/login", &[("secret", wrong)]).await;
        assert_eq!(refused.status, 403, "{wrong}");
        assert!(refused.headers.get("set-cookie").is_none());
    }
    let to = [("secret", ADMIN), ("to", "/desk/jobs")];
    let taken = browser.post("/desk/login", &to).await;
    assert_eq!(
        (taken.status, taken.header("location")),
        (303, "/desk/jobs")
    );
    let cookie = taken.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "there is no TLS here: {cookie}");
    assert!(!cookie.contains(ADMIN));
    browser.keep(&taken);
    let page = browser.get("/").await;
    assert_eq!(page.status, 200);
    browser.token = Some(page.form_token());
    let out = browser.post("/desk/logout", &[]).await;
    assert_eq!(out.header("location"), "/desk/login");
    // Also for whoever kept the cookie.
    assert_eq!(browser.get("/").await.status, 303);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_to_log_in_are_bounded_and_a_right_token_waits_like_the_others() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let browser = Browser::of(&api);
    for _ in 0..10 {
        let refused = browser.post("/desk/login", &[("secret", "wrong")]).await;
        assert_eq!(refused.status, 403);
    }
    let waits = browser.post("/desk/login", &[("secret", ADMIN)]).await;
    assert_eq!(waits.status, 429);
    let seconds: u64 = waits.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_token_is_set_nobody_logs_in_and_only_this_machine_by_its_name_looks() {
    let (_world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    assert_eq!(browser.get("/").await.status, 200);
    assert_eq!(browser.get("/desk/login").await.status, 303);
    for path in ["/", "/desk/jobs"] {
        let request = browser
            .request(Method::GET, path)
            .header("host", "rebound.example");
        assert_eq!(Api::send(request).await.status, 403, "{path}");
    }
    // Somebody followed a link of another page.
    let request = browser
        .request(Method::GET, "/")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(Api::send(request).await.status, 200);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_no_page_of_the_desk_sent_is_refused() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let page = browser.get("/").await;
    let token = page.form_token();
    let pause = || browser.request(Method::POST, "/desk/pause");
    let form = format!("token={token}&back=/");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let refused = Api::send(pause().header(name, value).body(form.clone())).await;
        assert_eq!(refused.status, 403, "{name}: {value}");
    }
    for without in ["", "token=&back=/", "token=0123&back=/"] {
        assert_eq!(
            Api::send(pause().body(without)).await.status,
            403,
            "{without}"
        );
    }
    assert!(lane.lane().await.unwrap().paused.is_none());
    browser.token = Some(token);
    let done = browser
        .post(
            "/desk/pause",
            &[("reason", "noon"), ("back", "//evil.example")],
        )
        .await;
    assert_eq!(done.status, 303);
    assert!(
        done.header("location").starts_with("/?note=pause"),
        "{done:?}"
    );
    let paused = lane.lane().await.unwrap().paused.unwrap();
    assert_eq!(paused.reason.as_deref(), Some("noon"));
    let page = browser.get("/").await;
    assert!(page.text.contains("noon") && page.text.contains("paused"));
    browser.post("/desk/resume", &[("back", "/")]).await;
    assert!(lane.lane().await.unwrap().paused.is_none());
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_no_action_and_is_refused_each() {
    let (world, lane, api) = desk(with_tokens()).await;
    let job = world.block(&lane).await;
    let (admin, viewer) = (
        Browser::logged_in(&api, ADMIN).await,
        Browser::logged_in(&api, VIEWER).await,
    );
    let of_job = format!("/desk/jobs/{job}");
    for path in ["/", "/desk/jobs", of_job.as_str(), "/desk/audit"] {
        let page = viewer.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let actions: Vec<&str> = page.actions();
        let own = ["/desk/look", "/desk/logout", "/desk/jobs"];
        assert!(
            actions.iter().all(|action| own.contains(action)),
            "{path}: {actions:?}"
        );
        assert!(!page.text.contains("bulk"), "{path}");
    }
    assert!(admin.get(&of_job).await.actions().len() > 5);
    let orders = ["cancel", "retry", "priority", "again", "erase", "reveal"];
    let orders = orders.map(|order| format!("{of_job}/{order}"));
    let others = [
        "/desk/pause",
        "/desk/resume",
        "/desk/release",
        "/desk/concurrency",
        "/desk/jobs/bulk",
    ];
    let all = orders.iter().map(String::as_str).chain(others);
    for path in all {
        let form = [
            ("priority", "1"),
            ("model", "glm-5"),
            ("calls", "2"),
            ("do", "cancel"),
        ];
        assert_eq!(viewer.post(path, &form).await.status, 403, "{path}");
    }
    assert_eq!(viewer.get("/desk/jobs/bulk?do=cancel").await.status, 403);
    assert!(lane.audit(None, 10).await.unwrap().is_empty());
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_on_record_whether_a_page_or_the_api_gave_it_and_tells_no_secret() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let browser = Browser::logged_in(&api, ADMIN).await;
    let by_api = |method: Method, path: &str, body: Value| {
        let request = api.request(method, path).bearer_auth(ADMIN);
        Api::send(
            request
                .header("content-type", "application/json")
                .body(body.to_string()),
        )
    };
    let job = json!({"prompt": "hi", "userId": "bulk"});
    browser.post("/desk/pause", &[("reason", "noon")]).await;
    for _ in 0..3 {
        by_api(Method::POST, "/api/glm/jobs", job.clone())
            .await
            .expect(202);
    }
    let many = json!({"filter": {"userId": "bulk"}, "dryRun": true});
    by_api(Method::POST, "/api/admin/glm/cancel", many)
        .await
        .expect(200);
    let many = json!({"filter": {"userId": "bulk"}});
    by_api(Method::POST, "/api/admin/glm/cancel", many.clone())
        .await
        .expect(200);
    let secret = "fedcba9876543210.another-secret-of-glm";
    let change = json!({"maxRetries": 7, "apiKey": secret});
    by_api(Method::PUT, "/api/admin/glm/config", change)
        .await
        .expect(200);
    by_api(Method::DELETE, "/api/admin/glm/holds/lane/none", json!({}))
        .await
        .expect(404);
    let told = by_api(Method::GET, AUDIT, Value::Null).await;
    assert!(!told.text.contains("another-secret"), "{}", told.text);
    let rows = told.expect(200)["audit"].clone();
    let rows = rows.as_array().unwrap();
    let what: Vec<&str> = rows
        .iter()
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    let want = [
        "DELETE /api/admin/glm/holds/lane/{name}",
        "PUT /api/admin/glm/config",
        "POST /api/admin/glm/cancel",
        "POST /api/admin/glm/pause",
    ];
    assert_eq!(what, want, "newest first, and no dry run");
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["on"]),
        (&json!("refused"), &json!("none"))
    );
    assert!(rows[0]["problem"].is_string());
    assert_eq!(rows[1]["detail"]["maxRetries"]["after"], 7);
    assert_eq!(rows[1]["detail"]["apiKey"]["after"], "****-glm", "masked");
    assert_eq!((&rows[2]["count"], &rows[2]["detail"]), (&json!(3), &many));
    assert_eq!(
        (&rows[3]["from"], &rows[3]["by"]),
        (&json!("page"), &json!("admin"))
    );
    assert_eq!(rows[3]["detail"], json!({"reason": "noon"}));
    assert!(
        rows.iter().skip(1).all(|row| row["outcome"] == "done"),
        "{rows:?}"
    );
    let page = browser.get("/desk/audit").await;
    assert!(page.text.contains("holds/lane/{name}") && page.text.contains("noon"));
    let next = by_api(Method::GET, &format!("{AUDIT}?limit=1"), Value::Null)
        .await
        .expect(200);
    let cursor = next["nextCursor"].as_str().unwrap();
    let next = format!("{AUDIT}?limit=1&cursor={cursor}");
    let next = by_api(Method::GET, &next, Value::Null).await.expect(200);
    assert_eq!(next["audit"][0]["what"], want[1]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_was_asked_is_revealed_on_record_and_erased_for_good_while_its_books_stay() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let marked = "<b>tell</b> \"me\" & <script>alert(1)</script>";
    let id = api
        .submit(json!({"prompt": marked, "model": "glm-4.7", "contentId": "a<b>"}))
        .await;
    api.completed(&id).await;
    let path = format!("/desk/jobs/{id}");
    let page = browser.get(&path).await;
    assert!(!page.text.contains("tell"), "hidden until it is revealed");
    browser.token = Some(page.form_token());
    let shown = browser.post(&format!("{path}/reveal"), &[]).await;
    assert_eq!(shown.status, 200);
    assert!(shown.text.contains("tell") && shown.text.contains("alert(1)"));
    for raw in ["<b>tell", "<script>alert", "a<b>"] {
        assert!(!shown.text.contains(raw), "{raw}");
    }
    let listed = browser.get("/desk/jobs").await;
    assert!(listed.text.contains("tell") && !listed.text.contains("<b>tell"));

    let before = api.job(&id).await;
    let erased = browser
        .post(&format!("{path}/erase"), &[("back", &path)])
        .await;
    assert_eq!(erased.status, 303, "{erased:?}");
    let after = api.job(&id).await;
    assert_eq!(
        (&after["bodiesPruned"], &after["result"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(after["attempts"][0]["cost"], before["attempts"][0]["cost"]);
    assert!(!browser.get("/desk/jobs").await.text.contains("alert("));
    let orders = lane.audit(None, 10).await.unwrap();
    let what: Vec<&str> = orders.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(what, ["POST /api/admin/glm/erase/{id}", "reveal {id}"]);
    assert!(orders.iter().all(|entry| entry.on.as_deref() == Some(&*id)));
    let again = api
        .post_bare(&format!("/api/admin/glm/run-again/{id}"))
        .await;
    assert_eq!(again.status, 400, "{again:?}");
    let body = json!({"model": "glm-5"}).to_string();
    let again = api
        .post(&format!("/api/admin/glm/run-again/{id}"), body)
        .await;
    assert_eq!(
        again.status, 409,
        "there is nothing to ask any more: {again:?}"
    );
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_run_again_for_another_model_as_a_job_of_its_own() {
    let (world, lane, api) = served().await;
    let job = json!({"prompt": "hi", "model": "glm-4.7", "userId": "ada", "priority": 3, "contentId": "c"});
    let id = api.submit(job).await;
    api.completed(&id).await;
    let path = format!("/api/admin/glm/run-again/{id}");
    let made = api
        .post(&path, json!({"model": "glm-5"}).to_string())
        .await
        .expect(200);
    let other = made["id"].as_str().unwrap();
    assert_ne!(other, id);
    let job = api.completed(other).await;
    for (name, want) in [
        ("model", "glm-5"),
        ("userId", "ada"),
        ("contentId", "c"),
        ("prompt", "hi"),
    ] {
        assert_eq!(job[name], want, "{name}");
    }
    assert_eq!(job["priority"], 3);
    let asked = world.arrivals_of("hi");
    let models: Vec<&str> = asked.iter().map(|call| call.model.as_str()).collect();
    assert_eq!(models, ["glm-4.7", "glm-5"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watching_page_is_told_that_something_happened() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let browser = Browser::logged_in(&api, VIEWER).await;
    let answer = browser
        .request(Method::GET, "/desk/live")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut told = answer.bytes_stream();
    let submit = api
        .request(Method::POST, "/api/glm/jobs")
        .bearer_auth(ADMIN);
    let submit = submit
        .header("content-type", "application/json")
        .body(r#"{"prompt":"secret words"}"#);
    Api::send(submit).await.expect(202);
    let first = tokio::time::timeout(Duration::from_secs(30), told.next());
    let first = first.await.unwrap().unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.starts_with("event: changed\n"), "{first}");
    assert!(
        !first.contains("secret"),
        "it tells nothing of what happened"
    );
    drop(told);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_shows_a_secret() {
    let mut world = HttpLane::new();
    world.config.glm.api_key = Some(Secret::new(KEY));
    let lane = world.start().await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..with_tokens()
    };
    let api = Api::serve_desk(&lane, config).await;
    let made = api
        .request(Method::POST, "/api/admin/glm/keys")
        .bearer_auth(ADMIN);
    let made = made
        .header("content-type", "application/json")
        .body(r#"{"name":"k"}"#);
    let key = Api::send(made).await.expect(201)["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let browser = Browser::logged_in(&api, ADMIN).await;
    let cookie = browser.cookie.clone().unwrap();
    let (_, session) = cookie.split_once('=').unwrap();
    for path in ["/", "/desk/jobs", "/desk/audit", "/desk/nothing"] {
        let page = browser.get(path).await;
        for secret in [KEY, ADMIN, VIEWER, key.as_str(), session] {
            assert!(!page.text.contains(secret), "{path}");
        }
    }
    stop(lane, 1_000).await;
}
