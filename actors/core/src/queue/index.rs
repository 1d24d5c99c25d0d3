//! The jobs that are due, in order, a set for each model: to leave a model out, because it is held,
//! costs nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{JobEntry, Seq, Timestamp};

use super::affinity::{Together, Told};
use super::place::{Class, Place, Rule, Rules, Within};
use super::ready::{Key, Ready, Word};

/// Models that are remembered although nothing of theirs waits, at least.
const IDLE_MODELS_KEPT: usize = 64;

impl Key {
    /// The key of a job.
    pub(super) fn of<N>(rule: Rule, entry: &JobEntry<N>, user: u64) -> Self {
        Self {
            rank: Reverse(rule.rank(entry)),
            user: rule.turn_of(entry, user),
            seq: entry.seq,
        }
    }
}

/// One model and its due jobs.
#[derive(Debug, Clone)]
struct Model {
    rule: Rule,
    /// Jobs in line, due or not.
    jobs: usize,
    ready: Ready,
    /// The same by session, where the calls of one are kept together.
    together: BTreeSet<Together>,
}

/// The due jobs by model.
#[derive(Debug, Clone)]
pub(super) struct Index {
    models: BTreeMap<Arc<str>, Model>,
    version: u64,
    sweep_at: usize,
}

/// The most urgent job among some models, as far as class and sequence tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Front {
    /// Its class.
    pub(super) class: Class,
    /// The first by sequence; where turns are taken it only shows that there is one.
    pub(super) seq: Seq,
    /// Tokens a turn, 0 where turns count jobs; `None`: nobody takes turns.
    pub(super) quantum: Option<u32>,
    /// Whether sessions are kept together.
    pub(super) keeps_together: bool,
}

impl Front {
    /// Its place in a lane.
    pub(super) const fn place(self, lane: u32) -> Place {
        let within = match self.quantum {
            Some(_) => Within::Turns(lane),
            None if self.keeps_together => Within::Sessions,
            None => Within::Sequence(self.seq),
        };
        Place::new(self.class, within)
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            models: BTreeMap::new(),
            version: 0,
            sweep_at: IDLE_MODELS_KEPT,
        }
    }
}

