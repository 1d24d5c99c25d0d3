//! Clients that wait for a job on their connection: known again when they come back, and told when they wait in vain.
#![cfg_attr(
    not(feature = "api"),
    allow(
        dead_code,
        reason = "only the API has clients that stream, go and come back"
    )
)]

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{JobId, JobStatus, OnDisconnect, WaitReason, Waiting};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::attend::Attended;
use super::presence::{ANSWERS_WITHIN, Presence};
use super::{Inner, Orchestrator};

/// By what a request is known again: who asks, what for, and every byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Print([u8; 32]);

impl Print {
    /// Of these parts, in this order.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Somebody who waits for the end of a job, or for the pieces of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Whether he wants the answer in pieces.
    pub(crate) streams: bool,
    /// Whether he takes a whole answer before it is on disk.
    pub(crate) early: bool,
    /// By what he is known when he comes back; `None`: by his idempotency key, or not at all.
    pub(crate) print: Option<Print>,
    pub(crate) presence: Arc<Presence>,
    /// How long he waits for the call to begin; `None`: as long as it takes.
    pub(crate) max_wait: Option<Duration>,
    pub(crate) on_disconnect: OnDisconnect,
    /// How long he may stay away before his answer begins.
    pub(crate) reattach: Duration,
    /// How long once it has begun to come in pieces.
    pub(crate) reattach_streaming: Duration,
}

impl Client {
    /// A program that embeds the lane: it waits as long as it takes, and what it drops is given up.
    pub(crate) fn inside() -> Self {
        Self {
            streams: false,
            early: false,
            print: None,
            presence: Arc::default(),
            max_wait: None,
            on_disconnect: OnDisconnect::Abort,
            reattach: Duration::ZERO,
            reattach_streaming: Duration::ZERO,
        }
    }

    /// How long the job is kept for him; `None`: to its end.
    pub(super) fn stays_away(&self, has_begun: bool) -> Option<Duration> {
        let reattach = match has_begun {
            true => self.reattach_streaming,
            false => self.reattach,
        };
        match self.on_disconnect {
            OnDisconnect::Abort => Some(reattach),
            OnDisconnect::Keep => None,
            OnDisconnect::Drain { seconds } => Some(Duration::from_secs(seconds.into())),
        }
    }
}

/// Somebody who came back.
pub(super) struct Return {
    pub(super) client: Client,
    pub(super) waiter: oneshot::Sender<Attended>,
}

/// The place of a client whose job goes on, or whose answer is on its way.
pub(super) struct Seat {
    presence: Mutex<Arc<Presence>>,
    /// It was given its answer: it is gone only if it has not read that.
    is_answered: AtomicBool,
    /// Where whoever comes back is expected, while the client is gone.
    empty: Mutex<Option<oneshot::Sender<Return>>>,
    news: Notify,
}

impl Seat {
    /// The client is gone. Resolves when he comes back.
    pub(super) fn leave(&self) -> oneshot::Receiver<Return> {
        let (back, returned) = oneshot::channel();
        *lock(&self.empty) = Some(back);
        self.news.notify_waiters();
        returned
    }

    /// He is not expected any more.
    pub(super) fn close(&self) {
        lock(&self.empty).take();
    }

    pub(super) fn taken_by(&self, client: &Client) {
        self.is_answered.store(false, Ordering::Release);
        *lock(&self.presence) = Arc::clone(&client.presence);
    }

    /// Whether the client may be gone.
    fn may_be_empty(&self) -> bool {
        let presence = lock(&self.presence);
        match self.is_answered.load(Ordering::Acquire) {
            true => presence.is_broken(),
            false => presence.may_be_leaving(),
        }
    }
}

/// A seat that somebody has. Dropped, it is given back.
pub(super) struct Taken {
    clients: Arc<Clients>,
    print: Print,
    seat: Arc<Seat>,
}

