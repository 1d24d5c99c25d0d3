//! The admin routes: exact paths, names and answers.

use onelane_actors::ports::{JobFilter, MoreFilter, UsageFilter};
use onelane_core::model::{Currency, Day, FailureClass, JobStatus, Timestamp, UsageKey, UsageRow};
use serde_json::json;

use super::{Running, sample};

#[tokio::test]
async fn the_configuration_is_read_and_changed() {
    let api = Running::start().await;
    let reply = api.get("/api/admin/glm/config").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"config": {"model": "glm-4.7", "apiKey": "****cret"}})
    );
    let put =
        |body: &'static str| Running::send(api.request("PUT", "/api/admin/glm/config").body(body));
    let reply = put(r#"{"model":"glm-5"}"#).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["config"]["model"], "glm-5");
    let reply = put(r#"{"model":7}"#).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json()["errors"],
        json!([{"field": "model", "problem": "must be a string"}])
    );
    let reply = put("[]").await;
    assert_eq!(
        (reply.status, reply.detail().contains("JSON object")),
        (400, true)
    );
    let deep = "[".repeat(1_000) + &"]".repeat(1_000);
    let reply = Running::send(api.request("PUT", "/api/admin/glm/config").body(deep)).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn statistics_are_grouped_as_asked_and_come_as_a_table_too() {
    let api = Running::start().await;
    for (day, model, user) in [
        ("2026-10-31", "glm-4.7", "a"),
        ("2026-11-01", "glm-4.7", "b"),
        ("2026-11-02", "glm-5", "b"),
    ] {
        let mut row = UsageRow::empty(UsageKey {
            day: Day::parse(day).unwrap(),
            model: model.to_owned(),
            user_id: user.to_owned(),
        });
        row.calls = 1;
        row.cost.insert(Currency::Cny, 1_000_000_001);
        api.lane.with(|state| state.usage.push(row));
    }
    let path = "/api/admin/glm/statistics?startDate=2026-10-01";
    let reply = api.get(&format!("{path}&groupBy=month%2Cuser")).await;
    let rows = reply.json()["statistics"].clone();
    let ids: Vec<_> = rows.as_array().unwrap().iter().map(|r| &r["id"]).collect();
    assert_eq!(ids, ["2026-10:a", "2026-11:b"]);
    assert_eq!(rows[1]["totalCalls"], 2);
    assert_eq!(rows[1].get("model"), None);

    let reply = api.get(&format!("{path}&groupBy=none&format=csv")).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/csv")
    );
    let text = &reply.text;
    let lines: Vec<_> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("date,model,userId,totalCalls,"));
    assert!(lines[1].starts_with(",,,3,"));
    assert!(lines[1].contains(",3.000000003,"));
}

#[tokio::test]
async fn statistics_ask_for_the_days_named_and_answer_rows() {
    let api = Running::start().await;
    let key = UsageKey {
        day: Day::parse("2026-11-23").unwrap(),
        model: "glm-4.7".to_owned(),
        user_id: "a".to_owned(),
    };
    api.lane
        .with(|state| state.usage.push(UsageRow::empty(key)));
    let path =
        "/api/admin/glm/statistics?startDate=2026-11-01&endDate=2026-11-23&model=glm-4.7&userId=a";
    let reply = api.get(path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["statistics"][0]["id"], "2026-11-23:glm-4.7:a");
    let filter = api.lane.with(|state| state.usage_filter.take());
    assert_eq!(
        filter,
        Some(UsageFilter {
            start: Day::parse("2026-11-01").unwrap(),
            end: Day::parse("2026-11-23").unwrap(),
            model: Some("glm-4.7".to_owned()),
            user_id: Some("a".to_owned()),
        })
    );
}

