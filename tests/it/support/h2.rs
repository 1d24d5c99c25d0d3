//! A client that speaks HTTP/2, many requests on one connection.

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use hyper::{HeaderMap, Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use bytes::Bytes;
use serde_json::Value;

/// What a client takes of an answer unless it says otherwise.
const WINDOW_BYTES: u32 = 65_535;

/// A connection.
pub(crate) struct H2 {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
    host: String,
}

/// A request that was sent.
pub(crate) struct Sent {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl H2 {
    /// On a stream that has no other use, to a server that is called so.
    pub(crate) async fn on<S>(stream: S, host: impl ToString) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::taking(WINDOW_BYTES, stream, host).await
    }

    /// The same, of a client that takes so many bytes of an answer without having read any.
    pub(crate) async fn taking<S>(window: u32, stream: S, host: impl ToString) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        // What one answer leaves unread is no other's business.
        builder.initial_connection_window_size(1 << 20);
        let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Self {
            requests,
            connection: tokio::spawn(connection),
            host: host.to_string(),
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Sent {
        let uri: Uri = format!("http://{}{path}", self.host).parse().unwrap();
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("content-type", "application/json");
        let mut requests = self.requests.clone().ready().await.expect("room");
        let sent = requests.send_request(request.body(()).unwrap(), body.is_none());
        let (response, mut stream) = sent.expect("sent");
        if let Some(body) = body {
            stream.send_data(body.to_string().into(), true).unwrap();
        }
        Sent {
            response,
            body: stream,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Sent {
        self.send(Method::POST, path, Some(body)).await
    }

    /// The status and the text of an answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.send(Method::GET, path, None).await.answer().await
    }
}

impl Sent {
    /// Takes the request back.
    pub(crate) fn take_back(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    pub(crate) async fn answer(self) -> (u16, String) {
        let response = self.response.await.expect("an answer");
        let status = response.status().as_u16();
        let (mut body, mut text) = (response.into_body(), Vec::new());
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            body.flow_control().release_capacity(piece.len()).unwrap();
            text.extend_from_slice(&piece);
        }
        (status, String::from_utf8(text).unwrap())
    }

    /// What is told of an answer, and how many bytes follow.
    pub(crate) async fn head(self) -> (HeaderMap, usize) {
        let mut response = self.response.await.expect("an answer");
        let (headers, mut bytes) = (response.headers().clone(), 0);
        while let Some(piece) = response.body_mut().data().await {
            bytes += piece.expect("a piece").len();
        }
        (headers, bytes)
    }

    /// Takes no more of the answer than comes unasked; answers why it was given up. `None`: it was not.
    pub(crate) async fn left_untaken(self) -> Option<Reason> {
        let mut body = self.response.await.expect("an answer").into_body();
        while let Some(piece) = body.data().await {
            if let Err(error) = piece {
                return error.reason();
            }
        }
        None
    }

    /// Reads the answer's beginning, and lets go of the rest.
    pub(crate) async fn read_and_leave(self, text: &str) {
        let response = self.response.await.expect("an answer");
        let (mut body, mut read) = (response.into_body(), String::new());
        while !read.contains(text) {
            let piece = body.data().await.expect("more").expect("a piece");
            read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}
