//! How long a client key reads on: what it follows is cut once it opens nothing any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use onelane_core::model::{Face, KeyId};
use tokio::time::timeout;

use super::Api;
use super::answer::Pieces;
use super::keepalive::in_stream;
use super::principal::Principal;
use super::problem::{Dialect, Kind, Problem};
use super::request_id::RequestId;

/// How often it is looked at while no piece comes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A client key that reads.
struct Reader {
    key: KeyId,
    /// Looked at, and not kept from ending.
    api: Weak<Api>,
    /// In the form of which face it is told that it is cut; `None`: it sees that its stream ends.
    told: Option<(Face, RequestId)>,
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
        let keys = api.lane.client_keys();
        let why = match keys.get(self.key) {
            Some(key) => key.why_dead(api.clock.now()),
            None => Some(format!("client key {} is not known any more", self.key)),
        };
        why.map_or(Standing::Opens, Standing::Dead)
    }

    /// What a reader is told that is cut.
    fn cut(&self, why: String) -> Option<Bytes> {
        let (face, request) = self.told.as_ref()?;
        let problem = Problem::new(Kind::Unauthorized, why);
        let reply = problem.reply(Dialect::of_face(*face), request);
        // An event may be open.
        let event = [b"\n\n", &*in_stream(*face, reply, request)?].concat();
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
    };
    let next = |reading: Option<(Pieces, Reader)>| async {
        let (mut pieces, reader) = reading?;
        loop {
            let piece = timeout(LOOK_EVERY, pieces.next()).await;
            match (piece, reader.standing()) {
                (Ok(None), _) | (_, Standing::Over) => return None,
                (_, Standing::Dead(why)) => return Some((Ok(reader.cut(why)?), None)),
                (Ok(Some(piece)), Standing::Opens) => return Some((piece, Some((pieces, reader)))),
                (Err(_), Standing::Opens) => {}
            }
        }
    };
    Box::pin(stream::unfold(Some((pieces, reader)), next))
}
