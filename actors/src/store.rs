//! The store actor: the only writer. It collects changes while a transaction is under way and puts
//! them on disk in the next one, so that many submitters share one fsync (group commit). A full disk is
//! waited out: what the queue settled is kept in memory until there is room, and nothing else is taken.

mod transaction;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use crate::Ports;
use crate::calls_out::CallsOut;
use crate::ports::{CallFilter, Recovered, Store, StoreError, UsageFilter};
use crate::protocol::{CommitEnd, CommitRequest, QueueMsg, StoreMsg};
use onelane_core::model::{Day, JobId, limits};
use onelane_core::money::budget::Ledger;
use transaction::{announce, came_in, commit, of_the_queue};

/// The right to commit, handed from one store actor to the next: a transaction that an actor left
/// behind when it failed must not slip in after its successor has read the disk for the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch(Arc<Mutex<u64>>);

impl Epoch {
    fn begin(&self) -> u64 {
        let mut epoch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch += 1;
        *epoch
    }

    /// Runs `work` unless a later store actor has begun; holds it off meanwhile.
    fn within<T>(&self, mine: u64, work: impl FnOnce() -> T) -> Option<T> {
        let epoch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (*epoch == mine).then(work)
    }
}

pub(crate) struct StoreArgs {
    pub(crate) ports: Ports,
    pub(crate) epoch: Epoch,
    pub(crate) own_thread: bool,
    pub(crate) calls_out: CallsOut,
}

pub(crate) struct StoreState {
    ports: Ports,
    epoch: Epoch,
    mine: u64,
    /// Whether this thread is the lane's alone, and which calls it serves.
    own_thread: bool,
    calls_out: CallsOut,
    queue: Option<ActorRef<QueueMsg>>,
    /// Messages in order: a recovery must see every commit that was asked before it.
    asked: VecDeque<StoreMsg>,
    under_way: bool,
    full: Option<Full>,
    /// When there was room again at last, and how long the wait before that was.
    had_room: Option<(Instant, u64)>,
}

/// The disk is full.
struct Full {
    error: StoreError,
    /// What the queue asked for, in order: attempts that have ended, above all.
    kept: Vec<CommitRequest>,
    /// Jobs whose submitters were refused, and that may have come in all the same.
    unheard: Vec<JobId>,
    /// Until the next try, in milliseconds.
    wait_ms: u64,
}

/// Between the first two tries to find room, in milliseconds; each later wait is twice as long.
const ROOM_WAIT_MS: u64 = 250;
/// A disk that is full again before this had too little room.
const ROOM_LASTS: Duration = Duration::from_secs(60);
/// The longest wait between two tries.
const ROOM_WAIT_MS_MAX: u64 = 4_000;

pub(crate) struct StoreActor;

impl Actor for StoreActor {
    type Msg = StoreMsg;
    type State = StoreState;
    type Arguments = StoreArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<StoreMsg>,
        args: StoreArgs,
    ) -> Result<StoreState, ActorProcessingErr> {
        let epoch = args.epoch.clone();
        // Waits for a transaction that a failed predecessor left under way, off the async workers.
        let begin = move || epoch.begin();
        let mine = args.ports.fault_points.off_the_workers(begin).await?;
        Ok(StoreState {
            ports: args.ports,
            epoch: args.epoch,
            mine,
            own_thread: args.own_thread,
            calls_out: args.calls_out,
            queue: None,
            asked: VecDeque::new(),
            under_way: false,
            full: None,
            had_room: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<StoreMsg>,
        message: StoreMsg,
        state: &mut StoreState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StoreMsg::Done(end) => {
                state.under_way = false;
                match end {
                    CommitEnd::Stored => state.has_room(),
                    CommitEnd::Full {
                        error,
                        kept,
                        unheard,
                    } => state.wait_for_room(error, kept, unheard, &myself),
                    // The state on disk is unknown: the supervisor starts a store actor that reopens it.
                    CommitEnd::Failed(error) => return Err(error.into()),
                }
            }
            StoreMsg::TryAgain => {
                if let Some(full) = &mut state.full {
                    let kept = std::mem::take(&mut full.kept);
                    let unheard = std::mem::take(&mut full.unheard);
                    let error = full.error.clone();
                    state.try_again(error, kept, unheard, myself.clone());
                }
            }
            asked => {
                if matches!(asked, StoreMsg::Commit(_)) {
                    state.ports.fault_points.point("store");
                }
                state.asked.push_back(asked);
            }
        }
        if !state.under_way {
            state.go_on(myself).await?;
        }
        Ok(())
    }
}

impl StoreState {
    /// The disk is full. Who waits for an answer is refused, whether what was asked is on disk or not; what the
    /// queue asked is kept.
    fn wait_for_room(
        &mut self,
        error: StoreError,
        kept: Vec<CommitRequest>,
        unheard: Vec<JobId>,
        myself: &ActorRef<StoreMsg>,
    ) {
        let wait_ms = match &self.full {
            Some(full) => ROOM_WAIT_MS_MAX.min(full.wait_ms * 2),
            None => {
                tracing::error!(%error, "the disk is full: nothing is sent and nothing taken until there is room");
                self.tell_queue(true);
                // The room was too little: it is looked for less and less often.
                let lately = |at: &(Instant, u64)| at.0.elapsed() < ROOM_LASTS;
                let before = self.had_room.filter(lately);
                before.map_or(ROOM_WAIT_MS, |(_, ms)| ROOM_WAIT_MS_MAX.min(ms * 2))
            }
        };
        self.full = Some(Full {
            error,
            kept,
            unheard,
            wait_ms,
        });
        myself.send_after(Duration::from_millis(wait_ms), || StoreMsg::TryAgain);
    }

