//! Guards: what GLM itself counts of the account, asked beside the lane over real HTTP: quota and balance are shown, a quota
//! that is used up is held until its meter says, money that runs out is told of before, and our books are laid beside it.

use onelane::model::{Calendar, Day, HoldKind, JobStatus, Timestamp};
use onelane::ports::Clock as _;
use onelane::simulator::{
    AccountScript, AnswerWith, BalanceScript, Fault, Planted, QuotaScript, Rule, ScriptUpdate,
    Tokens,
};
use onelane::system::SystemClock;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{
    HttpLane, KEY, completed, ended, prompt, stop, submit, until, until_held,
};

const ACCOUNT: &str = "/api/admin/glm/account";
const RECONCILIATION: &str = "/api/admin/glm/account/reconciliation";
const HOUR_MS: u64 = 3_600_000;

/// A window of five hours of which so much is used.
fn window(percentage: f64) -> QuotaScript {
    QuotaScript {
        kind: "TOKENS_LIMIT".to_owned(),
        unit: Some(3),
        number: Some(5),
        percentage: Some(percentage),
        reset_in_ms: Some(2 * HOUR_MS),
        ..QuotaScript::default()
    }
}

fn tells(world: &HttpLane, account: AccountScript) {
    world.sim.update(ScriptUpdate {
        account: Some(account),
        ..ScriptUpdate::default()
    });
}

/// A world that asks, of an account about which this is told.
fn asking(account: AccountScript) -> HttpLane {
    let mut world = HttpLane::new();
    world.config.account.enabled = true;
    world.config.account.every_ms = 1_000;
    world.config.alerts.every_ms = 1_000;
    tells(&world, account);
    world
}

