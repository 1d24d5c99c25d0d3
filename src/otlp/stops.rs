//! What stopped the lane lately: a job that waited meanwhile tells of it in its span.

use std::collections::VecDeque;

use onelane_core::model::{
    BreakerSnapshot, BreakerState, Event, HoldKind, HoldScope, SchedulerState, Settings, Timestamp,
};

/// Stops that are remembered; of more the latest.
const REMEMBERED_MAX: usize = 256;

/// What stopped calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// A hold, by the code that began it.
    Hold(HoldScope, HoldKind, String),
    /// An operator's pause.
    Paused,
    /// The breaker.
    Breaker,
}

impl Cause {
    /// The name of the reason for which jobs waited, as everywhere else.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Hold(..) => "hold",
            Self::Paused => "paused",
            Self::Breaker => "breaker",
        }
    }

    /// Whether a call to this model is stopped by it.
    fn stops(&self, model: &str, settings: &Settings) -> bool {
        match self {
            Self::Hold(HoldScope::Model(held), ..) => held == model,
            Self::Hold(HoldScope::Lane(held), ..) => held == settings.lane_of(model),
            Self::Hold(HoldScope::Account, ..) | Self::Paused | Self::Breaker => true,
        }
    }

    /// Whether this other one takes its place.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hold(one, ..), Self::Hold(other, ..)) => one == other,
            _ => self == other,
        }
    }
}

/// A stop, and how long it lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) cause: Cause,
    pub(super) from: Timestamp,
    /// `None`: it lasts.
    pub(super) to: Option<Timestamp>,
}

/// The stops that are remembered, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Stops(VecDeque<Stop>);

impl Stops {
    /// Those that are in force.
    pub(super) fn in_force(state: &SchedulerState, breaker: &BreakerSnapshot) -> Self {
        let mut stops = Self::default();
        for (scope, hold) in state.holds() {
            stops.begin(Cause::Hold(scope, hold.kind, hold.code.clone()), hold.since);
        }
        if let Some(pause) = &state.paused {
            stops.begin(Cause::Paused, pause.since);
        }
        if breaker.state == BreakerState::Open {
            stops.begin(Cause::Breaker, breaker.since);
        }
        stops
    }

    /// Takes up what happened to the lane.
    pub(super) fn hear(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::LaneHeld { scope, hold } => {
                self.begin(Cause::Hold(scope.clone(), hold.kind, hold.code.clone()), at);
            }
            Event::LaneReleased { scope, kind } => {
                self.end(&Cause::Hold(scope.clone(), *kind, String::new()), at);
            }
            Event::LanePaused { .. } => self.begin(Cause::Paused, at),
            Event::LaneResumed => self.end(&Cause::Paused, at),
            Event::BreakerChanged { breaker } if breaker.state == BreakerState::Open => {
                self.begin(Cause::Breaker, at);
            }
            Event::BreakerChanged { .. } => self.end(&Cause::Breaker, at),
            _ => {}
        }
    }

    /// Those that kept a call to this model from beginning between these moments.
    pub(super) fn of<'a>(
        &'a self,
        model: &'a str,
        settings: &'a Settings,
        (from, to): (Timestamp, Timestamp),
    ) -> impl Iterator<Item = &'a Stop> {
        self.0.iter().filter(move |stop| {
            let meets = stop.from < to && stop.to.is_none_or(|end| end > from);
            meets && stop.cause.stops(model, settings)
        })
    }

    fn begin(&mut self, cause: Cause, from: Timestamp) {
        // One that is renewed goes on, for its new reason.
        self.end(&cause, from);
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Stop {
            cause,
            from,
            to: None,
        });
    }

    fn end(&mut self, cause: &Cause, at: Timestamp) {
        let open = self.0.iter_mut().filter(|stop| stop.to.is_none());
        for stop in open.filter(|stop| stop.cause.is_same(cause)) {
            stop.to = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{Hold, Pause};

    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn held(scope: HoldScope, since: i64, code: &str) -> Event {
        let hold = Hold {
            kind: HoldKind::Overload,
            code: code.to_owned(),
            message: String::new(),
            since: at(since),
            until: None,
        };
        Event::LaneHeld { scope, hold }
    }

    #[test]
    fn a_job_hears_of_what_stopped_its_own_model_while_it_waited() {
        let settings = Settings::default();
        let mut stops = Stops::default();
        let model = || HoldScope::Model("glm-5".to_owned());
        stops.hear(&held(model(), 10, "1305"), at(10));
        stops.hear(&held(model(), 20, "1312"), at(20));
        let kind = HoldKind::Overload;
        stops.hear(
            &Event::LaneReleased {
                scope: model(),
                kind,
            },
            at(30),
        );
        let pause = Pause {
            since: at(40),
            reason: None,
        };
        stops.hear(&Event::LanePaused { pause }, at(40));
        let told = |model: &str, from, to| -> Vec<(&str, Timestamp, Option<Timestamp>)> {
            let all = stops.of(model, &settings, (at(from), at(to)));
            all.map(|stop| (stop.cause.reason(), stop.from, stop.to))
                .collect()
        };
        assert_eq!(
            told("glm-5", 0, 50),
            [
                ("hold", at(10), Some(at(20))),
                ("hold", at(20), Some(at(30))),
                ("paused", at(40), None),
            ]
        );
        assert_eq!(told("glm-4.7", 0, 35), []);
        assert_eq!(told("glm-4.7", 41, 50), [("paused", at(40), None)]);
        assert_eq!(told("glm-5", 30, 40), []);
    }

    #[test]
    fn so_many_stops_are_remembered_and_no_more() {
        let mut stops = Stops::default();
        for n in 0..1_000 {
            let scope = HoldScope::Model(format!("m{n}"));
            stops.hear(&held(scope, n, "1305"), at(n));
        }
        assert_eq!(stops.0.len(), REMEMBERED_MAX);
    }
}
