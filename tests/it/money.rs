//! What calls cost: the prices they were charged by stay with them, and what is not known is said, never
//! taken for nothing. Guards against a model that was free until the bill came.

use std::sync::Arc;

use onelane::Error;
use onelane::estimate::GlmTokenizer;
use onelane::model::{
    Cost, Currency, PriceUsed, Request, Submission, SubmissionError, Unpriced, Usage,
};
use onelane::ports::{CallFilter, GlmAnswer, GlmOutcome};
use onelane::protocol::{QueueMsg, SubmitError};
use onelane_actors::testing::ScriptedGlm;
use onelane_core::model::{PriceRow, PriceTable};
use serde_json::value::RawValue;

use crate::support::http::{all_usage, submit};
use crate::support::{VirtualLane, ms};

fn prices() -> PriceTable {
    let mut prices = PriceTable::versioned(Currency::Points, "2026-11-23");
    let row = |completion_from, points: [i64; 3]| {
        let [input, cached_input, output] = points.map(|points| points * 1_000_000_000);
        PriceRow {
            prompt_from: 0,
            completion_from,
            prompt_to: None,
            input,
            cached_input,
            output,
            ..PriceRow::default()
        }
    };
    prices.add("glm-4.7", row(0, [2, 1, 8]));
    prices.add("glm-4.7", row(200, [3, 1, 14]));
    prices.add("free", row(0, [0, 0, 0]));
    prices
}

/// A lane whose GLM answers with these tokens.
fn world(usage: Usage) -> VirtualLane {
    let body = RawValue::from_string(r#"{"choices":[]}"#.to_owned()).unwrap();
    let answer = GlmAnswer {
        body: body.into(),
        status_code: 200,
        usage,
        model: None,
    };
    let glm = ScriptedGlm::new(move |_, _| (ms(1), GlmOutcome::Answered(answer.clone())));
    let mut world = VirtualLane::new(glm);
    world.settings.prices = Arc::new(prices());
    world
}

fn tokens(prompt_tokens: u64, completion_tokens: u64) -> Usage {
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        ..Usage::default()
    }
}

