//! The pieces of streamed answers on their way to those who read them: past the mailboxes, from the open call straight
//! to its readers.
//!
//! A [`Relay`] keeps what came, so that a reader who comes back starts at the first byte. Its call waits for a reader
//! that lies far behind, and not for long: then it goes on without him, and he is served from what is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::marks::millis;
use onelane_core::model::{
    AttemptNo, Failure, FailureClass, JobId, PassedHeaders, RequestId, code, limits,
};

/// What is known of a streamed answer when its first piece may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayHead {
    /// The attempt that it answers.
    pub attempt: AttemptNo,
    /// The `request_id` that GLM was sent.
    pub request_id: RequestId,
    /// The model that was asked.
    pub model: String,
    /// The media type of the pieces.
    pub media_type: String,
    /// The headers by which GLM names the call.
    pub call_ids: PassedHeaders,
}

/// What has come of an answer that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoFar {
    /// Its events; GLM sends about one a token.
    pub events: usize,
    /// How long after the beginning of its call the first token came.
    pub first_token_ms: Option<u64>,
}

/// How a streamed answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEnd {
    /// With all that the server had to say, which may be an error in the stream's own words.
    Whole,
    /// Before its end.
    Cut(Failure),
}

#[derive(Debug, Default)]
struct State {
    head: Option<Arc<RelayHead>>,
    pieces: Vec<Bytes>,
    bytes: usize,
    end: Option<RelayEnd>,
    /// When the call began that it tells of, or will.
    begun: Option<Instant>,
}

/// The pieces of one job's streamed answer.
#[derive(Debug)]
pub struct Relay {
    state: watch::Sender<State>,
    /// Bytes that the foremost reader has taken.
    taken: watch::Sender<usize>,
    /// The words among the pieces, where it ended before all was told.
    said: OnceLock<String>,
    /// When the first piece told something.
    opened_at: OnceLock<Instant>,
    /// Somebody cancelled the job.
    is_cancelled: AtomicBool,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            state: watch::Sender::default(),
            taken: watch::Sender::default(),
            said: OnceLock::new(),
            opened_at: OnceLock::new(),
            is_cancelled: AtomicBool::new(false),
        }
    }
}

impl Relay {
    /// Lets readers begin: from now on the job is not tried again in silence, since somebody may have read of this
    /// attempt.
    pub fn open(&self, head: RelayHead) {
        self.opened_at.get_or_init(Instant::now);
        self.state.send_modify(|state| {
            state.head.get_or_insert_with(|| Arc::new(head));
        });
    }

    /// The call begins whose answer it tells.
    pub fn begins(&self, at: Instant) {
        self.state.send_modify(|state| state.begun = Some(at));
    }

    /// Whether readers may have begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.borrow().head.is_some()
    }

    /// How long after its call began readers could begin: the first piece told something.
    #[must_use]
    pub fn first_token_ms(&self) -> Option<u64> {
        let (opened, begun) = (self.opened_at.get()?, self.state.borrow().begun?);
        Some(millis(begun, *opened))
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.borrow().end.is_some()
    }

    /// Hands a piece over. While more than [`limits::RELAY_AHEAD_BYTES`] lie unread and somebody reads, it waits for
    /// him, and takes the time from `patience`: once that is used up it never waits again.
    pub async fn push(&self, piece: Bytes, patience: &mut Duration) {
        let mut end = 0;
        self.state.send_modify(|state| {
            state.bytes += piece.len();
            state.pieces.push(piece);
            end = state.bytes;
        });
        let is_near = |taken: &usize| end.saturating_sub(*taken) <= limits::RELAY_AHEAD_BYTES;
        if patience.is_zero() || is_near(&self.taken.borrow()) {
            return;
        }
        let begun = Instant::now();
        let mut taken = self.taken.subscribe();
        tokio::select! {
            _ = taken.wait_for(is_near) => {}
            () = self.state.closed() => {}
            () = tokio::time::sleep(*patience) => {}
        }
        *patience = patience.saturating_sub(begun.elapsed());
    }

    /// Says how the answer ended. The first to say it is believed.
    pub fn close(&self, end: RelayEnd) {
        self.state.send_modify(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Closes it as one whose call was given up, if readers may have begun and nobody has said how it ended.
    pub fn give_up(&self) {
        if self.is_open() {
            let (code, message) = match self.is_cancelled.load(Ordering::Acquire) {
                true => (
                    code::CANCELLED,
                    "the job was cancelled before the end of its answer",
                ),
                false => (code::INTERRUPTED, "the call was given up before its end"),
            };
            let failure = Failure::new(FailureClass::ServerTransient, code, message);
            self.close(RelayEnd::Cut(failure));
        }
    }

    /// All that came.
    #[must_use]
    pub fn all(&self) -> Vec<u8> {
        self.state.borrow().pieces.concat()
    }

    /// Notes the words among the pieces of an answer that ended early.
    pub fn note_said(&self, words: String) {
        let _ = self.said.set(words);
    }

    /// The words among the pieces, where somebody noted them.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.said.get().map(String::as_str)
    }

    /// Whether somebody reads it now.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.state.receiver_count() > 0
    }

    /// Somebody who reads from the first byte.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> RelayReader {
        RelayReader {
            state: self.state.subscribe(),
            relay: Arc::clone(self),
            next: 0,
            taken: 0,
        }
    }

    fn bytes(&self) -> usize {
        self.state.borrow().bytes
    }

    /// What has come of it, while it goes on.
    fn so_far(&self) -> Option<SoFar> {
        const EVENT: &[u8] = b"data:";
        let state = self.state.borrow();
        let goes_on = state.head.is_some() && state.end.is_none();
        let of = |piece: &Bytes| {
            piece
                .windows(EVENT.len())
                .filter(|part| *part == EVENT)
                .count()
        };
        let events = goes_on.then(|| state.pieces.iter().map(of).sum())?;
        drop(state);
        Some(SoFar {
            events,
            first_token_ms: self.first_token_ms(),
        })
    }
}

