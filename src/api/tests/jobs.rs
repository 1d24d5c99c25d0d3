//! The routes for programs: submit now, fetch later.

use serde_json::json;

use super::{Running, sample};
use crate::error::Error;

const JOBS: &str = "/api/glm/jobs";

#[tokio::test]
async fn a_job_is_accepted_with_its_id_and_place() {
    let api = Running::start().await;
    let reply = api.post(JOBS, r#"{"prompt":"hi","priority":5}"#).await;
    assert_eq!(reply.status, 202);
    let id = sample::id(1);
    assert_eq!(
        reply.json(),
        json!({"id": id, "status": "pending", "created": true})
    );
    assert_eq!(reply.headers["location"], format!("{JOBS}/{id}"));
    assert_eq!(api.lane.with(|state| state.jobs[0].job.priority), 5);
}

#[tokio::test]
async fn a_job_names_those_that_it_runs_after() {
    let api = Running::start().await;
    let body = json!({"prompt": "second", "after": [sample::id(9)]}).to_string();
    assert_eq!(api.post(JOBS, &body).await.status, 202);
    let after = api.lane.with(|state| state.jobs[0].job.after.clone());
    assert_eq!(after, [sample::id(9)]);
    let job = api.get(&format!("{JOBS}/{}", sample::id(1))).await.json();
    assert_eq!(job["after"], json!([sample::id(9)]));
}

#[tokio::test]
async fn the_same_key_gives_the_same_job_where_it_has_got_to() {
    let api = Running::start().await;
    let send = || {
        let request = api.request("POST", JOBS).header("Idempotency-Key", "k");
        Running::send(request.body(r#"{"prompt":"hi"}"#))
    };
    assert_eq!(send().await.json()["created"], true);
    api.lane.with(|state| {
        state.jobs[0].job.status = onelane_core::model::JobStatus::Completed;
    });
    let again = send().await;
    assert_eq!(again.status, 202);
    assert_eq!(
        again.json(),
        json!({"id": sample::id(1), "status": "completed", "created": false})
    );
}

#[tokio::test]
async fn one_wrong_job_of_a_list_and_none_is_stored() {
    let api = Running::start().await;
    let body = r#"[{"prompt":"a"},{"prompt":"b"},{"prompt":"c"},{"prompt":"d","priority":"x"}]"#;
    let reply = api.post(JOBS, body).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["errors"][0]["field"], "[3].priority");
    assert_eq!(api.lane.with(|state| state.jobs.len()), 0);
}

#[tokio::test]
async fn a_list_is_answered_element_by_element() {
    let api = Running::start().await;
    let body = r#"[{"prompt":"a"},{"prompt":"b"}]"#;
    api.lane.with(|state| {
        state.refusals = vec![Error::QueueFull { limit: 1 }];
    });
    let reply = api.post(JOBS, body).await;
    assert_eq!(reply.status, 202);
    let answer = reply.json();
    assert_eq!(
        (&answer["accepted"], &answer["refused"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(answer["jobs"][0]["error"]["status"], 429);
    assert_eq!(answer["jobs"][1]["id"], json!(sample::id(1)));
    api.lane.with(|state| {
        state.refusals = vec![Error::QueueFull { limit: 1 }, Error::QueueFull { limit: 1 }];
    });
    assert_eq!(api.post(JOBS, body).await.status, 429, "none was taken");
}

#[tokio::test]
async fn a_refusal_of_the_lane_has_its_status() {
    let api = Running::start().await;
    let check = async |error: Error, status: u16, name: &str| {
        api.lane.with(|state| state.refusals.push(error));
        let reply = api.post(JOBS, r#"{"prompt":"a"}"#).await;
        assert_eq!(reply.status, status);
        let kind = format!("urn:onelane:problem:{name}");
        assert_eq!(reply.json()["type"], kind);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
    };
    check(Error::QueueFull { limit: 9 }, 429, "queue-full").await;
    check(
        Error::IdempotencyConflict(sample::id(1)),
        409,
        "idempotency-conflict",
    )
    .await;
    check(Error::Stopped("full disk".to_owned()), 503, "stopped").await;
    check(Error::Draining { reason: None }, 503, "draining").await;
    let unknown = Error::NoSuchDependency(sample::id(9));
    check(unknown, 422, "unknown-dependency").await;
    let ended = Error::DependencyEnded {
        job_id: sample::id(9),
        status: onelane_core::model::JobStatus::Failed,
    };
    check(ended, 409, "dependency-ended").await;
}

#[tokio::test]
async fn a_job_is_fetched_when_it_is_done_or_as_it_is() {
    let api = Running::start().await;
    api.lane.with(|state| state.jobs.push(sample::waiting(1)));
    let path = format!("{JOBS}/{}", sample::id(1));
    let reply = api.get(&path).await;
    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (202, &json!("pending"))
    );
    let reply = api.get(&format!("{path}?wait=20ms")).await;
    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (202, &json!("pending"))
    );

    let waiting_path = format!("{path}?wait=5m");
    let waiting = api.get(&waiting_path);
    let finish = async { api.lane.with(|state| state.jobs[0] = sample::completed(1)) };
    let (reply, ()) = tokio::join!(waiting, finish);
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .text
            .contains(&format!(r#""result":{}"#, sample::ANSWER))
    );
    assert_eq!(
        reply.json().get("attempts"),
        None,
        "the call log is for operators"
    );

    for path in [
        format!("{JOBS}/{}", sample::id(2)),
        format!("{JOBS}/{}?wait=1s", sample::id(2)),
    ] {
        assert_eq!(api.get(&path).await.status, 404);
    }
}

#[tokio::test]
async fn a_program_gives_its_job_up_by_either_route() {
    let api = Running::start().await;
    api.lane.with(|state| {
        state.jobs.push(sample::waiting(1));
        state.jobs.push(sample::waiting(2));
    });
    let delete = api.request("DELETE", &format!("{JOBS}/{}", sample::id(1)));
    assert_eq!(Running::send(delete).await.json(), json!({"success": true}));
    let path = format!("{JOBS}/{}/cancel", sample::id(2));
    assert_eq!(Running::send(api.request("POST", &path)).await.status, 200);
    let reply = Running::send(api.request("POST", &path)).await;
    assert_eq!(reply.status, 409, "the fake lane allows it once");
}
