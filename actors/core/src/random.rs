//! Numbers from a seed, the same for the same seed: for jitter and for tests, never for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

/// What each draw adds to the state: 2^64 divided by the golden ratio. Steps of it visit every `u64`
/// before one comes twice.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator SplitMix64: small, and good enough for whatever need not be unforeseeable.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, evenly from 0 to 1, without 1.
    pub const fn draw_unit(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The same numbers for many threads: each draws another one of them.
#[derive(Debug)]
pub struct Seeds(AtomicU64);

impl Seeds {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn draw(&self) -> u64 {
        SplitMix64(self.0.fetch_add(STEP, Ordering::Relaxed)).draw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64_however_they_are_drawn() {
        // The first ones of the reference implementation for this seed.
        let want = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        let mut numbers = SplitMix64::new(1_234_567);
        assert_eq!(want.map(|_| numbers.draw()), want);
        let seeds = Seeds::new(1_234_567);
        assert_eq!(want.map(|_| seeds.draw()), want);
    }

    #[test]
    fn a_unit_is_even_and_never_1() {
        let mut numbers = SplitMix64::new(7);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let unit = numbers.draw_unit();
            assert!((0.0..1.0).contains(&unit), "{unit}");
            tenths[(unit * 10.0) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|n| (850..1_150).contains(n)),
            "{tenths:?}"
        );
    }
}
