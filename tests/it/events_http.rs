//! Guards: somebody who watches and is not told what happened, or told twice, after a connection was lost.

use reqwest::Method;
use serde_json::Value;

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
        let mut request = api.request(Method::GET, path);
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
