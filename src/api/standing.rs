//! How long a client key reads on: what it follows, or waits for, is cut once it opens nothing any more.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use onelane_core::model::{Face, KeyId, Timestamp};
use tokio::time::timeout;

use super::Api;
use super::answer::Pieces;
use super::keepalive::in_stream;
use super::principal::Principal;
use super::problem::{Dialect, Kind, Problem};
use super::request_id::RequestId;
use super::response_error::NextNumber;
use crate::orchestrator::Orchestrator;

/// How often it is looked at while no piece comes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a client key opens nothing any more; `None`: it does.
pub(super) fn why_closed(lane: &Orchestrator, key: KeyId, now: Timestamp) -> Option<String> {
    match lane.client_keys().get(key) {
        Some(known) => known.why_dead(now),
        None => Some(format!("client key {key} is not known any more")),
    }
}

/// A client key that reads.
struct Reader {
    key: KeyId,
    /// Looked at, and not kept from ending.
    api: Weak<Api>,
    /// In the form of which face it is told that it is cut; `None`: it sees that its stream ends.
    told: Option<(Face, RequestId)>,
    /// The number under which, where events have one.
    number: NextNumber,
}

/// Whether a key reads on.
enum Standing {
    Opens,
    /// Why not, in words.
    Dead(String),
    /// The server ends.
    Over,
}

impl Reader {
    fn standing(&self) -> Standing {
        let Some(api) = self.api.upgrade() else {
            return Standing::Over;
        };
        why_closed(&api.lane, self.key, api.clock.now()).map_or(Standing::Opens, Standing::Dead)
    }

    /// What is told of the stream.
    fn saw(&mut self, piece: &[u8]) {
        if let Some((face, _)) = &self.told {
            self.number.saw(*face, piece);
        }
    }

    /// What a reader is told that is cut.
    fn cut(&self, why: String) -> Option<Bytes> {
        let (face, request) = self.told.as_ref()?;
        let problem = Problem::new(Kind::Unauthorized, why);
        let reply = problem.reply(Dialect::of_face(*face), request);
        // An event may be open.
        let event = [
            b"\n\n",
            &*in_stream(*face, reply, request, self.number.get())?,
        ]
        .concat();
        Some(event.into())
    }
}

/// The pieces of a stream that somebody follows, as long as their client key opens.
pub(super) fn while_key_opens(
    api: &Arc<Api>,
    principal: &Principal,
    told: Option<(Face, RequestId)>,
    pieces: Pieces,
) -> Pieces {
    let Some(key) = principal.key_id() else {
        return pieces;
    };
    let reader = Reader {
        key,
        api: Arc::downgrade(api),
        told,
        number: NextNumber::default(),
    };
    let next = |reading: Option<(Pieces, Reader)>| async {
        let (mut pieces, mut reader) = reading?;
        loop {
            let piece = timeout(LOOK_EVERY, pieces.next()).await;
            match (piece, reader.standing()) {
                (Ok(None), _) | (_, Standing::Over) => return None,
                (_, Standing::Dead(why)) => return Some((Ok(reader.cut(why)?), None)),
                (Ok(Some(piece)), Standing::Opens) => {
                    if let Ok(told) = &piece {
                        reader.saw(told);
                    }
                    return Some((piece, Some((pieces, reader))));
                }
                (Err(_), Standing::Opens) => {}
            }
        }
    };
    Box::pin(stream::unfold(Some((pieces, reader)), next))
}

/// What somebody waits for, as long as their client key opens; then a refusal that says why not.
pub(super) async fn await_while_key_opens<T>(
    api: &Api,
    principal: &Principal,
    waited_for: impl Future<Output = T>,
) -> Result<T, Problem> {
    let Some(key) = principal.key_id() else {
        return Ok(waited_for.await);
    };
    let mut waited_for = pin!(waited_for);
    loop {
        let found = timeout(LOOK_EVERY, &mut waited_for).await;
        match (found, why_closed(&api.lane, key, api.clock.now())) {
            (_, Some(why)) => return Err(Problem::new(Kind::Unauthorized, why)),
            (Ok(found), None) => return Ok(found),
            (Err(_), None) => {}
        }
    }
}
