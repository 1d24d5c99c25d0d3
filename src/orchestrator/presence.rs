//! Whether a client is there, has left, or has read what it was sent, as far as its connection shows.
#![cfg_attr(
    not(feature = "api"),
    allow(
        dead_code,
        reason = "only the API has clients that stream, go and come back"
    )
)]

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long a client that may be gone is given to show that he is not.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// What a connection shows of its client.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sight {
    /// It has closed its own direction.
    pub(crate) closing: bool,
    /// It does not take what it was sent: it left without having read all of it.
    pub(crate) broken: bool,
}

type Look<T> = Box<dyn Fn() -> T + Send + Sync>;

/// How a connection has ended.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Its last answer was lost, as far as anybody can tell.
    lost: bool,
    broken: bool,
}

/// How far a connection is.
#[derive(Debug, Default)]
struct Course {
    requests: u64,
    end: Option<End>,
}

/// Whether the client at the other end of a connection is there, as far as its connection shows.
#[derive(Default)]
pub(crate) struct Presence {
    /// It has closed its own direction, and may be gone or may only have said all that it wants.
    is_closing: AtomicBool,
    ask: Notify,
    /// Somebody wants to know whether it is still there.
    is_wanted: AtomicBool,
    course: watch::Sender<Course>,
    look: OnceLock<Look<Sight>>,
    /// Whether its connection brings something that is still being heard, and may be that it leaves.
    stirs: OnceLock<Look<bool>>,
    /// Once it leaves, its job is nobody's.
    is_hurried: AtomicBool,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("is_closing", &self.is_closing)
            .finish_non_exhaustive()
    }
}

impl Presence {
    /// Nobody can come back for its job: whether it has left is to be found out at once.
    pub(super) fn hurry(&self) {
        self.is_hurried.store(true, Ordering::Release);
    }

    /// Whether that is to be found out at once.
    pub(crate) fn is_hurried(&self) -> bool {
        self.is_hurried.load(Ordering::Acquire)
    }

    /// It has closed its own direction.
    pub(crate) fn closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// How its connection is looked at. What it has done a moment ago nobody may have heard yet: a client that closes and
    /// asks again at once is faster than the news of it.
    pub(crate) fn look_by(&self, look: impl Fn() -> Sight + Send + Sync + 'static) {
        let _ = self.look.set(Box::new(look));
    }

    /// By what it is known that its connection brings something which may be that it leaves.
    pub(crate) fn stirs_by(&self, stirs: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.stirs.set(Box::new(stirs));
    }

    /// Whether it may be gone, or about to be known as gone.
    pub(super) fn may_be_leaving(&self) -> bool {
        self.may_be_gone() || self.stirs.get().is_some_and(|stirs| stirs())
    }

    /// Whether it may be gone: it will not say so.
    pub(crate) fn may_be_gone(&self) -> bool {
        if !self.is_closing.load(Ordering::Acquire) && self.sight().closing {
            self.closing();
        }
        self.is_closing.load(Ordering::Acquire)
    }

    /// Whether its connection shows anything.
    pub(super) fn is_seen(&self) -> bool {
        self.look.get().is_some()
    }

    fn sight(&self) -> Sight {
        self.look.get().map(|look| look()).unwrap_or_default()
    }

    /// Whether it has left without having read all that it was sent.
    pub(super) fn is_broken(&self) -> bool {
        let end = self.course.borrow().end;
        end.map_or_else(|| self.sight().broken, |end| end.broken)
    }

    /// Has it asked whether it is still there.
    pub(super) fn ask(&self) {
        self.is_wanted.store(true, Ordering::Release);
        self.ask.notify_one();
    }

    /// Whether somebody wanted to know that since it was looked at last.
    pub(crate) fn was_asked(&self) -> bool {
        self.is_wanted.swap(false, Ordering::AcqRel)
    }

    /// A request of it begins: it has read the answers to those before.
    pub(crate) fn begins(&self) {
        self.course.send_modify(|course| course.requests += 1);
    }

    /// Its connection has ended behind an answer, which was lost or, as far as anybody can tell, was not. `broken`: it did
    /// not take all that it was sent. What was said first counts.
    pub(crate) fn ended(&self, lost: bool, broken: bool) {
        let end = End { lost, broken };
        self.course.send_modify(|course| {
            course.end.get_or_insert(end);
        });
    }

    /// Whether the answer that it was just given was lost.
    pub(super) async fn lost_it(&self) -> bool {
        let mut course = self.course.subscribe();
        let ended = course.wait_for(|course| course.end.is_some());
        match tokio::time::timeout(2 * ANSWERS_WITHIN, ended).await {
            Ok(Ok(course)) => course.end.is_some_and(|end| end.lost),
            _ => false,
        }
    }

    /// The request that it is at, by its number.
    pub(super) fn requests(&self) -> u64 {
        self.course.borrow().requests
    }

    /// Whether it leaves within this time without having read the answer to this request of its.
    pub(super) async fn leaves_unread(&self, request: u64, within: Duration) -> bool {
        let mut course = self.course.subscribe();
        let over = course.wait_for(|course| course.requests != request || course.end.is_some());
        match tokio::time::timeout(within, over).await {
            Ok(Ok(course)) => {
                course.requests == request && course.end.is_some_and(|end| end.broken)
            }
            _ => false,
        }
    }

    /// Resolves when somebody wants to know whether it is still there.
    pub(crate) async fn asked(&self) {
        self.ask.notified().await;
    }
}
