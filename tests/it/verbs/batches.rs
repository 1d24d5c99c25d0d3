//! `onelane batch`, beside a daemon.

use serde_json::json;

use super::World;

#[test]
fn batches_of_a_running_daemon_are_listed_shown_and_given_up() {
    let world = World::start();
    assert_eq!(
        world.told(&format!("batch ls --url {}", world.url)),
        "there are no batches\n"
    );
    world.pause();
    let line = |n: u32| {
        json!({"custom_id": format!("line-{n}"), "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "glm-4.7", "messages": [{"role": "user", "content": format!("line {n}")}]}})
        .to_string()
    };
    let content = [line(1), line(2)].join("\n");
    let file = world
        .http
        .upload(&format!("{}/v1/files", world.url), &content)
        .unwrap()
        .json();
    let new = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    world.post("/v1/batches", &new);
    world.until_counted("pending", 2);
    world.submit("loose");
    // The daemon that has the store open is found by itself.
    let told = world.told("batch ls");
    assert!(
        told.starts_with("BATCH")
            && told.contains("total")
            && told.contains("1 job of no batch waits too"),
        "{told}"
    );
    let list = world.json("batch ls");
    assert_eq!(list["looseJobs"], 1);
    let id = list["batches"][0]["id"].as_str().unwrap();
    assert!(
        world
            .told(&format!("batch show {id}"))
            .contains("2 pending")
    );
    assert_eq!(world.json(&format!("batch show {id}"))["batch"]["id"], id);
    assert!(
        world
            .told(&format!("batch cancel {id}"))
            .contains("2 jobs cancelled")
    );
    assert!(
        world
            .told(&format!("batch cancel {id}"))
            .contains("nothing of it waits")
    );
    world
        .ask("batch show nothing")
        .with(2)
        .noting(&["no batch nothing", "onelane batch ls"]);
    let url = "/api/admin/glm/batches/batch_0000000000000001";
    let answer = world.http.get(&format!("{}{url}", world.url)).unwrap();
    assert_eq!(answer.status, 404, "{answer:?}");
}
