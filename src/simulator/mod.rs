//! A GLM-shaped HTTP server with a script of faults: for `--simulate`, tests, examples and benches. Not
//! a mock inside the code: the whole program runs against it over a socket.
//!
//! It runs on a thread of its own with a runtime of its own, so that it neither disturbs its client's
//! workers nor is disturbed by them, and sees the end of a connection before the next one.
//!
//! * `POST /api/paas/v4/chat/completions` (also `/api/coding/paas/v4/...` and `/v1/...`): answers as GLM does.
//! * `POST /api/anthropic/v1/messages`, `/api/v1/responses`, `/api/paas/v4/embeddings` (also `/v1/...`): GLM's other
//!   faces, whole and in pieces, each with errors of its own form.
//! * `POST /api/paas/v4/async/chat/completions`: makes a task of it. `GET .../async-result/{id}`: `PROCESSING`
//!   for [`SimulatorConfig::task_ms`], then `SUCCESS` with the answer, or `FAIL`. An unfinished task takes a place
//!   of the limit, a look takes none. To another key than the one that made it a task is unknown (1233).
//! * `GET /api/monitor/usage/quota/limit`, `.../model-usage`, `.../credit-usage/usage-detail` and
//!   `/api/paas/v4/balance`: what GLM counts of an account, with [`Planted`] differences. They take no place of the limit.
//! * `GET /__sim/stats?arrivals=N&since=US`: [`Stats`], with the last N [`Arrival`]s and the `peakSince` that
//!   moment ([`Simulator::peak_since`]) when asked.
//! * `POST /__sim/script`: a [`ScriptUpdate`]. `POST /__sim/reset`: starts the statistics anew.
//!
//! Faults of a server, and how to script them:
//!
//! | it | rule or change |
//! |---|---|
//! | throttles everything for two minutes | `Rule::always(Fault::error("1302")).for_ms(120_000)` |
//! | is overloaded for one model, for a while or for n calls | `Rule::for_model("glm-5", Fault::error("1305"))` with `.for_ms(...)` or `.times(n)` |
//! | has no money of this account until the key is another | `Rule::until_key("new.key", Fault::error("1113"))` |
//! | has a quota used up, and says until when | [`ErrorFault::reset_in_ms`], in each [`ResetWording`], in a rule with `.for_ms(...)` |
//! | changes its limit, for all models or for one | [`Simulator::set_limit`] |
//! | lets a task fail | [`Fault::FailTask`] |
//! | refuses looks at tasks | `Rule::for_looks(...)` |
//! | loses the answer to a submission that it took | [`Fault::CutBody`], [`Fault::StallBody`] |
//!
//! And how to prove what the client did:
//!
//! | promise | witness |
//! |---|---|
//! | never more in flight than the limit in force | [`Simulator::now_us`] at each change, [`Simulator::peak_since`] after it |
//! | the next call begins after the end of the one before | [`Arrival::at_us`], [`Arrival::end_us`], [`Arrival::in_flight`] |
//! | an answer was fetched, not bought again | [`Stats::bought`] equals [`Stats::works_bought`] |

mod account;
mod accounts;
mod answer;
mod body;
mod check;
mod config;
mod content;
mod faces;
mod fault;
mod meters;
mod recorder;
mod respond;
mod sample;
mod script;
mod server;
mod shared;
mod stats;
mod stream;
mod tasks;
mod work;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use onelane_actors::ports::Clock;
use tokio_util::sync::CancellationToken;

pub use account::{AccountScript, BalanceScript, Planted, QuotaScript};
pub use check::BadScript;
pub use config::{Lengths, Operation, Rule, ScriptUpdate, SimulatorConfig, Span, Step, Tokens};
pub use fault::{AnswerWith, ErrorFault, Fault, ResetWording, Shape, ToolCall};
pub use stats::{Arrival, Gaps, Stats};

use crate::system::SystemClock;
use script::Script;
use shared::Shared;

