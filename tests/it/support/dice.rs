//! Chance from a seed, so that a run that failed can be tried again.

use std::sync::Arc;

use onelane::system::SystemIds;
use onelane_actors::ports::Ids as _;
use onelane_core::random::Seeds;

/// Numbers from a seed. Clones draw from the same row.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    seed: u64,
    numbers: Arc<Seeds>,
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
            numbers: Arc::new(Seeds::new(seed)),
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// From 0 to `n` - 1.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.numbers.draw() % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}
