//! How many values there were, what they come to, and how far they lie apart: what a forecast learns from.

use serde::{Deserialize, Serialize};

/// Count, sum and sum of squares of whole values. Two added are those of all values of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moments {
    /// How many there were.
    pub count: u64,
    /// What they come to.
    pub sum: u64,
    /// What their squares come to.
    squares: u128,
}

impl Moments {
    /// Takes a value in.
    pub fn record(&mut self, value: u64) {
        let square = u128::from(value) * u128::from(value);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(value);
        self.squares = self.squares.saturating_add(square);
    }

    /// Takes in the values of another.
    pub const fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }

    /// Takes out the values of another that were taken in.
    pub const fn remove(&mut self, other: &Self) {
        self.count = self.count.saturating_sub(other.count);
        self.sum = self.sum.saturating_sub(other.sum);
        self.squares = self.squares.saturating_sub(other.squares);
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The mean, rounded up; `None` of none.
    #[must_use]
    pub const fn mean(&self) -> Option<u64> {
        match self.count {
            0 => None,
            count => Some(self.sum.div_ceil(count)),
        }
    }

    /// Their standard deviation; `None` of fewer than two.
    #[must_use]
    pub fn deviation(&self) -> Option<u64> {
        let deviation = self.variance()?.isqrt();
        Some(u64::try_from(deviation).unwrap_or(u64::MAX))
    }

    /// The square of their standard deviation; `None` of fewer than two.
    #[must_use]
    pub fn variance(&self) -> Option<u128> {
        let (count, sum) = (u128::from(self.count), u128::from(self.sum));
        let rest = count.checked_sub(1).filter(|rest| *rest > 0)?;
        // Of values that are all alike rounding may leave a little less than nothing.
        let of_mean = sum * (sum / count) + sum * (sum % count) / count;
        Some(self.squares.saturating_sub(of_mean) / rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.record(*value));
        moments
    }

    #[test]
    fn moments_tell_how_far_values_lie_apart_and_add_up() {
        assert_eq!(of(&[]).variance(), None);
        assert_eq!(of(&[7]).variance(), None);
        assert_eq!(of(&[7, 7, 7]).variance(), Some(0));
        assert_eq!(of(&[2, 4, 4, 4, 5, 5, 7, 9]).variance(), Some(4));
        let mut both = of(&[2, 4, 4]);
        both.merge(&of(&[4, 5, 5, 7, 9]));
        assert_eq!(both, of(&[2, 4, 4, 4, 5, 5, 7, 9]));
        both.remove(&of(&[5, 5]));
        assert_eq!(both, of(&[2, 4, 4, 4, 7, 9]));
        let large = of(&[1_000_000_000_000, 3_000_000_000_000]);
        assert_eq!(large.variance(), Some(2 * 10_u128.pow(24)));
        let row = serde_json::to_string(&large).unwrap();
        assert_eq!(serde_json::from_str::<Moments>(&row).unwrap(), large);
    }
}
