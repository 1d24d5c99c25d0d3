//! Vocabularies that are in memory only while somebody counts with them: each of GLM's takes 17 MB.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// One of which nobody asked for so long is let go of, after twice as long at the latest. To unpack one again takes a
/// fraction of a second of the processor.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// The thread that let go of one ends so much later: the program's allocator gives memory back a second after it was
/// freed, and then not by itself, but when a thread ends.
const ENDS_AFTER: Duration = Duration::from_secs(2);

/// A vocabulary that is unpacked when it is asked for.
pub(super) struct Vocabulary<T: 'static> {
    unpack: fn() -> T,
    unpacked: Mutex<Option<Arc<Unpacked<T>>>>,
}

/// An unpacked one.
pub(super) struct Unpacked<T> {
    vocabulary: T,
    /// Whether anybody has asked for it since the last look.
    was_asked_for: AtomicBool,
}

impl<T> Unpacked<T> {
    const fn new(vocabulary: T) -> Self {
        Self {
            vocabulary,
            was_asked_for: AtomicBool::new(false),
        }
    }
}

impl<T> Deref for Unpacked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.vocabulary
    }
}

impl<T: Send + Sync> Vocabulary<T> {
    pub(super) const fn new(unpack: fn() -> T) -> Self {
        Self {
            unpack,
            unpacked: Mutex::new(None),
        }
    }

    /// The vocabulary, unpacked now if it is not. Whoever asks for the first time waits for that, and so does everybody
    /// who asks meanwhile.
    pub(super) fn get(&'static self) -> Arc<Unpacked<T>> {
        self.kept_by(thread::sleep)
    }

    fn kept_by(&'static self, rest: impl FnMut(Duration) + Send + 'static) -> Arc<Unpacked<T>> {
        let mut unpacked = self.lock();
        if let Some(kept) = &*unpacked {
            kept.was_asked_for.store(true, Ordering::Relaxed);
            return Arc::clone(kept);
        }
        let (sender, made) = sync_channel(1);
        let keeper = thread::Builder::new().name("vocabulary".to_owned());
        let keeper = keeper.spawn(move || self.keep(&sender, rest));
        let made = keeper.ok().and_then(|_| made.recv().ok());
        // Without a thread nobody lets go of it.
        let made = made.unwrap_or_else(|| Arc::new(Unpacked::new((self.unpack)())));
        *unpacked = Some(Arc::clone(&made));
        made
    }

    /// Unpacks it, and lets go of it when nobody has asked for it during a rest. One thread does both, so that the
    /// memory is its own, and goes back to the system with it.
    fn keep(&self, to: &SyncSender<Arc<Unpacked<T>>>, mut rest: impl FnMut(Duration)) {
        let kept = Arc::new(Unpacked::new((self.unpack)()));
        if to.send(Arc::clone(&kept)).is_err() {
            return;
        }
        loop {
            rest(KEPT_FOR);
            let mut unpacked = self.lock();
            if !kept.was_asked_for.swap(false, Ordering::Relaxed) {
                *unpacked = None;
                break;
            }
        }
        drop(kept);
        rest(ENDS_AFTER);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Unpacked<T>>>> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_vocabulary_is_kept_while_it_is_asked_for_and_let_go_of_when_it_is_not() {
        static UNPACKED: AtomicUsize = AtomicUsize::new(0);
        static VOCABULARY: Vocabulary<usize> =
            Vocabulary::new(|| UNPACKED.fetch_add(1, Ordering::SeqCst));
        let (rested, rests) = channel::<()>();
        let (rest_began, at_rest) = channel();
        let rest = move |time| {
            rest_began.send(time).unwrap();
            // Who sends no more has seen enough of it.
            let _ = rests.recv();
        };
        let first = VOCABULARY.kept_by(rest);
        assert_eq!(**first, 0);
        assert_eq!(at_rest.recv().unwrap(), KEPT_FOR);
        for _ in 0..3 {
            let again = VOCABULARY.kept_by(|_| panic!("it is kept already"));
            assert!(Arc::ptr_eq(&first, &again));
            rested.send(()).unwrap();
            assert_eq!(at_rest.recv().unwrap(), KEPT_FOR);
        }
        assert_eq!(Arc::strong_count(&first), 3, "one is the keeper's");
        rested.send(()).unwrap();
        assert_eq!(at_rest.recv().unwrap(), ENDS_AFTER, "nobody asked");
        assert_eq!(Arc::strong_count(&first), 1, "who has it counts on with it");
        let next = VOCABULARY.kept_by(|_| {});
        assert_eq!(**next, 1);
    }
}
