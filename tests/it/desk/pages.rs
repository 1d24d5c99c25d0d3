//! What pages are: strict, small, in both languages, and true.

use onelane::simulator::{Fault, Rule};
use reqwest::Method;
use serde_json::json;

use super::browser::{Browser, open_desk};
use crate::support::api::Api;
use crate::support::http::{BLOCKER, stop, until_held};

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_strict_small_and_loads_nothing_from_elsewhere() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    let job = world.block(&lane).await;
    for n in 0..60 {
        let prompt = format!(
            "a prompt of some length, number {n}: {}",
            "words ".repeat(40)
        );
        api.submit(
            json!({"prompt": prompt, "userId": "a-user-with-a-name", "contentId": "article-991"}),
        )
        .await;
    }
    let of_job = format!("/desk/jobs/{job}");
    for path in [
        "/",
        "/desk",
        "/desk/jobs",
        "/desk/jobs?q=number",
        &of_job,
        "/desk/audit",
        "/desk/nothing",
        "/desk/jobs/x",
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.header("content-security-policy"), POLICY, "{path}");
        for (name, want) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("content-type", "text/html; charset=utf-8"),
        ] {
            assert_eq!(page.header(name), want, "{path}");
        }
        assert!(
            page.text.len() < 100 * 1024,
            "{path} has {} bytes",
            page.text.len()
        );
        for wrong in [
            "http://",
            "https://",
            " style=",
            "<style",
            "javascript:",
            " onclick",
            "<script>",
        ] {
            assert!(!page.text.contains(wrong), "{path}: {wrong}");
        }
        for link in page
            .attributes("href")
            .into_iter()
            .chain(page.attributes("src"))
        {
            assert!(
                link.starts_with('/') || link.starts_with('#'),
                "{path}: {link}"
            );
        }
    }
    assert_eq!(browser.get("/desk/nothing").await.status, 404);
    assert_eq!(browser.get("/desk/jobs/x").await.status, 400);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn style_and_script_are_named_by_their_content_and_kept_for_good() {
    let (_world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    let page = browser.get("/").await;
    let links = page
        .attributes("href")
        .into_iter()
        .chain(page.attributes("src"));
    let assets: Vec<&str> = links
        .filter(|link| link.starts_with("/desk/assets/"))
        .collect();
    assert_eq!(assets.len(), 3, "{assets:?}");
    let mut bytes = page.text.len();
    for asset in assets {
        let whole = browser.get(asset).await;
        assert_eq!(whole.status, 200);
        bytes += whole.text.len();
        assert!(
            whole.header("cache-control").contains("immutable"),
            "{whole:?}"
        );
        let again = browser
            .request(Method::GET, asset)
            .header("if-none-match", whole.header("etag"));
        let again = Api::send(again).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""));
    }
    assert!(
        bytes < 100 * 1024,
        "a page with all that it loads has {bytes} bytes"
    );
    assert_eq!(browser.get("/desk/assets/desk-0.css").await.status, 404);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_speak_the_browsers_language_until_another_is_chosen() {
    let (_world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    let chinese = || {
        browser
            .request(Method::GET, "/")
            .header("accept-language", "zh-CN,zh;q=0.9")
    };
    let page = Api::send(chinese()).await;
    assert!(page.text.contains("<html lang=\"zh\"") && page.text.contains("总览"));
    let page = browser.get("/").await;
    assert!(page.text.contains("<html lang=\"en\"") && page.text.contains("Overview"));
    browser.token = Some(page.form_token());
    let chosen = browser
        .post("/desk/look", &[("lang", "zh"), ("back", "/desk/jobs")])
        .await;
    assert_eq!(
        (chosen.status, chosen.header("location")),
        (303, "/desk/jobs")
    );
    browser.keep(&chosen);
    assert!(browser.get("/").await.text.contains("总览"));
    let chosen = browser
        .post("/desk/look", &[("theme", "dark"), ("back", "/")])
        .await;
    browser.keep(&chosen);
    assert!(browser.get("/").await.text.contains("data-theme=\"dark\""));
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_tells_what_runs_what_waits_and_why() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    let idle = browser.get("/").await;
    assert!(
        idle.text.contains("No call is open, nothing waits."),
        "{}",
        idle.text
    );
    let running = world.block(&lane).await;
    let next = api
        .submit(json!({"prompt": "next", "userId": "the-next-user", "priority": 7}))
        .await;
    let page = browser.get("/").await;
    assert!(page.text.contains("One call is open for"), "{}", page.text);
    assert!(page.text.contains("one job waits") || page.text.contains("1 job"));
    for shown in [
        format!("/desk/jobs/{running}"),
        format!("/desk/jobs/{next}"),
        "the-next-user".into(),
    ] {
        assert!(page.text.contains(&shown), "{shown}");
    }
    lane.cancel(running).await.unwrap();
    api.completed(&next).await;
    let rule = Rule::for_prompt("broke", Fault::error("1113"));
    world.rule(rule);
    let held = api.submit(json!({"prompt": "broke"})).await;
    until_held(&lane).await;
    let page = browser.get("/").await;
    assert!(page.text.contains("1113"), "{}", page.text);
    assert!(page.text.contains("/desk/release") && page.text.contains("No job fails"));
    let job = browser.get(&format!("/desk/jobs/{held}")).await;
    assert!(job.text.contains("until an operator acts"), "{}", job.text);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_found_by_id_content_and_words_and_paged() {
    let (world, lane, api) = open_desk().await;
    let browser = Browser::of(&api);
    world.block(&lane).await;
    let mut ids = Vec::new();
    for n in 0..60 {
        let job = json!({"prompt": format!("Prompt {n} about rivers"), "contentId": format!("article-{n}")});
        ids.push(api.submit(job).await);
    }
    let found = browser.get(&format!("/desk/jobs?q={}", ids[5])).await;
    assert_eq!(
        (found.status, found.header("location")),
        (303, &*format!("/desk/jobs/{}", ids[5]))
    );
    let rows = |page: &str| page.matches("<tr data-row").count();
    let page = browser.get("/desk/jobs?q=article-7").await;
    assert!(
        rows(&page.text) == 1 && page.text.contains(&ids[7]),
        "{}",
        page.text
    );
    let page = browser.get("/desk/jobs?q=PROMPT%2031").await;
    assert!(rows(&page.text) == 1 && page.text.contains(&ids[31]));
    let page = browser.get("/desk/jobs?status=pending").await;
    assert_eq!(rows(&page.text), 50);
    let links = page.attributes("href");
    let next = links
        .into_iter()
        .find(|link| link.contains("cursor="))
        .unwrap()
        .replace("&amp;", "&")
        .replace("&#38;", "&");
    let rest = browser.get(&next).await;
    assert_eq!(rows(&rest.text), 10);
    assert!(!rest.text.contains(BLOCKER));
    assert_eq!(browser.get("/desk/jobs?status=nonsense").await.status, 400);
    assert!(
        browser
            .get("/desk/jobs?userId=nobody")
            .await
            .text
            .contains("Nothing matches")
    );
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_are_changed_from_a_page_after_it_has_told_how_many() {
    let (world, lane, api) = open_desk().await;
    let mut browser = Browser::of(&api);
    world.block(&lane).await;
    for _ in 0..5 {
        api.submit(json!({"prompt": "hi", "userId": "bulk"})).await;
    }
    let other = api.submit(json!({"prompt": "hi", "userId": "other"})).await;
    let asks = browser.get("/desk/jobs/bulk?do=cancel&userId=bulk").await;
    assert!(asks.text.contains("Cancel 5 jobs?"), "{}", asks.text);
    browser.token = Some(asks.form_token());
    let form = [
        ("do", "reprioritise"),
        ("userId", "bulk"),
        ("priority", "9"),
        ("back", "/desk/jobs?userId=bulk"),
    ];
    let done = browser.post("/desk/jobs/bulk", &form).await;
    assert_eq!(
        done.header("location"),
        "/desk/jobs?userId=bulk&note=reprioritise-many&n=5"
    );
    let page = browser.get(done.header("location")).await;
    assert!(
        page.text.contains("The priority of 5 jobs was changed."),
        "{}",
        page.text
    );
    let form = [("do", "cancel"), ("userId", "bulk")];
    browser.post("/desk/jobs/bulk", &form).await;
    assert_eq!(lane.queue_status().await.unwrap().cancelled, 5);
    assert_eq!(api.job(&other).await["status"], "pending");
    let form = [("priority", "-3"), ("back", "/")];
    browser
        .post(&format!("/desk/jobs/{other}/priority"), &form)
        .await;
    assert_eq!(api.job(&other).await["priority"], -3);
    browser
        .post(&format!("/desk/jobs/{other}/cancel"), &[])
        .await;
    assert_eq!(api.job(&other).await["status"], "cancelled");
    browser.post("/desk/concurrency", &[("calls", "2")]).await;
    assert_eq!(lane.settings().lane.rules.max_concurrency, 2);
    browser
        .post(&format!("/desk/jobs/{other}/retry"), &[])
        .await;
    api.completed(&other).await;
    assert_eq!(
        browser
            .post("/desk/concurrency", &[("calls", "many")])
            .await
            .status,
        400
    );
    stop(lane, 1_000).await;
}