/// Reads a streamed answer from its first byte on.
#[derive(Debug)]
pub struct RelayReader {
    relay: Arc<Relay>,
    state: watch::Receiver<State>,
    /// The piece to read next.
    next: usize,
    taken: usize,
}

impl RelayReader {
    /// Waits for the first piece. `None`: the answer ended without one.
    pub async fn head(&mut self) -> Option<Arc<RelayHead>> {
        let known = |state: &State| state.head.is_some() || state.end.is_some();
        // The relay holds the sender for as long as there are readers.
        let state = self.state.wait_for(known).await.ok()?;
        state.head.clone()
    }

    /// The next piece; `Err` is how the answer ended.
    pub async fn next(&mut self) -> Result<Bytes, RelayEnd> {
        let next = self.next;
        let known = |state: &State| state.pieces.len() > next || state.end.is_some();
        let piece = match self.state.wait_for(known).await {
            Ok(state) => match (state.pieces.get(next), &state.end) {
                (Some(piece), _) => piece.clone(),
                (None, Some(end)) => return Err(end.clone()),
                (None, None) => return Err(RelayEnd::Whole),
            },
            Err(_) => return Err(RelayEnd::Whole),
        };
        self.next += 1;
        self.taken += piece.len();
        let taken = self.taken;
        self.relay.taken.send_if_modified(|foremost| {
            let further = taken > *foremost;
            *foremost = taken.max(*foremost);
            further
        });
        Ok(piece)
    }
}

/// The relays of the jobs of a lane. Whoever reads and whoever writes meet here, and neither has to be there first.
#[derive(Debug, Clone, Default)]
pub struct Relays(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Held by their readers and their calls.
    open: BTreeMap<JobId, Weak<Relay>>,
    /// How many there were when those that nobody holds were last cleared away.
    cleared: usize,
    /// Ended ones whose readers may come back, oldest first.
    kept: VecDeque<(JobId, Arc<Relay>)>,
}

impl Relays {
    /// The relay for somebody who wants to read a job's answer.
    #[must_use]
    pub fn to_read(&self, id: JobId) -> Arc<Relay> {
        self.lock().find(id, |_| true)
    }

    /// The relay for an attempt of a job: what an earlier one told is told.
    #[must_use]
    pub fn to_write(&self, id: JobId) -> Arc<Relay> {
        self.lock().find(id, |relay| !relay.is_open())
    }

    /// Keeps an ended answer for readers that come back, as long as there is room.
    pub fn keep(&self, id: JobId, relay: Arc<Relay>) {
        let mut known = self.lock();
        known.kept.retain(|(kept, _)| *kept != id);
        known.kept.push_back((id, relay));
        let mut bytes: usize = known.kept.iter().map(|(_, relay)| relay.bytes()).sum();
        while bytes > limits::RELAYS_KEPT_BYTES || known.kept.len() > limits::RELAYS_KEPT_MAX {
            let Some((_, oldest)) = known.kept.pop_front() else {
                break;
            };
            bytes = bytes.saturating_sub(oldest.bytes());
        }
    }

    /// Somebody cancels a job: whoever reads its answer is told that this is why it ends.
    pub fn cancelled(&self, id: JobId) {
        let relay = self.lock().open.get(&id).and_then(Weak::upgrade);
        if let Some(relay) = relay {
            relay.is_cancelled.store(true, Ordering::Release);
        }
    }

    /// What has come of a job's answer, while it comes; `None`: it does not.
    #[must_use]
    pub fn so_far(&self, id: JobId) -> Option<SoFar> {
        let relay = self.lock().open.get(&id).and_then(Weak::upgrade);
        relay?.so_far()
    }

    /// Lets go of what is kept of a job's answer.
    pub fn forget(&self, id: JobId) {
        let mut known = self.lock();
        known.kept.retain(|(kept, _)| *kept != id);
        known.open.remove(&id);
    }

