//! The jobs that wait, as a lane keeps them in memory: each once, packed, found by its id and by its place in line. What
//! most jobs have is of fixed width; what many jobs share, their model, user, batch and client key, is kept once for
//! all of them; what few have stands aside.

mod kinds;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashTable};

pub use kinds::SharedByJobs;
use kinds::{Kind, Kinds};

use super::{Due, JobEntry, JobId, PriorityClass, Seq, SessionTag, Timestamp, WorstCase};

/// The places in line of one block are told apart by so many bits.
const BIT_BITS: u32 = 6;
const BIT_MASK: u32 = (1 << BIT_BITS) - 1;

/// So many jobs may have their ids scattered over a table without much loss.
const SCATTERED_MAX: usize = 10_000;
/// The parts of a larger table that are filled one after the other.
const TABLE_PARTS: usize = 64;

/// A job, without what its place in line says.
#[derive(Debug, Clone, Copy)]
struct Packed {
    id: JobId,
    since: [u8; 8],
    priority: i32,
    tokens: u32,
    worst: WorstCase,
    session: Option<SessionTag>,
    /// The number of its [`Kind`] above [`Flags`].
    kind: u32,
}

/// The bits of [`Packed::kind`] that are no part of the number.
struct Flags;

impl Flags {
    const DORMANT: u32 = 1;
    const PARKED: u32 = 1 << 1;
    const OUT_OF_SCOPE: u32 = 1 << 2;
    const CAPPED: u32 = 1 << 3;
    /// It is among those that are due.
    const READY: u32 = 1 << 4;
    /// More of it is in [`Rest`].
    const REST: u32 = 1 << 5;
    const BITS: u32 = 6;
}

impl Packed {
    const fn is(&self, flag: u32) -> bool {
        self.kind & flag != 0
    }

    const fn set(&mut self, flag: u32, is: bool) {
        if is {
            self.kind |= flag;
        } else {
            self.kind &= !flag;
        }
    }

    const fn kind(&self) -> u32 {
        self.kind >> Flags::BITS
    }

    const fn set_kind(&mut self, kind: u32) {
        self.kind = (kind << Flags::BITS) | (self.kind & ((1 << Flags::BITS) - 1));
    }

    const fn since(&self) -> Timestamp {
        Timestamp::from_millis(i64::from_le_bytes(self.since))
    }
}

/// What few jobs have.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    due: Option<Due>,
    deadline: Option<Timestamp>,
}

/// The jobs of some neighbouring places in line, in their order.
#[derive(Debug, Clone, Default)]
struct Block {
    /// What the places have in common.
    number: u64,
    /// Which of them are taken.
    has: u64,
    jobs: Vec<Packed>,
}

impl Block {
    /// Where a job of this block is among its jobs, or would be.
    const fn rank(&self, bit: u32) -> usize {
        (self.has & ((1 << bit) - 1)).count_ones() as usize
    }

    fn get(&self, bit: u32) -> Option<&Packed> {
        match self.has & (1 << bit) {
            0 => None,
            _ => self.jobs.get(self.rank(bit)),
        }
    }

    fn get_mut(&mut self, bit: u32) -> Option<&mut Packed> {
        match self.has & (1 << bit) {
            0 => None,
            _ => {
                let rank = self.rank(bit);
                self.jobs.get_mut(rank)
            }
        }
    }

    fn insert(&mut self, bit: u32, job: Packed) {
        if self.jobs.len() == self.jobs.capacity() {
            self.jobs.reserve_exact(self.jobs.len().max(1));
        }
        match self.has >> bit {
            0 => self.jobs.push(job),
            _ => self.jobs.insert(self.rank(bit), job),
        }
        self.has |= 1 << bit;
    }

    fn remove(&mut self, bit: u32) {
        let rank = self.rank(bit);
        if rank < self.jobs.len() {
            self.jobs.remove(rank);
        }
        self.has &= !(1 << bit);
        if self.jobs.len() * 4 <= self.jobs.capacity() {
            self.jobs.shrink_to(self.jobs.len() * 2);
        }
    }

    /// The last place.
    fn last(&self) -> Option<Seq> {
        let bit = u64::from(self.has.checked_ilog2()?);
        Some(Seq((self.number << BIT_BITS) | bit))
    }

