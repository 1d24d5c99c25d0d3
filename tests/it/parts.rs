//! Guards: where the time of an attempt went is measured once, and told alike wherever it is told.

use onelane::config::ServerSection;
use onelane::model::JobStatus;
use serde_json::Value;

use crate::streams::{DONE, chat, job_of, last, open, piece, read, rest, told_by_the_test};
use crate::support::api::Api;
use crate::support::http::{HttpLane, ended, stop};

const CALLS: &str = "/api/admin/glm/calls";

fn listening() -> ServerSection {
    ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..ServerSection::default()
    }
}

async fn text(api: &Api, path: &str) -> String {
    let page = api.get(path).await;
    assert_eq!(page.status, 200, "{path}: {}", page.text);
    page.text
}

/// The column of this name in the first row of a table.
fn column<'t>(csv: &'t str, name: &str) -> &'t str {
    let mut lines = csv.lines().map(|line| line.split(','));
    let at = lines.next().unwrap().position(|column| column == name);
    let at = at.unwrap_or_else(|| panic!("no column {name}: {csv}"));
    lines.next().unwrap().nth(at).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_a_streamed_attempt_are_told_alike_wherever_it_is_told() {
    let (upstream, tell) = told_by_the_test();
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    let lane = world.start().await;
    let api = Api::serve_desk(&lane, listening()).await;
    let body = chat("one");
    let (mut response, ()) = tokio::join!(open(&api, &body), async {
        tell.send(piece("Hel")).unwrap();
    });
    let id = job_of(&response);
    read(&mut response, &piece("Hel")).await;
    // While it comes.
    let overview = text(&api, "/").await;
    assert!(overview.contains("<th class=\"n\">first token</th>"));
    let so_far = lane.so_far(id).expect("its answer comes");
    assert_eq!(so_far.events, 1);
    let first = so_far.first_token_ms.expect("its first token has come");
    let page = text(&api, &format!("/desk/jobs/{id}")).await;
    assert!(page.contains("1 tokens so far"), "{page}");

    tell.send(format!("{}{}{DONE}", piece("lo"), last()))
        .unwrap();
    tell.send(String::new()).unwrap();
    rest(response).await;
    ended(&lane, id, JobStatus::Completed).await;
    let call = &api.get(CALLS).await.json()["calls"][0];
    let parts = &call["parts"];
    assert_eq!(parts["firstToken"], first, "as it was told before");
    let number = |of: &Value| of.as_u64().unwrap_or_else(|| panic!("{call}"));
    let whole = number(&call["response"]["responseTime"]);
    assert_eq!(number(&parts["decode"]), whole - first);
    assert!(number(&parts["connect"]) <= number(&parts["firstByte"]));
    assert!(number(&parts["firstByte"]) <= first);
    assert!(number(&parts["commit"]) < 60_000, "its start was stored");
    assert_eq!(parts.get("staged"), None, "no slot was waited for");

    let csv = text(&api, &format!("{CALLS}?format=csv")).await;
    assert_eq!(column(&csv, "firstToken"), first.to_string());
    assert_eq!(column(&csv, "decode"), (whole - first).to_string());
    let exported = text(&api, "/api/admin/glm/export?what=calls").await;
    let exported: Value = serde_json::from_str(exported.trim()).unwrap();
    assert_eq!(exported["parts"], *parts);
    let sums = &api.get("/api/admin/glm/statistics").await.json()["statistics"][0];
    let half = number(&sums["firstToken"]["p50"]);
    assert!(half >= first && half <= first + first / 8, "{sums}");
    assert!(sums["tokensPerSecond"].as_f64().unwrap() > 0.0, "{sums}");
    let scraped = text(&api, "/metrics").await;
    let sum = scraped
        .lines()
        .find_map(|line| line.strip_prefix("onelane_first_token_seconds_sum{model=\"glm-4.7\"} "));
    let seconds: f64 = sum.expect("it is counted").parse().unwrap();
    assert!((seconds - first as f64 / 1_000.0).abs() < 1e-6, "{seconds}");
    let page = text(&api, &format!("/desk/jobs/{id}")).await;
    assert!(page.contains("first token "), "{page}");
    // What took no time is not drawn.
    let drawn = [
        ("class=\"silent\"", first > number(&parts["connect"])),
        ("start put on disk", number(&parts["commit"]) > 0),
    ];
    for (word, is_drawn) in drawn {
        assert!(!is_drawn || page.contains(word), "{word}: {page}");
    }
    assert!(text(&api, "/desk/models").await.contains("/s</td>"));
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_not_streamed_tells_what_is_known_of_it() {
    let world = HttpLane::slow(5);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    // A connection is kept once the server is known to name each call.
    for prompt in ["one", "two", "three"] {
        let id = api.submit(serde_json::json!({"prompt": prompt})).await;
        api.completed(&id).await;
    }
    let calls = &api.get(CALLS).await.json()["calls"];
    let (last, first) = (&calls[0]["parts"], &calls[2]["parts"]);
    for parts in [first, last] {
        assert!(parts["firstByte"].as_u64().unwrap() >= 5, "{parts}");
        for unknown in ["firstToken", "decode"] {
            assert_eq!(parts.get(unknown), None, "{parts}");
        }
    }
    assert!(first["connect"].is_u64(), "{first}");
    assert_eq!(last.get("connect"), None, "its connection was kept");
    let sums = &api.get("/api/admin/glm/statistics").await.json()["statistics"][0];
    assert_eq!(sums["firstToken"], Value::Null);
    assert!(sums["tokensPerSecond"].is_number(), "{sums}");
    drop(api);
    stop(lane, 1_000).await;
}