    /// Lets go of an answer that has ended: the job is asked anew. One that comes already stays.
    pub fn forget_ended(&self, id: JobId) {
        let mut known = self.lock();
        known.kept.retain(|(kept, _)| *kept != id);
        let relay = known.open.get(&id).and_then(Weak::upgrade);
        if relay.is_none_or(|relay| relay.is_closed()) {
            known.open.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // The maps are whole at every moment: a panic elsewhere can't have left them half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&mut self, id: JobId, fits: impl Fn(&Relay) -> bool) -> Arc<Relay> {
        let known = self.open.get(&id).and_then(Weak::upgrade);
        if let Some(relay) = known.filter(|relay| fits(relay)) {
            return relay;
        }
        if self.open.len() > 2 * self.cleared.max(16) {
            self.open.retain(|_, relay| relay.strong_count() > 0);
            self.cleared = self.open.len();
        }
        let relay = Arc::new(Relay::default());
        self.open.insert(id, Arc::downgrade(&relay));
        relay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> RelayHead {
        RelayHead {
            attempt: AttemptNo(1),
            request_id: RequestId::new(id(1), AttemptNo(1)),
            model: "glm-4.7".to_owned(),
            media_type: "text/event-stream".to_owned(),
            call_ids: PassedHeaders::default(),
        }
    }

    fn id(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    async fn rest(reader: &mut RelayReader) -> (Vec<u8>, RelayEnd) {
        let mut all = Vec::new();
        loop {
            match reader.next().await {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(end) => return (all, end),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_late_reads_from_the_first_byte() {
        let relays = Relays::default();
        let writer = relays.to_write(id(1));
        let mut early = relays.to_read(id(1)).reader();
        writer.open(head());
        let mut patience = Duration::from_secs(1);
        writer.push("a".into(), &mut patience).await;
        assert_eq!(early.head().await.unwrap().model, "glm-4.7");
        assert_eq!(early.next().await.unwrap(), "a");
        let mut late = relays.to_read(id(1)).reader();
        writer.push("b".into(), &mut patience).await;
        writer.close(RelayEnd::Whole);
        assert_eq!(rest(&mut early).await, (b"b".to_vec(), RelayEnd::Whole));
        assert_eq!(rest(&mut late).await, (b"ab".to_vec(), RelayEnd::Whole));
        assert_eq!(patience, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_is_waited_for_once_and_served_from_what_is_kept() {
        let relay = Arc::new(Relay::default());
        let mut reader = relay.reader();
        relay.open(head());
        let piece = Bytes::from(vec![b'x'; limits::RELAY_AHEAD_BYTES]);
        let mut patience = Duration::from_secs(10);
        let begun = Instant::now();
        relay.push(piece.clone(), &mut patience).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "so much may lie unread");
        for _ in 0..3 {
            relay.push(piece.clone(), &mut patience).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        assert_eq!(patience, Duration::ZERO);
        relay.close(RelayEnd::Whole);
        let (all, end) = rest(&mut reader).await;
        assert_eq!((all.len(), end), (4 * piece.len(), RelayEnd::Whole));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_where_nobody_reads() {
        let relay = Arc::new(Relay::default());
        let reader = relay.reader();
        relay.open(head());
        let piece = Bytes::from(vec![b'x'; 2 * limits::RELAY_AHEAD_BYTES]);
        let mut patience = Duration::from_secs(10);
        let begun = Instant::now();
        tokio::join!(relay.push(piece.clone(), &mut patience), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(reader);
        });
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "he is gone");
        relay.push(piece, &mut patience).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_of_one_attempt_is_not_told_again_by_the_next() {
        let relays = Relays::default();
        let first = relays.to_write(id(1));
        assert!(Arc::ptr_eq(&first, &relays.to_write(id(1))), "nothing told");
        first.open(head());
        first.give_up();
        let second = relays.to_write(id(1));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &relays.to_read(id(1))));
        let (_, end) = rest(&mut first.reader()).await;
        assert!(matches!(end, RelayEnd::Cut(_)));
        second.give_up();
        assert!(!second.is_closed(), "nobody has read of it");
    }

    #[test]
    fn ended_answers_are_kept_as_long_as_there_is_room() {
        let relays = Relays::default();
        for n in 0..3 {
            let relay = relays.to_write(id(n));
            relay.open(head());
            relay.close(RelayEnd::Whole);
            relays.keep(id(n), relay);
            assert!(relays.to_read(id(n)).is_open());
        }
        relays.forget(id(2));
        assert!(!relays.to_read(id(2)).is_open(), "it is forgotten");
        relays.forget_ended(id(1));
        let anew = relays.to_read(id(1));
        assert!(!anew.is_open(), "it is asked anew");
        anew.open(head());
        relays.forget_ended(id(1));
        assert!(relays.to_read(id(1)).is_open(), "and comes already");
        let large = relays.to_write(id(9));
        large.open(head());
        let piece = Bytes::from(vec![b'x'; limits::RELAYS_KEPT_BYTES]);
        large.state.send_modify(|state| {
            state.bytes = piece.len();
            state.pieces.push(piece);
        });
        relays.keep(id(9), large);
        assert!(relays.to_read(id(0)).is_open(), "it fits");
        let one_more = relays.to_write(id(10));
        one_more.state.send_modify(|state| state.bytes = 1);
        relays.keep(id(10), one_more);
        assert!(!relays.to_read(id(9)).is_open(), "the room is used up");
        assert!(!relays.to_read(id(8)).is_open(), "it was never there");
    }
}