async fn told(api: &Api) -> Value {
    let mut account = Value::Null;
    until("GLM tells of the account", async || {
        account = api.get(ACCOUNT).await.expect(200)["account"].clone();
        !account["askedAt"].is_null()
    })
    .await;
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_and_balance_are_asked_beside_the_lane_and_shown_without_a_slot() {
    let world = asking(AccountScript {
        quota: vec![window(93.0)],
        balance: Some(BalanceScript {
            available: "12.5".to_owned(),
            currency: "CNY".to_owned(),
        }),
        ..AccountScript::default()
    });
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    // The slot is busy all the while.
    world.block(&lane).await;
    let account = told(&api).await;
    let window = &account["quota"]["windows"][0];
    assert_eq!(
        (&window["usedShare"], &window["span"], &window["length"]),
        (&json!(0.93), &json!("hours"), &json!(5))
    );
    assert_eq!(account["balance"]["available"]["cost"], 12.5);
    assert_eq!(account["problems"], json!([]));
    assert_eq!(world.sim.stats().calls, 1, "a question is no call");
    let metrics = api.get("/metrics").await.text;
    for line in [
        "onelane_quota_used_ratio{window=\"5 h tokens\"} 0.93",
        "onelane_account_balance{currency=\"CNY\"} 12.5",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    // Both are near their ends.
    until("alerts are raised", async || {
        lane.alerts().active.len() == 1
    })
    .await;
    let alert = &lane.alerts().active[0];
    assert!(alert.message.contains("93 %"), "{}", alert.message);
    // What is not offered is no problem, what fails is one, without the key, and what was told stays.
    tells(&world, AccountScript::default());
    until("nothing is offered", async || {
        let account = lane.account();
        account.quota.is_none() && account.balance.is_none() && account.problems.is_empty()
    })
    .await;
    world.sim.set_keys(["another.key"]);
    until("the key is refused", async || {
        lane.account().problems.len() == 2
    })
    .await;
    let problems = lane.account().problems.join(" ");
    assert!(
        problems.contains("1000") && !problems.contains(KEY),
        "{problems}"
    );
    stop(lane, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_asked_nothing_unless_it_is_said_and_live_where_it_is() {
    let world = HttpLane::new();
    tells(
        &world,
        AccountScript {
            quota: vec![window(10.0)],
            ..AccountScript::default()
        },
    );
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let account = api.get(ACCOUNT).await.expect(200);
    assert_eq!(account["account"]["enabled"], false);
    assert_eq!(account["account"]["askedAt"], Value::Null);
    let refused = api.get(RECONCILIATION).await.expect(409);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("account.enabled"),
        "{refused}"
    );
    api.configure(json!({"account": {"enabled": true}})).await;
    let account = told(&api).await;
    assert_eq!(account["quota"]["windows"][0]["usedShare"], 0.1);
    api.configure(json!({"account": {"enabled": false}})).await;
    let account = api.get(ACCOUNT).await.expect(200);
    assert_eq!(account["account"]["quota"], Value::Null);
    stop(lane, 1_000).await;
}

/// When the hold of the account ends, seen from now.
async fn held_for_ms(world: &HttpLane, code: &str) -> u64 {
    let lane = world.start().await;
    world.rule(Rule::always(Fault::error(code)).times(1));
    let before = SystemClock.now();
    submit(&lane, prompt("one")).await;
    until_held(&lane).await;
    let hold = lane.lane().await.unwrap().hold.unwrap();
    assert_eq!((hold.kind, hold.code.as_str()), (HoldKind::Quota, code));
    let until = hold.until.unwrap().until;
    stop(lane, 0).await;
    until.since(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_without_a_word_of_when_it_opens_is_held_until_its_meter_says() {
    let world = asking(AccountScript {
        // Shares are rounded: the refusal says that it is used up.
        quota: vec![window(99.0)],
        ..AccountScript::default()
    });
    let held_ms = held_for_ms(&world, "1308").await;
    let want = 2 * HOUR_MS..2 * HOUR_MS + 60_000;
    assert!(want.contains(&held_ms), "{held_ms}");
    // Without the meter it is a guess, and shorter.
    let mut world = asking(AccountScript::default());
    world.config.account.enabled = false;
    let held_ms = held_for_ms(&world, "1308").await;
    assert!(held_ms < 2 * HOUR_MS, "{held_ms}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_is_no_hold_of_hours_because_the_meter_names_a_reset() {
    let world = asking(AccountScript {
        quota: vec![window(100.0)],
        ..AccountScript::default()
    });
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    told(&api).await;
    world.rule(Rule::always(Fault::error("1302")).times(1));
    let id = submit(&lane, prompt("one")).await;
    completed(&lane, id).await;
    assert_eq!(world.sim.stats().by_code["1302"], 1);
    stop(lane, 1_000).await;
}

/// The day before a call of now, and the day after: a test may run over midnight.
fn around(now: Timestamp) -> [Day; 2] {
    let today = Calendar::beijing().day(now);
    [Day(today.0 - 1), Day(today.0 + 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_books_are_laid_beside_the_meter_and_each_difference_is_named() {
    let mut world = asking(AccountScript::default());
    world.config.retry.max_retries = 0;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let answer = |with: AnswerWith| Rule::always(Fault::Answer(with));
    let model = |rule: Rule, name: &str| Rule {
        model: Some(name.to_owned()),
        ..rule
    };
    let fixed = Some(Tokens::Fixed {
        prompt: 600,
        completion: 400,
        cached: 100,
    });
    let with = AnswerWith {
        tokens: fixed,
        ..AnswerWith::default()
    };
    world.rule(model(
        answer(AnswerWith {
            served_by: Some("glm-5.3".to_owned()),
            ..with.clone()
        }),
        "glm-4.6",
    ));
    world.rule(model(
        answer(AnswerWith {
            untold: true,
            ..with.clone()
        }),
        "glm-4.5",
    ));
    world.rule(Rule::for_model("glm-5.1", Fault::CutBody));
    world.rule(answer(with));
    let [first, last] = around(SystemClock.now());
    let plain = ["glm-4.7", "GLM-4.7", "glm-5", "glm-5-turbo"];
    for name in plain.into_iter().chain(["glm-4.6", "glm-4.5"]) {
        let id = submit(&lane, prompt(name).model(name)).await;
        completed(&lane, id).await;
    }
    let cut = submit(&lane, prompt("cut").model("glm-5.1")).await;
    ended(&lane, cut, JobStatus::Failed).await;
    let path = format!("{RECONCILIATION}?startDate={first}&endDate={last}");
    let agreed = api.get(&path).await.expect(200);
    let named = |told: &Value| {
        let differences = told["differences"].as_array().unwrap().iter();
        let mut named: Vec<(String, String, i64)> = differences
            .map(|one| {
                let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
                (
                    text("model"),
                    text("cause"),
                    one["tokens"].as_i64().unwrap(),
                )
            })
            .collect();
        named.sort();
        named
    };
    let of = |model: &str, cause: &str, tokens| (model.to_owned(), cause.to_owned(), tokens);
    let doubt = named(&agreed)
        .into_iter()
        .find(|(_, cause, _)| cause == "inDoubt")
        .map_or(0, |(_, _, tokens)| tokens);
    assert!(doubt > 0, "{agreed}");
    let mut want = vec![
        of("glm-4.5", "usageMissing", 1_000),
        of("glm-4.6", "modelSwitched", -1_000),
        of("glm-5.1", "inDoubt", doubt),
    ];
    assert_eq!(named(&agreed), want);
    assert_eq!(agreed["zone"], "+08:00");
    assert_eq!(agreed["daysNotTold"], json!([]));
    assert_eq!(agreed["callsNotInLog"], 0);
    // What is planted there is told on the next question: a day that is not over is asked for again.
    let plant = |model: &str, tokens| Planted {
        day: None,
        model: model.to_owned(),
        calls: 0,
        tokens,
    };
    tells(
        &world,
        AccountScript {
            planted: vec![plant("glm-5", -300), plant("glm-4.5-air", 77)],
            ..AccountScript::default()
        },
    );
    api.stop().await;
    // What was told is kept in memory alone, and asked for anew after a start.
    let lane = world.restart(lane).await;
    let api = Api::serve(&lane).await;
    let differ = api.get(&path).await.expect(200);
    want.extend([
        of("glm-5", "notMetered", -300),
        of("glm-4.5-air", "notOurs", 77),
    ]);
    want.sort();
    assert_eq!(named(&differ), want);
    let row = |told: &Value, model: &str| {
        let rows = told["rows"].as_array().unwrap().iter();
        rows.clone()
            .find(|row| row["model"] == model)
            .unwrap()
            .clone()
    };
    assert_eq!(row(&differ, "glm-4.7")["ourTokens"], 2_000, "in any case");
    assert_eq!(row(&differ, "glm-4.7")["meteredTokens"], 2_000);
    assert_eq!(row(&differ, "glm-5")["meteredTokens"], 700);
    // A meter that can't be asked leaves days out, and says why.
    world.sim.set_keys(["another.key"]);
    let mute = format!("{RECONCILIATION}?startDate=2026-01-01&endDate=2026-01-03");
    let mute = api.get(&mute).await.expect(200);
    assert_eq!(mute["daysNotTold"].as_array().unwrap().len(), 3, "{mute}");
    assert!(mute["problem"].as_str().unwrap().contains("1000"), "{mute}");
    assert_eq!(mute["differences"], json!([]));
    for wrong in [
        "startDate=2026-13-01",
        "startDate=2026-01-01&endDate=2026-03-01",
    ] {
        api.get(&format!("{RECONCILIATION}?{wrong}"))
            .await
            .expect(400);
    }
    stop(lane, 1_000).await;
}
