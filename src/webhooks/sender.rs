//! The way out: one POST, to an address that was checked, followed nowhere, read no further than
//! needed.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use onelane_core::model::{CallbackRules, TRACEPARENT, TRACESTATE, Timestamp, TraceContext};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Response};

use super::sign::{SigningKeys, seconds};
use crate::glm::retry_after_ms;
use crate::tls::Trust;

/// Bytes of an answer that are read, so that the connection can be used again; a longer answer ends
/// with its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long that may take; what the receiver says counts by then.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// One message, ready to be sent.
#[derive(Debug, Clone)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// The `webhook-id`.
    pub message_id: String,
    /// The moment of this try, for the `webhook-timestamp`.
    pub at: Timestamp,
    /// The body, JSON.
    pub body: Bytes,
    /// What it is signed with.
    pub keys: SigningKeys,
    /// The span that its receiver may go on from.
    pub trace: Option<TraceContext>,
    /// Whether the URL came from a submitter, and may lead only where callbacks may.
    pub is_callback: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// There was an answer with this HTTP status.
    Answered(u16),
    /// It was 429 or 503, and said when to come again.
    Busy {
        /// The HTTP status.
        status_code: u16,
        /// After so many milliseconds.
        retry_after_ms: u64,
    },
    /// There was none; why.
    Failed(String),
}

/// The future of one message.
pub type Sending = BoxFuture<'static, Sent>;

/// Brings messages out. It ends within its time and never panics on what a receiver does.
pub trait Sender: Send + Sync + 'static {
    /// Sends one message once.
    fn send(&self, post: Post) -> Sending;
}

/// [`Sender`] over HTTP. Its clients are built when the first message goes out: they cost time and
/// memory that somebody without webhooks need not spend.
pub struct HttpSender {
    /// For endpoints that the operator configured.
    trusted: LazyLock<Built, Builder>,
    /// For URLs that came with jobs.
    guarded: LazyLock<Built, Builder>,
    rules: CallbackRules,
    timeout: Duration,
}

/// A client, or why there is none.
type Built = Result<Client, String>;
type Builder = Box<dyn FnOnce() -> Built + Send>;

impl HttpSender {
    /// A sender that lets callbacks go where `rules` say, and gives each receiver `timeout`.
    #[must_use]
    pub fn new(rules: CallbackRules, timeout: Duration) -> Self {
        let built = |builder: ClientBuilder| {
            let unbuilt = |error: &dyn Error| format!("the HTTP client can't be built: {error}");
            let trust = Trust::of_system().map_err(|error| unbuilt(&error))?;
            trust.on(builder).build().map_err(|error| unbuilt(&error))
        };
        let resolver = Arc::new(CheckedResolver(rules.clone()));
        Self {
            trusted: LazyLock::new(Box::new(move || built(client(timeout)))),
            guarded: LazyLock::new(Box::new(move || {
                built(client(timeout).dns_resolver(resolver))
            })),
            rules,
            timeout,
        }
    }
}

fn client(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("onelane/", env!("CARGO_PKG_VERSION")))
}

impl Sender for HttpSender {
    fn send(&self, post: Post) -> Sending {
        // The rules may have changed since the job was submitted. An address in the URL is checked
        // here, since nothing is resolved for it; one behind a name by the resolver.
        if post.is_callback
            && let Err(problem) = self.rules.check(&post.url)
        {
            return Box::pin(async move { Sent::Failed(format!("the callback URL {problem}")) });
        }
        let client = match post.is_callback {
            true => (*self.guarded).clone(),
            false => (*self.trusted).clone(),
        };
        let client = match client {
            Ok(client) => client,
            Err(problem) => return Box::pin(async move { Sent::Failed(problem) }),
        };
        let timeout = self.timeout;
        Box::pin(async move {
            let at = post.at;
            let sent = tokio::time::timeout(timeout, exchange(&client, post)).await;
            let silent = |_| Err(format!("no answer within {} ms", timeout.as_millis()));
            match sent.unwrap_or_else(silent) {
                // What it says after its status has no say in what the status means.
                Ok(response) => {
                    let sent = answered(&response, at);
                    let _ = tokio::time::timeout(ANSWER_TIME_MAX, drain(response)).await;
                    sent
                }
                Err(problem) => Sent::Failed(problem),
            }
        })
    }
}

async fn exchange(client: &Client, post: Post) -> Result<Response, String> {
    let signature = post.keys.sign(&post.message_id, post.at, &post.body);
    let request = client
        .post(&post.url)
        .header("content-type", "application/json")
        .header("webhook-id", &post.message_id)
        .header("webhook-timestamp", seconds(post.at).to_string())
        .header("webhook-signature", signature);
    let request = match &post.trace {
        Some(span) => request.header(TRACEPARENT, span.to_string()),
        None => request,
    };
    let request = match post.trace.as_ref().and_then(TraceContext::state) {
        Some(state) => request.header(TRACESTATE, state),
        None => request,
    };
    let sent = request.body(post.body).send();
    sent.await.map_err(|error| words(&error))
}

fn answered(response: &Response, at: Timestamp) -> Sent {
    let status_code = response.status().as_u16();
    let retry_after_ms = match status_code {
        429 | 503 => retry_after_ms(response.headers(), at),
        _ => None,
    };
    match retry_after_ms {
        Some(retry_after_ms) => Sent::Busy {
            status_code,
            retry_after_ms,
        },
        None => Sent::Answered(status_code),
    }
}

/// Reads an answer to its end, if that is near; what it says does not matter.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES_MAX {
            return;
        }
    }
}

/// The deepest cause, without the URL: it may hold a token.
fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match error.is_connect() {
        true => format!("no connection: {cause}"),
        false => format!("no answer: {cause}"),
    }
}

/// Resolves names to addresses that may be called. What was checked is what is connected to: a name
/// that says something else a moment later gains nothing.
struct CheckedResolver(CallbackRules);

/// A name leads where callbacks may not go.
#[derive(Debug)]
struct Forbidden(IpAddr);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.0;
        write!(
            f,
            "the host resolves to {ip}, which is not on the public internet"
        )
    }
}

impl Error for Forbidden {}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            // One forbidden address among good ones is no accident.
            match found.iter().find(|addr| !rules.may_connect(addr.ip())) {
                Some(addr) => Err(Forbidden(addr.ip()).into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests;
