//! A model is one name, and the model that answered is the one that counts. Guards against a call that costs nothing
//! because somebody wrote the name in capitals, and against an answer of a dearer model at the price of the asked one.

use std::sync::Arc;

use onelane::model::{
    Amount, Budget, BudgetRules, BudgetScope, Cost, Currency, NamedLane, Submission, Usage,
};
use onelane::ports::{CallFilter, GlmAnswer, GlmOutcome, JobFilter};
use onelane_actors::testing::ScriptedGlm;
use onelane_core::model::{PriceRow, PriceTable, Substitution};
use serde_json::value::RawValue;

use crate::support::http::submit;
use crate::support::{VirtualLane, ms};

fn prices() -> PriceTable {
    let mut prices = PriceTable::new(Currency::Cny);
    for (model, price) in [("glm-4.7", 1), ("glm-5.3", 5)] {
        let price = price * 1_000_000_000;
        let row = PriceRow {
            input: price,
            cached_input: price,
            output: price,
            ..PriceRow::default()
        };
        prices.add(model, row);
    }
    prices
}

/// A lane whose GLM answers as this model, with a hundred tokens each way.
fn world(answered_by: Option<&'static str>) -> (VirtualLane, ScriptedGlm) {
    let glm = ScriptedGlm::new(move |_, _| {
        let answer = GlmAnswer {
            body: RawValue::NULL.to_owned().into(),
            status_code: 200,
            usage: Usage {
                prompt_tokens: 100,
                completion_tokens: 100,
                total_tokens: 200,
                ..Usage::default()
            },
            model: answered_by.map(str::to_owned),
        };
        (ms(10), GlmOutcome::Answered(answer))
    });
    let mut world = VirtualLane::new(glm.clone());
    world.settings.prices = Arc::new(prices());
    (world, glm)
}

fn cny(nanos: i64) -> Cost {
    Cost {
        nanos,
        currency: Currency::Cny,
    }
}

fn job(model: &str) -> Submission {
    Submission::prompt("hello").unwrap().model(model)
}

#[tokio::test(start_paused = true)]
async fn a_model_in_capitals_has_its_price_its_lane_its_budget_and_its_filter() {
    let (mut world, glm) = world(None);
    let lane = NamedLane {
        models: vec!["GLM-4.*".to_owned()],
        ..NamedLane::default()
    };
    world.settings.lanes.insert("four".to_owned(), lane);
    world.settings.budgets = vec![Budget {
        key: None,
        name: "four".to_owned(),
        users: BudgetScope::All,
        models: BudgetScope::One("glm-4.7".to_owned()),
        limit: Amount::Money(cny(1_000_000_000_000)),
        rules: BudgetRules::default(),
    }];
    let lane = world.start().await;
    let done = lane.call(job("  GLM-4.7 ")).await.unwrap();
    assert_eq!(done.job.model, "glm-4.7");
    // It goes to GLM as it came.
    assert_eq!(glm.traces()[0].model, "  GLM-4.7 ");
    let detail = lane.job(done.job.id).await.unwrap();
    let call = &detail.attempts[0];
    assert_eq!(call.cost, Some(cny(200_000)));
    assert_eq!(call.model, "glm-4.7");
    let budget = &lane.budgets().await.unwrap().budgets[0];
    assert_eq!(budget.spent, Amount::Money(cny(200_000)));
    let served = lane.lane().await.unwrap();
    assert!(served.lanes.iter().any(|lane| lane.name == "four"));
    for name in ["glm-4.7", "GLM-4.7", "Glm-4.7 "] {
        let filter = JobFilter {
            model: Some(name.to_owned()),
            ..JobFilter::default()
        };
        let page = lane.jobs(filter, None, 10).await.unwrap();
        assert_eq!(page.total, 1, "{name}");
        let filter = CallFilter {
            model: Some(name.to_owned()),
            ..CallFilter::default()
        };
        let calls = lane.calls(filter, None, 10).await.unwrap().calls;
        assert_eq!(calls.len(), 1, "{name}");
    }
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn the_model_that_answered_is_stored_flagged_and_priced_by() {
    let (world, _) = world(Some("GLM-5.3"));
    let lane = world.start().await;
    let job = lane.call(job("glm-4.7")).await.unwrap().job;
    assert_eq!(job.answered_by.as_deref(), Some("GLM-5.3"));
    let call = &lane.job(job.id).await.unwrap().attempts[0];
    assert_eq!(call.answered_by.as_deref(), Some("GLM-5.3"));
    assert_eq!(call.substitution, Some(Substitution::Priced));
    assert_eq!(call.model, "glm-4.7", "the log says what was called");
    assert_eq!(call.cost, Some(cny(1_000_000)), "at the price of 5.3");
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn an_alias_without_a_price_costs_what_was_asked_for_and_is_flagged() {
    let (world, _) = world(Some("relay/glm47"));
    let lane = world.start().await;
    let id = lane.call(job("glm-4.7")).await.unwrap().job.id;
    let call = &lane.job(id).await.unwrap().attempts[0];
    assert_eq!(call.substitution, Some(Substitution::Assumed));
    assert_eq!(call.cost, Some(cny(200_000)));
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_model_in_another_spelling_is_no_substitute() {
    let (world, _) = world(Some("GLM-4.7"));
    let lane = world.start().await;
    let id = lane.call(job("glm-4.7")).await.unwrap().job.id;
    let call = &lane.job(id).await.unwrap().attempts[0];
    assert_eq!(call.substitution, None);
    assert_eq!(call.answered_by.as_deref(), Some("GLM-4.7"));
    lane.shutdown(ms(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn once_a_dearer_model_has_answered_reservations_count_it() {
    let (mut world, _) = world(Some("glm-5.3"));
    world.settings.budgets = vec![Budget {
        key: None,
        name: "all".to_owned(),
        users: BudgetScope::All,
        models: BudgetScope::All,
        limit: Amount::Money(cny(1_000_000_000_000_000)),
        rules: BudgetRules::default(),
    }];
    let lane = world.start().await;
    let reserved = async || {
        let Amount::Money(cost) = lane.budgets().await.unwrap().budgets[0].reserved else {
            panic!("the budget is in money")
        };
        cost.nanos
    };
    let first = submit(&lane, job("glm-4.7")).await;
    tokio::time::sleep(ms(1)).await;
    let before = reserved().await;
    assert!(before > 0);
    lane.wait(first).await.unwrap();
    let second = submit(&lane, job("glm-4.7")).await;
    tokio::time::sleep(ms(1)).await;
    // Five times the price; the context of 5.3 is larger, which the bounded prompt does not need.
    assert_eq!(reserved().await, 5 * before);
    lane.wait(second).await.unwrap();
    lane.shutdown(ms(1_000)).await;
}
