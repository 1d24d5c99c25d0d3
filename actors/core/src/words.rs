//! Counts in words that people read: one job, two jobs.

/// A count and what it counts: `1 job`, `2 jobs`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", verb(count, one, many))
}

/// The word that fits a count.
#[must_use]
pub const fn verb<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_everything_else_is_many() {
        let jobs = [0, 1, 2].map(|n| counted(n, "job", "jobs"));
        assert_eq!(jobs, ["0 jobs", "1 job", "2 jobs"]);
    }
}
