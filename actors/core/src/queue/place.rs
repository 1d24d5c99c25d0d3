//! Where a waiting job stands in the order of dispatch, and the rules that say so.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::model::{JobEntry, NamedLane, OrderSettings, Seq, Settings, Timestamp, lane_for};

/// A place in the order of dispatch: smaller is earlier. First by class, then, where nobody takes
/// turns, by sequence. Where turns are taken, or sessions kept together, the places of one class are equal: jobs
/// keep the order in which they were taken.
///
/// Without ageing a job's class is its priority. With an ageing interval `I` its effective priority
/// at a moment `t` is `priority + floor(t / I) - floor(since / I)`: it rises by one an interval. As
/// `floor(t / I)` is the same for all jobs, their order never changes while they wait; the class is
/// what remains without it, `priority - floor(since / I)`. So classes compare only among jobs that
/// age alike, which jobs of one lane do. Jobs of lanes that age differently meet where one lane
/// serves for another: there [`Queue`](super::Queue) compares effective priorities, and a place
/// outranks none of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    class: Reverse<i64>,
    /// `None`: whose turn it is, or which session ran last, decides within the class, and all its places are equal.
    seq: Option<Seq>,
    ageing_ms: u64,
    /// The lane whose turns it counts.
    turns: Option<u32>,
}

/// What decides within a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// The sequence alone.
    Sequence(Seq),
    /// Also, which session ran last.
    Sessions,
    /// Also, whose turn it is in this lane.
    Turns(u32),
}

impl Place {
    /// The place of a job that waits in a class, or was taken from it.
    pub(super) const fn new(class: Class, within: Within) -> Self {
        let (seq, turns) = match within {
            Within::Sequence(seq) => (Some(seq), None),
            Within::Sessions => (None, None),
            Within::Turns(lane) => (None, Some(lane)),
        };
        Self {
            class: Reverse(class.rank),
            seq,
            ageing_ms: class.ageing_ms,
            turns,
        }
    }

    /// Whether a waiting job at this place is more urgent than one that was taken at `other`, so that
    /// it displaces it. Within a class that takes turns, or keeps sessions together, nobody does.
    #[must_use]
    pub fn outranks(self, other: Self) -> bool {
        self.ageing_ms == other.ageing_ms
            && match self.class.cmp(&other.class) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => self
                    .seq
                    .zip(other.seq)
                    .is_some_and(|(own, other)| own < other),
                std::cmp::Ordering::Greater => false,
            }
    }

    /// The priority that its job has risen to at this moment.
    #[must_use]
    pub const fn urgency(self, now: Timestamp) -> i64 {
        let class = Class {
            ageing_ms: self.ageing_ms,
            rank: self.class.0,
        };
        class.effective(now)
    }

    /// How often its job rises by one, in milliseconds; 0: never.
    #[must_use]
    pub const fn ageing_ms(self) -> u64 {
        self.ageing_ms
    }

    /// The lane and the class whose turns it counts; `None`: nobody takes turns there.
    pub(super) fn turns(self) -> Option<(u32, Class)> {
        let class = Class {
            ageing_ms: self.ageing_ms,
            rank: self.class.0,
        };
        Some((self.turns?, class))
    }
}

/// Jobs between which only sequence or turns decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// How they age; ranks of other ageing say nothing beside these.
    pub(super) ageing_ms: u64,
    /// Higher is more urgent.
    pub(super) rank: i64,
}

impl Class {
    /// The priority that its jobs have risen to at this moment.
    pub(super) const fn effective(self, now: Timestamp) -> i64 {
        self.rank.saturating_add(intervals(now, self.ageing_ms))
    }
}

/// Whole ageing intervals from the epoch to this moment; 0 without ageing.
const fn intervals(at: Timestamp, ageing_ms: u64) -> i64 {
    // No interval is that long: the settings are checked.
    let ms = if ageing_ms > i64::MAX as u64 {
        i64::MAX
    } else {
        ageing_ms as i64
    };
    if ms == 0 {
        0
    } else {
        at.as_millis().div_euclid(ms)
    }
}

