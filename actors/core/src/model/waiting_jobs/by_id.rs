//! Where the job of an id is.

use std::hash::BuildHasher as _;
use std::sync::OnceLock;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::block::{BIT_BITS, Block, at, parted};
use crate::model::JobId;

/// So many jobs may have their ids scattered over a table without much loss.
pub(super) const SCATTERED_MAX: usize = 10_000;
/// The parts of a larger table that are filled one after the other.
const TABLE_PARTS: usize = 64;

/// Places of jobs by their ids. Looked up by id only, never iterated. The table is made when somebody first asks for an id:
/// a start that reads a million jobs makes its first call without.
#[derive(Clone, Default)]
pub(super) struct ById {
    table: OnceLock<HashTable<u32>>,
    hasher: DefaultHashBuilder,
}

impl ById {
    /// The place of a job among these blocks, which hold so many.
    pub(super) fn find(&self, blocks: &[Block], len: usize, id: JobId) -> Option<u32> {
        let is_it = |place: &u32| at(blocks, *place).is_some_and(|job| job.id == id);
        let table = self.table.get_or_init(|| self.made(blocks, len));
        table.find(self.hash(id), is_it).copied()
    }

    /// A job has come to a place.
    pub(super) fn insert(&mut self, blocks: &[Block], id: JobId, place: u32) {
        let hash = self.hash(id);
        let Self { table, hasher } = self;
        if let Some(table) = table.get_mut() {
            let again = |place: &u32| hash_of_place(blocks, hasher, *place);
            table.insert_unique(hash, place, again);
        }
    }

    /// A job has left its place.
    pub(super) fn remove(&mut self, id: JobId, place: u32) {
        let hash = self.hash(id);
        if let Some(table) = self.table.get_mut()
            && let Ok(known) = table.find_entry(hash, |known| *known == place)
        {
            known.remove();
        }
    }

    fn hash(&self, id: JobId) -> u64 {
        hash_of(&self.hasher, id)
    }

    fn made(&self, blocks: &[Block], len: usize) -> HashTable<u32> {
        let mut table = HashTable::with_capacity(len);
        let mut put = |(hash, place)| {
            let again = |place: &u32| hash_of_place(blocks, &self.hasher, *place);
            table.insert_unique(hash, place, again);
        };
        if len < SCATTERED_MAX {
            self.hashes(blocks).for_each(put);
            return table;
        }
        // One by one they would go to places all over the table's memory: so they go to one part of it after the other,
        // which is told by the last bits of their hashes.
        let in_a_part = (len * 8 / 7).next_power_of_two() / TABLE_PARTS;
        let mut parts: Vec<Vec<(u64, u32)>> = Vec::new();
        parts.resize_with(TABLE_PARTS, || {
            Vec::with_capacity(len / TABLE_PARTS * 9 / 8)
        });
        for (hash, place) in self.hashes(blocks) {
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
    fn hashes(&self, blocks: &[Block]) -> impl Iterator<Item = (u64, u32)> {
        (0..).zip(blocks).flat_map(move |(number, block)| {
            let jobs = block.places().zip(&block.jobs);
            jobs.map(move |(seq, job)| (self.hash(job.id), (number << BIT_BITS) | parted(seq).1))
        })
    }
}

fn hash_of(hasher: &DefaultHashBuilder, id: JobId) -> u64 {
    hasher.hash_one(u128::from_le_bytes(*id.as_bytes()))
}

fn hash_of_place(blocks: &[Block], hasher: &DefaultHashBuilder, place: u32) -> u64 {
    at(blocks, place).map_or(0, |job| hash_of(hasher, job.id))
}
