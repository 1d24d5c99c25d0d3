//! Bounds connecting by the call's own limit, and lets the call see when its connection stands:
//! reqwest knows one connect timeout for the life of a client and says nothing of that moment.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// The gauge of the call whose future is being polled. The connector runs inside that future.
    static GAUGE: Arc<Gauge>;
}

/// Where a call's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection was asked for: one that stood already is used.
    Idle,
    /// Being made: DNS, TCP, TLS.
    Connecting,
    /// Made, at that moment.
    Connected(Instant),
}

/// State that a call shares with the connector that works for it.
#[derive(Debug)]
pub(crate) struct Gauge {
    begun: Instant,
    limit: Duration,
    /// [`IDLE`], [`CONNECTING`], or the microseconds from `begun` to the connection plus [`CONNECTED`].
    stage: AtomicU64,
}

const IDLE: u64 = 0;
const CONNECTING: u64 = 1;
const CONNECTED: u64 = 2;

impl Gauge {
    /// For a call that begins now and whose connection must stand within `limit`.
    pub(crate) fn new(begun: Instant, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            begun,
            limit,
            stage: AtomicU64::new(IDLE),
        })
    }

    /// Runs the call's future so that connections made for it are gauged.
    pub(crate) fn watch<F: Future>(self: &Arc<Self>, call: F) -> impl Future<Output = F::Output> {
        GAUGE.scope(Arc::clone(self), call)
    }

    /// Where the connection is.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            IDLE => Stage::Idle,
            CONNECTING => Stage::Connecting,
            at => Stage::Connected(self.begun + Duration::from_micros(at - CONNECTED)),
        }
    }

    fn set(&self, stage: u64) {
        self.stage.store(stage, Ordering::Release);
    }

    fn connected_now(&self) -> u64 {
        let micros = self.begun.elapsed().as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX - CONNECTED) + CONNECTED
    }
}

/// The connection did not stand in time.
#[derive(Debug)]
pub(crate) struct ConnectTimedOut;

impl fmt::Display for ConnectTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection did not stand in time")
    }
}

impl Error for ConnectTimedOut {}

/// Puts the gauge around reqwest's connector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GaugedConnector;

impl<S> Layer<S> for GaugedConnector {
    type Service = Gauged<S>;

    fn layer(&self, connector: S) -> Gauged<S> {
        Gauged(connector)
    }
}

/// A connector under the gauge of the call that it works for.
#[derive(Debug, Clone)]
pub(crate) struct Gauged<S>(S);

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Gauged<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = self.0.call(target);
        let Ok(gauge) = GAUGE.try_with(Arc::clone) else {
            return Box::pin(connecting);
        };
        gauge.set(CONNECTING);
        Box::pin(async move {
            let made = tokio::time::timeout(gauge.limit, connecting)
                .await
                .unwrap_or_else(|_| Err(ConnectTimedOut.into()));
            // Hyper goes on connecting in the background when another connection became free first:
            // a failure there is not this call's.
            gauge.set(match made {
                Ok(_) => gauge.connected_now(),
                Err(_) => IDLE,
            });
            made
        })
    }
}
