//! What the lane counts, for metrics systems: names that a recorder keeps. Each lane has a recorder of its own, since two
//! lanes may live in one process; a program that embeds one may bring its own.
//!
//! Whoever counts holds handles, which are atomics. Those of models are found in a map, behind the next call: no lock
//! stands between two calls.

mod models;
pub mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, NoopRecorder, Recorder};
use onelane_core::model::{
    CallOutcome, CallRecord, FailureClass, Hold, HoldScope, Job, JobStatus, PriorityClass,
};

use models::Models;
use table::{Kind, Meter, OTHER, Values};

/// How recorders are told of what counts.
const METADATA: Metadata<'static> = Metadata::new("onelane", Level::INFO, None);

/// Keeps what is counted.
pub type AnyRecorder = Arc<dyn Recorder + Send + Sync>;

/// Handles of one metric, by the values of its one label.
struct Family<H>(Vec<(&'static str, H)>);

impl<H> Family<H> {
    fn of(&self, value: &str) -> Option<&H> {
        let found = self.0.iter().find(|(name, _)| *name == value);
        found.map(|(_, handle)| handle)
    }
}

/// What a lane counts. Clones count the same.
#[derive(Clone)]
pub struct Meters(Arc<Inner>);

struct Inner {
    recorder: AnyRecorder,
    models: Models,
    submitted: Counter,
    ended: Family<Counter>,
    wait: Family<Histogram>,
    attempts: Family<Counter>,
    retries: Family<Counter>,
    call: Family<Histogram>,
    slot_gap: Histogram,
    breaker_openings: Counter,
    commit: Histogram,
    commit_changes: Histogram,
    commit_failures: Counter,
    restarts: Family<Counter>,
    events_missed: Counter,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

/// Counts for nobody.
impl Default for Meters {
    fn default() -> Self {
        Self::new(Arc::new(NoopRecorder))
    }
}

impl Meters {
    /// Counts for this recorder, which is told of every metric first.
    #[must_use]
    pub fn new(recorder: AnyRecorder) -> Self {
        let to = &*recorder;
        for meter in table::ALL {
            describe(to, meter);
            register_fixed(to, meter);
        }
        Self(Arc::new(Inner {
            submitted: counter(to, &table::JOBS_SUBMITTED, &[]),
            ended: family(to, &table::JOBS_ENDED, counter),
            wait: family(to, &table::WAIT, histogram),
            attempts: family(to, &table::ATTEMPTS, counter),
            retries: family(to, &table::RETRIES, counter),
            call: family(to, &table::CALL, histogram),
            slot_gap: histogram(to, &table::SLOT_GAP, &[]),
            breaker_openings: counter(to, &table::BREAKER_OPENINGS, &[]),
            commit: histogram(to, &table::COMMIT, &[]),
            commit_changes: histogram(to, &table::COMMIT_CHANGES, &[]),
            commit_failures: counter(to, &table::COMMIT_FAILURES, &[]),
            restarts: family(to, &table::RESTARTS, counter),
            events_missed: counter(to, &table::EVENTS_MISSED, &[]),
            models: Models::default(),
            recorder,
        }))
    }

    /// Sets a gauge of the table, for whoever reads what it tells.
    pub fn set(&self, meter: &Meter, values: &[&str], to: f64) {
        gauge(&*self.0.recorder, meter, values).set(to);
    }

    /// Brings a counter of the table up to what somebody else counts.
    pub fn reach(&self, meter: &Meter, values: &[&str], to: u64) {
        counter(&*self.0.recorder, meter, values).absolute(to);
    }

    /// Events that a subscriber missed.
    pub fn events_missed(&self, events: u64) {
        self.0.events_missed.increment(events);
    }

    // ---- what the actors count ---------------------------------------------------------------

    pub(crate) fn submitted(&self, jobs: usize) {
        self.0.submitted.increment(jobs as u64);
    }

    /// A job ended so.
    pub(crate) fn ended(&self, status: JobStatus) {
        count(&self.0.ended, status.name());
    }

    /// An attempt ended. `job` as it is then.
    pub(crate) fn settled(&self, call: &CallRecord, job: Option<&Job>) {
        let inner = &*self.0;
        let failure = call.failure.as_ref().map(|failure| failure.class);
        let result = match (call.outcome, failure) {
            (CallOutcome::Failed, Some(class)) => class.name(),
            (CallOutcome::Failed, None) => FailureClass::ServerTransient.name(),
            (outcome, _) => outcome.name(),
        };
        count(&inner.attempts, result);
        let took = seconds(Duration::from_millis(call.response_time_ms));
        if let Some(histogram) = inner.call.of(call.outcome.name()) {
            histogram.record(took);
        }
        if let Some(job) = job.filter(|_| call.attempt.0 == 1) {
            let since = job
                .run_at
                .map_or(job.created_at, |at| at.max(job.created_at));
            let waited = Duration::from_millis(call.started_at.since(since));
            if let Some(histogram) = inner.wait.of(PriorityClass::of(job.priority).name()) {
                histogram.record(seconds(waited));
            }
        }
        let model = inner.models.of(&*inner.recorder, &call.model);
        model.settled(call, took);
    }

    /// Its job goes back in line.
    pub(crate) fn retried(&self, class: FailureClass) {
        count(&self.0.retries, class.name());
    }

    /// A slot was idle for so long although the next job was due.
    pub(crate) fn slot_gap(&self, gap: Duration) {
        self.0.slot_gap.record(seconds(gap));
    }

    /// A hold began, or was renewed.
    pub(crate) fn held(&self, scope: &HoldScope, hold: &Hold) {
        let values = [scope.name(), hold.kind.name()];
        counter(&*self.0.recorder, &table::HOLDS_BEGUN, &values).increment(1);
    }

    pub(crate) fn breaker_opened(&self) {
        self.0.breaker_openings.increment(1);
    }

    /// A transaction with so many changes took so long.
    pub(crate) fn committed(&self, changes: usize, took: Duration, is_stored: bool) {
        let inner = &*self.0;
        if is_stored {
            inner.commit.record(seconds(took));
            // Batches are bounded far below what a float tells apart.
            inner.commit_changes.record(changes as f64);
        } else {
            inner.commit_failures.increment(1);
        }
    }

    pub(crate) fn restarted(&self, actor: &str) {
        count(&self.0.restarts, actor);
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn count(family: &Family<Counter>, value: &str) {
    if let Some(counter) = family.of(value) {
        counter.increment(1);
    }
}

// ---- the recorder ----------------------------------------------------------------------------

fn key(meter: &Meter, values: &[&str]) -> Key {
    let labels = meter.labels.iter().zip(values);
    let labels = labels.map(|(label, value)| metrics::Label::new(label.name, (*value).to_owned()));
    Key::from_parts(meter.name, labels.collect::<Vec<_>>())
}

fn counter(recorder: &dyn Recorder, meter: &Meter, values: &[&str]) -> Counter {
    recorder.register_counter(&key(meter, values), &METADATA)
}

fn gauge(recorder: &dyn Recorder, meter: &Meter, values: &[&str]) -> Gauge {
    recorder.register_gauge(&key(meter, values), &METADATA)
}

fn histogram(recorder: &dyn Recorder, meter: &Meter, values: &[&str]) -> Histogram {
    recorder.register_histogram(&key(meter, values), &METADATA)
}

fn family<H>(
    recorder: &dyn Recorder,
    meter: &Meter,
    handle: fn(&dyn Recorder, &Meter, &[&str]) -> H,
) -> Family<H> {
    let values = match meter.labels.first().map(|label| label.values) {
        Some(Values::Fixed(values)) => values(),
        Some(Values::First { .. }) | None => vec![OTHER],
    };
    let handles = values.into_iter();
    Family(
        handles
            .map(|value| (value, handle(recorder, meter, &[value])))
            .collect(),
    )
}

fn describe(recorder: &dyn Recorder, meter: &Meter) {
    let (name, about) = (meter.name.into(), meter.about().into());
    match meter.kind {
        Kind::Counter => recorder.describe_counter(name, None, about),
        Kind::Gauge => recorder.describe_gauge(name, None, about),
        Kind::Histogram(_) => recorder.describe_histogram(name, None, about),
    }
}

/// What has fixed labels is there from the start: whoever reads it need not wait for the first failure to see that
/// there was none.
fn register_fixed(recorder: &dyn Recorder, meter: &Meter) {
    let mut all: Vec<Vec<&'static str>> = vec![Vec::new()];
    for label in meter.labels {
        let Values::Fixed(values) = label.values else {
            return;
        };
        let longer = |row: Vec<&'static str>| {
            let one_more = move |value| [row.as_slice(), &[value]].concat();
            values().into_iter().map(one_more)
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    for values in all {
        match meter.kind {
            Kind::Counter => drop(counter(recorder, meter, &values)),
            Kind::Gauge => drop(gauge(recorder, meter, &values)),
            Kind::Histogram(_) => drop(histogram(recorder, meter, &values)),
        }
    }
}