#[tokio::test]
async fn the_queue_is_a_page_with_its_total_and_the_next_cursor() {
    let api = Running::start().await;
    api.lane.with(|state| state.jobs.push(sample::failed(1)));
    let reply = api
        .get("/api/admin/glm/queue?status=failed&limit=5&userId=u&model=m&cursor=9&contentId=c&errorCode=1234&errorClass=overload&parked=false\
              &createdFrom=2026-11-23T08:00:00Z&createdBefore=2026-11-24T00:00:00%2B08:00\
              &priorityMin=-5&priorityMax=5&ids=0199a000-0000-7000-8000-000000000001,\
              0199a000-0000-7000-8000-000000000002")
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["total"], 18);
    assert_eq!(body["nextCursor"], "18446744073709551615");
    assert_eq!(body["queue"][0]["status"], "failed");
    let page = api.lane.with(|state| state.page.take());
    let filter = JobFilter {
        status: Some(JobStatus::Failed),
        user_id: Some("u".to_owned()),
        model: Some("m".to_owned()),
        more: MoreFilter {
            content_id: Some("c".to_owned()),
            error_code: Some("1234".to_owned()),
            error_class: Some(FailureClass::Overload),
            parked: Some(false),
            created_from: Some(sample::NOW),
            created_before: Timestamp::parse_rfc3339("2026-11-23T16:00:00Z"),
            priority_min: Some(-5),
            priority_max: Some(5),
            ids: Some(vec![sample::id(1), sample::id(2)]),
        },
    };
    assert_eq!(page, Some((filter, Some(9), 5)));
    for query in [
        "errorClass=bad",
        "parked=yes",
        "contentId=",
        "createdFrom=noon",
        "priorityMin=1.5",
        "ids=1,2",
    ] {
        let path = format!("/api/admin/glm/queue?{query}");
        assert_eq!(api.get(&path).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn one_job_gets_another_priority() {
    let api = Running::start().await;
    api.lane.with(|state| {
        state.jobs.push(sample::waiting(1));
        state.jobs.push(sample::failed(2));
    });
    let post = |n: u128, body: &'static str| {
        let path = format!("/api/admin/glm/reprioritise/{}", sample::id(n));
        let api = &api;
        async move { api.post(&path, body).await }
    };
    let reply = post(1, r#"{"priority":-7}"#).await;
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({"success": true}))
    );
    assert_eq!(api.lane.with(|state| state.jobs[0].job.priority), -7);
    assert_eq!(post(2, r#"{"priority":1}"#).await.status, 409);
    assert_eq!(post(9, r#"{"priority":1}"#).await.status, 404);
    for (bad, field) in [
        ("{}", "priority"),
        (r#"{"priority":1.5}"#, "priority"),
        (r#"{"priority":1,"dryRun":true}"#, "dryRun"),
    ] {
        let reply = post(1, bad).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert_eq!(reply.json()["errors"][0]["field"], field);
    }
}

#[tokio::test]
async fn dead_letters_come_with_their_attempts() {
    let api = Running::start().await;
    let record = sample::failed(1);
    let call = sample::call(&record);
    api.lane.with(|state| {
        state.jobs.push(record);
        state.calls.push(call);
    });
    let path = "/api/admin/glm/dead-letters?limit=2&cursor=8&errorCode=1210&userId=u";
    let reply = api.get(path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(
        (&body["total"], &body["nextCursor"]),
        (&json!(7), &json!("5"))
    );
    let letter = &body["deadLetters"][0];
    assert_eq!(letter["error"]["code"], "1210");
    assert_eq!(letter["attempts"][0]["response"]["error"]["code"], "1210");
    let (filter, cursor, limit) = api.lane.with(|state| state.page.take()).unwrap();
    assert_eq!((cursor, limit), (Some(8), 2));
    assert_eq!(filter.user_id.as_deref(), Some("u"));
    assert_eq!(filter.more.error_code.as_deref(), Some("1210"));
    let reply = api.get("/api/admin/glm/dead-letters?status=failed").await;
    assert_eq!(reply.status, 400, "they are failed, all of them");
}

#[tokio::test]
async fn one_job_comes_whole_with_its_attempts() {
    let api = Running::start().await;
    let record = sample::completed(1);
    let call = sample::call(&record);
    api.lane.with(|state| {
        state.jobs.push(record);
        state.calls.push(call);
    });
    let reply = api
        .get(&format!("/api/admin/glm/queue/{}", sample::id(1)))
        .await;
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .text
            .contains(&format!(r#""result":{}"#, sample::ANSWER))
    );
    let attempts = &reply.json()["job"]["attempts"];
    assert_eq!(attempts[0]["response"]["success"], true);
    assert_eq!(attempts[0]["cost"], json!(0.000_000_001));
    let reply = api
        .get(&format!("/api/admin/glm/queue/{}", sample::id(2)))
        .await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.detail(), format!("there is no job {}", sample::id(2)));
}

#[tokio::test]
async fn retry_and_cancel_answer_success_or_what_forbids_it() {
    let api = Running::start().await;
    api.lane.with(|state| {
        state.jobs.push(sample::failed(1));
        state.jobs.push(sample::completed(2));
    });
    let post = |verb: &str, n| {
        let path = format!("/api/admin/glm/{verb}/{}", sample::id(n));
        let request = api.request("POST", &path);
        async move { Running::send(request).await }
    };
    let reply = post("retry", 1).await;
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({"success": true}))
    );
    assert_eq!(post("cancel", 1).await.status, 200);
    assert_eq!(post("retry", 2).await.status, 409);
    assert_eq!(post("cancel", 2).await.status, 409);
    assert_eq!(post("retry", 3).await.status, 404);
    assert_eq!(post("cancel", 3).await.status, 404);
}

#[tokio::test]
async fn metrics_show_the_latest_calls_with_what_was_asked() {
    let api = Running::start().await;
    let record = sample::completed(1);
    let known = sample::call(&record);
    let pruned = sample::call(&sample::completed(2));
    api.lane.with(|state| {
        state.jobs.push(record);
        state.calls = vec![known, pruned];
    });
    let reply = api.get("/api/admin/glm/metrics").await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    assert_eq!(body["currentConcurrency"], 1);
    assert_eq!(body["errorRate"], 0.25);
    assert_eq!(body["averageResponseTime"], 1_500.0);
    assert_eq!(
        (&body["throttles"], &body["maybeBilled"]),
        (&json!(5), &json!(6))
    );
    assert_eq!(body["recentCalls"][0]["request"]["prompt"], "prompt 1");
    assert_eq!(body["recentCalls"][1]["request"].get("prompt"), None);
}
