//! Priorities in a few classes, so that figures of them stay few however many priorities there are.

use std::fmt;

/// The priorities from which on a job is urgent.
const URGENT_FROM: i32 = 100;

/// A class of priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PriorityClass {
    /// 100 and above.
    Urgent,
    /// 1 to 99.
    High,
    /// 0, the priority of jobs that name none.
    Normal,
    /// Below 0: what can wait, such as the lines of batches.
    Low,
}

impl PriorityClass {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];
    /// Their names, in that order.
    pub const NAMES: [&'static str; 4] = ["urgent", "high", "normal", "low"];

    /// The class of a priority.
    #[must_use]
    pub const fn of(priority: i32) -> Self {
        match priority {
            URGENT_FROM.. => Self::Urgent,
            1.. => Self::High,
            0 => Self::Normal,
            _ => Self::Low,
        }
    }

    /// The name used in the API and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for PriorityClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_priority_is_in_one_class() {
        let check = |priority, class| assert_eq!(PriorityClass::of(priority), class, "{priority}");
        check(i32::MAX, PriorityClass::Urgent);
        check(100, PriorityClass::Urgent);
        check(99, PriorityClass::High);
        check(1, PriorityClass::High);
        check(0, PriorityClass::Normal);
        check(-1, PriorityClass::Low);
        check(i32::MIN, PriorityClass::Low);
        let names = PriorityClass::ALL.map(PriorityClass::name);
        assert_eq!(names, PriorityClass::NAMES);
    }
}
