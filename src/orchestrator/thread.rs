//! A thread that a lane has for itself.
//!
//! Between two calls a lane is a chain of short steps, each waking the next one. On a runtime of several threads each step may wake
//! another thread, which takes it over with cold caches: that costs more than the steps. And whatever else the program
//! does on its runtime, a lane with a thread of its own goes on. It may also wait for the disk itself while no call is open,
//! where it would otherwise wake another thread to do so and be woken by that.

use std::cell::Cell;
use std::future::{Future, pending};
use std::io;
use std::panic::resume_unwind;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static IS_A_LANES: Cell<bool> = const { Cell::new(false) };
}

/// A runtime with one thread. Dropped, it ends at once whatever is left on it, without waiting: shut the lane down first.
///
/// ```no_run
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use onelane::config::Config;
/// use onelane::orchestrator::{LaneThread, Orchestrator};
///
/// let thread = LaneThread::new()?;
/// let config = Config::default();
/// let lane = thread.run(async move { Orchestrator::start(&config).await }).await?;
/// # lane.shutdown(std::time::Duration::ZERO).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LaneThread(Option<Runtime>);

impl LaneThread {
    /// Starts the thread. Fails where the system has no more threads or files.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("onelane lane")
            .on_thread_start(|| IS_A_LANES.set(true))
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Whether this is the thread of a lane.
    pub(super) fn is_this() -> bool {
        IS_A_LANES.get()
    }

    /// Runs this on the thread, whoever waits for it: what is started there stays there.
    pub fn run<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = self.0.as_ref().map(|runtime| runtime.spawn(work));
        async move {
            let ended = match running {
                Some(running) => running.await,
                None => pending().await,
            };
            match ended {
                Ok(output) => output,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The thread is gone, and whoever waits with it.
                Err(_) => pending().await,
            }
        }
    }
}

impl Drop for LaneThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
