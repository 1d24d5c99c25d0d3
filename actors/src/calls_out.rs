//! How many calls are out, handed to a caller and not over, or about to go out. While none is, and the lane has a thread for
//! itself, that thread has nothing better to do than to write to the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The calls that are out. Supervisor, queues and the store actor share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallsOut(Arc<AtomicUsize>);

impl CallsOut {
    /// One more, as long as the answer is kept.
    pub(crate) fn one_more(&self) -> CallOut {
        self.0.fetch_add(1, Ordering::Relaxed);
        CallOut(self.clone())
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A call that is out, or lies ready behind one that is, or jobs that wait for their turn alone.
#[derive(Debug)]
pub(crate) struct CallOut(CallsOut);

impl Drop for CallOut {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_out_until_it_is_over() {
        let calls = CallsOut::default();
        let (one, other) = (calls.one_more(), calls.one_more());
        drop(one);
        assert!(!calls.is_none());
        drop(other);
        assert!(calls.is_none());
    }
}