/// The end of the ageing interval of this moment; `None`: without ageing there is none.
pub(super) fn next_interval(now: Timestamp, ageing_ms: u64) -> Option<Timestamp> {
    if ageing_ms == 0 || ageing_ms > i64::MAX as u64 {
        return None;
    }
    let left = ageing_ms as i64 - now.as_millis().rem_euclid(ageing_ms as i64);
    Some(now.plus_ms(left.unsigned_abs()))
}

/// What decides about the jobs of one model: the lane it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rule {
    /// The number of the lane.
    pub(super) lane: u32,
    /// How its jobs are ordered.
    pub(super) order: OrderSettings,
    /// There are client keys, which take turns in every lane.
    pub(super) has_keys: bool,
}

impl Rule {
    /// The rank of a job among those that age alike.
    pub(super) fn rank<N>(self, entry: &JobEntry<N>) -> i64 {
        i64::from(entry.priority).saturating_sub(intervals(entry.since, self.order.ageing_ms))
    }

    /// The place of a job that is served in the model's own lane.
    pub(super) fn place<N>(self, entry: &JobEntry<N>) -> Place {
        let class = Class {
            ageing_ms: self.order.ageing_ms,
            rank: self.rank(entry),
        };
        let within = match self {
            _ if self.takes_turns() => Within::Turns(self.lane),
            _ if self.keeps_together() => Within::Sessions,
            _ => Within::Sequence(entry.seq),
        };
        Place::new(class, within)
    }

    /// Whose turn a job of a user, or of a client key, uses up. All who take none are as one, 0: their jobs are in the
    /// order of their sequence.
    pub(super) const fn turn_of<N>(self, entry: &JobEntry<N>, user: u64) -> u64 {
        let takes_turns = match entry.key {
            Some(_) => self.takes_turns(),
            None => self.order.fair_quantum_tokens > 0,
        };
        if takes_turns { user } else { 0 }
    }

    /// Whether anybody takes turns within a class.
    pub(super) const fn takes_turns(self) -> bool {
        self.has_keys || self.order.fair_quantum_tokens > 0
    }

    /// Whether a job uses up the same turn as by another rule.
    pub(super) const fn turns_as(self, other: Self) -> bool {
        self.takes_turns() == other.takes_turns()
            && (self.order.fair_quantum_tokens > 0) == (other.order.fair_quantum_tokens > 0)
    }

    /// Whether the calls of a session are kept together within a class.
    pub(super) const fn keeps_together(self) -> bool {
        self.order.affinity > 0
    }
}

/// The rules of all lanes.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    default: OrderSettings,
    has_keys: bool,
    lanes: BTreeMap<String, NamedLane>,
    /// Every lane that ever was, except the default one, which is 0. A lane keeps its number, so that a
    /// [`Place`] outlives a change of the settings.
    numbers: BTreeMap<String, u32>,
}

impl Rules {
    /// Takes over the rules of the settings.
    pub(super) fn configure(&mut self, settings: &Settings) {
        self.default = settings.lane.rules.order;
        self.has_keys = !settings.keys.is_empty();
        self.lanes.clone_from(&settings.lanes);
        let mut number = self.numbers.values().max().copied().unwrap_or_default();
        for name in settings.lanes.keys() {
            if !self.numbers.contains_key(name) {
                number += 1;
                self.numbers.insert(name.clone(), number);
            }
        }
    }

    /// Whether any lane keeps the calls of a session together.
    pub(super) fn keep_together(&self) -> bool {
        let lanes = self.lanes.values().map(|lane| lane.rules.order.affinity);
        self.default.affinity > 0 || lanes.into_iter().any(|affinity| affinity > 0)
    }

    /// The number of a lane; that of the default lane for a name that was never heard.
    pub(super) fn number(&self, lane: &str) -> u32 {
        self.numbers.get(lane).copied().unwrap_or_default()
    }

    /// The rule for the jobs of a model.
    pub(super) fn of(&self, model: &str) -> Rule {
        let lane = lane_for(&self.lanes, model);
        let named = lane.and_then(|name| Some((name, self.lanes.get(name)?)));
        let (lane, order) = named.map_or((0, self.default), |(name, lane)| {
            (self.number(name), lane.rules.order)
        });
        Rule {
            lane,
            order,
            has_keys: self.has_keys,
        }
    }
}
