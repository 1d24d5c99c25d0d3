//! The requests of a connection that has several at once, over HTTP/2: each is a task of its own. One whose client does
//! not take its answer is given up alone, and the others of its connection go on.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task_local;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::connections::Bounds;

/// Since when a part of an answer waits for its client to take it; none: the client waits for the next.
#[derive(Debug, Default)]
pub(super) struct Handed(Mutex<Option<Instant>>);

impl Handed {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of the answer is to be taken now, or all that there was of it was taken.
    pub(super) fn hands(&self, something: bool) {
        *self.since() = something.then(Instant::now);
    }

    /// Resolves when a part has not been taken for so long.
    async fn stays_untaken(&self, patience: Duration) {
        loop {
            let until = self.since().map(|since| since + patience);
            match until {
                Some(until) if until <= Instant::now() => return,
                Some(until) => tokio::time::sleep_until(until).await,
                None => tokio::time::sleep(patience).await,
            }
        }
    }

    /// That of the request whose task this is.
    pub(super) fn of_this_task() -> Arc<Self> {
        OF_THIS_TASK.try_with(Arc::clone).unwrap_or_default()
    }
}

task_local! {
    static OF_THIS_TASK: Arc<Handed>;
}

/// Runs such requests.
#[derive(Clone)]
pub(super) struct Streams {
    tasks: TaskTracker,
    bounds: Arc<Bounds>,
    /// How long a client may take for the next part of its answer.
    patience: Duration,
}

impl Streams {
    pub(super) fn new(bounds: Arc<Bounds>, patience: Duration) -> Self {
        Self {
            tasks: TaskTracker::new(),
            bounds,
            patience,
        }
    }

    /// Waits until nothing of a request is left, once every connection has ended.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, request: F) {
        let (bounds, patience) = (Arc::clone(&self.bounds), self.patience);
        let handed = Arc::new(Handed::default());
        let request = OF_THIS_TASK.scope(Arc::clone(&handed), request);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                _ = request => {}
                // What is dropped before its end resets its stream, and nothing else of the connection.
                () = handed.stays_untaken(patience) => bounds.count_untaken(),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_not_taken_in_time_is_noticed_and_a_slow_answer_is_not() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let handed = Handed::default();
        let began = Instant::now();
        let untaken = async {
            handed.stays_untaken(PATIENCE).await;
            began.elapsed()
        };
        let answer = async {
            for _ in 0..5 {
                // Each part is taken within the time, and the next takes us long.
                handed.hands(true);
                tokio::time::sleep(PATIENCE / 2).await;
                handed.hands(false);
                tokio::time::sleep(3 * PATIENCE).await;
            }
            let handed_at = began.elapsed();
            handed.hands(true);
            handed_at
        };
        let (untaken, handed_at) = tokio::join!(untaken, answer);
        assert_eq!(untaken, handed_at + PATIENCE);
    }
}
