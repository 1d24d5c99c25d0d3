//! Guards: money spent beyond a budget, by many at once, over a crash, or by a change of the budget; a
//! user who is over it and stands in the way of the others.

use std::collections::BTreeMap;

use onelane::config::BudgetSection;
use onelane::error::Error;
use onelane::model::{JobStatus, OverBudget};
use onelane::simulator::SimulatorConfig;
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, prompt, until};

fn tokens(limit: u64, user: Option<&str>) -> BudgetSection {
    BudgetSection {
        user: user.map(str::to_owned),
        tokens: Some(limit),
        ..BudgetSection::default()
    }
}

fn world(budget: BudgetSection) -> HttpLane {
    let mut world = HttpLane::with(SimulatorConfig::default());
    world.config.glm.max_tokens = Some(100);
    world.config.money.budgets = BTreeMap::from([("day".to_owned(), budget)]);
    world
}

/// What the calls of a lane have taken in tokens.
async fn spent(lane: &onelane::Orchestrator) -> u64 {
    let calls = crate::support::http::calls_of(lane).await;
    calls.iter().map(|call| call.usage.total_tokens).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_submitters_with_eight_slots_never_spend_more_than_the_budget() {
    let mut world = world(tokens(700, None));
    world.config.lane.max_concurrency = 8;
    let lane = world.start().await;
    let racers = (0..64).map(|n| {
        let lane = lane.clone();
        tokio::spawn(async move { lane.submit(prompt(format!("racer {n}"))).await.unwrap() })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.unwrap();
    }
    until("nothing more fits", async || {
        let status = lane.lane().await.unwrap();
        let standing = &lane.budgets().await.unwrap()[0];
        status.in_flight == 0 && status.ready == 0 && standing.reserved == 0 && status.parked > 0
    })
    .await;
    // To the last token, once the last call is on disk.
    until("the books agree", async || {
        spent(&lane).await == lane.budgets().await.unwrap()[0].spent
    })
    .await;
    let spent = spent(&lane).await;
    assert!(spent > 0 && spent <= 700, "{spent}");
    let counts = lane.queue_status().await.unwrap();
    assert_eq!(counts.failed, 0, "who is over budget waits");
    assert_eq!(counts.completed + counts.pending, 64);

    // A change is live, and what waited goes on.
    let api = Api::serve(&lane).await;
    let more = json!({"budgets": {"day": {"tokens": 1_000_000}}});
    api.configure(more).await;
    until("all are done", async || {
        lane.queue_status().await.unwrap().completed == 64
    })
    .await;
    let budgets = api.get("/api/admin/glm/budgets").await.expect(200);
    let shown = &budgets["budgets"][0];
    assert_eq!(
        (&shown["unit"], &shown["limit"]),
        (&json!("tokens"), &json!(1_000_000))
    );
    assert_eq!(shown["spent"], json!(self::spent(&lane).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_over_budget_is_in_nobodys_way_over_a_restart_too() {
    let world = world(tokens(300, Some("*")));
    let lane = world.start().await;
    for n in 0..30 {
        lane.submit(prompt(format!("flood {n}")).user("flood"))
            .await
            .unwrap();
    }
    let other = lane.call(prompt("other").user("other")).await.unwrap();
    assert_eq!(other.job.status, JobStatus::Completed);
    until("the flood waits", async || {
        let lane = lane.lane().await.unwrap();
        lane.in_flight == 0 && lane.ready == 0
    })
    .await;
    let before = spent(&lane).await;
    lane.shutdown(crate::support::ms(5_000)).await;
    drop(lane);
    let lane = world.start().await;
    let again = lane.call(prompt("again").user("other")).await;
    assert_eq!(again.unwrap().job.status, JobStatus::Completed);
    until("the flood waits again", async || {
        let lane = lane.lane().await.unwrap();
        lane.in_flight == 0 && lane.ready == 0
    })
    .await;
    let flood = lane.budgets().await.unwrap();
    let flood = flood
        .iter()
        .find(|standing| standing.account.user.as_deref() == Some("flood"))
        .unwrap();
    assert!(flood.spent <= 300, "{flood:?}");
    assert!(spent(&lane).await > before);
    assert!(lane.queue_status().await.unwrap().pending > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_refuses_says_so_at_the_door() {
    let world = world(BudgetSection {
        over: OverBudget::Refuse,
        ..tokens(300, None)
    });
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.call(prompt("first")).await.unwrap();
    let refused = loop {
        match lane.submit(prompt("more")).await {
            Ok(taken) => drop(lane.wait(taken.job_id).await.unwrap()),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::OverBudget(_)), "{refused}");
    let answer = api
        .post("/api/glm/jobs", json!({"prompt": "more"}).to_string())
        .await;
    let problem = answer.expect(429);
    assert_eq!(problem["type"], "urn:onelane:problem:over-budget");
    assert!(spent(&lane).await <= 300);
}
