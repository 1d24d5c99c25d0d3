//! How much happened, to see that a simulation is worth its time.

/// How often something has to happen.
#[derive(Clone, Copy)]
enum Least {
    /// So often in each world.
    Each(u64),
    /// More often than this in a thousand worlds.
    Some(u64),
    /// It is told, and nothing hangs on it.
    Told,
}

macro_rules! tally {
    ($($name:ident, $least:expr, $what:literal;)+) => {
        /// How often each thing happened.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Tally {
            $(#[doc = $what] pub(crate) $name: u64,)+
        }

        impl Tally {
            /// Adds another world's.
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            fn rows(&self) -> Vec<(&'static str, u64, Least)> {
                vec![$(($what, self.$name, $least)),+]
            }
        }
    };
}

tally! {
    virtual_ms, Least::Told, "milliseconds of virtual time";
    processes, Least::Each(2), "processes";
    recoveries, Least::Each(2), "recoveries";
    commits, Least::Told, "commits";
    jobs, Least::Each(9), "jobs";
    calls, Least::Each(18), "calls";
    holds, Least::Each(3), "holds";
    breaker, Least::Each(1), "openings and closings of the breaker";
    kills, Least::Some(500), "processes that were killed";
    disk_errors, Least::Some(50), "commits that failed";
    panics, Least::Some(50), "actors that failed";
    fetches, Least::Some(50), "tasks fetched";
    interrupted, Least::Some(50), "calls interrupted";
    fallbacks, Least::Some(50), "fallbacks";
    quarantined, Least::Told, "jobs in quarantine";
    clock_steps, Least::Some(50), "steps of the clock";
    freezes, Least::Some(50), "freezes";
    thawed_answers, Least::Some(40), "answers that came while nobody could take them";
    budget_waits, Least::Some(2), "waits for a budget, after the clock was set";
    adoptions, Least::Some(50), "jobs that went to another batch";
    full_disks, Least::Some(50), "commits that found the disk full";
    refused_for_room, Least::Some(50), "submissions that a full disk refused";
    files_gone, Least::Some(50), "files that were gone under their lane";
    streams, Least::Some(500), "answers told in pieces";
    streams_cut, Least::Some(50), "of them cut in the middle";
    read_whole, Least::Some(200), "readings of a stream to its end";
    read_in_part, Least::Some(40), "readings of a stream that ended before its end";
    readers_left, Least::Some(50), "readers who left in the middle";
    readers_back, Least::Some(50), "readers who came back, and read the same again";
    waited_for_readers, Least::Some(20), "calls that waited for a reader";
    attended, Least::Some(500), "clients that waited for their answers";
    given_up, Least::Some(50), "jobs given up because their clients had left";
    clients_back, Least::Some(50), "clients that came back with their key, and found their job";
    told_again, Least::Some(50), "answers told again";
    keys_made, Least::Some(100), "client keys made";
    keys_revoked, Least::Some(40), "client keys revoked";
    by_key, Least::Some(500), "calls of client keys";
    by_dead_key, Least::Some(20), "calls of keys that were revoked since their jobs came in";
    key_bounded, Least::Some(50), "calls of keys with a budget or a bound on their calls";
}

impl Tally {
    /// A simulation in which nothing happens proves nothing.
    pub(crate) fn assert_it_was_worth_it(&self, worlds: u64) {
        for (what, seen, least) in self.rows() {
            let wanted = match least {
                Least::Each(each) => worlds * each,
                // One of a thousand worlds may lack anything.
                Least::Some(_) if worlds < 1_000 => 0,
                Least::Some(of_thousand) => of_thousand * worlds / 1_000,
                Least::Told => 0,
            };
            assert!(seen >= wanted, "{seen} {what} in {worlds} worlds");
        }
    }
}
