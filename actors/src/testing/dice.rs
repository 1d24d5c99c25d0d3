//! Chance from a seed. Every part of a world draws from a row of its own, so that a change in one part
//! leaves the others as they were.

use onelane_core::random::SplitMix64;

/// A row of numbers.
#[derive(Debug, Clone)]
pub struct Dice(SplitMix64);

impl Dice {
    /// The row of this name.
    #[must_use]
    pub fn new(seed: u64, row: &str) -> Self {
        let mut dice = Self(SplitMix64::new(seed));
        for byte in row.bytes() {
            dice = Self(SplitMix64::new(dice.draw() ^ u64::from(byte)));
        }
        dice
    }

    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    /// From 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// From `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True so many times of a thousand.
    pub fn per_mille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }

    /// One of these; there has to be one.
    #[expect(
        clippy::indexing_slicing,
        reason = "a test that has nothing to pick from is wrong"
    )]
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let n = self.below(of.len() as u64);
        &of[n as usize]
    }
}