    /// The places, in their order.
    fn places(&self) -> impl Iterator<Item = Seq> + use<> {
        let (number, mut left) = (self.number, self.has);
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(Seq((number << BIT_BITS) | u64::from(bit)))
        })
    }
}

/// The block of a place in line, and which of its places it is.
const fn parted(seq: Seq) -> (u64, u32) {
    (seq.0 >> BIT_BITS, (seq.0 & BIT_MASK as u64) as u32)
}

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
    /// A job's block above the bits of its place in it. Looked up by id only, never iterated. Made when somebody first asks
    /// for an id: a start that reads a million jobs makes its first call without.
    by_id: OnceLock<HashTable<u32>>,
    hasher: DefaultHashBuilder,
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

    /// Takes a job in that stands behind all others, and whose id nobody else has, as rows of a store do. One that does
    /// not is left out.
    pub fn push<N: AsRef<str>>(&mut self, entry: &JobEntry<N>) {
        let latest = self.blocks.last().and_then(Block::last);
        if self.free.is_empty() && latest.is_none_or(|latest| latest < entry.seq) {
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
        self.by_id = OnceLock::new();
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
        let (blocks, hasher) = (&self.blocks, &self.hasher);
        if let Some(by_id) = self.by_id.get_mut() {
            let place = (block << BIT_BITS) | bit;
            by_id.insert_unique(hash_of_id(hasher, entry.id), place, |place| {
                hash_of_place(blocks, hasher, *place)
            });
        }
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
        let hash = hash_of_id(&self.hasher, entry.id);
        if let Some(by_id) = self.by_id.get_mut()
            && let Ok(known) = by_id.find_entry(hash, |place| *place == found)
        {
            known.remove();
        }
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
            *self = Self {
                hasher: self.hasher.clone(),
                kinds: std::mem::take(&mut self.kinds),
                ..Self::default()
            };
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
        let is_it = |place: &u32| at(&self.blocks, *place).is_some_and(|job| job.id == id);
        let by_id = self.by_id.get_or_init(|| self.places_by_id());
        by_id.find(hash_of_id(&self.hasher, id), is_it).copied()
    }

    /// Where each of the jobs is.
    fn places_by_id(&self) -> HashTable<u32> {
        let mut table = HashTable::with_capacity(self.len);
        let mut put = |(hash, place)| {
            table.insert_unique(hash, place, |place| {
                hash_of_place(&self.blocks, &self.hasher, *place)
            });
        };
        if self.len < SCATTERED_MAX {
            self.places().for_each(put);
            return table;
        }
        // One by one they would go to places all over the table's memory: so they go to one part of it after the other,
        // which is told by the last bits of their hashes.
        let in_a_part = (self.len * 8 / 7).next_power_of_two() / TABLE_PARTS;
        let mut parts: Vec<Vec<(u64, u32)>> = Vec::new();
        parts.resize_with(TABLE_PARTS, || {
            Vec::with_capacity(self.len / TABLE_PARTS * 9 / 8)
        });
        for (hash, place) in self.places() {
            let part = (hash / in_a_part as u64) as usize % TABLE_PARTS;
            if let Some(part) = parts.get_mut(part) {
                part.push((hash, place));
            }
        }
        for part in parts {
            part.into_iter().for_each(&mut put);
        }
        table
    }

    /// The places of all jobs, with the hashes of their ids.
    fn places(&self) -> impl Iterator<Item = (u64, u32)> {
        (0..).zip(&self.blocks).flat_map(move |(number, block)| {
            let jobs = block.places().zip(&block.jobs);
            jobs.map(move |(seq, job)| {
                let hash = hash_of_id(&self.hasher, job.id);
                (hash, (number << BIT_BITS) | parted(seq).1)
            })
        })
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

fn at(blocks: &[Block], place: u32) -> Option<&Packed> {
    blocks
        .get((place >> BIT_BITS) as usize)?
        .get(place & BIT_MASK)
}

fn hash_of_id(hasher: &DefaultHashBuilder, id: JobId) -> u64 {
    hasher.hash_one(u128::from_le_bytes(*id.as_bytes()))
}

fn hash_of_place(blocks: &[Block], hasher: &DefaultHashBuilder, place: u32) -> u64 {
    at(blocks, place).map_or(0, |job| hash_of_id(hasher, job.id))
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BatchId, KeyId, Wait};

    /// A change of the set, as it is drawn.
    #[derive(Debug, Clone)]
    enum Change {
        Insert(Box<JobEntry>),
        Remove(JobId),
        SetDue(Seq, Option<Due>),
    }

    fn id(n: u64) -> JobId {
        JobId::from_bytes(u128::from(n).to_be_bytes())
    }

    /// Few ids and places, near each other and far off, so that they meet.
    fn any_place() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..150, 1_000_u64..1_010, (u64::MAX - 3)..=u64::MAX]
    }

    fn any_due() -> impl Strategy<Value = Option<Due>> {
        let at = |ms| Timestamp::from_millis(ms);
        let after = move |(until, length_ms)| {
            Due::After(Wait {
                until: at(until),
                length_ms,
            })
        };
        proptest::option::of(prop_oneof![
            (0_i64..9).prop_map(move |ms| Due::At(at(ms))),
            (0_i64..9, 0_u64..9).prop_map(after),
        ])
    }

    prop_compose! {
        fn any_entry()(
            place in any_place(),
            other in proptest::option::weighted(0.1, any_place()),
            due in any_due(),
            deadline in proptest::option::weighted(0.2, 0_i64..9),
            names in (0_u8..3, 0_u8..4),
            numbers in (any::<i32>(), any::<i64>(), any::<u32>(), any::<u32>(), any::<u32>()),
            ids in (proptest::option::of(1_u64..3), proptest::option::of(1_u64..3), proptest::option::of(1_u64..3)),
            session: u32,
            flags: u8,
        ) -> JobEntry {
            let is = |bit: u8| flags & (1 << bit) != 0;
            JobEntry {
                // Mostly those of the place, so that a job comes again.
                id: id(other.unwrap_or(place)),
                seq: Seq(place),
                priority: numbers.0,
                due,
                deadline: deadline.map(Timestamp::from_millis),
                since: Timestamp::from_millis(numbers.1),
                model: format!("m{}", names.0).into(),
                user_id: format!("u{}", names.1).into(),
                tokens: numbers.2,
                worst: WorstCase { prompt: numbers.3, completion: numbers.4 },
                batch_id: ids.0.map(BatchId::new),
                dormant: is(0),
                parked: is(1),
                out_of_scope: is(2),
                capped: is(3),
                bound_to: ids.1,
                key: ids.2.map(KeyId::new),
                session: NonZeroU32::new(session).map(SessionTag::new),
            }
        }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => any_entry().prop_map(|entry| Change::Insert(Box::new(entry))),
            2 => any_place().prop_map(|n| Change::Remove(id(n))),
            1 => (any_place(), any_due()).prop_map(|(n, due)| Change::SetDue(Seq(n), due)),
        ]
    }

    proptest! {
        #[test]
        fn a_waiting_job_is_found_as_it_was_put_in_by_its_id_and_by_its_place(
            changes in vec(any_change(), 0..300),
        ) {
            let mut jobs = WaitingJobs::new();
            let mut model: BTreeMap<Seq, JobEntry> = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Insert(entry) => {
                        let is_new = model
                            .values()
                            .all(|other| other.id != entry.id && other.seq != entry.seq);
                        prop_assert_eq!(jobs.insert(&entry), is_new);
                        if is_new {
                            model.insert(entry.seq, *entry);
                        }
                    }
                    Change::Remove(id) => {
                        let seq = model.values().find(|entry| entry.id == id).map(|entry| entry.seq);
                        let removed = jobs.remove(id).map(|(entry, _)| entry);
                        prop_assert_eq!(removed, seq.and_then(|seq| model.remove(&seq)));
                    }
                    Change::SetDue(seq, due) => {
                        jobs.set_due(seq, due);
                        if let Some(entry) = model.get_mut(&seq) {
                            entry.due = due;
                        }
                    }
                }
                prop_assert_eq!(jobs.len(), model.len());
            }
            let all: Vec<JobEntry> = jobs.iter().map(JobEntry::owned).collect();
            prop_assert_eq!(&all, &model.values().cloned().collect::<Vec<_>>());
            for entry in &all {
                prop_assert_eq!(jobs.get(entry.id), Some(entry.clone()));
                prop_assert_eq!(jobs.at(entry.seq).map(JobEntry::owned), Some(entry.clone()));
            }
            let kinds = jobs.each_kind().map(|(_, kind)| kind.jobs).sum::<usize>();
            prop_assert_eq!(kinds, all.len());
        }

        #[test]
        fn the_oldest_due_job_of_a_block_is_found_beside_another(
            entries in vec((any_entry(), any::<bool>()), 0..100),
            asked in any_place(),
        ) {
            let mut jobs = WaitingJobs::new();
            let mut ready = BTreeMap::new();
            for (entry, is_ready) in &entries {
                if jobs.insert(entry) {
                    jobs.set_ready(entry.seq, *is_ready);
                    ready.insert(entry.seq, *is_ready);
                }
            }
            for class in PriorityClass::ALL {
                let beside = jobs.iter().filter(|entry| {
                    entry.seq.0 != asked
                        && entry.seq.0 / 64 == asked / 64
                        && PriorityClass::of(entry.priority) == class
                        && ready.get(&entry.seq) == Some(&true)
                });
                let oldest = beside.map(|entry| entry.since).min();
                prop_assert_eq!(jobs.oldest_beside(Seq(asked), class), oldest);
            }
        }
    }

    proptest! {
        #[test]
        fn jobs_that_are_read_in_two_parts_are_those_that_are_read_in_one(
            entries in vec(any_entry(), 0..100),
            split in 0_usize..100,
            removed in 0_usize..2,
        ) {
            let by_place: BTreeMap<Seq, JobEntry> = entries.into_iter().map(|entry| (entry.seq, entry)).collect();
            let entries: Vec<JobEntry> = by_place.into_values().map(|entry| JobEntry { id: id(entry.seq.0), ..entry }).collect();
            let (first, second) = entries.split_at(split.min(entries.len()));
            let mut parts = [first, second].map(|part| {
                let mut jobs = WaitingJobs::new();
                part.iter().for_each(|entry| jobs.push(entry));
                jobs
            });
            let [one, two] = &mut parts;
            for entry in second.iter().take(removed) {
                two.remove(entry.id);
            }
            one.append(std::mem::take(two));
            let wanted = first.iter().chain(second.iter().skip(removed));
            prop_assert!(one.iter().map(JobEntry::owned).eq(wanted.cloned()));
            for (n, entry) in entries.iter().enumerate() {
                let is_there = n < first.len() || n >= first.len() + removed;
                prop_assert_eq!(one.remove(entry.id).is_some(), is_there);
            }
            prop_assert!(one.is_empty());
        }
    }

    #[test]
    fn among_many_each_is_found_by_its_id() {
        let entry = |n: u64| JobEntry {
            id: id(n),
            seq: Seq(n),
            ..crate::testing::sample::new_job(1).job.entry()
        };
        let mut jobs = WaitingJobs::new();
        let many = 2 * SCATTERED_MAX as u64;
        (0..many).for_each(|n| jobs.push(&entry(n * 3)));
        assert_eq!(jobs.len() as u64, many);
        for n in 0..many * 3 {
            assert_eq!(jobs.has(id(n)), n % 3 == 0, "{n}");
        }
        jobs.push(&entry(0));
        assert_eq!(
            jobs.len() as u64,
            many,
            "it does not stand behind the others"
        );
    }

    #[test]
    fn a_waiting_job_takes_48_bytes_beside_what_it_shares() {
        assert_eq!(size_of::<Packed>(), 48);
        assert!(size_of::<Block>() <= 40);
    }

    #[test]
    fn what_the_last_job_shared_goes_with_it() {
        let mut jobs = WaitingJobs::new();
        let entry = |n: u64| JobEntry {
            user_id: Arc::from(format!("user {n}")),
            ..crate::testing::sample::new_job(n).job.entry()
        };
        for n in 1..=1_000 {
            assert!(jobs.insert(&JobEntry {
                seq: Seq(n),
                ..entry(n)
            }));
            let before = n.saturating_sub(10);
            assert_eq!(jobs.remove(entry(before).id).is_some(), before > 0);
        }
        assert_eq!(jobs.len(), 10);
        assert!(jobs.kinds.len() <= 11, "numbers are given again");
        assert!(jobs.blocks.len() <= 2);
    }
}
