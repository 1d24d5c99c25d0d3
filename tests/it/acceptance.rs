//! Guards: the cases of the story behind the project, as it tells them.

use std::time::{Duration, Instant};

use onelane::model::{Currency, JobStatus};
use onelane::simulator::{SimulatorConfig, Span, Tokens};

use crate::support::dice::Dice;
use crate::support::http::{HttpLane, all_usage, calls_of, prompt, sums};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_concurrent_submissions_all_complete_one_at_a_time() {
    let world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Fixed(20),
        ..SimulatorConfig::default()
    });
    let lane = world.start().await;
    let calls: Vec<_> = (0..5)
        .map(|n| {
            let lane = lane.clone();
            tokio::spawn(async move { lane.call(prompt(format!("prompt {n}"))).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let record = call.await.unwrap().unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
        let response = record.response.unwrap();
        assert!(response.get().contains(&format!("prompt {n}")));
    }
    let stats = world.sim.stats();
    assert_eq!(stats.calls, 5);
    assert_eq!(stats.answered, 5);
    assert_eq!(stats.peak_in_flight, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_of_mixed_priority_complete_well_inside_five_minutes() {
    let dice = Dice::new();
    let begun = Instant::now();
    let world = HttpLane::with(SimulatorConfig {
        latency_ms: Span::Between { min: 1, max: 10 },
        ..SimulatorConfig::default()
    });
    let lane = world.start().await;
    let jobs = (0..100).map(|n| {
        let priority = i32::try_from(dice.below(11)).unwrap() - 5;
        prompt(format!("第 {n} 个问题 / question {n}")).priority(priority)
    });
    for submitted in lane.submit_many(jobs.collect()).await.unwrap() {
        let record = lane.wait(submitted.unwrap().job_id).await.unwrap();
        assert_eq!(record.job.status, JobStatus::Completed);
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    let stats = world.sim.stats();
    assert_eq!((stats.calls, stats.peak_in_flight), (100, 1));
    let counts = lane.queue_status().await.unwrap();
    assert_eq!((counts.completed, counts.total()), (100, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tokens_show_as_a_thousand_with_a_cost_in_the_statistics_of_the_day() {
    let world = HttpLane::with(SimulatorConfig {
        tokens: Tokens::Fixed {
            prompt: 600,
            completion: 400,
            cached: 0,
        },
        ..SimulatorConfig::default()
    });
    let lane = world.start().await;
    let record = lane.call(prompt("count me").user("alice")).await.unwrap();
    let day = record.job.processed_at.unwrap().day();
    let mut filter = all_usage();
    (filter.start, filter.end) = (day, day);
    let rows = lane.usage(filter).await.unwrap();
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!((row.key.day, row.key.user_id.as_str()), (day, "alice"));
    assert_eq!(row.key.model, "glm-4.7");
    assert_eq!((row.calls, row.successes, row.failures), (1, 1, 0));
    assert_eq!(row.usage.total_tokens, 1_000);
    assert_eq!(row.unpriced_calls, 0);
    assert!(row.cost[&Currency::Cny] > 0, "{:?}", row.cost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_equal_the_call_log_to_the_last_nano_unit() {
    let dice = Dice::new();
    let world = HttpLane::new();
    let lane = world.start().await;
    let models = ["glm-4.7", "glm-5", "glm-4.5-air", "no-such-price"];
    let jobs = (0..120).map(|n| {
        let wish = format!(
            "{n} [[sim prompt_tokens={} completion_tokens={} cached_tokens={}]]",
            100 + dice.below(200_000),
            dice.below(40_000),
            dice.below(100),
        );
        prompt(wish)
            .model(models[usize::try_from(dice.below(4)).unwrap()])
            .user(format!("user {}", dice.below(3)))
    });
    for submitted in lane.submit_many(jobs.collect()).await.unwrap() {
        lane.wait(submitted.unwrap().job_id).await.unwrap();
    }
    let calls = calls_of(&lane).await;
    assert_eq!(calls.len(), 120);
    let usage = lane.usage(all_usage()).await.unwrap();
    assert_eq!(usage, sums(&calls), "seed {}", dice.seed());
    // A model without a price costs an unknown amount, never nothing.
    for call in &calls {
        assert_eq!(call.cost.is_none(), call.model == "no-such-price");
    }
    let unpriced: u64 = usage.iter().map(|row| row.unpriced_calls).sum();
    let of_unknown = calls.iter().filter(|c| c.model == "no-such-price").count();
    assert_eq!(unpriced, of_unknown as u64);
    // What this process counted itself is the same.
    let metrics = lane.metrics().await.unwrap();
    assert_eq!(metrics.since_start.calls, 120);
    let tokens: u64 = calls.iter().map(|call| call.usage.total_tokens).sum();
    assert_eq!(metrics.since_start.usage.total_tokens, tokens);
}