impl Deref for Taken {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut seats = lock(&self.clients.seats);
        if let Some(same) = seats.get_mut(&self.print) {
            same.retain(|other| !Arc::ptr_eq(other, &self.seat));
            if same.is_empty() {
                seats.remove(&self.print);
            }
        }
    }
}

impl Taken {
    /// Gives the client its answer, and finds out whether it leaves without having read it: then waits until it comes
    /// back, as long as it may stay away.
    pub(super) async fn told(
        self,
        client: &Client,
        waiter: oneshot::Sender<Attended>,
        attended: Attended,
    ) -> Option<(Self, Return)> {
        let presence = &client.presence;
        let request = presence.requests();
        let may_be_gone = presence.may_be_gone();
        // One that may be gone already shows it by its connection's end, and whoever asks the same waits for that.
        self.is_answered.store(!may_be_gone, Ordering::Release);
        let is_lost = match waiter.send(attended) {
            Err(_) => true,
            Ok(()) if may_be_gone => presence.lost_it().await,
            // Of others nothing shows.
            Ok(()) if !presence.is_seen() => false,
            Ok(()) => presence.leaves_unread(request, client.reattach).await,
        };
        if !is_lost {
            return None;
        }
        let mut back = self.leave();
        let returned = match tokio::time::timeout(client.reattach, &mut back).await {
            Ok(returned) => returned.ok()?,
            Err(_) => {
                self.close();
                // Somebody may just have come.
                back.try_recv().ok()?
            }
        };
        self.taken_by(&returned.client);
        Some((self, returned))
    }
}

/// A client who waits for his call to begin, no longer than he will.
struct Patient {
    until: Instant,
    /// Told why he waits in vain.
    tell: oneshot::Sender<WaitReason>,
}

/// The clients of a lane.
#[derive(Default)]
pub(super) struct Clients {
    seats: Mutex<HashMap<Print, Vec<Arc<Seat>>>>,
    patient: Mutex<BTreeMap<JobId, Vec<Patient>>>,
    news: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    pub(super) fn seat(self: &Arc<Self>, client: &Client) -> Option<Taken> {
        let print = client.print?;
        let seat = Arc::new(Seat {
            presence: Mutex::new(Arc::clone(&client.presence)),
            is_answered: AtomicBool::new(false),
            empty: Mutex::default(),
            news: Notify::new(),
        });
        let mut seats = lock(&self.seats);
        seats.entry(print).or_default().push(Arc::clone(&seat));
        drop(seats);
        Some(Taken {
            clients: Arc::clone(self),
            print,
            seat,
        })
    }

    /// Hands somebody the seat that he left, if there is one. A client that may be gone is asked first: only one that
    /// is has left his seat, and two that are there and ask the same are two.
    pub(super) async fn come_back(&self, returned: Return) -> Result<(), Return> {
        let Some(print) = returned.client.print else {
            return Err(returned);
        };
        let mut returned = returned;
        let until = Instant::now() + ANSWERS_WITHIN;
        loop {
            let same = lock(&self.seats).get(&print).cloned().unwrap_or_default();
            for seat in &same {
                if let Some(back) = lock(&seat.empty).take() {
                    let presence = Arc::clone(&returned.client.presence);
                    match back.send(returned) {
                        Ok(()) => {
                            seat.is_answered.store(false, Ordering::Release);
                            *lock(&seat.presence) = presence;
                            return Ok(());
                        }
                        Err(not_taken) => returned = not_taken,
                    }
                }
            }
            let closing: Vec<&Arc<Seat>> = same.iter().filter(|seat| seat.may_be_empty()).collect();
            let Some(first) = closing.first() else {
                return Err(returned);
            };
            for seat in &closing {
                lock(&seat.presence).ask();
            }
            let look_again = Instant::now() + Duration::from_millis(10);
            let _ = tokio::time::timeout_at(look_again, first.news.notified()).await;
            if Instant::now() >= until {
                return Err(returned);
            }
        }
    }

