//! What many waiting jobs share, once for all of them.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{BatchId, JobEntry, KeyId};

/// Model, user, batch, process and client key of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind<N = Arc<str>> {
    pub(super) model: N,
    pub(super) user_id: N,
    pub(super) batch_id: Option<BatchId>,
    pub(super) bound_to: Option<u64>,
    pub(super) key: Option<KeyId>,
}

impl<'e> Kind<&'e str> {
    /// That of a job.
    pub(super) fn of<N: AsRef<str>>(entry: &'e JobEntry<N>) -> Self {
        Self {
            model: entry.model.as_ref(),
            user_id: entry.user_id.as_ref(),
            batch_id: entry.batch_id,
            bound_to: entry.bound_to,
            key: entry.key,
        }
    }
}

impl Kind {
    fn borrowed(&self) -> Kind<&str> {
        Kind {
            model: &self.model,
            user_id: &self.user_id,
            batch_id: self.batch_id,
            bound_to: self.bound_to,
            key: self.key,
        }
    }
}

/// What jobs of one kind share, as [`super::WaitingJobs::each_kind`] shows it.
#[derive(Debug)]
pub struct SharedByJobs<'w> {
    /// The model that they ask for.
    pub model: &'w mut Arc<str>,
    /// Whose they are.
    pub user_id: &'w mut Arc<str>,
    /// The batch that they belong to.
    pub batch_id: Option<BatchId>,
    /// The client key by which they were handed in.
    pub key: Option<KeyId>,
    /// How many they are.
    pub jobs: usize,
}

/// What jobs share, each once. A number is given again when the last of its jobs has gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    /// With how many jobs there are of each.
    kinds: Vec<(Kind, u32)>,
    free: Vec<u32>,
    known: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// That of the latest job: mostly it is the same again.
    latest: u32,
}

impl Kinds {
    pub(super) fn get(&self, number: u32) -> Option<&Kind> {
        Some(&self.kinds.get(number as usize)?.0)
    }

    /// So many jobs of a kind come. Answers its number.
    pub(super) fn enter(&mut self, kind: &Kind<&str>, jobs: u32) -> u32 {
        if let Some((latest, there)) = self.kinds.get_mut(self.latest as usize)
            && *there > 0
            && latest.borrowed() == *kind
        {
            *there += jobs;
            return self.latest;
        }
        let hash = self.hasher.hash_one(kind);
        let is_it = |number: &u32| {
            let known = self.kinds.get(*number as usize);
            known.is_some_and(|(known, _)| known.borrowed() == *kind)
        };
        let number = match self.known.find(hash, is_it) {
            Some(number) => *number,
            None => self.add(hash, kind),
        };
        if let Some((_, there)) = self.kinds.get_mut(number as usize) {
            *there += jobs;
        }
        self.latest = number;
        number
    }

    fn add(&mut self, hash: u64, kind: &Kind<&str>) -> u32 {
        let kind = Kind {
            model: kind.model.into(),
            user_id: kind.user_id.into(),
            batch_id: kind.batch_id,
            bound_to: kind.bound_to,
            key: kind.key,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.kinds.get_mut(number as usize) {
                    *place = (kind, 0);
                }
                number
            }
            None => {
                self.kinds.push((kind, 0));
                // There are no more of them than jobs.
                (self.kinds.len() - 1) as u32
            }
        };
        let (kinds, hasher) = (&self.kinds, &self.hasher);
        self.known
            .insert_unique(hash, number, |number| hash_of(kinds, hasher, *number));
        number
    }

    /// A job of a kind left.
    pub(super) fn leave(&mut self, number: u32) {
        let Some((_, jobs)) = self.kinds.get_mut(number as usize) else {
            return;
        };
        *jobs = jobs.saturating_sub(1);
        if *jobs > 0 {
            return;
        }
        let hash = hash_of(&self.kinds, &self.hasher, number);
        if let Ok(known) = self.known.find_entry(hash, |known| *known == number) {
            known.remove();
        }
        if self.known.is_empty() {
            let hasher = self.hasher.clone();
            *self = Self {
                hasher,
                ..Self::default()
            };
            return;
        }
        self.free.push(number);
        // The names go with their last job.
        if let Some((kind, _)) = self.kinds.get_mut(number as usize) {
            (kind.model, kind.user_id) = (Arc::default(), Arc::default());
        }
    }

    /// Takes in what others share. Answers the numbers that it has here, by those that it had there.
    pub(super) fn append(&mut self, others: &Self) -> Vec<u32> {
        let number = |(kind, jobs): &(Kind, u32)| match jobs {
            0 => 0,
            jobs => self.enter(&kind.borrowed(), *jobs),
        };
        others.kinds.iter().map(number).collect()
    }

    /// Whether any is bound to a process.
    pub(super) fn has_bound(&self) -> bool {
        let mut there = self.kinds.iter().filter(|(_, jobs)| *jobs > 0);
        there.any(|(kind, _)| kind.bound_to.is_some())
    }

    /// All of them by their numbers.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (usize, SharedByJobs<'_>)> {
        let kinds = self.kinds.iter_mut().enumerate();
        let there = kinds.filter(|(_, (_, jobs))| *jobs > 0);
        there.map(|(number, (kind, jobs))| {
            let shared = SharedByJobs {
                model: &mut kind.model,
                user_id: &mut kind.user_id,
                batch_id: kind.batch_id,
                key: kind.key,
                jobs: *jobs as usize,
            };
            (number, shared)
        })
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.kinds.len()
    }
}

fn hash_of(kinds: &[(Kind, u32)], hasher: &DefaultHashBuilder, number: u32) -> u64 {
    let kind = kinds.get(number as usize);
    kind.map_or(0, |(kind, _)| hasher.hash_one(kind.borrowed()))
}
