//! The due jobs of a model, in order. Jobs that came one after the other mostly stand one after the other in this order,
//! too: those of one rank, whose turn is the same, are bits of words.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::model::Seq;

/// The places of one word are told apart by so many bits.
const BIT_BITS: u32 = 6;
const BIT_MASK: u64 = (1 << BIT_BITS) - 1;

/// A due job among those of its model, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Its rank among those that age alike.
    pub(super) rank: Reverse<i64>,
    /// Whose turn it uses up ([`Rule::turn_of`](super::place::Rule::turn_of)).
    pub(super) user: u64,
    /// Its place in line.
    pub(super) seq: Seq,
}

/// Keys that differ in the last bits of their places alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    rank: Reverse<i64>,
    user: u64,
    block: u64,
}

impl Key {
    /// The word of a key, and its bit.
    pub(super) const fn parted(self) -> (Word, u64) {
        let word = Word {
            rank: self.rank,
            user: self.user,
            block: self.seq.0 >> BIT_BITS,
        };
        (word, 1 << (self.seq.0 & BIT_MASK))
    }
}

impl Word {
    /// The first key of some bits of it.
    fn first(self, bits: u64) -> Option<Key> {
        let bit = u64::from(bits.trailing_zeros());
        (bits != 0).then_some(Key {
            rank: self.rank,
            user: self.user,
            seq: Seq((self.block << BIT_BITS) | bit),
        })
    }
}

/// A sorted set of keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Ready {
    words: BTreeMap<Word, u64>,
    len: usize,
}

impl Ready {
    /// How many keys there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Takes a key in.
    pub(super) fn insert(&mut self, key: Key) {
        let (word, bit) = key.parted();
        let bits = self.words.entry(word).or_default();
        self.len += usize::from(*bits & bit == 0);
        *bits |= bit;
    }

    /// Takes a key out, if it is there.
    pub(super) fn remove(&mut self, key: Key) {
        let (word, bit) = key.parted();
        let Some(bits) = self.words.get_mut(&word) else {
            return;
        };
        self.len -= usize::from(*bits & bit != 0);
        *bits &= !bit;
        if *bits == 0 {
            self.words.remove(&word);
        }
    }

    /// The first key.
    pub(super) fn first(&self) -> Option<Key> {
        let (word, bits) = self.words.first_key_value()?;
        word.first(*bits)
    }

    /// The first key that is not before this one.
    pub(super) fn first_from(&self, key: Key) -> Option<Key> {
        let (from, bit) = key.parted();
        self.words.range(from..).find_map(|(word, bits)| {
            let before = if *word == from { bit - 1 } else { 0 };
            word.first(*bits & !before)
        })
    }

    /// The keys, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Key> {
        self.words.iter().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let first = word.first(left)?;
                left &= left - 1;
                Some(first)
            })
        })
    }
}

/// Words with their bits, each word once: built whole.
impl FromIterator<(Word, u64)> for Ready {
    fn from_iter<I: IntoIterator<Item = (Word, u64)>>(words: I) -> Self {
        let words: BTreeMap<Word, u64> = words.into_iter().collect();
        let len = words.values().map(|bits| bits.count_ones() as usize).sum();
        Self { words, len }
    }
}

impl FromIterator<Key> for Ready {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        let mut ready = Self::default();
        for key in keys {
            ready.insert(key);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        // Dense enough that words are shared, and some far off.
        let seq = prop_oneof![0_u64..200, (u64::MAX - 70)..=u64::MAX];
        (-2_i64..2, 0_u64..3, seq).prop_map(|(rank, user, seq)| Key {
            rank: Reverse(rank),
            user,
            seq: Seq(seq),
        })
    }

    proptest! {
        #[test]
        fn words_of_due_jobs_are_a_sorted_set_of_them(
            changes in vec((any_key(), prop::bool::weighted(0.7)), 0..120),
            asked in vec(any_key(), 20),
        ) {
            let (mut ready, mut set) = (Ready::default(), BTreeSet::new());
            for (key, comes) in changes {
                if comes {
                    ready.insert(key);
                    set.insert(key);
                } else {
                    ready.remove(key);
                    set.remove(&key);
                }
                prop_assert_eq!(ready.len(), set.len());
                prop_assert_eq!(ready.first(), set.first().copied());
            }
            for key in asked {
                prop_assert_eq!(ready.first_from(key), set.range(key..).next().copied());
            }
            prop_assert!(ready.iter().eq(set.iter().copied()));
            let whole: Ready = set.into_iter().collect();
            prop_assert_eq!(whole.words, ready.words);
        }
    }
}
