//! A world that breaks a promise becomes a short one that breaks the same: events are taken away as long as it does.

use std::collections::BTreeSet;

use crate::faults::Planted;
use crate::script::Script;
use crate::world::{self, Broken};

/// Worlds that are tried.
const TRIES_MAX: usize = 2_000;

/// A world with as few events as the failure needs: without any of them the promise is kept.
pub(crate) struct Short {
    pub(crate) seed: u64,
    pub(crate) script: Script,
    pub(crate) broken: Broken,
    /// How many events the world had, and how many worlds were tried.
    pub(crate) of: usize,
    pub(crate) tries: usize,
}

impl Short {
    /// The events, a line each, and what is broken.
    pub(crate) fn lines(&self) -> Vec<String> {
        let events = self.broken.happened.iter().map(ToString::to_string);
        events
            .chain([format!("then: {}", self.broken.what)])
            .collect()
    }

    /// What to call for exactly this.
    pub(crate) fn command(&self) -> String {
        format!(
            "ONELANE_SIM_SEED={} ONELANE_SIM_ONLY={} cargo test -p onelane-actors --test simulation",
            self.seed, self.script
        )
    }
}

/// By what a promise is known again: the words of the failure, without numbers and whatever they quote.
pub(crate) fn promise_of(what: &str) -> String {
    let words = what.split(['{', '[', '(', ':', ',']).next().unwrap_or(what);
    let words = words.split_whitespace();
    let plain = words.filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    let head: Vec<&str> = plain.collect();
    // What follows says why, where the first words only say of whom.
    let why = what.split_once(": ").map_or("", |(_, why)| why);
    let why = why.split(['{', '[', '(', ':', ',']).next().unwrap_or("");
    let why = why.split_whitespace();
    let why: Vec<&str> = why
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .collect();
    format!("{} | {}", head.join(" "), why.join(" "))
}

/// Takes events away from a world that is broken.
pub(crate) fn shrink(seed: u64, planted: Planted, broken: Broken) -> Short {
    let promise = promise_of(&broken.what);
    let all: BTreeSet<u32> = broken.happened.iter().map(|event| event.number).collect();
    let mut tries = 0;
    let mut breaks = |these: &BTreeSet<u32>| {
        tries += 1;
        let script = Script::Only(these.clone());
        let broken = world::lives(seed, &script, planted, false).err()?;
        (promise_of(&broken.what) == promise).then_some(broken)
    };
    let mut kept = all.clone();
    let mut last = broken;
    let mut parts = 2;
    let mut left = TRIES_MAX;
    while kept.len() > 1 && left > 0 {
        let numbers: Vec<u32> = kept.iter().copied().collect();
        let length = numbers.len().div_ceil(parts);
        let without = numbers.chunks(length).find_map(|part| {
            if left == 0 {
                return None;
            }
            left -= 1;
            let rest: BTreeSet<u32> = kept.iter().filter(|n| !part.contains(n)).copied().collect();
            Some((breaks(&rest)?, rest))
        });
        match without {
            Some((broken, rest)) => {
                // What did not come to happen is not needed either.
                let happened: BTreeSet<u32> = broken.happened.iter().map(|e| e.number).collect();
                kept = rest.intersection(&happened).copied().collect();
                last = broken;
                parts = (parts - 1).max(2);
            }
            None if length == 1 => break,
            None => parts = (2 * parts).min(numbers.len()),
        }
    }
    // With none at all, where nothing but the world itself is wrong.
    if let Some(broken) = breaks(&BTreeSet::new()) {
        (kept, last) = (BTreeSet::new(), broken);
    }
    Short {
        seed,
        script: Script::Only(kept),
        broken: last,
        of: all.len(),
        tries,
    }
}
