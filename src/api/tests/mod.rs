//! The API over real sockets and a real lane: its store is in memory, its GLM a script.

mod admin;
mod control;
mod jobs;
mod keys;
mod log;
mod metrics;
mod money;
mod notify;
use crate::views::tests::sample;
mod server;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::FaultPoints;
use onelane_actors::ports::{Clock, Store as _};
use onelane_actors::supervisor::RestartBudget;
use onelane_actors::testing::{MemoryStore, ScriptedGlm, SeededIds};
use onelane_core::model::{Timestamp, Transition};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::endpoint::Router;
use super::{Listening, Server};
use crate::config::{Config, Loaded, ServerSection};
use crate::orchestrator::{Orchestrator, Parts};
use crate::webhooks::{Post, Sender, Sending};

/// A clock that stands still.
struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Takes what is sent, and never says whether it arrived.
struct Nowhere;

impl Sender for Nowhere {
    fn send(&self, _: Post) -> Sending {
        Box::pin(std::future::pending())
    }
}

/// On any free port of this machine.
fn config() -> ServerSection {
    ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..ServerSection::default()
    }
}

/// What an API is served from.
struct World {
    store: MemoryStore,
    glm: ScriptedGlm,
    lane: Config,
    api: ServerSection,
}

impl Default for World {
    /// Nothing is stored, and GLM never answers.
    fn default() -> Self {
        Self {
            store: MemoryStore::new(),
            glm: ScriptedGlm::answering(Duration::from_secs(3_600)),
            lane: Config::default(),
            api: config(),
        }
    }
}

impl World {
    /// With a store in which this has happened.
    fn after(history: impl IntoIterator<Item = Transition>) -> Self {
        let world = Self::default();
        for transition in history {
            let done = world.store.commit(&[transition]).unwrap();
            assert!(done.iter().all(Result::is_ok), "{done:?}");
        }
        world
    }

    async fn lane(&self) -> Orchestrator {
        let parts = Parts {
            store: Arc::new(self.store.clone()),
            glm: Arc::new(self.glm.clone()),
            clock: Arc::new(Stopped(sample::NOW)),
            ids: Arc::new(SeededIds::new(7)),
            config: Loaded::from_config(&self.lane).unwrap(),
            registry: crate::registry::Registry::default(),
            tokens: None,
            budget: RestartBudget::default(),
            fault_points: FaultPoints::default(),
        };
        let started = Orchestrator::start_sending(parts, Arc::new(Nowhere));
        started.await.unwrap()
    }

    async fn bind(&self) -> Result<Server, super::BindError> {
        let clock = Arc::new(Stopped(sample::NOW));
        Server::bind(self.api.clone(), self.lane().await, clock).await
    }

    async fn serve(self) -> Running {
        self.serve_table(super::endpoints::router()).await
    }

    /// With another table of endpoints.
    async fn serve_table(self, router: Router) -> Running {
        let lane = self.lane().await;
        let clock = Arc::new(Stopped(sample::NOW));
        let listening = Listening::on(self.api).await.unwrap();
        let server = listening.serve_table(lane.clone(), clock, router);
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(server.run(shutdown, Duration::from_secs(5)));
        Running {
            address,
            lane,
            client: crate::tls::client().unwrap().no_proxy().build().unwrap(),
            stop: Some(stop),
            task,
        }
    }
}

/// An answer, read.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Reply {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    #[track_caller]
    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

/// A served API.
struct Running {
    address: SocketAddr,
    lane: Orchestrator,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn start() -> Self {
        World::default().serve().await
    }

    /// A lane that is paused: what is submitted waits.
    async fn paused() -> Self {
        let api = Self::start().await;
        api.lane.pause(None).await.unwrap();
        api
    }

    /// A lane whose slot is taken: what is submitted waits for its turn, and is given up when its client is gone.
    async fn busy() -> Self {
        let mut world = World::default();
        world.lane.gateway.reattach_ms = 0;
        let api = world.serve().await;
        api.block().await;
        api
    }

    /// Takes the slot for good.
    async fn block(&self) {
        let blocker = self.submit(r#"{"prompt":"blocker"}"#).await;
        let path = format!("/api/glm/jobs/{blocker}");
        while self.get(&path).await.json()["status"] != "processing" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn with(api: ServerSection) -> Self {
        let world = World {
            api,
            ..World::default()
        };
        world.serve().await
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    async fn send(request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Reply {
        Self::send(self.request("GET", path)).await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        let request = self.request("POST", path);
        let request = request.header("content-type", "application/json");
        Self::send(request.body(body.to_owned())).await
    }

    /// Submits a job and answers its id.
    async fn submit(&self, job: &str) -> String {
        let taken = self.post("/api/glm/jobs", job).await.expect(202);
        taken["id"].as_str().unwrap().to_owned()
    }

    /// Sends bytes as they are and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// A problem's name.
#[track_caller]
fn kind(problem: &Value) -> &str {
    let kind = problem["type"].as_str().unwrap();
    kind.strip_prefix("urn:onelane:problem:").unwrap()
}