    /// What was kept is on disk.
    fn has_room(&mut self) {
        if let Some(full) = self.full.take() {
            self.had_room = Some((Instant::now(), full.wait_ms));
            tracing::warn!("the disk has room again: the lane goes on");
            self.tell_queue(false);
        }
    }

    fn tell_queue(&self, is_full: bool) {
        if let Some(queue) = &self.queue {
            let _ = queue.cast(QueueMsg::Disk { is_full });
        }
    }

    /// While the disk is full the queue's changes are kept in their order, and everybody else's refused. Who wants
    /// to read what is on disk waits for what is kept.
    fn keep_or_refuse(&mut self) {
        let Some(full) = &mut self.full else { return };
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                StoreMsg::Commit(request) => {
                    full.kept.extend(of_the_queue(request, &full.error));
                }
                later => self.asked.push_back(later),
            }
        }
    }

    /// Looks for room, opens the file anew and stores what was kept.
    fn try_again(
        &mut self,
        error: StoreError,
        kept: Vec<CommitRequest>,
        unheard: Vec<JobId>,
        myself: ActorRef<StoreMsg>,
    ) {
        self.under_way = true;
        let store = Arc::clone(&self.ports.store);
        let queue = self.queue.clone();
        let (epoch, mine) = (self.epoch.clone(), self.mine);
        let meters = self.ports.meters.clone();
        drop(self.ports.fault_points.off_the_workers(move || {
            let done = epoch.within(mine, || {
                let full = |error, kept, unheard| CommitEnd::Full {
                    error,
                    kept,
                    unheard,
                };
                if !store.has_room() {
                    return full(error, kept, unheard);
                }
                match store.reopen().and_then(|()| came_in(&*store, &unheard)) {
                    Ok(inserted) => {
                        announce(queue.as_ref(), inserted, Vec::new());
                        commit(store, kept, queue.as_ref(), &meters)
                    }
                    Err(error @ StoreError::Full { .. }) => full(error, kept, unheard),
                    Err(error) => CommitEnd::Failed(error),
                }
            });
            if let Some(done) = done {
                let _ = myself.cast(StoreMsg::Done(done));
            }
        }));
    }

    /// Works off the first messages: recoveries, then one transaction with the commits up to the next.
    async fn go_on(&mut self, myself: ActorRef<StoreMsg>) -> Result<(), ActorProcessingErr> {
        self.keep_or_refuse();
        if self.full.is_some() {
            return Ok(());
        }
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(asked) = self.asked.pop_front() {
            match asked {
                StoreMsg::Recover { queue, reply } if batch.is_empty() => {
                    self.recover(queue, reply).await?;
                }
                StoreMsg::Ledger { month, reply } if batch.is_empty() => {
                    let store = Arc::clone(&self.ports.store);
                    let read = move || ledger(&*store, month);
                    let _ = reply.send(tokio::task::spawn_blocking(read).await?);
                }
                StoreMsg::Ping { reply } if batch.is_empty() => {
                    let _ = reply.send(());
                }
                StoreMsg::Commit(request)
                    if batch.is_empty()
                        || size + request.transitions.len() <= limits::BATCH_TRANSITIONS_MAX =>
                {
                    size += request.transitions.len();
                    batch.push(request);
                }
                later => {
                    self.asked.push_front(later);
                    break;
                }
            }
        }
        if !batch.is_empty() {
            self.commit(batch, myself);
        }
        Ok(())
    }

    async fn recover(
        &mut self,
        queue: ActorRef<QueueMsg>,
        reply: RpcReplyPort<Result<Recovered, StoreError>>,
    ) -> Result<(), ActorProcessingErr> {
        let store = Arc::clone(&self.ports.store);
        let recover = move || store.recover();
        let recovered = self.ports.fault_points.off_the_workers(recover).await?;
        let failed = recovered.as_ref().err().cloned();
        self.queue = Some(queue);
        let _ = reply.send(recovered);
        match failed {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Starts a transaction.
    fn commit(&mut self, batch: Vec<CommitRequest>, myself: ActorRef<StoreMsg>) {
        self.under_way = true;
        let store = Arc::clone(&self.ports.store);
        let queue = self.queue.clone();
        let (epoch, mine) = (self.epoch.clone(), self.mine);
        let meters = self.ports.meters.clone();
        // Whoever waits for one change alone waits for the disk, and two threads that wake each other would come on top of
        // that. Where several are at once the lane goes on meanwhile.
        let here = self.own_thread && batch.len() == 1 && self.calls_out.is_none();
        let work = move || {
            // A batch of an earlier epoch is dropped with its reply ports: its senders ask again.
            let done = epoch.within(mine, || commit(store, batch, queue.as_ref(), &meters));
            if let Some(done) = done {
                let _ = myself.cast(StoreMsg::Done(done));
            }
        };
        match here {
            true => self.ports.fault_points.on_this_thread(work),
            // Not joined: its end comes as a message, so that the mailbox is read meanwhile.
            false => drop(self.ports.fault_points.off_the_workers(work)),
        }
    }
}

/// The sums that budgets start from.
fn ledger(store: &dyn Store, month: Day) -> Result<Ledger, StoreError> {
    let usage = store.usage(&UsageFilter {
        start: month,
        ..UsageFilter::default()
    })?;
    let open = CallFilter {
        billing_open: true,
        ..CallFilter::default()
    };
    let mut doubt = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.calls(&open, cursor, limits::PAGE_ROWS_MAX)?;
        doubt.extend(page.calls);
        match page.cursor {
            Some(_) => cursor = page.cursor,
            None => return Ok(Ledger { usage, doubt }),
        }
    }
}
