//! The script of a world: what people do and what goes wrong, event by event. Each has a number and draws from a row
//! of its own, so that any of them can be left out and the others stay what they are.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use onelane_actors::testing::Dice;
use onelane_core::model::Timestamp;

/// Events of one step are numbered from this many times the step.
pub(crate) const PER_STEP: u32 = 10;
/// The first number of what happens at the beginning or the end of a process.
pub(crate) const AROUND: u32 = 1_000;
/// The first number of what an operator has set before the world begins.
pub(crate) const SETTINGS: u32 = 9_000;

/// Which events happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Script {
    /// All that are drawn.
    #[default]
    All,
    /// These alone.
    Only(BTreeSet<u32>),
}

impl Script {
    /// Whether an event may happen.
    pub(crate) fn has(&self, number: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(&number),
        }
    }
}

impl FromStr for Script {
    type Err = String;

    /// `120,131,9003`
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split(',').map(str::trim).filter(|n| !n.is_empty());
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no event"));
        Ok(Self::Only(numbers.map(number).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Only(these) => {
                let these: Vec<String> = these.iter().map(ToString::to_string).collect();
                f.write_str(&these.join(","))
            }
        }
    }
}

/// An event that happened.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    pub(crate) number: u32,
    /// When, by GLM's clock.
    pub(crate) after_ms: u64,
    pub(crate) words: String,
}

impl Happened {
    pub(crate) fn new(number: u32, begin: Timestamp, at: Timestamp, words: String) -> Self {
        Self {
            number,
            after_ms: at.since(begin),
            words,
        }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, tenths) = (self.after_ms / 1_000, self.after_ms % 1_000 / 100);
        match self.number {
            SETTINGS.. => write!(f, "before it begins: {}", self.words),
            _ => write!(f, "at {s}.{tenths} s: {}", self.words),
        }
    }
}

/// What an event draws from.
pub(crate) fn dice_of(seed: u64, number: u32) -> Dice {
    Dice::new(seed, &format!("event {number}"))
}

/// One of these, which each have a number: the same one whatever others there are, as long as it is there.
pub(crate) fn chosen<T>(dice: &mut Dice, of: impl IntoIterator<Item = (u64, T)>) -> Option<T> {
    let row = dice.draw();
    let place = |number: u64| Dice::new(row ^ number, "").draw();
    let all = of.into_iter();
    let first = all.min_by_key(|(number, _)| (place(*number), *number));
    first.map(|(_, what)| what)
}
