//! Common parts of the simulator's server: its state, a response, the body of a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::body::{Body, Incoming};
use onelane_actors::ports::Clock;
use onelane_core::model::limits;
use onelane_core::random::Seeds;

use super::answer::id;
use super::body::Pieces;
use super::meters::Meters;
use super::recorder::Recorder;
use super::script::Script;
use super::tasks::Tasks;

/// The largest body that is read; GLM's own limits are far below.
const BODY_BYTES_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;
/// State that the server's tasks and the handle share.
pub(crate) struct Shared {
    script: Mutex<Script>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) tasks: Tasks,
    pub(crate) meters: Meters,
    pub(crate) clock: Arc<dyn Clock>,
    salts: Seeds,
}

impl Shared {
    pub(crate) fn new(script: Script, seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            script: Mutex::new(script),
            recorder: Arc::new(Recorder::new()),
            tasks: Tasks::default(),
            meters: Meters::default(),
            clock,
            salts: Seeds::new(seed),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salts.draw()
    }

    /// An id as GLM gives it, unlike all others.
    pub(crate) fn id(&self) -> String {
        id(self.clock.now(), self.salt())
    }
}

/// A response on its way.
pub(crate) type Answer = Response<Pieces>;

/// The whole body; the error is the HTTP status to answer with.
pub(crate) async fn whole(mut body: Incoming) -> Result<Bytes, u16> {
    let announced = body.size_hint().exact().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut all = BytesMut::with_capacity(announced.min(BODY_BYTES_MAX));
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.map_err(|_| 400_u16)?.into_data() {
            if all.len() + data.len() > BODY_BYTES_MAX {
                return Err(413);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}
