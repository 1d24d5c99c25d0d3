//! The time below a picture: where a moment stands, and the marks of the scale.

use onelane_core::model::Timestamp;

/// A time from one side of a picture to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    left: u64,
    right: u64,
    from: Timestamp,
    whole: u64,
}

/// A mark of the scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) x: u64,
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

impl Axis {
    /// From the first of these times to the last; `None`: there are none.
    pub(super) fn over(
        times: impl Iterator<Item = (Timestamp, Timestamp)> + Clone,
        (left, right): (u64, u64),
    ) -> Option<Self> {
        let from = times.clone().map(|(from, _)| from).min()?;
        let to = times.map(|(_, to)| to).max()?;
        Some(Self {
            left,
            right,
            from,
            whole: to.since(from).max(1),
        })
    }

    /// Where it begins.
    pub(super) const fn from(&self) -> Timestamp {
        self.from
    }

    /// How long it is, in milliseconds.
    pub(super) const fn whole(&self) -> u64 {
        self.whole
    }

    /// Where a moment stands.
    pub(super) fn at(&self, moment: Timestamp) -> u64 {
        self.place(moment.since(self.from))
    }

    fn place(&self, ms: u64) -> u64 {
        let width = u128::from(self.right - self.left);
        let far = width * u128::from(ms.min(self.whole)) / u128::from(self.whole);
        self.left + u64::try_from(far).unwrap_or(0)
    }

    /// The marks of its quarters; `tell` says how much of it lies before one and how much after, in milliseconds.
    pub(super) fn marks(&self, tell: impl Fn(u64, u64) -> String) -> Vec<Mark> {
        let mark = |quarter: u64| {
            let before = self.whole / 4 * quarter + self.whole % 4 * quarter / 4;
            Mark {
                x: self.left + (self.right - self.left) * quarter / 4,
                anchor: match quarter {
                    0 => "start",
                    4 => "end",
                    _ => "middle",
                },
                text: tell(before, self.whole - before),
            }
        };
        (0..=4).map(mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stand_between_the_sides_and_the_marks_are_its_quarters() {
        let at = |ms: i64| Timestamp::from_millis(1_000 + ms);
        let times = [(at(0), at(10)), (at(5), at(400))];
        let axis = Axis::over(times.into_iter(), (100, 500)).unwrap();
        assert_eq!(axis.whole(), 400);
        assert_eq!([0, 100, 400].map(|ms| axis.at(at(ms))), [100, 200, 500]);
        assert_eq!([axis.at(at(-9)), axis.at(at(900))], [100, 500]);
        let marks = axis.marks(|before, after| format!("{before}/{after}"));
        let told: Vec<_> = marks.iter().map(|mark| (mark.x, &*mark.text)).collect();
        let want = [
            (100, "0/400"),
            (200, "100/300"),
            (300, "200/200"),
            (400, "300/100"),
            (500, "400/0"),
        ];
        assert_eq!(told, want);
        assert!(Axis::over([].into_iter(), (0, 1)).is_none());
    }
}
