//! Guards: somebody who watches and is not told what happened, or told twice, after a connection was lost.

use onelane::orchestrator::NewKey;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::http::{BLOCKER, served, stop};
use crate::support::shows;

/// A stream of events, read.
struct Watching {
    response: reqwest::Response,
    text: String,
}

/// One of them.
#[derive(Debug)]
struct Told {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Watching {
    async fn at(api: &Api, path: &str, last: Option<&str>) -> Self {
        Self::of(api.request(Method::GET, path), last).await
    }

    /// With a client key.
    async fn by(api: &Api, key: &str, path: &str, last: Option<&str>) -> Self {
        Self::of(api.request(Method::GET, path).bearer_auth(key), last).await
    }

    async fn of(mut request: reqwest::RequestBuilder, last: Option<&str>) -> Self {
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.split_once(": "));
                    let mut found = lines.filter(|(field, _)| *field == name);
                    found.next().map(|(_, value)| value.to_owned())
                };
                if let (Some(name), Some(data)) = (field("event"), field("data")) {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(Told {
                        id: field("id"),
                        name,
                        data,
                    });
                }
                continue;
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    async fn until(&mut self, name: &str) -> Told {
        loop {
            let told = self.next().await.expect("it goes on");
            if told.name == name {
                return told;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_with_the_id_of_an_event_is_told_those_after_it() {
    let (_world, lane, api) = served().await;
    let mut watching = Watching::at(&api, "/api/glm/events", None).await;
    let one = api.ask("one", "glm-4.7").await;
    let done = watching.until("job.completed").await;
    shows!(done.data, {"type": "job.completed"});
    shows!(done.data["data"], {"jobId": one});
    assert!(done.data["timestamp"].is_string() && done.data["data"]["usage"].is_object());
    drop(watching);
    let two = api.ask("two", "glm-4.7").await;
    api.completed(&two).await;
    let mut watching = Watching::at(&api, "/api/glm/events", done.id.as_deref()).await;
    let names = async |watching: &mut Watching| {
        let mut names = Vec::new();
        while names.last().map(String::as_str) != Some("job.completed") {
            let told = watching.next().await.unwrap();
            assert_eq!(told.data["data"]["jobId"], *two, "{told:?}");
            names.push(told.name);
        }
        names
    };
    let first = names(&mut watching).await;
    assert_eq!(
        first.first().map(String::as_str),
        Some("job.submitted"),
        "{first:?}"
    );
    let mut again = Watching::at(&api, "/api/glm/events", done.id.as_deref()).await;
    assert_eq!(names(&mut again).await, first);

    // Of another process nobody knows how many there were.
    let mut other = Watching::at(&api, "/api/glm/events", Some("0000000000000001-7")).await;
    let missed = other.next().await.unwrap();
    assert_eq!(
        (&*missed.name, &missed.data["count"]),
        ("missed", &Value::Null)
    );
    stop(lane, 1_000).await;
    while other.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_no_event_has_is_refused_in_words_wherever_events_come() {
    let (_world, lane, api) = served().await;
    let body = json!({"messages": [{"role": "user", "content": "one"}], "stream": true});
    let streamed = api.posting("/v1/chat/completions", body.to_string());
    let streamed = streamed
        .header("idempotency-key", "k")
        .send()
        .await
        .unwrap();
    let id = streamed.headers()["x-onelane-job"]
        .to_str()
        .unwrap()
        .to_owned();
    streamed.text().await.unwrap();
    for path in [
        "/api/glm/events".to_owned(),
        format!("/api/glm/jobs/{id}/events"),
        format!("/api/glm/jobs/{id}/stream"),
    ] {
        for odd in ["x", "17", "-1", "0000000000000001-x", "1-2-3"] {
            let request = api.request(Method::GET, &path);
            let refused = Api::send(request.header("Last-Event-ID", odd)).await;
            let refused = refused.expect(400);
            shows!(refused, {"type": "urn:onelane:problem:invalid-header"});
            let words = refused["detail"].as_str().unwrap();
            assert!(
                words.starts_with("Last-Event-ID: is no id of an event"),
                "{words}"
            );
        }
    }
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_had_only_how_a_job_stands_goes_on_from_there() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let id = api.ask("waits", "glm-4.7").await;
    let path = format!("/api/glm/jobs/{id}/events");
    let first = Watching::at(&api, &path, None).await.next().await.unwrap();
    assert_eq!(first.name, "job.status");
    // What happens meanwhile is not lost.
    lane.cancel(blocker).await.unwrap();
    api.completed(&id).await;
    let mut again = Watching::at(&api, &path, first.id.as_deref()).await;
    let stands = again.next().await.unwrap();
    assert_eq!((&*stands.name, &stands.id), ("job.status", &first.id));
    let missed = again.until("job.completed").await;
    assert_ne!(missed.id, first.id);
    assert!(again.next().await.is_none());
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_job_end_with_it() {
    let (world, lane, api) = served().await;
    let blocker = world.block(&lane).await;
    let id = api.ask("waits", "glm-4.7").await;
    let mut watching = Watching::at(&api, &format!("/api/glm/jobs/{id}/events"), None).await;
    let first = watching.next().await.unwrap();
    assert_eq!(
        (&*first.name, &first.data["status"]),
        ("job.status", &"pending".into())
    );
    lane.cancel(blocker).await.unwrap();
    let mut last = None;
    while let Some(told) = watching.next().await {
        assert_eq!(told.data["data"]["jobId"], *id, "{told:?}");
        last = Some(told.name);
    }
    assert_eq!(last.as_deref(), Some("job.completed"));
    let mut over = Watching::at(&api, &format!("/api/glm/jobs/{id}/events"), None).await;
    assert_eq!(over.next().await.unwrap().data["status"], "completed");
    assert!(over.next().await.is_none());
    let none = "/api/glm/jobs/0192f000-0000-7000-8000-000000000000/events";
    api.get(none).await.expect(404);
    assert!(world.prompts().contains(&BLOCKER.to_owned()));

    // Submitters list jobs, too.
    let list = api.get("/api/glm/jobs?status=completed").await.expect(200);
    assert_eq!(list["jobs"][0]["id"], *id, "{list}");
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_told_of_its_own_jobs_alone_and_goes_on_by_ids_of_its_own() {
    let (_world, lane, api) = served().await;
    let key = async |name: &str| {
        let made = lane.create_key(NewKey::named(name)).await.unwrap();
        (made.known.id, made.text.expose().to_owned())
    };
    let ((mine, one), (_, two)) = (key("one").await, key("two").await);
    let ask = async |key: &str, prompt: &str| {
        let body = json!({"prompt": prompt}).to_string();
        let request = api.posting("/api/glm/jobs", body).bearer_auth(key);
        let taken = Api::send(request).await.expect(202);
        let id = taken["id"].as_str().unwrap().to_owned();
        lane.wait(id.parse().unwrap()).await.unwrap();
        id
    };
    let path = "/api/glm/events";
    let mut watching = Watching::by(&api, &one, path, None).await;
    ask(&two, "theirs").await;
    lane.pause(None).await.unwrap();
    lane.resume().await.unwrap();
    let first = ask(&one, "mine").await;
    let mut ids = Vec::new();
    loop {
        let told = watching.next().await.unwrap();
        assert_eq!(told.data["data"]["jobId"], *first, "{told:?}");
        ids.push(told.id.unwrap());
        if told.name == "job.completed" {
            break;
        }
    }
    // Nothing between them is somebody else's.
    let numbers = ids.iter().map(|id| id.split_once('-').unwrap().1);
    let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=ids.len()).collect::<Vec<_>>());

    drop(watching);
    ask(&two, "theirs again").await;
    let second = ask(&one, "mine again").await;
    let mut again = Watching::by(&api, &one, path, ids.last().map(String::as_str)).await;
    let next = again.next().await.unwrap();
    assert_eq!(
        (&*next.name, &next.data["data"]["jobId"]),
        ("job.submitted", &json!(second))
    );
    again.until("job.completed").await;
    // The events of a job have the same ids.
    let of_job = format!("/api/glm/jobs/{second}/events");
    let mut over = Watching::by(&api, &one, &of_job, None).await;
    assert_eq!(over.next().await.unwrap().data["status"], "completed");
    let theirs = api.request(Method::GET, &of_job).bearer_auth(&two);
    Api::send(theirs).await.expect(404);
    // Who runs a lane without tokens is told of everything, as before.
    let mut operator = Watching::at(&api, path, None).await;
    // What a key hears ends with it.
    lane.revoke_key(mine).await.unwrap();
    ask(&two, "theirs at last").await;
    assert!(again.next().await.is_none());
    operator.until("job.completed").await;
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_events_of_a_job_is_told_after_its_end_what_they_missed() {
    let (_world, lane, api) = served().await;
    let mut all = Watching::at(&api, "/api/glm/events", None).await;
    let id = api.ask("one", "glm-4.7").await;
    let had = all.until("job.submitted").await;
    let end = all.until("job.completed").await;
    let path = format!("/api/glm/jobs/{id}/events");
    let told = async |last: Option<&str>| {
        let mut watching = Watching::at(&api, &path, last).await;
        let first = watching.next().await.expect("how it stands");
        assert_eq!(
            (&*first.name, &first.data["status"]),
            ("job.status", &json!("completed"))
        );
        let mut told = Vec::new();
        while let Some(next) = watching.next().await {
            told.push(next);
        }
        told
    };
    let missed = told(had.id.as_deref()).await;
    assert!(missed.len() >= 2, "{missed:?}");
    for event in &missed {
        assert_eq!(event.data["data"]["jobId"], *id, "{event:?}");
    }
    let last = missed.last().unwrap();
    assert_eq!((&last.id, &*last.name), (&end.id, "job.completed"));
    assert!(
        told(end.id.as_deref()).await.is_empty(),
        "nothing was missed"
    );
    assert!(told(None).await.is_empty(), "nobody was there before");
    let forgotten = told(Some("0000000000000001-7")).await;
    let [missed] = forgotten.as_slice() else {
        panic!("{forgotten:?}");
    };
    assert_eq!(
        (&*missed.name, &missed.data["count"]),
        ("missed", &Value::Null)
    );
    stop(lane, 1_000).await;
}
