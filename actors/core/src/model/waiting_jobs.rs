//! The jobs that wait, as a lane keeps them in memory: each once, packed, found by its id and by its place in line. What
//! most jobs have is of fixed width; what many jobs share, their model, user, batch and client key, is kept once for
//! all of them; what few have stands aside.

mod block;
mod by_id;
mod kinds;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use block::{BIT_BITS, BIT_MASK, Block, Flags, Packed, Rest, at, parted};
use by_id::ById;
pub use kinds::SharedByJobs;
use kinds::{Kind, Kinds};

use super::{Due, JobEntry, JobId, PriorityClass, Seq, Timestamp};

/// What becomes of a job that [`WaitingJobs::each`] shows.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// It is among those that are due.
    pub ready: bool,
    /// The lane runs the jobs of another batch alone.
    pub out_of_scope: bool,
}

/// The waiting jobs.
#[derive(Clone, Default)]
pub struct WaitingJobs {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Which of the blocks it is, by what its places have in common.
    by_number: BTreeMap<u64, u32>,
    by_id: ById,
    kinds: Kinds,
    rest: BTreeMap<Seq, Rest>,
    len: usize,
}

impl WaitingJobs {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many they are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a job in. One whose id or place is there already stays as it is: answers whether it was new.
    pub fn insert<N: AsRef<str>>(&mut self, entry: &JobEntry<N>) -> bool {
        if self.has(entry.id) || self.at(entry.seq).is_some() {
            return false;
        }
        self.put(entry);
        true
    }

    /// Takes a job in whose id nobody else has, as rows of a store do: it is looked for by its place alone, and not at all
    /// where it stands behind the others of its block.
    pub fn push<N: AsRef<str>>(&mut self, entry: &JobEntry<N>) {
        let (number, _) = parted(entry.seq);
        let latest = self.blocks.last().filter(|block| block.number == number);
        let is_behind = latest
            .and_then(Block::last)
            .is_some_and(|latest| latest < entry.seq);
        if is_behind || self.at(entry.seq).is_none() {
            self.put(entry);
        }
    }

    /// Takes in others as [`WaitingJobs::push`] would, one after the other.
    pub fn append(&mut self, others: Self) {
        let latest = self.by_number.last_key_value();
        let first = others.by_number.first_key_value();
        let is_behind = first.is_some_and(|first| latest.is_none_or(|latest| latest.0 < first.0));
        if !is_behind || !self.free.is_empty() || !others.free.is_empty() {
            others.iter().for_each(|entry| self.push(&entry));
            return;
        }
        let numbers = self.kinds.append(&others.kinds);
        for mut block in others.blocks {
            for job in &mut block.jobs {
                if let Some(kind) = numbers.get(job.kind() as usize) {
                    job.set_kind(*kind);
                }
            }
            self.by_number
                .insert(block.number, self.blocks.len() as u32);
            self.blocks.push(block);
        }
        self.len += others.len;
        self.rest.extend(others.rest);
        self.by_id = ById::default();
    }

    fn put<N: AsRef<str>>(&mut self, entry: &JobEntry<N>) {
        let (number, bit) = parted(entry.seq);
        let is_latest = |block: &Block| block.number == number && block.has != 0;
        let block = match self.blocks.last().is_some_and(is_latest) {
            // Memory ends long before such numbers do.
            true => (self.blocks.len() - 1) as u32,
            false => match self.by_number.get(&number) {
                Some(block) => *block,
                None => self.add_block(number),
            },
        };
        let has_rest = entry.due.is_some() || entry.deadline.is_some();
        if has_rest {
            let rest = Rest {
                due: entry.due,
                deadline: entry.deadline,
            };
            self.rest.insert(entry.seq, rest);
        }
        let mut job = Packed {
            id: entry.id,
            since: entry.since.as_millis().to_le_bytes(),
            priority: entry.priority,
            tokens: entry.tokens,
            worst: entry.worst,
            session: entry.session,
            kind: self.kinds.enter(&Kind::of(entry), 1) << Flags::BITS,
        };
        job.set(Flags::DORMANT, entry.dormant);
        job.set(Flags::PARKED, entry.parked);
        job.set(Flags::OUT_OF_SCOPE, entry.out_of_scope);
        job.set(Flags::CAPPED, entry.capped);
        job.set(Flags::REST, has_rest);
        if let Some(block) = self.blocks.get_mut(block as usize) {
            block.insert(bit, job);
        }
        self.len += 1;
        let place = (block << BIT_BITS) | bit;
        self.by_id.insert(&self.blocks, entry.id, place);
    }

