//! The API over real sockets, with a lane that has no store and no GLM behind it.

mod admin;
mod control;
mod fake;
mod gateway;
mod jobs;
mod log;
mod money;
mod notify;
pub(in crate::api) mod sample;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onelane_actors::ports::Clock;
use onelane_core::model::Timestamp;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{ApiConfig, Server};
use fake::FakeLane;

/// A clock that stands still.
struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Stopped(sample::NOW))
}

/// On any free port of this machine.
fn config() -> ApiConfig {
    ApiConfig {
        listen: "127.0.0.1:0".to_owned(),
        ..ApiConfig::default()
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
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

/// A served API.
struct Running {
    address: SocketAddr,
    lane: FakeLane,
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
        Self::with(config()).await
    }

    async fn with(config: ApiConfig) -> Self {
        let lane = FakeLane::default();
        let server = Server::bind(config, lane.clone(), clock()).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(server.run(shutdown, Duration::from_secs(5)));
        Self {
            address,
            lane,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop: Some(stop),
            task,
        }
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

    /// Sends bytes as they are and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}
