//! Guards: money spent beyond a budget, by many at once, over a crash, or by a change of the budget; a
//! user who is over it and stands in the way of the others.

use std::collections::BTreeMap;

use onelane::config::BudgetSection;
use onelane::error::Error;
use onelane::model::{Amount, BudgetRefusal, BudgetRules, JobStatus, NotAdmitted, OverBudget};
use onelane::protocol::{QueueMsg, SubmitError};
use onelane::simulator::{Fault, Rule, SimulatorConfig};
use serde_json::json;

use crate::support::api::Api;
use crate::support::http::{HttpLane, prompt, until, until_completed, until_idle};
use crate::support::shows;

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
    world.config.lane.rules.max_concurrency = 8;
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
        let standing = &lane.budgets().await.unwrap().budgets[0];
        status.in_flight == 0
            && status.ready == 0
            && standing.reserved.number() == 0
            && status.dormant > 0
    })
    .await;
    // To the last token, once the last call is on disk.
    until("the books agree", async || {
        spent(&lane).await == lane.budgets().await.unwrap().budgets[0].spent.number()
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
    until_completed(&lane, 64).await;
    let budgets = api.get("/api/admin/glm/budgets").await.expect(200);
    let shown = &budgets["budgets"][0];
    let spent = self::spent(&lane).await;
    shows!(shown, {"limit": json!({"tokens": 1_000_000}), "spent": json!({"tokens": spent})});
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
    until_idle(&lane).await;
    let before = spent(&lane).await;
    lane.shutdown(crate::support::ms(5_000)).await;
    drop(lane);
    let lane = world.start().await;
    let again = lane.call(prompt("again").user("other")).await;
    assert_eq!(again.unwrap().job.status, JobStatus::Completed);
    until_idle(&lane).await;
    let flood = lane.budgets().await.unwrap().budgets;
    let flood = flood
        .iter()
        .find(|standing| standing.account.user.as_deref() == Some("flood"))
        .unwrap();
    assert!(flood.spent.number() <= 300, "{flood:?}");
    assert!(spent(&lane).await > before);
    assert!(lane.queue_status().await.unwrap().pending > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_refuses_says_so_at_the_door() {
    let world = world(BudgetSection {
        rules: BudgetRules {
            over: OverBudget::Refuse,
            ..BudgetRules::default()
        },
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
    let many = lane.submit_many(vec![prompt("more"), prompt("more")]).await;
    for one in many.unwrap() {
        assert!(matches!(one, Err(Error::OverBudget(_))), "{one:?}");
    }
    assert!(spent(&lane).await <= 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_in_money_is_never_exceeded_with_one_slot_and_its_end_is_told() {
    // glm-4.7 by the list of bigmodel.cn: 300 tokens of an answer are 0.0042 CNY at most.
    let mut world = world(BudgetSection {
        amount: Some("0.02".to_owned()),
        ..BudgetSection::default()
    });
    world.config.glm.max_tokens = Some(300);
    world.config.money.price_list = onelane::config::PriceList::Cny;
    world.config.alerts.every_ms = 100;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    for n in 0..20 {
        lane.submit(prompt(format!("tell me [[sim completion_tokens=300]] {n}")))
            .await
            .unwrap();
    }
    until("nothing more fits", async || {
        let status = lane.lane().await.unwrap();
        status.in_flight == 0 && status.ready == 0 && status.over_budget > 0
    })
    .await;
    let cost = async || -> i64 {
        let calls = crate::support::http::calls_of(&lane).await;
        let costs = calls.iter().filter_map(|call| call.cost);
        costs.map(|cost| cost.nanos).sum()
    };
    let standing = &lane.budgets().await.unwrap().budgets[0];
    until("the last call is on disk", async || {
        u64::try_from(cost().await) == Ok(standing.spent.number())
    })
    .await;
    let cost = cost().await;
    let Amount::Money(limit) = standing.limit else {
        panic!("{standing:?}")
    };
    assert!(cost > limit.nanos / 2 && cost <= limit.nanos, "{cost}");
    assert!(standing.short, "something did not fit");
    until("the alert is told", async || {
        let alerts = api.get("/api/admin/glm/alerts").await.expect(200);
        alerts["active"]
            .as_array()
            .unwrap()
            .iter()
            .any(|a| a["rule"] == "budget")
    })
    .await;
    let shown = api.get("/api/admin/glm/budgets").await.expect(200);
    shows!(shown["budgets"][0], {"limit": json!({"cost": 0.02, "currency": "CNY"})});
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_would_never_fit_is_refused_at_every_door() {
    let world = world(tokens(150, None));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    // 100 tokens of an answer, and more than 50 of the prompt.
    let large = || prompt("too large");
    let is_large = |error: &Error| {
        let Error::OverBudget(refusal) = error else {
            return false;
        };
        matches!(
            **refusal,
            BudgetRefusal::TooLarge {
                needed: Amount::Tokens(173),
                ..
            }
        )
    };
    let refused = lane.submit(large()).await.unwrap_err();
    assert!(is_large(&refused), "{refused}");
    let help = "budget day allows 150 tokens a day; give it a lower max_tokens or raise the budget";
    assert!(refused.to_string().ends_with(help), "{refused}");
    let many = lane.submit_many(vec![large(), large()]).await.unwrap();
    assert!(many.iter().all(|one| is_large(one.as_ref().unwrap_err())));
    let queue = lane.queue().await.unwrap();
    let submission = Box::new(large());
    let message = |reply| QueueMsg::Submit { submission, reply };
    let answer = queue.call(message, None).await.unwrap().unwrap();
    assert!(
        matches!(
            answer,
            Err(SubmitError::NotAdmitted(NotAdmitted::OverBudget(_)))
        ),
        "{answer:?}"
    );
    let jobs = json!({"prompt": "too large"}).to_string();
    let problem = api.post("/api/glm/jobs", jobs).await.expect(422);
    assert_eq!(problem["type"], "urn:onelane:problem:beyond-budget");
    let chat = json!({"model": "glm-4.7", "messages": [{"role": "user", "content": "hi"}]});
    let problem = api.post("/v1/chat/completions", chat.to_string()).await;
    problem.expect(422);
    assert_eq!(lane.queue_status().await.unwrap().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_again_with_his_key_gets_his_job_whatever_the_budget() {
    let world = world(BudgetSection {
        rules: BudgetRules {
            over: OverBudget::Refuse,
            ..BudgetRules::default()
        },
        ..tokens(400, None)
    });
    let lane = world.start().await;
    let with_key = |key: &str| prompt("first").idempotency_key(key);
    let first = lane.call(with_key("a")).await.unwrap();
    let api = Api::serve(&lane).await;
    let less = json!({"budgets": {"day": {"tokens": 10}}});
    api.configure(less).await;
    let again = lane.submit(with_key("a")).await.unwrap();
    assert_eq!((again.job_id, again.created), (first.job.id, false));
    let another = lane.submit(with_key("b")).await;
    assert!(matches!(another, Err(Error::OverBudget(_))), "{another:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_job_waits_is_told() {
    let world = world(tokens(250, None));
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut waiting = Vec::new();
    for n in 0..30 {
        waiting.push(lane.submit(prompt(format!("{n}"))).await.unwrap().job_id);
    }
    until_idle(&lane).await;
    let job = api
        .get(&format!("/api/admin/glm/queue/{}", waiting[29]))
        .await
        .expect(200);
    let wait = &job["job"]["waitReason"];
    shows!(wait, {"name": "budget", "budget": "day"});
    let why = wait["text"].as_str().unwrap();
    let part = "it may come to 166 tokens, and of budget day ";
    assert!(why.starts_with(part), "{why}");
    let metrics = api.get("/api/admin/glm/metrics").await.expect(200);
    let lane_view = &metrics["lane"];
    assert!(lane_view["overBudget"].as_u64().unwrap() > 0);
    assert!(
        lane_view["waitReason"]["text"]
            .as_str()
            .unwrap()
            .contains("budget day")
    );
    lane.pause(Some("lunch".to_owned())).await.unwrap();
    api.configure(json!({"budgets": {"day": {"tokens": 1_000_000}}}))
        .await;
    let job = api
        .get(&format!("/api/admin/glm/queue/{}", waiting[29]))
        .await
        .expect(200);
    assert!(
        job["job"]["waitReason"]["text"]
            .as_str()
            .unwrap()
            .contains("lunch"),
        "{job}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_its_tokens_counts_as_what_was_reserved() {
    let world = world(tokens(400, None));
    let choice = r#"{"choices":[{"message":{"role":"assistant","content":"yes"}}]}"#;
    world.rule(Rule::always(Fault::Custom {
        status: 200,
        headers: BTreeMap::new(),
        body: choice.to_owned(),
    }));
    let lane = world.start().await;
    for n in 0..5 {
        lane.submit(prompt(format!("{n}"))).await.unwrap();
    }
    until_idle(&lane).await;
    until("165 each, of 400, are two", async || {
        let counts = lane.queue_status().await.unwrap();
        (counts.completed, counts.pending) == (2, 3)
    })
    .await;
    let lane = world.restart(lane).await;
    assert_eq!(lane.budgets().await.unwrap().budgets[0].spent.number(), 330);
}
