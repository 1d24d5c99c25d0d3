//! Guards: a page that many watch costs the lane what one watcher does, and each sees what is theirs, as new as they were
//! told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use onelane::config::ServerSection;
use onelane::model::Submission;
use onelane_actors::FaultPoints;
use reqwest::Method;

use super::browser::{ADMIN, Browser, VIEWER, desk, with_tokens};
use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, stop};

/// Asks for a page as the script of a page does that was told that something happened.
async fn looks_again(browser: &Browser, path: &str) -> Reply {
    let request = browser.request(Method::GET, path);
    let page = Api::send(request.header("onelane-watch", "1")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_who_watch_a_page_cost_the_lane_what_one_does_and_each_has_forms_of_its_own() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut world = HttpLane::new();
    let counts = Arc::clone(&asked);
    world.fault_points = FaultPoints::new(Arc::new(move |actor| {
        counts.fetch_add(usize::from(actor == "queue"), Ordering::Relaxed);
    }));
    let lane = world.start().await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..with_tokens()
    };
    let api = Api::serve_desk(&lane, config).await;
    lane.pause(None).await.unwrap();
    let mut browsers = Vec::new();
    for _ in 0..10 {
        browsers.push(Browser::logged_in(&api, ADMIN).await);
    }
    let viewer = Browser::logged_in(&api, VIEWER).await;
    for path in ["/", "/desk/jobs"] {
        let before = asked.load(Ordering::Relaxed);
        browsers[0].get(path).await;
        let one = asked.load(Ordering::Relaxed) - before;
        // What an earlier look left is no longer good.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let before = asked.load(Ordering::Relaxed);
        let pages = join_all(browsers.iter().map(|browser| looks_again(browser, path))).await;
        let ten = asked.load(Ordering::Relaxed) - before;
        // On a busy machine they come in two halves of a second; and what the lane does by itself is counted, too.
        assert!(
            ten <= 2 * one + 6,
            "{path}: one asks {one} times, ten {ten}"
        );
        let tokens: Vec<String> = pages.iter().map(Reply::form_token).collect();
        for (browser, page) in browsers.iter().zip(&pages) {
            let own = browser.token.as_deref().unwrap();
            assert_eq!(page.form_token(), own, "a form is of its session");
            let foreign = tokens.iter().filter(|token| *token != own);
            for token in foreign {
                assert!(!page.text.contains(token.as_str()), "of another session");
            }
        }
        let seen = looks_again(&viewer, path).await;
        assert!(!seen.actions().contains(&"/desk/resume"), "a viewer's page");
        assert!(pages[0].text.contains("admin") && !seen.text.contains(">admin<"));
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_for_all_who_watch_is_as_new_as_what_they_were_told() {
    let (_world, lane, api) = desk(with_tokens()).await;
    lane.pause(None).await.unwrap();
    let browser = Browser::logged_in(&api, ADMIN).await;
    let answer = browser.request(Method::GET, "/desk/live").send().await;
    let mut told = answer.unwrap().bytes_stream();
    for n in 1..=4 {
        // Before it happens there is a page that is good for all who watch.
        looks_again(&browser, "/desk/jobs?status=pending").await;
        lane.submit(Submission::prompt("a job").unwrap())
            .await
            .unwrap();
        let shown = async {
            loop {
                told.next().await.unwrap().unwrap();
                let page = looks_again(&browser, "/desk/jobs?status=pending").await;
                if page.text.matches("data-row").count() == n {
                    return;
                }
            }
        };
        // Sooner than everybody looks again by themselves.
        let shown = tokio::time::timeout(Duration::from_secs(4), shown).await;
        assert!(
            shown.is_ok(),
            "they were told of {n} jobs and did not see them"
        );
    }
    stop(lane, 1_000).await;
}
