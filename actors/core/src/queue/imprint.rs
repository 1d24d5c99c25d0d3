//! The line in words, for whoever compares two.

use std::fmt::{self, Write};

use super::Queue;

impl Queue {
    /// Writes all that decides what the line does next: two that write the same do the same from here on.
    pub(crate) fn imprint(&self, to: &mut impl Write) -> fmt::Result {
        let Self {
            rules: _,
            entries,
            priorities,
            ready,
            classes,
            due,
            deadlines,
            dormant,
            parked,
            out_of_scope,
            capped,
            scope: _,
            shares: _,
            scheduled,
            users,
            turns,
            runs,
            turns_max,
            now,
        } = self;
        write!(
            to,
            "{entries:?}{priorities:?}{classes:?}{due:?}{deadlines:?}"
        )?;
        write!(
            to,
            "{dormant}/{parked}/{out_of_scope}/{scheduled}/{turns_max}"
        )?;
        write!(to, "{capped:?}{turns:?}{runs:?}{now:?}")?;
        ready.imprint(to)?;
        users.imprint(to)
    }
}