fn job(model: &str) -> Submission {
    Submission::prompt("hello world").unwrap().model(model)
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_the_prices_it_was_charged_by() {
    let lane = world(tokens(100, 200)).start().await;
    let id = lane.call(job("glm-4.7")).await.unwrap().job.id;
    let detail = lane.job(id).await.unwrap();
    let call = &detail.attempts[0];
    let cost = Cost {
        nanos: 100 * 3_000 + 200 * 14_000,
        currency: Currency::Points,
    };
    assert_eq!(call.cost, Some(cost));
    let price = call.price.as_ref().unwrap();
    let want = PriceUsed {
        table: "2026-11-23".into(),
        prompt_from: 0,
        completion_from: 200,
        input: 3_000_000_000,
        cached_input: 1_000_000_000,
        output: 14_000_000_000,
        currency: Currency::Points,
    };
    assert_eq!(*price, want);
    assert_eq!(price.cost(&call.usage), cost, "it can be worked out again");
    assert!(!detail.record.job.unpriced);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_is_not_known_is_flagged_and_a_free_one_is_not() {
    let lane = world(tokens(100, 10)).start().await;
    let waiting = submit(&lane, job("glm-9")).await;
    assert!(lane.job(waiting).await.unwrap().record.job.unpriced);
    lane.wait(waiting).await.unwrap();
    lane.call(job("free")).await.unwrap();
    let calls = lane.calls(CallFilter::default(), None, 10).await.unwrap();
    let [free, unknown] = calls.calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!((free.cost.unwrap().nanos, free.is_unpriced()), (0, false));
    assert_eq!((unknown.cost, unknown.is_unpriced()), (None, true));
    assert!(lane.job(waiting).await.unwrap().record.job.unpriced);
    let unpriced: Vec<u64> = lane
        .usage(all_usage())
        .await
        .unwrap()
        .iter()
        .map(|row| row.unpriced_calls)
        .collect();
    assert_eq!(unpriced, [0, 1]);
    assert_eq!(lane.metrics().await.unwrap().since_start.unpriced_calls, 1);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_usage_has_no_cost_and_is_flagged() {
    let lane = world(Usage::default()).start().await;
    let free = lane.call(job("free")).await.unwrap().job.id;
    let free = &lane.job(free).await.unwrap().attempts[0];
    assert_eq!((free.cost.unwrap().nanos, free.is_unpriced()), (0, false));
    let id = lane.call(job("glm-4.7")).await.unwrap().job.id;
    let detail = lane.job(id).await.unwrap();
    assert_eq!(detail.attempts[0].cost, None);
    assert!(detail.attempts[0].is_unpriced() && detail.record.job.unpriced);
    let usage = lane.usage(all_usage()).await.unwrap();
    let of = |model: &str| usage.iter().find(|row| row.key.model == model).unwrap();
    let sums = |model| (of(model).unpriced_calls, of(model).cost.len());
    assert_eq!((sums("glm-4.7"), sums("free")), ((1, 0), (0, 1)));
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_is_refused_at_every_door_if_so_configured() {
    let mut world = world(tokens(1, 1));
    world.settings.unpriced = Unpriced::Refuse;
    let lane = world.start().await;
    let refused = lane.submit(job("glm-9")).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Unpriced(of) if of.model == "glm-9"),
        "{refused:?}"
    );
    assert!(
        refused
            .to_string()
            .contains("add its price to money.prices")
    );
    let in_body = Request::chat(r#"{"model":"glm-9","messages":[{"role":"user"}]}"#).unwrap();
    let many = lane
        .submit_many(vec![Submission::new(in_body), job("free")])
        .await
        .unwrap();
    assert!(matches!(many[0], Err(Error::Unpriced(_))), "{many:?}");
    assert!(many[1].is_ok(), "{many:?}");
    let queue = lane.queue().await.unwrap();
    let submission = Box::new(job("glm-9"));
    let message = |reply| QueueMsg::Submit { submission, reply };
    let answer = queue.call(message, None).await.unwrap().unwrap();
    let by_message = matches!(
        answer,
        Err(SubmitError::Invalid(SubmissionError::Unpriced(_)))
    );
    assert!(by_message, "{answer:?}");
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn how_far_estimates_were_off_is_a_figure_of_the_lane() {
    let mut world = world(tokens(10, 1));
    world.tokens = Some(Arc::new(GlmTokenizer));
    let lane = world.start().await;
    let estimates = async || lane.metrics().await.unwrap().since_start.estimates;
    assert_eq!(estimates().await.total.mean_relative_error, None);
    lane.call(job("glm-4.7")).await.unwrap();
    lane.call(job("free")).await.unwrap();
    // Counted by a thread, in its own time.
    while estimates().await.total.calls < 2 {
        std::thread::sleep(ms(1));
    }
    let estimates = estimates().await;
    // Eight by GLM's tokenizer, as the estimate before a submission says.
    let told = lane.estimate(&job("glm-4.7")).await.unwrap();
    let error = estimates.models["glm-4.7"];
    assert_eq!(error.estimated_tokens, told.tokens.prompt_tokens);
    assert_eq!((error.estimated_tokens, error.counted_tokens), (8, 10));
    assert_eq!(error.mean_relative_error, Some(0.2));
    assert_eq!(estimates.models["free"].calls, 1);
    assert_eq!(estimates.skipped_calls, 0);
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test]
async fn an_estimate_submits_nothing_and_no_call_costs_more() {
    let mut world = world(tokens(8, 300));
    world.settings.glm.max_tokens = Some(300);
    let lane = world.start().await;
    let estimate = lane.estimate(&job("glm-4.7")).await.unwrap();
    assert_eq!(estimate.tokens.prompt_tokens, 8);
    assert_eq!(lane.queue_status().await.unwrap().total(), 0);
    let id = lane.call(job("glm-4.7")).await.unwrap().job.id;
    let cost = lane.job(id).await.unwrap().attempts[0].cost.unwrap();
    let range = estimate.cost.unwrap();
    assert!((range.min..=range.max).contains(&cost.nanos));
    lane.shutdown(ms(1_000)).await;
}
