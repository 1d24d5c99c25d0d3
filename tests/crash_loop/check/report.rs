//! What a loop found, in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::KILLS_OF_A_LOOP;
use super::doubts::Doubted;
use super::gateway::Streams;

/// What GLM was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    /// Calls that it saw.
    pub(crate) arrived: u64,
    pub(crate) jobs: u64,
    /// Rows of the call log.
    pub(crate) by_outcome: BTreeMap<&'static str, u64>,
    /// Of them, those of which it saw nothing.
    pub(crate) never_arrived: u64,
    /// Answers that it gave to a prompt that it had answered.
    pub(crate) bought_again: u64,
}

/// The figures of one loop, or of several.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) kills: u64,
    /// Of them, those before anybody was told where the process listens.
    pub(crate) kills_at_start: u64,
    pub(crate) acknowledged: u64,
    pub(crate) answers_seen: u64,
    pub(crate) ran_after_others: u64,
    pub(crate) calls: Calls,
    pub(crate) peak: u64,
    pub(crate) doubts: Doubted,
    pub(crate) streams: Streams,
    pub(crate) batches: u64,
    pub(crate) batches_wrong: u64,
    pub(crate) batches_given_up: u64,
    pub(crate) lines: u64,
    pub(crate) results: u64,
    pub(crate) keys: u64,
    pub(crate) keys_revoked: u64,
    pub(crate) rotations: u64,
    pub(crate) shown_in_vain: u64,
    pub(crate) refused: u64,
    /// From the start of a process to the first time that it said that it takes work, after a kill.
    pub(crate) ready: Vec<Duration>,
    /// The bytes of the largest store.
    pub(crate) store_bytes: u64,
}

impl Report {
    /// Takes another loop's figures in.
    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            calls,
            doubts,
            streams,
            ready,
            ..
        } = other;
        for (sum, more) in [
            (&mut self.kills, other.kills),
            (&mut self.kills_at_start, other.kills_at_start),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.answers_seen, other.answers_seen),
            (&mut self.ran_after_others, other.ran_after_others),
            (&mut self.calls.arrived, calls.arrived),
            (&mut self.calls.jobs, calls.jobs),
            (&mut self.calls.never_arrived, calls.never_arrived),
            (&mut self.calls.bought_again, calls.bought_again),
            (&mut self.doubts.possible, doubts.possible),
            (&mut self.doubts.booked, doubts.booked),
            (&mut self.doubts.spared, doubts.spared),
            (&mut self.streams.asked, streams.asked),
            (&mut self.streams.tellings, streams.tellings),
            (&mut self.streams.lost, streams.lost),
            (
                &mut self.streams.lost_in_the_middle,
                streams.lost_in_the_middle,
            ),
            (&mut self.streams.told_in_doubt, streams.told_in_doubt),
            (&mut self.streams.given_up, streams.given_up),
            (&mut self.streams.cut, streams.cut),
            (&mut self.batches, other.batches),
            (&mut self.batches_wrong, other.batches_wrong),
            (&mut self.batches_given_up, other.batches_given_up),
            (&mut self.lines, other.lines),
            (&mut self.results, other.results),
            (&mut self.keys, other.keys),
            (&mut self.keys_revoked, other.keys_revoked),
            (&mut self.rotations, other.rotations),
            (&mut self.shown_in_vain, other.shown_in_vain),
            (&mut self.refused, other.refused),
        ] {
            *sum += more;
        }
        for (outcome, rows) in calls.by_outcome {
            *self.calls.by_outcome.entry(outcome).or_default() += rows;
        }
        self.peak = self.peak.max(other.peak);
        self.doubts.most = self.doubts.most.max(doubts.most);
        self.store_bytes = self.store_bytes.max(other.store_bytes);
        self.ready.extend(ready);
    }
}

impl Report {
    /// A loop that tries nothing finds nothing.
    pub(crate) fn has_tried_chains(&self) {
        if self.kills >= KILLS_OF_A_LOOP {
            assert!(self.ran_after_others > 0, "no chain was tried");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            doubts,
            streams,
            ..
        } = self;
        let mut ready = self.ready.clone();
        ready.sort_unstable();
        let ms = |at: usize| ready.get(at).map_or(0, Duration::as_millis);
        let (median, worst) = (ms(ready.len() / 2), ms(ready.len().saturating_sub(1)));
        writeln!(
            f,
            "kills: {}, {} of them during the start",
            self.kills, self.kills_at_start
        )?;
        writeln!(
            f,
            "jobs: {} acknowledged, {} stored, {} ran after others, {} answers read meanwhile",
            self.acknowledged, calls.jobs, self.ran_after_others, self.answers_seen
        )?;
        writeln!(
            f,
            "calls: {} arrived, {} at once at most, {} bought again; rows {:?}, {} of them never arrived",
            calls.arrived, self.peak, calls.bought_again, calls.by_outcome, calls.never_arrived
        )?;
        writeln!(
            f,
            "in doubt: {:.1} after a kill in the mean, {} at most, {} on record; {} staged ones were spared",
            doubts.possible as f64 / self.kills.max(1) as f64,
            doubts.most,
            doubts.booked,
            doubts.spared
        )?;
        writeln!(
            f,
            "streams: {} chats asked, {} tellings, {} cut by a kill, {} of them in the middle, {} of attempts in doubt; \
             {} jobs given up with their connection, {} cut by GLM",
            streams.asked,
            streams.tellings,
            streams.lost,
            streams.lost_in_the_middle,
            streams.told_in_doubt,
            streams.given_up,
            streams.cut
        )?;
        writeln!(
            f,
            "batches: {}, {} lines, {} results; {} with a wrong line, {} given up",
            self.batches, self.lines, self.results, self.batches_wrong, self.batches_given_up
        )?;
        writeln!(
            f,
            "client keys: {} made, {} revoked, {} replaced; {} times a dead one was shown in vain; {} jobs refused by their bounds",
            self.keys, self.keys_revoked, self.rotations, self.shown_in_vain, self.refused
        )?;
        write!(
            f,
            "from start to ready after a kill: {median} ms in the median, {worst} ms at worst, of {}; the largest store had {} KB",
            ready.len(),
            self.store_bytes / 1_000
        )
    }
}
