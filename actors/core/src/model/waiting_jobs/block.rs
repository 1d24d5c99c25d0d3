//! A waiting job in few bytes, and those of neighbouring places in line together.

use crate::model::{Due, JobId, Seq, SessionTag, Timestamp, WorstCase};

/// The places in line of one block are told apart by so many bits.
pub(super) const BIT_BITS: u32 = 6;
pub(super) const BIT_MASK: u32 = (1 << BIT_BITS) - 1;

/// A job, without what its place in line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub(super) id: JobId,
    pub(super) since: [u8; 8],
    pub(super) priority: i32,
    pub(super) tokens: u32,
    pub(super) worst: WorstCase,
    pub(super) session: Option<SessionTag>,
    /// The number of its [`Kind`](super::kinds::Kind) above [`Flags`].
    pub(super) kind: u32,
}

/// The bits of [`Packed::kind`] that are no part of the number.
pub(super) struct Flags;

impl Flags {
    pub(super) const DORMANT: u32 = 1;
    pub(super) const PARKED: u32 = 1 << 1;
    pub(super) const OUT_OF_SCOPE: u32 = 1 << 2;
    pub(super) const CAPPED: u32 = 1 << 3;
    /// It is among those that are due.
    pub(super) const READY: u32 = 1 << 4;
    /// More of it is in [`Rest`].
    pub(super) const REST: u32 = 1 << 5;
    pub(super) const BITS: u32 = 6;
}

impl Packed {
    pub(super) const fn is(&self, flag: u32) -> bool {
        self.kind & flag != 0
    }

    pub(super) const fn set(&mut self, flag: u32, is: bool) {
        if is {
            self.kind |= flag;
        } else {
            self.kind &= !flag;
        }
    }

    pub(super) const fn kind(&self) -> u32 {
        self.kind >> Flags::BITS
    }

    pub(super) const fn set_kind(&mut self, kind: u32) {
        self.kind = (kind << Flags::BITS) | (self.kind & ((1 << Flags::BITS) - 1));
    }

    pub(super) const fn since(&self) -> Timestamp {
        Timestamp::from_millis(i64::from_le_bytes(self.since))
    }
}

/// What few jobs have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rest {
    pub(super) due: Option<Due>,
    pub(super) deadline: Option<Timestamp>,
}

/// The jobs of some neighbouring places in line, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// What the places have in common.
    pub(super) number: u64,
    /// Which of them are taken.
    pub(super) has: u64,
    pub(super) jobs: Vec<Packed>,
}

impl Block {
    /// Where a job of this block is among its jobs, or would be.
    pub(super) const fn rank(&self, bit: u32) -> usize {
        (self.has & ((1 << bit) - 1)).count_ones() as usize
    }

    pub(super) fn get(&self, bit: u32) -> Option<&Packed> {
        match self.has & (1 << bit) {
            0 => None,
            _ => self.jobs.get(self.rank(bit)),
        }
    }

    pub(super) fn get_mut(&mut self, bit: u32) -> Option<&mut Packed> {
        match self.has & (1 << bit) {
            0 => None,
            _ => {
                let rank = self.rank(bit);
                self.jobs.get_mut(rank)
            }
        }
    }

    pub(super) fn insert(&mut self, bit: u32, job: Packed) {
        if self.jobs.len() == self.jobs.capacity() {
            self.jobs.reserve_exact(self.jobs.len().max(1));
        }
        match self.has >> bit {
            0 => self.jobs.push(job),
            _ => self.jobs.insert(self.rank(bit), job),
        }
        self.has |= 1 << bit;
    }

    pub(super) fn remove(&mut self, bit: u32) {
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
    pub(super) fn last(&self) -> Option<Seq> {
        let bit = u64::from(self.has.checked_ilog2()?);
        Some(Seq((self.number << BIT_BITS) | bit))
    }

    /// The places, in their order.
    pub(super) fn places(&self) -> impl Iterator<Item = Seq> + use<> {
        let (number, mut left) = (self.number, self.has);
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(Seq((number << BIT_BITS) | u64::from(bit)))
        })
    }
}

/// The block of a place in line, and which of its places it is.
pub(super) const fn parted(seq: Seq) -> (u64, u32) {
    (seq.0 >> BIT_BITS, (seq.0 & BIT_MASK as u64) as u32)
}

/// A job among blocks, by its place: its block above the bits of its place in it.
pub(super) fn at(blocks: &[Block], place: u32) -> Option<&Packed> {
    blocks
        .get((place >> BIT_BITS) as usize)?
        .get(place & BIT_MASK)
}
