//! The order in which the due jobs of a lane will go, told without taking any: what
//! [`Queue::pop`] would answer again and again if no job came and none left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{JobEntry, Seq};

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
        ServiceOrder {
            line: self,
            models,
            lane: self.rules.number(lane),
            current: None,
            done: BTreeMap::new(),
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
    fn next(&mut self, line: &Queue, models: &BTreeSet<Arc<str>>) -> Option<Seq> {
        let (class, told) = (self.class, &self.told);
        let head = |from| line.ready.head_after(models, class, from, told);
        let quantum = line.ready.quantum_after(models, class, told);
        let (user, seq) = match quantum {
            None => head(0)?,
            Some(quantum) => {
                let seq = self.turns.take(quantum, line.users.newest(), |from| {
                    let (user, seq) = head(from)?;
                    let entry = line.entries.get(&seq)?;
                    Some(Head {
                        user,
                        seq,
                        tokens: entry.tokens,
                        share: share_of(&line.shares, entry),
                    })
                })?;
                let entry = line.entries.get(&seq)?;
                let rule = line.ready.rule(&entry.model).unwrap_or_default();
                (rule.turn_of(entry, line.users.number(entry)), seq)
            }
        };
        self.told.insert(user, seq);
        Some(seq)
    }
}

impl<'q> Iterator for ServiceOrder<'q> {
    type Item = &'q JobEntry;

    fn next(&mut self) -> Option<&'q JobEntry> {
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.next_class()?,
            };
            match current.next(self.line, &self.models) {
                Some(seq) => {
                    self.current = Some(current);
                    return self.line.entries.get(&seq);
                }
                None => {
                    let Class { ageing_ms, rank } = current.class;
                    self.done.insert(ageing_ms, rank);
                }
            }
        }
    }
}
