//! Guards: a program on GLM's asynchronous calls that loses a task with its connection or its process, or is told
//! something that its SDK can't read.

use onelane::simulator::{ErrorFault, Fault, Rule};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{BLOCKER, HttpLane, served, stop, until};
use crate::support::shows;

const BASES: [&str; 3] = ["/api/paas/v4", "/api/coding/paas/v4", "/v1"];

fn chat(text: &str) -> Value {
    json!({"model": "glm-4.7", "messages": [{"role": "user", "content": text}]})
}

async fn hand_over(api: &Api, base: &str, chat: &Value) -> Value {
    let path = format!("{base}/async/chat/completions");
    api.post(&path, chat.to_string()).await.expect(200)
}

async fn look(api: &Api, base: &str, id: &Value) -> Value {
    let path = format!("{base}/async-result/{}", id.as_str().unwrap());
    api.get(&path).await.expect(200)
}

/// The task, once it has ended.
async fn ended(api: &Api, id: &Value) -> Value {
    until("the task ends", async || {
        look(api, BASES[0], id).await["task_status"] != "PROCESSING"
    })
    .await;
    look(api, BASES[0], id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_was_handed_over_is_answered_under_every_base_path_as_glm_does() {
    let (_world, lane, api) = served().await;
    for base in BASES {
        let mut chat = chat("Name one river.");
        chat["request_id"] = format!("mine-{}", base.len()).into();
        // GLM ignores it here.
        chat["stream"] = true.into();
        let task = hand_over(&api, base, &chat).await;
        shows!(task, {"model": "glm-4.7", "request_id": chat["request_id"], "task_status": "PROCESSING"});
        let told = ended(&api, &task["id"]).await;
        shows!(told, {"id": task["id"], "request_id": chat["request_id"], "model": "glm-4.7",
            "task_status": "SUCCESS"});
        assert!(
            told["choices"][0]["message"]["content"].is_string(),
            "{told}"
        );
        assert!(told["usage"]["total_tokens"].is_u64(), "{told}");
        assert_eq!(look(&api, base, &task["id"]).await, told);
    }
    let bare = hand_over(&api, BASES[0], &chat("hi")).await;
    assert_eq!(bare["request_id"], bare["id"]);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_not_known_is_glms_1233_outside_an_error_object() {
    let (_world, lane, api) = served().await;
    for base in BASES {
        for id in [
            "20261010005722dd102476a1894c3f",
            "0192f000-0000-7000-8000-000000000000",
        ] {
            let told = api
                .get(&format!("{base}/async-result/{id}"))
                .await
                .expect(400);
            assert_eq!(told["code"], 1233, "{told}");
            assert_eq!(told.get("error"), None, "{told}");
        }
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_has_glms_code_and_words() {
    let (world, lane, api) = served().await;
    world.rule(Rule::for_prompt(
        "bad",
        Fault::Error(ErrorFault::of("1301")),
    ));
    let task = hand_over(&api, BASES[0], &chat("bad")).await;
    let told = ended(&api, &task["id"]).await;
    shows!(told, {"task_status": "FAIL", "id": task["id"]});
    assert_eq!(told["error"]["code"], "1301", "{told}");
    assert!(!told["error"]["message"].as_str().unwrap().is_empty());
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_belongs_to_no_connection_and_is_handed_over_once_for_a_key() {
    let world = HttpLane::slow(30);
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let blocker = world.block(&lane).await;
    let body = chat("kept").to_string();
    let keyed = async |api: &Api| {
        let request = api.posting("/api/paas/v4/async/chat/completions", body.clone());
        Api::send(request.header("Idempotency-Key", "k1"))
            .await
            .expect(200)
    };
    let task = keyed(&api).await;
    assert_eq!(keyed(&api).await, task);
    assert_eq!(
        look(&api, BASES[0], &task["id"]).await["task_status"],
        "PROCESSING"
    );
    // The lane goes, as in a crash: what a connection owned would be given up.
    api.stop().await;
    stop(lane, 0).await;
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    lane.cancel(blocker).await.unwrap();
    shows!(ended(&api, &task["id"]).await, {"task_status": "SUCCESS"});
    shows!(keyed(&api).await, {"task_status": "SUCCESS", "id": task["id"]});
    assert_eq!(world.prompts().iter().filter(|p| *p != BLOCKER).count(), 1);
    stop(lane, 1_000).await;
}
