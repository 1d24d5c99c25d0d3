//! Chance from a seed, so that a run that failed can be tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onelane::system::SystemIds;
use onelane_actors::ports::Ids as _;

/// Numbers from a seed. Clones draw from the same row.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    seed: u64,
    state: Arc<AtomicU64>,
}

impl Dice {
    /// From `ONELANE_TEST_SEED`, else from a seed of this run. It is printed, and shown by the test
    /// harness when the test fails.
    pub(crate) fn new() -> Self {
        let given = std::env::var("ONELANE_TEST_SEED").ok();
        let seed = match given {
            Some(text) => text.parse().expect("ONELANE_TEST_SEED is a number"),
            None => SystemIds::new().seed(),
        };
        println!("again with ONELANE_TEST_SEED={seed}");
        Self {
            seed,
            state: Arc::new(AtomicU64::new(seed)),
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// From 0 to `n` - 1.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.draw() % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// SplitMix64.
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