    /// Adds a block without jobs.
    fn add_block(&mut self, number: u64) -> u32 {
        // Behind one that is full comes mostly another.
        let is_full = |block: &Block| block.number + 1 == number && block.has == u64::MAX;
        let jobs = match self.blocks.last().is_some_and(is_full) {
            true => Vec::with_capacity(1 << BIT_BITS),
            false => Vec::new(),
        };
        let new = Block {
            number,
            has: 0,
            jobs,
        };
        let block = match self.free.pop() {
            None => {
                self.blocks.push(new);
                (self.blocks.len() - 1) as u32
            }
            Some(free) => {
                if let Some(block) = self.blocks.get_mut(free as usize) {
                    *block = new;
                }
                free
            }
        };
        self.by_number.insert(number, block);
        block
    }

    /// Takes a job out. Answers, too, whether it was among those that are due.
    pub fn remove(&mut self, id: JobId) -> Option<(JobEntry, bool)> {
        self.take(self.find(id)?)
    }

    /// The same of the job of a place.
    pub fn remove_at(&mut self, seq: Seq) -> Option<(JobEntry, bool)> {
        self.take(self.place(seq)?)
    }

    fn take(&mut self, found: u32) -> Option<(JobEntry, bool)> {
        let entry = self.entry(found, Arc::clone)?;
        let (block, bit) = (found >> BIT_BITS, found & BIT_MASK);
        self.by_id.remove(entry.id, found);
        let job = *at(&self.blocks, found)?;
        self.kinds.leave(job.kind());
        let jobs = self.blocks.get_mut(block as usize)?;
        if job.is(Flags::REST) {
            self.rest.remove(&entry.seq);
        }
        jobs.remove(bit);
        if jobs.jobs.is_empty() {
            self.by_number.remove(&jobs.number);
            *jobs = Block::default();
            self.free.push(block);
        }
        self.len -= 1;
        if self.is_empty() {
            *self = Self::default();
        }
        Some((entry, job.is(Flags::READY)))
    }

