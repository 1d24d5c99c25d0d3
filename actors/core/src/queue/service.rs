//! The order in which the due jobs of a lane will go, told without taking any: what
//! [`Queue::pop`] would answer again and again if no job came and none left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{JobEntry, Seq};

use super::affinity::Told;
use super::place::Class;
use super::turns::{Head, Turns};
use super::{Queue, share_of};

/// The due jobs of some models in the order of service. Where lanes that age differently meet, jobs of equal
/// urgency come lane by lane.
#[derive(Debug)]
pub struct ServiceOrder<'q> {
    line: &'q Queue,
    models: BTreeSet<Arc<str>>,
    lane: u32,
    /// The class that is being gone through.
    current: Option<Current>,
    /// The last rank that was gone through, of each way to age.
    done: BTreeMap<u64, i64>,
    /// Which sessions were kept together.
    together: Told,
}

#[derive(Debug)]
struct Current {
    class: Class,
    turns: Turns,
    /// The last job told of each user.
    told: HashMap<u64, Seq>,
}

impl Queue {
    /// The due jobs of these models, in the order in which a lane serves them.
    #[must_use]
    pub fn service_order(&self, lane: &str, models: BTreeSet<Arc<str>>) -> ServiceOrder<'_> {
        let lane = self.rules.number(lane);
        ServiceOrder {
            line: self,
            models,
            lane,
            current: None,
            done: BTreeMap::new(),
            together: Told::new(self.runs.of(lane)),
        }
    }
}

impl ServiceOrder<'_> {
    /// Begins the next class.
    fn next_class(&self) -> Option<Current> {
        let line = self.line;
        let front = line.ready.front_after(&self.models, &self.done, line.now)?;
        let turns = line.turns.get(&(self.lane, front.class));
        Some(Current {
            class: front.class,
            turns: turns.map_or_else(|| Turns::new(line.users.newest()), Clone::clone),
            told: HashMap::new(),
        })
    }
}

impl Current {
    /// The next job of the class.
    fn next(
        &mut self,
        line: &Queue,
        models: &BTreeSet<Arc<str>>,
        together: &mut Told,
    ) -> Option<Seq> {
        let (class, told) = (self.class, &self.told);
        let turn_of = |entry: &JobEntry<&Arc<str>>| {
            let rule = line.ready.rule(entry.model).unwrap_or_default();
            rule.turn_of(entry, line.users.number(entry))
        };
        let quantum = line.ready.quantum_after(models, class, told, together);
        let is_left = |seq: Seq| {
            let entry = line.entries.at(seq);
            let last = entry.and_then(|entry| told.get(&turn_of(&entry)));
            last.is_none_or(|last| *last < seq)
        };
        if let Some(seq) = together.next(&line.ready, models, class, is_left) {
            let entry = line.entries.at(seq)?;
            if let Some(quantum) = quantum {
                let share = share_of(&line.shares, &entry);
                self.turns
                    .charge(quantum, turn_of(&entry), entry.tokens, share);
            }
            together.tell(&entry, true);
            return Some(seq);
        }
        let head = |from| line.ready.head_after(models, class, from, told, together);
        let (user, seq) = match quantum {
            None => head(0)?,
            Some(quantum) => {
                let seq = self.turns.take(quantum, line.users.newest(), |from| {
                    let (user, seq) = head(from)?;
                    let entry = line.entries.at(seq)?;
                    Some(Head {
                        user,
                        seq,
                        tokens: entry.tokens,
                        share: share_of(&line.shares, &entry),
                    })
                })?;
                (turn_of(&line.entries.at(seq)?), seq)
            }
        };
        self.told.insert(user, seq);
        if let Some(entry) = line.entries.at(seq) {
            together.tell(&entry, false);
        }
        Some(seq)
    }
}

impl<'q> Iterator for ServiceOrder<'q> {
    type Item = JobEntry<&'q Arc<str>>;

    fn next(&mut self) -> Option<JobEntry<&'q Arc<str>>> {
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.next_class()?,
            };
            match current.next(self.line, &self.models, &mut self.together) {
                Some(seq) => {
                    self.current = Some(current);
                    return self.line.entries.at(seq);
                }
                None => {
                    let Class { ageing_ms, rank } = current.class;
                    self.done.insert(ageing_ms, rank);
                    self.together.next_class();
                }
            }
        }
    }
}
