//! The machine in words, for whoever compares two: a model checker tells by it where it was before.

use std::fmt::{self, Write};

use super::Scheduler;
use super::tracks::Track;
use crate::scheduler::slot::Slot;

impl Scheduler {
    /// The ticket of the next commit.
    #[must_use]
    pub const fn newest_ticket(&self) -> u64 {
        self.out.ticket()
    }

    /// Writes all that decides what the lanes do next: two of the same settings that write the same do the same from here
    /// on. Commits are named by how long ago they were asked for, so that two ways to the same place look alike.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn imprint(&self, to: &mut impl Write) -> fmt::Result {
        let Self {
            generation: _,
            line,
            slots,
            tracks,
            routes,
            recovery,
            gate,
            soon,
            ending,
            state,
            endpoint_digest: _,
            settings: _,
            stopping,
            disk_full,
            breaker,
            steady,
            unsettled,
            unnumbered: _,
            reached,
            out,
        } = self;
        line.imprint(to)?;
        for (id, slot) in slots {
            match slot {
                Slot::Starting {
                    entry,
                    sending,
                    ticket,
                    cancelled,
                } => {
                    let since = out.ticket() - ticket;
                    write!(to, "{id:?}{entry:?}{sending:?}{since}{cancelled}")?;
                }
                other => write!(to, "{id:?}{other:?}")?,
            }
        }
        for (name, track) in tracks {
            let Track {
                stage,
                pace,
                not_before,
                recent,
            } = track;
            write!(to, "{name}{pace:?}{not_before:?}{recent:?}")?;
            stage.imprint(out.ticket(), |by| out.has_answered(Some(by)), to)?;
        }
        routes.imprint(line, to)?;
        out.imprint(to)?;
        write!(to, "{recovery:?}{gate:?}{soon:?}{ending:?}{state:?}")?;
        write!(
            to,
            "{stopping}{disk_full}{breaker:?}{steady:?}{}{reached}",
            unsettled.len()
        )
    }
}
