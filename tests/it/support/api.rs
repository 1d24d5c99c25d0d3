//! The HTTP API of a lane, served on a socket, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;

use onelane::api::{Listening, Server};
use onelane::config::ServerSection;
use onelane::orchestrator::Orchestrator;
use onelane::ports::Clock;
use onelane::system::SystemClock;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::http::PATIENCE;

/// A served API. It ends when it is dropped.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }
}

/// The names of an object's fields.
#[track_caller]
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

impl Api {
    pub(crate) async fn serve(lane: &Orchestrator) -> Self {
        let config = ServerSection {
            listen: "127.0.0.1:0".to_owned(),
            ..ServerSection::default()
        };
        Self::serve_as(lane, config).await
    }

    pub(crate) async fn serve_as(lane: &Orchestrator, config: ServerSection) -> Self {
        Self::serve_at(lane, config, Arc::new(SystemClock)).await
    }

    /// With a clock of the test's own.
    pub(crate) async fn serve_at(
        lane: &Orchestrator,
        config: ServerSection,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let listening = Listening::on(config).await.expect("the API listens");
        Self::serve_on(listening.serve(lane.clone(), clock))
    }

    /// With the pages of the desk.
    pub(crate) async fn serve_desk(lane: &Orchestrator, config: ServerSection) -> Self {
        let listening = Listening::on(config).await.expect("the API listens");
        let listening = listening.with_pages(onelane::desk::pages());
        Self::serve_on(listening.serve(lane.clone(), Arc::new(SystemClock)))
    }

    fn serve_on(server: Server) -> Self {
        let address = server.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned(), PATIENCE));
        Self {
            address,
            client: onelane::tls::client()
                .unwrap()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .expect("a client"),
            stop,
            task: Some(task),
        }
    }

    /// Ends it; its hold on the lane is gone.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    /// As `stop`, for one that is replaced.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("the API ends");
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    pub(crate) async fn send(request: RequestBuilder) -> Reply {
        let response = request.send().await.expect("an answer");
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.expect("a whole answer"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Self::send(self.request(Method::GET, path)).await
    }

    /// POST without a body.
    pub(crate) async fn post_bare(&self, path: &str) -> Reply {
        Self::send(self.request(Method::POST, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<String>) -> Reply {
        Self::send(self.posting(path, body)).await
    }

    /// A POST of JSON that is not sent yet.
    pub(crate) fn posting(&self, path: &str, body: impl Into<String>) -> RequestBuilder {
        self.request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.into())
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        Self::send(self.request(Method::DELETE, path)).await
    }

    /// Submits a job and answers its id.
    pub(crate) async fn submit(&self, job: Value) -> String {
        let taken = self.post("/api/glm/jobs", job.to_string()).await;
        let taken = taken.expect(202);
        taken["id"].as_str().expect("an id").to_owned()
    }

    /// Submits a prompt for a model and answers the job's id.
    pub(crate) async fn ask(&self, prompt: &str, model: &str) -> String {
        self.submit(json!({"prompt": prompt, "model": model})).await
    }

    /// Submits a prompt that is to run after these, and answers the job's id.
    pub(crate) async fn ask_after(&self, prompt: &str, after: &[&String]) -> String {
        self.submit(json!({"prompt": prompt, "after": after})).await
    }

    /// An operator's order, such as `pause`, which is carried out.
    pub(crate) async fn order(&self, what: &str, body: Value) -> Value {
        let path = format!("/api/admin/glm/{what}");
        self.post(&path, body.to_string()).await.expect(200)
    }

    /// Ends the hold on this part of the lanes.
    pub(crate) async fn release(&self, what: &str) {
        let path = format!("/api/admin/glm/holds/{what}");
        self.delete(&path).await.expect(200);
    }

    /// The job, once it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let reply = self.get(&format!("/api/glm/jobs/{id}?wait=30s")).await;
        reply.expect(200)
    }

    /// The job, which must complete.
    pub(crate) async fn completed(&self, id: &str) -> Value {
        let job = self.ended(id).await;
        assert_eq!(job["status"], "completed", "{job}");
        job
    }

    /// The job as an operator sees it, with its attempts.
    pub(crate) async fn job(&self, id: &str) -> Value {
        let reply = self.get(&format!("/api/admin/glm/queue/{id}")).await;
        reply.expect(200)["job"].clone()
    }

    pub(crate) async fn metrics(&self) -> Value {
        self.get("/api/admin/glm/metrics").await.expect(200)
    }

    /// Changes the configuration of the running lane; answers it as it is then.
    pub(crate) async fn configure(&self, patch: Value) -> Value {
        let reply = self.put("/api/admin/glm/config", patch.to_string()).await;
        reply.expect(200)["config"].clone()
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<String>) -> Reply {
        let request = self
            .request(Method::PUT, path)
            .header("content-type", "application/json")
            .body(body.into());
        Self::send(request).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
