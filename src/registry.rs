//! Where what a lane counts is kept: a registry for each lane, never the one of the process, since two lanes may live in
//! it. A program that embeds a lane may keep the counts elsewhere, by a recorder of its own.

mod page;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use onelane_actors::meters::table::{self, Kind};
use onelane_actors::meters::{AnyRecorder, Meters};

/// How often samples are put into their buckets: until then each of them is kept.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The page about metrics in Markdown, `docs/metrics.md`.
#[must_use]
pub fn reference_page() -> String {
    page::page()
}

/// What a lane counts, and where that is kept.
#[derive(Clone)]
pub struct Registry {
    meters: Meters,
    /// `None`: a recorder of the program's own has it.
    own: Option<PrometheusHandle>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("own", &self.own.is_some())
            .finish_non_exhaustive()
    }
}

/// One of its own, which [`Registry::render`] shows.
impl Default for Registry {
    fn default() -> Self {
        let buckets = table::ALL.iter().filter_map(|meter| match meter.kind {
            Kind::Histogram(bounds) => Some((meter.name, bounds)),
            Kind::Counter | Kind::Gauge => None,
        });
        let builder = buckets.fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            let matcher = Matcher::Full(name.to_owned());
            builder
                .set_buckets_for_metric(matcher, bounds)
                // It refuses an empty list, and the table has none.
                .unwrap_or_else(|_| PrometheusBuilder::new())
        });
        let recorder = builder.build_recorder();
        let own = Some(recorder.handle());
        let meters = Meters::new(Arc::new(recorder));
        Self { meters, own }
    }
}

impl Registry {
    /// Counts for a recorder of the program's own. Gauges are set by
    /// [`Orchestrator::sample`](crate::Orchestrator::sample).
    #[must_use]
    pub fn of(recorder: AnyRecorder) -> Self {
        Self {
            meters: Meters::new(recorder),
            own: None,
        }
    }

    /// What counts for it.
    #[must_use]
    pub const fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Everything that was counted so far, in Prometheus' text format; `None`: a recorder of the program's own has it.
    #[must_use]
    pub fn render(&self) -> Option<String> {
        self.own.as_ref().map(PrometheusHandle::render)
    }

    /// Puts samples into their buckets, which otherwise only [`Registry::render`] does.
    pub(crate) fn upkeep(&self) {
        if let Some(own) = &self.own {
            own.run_upkeep();
        }
    }

    pub(crate) const fn is_own(&self) -> bool {
        self.own.is_some()
    }
}