    /// A job, by its id.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<JobEntry> {
        self.entry(self.find(id)?, Arc::clone)
    }

    /// Whether a job is among them.
    #[must_use]
    pub fn has(&self, id: JobId) -> bool {
        self.find(id).is_some()
    }

    /// A job, by its place in line.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Option<JobEntry<&Arc<str>>> {
        self.entry(self.place(seq)?, |name| name)
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = JobEntry<&Arc<str>>> {
        self.blocks().flat_map(|block| {
            let jobs = block.places().zip(&block.jobs);
            jobs.filter_map(|(seq, job)| unpacked(&self.kinds, &self.rest, seq, job, |name| name))
        })
    }

    /// Those that are bound to a process, in the order of their places.
    pub fn bound(&self) -> impl Iterator<Item = (JobId, u64)> {
        let all = self
            .kinds
            .has_bound()
            .then(|| self.iter())
            .into_iter()
            .flatten();
        all.filter_map(|entry| Some((entry.id, entry.bound_to?)))
    }

    /// The job of a place is among those that are due, or is not any more.
    pub fn set_ready(&mut self, seq: Seq, is: bool) {
        if let Some(job) = self.packed_mut(seq) {
            job.set(Flags::READY, is);
        }
    }

    /// The job of a place waits for something else now, or for nothing.
    pub fn set_due(&mut self, seq: Seq, due: Option<Due>) {
        let deadline = self.rest.get(&seq).and_then(|rest| rest.deadline);
        let has_rest = due.is_some() || deadline.is_some();
        let Some(job) = self.packed_mut(seq) else {
            return;
        };
        job.set(Flags::REST, has_rest);
        if has_rest {
            self.rest.insert(seq, Rest { due, deadline });
        } else {
            self.rest.remove(&seq);
        }
    }

    /// A job must not run. Before the line is made of them: it looks at that once.
    pub fn fall_asleep(&mut self, id: JobId) {
        let Some(found) = self.find(id) else { return };
        let block = self.blocks.get_mut((found >> BIT_BITS) as usize);
        if let Some(job) = block.and_then(|block| block.get_mut(found & BIT_MASK)) {
            job.set(Flags::DORMANT, true);
        }
    }

    /// The first place of the block of a place.
    #[must_use]
    pub const fn first_in_block(seq: Seq) -> Seq {
        Seq(seq.0 & !(BIT_MASK as u64))
    }

    /// The block of a place, by a number of its own.
    #[must_use]
    pub const fn block_of(seq: Seq) -> u64 {
        parted(seq).0
    }

    /// Since when the oldest could have run of the jobs of a class that are due and stand in the same block as a place,
    /// beside the one there.
    #[must_use]
    pub fn oldest_beside(&self, seq: Seq, class: PriorityClass) -> Option<Timestamp> {
        let block = self
            .blocks
            .get(*self.by_number.get(&parted(seq).0)? as usize)?;
        let (_, bit) = parted(seq);
        let own = (block.has & (1 << bit) != 0).then(|| block.rank(bit));
        let jobs = block.jobs.iter().enumerate();
        jobs.filter(|(rank, job)| {
            Some(*rank) != own && job.is(Flags::READY) && PriorityClass::of(job.priority) == class
        })
        .map(|(_, job)| job.since())
        .min()
    }

    /// What jobs share, with a number, in the order in which the first of each came, as long as none has left.
    pub fn each_kind(&mut self) -> impl Iterator<Item = (usize, SharedByJobs<'_>)> {
        self.kinds.each()
    }

    /// The clock may have been set: delays are not longer for it.
    pub fn mind_the_clock(&mut self, now: Timestamp) {
        for due in self.rest.values_mut().filter_map(|rest| rest.due.as_mut()) {
            due.mind_the_clock(now);
        }
    }

    /// Shows each job with the number of what it shares, in the order of their places, and notes what becomes of it.
    pub fn each(&mut self, mut see: impl FnMut(usize, JobEntry<&Arc<str>>) -> Standing) {
        for number in self.by_number.values() {
            let Some(block) = self.blocks.get_mut(*number as usize) else {
                continue;
            };
            for (seq, job) in block.places().zip(&mut block.jobs) {
                let kind = job.kind() as usize;
                let Some(entry) = unpacked(&self.kinds, &self.rest, seq, job, |name| name) else {
                    continue;
                };
                let standing = see(kind, entry);
                job.set(Flags::READY, standing.ready);
                job.set(Flags::OUT_OF_SCOPE, standing.out_of_scope);
            }
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        let numbers = self.by_number.values();
        numbers.filter_map(|number| self.blocks.get(*number as usize))
    }

    fn find(&self, id: JobId) -> Option<u32> {
        self.by_id.find(&self.blocks, self.len, id)
    }

    fn place(&self, seq: Seq) -> Option<u32> {
        let (number, bit) = parted(seq);
        Some((*self.by_number.get(&number)? << BIT_BITS) | bit)
    }

    fn packed_mut(&mut self, seq: Seq) -> Option<&mut Packed> {
        let (number, bit) = parted(seq);
        let block = *self.by_number.get(&number)?;
        self.blocks.get_mut(block as usize)?.get_mut(bit)
    }

    fn entry<'w, N>(&'w self, place: u32, name: impl Fn(&'w Arc<str>) -> N) -> Option<JobEntry<N>> {
        let block = self.blocks.get((place >> BIT_BITS) as usize)?;
        let bit = place & BIT_MASK;
        let seq = Seq((block.number << BIT_BITS) | u64::from(bit));
        unpacked(&self.kinds, &self.rest, seq, block.get(bit)?, name)
    }
}

/// As a list of the jobs, whatever came and went before.
impl fmt::Debug for WaitingJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'e, N: AsRef<str> + 'e> FromIterator<&'e JobEntry<N>> for WaitingJobs {
    fn from_iter<I: IntoIterator<Item = &'e JobEntry<N>>>(entries: I) -> Self {
        let mut jobs = Self::new();
        for entry in entries {
            jobs.insert(entry);
        }
        jobs
    }
}

fn unpacked<'w, N>(
    kinds: &'w Kinds,
    rest: &BTreeMap<Seq, Rest>,
    seq: Seq,
    job: &Packed,
    name: impl Fn(&'w Arc<str>) -> N,
) -> Option<JobEntry<N>> {
    let kind = kinds.get(job.kind())?;
    let rest = match job.is(Flags::REST) {
        true => rest.get(&seq).copied().unwrap_or_default(),
        false => Rest::default(),
    };
    Some(JobEntry {
        id: job.id,
        seq,
        priority: job.priority,
        due: rest.due,
        deadline: rest.deadline,
        since: job.since(),
        model: name(&kind.model),
        user_id: name(&kind.user_id),
        tokens: job.tokens,
        worst: job.worst,
        batch_id: kind.batch_id,
        dormant: job.is(Flags::DORMANT),
        parked: job.is(Flags::PARKED),
        out_of_scope: job.is(Flags::OUT_OF_SCOPE),
        capped: job.is(Flags::CAPPED),
        bound_to: kind.bound_to,
        key: kind.key,
        session: job.session,
    })
}
