//! The queue, statistics and figures: exact paths, names and answers.

use onelane_core::testing::sample as rows;
use serde_json::json;

use super::{Running, World};

/// Two jobs of `ada`: the first is answered, the second failed.
fn answered_and_failed() -> World {
    World::after([
        rows::insert(1),
        rows::start(1),
        rows::complete(1, 1),
        rows::insert(2),
        rows::start(2),
        rows::fail(2, 1),
    ])
}

#[tokio::test]
async fn a_change_that_is_no_object_is_refused_however_deep() {
    let api = Running::start().await;
    let put = |body: String| Running::send(api.request("PUT", "/api/admin/glm/config").body(body));
    let changed = put(r#"{"model":"glm-5"}"#.to_owned()).await.expect(200);
    assert_eq!(changed["config"]["model"], "glm-5");
    assert_eq!(put(r#"{"model":7}"#.to_owned()).await.status, 400);
    let reply = put("[]".to_owned()).await;
    assert!(reply.detail().contains("JSON object"), "{reply:?}");
    let deep = "[".repeat(1_000) + &"]".repeat(1_000);
    assert_eq!(put(deep).await.status, 400);
}

#[tokio::test]
async fn statistics_are_grouped_as_asked_and_come_as_a_table_too() {
    let api = answered_and_failed().serve().await;
    let path = "/api/admin/glm/statistics?startDate=2026-11-01&endDate=2026-11-23";
    let row = api.get(path).await.expect(200)["statistics"][0].clone();
    assert_eq!(row["id"], "2026-11-23:glm-4.7");
    assert_eq!(
        (&row["totalCalls"], &row["failedCalls"]),
        (&json!(2), &json!(1))
    );
    let grouped = format!("{path}&groupBy=month%2Cuser&model=glm-4.7&userId=ada");
    let rows = api.get(&grouped).await.expect(200)["statistics"].clone();
    assert_eq!(rows[0]["id"], "2026-11:glm-4.7:ada");
    assert_eq!(rows.as_array().unwrap().len(), 1);
    let none = api.get(&format!("{path}&userId=bob")).await.expect(200);
    assert_eq!(none["statistics"], json!([]));

    let table = api.get(&format!("{path}&groupBy=none&format=csv")).await;
    let media = table.headers["content-type"].to_str().unwrap();
    assert!(media.starts_with("text/csv"), "{media}");
    let lines: Vec<_> = table.text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2, "{table:?}");
    assert!(lines[0].starts_with("date,model,userId,keyId,session,totalCalls,"));
    assert!(lines[1].starts_with(",,,,,2,1,1,"), "{}", lines[1]);
}

#[tokio::test]
async fn the_queue_is_a_page_with_its_total_and_the_next_cursor() {
    let api = answered_and_failed().serve().await;
    let queue = "/api/admin/glm/queue";
    let page = api.get(&format!("{queue}?limit=1")).await.expect(200);
    assert_eq!(
        (&page["total"], &page["queue"][0]["status"]),
        (&json!(2), &json!("failed"))
    );
    let next = page["nextCursor"].as_str().unwrap();
    let page = api.get(&format!("{queue}?limit=1&cursor={next}")).await;
    let page = page.expect(200);
    assert_eq!(page["queue"][0]["id"], json!(rows::job_id(1)));
    assert_eq!(page["queue"][0]["resultPreview"], "answer 1");
    assert_eq!(page["nextCursor"], json!(null));
    let filtered = format!(
        "{queue}?status=failed&userId=ada&model=glm-4.7&errorCode=conn&errorClass=server_transient\
         &parked=false&createdFrom=2026-11-23T00:00:00Z&createdBefore=2026-11-24T00:00:00%2B08:00\
         &priorityMin=-5&priorityMax=5&ids={},{}",
        rows::job_id(1),
        rows::job_id(2)
    );
    let page = api.get(&filtered).await.expect(200);
    assert_eq!(
        (&page["total"], &page["queue"][0]["id"]),
        (&json!(1), &json!(rows::job_id(2)))
    );
    for query in [
        "errorClass=bad",
        "parked=yes",
        "contentId=",
        "createdFrom=noon",
        "priorityMin=1.5",
        "ids=1,2",
    ] {
        let reply = api.get(&format!("{queue}?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        let field = reply.json()["errors"][0]["field"].clone();
        let name = query.split('=').next().unwrap();
        assert!(
            field.as_str().unwrap().starts_with(name),
            "{query}: {field}"
        );
    }
}

#[tokio::test]
async fn one_job_gets_another_priority() {
    let api = Running::paused().await;
    let id = api.submit(r#"{"prompt":"hi"}"#).await;
    let path = format!("/api/admin/glm/reprioritise/{id}");
    let done = api.post(&path, r#"{"priority":-7}"#).await.expect(200);
    assert_eq!(done, json!({"success": true}));
    let job = api.get(&format!("/api/admin/glm/queue/{id}")).await.json();
    assert_eq!(job["job"]["priority"], -7);
    for (bad, field) in [
        ("{}", "priority"),
        (r#"{"priority":1.5}"#, "priority"),
        (r#"{"priority":1,"dryRun":true}"#, "dryRun"),
    ] {
        let reply = api.post(&path, bad).await.expect(400);
        assert_eq!(reply["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn dead_letters_come_with_their_attempts() {
    let api = answered_and_failed().serve().await;
    let path = "/api/admin/glm/dead-letters";
    let body = api
        .get(&format!("{path}?limit=2&errorCode=conn&userId=ada"))
        .await;
    let body = body.expect(200);
    assert_eq!(
        (&body["total"], &body["nextCursor"]),
        (&json!(1), &json!(null))
    );
    let letter = &body["deadLetters"][0];
    assert_eq!(letter["error"]["code"], "conn");
    assert_eq!(letter["attempts"][0]["response"]["error"]["code"], "conn");
    let reply = api.get(&format!("{path}?status=failed")).await;
    assert_eq!(reply.status, 400, "they are failed, all of them");
}

#[tokio::test]
async fn one_job_comes_whole_with_its_attempts() {
    let api = answered_and_failed().serve().await;
    let queue = "/api/admin/glm/queue";
    let reply = api.get(&format!("{queue}/{}", rows::job_id(1))).await;
    let job = reply.expect(200)["job"].clone();
    let answer = rows::answer(1);
    assert!(
        reply
            .text
            .contains(&format!(r#""result":{}"#, answer.get()))
    );
    assert_eq!(job["attempts"][0]["response"]["success"], true);
    assert!(
        reply
            .text
            .contains(r#""cost":0.000001001,"currency":"CNY""#)
    );
    let reply = api.get(&format!("{queue}/{}", rows::job_id(3))).await;
    let unknown = format!("there is no job {}", rows::job_id(3));
    assert_eq!((reply.status, reply.detail()), (404, unknown));
}

#[tokio::test]
async fn retry_and_cancel_answer_success_or_what_forbids_it() {
    let world = answered_and_failed();
    let api = world.serve().await;
    api.lane.pause(None).await.unwrap();
    let post = async |verb: &str, n| {
        let path = format!("/api/admin/glm/{verb}/{}", rows::job_id(n));
        Running::send(api.request("POST", &path)).await
    };
    assert_eq!(post("retry", 2).await.expect(200), json!({"success": true}));
    assert_eq!(post("cancel", 2).await.status, 200);
    assert_eq!(post("retry", 1).await.status, 409);
    assert_eq!(post("cancel", 1).await.status, 409);
    assert_eq!(post("retry", 3).await.status, 404);
    assert_eq!(post("cancel", 3).await.status, 404);
}

#[tokio::test]
async fn metrics_show_the_latest_calls_with_what_was_asked() {
    let api = answered_and_failed().serve().await;
    let body = api.get("/api/admin/glm/metrics").await.expect(200);
    assert_eq!(body["currentConcurrency"], 0);
    assert_eq!(
        (&body["errorRate"], &body["averageResponseTime"]),
        (&json!(0.5), &json!(1_000.0))
    );
    assert_eq!(body["recentCalls"][1]["request"]["prompt"], "prompt 1");
    assert_eq!(body["jobs"]["failed"], 1);
    assert_eq!(body["alerts"]["active"]["error_rate"], 0);
    assert_eq!(body["deliveries"]["pending"], 0);
}