    /// Tells when a job's client waits in vain.
    pub(super) fn be_patient(
        &self,
        job_id: JobId,
        max_wait: Option<Duration>,
    ) -> oneshot::Receiver<WaitReason> {
        let (tell, told) = oneshot::channel();
        if let Some(max_wait) = max_wait {
            let until = Instant::now() + max_wait;
            let patient = Patient { until, tell };
            lock(&self.patient).entry(job_id).or_default().push(patient);
            self.news.notify_one();
        }
        told
    }

    /// The jobs of clients that still wait, with the shortest time that one of them will.
    fn waiting(&self) -> BTreeMap<JobId, Instant> {
        let mut patient = lock(&self.patient);
        patient.retain(|_, clients| {
            clients.retain(|client| !client.tell.is_closed());
            !clients.is_empty()
        });
        let soonest = |clients: &[Patient]| clients.iter().map(|client| client.until).min();
        let jobs = patient.iter();
        jobs.filter_map(|(id, clients)| Some((*id, soonest(clients)?)))
            .collect()
    }

    fn tell(&self, job_id: JobId, reason: &WaitReason, is_vain: impl Fn(Instant) -> bool) {
        let mut patient = lock(&self.patient);
        let Some(clients) = patient.get_mut(&job_id) else {
            return;
        };
        for client in clients.extract_if(.., |client| is_vain(client.until)) {
            let _ = client.tell.send(reason.clone());
        }
    }
}

/// How long nothing is looked at after a look: a thousand clients are asked about together.
const REST: Duration = Duration::from_millis(20);
/// What no news tells, time does.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at what keeps clients waiting whenever that may have changed, for as long as the lane is held by somebody.
pub(super) async fn watch(inner: Weak<Inner>) {
    let Some(lane) = inner.upgrade() else { return };
    let (mut state, mut breaker, mut gone) =
        (lane.state.clone(), lane.breaker.clone(), lane.gone.clone());
    let mut settings = lane.settings.subscribe();
    let clients = Arc::clone(&lane.clients);
    drop(lane);
    loop {
        let has_clients = !clients.waiting().is_empty();
        tokio::select! {
            () = clients.news.notified() => {}
            Ok(()) = state.changed(), if has_clients => {}
            Ok(()) = breaker.changed(), if has_clients => {}
            Ok(()) = settings.changed(), if has_clients => {}
            () = tokio::time::sleep(LOOK_EVERY), if has_clients => {}
            _ = gone.wait_for(|gone| *gone) => return,
        }
        let Some(inner) = inner.upgrade() else { return };
        Orchestrator { inner }.look_at_clients().await;
        tokio::time::sleep(REST).await;
    }
}

impl Orchestrator {
    async fn look_at_clients(&self) {
        let waiting = self.inner.clients.waiting();
        let jobs: Vec<Waiting> = waiting
            .keys()
            .map(|id| Waiting::for_its_turn(*id))
            .collect();
        if jobs.is_empty() {
            return;
        }
        let asked = self.ask(|refs, reply| {
            let jobs = jobs.clone();
            refs.queue.cast(QueueMsg::WaitReasons { jobs, reply })
        });
        // A lane that has stopped tells its waiters so.
        let Ok(reasons) = asked.await else { return };
        let now = (Instant::now(), self.inner.ports.clock.now());
        for ((id, soonest), reason) in waiting.into_iter().zip(reasons) {
            let left_ms = |until: Instant| {
                let left = until.saturating_duration_since(now.0);
                u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
            };
            let is_vain = |until: Instant| {
                let left_ms = left_ms(until);
                left_ms == 0 || reason.outlasts(left_ms, now.1)
            };
            // A call that has begun is bounded by its own time.
            if is_vain(soonest) && self.is_pending(id).await {
                self.inner.clients.tell(id, &reason, is_vain);
            }
        }
    }

    async fn is_pending(&self, id: JobId) -> bool {
        let record = self.read(move |store| store.job(id)).await;
        let job = record.ok().flatten().map(|record| record.job);
        job.is_some_and(|job| job.status == JobStatus::Pending)
    }
}