impl Index {
    /// Writes who is ready; not how often the models changed.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn imprint(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self {
            models,
            version: _,
            sweep_at,
        } = self;
        write!(to, "{models:?}{sweep_at}")
    }

    /// So many jobs of this model come in line: `name` becomes the one string of the model. Answers what
    /// decides about the jobs.
    pub(super) fn enter(&mut self, name: &mut Arc<str>, jobs: usize, rules: &Rules) -> Rule {
        if let Some((known, _)) = self.models.get_key_value(name) {
            *name = Arc::clone(known);
        } else {
            self.sweep();
            self.version += 1;
        }
        let model = self
            .models
            .entry(Arc::clone(name))
            .or_insert_with_key(|name| Model {
                rule: rules.of(name),
                jobs: 0,
                ready: Ready::default(),
                together: BTreeSet::new(),
            });
        model.jobs += jobs;
        model.rule
    }

    /// A job left the line.
    pub(super) fn leave(&mut self, entry: &JobEntry, user: u64) {
        if let Some(model) = self.models.get_mut(&entry.model) {
            model.jobs = model.jobs.saturating_sub(1);
            model.ready.remove(Key::of(model.rule, entry, user));
            if let Some(together) = Together::of(model.rule, entry) {
                model.together.remove(&together);
            }
        }
    }

    /// A job in line is due.
    pub(super) fn add<N: AsRef<str>>(&mut self, entry: &JobEntry<N>, user: u64) {
        if let Some(model) = self.models.get_mut(entry.model.as_ref()) {
            model.ready.insert(Key::of(model.rule, entry, user));
            model.together.extend(Together::of(model.rule, entry));
        }
    }

    /// Jobs of a model that are in line are due, all that there are: built whole.
    pub(super) fn fill(&mut self, model: &str, words: Vec<(Word, u64)>, together: Vec<Together>) {
        if let Some(model) = self.models.get_mut(model) {
            model.ready = words.into_iter().collect();
            model.together = together.into_iter().collect();
        }
    }

    /// The rules changed. Answers whether that changed any model's; the jobs of such a model take new
    /// places where they have to, by what `job` tells of them.
    pub(super) fn configure<'a>(
        &mut self,
        rules: &Rules,
        job: impl Fn(Seq) -> Option<(JobEntry<&'a Arc<str>>, u64)>,
    ) -> bool {
        let mut changed = false;
        for (name, model) in &mut self.models {
            let old = std::mem::replace(&mut model.rule, rules.of(name));
            let new = model.rule;
            changed |= old != new;
            if old.order.ageing_ms != new.order.ageing_ms
                || !old.turns_as(new)
                || old.keeps_together() != new.keeps_together()
            {
                let ready = std::mem::take(&mut model.ready);
                let jobs = || ready.iter().filter_map(|key| job(key.seq));
                model.together = jobs()
                    .filter_map(|(entry, _)| Together::of(new, &entry))
                    .collect();
                model.ready = jobs()
                    .map(|(entry, user)| Key::of(new, &entry, user))
                    .collect();
            }
        }
        changed
    }

    /// Forgets models of which nothing waits, when there are many.
    fn sweep(&mut self) {
        if self.models.len() >= self.sweep_at {
            self.models.retain(|_, model| model.jobs > 0);
            self.sweep_at = (self.models.len() * 2).max(IDLE_MODELS_KEPT);
        }
    }

    /// What decides about the jobs of a model, if any are or were in line.
    pub(super) fn rule(&self, model: &str) -> Option<Rule> {
        Some(self.models.get(model)?.rule)
    }

    /// The models.
    pub(super) fn models(&self) -> impl Iterator<Item = &Arc<str>> {
        self.models.keys()
    }

    /// Rises when a model comes to them.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// How many jobs are due.
    pub(super) fn len(&self) -> usize {
        self.models.values().map(|model| model.ready.len()).sum()
    }

    /// Whether any due job, of whatever model, is of this class.
    pub(super) fn has(&self, class: Class) -> bool {
        self.models
            .values()
            .any(|model| first_from(model, class, 0).is_some())
    }

    /// The most urgent of the due jobs of some models.
    pub(super) fn front(&self, models: &BTreeSet<Arc<str>>, now: Timestamp) -> Option<Front> {
        self.front_after(models, &BTreeMap::new(), now)
    }

    /// The same of those behind the ranks in `done`, which are by how jobs age.
    pub(super) fn front_after(
        &self,
        models: &BTreeSet<Arc<str>>,
        done: &BTreeMap<u64, i64>,
        now: Timestamp,
    ) -> Option<Front> {
        let firsts = self.among(models).filter_map(|model| {
            let first = match done.get(&model.rule.order.ageing_ms) {
                None => model.ready.first()?,
                Some(rank) => {
                    let behind = Key {
                        rank: Reverse(rank.checked_sub(1)?),
                        user: 0,
                        seq: Seq(0),
                    };
                    model.ready.first_from(behind)?
                }
            };
            let class = Class {
                ageing_ms: model.rule.order.ageing_ms,
                rank: first.rank.0,
            };
            Some((class, first.seq))
        });
        let (class, seq) =
            firsts.min_by_key(|(class, seq)| (Reverse(class.effective(now)), *seq))?;
        // Where jobs with and without turns meet, the latter take theirs as one user.
        let quantum = self
            .among(models)
            .filter(|model| model.rule.takes_turns() && first_from(model, class, 0).is_some())
            .map(|model| model.rule.order.fair_quantum_tokens)
            .max();
        let keeps_together = self
            .among(models)
            .any(|model| model.rule.keeps_together() && first_from(model, class, 0).is_some());
        Some(Front {
            class,
            seq,
            quantum,
            keeps_together,
        })
    }

    /// The next job of the first user from this number on who has a job of the class in some models.
    pub(super) fn head_from(
        &self,
        models: &BTreeSet<Arc<str>>,
        class: Class,
        user: u64,
    ) -> Option<(u64, Seq)> {
        self.among(models)
            .filter_map(|model| first_from(model, class, user))
            .map(|key| (key.user, key.seq))
            .min()
    }

    /// The same of jobs that were not told: of each user those behind the last that was, without those that were told
    /// ahead of their turn.
    pub(super) fn head_after(
        &self,
        models: &BTreeSet<Arc<str>>,
        class: Class,
        user: u64,
        told: &HashMap<u64, Seq>,
        ahead: &Told,
    ) -> Option<(u64, Seq)> {
        self.among(models)
            .filter_map(|model| first_after(model, class, user, told, ahead))
            .min()
    }

    /// Tokens a turn in a class, as far as it was not told, 0 where turns count jobs; `None`: nobody takes turns.
    pub(super) fn quantum_after(
        &self,
        models: &BTreeSet<Arc<str>>,
        class: Class,
        told: &HashMap<u64, Seq>,
        ahead: &Told,
    ) -> Option<u32> {
        self.among(models)
            .filter(|model| {
                model.rule.takes_turns() && first_after(model, class, 0, told, ahead).is_some()
            })
            .map(|model| model.rule.order.fair_quantum_tokens)
            .max()
    }

    /// How many jobs of each model are due.
    pub(super) fn ready_by_model(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.models
            .iter()
            .map(|(name, model)| (name, model.ready.len()))
    }

    /// The due jobs of some models by session, with the rules of the models.
    pub(super) fn together(
        &self,
        models: &BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = (Rule, &BTreeSet<Together>)> {
        self.among(models)
            .map(|model| (model.rule, &model.together))
    }

    fn among(&self, models: &BTreeSet<Arc<str>>) -> impl Iterator<Item = &Model> {
        models.iter().filter_map(|name| self.models.get(name))
    }
}

/// The first job of a class, of the users from this number on.
fn first_from(model: &Model, class: Class, user: u64) -> Option<Key> {
    if model.rule.order.ageing_ms != class.ageing_ms {
        return None;
    }
    let from = Key {
        rank: Reverse(class.rank),
        user,
        seq: Seq(0),
    };
    let first = model.ready.first_from(from)?;
    (first.rank == from.rank).then_some(first)
}

/// The same of jobs that were not told: of each user those behind the last that was.
fn first_after(
    model: &Model,
    class: Class,
    user: u64,
    told: &HashMap<u64, Seq>,
    ahead: &Told,
) -> Option<(u64, Seq)> {
    if model.rule.order.ageing_ms != class.ageing_ms {
        return None;
    }
    let rank = Reverse(class.rank);
    let mut from = Key {
        rank,
        user,
        seq: Seq(0),
    };
    loop {
        let key = model.ready.first_from(from)?;
        match told.get(&key.user) {
            _ if key.rank != rank => return None,
            Some(last) if key.seq <= *last => {
                from = Key {
                    seq: Seq(last.0.checked_add(1)?),
                    ..key
                };
            }
            _ if ahead.has(key.seq) => {
                from = Key {
                    seq: Seq(key.seq.0.checked_add(1)?),
                    ..key
                };
            }
            _ => return Some((key.user, key.seq)),
        }
    }
}
