//! Which models may go where: a model belongs to a lane; while it is held for overload, its jobs may
//! go to a fallback model, through that model's lane.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{BudgetKey, HoldKind, SchedulerState, Settings, model_name};
use crate::queue::{Place, Queue};

/// The routes in force. Made anew when a hold of a model, the settings or the models in the queue change.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    /// The models in the queue that they were made for; `None`: they must be made anew.
    made_for: Option<u64>,
    /// For each lane the models whose jobs may go there now.
    by_lane: BTreeMap<String, BTreeSet<Arc<str>>>,
}

impl Routes {
    /// Writes where they lead, and whether they still do.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn imprint(&self, line: &Queue, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self { made_for, by_lane } = self;
        let is_current = *made_for == Some(line.models_version());
        write!(to, "{is_current}{by_lane:?}")
    }

    /// They must be made anew.
    pub(super) fn forget(&mut self) {
        self.made_for = None;
    }

    /// Makes them anew if something changed. Tells whether it did.
    pub(super) fn refresh(
        &mut self,
        line: &Queue,
        state: &SchedulerState,
        settings: &Settings,
        is_called: impl Fn(&str) -> bool,
    ) -> bool {
        let version = line.models_version();
        if self.made_for == Some(version) {
            return false;
        }
        self.made_for = Some(version);
        self.by_lane.clear();
        for model in line.models() {
            let Some(target) = target(model, state, settings) else {
                continue;
            };
            // One probe at a time.
            let probing = state
                .models
                .get(&*target)
                .is_some_and(|model| model.probing);
            if probing && is_called(&target) {
                continue;
            }
            let lane = settings.lane_of(&target);
            match self.by_lane.get_mut(lane) {
                Some(models) => {
                    models.insert(Arc::clone(model));
                }
                None => {
                    let models = BTreeSet::from([Arc::clone(model)]);
                    self.by_lane.insert(lane.to_owned(), models);
                }
            }
        }
        true
    }

    /// The models whose jobs may go to this lane now: all but those for whose room in a `shut` account of
    /// everybody's somebody waits who is before the first in line.
    pub(super) fn open_to<'r>(
        &'r self,
        lane: &str,
        line: &Queue,
        shut: &[(BudgetKey, Place)],
        state: &SchedulerState,
        settings: &Settings,
    ) -> Option<Cow<'r, BTreeSet<Arc<str>>>> {
        let models = self.by_lane.get(lane)?;
        if shut.is_empty() {
            return Some(Cow::Borrowed(models));
        }
        let first = line.peek(lane, models)?;
        let shut: Vec<&BudgetKey> = shut
            .iter()
            .filter(|(_, by)| !first.outranks(*by))
            .map(|(account, _)| account)
            .collect();
        let is_open = |own: &&Arc<str>| {
            let target = target(own, state, settings);
            let counts = |account: &BudgetKey| {
                account.model.is_none() || account.model.as_deref() == target.as_deref()
            };
            !shut.iter().any(|account| counts(account))
        };
        Some(Cow::Owned(models.iter().filter(is_open).cloned().collect()))
    }
}

/// Whether a model's jobs may go to this lane now.
pub(super) fn lead(model: &str, lane: &str, state: &SchedulerState, settings: &Settings) -> bool {
    target(model, state, settings).is_some_and(|target| settings.lane_of(&target) == lane)
}

/// The model itself, or, while it is held for overload, the first of its fallbacks that is not held.
pub(super) fn target<'a>(
    model: &'a str,
    state: &SchedulerState,
    settings: &'a Settings,
) -> Option<Cow<'a, str>> {
    let held = |model: &str| state.models.get(model).and_then(|m| m.hold.as_ref());
    match held(model) {
        None => Some(Cow::Borrowed(model)),
        Some(hold) if hold.kind == HoldKind::Overload => {
            let mut chain = settings.glm.fallbacks_of(model).map(model_name::canonical);
            chain.find(|next| held(next).is_none())
        }
        Some(_) => None,
    }
}