/// A running simulator. It stops when it is dropped.
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts on the machine's clock. Needs no runtime. Errors when it can't listen where it should.
    pub fn start(config: SimulatorConfig) -> io::Result<Self> {
        Self::start_at(config, Arc::new(SystemClock))
    }

    /// Starts on another clock: ids, `created` and stated resets follow it. Latencies don't.
    pub fn start_at(config: SimulatorConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let seed = config.seed;
        let shared = Arc::new(Shared::new(Script::new(config), seed, clock));
        let stop = CancellationToken::new();
        let serving = server::serve(listener, Arc::clone(&shared), stop.clone());
        let thread = std::thread::Builder::new()
            .name("glm-simulator".to_owned())
            .spawn(move || runtime.block_on(serving))?;
        Ok(Self {
            addr,
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL to configure in place of GLM's.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/api/paas/v4", self.addr)
    }

    /// The sums over all requests.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let script_left = self.shared.script().steps_left();
        self.shared.recorder.stats(script_left)
    }

    /// All requests that are remembered (the last 200,000), in the order they came.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.recorder.arrivals(usize::MAX)
    }

    /// How many requests had this prompt as their last user message.
    #[must_use]
    pub fn calls_of_prompt(&self, prompt: &str) -> u32 {
        self.shared.recorder.calls_of_prompt(prompt)
    }

    /// How many requests had this `request_id`.
    #[must_use]
    pub fn calls_of_request_id(&self, id: &str) -> u32 {
        self.shared.recorder.calls_of_request_id(id)
    }

    /// How often the work of this prompt was bought: answered, or accepted as a task that does not fail.
    #[must_use]
    pub fn purchases_of_prompt(&self, prompt: &str) -> u32 {
        self.shared.recorder.purchases_of_prompt(prompt)
    }

    /// Now, in microseconds on the clock of [`Arrival::at_us`].
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.recorder.now_us()
    }

    /// The most requests for work that were in flight, of a model or in all, when one arrived at `at_us`
    /// or later. A request that was in flight before counts only with one that arrived beside it: after a
    /// limit is lowered, nothing may arrive above it.
    #[must_use]
    pub fn peak_since(&self, at_us: u64, model: Option<&str>) -> u64 {
        self.shared.recorder.peak_since(at_us, model)
    }

    /// Starts the statistics anew. Requests in flight stay so.
    pub fn reset_stats(&self) {
        self.shared.recorder.reset();
    }

    /// Adds a step to the script, for one request.
    pub fn push_fault(&self, fault: Fault) {
        self.push(fault.into());
    }

    /// Adds a step to the script.
    pub fn push(&self, step: Step) {
        self.update(ScriptUpdate {
            script: vec![step],
            ..ScriptUpdate::default()
        });
    }

    /// Adds a rule.
    pub fn add_rule(&self, rule: Rule) {
        self.update(ScriptUpdate {
            rules: vec![rule],
            ..ScriptUpdate::default()
        });
    }

    /// Drops the rest of the script and all rules: from now on every request gets its answer.
    pub fn clear_script(&self) {
        self.update(ScriptUpdate {
            replace: true,
            ..ScriptUpdate::default()
        });
    }

    /// Accepts these keys only, from now on; none: any.
    pub fn set_keys<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) {
        self.update(ScriptUpdate {
            keys: Some(keys.into_iter().map(Into::into).collect()),
            ..ScriptUpdate::default()
        });
    }

    /// Limits requests in flight, of one model or of each; 0: any number.
    pub fn set_limit(&self, model: Option<&str>, limit: u32) {
        self.shared.script().set_limit(model, limit);
    }

    /// The latency from now on.
    pub fn set_latency(&self, latency_ms: Span) {
        self.update(ScriptUpdate {
            latency_ms: Some(latency_ms),
            ..ScriptUpdate::default()
        });
    }

    /// Any change, as `POST /__sim/script` takes it.
    pub fn update(&self, update: ScriptUpdate) {
        self.shared.script().update(update);
    }

    /// Stops: no connection is left open when it returns.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported on stderr already.
            let _ = thread.join();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}
