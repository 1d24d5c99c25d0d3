//! What the lane tells of itself: its state, its counts, its call log, its sums.

#[cfg(feature = "api")]
use std::collections::BTreeSet;

use onelane_actors::ports::{CallFilter, CallPage, StatusCounts, StoreLines, UsageFilter};
use onelane_actors::protocol::QueueMsg;
use onelane_actors::relay::SoFar;
use onelane_core::model::{
    CallOutcome, CallRecord, Cost, Currency, FailureClass, Findings, JobId, Nanos, StoreFigures,
    Timestamp, UsageRow, limits,
};
#[cfg(feature = "api")]
use onelane_core::model::{Day, model_name};
use onelane_core::scheduler::SchedulerSnapshot;

use super::{Metrics, Orchestrator};
use crate::error::Error;
use crate::export::{Export, Part};
use crate::statistics::{self, Statistics, StatisticsError, StatisticsQuery};

/// The calls that error rate and response time are told of.
const RECENT_CALLS: usize = 100;
/// Attempts in doubt that the metrics count.
const MAYBE_BILLED_MAX: usize = limits::PAGE_ROWS_MAX;

impl Orchestrator {
    /// A page of the call log, newest first.
    pub async fn calls(
        &self,
        filter: CallFilter,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<CallPage, Error> {
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        self.read(move |store| store.calls(&filter, cursor, limit))
            .await
    }

    /// The models that GLM serves this account with, as far as calls tell: those that were asked for and answered since
    /// that day, and those that were named as who answered in the latest calls. By their canonical names.
    #[cfg(feature = "api")]
    pub(crate) async fn answering_models(&self, since: Day) -> Result<BTreeSet<String>, Error> {
        self.read(move |store| {
            let mut models = BTreeSet::new();
            let filter = UsageFilter {
                start: since,
                ..UsageFilter::default()
            };
            statistics::each_day(store, &filter, |row| {
                if row.successes > 0 && !models.contains(&row.key.model) {
                    models.insert(row.key.model.clone());
                }
            })?;
            let latest = store.calls(&CallFilter::default(), None, limits::PAGE_ROWS_MAX)?;
            let named = latest
                .calls
                .iter()
                .filter_map(|call| call.answered_by.as_deref());
            let named = named.map(|name| model_name::canonical(name).into_owned());
            models.extend(named.filter(|name| name.chars().count() <= limits::MODEL_CHARS_MAX));
            Ok(models)
        })
        .await
    }

    /// The calls that ended at this moment or later, newest first, `limit` at most.
    pub async fn calls_since(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<CallRecord>, Error> {
        self.read(move |store| store.calls_since(since, limit))
            .await
    }

    /// What has come of a job's streamed answer, while it comes; `None`: it does not, or is not streamed.
    #[must_use]
    pub fn so_far(&self, id: JobId) -> Option<SoFar> {
        self.inner.ports.relays.so_far(id)
    }

    /// Jobs by status.
    pub async fn queue_status(&self) -> Result<StatusCounts, Error> {
        self.read(|store| store.counts()).await
    }

    /// How large the store is and how old, and what retention would remove now; `None`: it can't tell. Reads every
    /// page.
    pub async fn store_figures(&self) -> Result<Option<StoreFigures>, Error> {
        let retention = self.settings().retention;
        let now = self.inner.ports.clock.now();
        self.read(move |store| store.figures(&retention, now)).await
    }

    /// Whether the store's tables agree, with `most` findings at most; `None`: it has nothing to check. Reads every
    /// row.
    pub async fn check_store(&self, most: usize) -> Result<Option<Findings>, Error> {
        self.read(move |store| store.check(most)).await
    }

    /// All that the store holds at this moment, as lines that are read by [`Orchestrator::store_part`]; `None`: it can't be
    /// told so.
    pub async fn store_lines(&self) -> Result<Option<StoreLines>, Error> {
        self.read(|store| store.lines()).await
    }

    /// The next part of a store's lines, with the lines to ask for the one after it; `None` after the last.
    pub async fn store_part(
        &self,
        mut lines: StoreLines,
    ) -> Result<Option<(Vec<u8>, StoreLines)>, Error> {
        self.read(move |_| Ok(lines.next().transpose()?.map(|part| (part, lines))))
            .await
    }

    /// Usage rows (day x model x user), ordered by day, model, user.
    pub async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>, Error> {
        self.read(move |store| store.usage(&filter)).await
    }

    /// Usage summed up by day or month, model, user and client key, as asked. It costs what the usage rows of that
    /// time cost, however long the call log is. By session it is summed from the call log, and costs what that does; more
    /// rows than an answer has room for are `Invalid`.
    pub async fn statistics(&self, query: StatisticsQuery) -> Result<Statistics, Error> {
        let summed = self.read(move |store| match statistics::of_store(store, query) {
            Err(StatisticsError::Store(error)) => Err(error),
            summed => Ok(summed),
        });
        summed.await?.map_err(|error| Error::Invalid {
            field: "groupBy".to_owned(),
            problem: error.to_string(),
        })
    }

    /// The next part of an export, with the export to ask for the one after it; `None` after the last.
    pub async fn export_part(&self, mut export: Export) -> Result<Option<(Part, Export)>, Error> {
        self.read(move |store| Ok(export.next(store)?.map(|part| (part, export))))
            .await
    }

    /// The lane at this moment: what stops it, lane by lane and model by model, and what waits.
    pub async fn lane(&self) -> Result<SchedulerSnapshot, Error> {
        let mut lane = self
            .ask(|refs, reply| refs.queue.cast(QueueMsg::Snapshot { reply }))
            .await?;
        // The lanes hear of its turns; its counts are its own.
        lane.breaker = self.breaker();
        if lane.drained {
            let counts = self.queue_status().await?;
            lane.drained = counts.pending + counts.processing == 0;
        }
        Ok(lane)
    }

    /// Figures of the lane.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let lane = self.lane().await?;
        let (jobs, recent, in_doubt, deliveries) = self
            .read(|store| {
                let recent = store.calls(&CallFilter::default(), None, RECENT_CALLS)?;
                let open = CallFilter {
                    billing_open: true,
                    ..CallFilter::default()
                };
                let in_doubt = store.calls(&open, None, MAYBE_BILLED_MAX)?;
                let deliveries = store.delivery_counts()?;
                let in_doubt = in_doubt.calls.len();
                Ok((store.counts()?, recent.calls, in_doubt, deliveries))
            })
            .await?;
        let answered: Vec<u64> = recent
            .iter()
            .filter(|call| call.outcome == CallOutcome::Completed)
            .map(|call| call.response_time_ms)
            .collect();
        let share = |part: f64, whole: usize| {
            if whole == 0 { 0.0 } else { part / whole as f64 }
        };
        // What a caller gave up or a crash cut off says nothing of GLM.
        let failed = recent
            .iter()
            .filter(|call| call.outcome == CallOutcome::Failed)
            .count();
        let since_start = self.inner.totals.borrow().clone();
        Ok(Metrics {
            lane,
            jobs,
            error_rate: share(failed as f64, recent.len()),
            average_response_time_ms: share(answered.iter().sum::<u64>() as f64, answered.len()),
            throttles: recent.iter().filter(|call| is_throttle(call)).count() as u64,
            maybe_billed: in_doubt as u64,
            recent_calls: recent,
            deliveries,
            clock_in_doubt: self.inner.trust.is_doubted(),
            since_start,
        })
    }

    /// Attempts that may have been billed, where nobody has found out yet; counted up to 1000.
    pub async fn maybe_billed_count(&self) -> Result<u64, Error> {
        let open = CallFilter {
            billing_open: true,
            ..CallFilter::default()
        };
        let found = self.calls(open, None, MAYBE_BILLED_MAX).await?;
        Ok(found.calls.len() as u64)
    }

    /// Costs since the start of this process, by currency; told also after the lane has stopped. A
    /// hint: the truth is in `usage`.
    #[must_use]
    pub fn spent(&self) -> Vec<Cost> {
        let totals = self.inner.totals.borrow();
        let cost = |(currency, nanos): (&Currency, &Nanos)| Cost {
            nanos: *nanos,
            currency: *currency,
        };
        totals.cost.iter().map(cost).collect()
    }

    /// Calls since the start of this process whose cost is not known, and not in [`Orchestrator::spent`].
    #[must_use]
    pub fn unpriced_calls(&self) -> u64 {
        self.inner.totals.borrow().unpriced_calls
    }
}

fn is_throttle(call: &CallRecord) -> bool {
    let failure = call.failure.as_ref();
    failure.is_some_and(|failure| failure.class == FailureClass::Throttle)
}
