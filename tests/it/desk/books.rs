//! The pages of books and steering, on a lane that has worked: that they tell what the store has, lead to the lists behind
//! their numbers, and let nobody change what is not theirs to change.

use onelane::config::{BudgetSection, ServerSection};
use onelane::orchestrator::Orchestrator;
use onelane::simulator::{
    AccountScript, BalanceScript, ErrorFault, Fault, Planted, QuotaScript, Rule, ScriptUpdate,
};
use onelane::webhooks::{EndpointSettings, SigningKeys};
use reqwest::Method;
use serde_json::json;

use super::browser::{ADMIN, Browser, VIEWER, desk, open_desk, with_tokens};
use crate::batches_http::{form_of, lines};
use crate::process::webhooks::{OPS_SECRET, Receiver};
use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, stop, until, until_completed, until_held, until_idle};

/// What somebody may call themselves.
const USER: &str = "<b>alice</b>&\"co";
const ESCAPED: &str = "&#60;b&#62;alice&#60;/b&#62;&#38;&#34;co";
const PAGES: [&str; 11] = [
    "/desk/usage",
    "/desk/reconciliation",
    "/desk/models",
    "/desk/budgets",
    "/desk/holds",
    "/desk/calls",
    "/desk/slots",
    "/desk/batches",
    "/desk/keys",
    "/desk/alerts",
    "/desk/config",
];

/// A page that is there.
async fn page(browser: &Browser, path: &str) -> Reply {
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{path}: {}", page.text);
    page
}

#[track_caller]
fn tells(page: &Reply, words: &[&str]) {
    for word in words {
        assert!(page.text.contains(word), "{word}: {}", page.text);
    }
}

/// Three answers and a failure of somebody whose name is markup.
async fn work(world: &HttpLane, lane: &Orchestrator, api: &Api) {
    let refused = ErrorFault {
        message: Some("max_tokens <i>too large</i>".to_owned()),
        ..ErrorFault::of("1210")
    };
    world.rule(Rule::for_prompt("wrong", Fault::Error(refused)));
    for (prompt, model) in [("one", "glm-4.7"), ("two", "glm-4.7"), ("three", "glm-5")] {
        let job = json!({"prompt": prompt, "model": model, "userId": USER});
        let id = api.submit(job).await;
        api.completed(&id).await;
    }
    let id = api
        .submit(json!({"prompt": "wrong", "model": "glm-5", "userId": USER}))
        .await;
    assert_eq!(api.ended(&id).await["status"], "failed");
    until_idle(lane).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_told_by_day_model_user_and_key_and_its_numbers_lead_to_the_calls() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    tells(&page(&browser, "/desk/usage").await, &["No call was made"]);
    work(&world, &lane, &api).await;
    let of_day = page(&browser, "/desk/usage").await;
    tells(
        &of_day,
        &["<svg", ">4</a>", "¥", "/desk/calls?", "outcome=failed"],
    );
    let by_model = page(&browser, "/desk/usage?groupBy=model").await;
    tells(&by_model, &[">glm-4.7</a>", ">glm-5</a>", "model=glm-4.7"]);
    let by_user = page(&browser, "/desk/usage?groupBy=user").await;
    tells(&by_user, &[ESCAPED]);
    assert!(!by_user.text.contains("<b>alice"));
    tells(
        &page(&browser, "/desk/usage?groupBy=key").await,
        &["without a key"],
    );
    // What a number leads to has as many rows as it says.
    let calls = by_model.attributes("href").into_iter();
    let calls: Vec<&str> = calls
        .filter(|href| href.starts_with("/desk/calls?model=glm-4.7"))
        .collect();
    let list = page(&browser, &calls[0].replace("&#38;", "&")).await;
    assert_eq!(list.text.matches("<tr data-row>").count(), 2);
    let csv = browser.get("/desk/usage.csv?groupBy=model").await;
    assert_eq!(csv.status, 200);
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert!(csv.header("content-disposition").contains("usage.csv"));
    let api_csv = api
        .get("/api/admin/glm/statistics?groupBy=model&format=csv")
        .await;
    assert_eq!(csv.text, api_csv.text);
    let refused = browser.get("/desk/usage?groupBy=nonsense").await;
    assert_eq!(refused.status, 400);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_stands_on_the_overview_and_books_that_differ_from_the_meter_say_why() {
    let mut world = HttpLane::new();
    world.config.account.enabled = true;
    world.sim.update(ScriptUpdate {
        account: Some(AccountScript {
            quota: vec![QuotaScript {
                kind: "TOKENS_LIMIT".to_owned(),
                unit: Some(3),
                number: Some(5),
                percentage: Some(42.0),
                reset_in_ms: Some(600_000),
                ..QuotaScript::default()
            }],
            balance: Some(BalanceScript {
                available: "12.5".to_owned(),
                currency: "CNY".to_owned(),
            }),
            planted: vec![Planted {
                day: Some("2026-01-02".to_owned()),
                model: "<i>glm</i>".to_owned(),
                calls: 1,
                tokens: 1_234,
            }],
        }),
        ..ScriptUpdate::default()
    });
    let lane = world.start().await;
    let api = Api::serve_desk(&lane, served()).await;
    let browser = Browser::of(&api);
    until("GLM has told", async || lane.account().asked_at.is_some()).await;
    let overview = page(&browser, "/").await;
    tells(&overview, &["5 h tokens", "42.0 %", "¥12.50"]);
    tells(
        &page(&browser, "/desk/usage").await,
        &["/desk/reconciliation"],
    );
    let days = "/desk/reconciliation?startDate=2026-01-01&endDate=2026-01-03";
    let differs = page(&browser, days).await;
    tells(
        &differs,
        &["they differ", "not ours", "+1,234", "&#60;i&#62;glm"],
    );
    assert!(!differs.text.contains("<i>glm"));
    let chinese = browser
        .request(Method::GET, days)
        .header("accept-language", "zh-CN");
    tells(&Api::send(chinese).await, &["账目核对", "非本机调用"]);
    let agrees = "/desk/reconciliation?startDate=2026-02-01&endDate=2026-02-03";
    tells(&page(&browser, agrees).await, &["they agree"]);
    let refused = browser.get("/desk/reconciliation?startDate=soon").await;
    assert_eq!(refused.status, 400);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_stand_side_by_side_with_their_times_failures_and_costs() {
    let world = HttpLane::slow(20);
    let lane = world.start().await;
    let api = Api::serve_desk(&lane, served()).await;
    let browser = Browser::of(&api);
    work(&world, &lane, &api).await;
    let models = page(&browser, "/desk/models").await;
    tells(
        &models,
        &[
            "<svg",
            ">glm-4.7</a>",
            ">glm-5</a>",
            "50.0 %</a>",
            "own fault 1",
            "/s</td>",
        ],
    );
    tells(&page(&browser, "/desk/models?days=1").await, &["glm-5"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_told_with_what_is_spent_and_left_of_it() {
    let mut world = HttpLane::new();
    let budget = BudgetSection {
        tokens: Some(1_000_000),
        ..BudgetSection::default()
    };
    world
        .config
        .money
        .budgets
        .insert("everybody".to_owned(), budget);
    let lane = world.start().await;
    let api = Api::serve_desk(&lane, served()).await;
    let browser = Browser::of(&api);
    work(&world, &lane, &api).await;
    let budgets = page(&browser, "/desk/budgets").await;
    tells(
        &budgets,
        &[
            "everybody",
            "1000000 tokens a day",
            "/desk/usage?startDate=",
            "jobs wait",
        ],
    );
    stop(lane, 1_000).await;
}

fn served() -> ServerSection {
    ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..ServerSection::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_says_why_and_is_released_and_an_open_breaker_is_closed() {
    let (world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let none = page(&browser, "/desk/holds").await;
    tells(&none, &["Nothing is held", "closed"]);
    browser.token = Some(none.form_token());
    let empty = ErrorFault {
        message: Some("余额不足 <script>".to_owned()),
        ..ErrorFault::of("1113")
    };
    world.rule(Rule::for_prompt("dear", Fault::Error(empty)));
    api.submit(json!({"prompt": "dear"})).await;
    until_held(&lane).await;
    let held = page(&browser, "/desk/holds").await;
    tells(
        &held,
        &[
            "<code>1113</code>",
            "余额不足 &#60;script&#62;",
            "value=\"account\"",
        ],
    );
    let done = browser
        .post(
            "/desk/release",
            &[("hold", "account"), ("back", "/desk/holds")],
        )
        .await;
    assert_eq!(done.header("location"), "/desk/holds?note=release");
    api.order("breaker/open", json!({"reason": "incident 7"}))
        .await;
    let open = page(&browser, "/desk/holds").await;
    tells(&open, &["incident 7", "/desk/breaker/reset"]);
    let back = [("back", "/desk/holds")];
    let done = browser.post("/desk/breaker/reset", &back).await;
    assert_eq!(done.header("location"), "/desk/holds?note=reset");
    let closed = page(&browser, "/desk/holds?note=reset").await;
    tells(&closed, &["The breaker is closed."]);
    assert!(!closed.text.contains("/desk/breaker/reset"));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_log_is_narrowed_by_its_fields_and_paged() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    work(&world, &lane, &api).await;
    let all = page(&browser, "/desk/calls").await;
    assert_eq!(all.text.matches("<tr data-row>").count(), 4);
    tells(
        &all,
        &[
            ESCAPED,
            "1210",
            "max_tokens &#60;i&#62;too large",
            "HTTP 400",
        ],
    );
    let failed = page(&browser, "/desk/calls?outcome=failed").await;
    assert_eq!(failed.text.matches("<tr data-row>").count(), 1);
    let none = page(&browser, "/desk/calls?userId=nobody").await;
    tells(&none, &["No call matches"]);
    tells(
        &page(&browser, "/desk/calls?billing=open").await,
        &["No call matches"],
    );
    let csv = browser.get("/desk/calls.csv?outcome=failed").await;
    assert_eq!((csv.status, csv.text.lines().count()), (200, 2));
    assert_eq!(browser.get("/desk/calls?from=noon").await.status, 400);
    for n in 0..60 {
        api.submit(json!({"prompt": format!("more {n}"), "model": "glm-5"}))
            .await;
    }
    until_completed(&lane, 63).await;
    let first = page(&browser, "/desk/calls?model=glm-5").await;
    assert_eq!(first.text.matches("<tr data-row>").count(), 50);
    let links = first.attributes("href");
    let next = links.iter().find(|href| href.contains("cursor=")).unwrap();
    let next = page(&browser, &next.replace("&#38;", "&")).await;
    assert_eq!(next.text.matches("<tr data-row>").count(), 12);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_in_doubt_is_found_and_settled_as_not_billed() {
    let (world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let job = world.block(&lane).await;
    lane.cancel(job).await.unwrap();
    until("the call is on record", async || {
        let calls = api.get("/api/admin/glm/calls").await.json();
        calls["calls"]
            .as_array()
            .is_some_and(|calls| !calls.is_empty())
    })
    .await;
    let in_doubt = page(&browser, "/desk/calls?billing=open").await;
    tells(&in_doubt, &["maybe billed", "Was not billed"]);
    browser.token = Some(in_doubt.form_token());
    let (id, back) = (job.to_string(), "/desk/calls?billing=open");
    let form = [("jobId", id.as_str()), ("attempt", "1"), ("back", back)];
    let done = browser.post("/desk/calls/settle", &form).await;
    assert_eq!(done.status, 303, "{done:?}");
    tells(&page(&browser, back).await, &["No call matches"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_show_who_held_them_and_what_runs_now() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    tells(
        &page(&browser, "/desk/slots").await,
        &["Nobody held a slot"],
    );
    work(&world, &lane, &api).await;
    let job = world.block(&lane).await;
    let slots = page(&browser, "/desk/slots").await;
    tells(
        &slots,
        &[
            "<svg",
            ESCAPED,
            "answered",
            "runs now",
            &format!("/desk/jobs/{job}"),
        ],
    );
    tells(&page(&browser, "/desk/slots?minutes=60").await, &["slot 1"]);
    stop(lane, 1_000).await;
}

async fn batch(api: &Api, count: usize) -> String {
    let (form, media) = form_of(&lines(count));
    let upload = api
        .request(Method::POST, "/v1/files")
        .header("content-type", media);
    let file = Api::send(upload.body(form)).await.expect(200);
    let asked = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions"});
    let made = api.post("/v1/batches", asked.to_string()).await.expect(200);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_shows_how_far_it_is_and_gives_its_results_or_is_given_up() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let none = page(&browser, "/desk/batches").await;
    tells(&none, &["There are no batches"]);
    browser.token = Some(none.form_token());
    let done = batch(&api, 3).await;
    until("the batch has ended", async || {
        let card = api.get(&format!("/v1/batches/{done}")).await.json();
        card["status"] == "completed"
    })
    .await;
    let shown = page(&browser, "/desk/batches").await;
    tells(&shown, &["3 / 3", &format!("/desk/jobs?batchId={done}")]);
    let results = format!("/desk/batches/results/file-output-{done}");
    tells(&shown, &[&results]);
    let file = browser.get(&results).await;
    assert_eq!((file.status, file.text.lines().count()), (200, 3));
    assert!(file.header("content-disposition").starts_with("attachment"));
    // That somebody took answers is on record.
    let record = lane.audit(None, 10).await.unwrap();
    assert!(record.iter().any(|entry| entry.what.contains("/v1/files/")));
    lane.pause(None).await.unwrap();
    let waits = batch(&api, 2).await;
    let cancel = format!("/desk/batches/{waits}/cancel");
    tells(&page(&browser, "/desk/batches").await, &[&cancel]);
    let given_up = browser.post(&cancel, &[("back", "/desk/batches")]).await;
    assert_eq!(
        given_up.header("location"),
        "/desk/batches?note=batch-cancelled"
    );
    until("its jobs are cancelled", async || {
        let card = api.get(&format!("/v1/batches/{waits}")).await.json();
        card["status"] == "cancelled"
    })
    .await;
    tells(&page(&browser, "/desk/batches").await, &["given up"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_with_its_secret_shown_once_replaced_and_taken_back() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let browser = Browser::logged_in(&api, ADMIN).await;
    let form = [
        ("name", "nightly <agent>"),
        ("userId", "ada"),
        ("callsInFlight", "2"),
        ("models", "glm-4.7, glm-5"),
        ("faces", "chat"),
        ("budget", "1000.123456789 CNY/day"),
        ("expiresInHours", "24"),
    ];
    let made = browser.post("/desk/keys", &form).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let (_, secret) = made.text.split_once("<pre tabindex=\"0\">").unwrap();
    let secret = secret.split('<').next().unwrap().to_owned();
    assert!(secret.starts_with("ol-"));
    let submit = |key: String| {
        let request = api.posting("/api/glm/jobs", r#"{"prompt":"hi","model":"glm-5"}"#);
        Api::send(request.bearer_auth(key))
    };
    assert_eq!(submit(secret.clone()).await.status, 202);
    let list = page(&browser, "/desk/keys").await;
    assert!(!list.text.contains(&secret), "it is shown once");
    tells(
        &list,
        &[
            "nightly &#60;agent&#62;",
            "2 calls at once",
            "glm-4.7, glm-5",
            "opens",
        ],
    );
    let keys = lane.client_keys();
    let key = keys.iter().next().unwrap();
    let limit = key.rights.budget.unwrap().limit.number();
    assert_eq!(limit, 1_000_123_456_789, "to the last digit");
    let of = |what: &str| format!("/desk/keys/{}/{what}", key.id);
    let rotated = browser.post(&of("rotate"), &[("overlapHours", "0")]).await;
    assert_eq!(rotated.status, 201);
    assert_eq!(submit(secret.clone()).await.status, 401);
    let revoked = browser.post(&of("revoke"), &[("back", "/desk/keys")]).await;
    assert_eq!(revoked.header("location"), "/desk/keys?note=revoked");
    tells(&page(&browser, "/desk/keys").await, &["revoked"]);
    // The record tells what was asked for and no secret.
    let record = serde_json::to_string(&lane.audit(None, 10).await.unwrap()).unwrap();
    assert!(record.contains("nightly") && !record.contains(&secret[20..]));
    for wrong in [
        ("budget", "much"),
        ("callsInFlight", "two"),
        ("maxPriority", "1.5"),
    ] {
        let form = [("name", "x"), wrong];
        assert_eq!(
            browser.post("/desk/keys", &form).await.status,
            400,
            "{wrong:?}"
        );
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_is_saved_after_its_differences_were_seen_and_stands_in_the_history() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let form = page(&browser, "/desk/config?section=retry").await;
    browser.token = Some(form.form_token());
    let (_, stamp) = form.text.split_once("name=\"stamp\" value=\"").unwrap();
    let stamp = stamp.split('"').next().unwrap().to_owned();
    tells(
        &form,
        &["name=\"maxRetries\"", "value=\"3\"", "Nothing was changed"],
    );
    let ask = |retries: &'static str| {
        let fields = [
            ("section", "retry"),
            ("stamp", stamp.as_str()),
            ("maxRetries", retries),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let sent = async |browser: &Browser, fields: [(String, String); 3]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        browser.post("/desk/config", &fields).await
    };
    let wrong = sent(&browser, ask("many")).await;
    assert_eq!(wrong.status, 400);
    tells(&wrong, &["role=\"alert\"", "value=\"many\""]);
    let nothing = sent(&browser, ask("3")).await;
    tells(&nothing, &["in force already"]);
    let diff = sent(&browser, ask("5")).await;
    assert_eq!(diff.status, 200);
    tells(
        &diff,
        &["<code>maxRetries</code>", "<del>3</del>", "<ins>5</ins>"],
    );
    assert_eq!(
        api.get("/api/admin/glm/config").await.json()["config"]["maxRetries"],
        3
    );
    let patch = r#"{"maxRetries":5}"#;
    let save = [("patch", patch), ("back", "/desk/config?section=retry")];
    let saved = browser.post("/desk/config/save", &save).await;
    assert_eq!(
        saved.header("location"),
        "/desk/config?section=retry&note=saved"
    );
    assert_eq!(
        api.get("/api/admin/glm/config").await.json()["config"]["maxRetries"],
        5
    );
    let after = page(&browser, "/desk/config?section=retry").await;
    tells(
        &after,
        &[
            "value=\"5\"",
            "changed while running",
            "<del>3</del>",
            "<ins>5</ins>",
        ],
    );
    // A form that was opened before is not taken for what is in force now.
    let stale = sent(&browser, ask("7")).await;
    assert_eq!(stale.status, 409);
    tells(&stale, &["Somebody changed settings meanwhile"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_glm_is_replaced_and_shown_nowhere() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let form = page(&browser, "/desk/config?section=glm").await;
    assert!(!form.text.contains(crate::support::http::KEY));
    browser.token = Some(form.form_token());
    const NEW: &str = "fedcba9876543210.another-secret-of-this-test";
    let back = "/desk/config?section=glm";
    let done = browser
        .post("/desk/config/key", &[("apiKey", NEW), ("back", back)])
        .await;
    assert_eq!(
        done.header("location"),
        "/desk/config?section=glm&note=saved"
    );
    for path in [back, "/desk/config?section=server", "/desk/audit"] {
        let shown = page(&browser, path).await;
        assert!(!shown.text.contains("another-secret"), "{path}");
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_section_of_the_settings_is_small_and_says_where_values_come_from() {
    let (_world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    let first = page(&browser, "/desk/config").await;
    let tabs = first.attributes("href").into_iter();
    let tabs: Vec<String> = tabs
        .filter(|href| href.starts_with("/desk/config?section="))
        .map(str::to_owned)
        .collect();
    assert!(tabs.len() > 8, "{tabs:?}");
    for tab in tabs {
        let section = page(&browser, &tab).await;
        assert!(
            section.text.len() < 100 * 1024,
            "{tab}: {}",
            section.text.len()
        );
        assert!(section.text.contains("default") || section.text.contains("program"));
    }
    stop(lane, 1_000).await;
}

/// With an endpoint of webhooks, which answers as it is told.
async fn with_receiver() -> (HttpLane, Orchestrator, Api, Receiver) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = Receiver::serve(listener);
    let mut world = HttpLane::new();
    world.config.webhooks.callbacks.allow_http = true;
    world.config.webhooks.callbacks.allow_private = true;
    let endpoint = EndpointSettings {
        url: format!("http://{address}/ops"),
        secret: SigningKeys::parse(OPS_SECRET).ok(),
        secret_file: None,
        events: vec!["alert.raised".to_owned()],
    };
    let endpoints = &mut world.config.webhooks.endpoints;
    endpoints.insert("ops".to_owned(), endpoint);
    let lane = world.start().await;
    let api = Api::serve_desk(&lane, served()).await;
    (world, lane, api, receiver)
}

async fn until_shown(browser: &Browser, path: &str, word: &str) -> Reply {
    until(word, async || page(browser, path).await.text.contains(word)).await;
    page(browser, path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_notice_is_sent_from_its_page_shown_with_its_tries_and_sent_again() {
    const ALERTS: &str = "/desk/alerts";
    let (_world, lane, api, receiver) = with_receiver().await;
    let mut browser = Browser::of(&api);
    let first = page(&browser, ALERTS).await;
    tells(
        &first,
        &[">ops</a>", "Nothing was told.", "/desk/alerts/test"],
    );
    browser.token = Some(first.form_token());
    let back = [("back", ALERTS)];
    // Who answers 410 wants no more: a delivery is given up at once.
    receiver.answers(410);
    let sent = browser.post("/desk/alerts/test", &back).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    assert!(sent.header("location").contains("note=tested"), "{sent:?}");
    let given_up = until_shown(&browser, ALERTS, "HTTP 410").await;
    tells(&given_up, &["webhook.test", "given up", "(1)"]);
    assert_eq!(receiver.taken().len(), 1);
    let again = given_up.attributes("action");
    let again = again
        .iter()
        .find(|to| to.starts_with("/desk/alerts/redeliver/"))
        .map(|to| (*to).to_owned());
    receiver.answers(204);
    let path = again.expect("a delivery can be sent again");
    let sent = browser.post(&path, &back).await;
    assert!(sent.header("location").contains("note=redelivered"));
    let delivered = until_shown(&browser, "/desk/alerts?status=delivered", "webhook.test").await;
    // Its tries are counted anew.
    tells(&delivered, &["HTTP 204", ">1</td>"]);
    let taken = receiver.taken();
    assert_eq!(taken.len(), 2, "one notice, sent twice");
    assert_eq!(taken[0].json()["type"], "webhook.test");
    assert_eq!(taken[0].id(), taken[1].id());
    let refused = browser.post("/desk/alerts/redeliver/nonsense", &back).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_deliveries_that_were_given_up_are_sent_again_from_their_page_with_their_count() {
    const ALERTS: &str = "/desk/alerts";
    let (_world, lane, api, receiver) = with_receiver().await;
    let mut browser = Browser::of(&api);
    browser.token = Some(page(&browser, ALERTS).await.form_token());
    let back = [("back", ALERTS)];
    receiver.answers(410);
    for given_up in 1..=3 {
        browser.post("/desk/alerts/test", &back).await;
        until_shown(&browser, ALERTS, &format!("({given_up})")).await;
    }
    receiver.answers(204);
    let sent = browser.post("/desk/alerts/redeliver", &back).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let to = sent.header("location");
    assert!(
        to.contains("note=redelivered-many") && to.contains("n=3"),
        "{to}"
    );
    tells(
        &page(&browser, to).await,
        &["3 deliveries are on their way again."],
    );
    until("all are delivered", async || {
        let delivered = page(&browser, "/desk/alerts?status=delivered").await;
        delivered.text.matches("HTTP 204").count() == 3
    })
    .await;
    let nothing_left = page(&browser, ALERTS).await;
    assert!(!nothing_left.actions().contains(&"/desk/alerts/redeliver"));
    let taken = receiver.taken();
    let ids: std::collections::BTreeSet<_> = taken.iter().map(|notice| notice.id()).collect();
    assert_eq!(
        (taken.len(), ids.len()),
        (6, 3),
        "three notices, each sent twice"
    );
    // It is on record with its count.
    tells(
        &page(&browser, "/desk/audit").await,
        &["webhooks/redeliver", ">3<"],
    );
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_the_books_and_no_action_and_is_refused_each() {
    let (_world, lane, api) = desk(with_tokens()).await;
    let (admin, viewer) = (
        Browser::logged_in(&api, ADMIN).await,
        Browser::logged_in(&api, VIEWER).await,
    );
    admin.post("/desk/keys", &[("name", "agent")]).await;
    let before = lane.audit(None, 10).await.unwrap().len();
    for path in PAGES {
        let shown = page(&viewer, path).await;
        let forms = shown.text.matches("method=\"post\"").count();
        // Language, theme, log out.
        assert_eq!(forms, 3, "{path}");
        assert!(admin.get(path).await.status == 200);
    }
    let key = lane.client_keys().iter().next().unwrap().id;
    let orders = [
        "/desk/breaker/reset".to_owned(),
        "/desk/calls/settle".to_owned(),
        "/desk/batches/batch_1/cancel".to_owned(),
        "/desk/keys".to_owned(),
        format!("/desk/keys/{key}/rotate"),
        format!("/desk/keys/{key}/revoke"),
        "/desk/alerts/test".to_owned(),
        "/desk/alerts/redeliver".to_owned(),
        "/desk/alerts/redeliver/1".to_owned(),
        "/desk/config".to_owned(),
        "/desk/config/save".to_owned(),
        "/desk/config/key".to_owned(),
    ];
    for path in &orders {
        let form = [
            ("name", "x"),
            ("patch", "{}"),
            ("apiKey", "x"),
            ("attempt", "1"),
        ];
        assert_eq!(viewer.post(path, &form).await.status, 403, "{path}");
        // And nobody's, that no page of the desk sent.
        let foreign = admin.request(Method::POST, path).body("name=x");
        assert_eq!(Api::send(foreign).await.status, 403, "{path}");
    }
    let results = viewer
        .get("/desk/batches/results/file-output-batch_1")
        .await;
    assert_eq!(results.status, 403);
    assert_eq!(viewer.get("/desk/usage.csv").await.status, 200);
    assert_eq!(lane.audit(None, 10).await.unwrap().len(), before);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_are_small_speak_chinese_and_load_nothing_from_elsewhere() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    work(&world, &lane, &api).await;
    for n in 0..120 {
        let job = json!({"prompt": format!("job {n}"), "userId": format!("user-{n}-with-a-name")});
        api.submit(job).await;
    }
    until_completed(&lane, 123).await;
    let heavy = ["/desk/usage?groupBy=user", "/desk/usage?groupBy=day,model"];
    for path in PAGES.into_iter().chain(heavy) {
        let shown = page(&browser, path).await;
        assert!(
            shown.text.len() < 100 * 1024,
            "{path}: {}",
            shown.text.len()
        );
        for wrong in [
            " style=",
            "<style",
            "javascript:",
            " onclick",
            "<script>",
            "<b>alice",
        ] {
            assert!(!shown.text.contains(wrong), "{path}: {wrong}");
        }
        for link in shown
            .attributes("href")
            .into_iter()
            .chain(shown.attributes("src"))
        {
            assert!(
                link.starts_with('/') || link.starts_with('#'),
                "{path}: {link}"
            );
        }
        let chinese = browser
            .request(Method::GET, path)
            .header("accept-language", "zh-CN");
        let chinese = Api::send(chinese).await;
        assert!(chinese.text.contains("<html lang=\"zh\"") && chinese.text.contains("用量"));
    }
    stop(lane, 1_000).await;
}
