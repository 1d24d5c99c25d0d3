//! The clocks of a world: as long as its processes were awake, GLM's, and a wall clock that may be set.

use onelane_actors::ports::Clock;
use onelane_actors::testing::SimClock;
use onelane_core::model::Timestamp;

/// The moment by all clocks of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// As long as the processes were awake: what they do has its time by this clock.
    pub(crate) awake: Timestamp,
    /// GLM's, which goes on while a process is frozen.
    pub(crate) glm: Timestamp,
    /// The wall clock of the processes, which may be set.
    pub(crate) wall: Timestamp,
    /// The latest that it ever told.
    pub(crate) latest_wall: Timestamp,
    /// When a process was last frozen or the wall clock set, by the first clock.
    pub(crate) disturbed: Timestamp,
    /// When the wall clock was last set back, by the first clock.
    pub(crate) set_back: Option<Timestamp>,
    /// When a pace could last not be kept, by the second: a call was frozen on its way, or a queue had to read in the
    /// call log when calls began, by a clock that was set since.
    pub(crate) unpaced: Timestamp,
}

/// By how much the wall clock was ahead of the time awake, from which moment of that on.
#[derive(Debug)]
pub(crate) struct Marks(Vec<(Timestamp, i64)>);

/// The moment, and what the wall clock meant before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    pub(crate) now: Now,
    pub(crate) marks: &'a Marks,
}

impl Heard<'_> {
    /// When it was last so late by the wall clock, by the time awake.
    pub(crate) fn awake_at(&self, wall: Timestamp) -> Timestamp {
        let moments = self.each_awake_at(wall);
        moments.first().copied().unwrap_or(self.now.awake)
    }

    /// Every moment at which it was so late by the wall clock, by the time awake: it may have been set back over it.
    pub(crate) fn each_awake_at(&self, wall: Timestamp) -> Vec<Timestamp> {
        let mut until = self.now.awake;
        let mut moments = Vec::new();
        for (from, ahead_ms) in self.marks.0.iter().rev() {
            let at = shifted(wall, -ahead_ms);
            if (*from..=until).contains(&at) {
                moments.push(at);
            }
            until = *from;
        }
        if moments.is_empty() {
            moments.push(self.now.awake);
        }
        moments
    }

    /// Whether a process was frozen or the clock set since this moment, by the time awake.
    pub(crate) fn is_disturbed_since(&self, awake: Timestamp) -> bool {
        self.now.disturbed >= awake
    }

    /// Whether the clock was set back since this moment, by the time awake.
    pub(crate) fn is_set_back_since(&self, awake: Timestamp) -> bool {
        self.now.set_back.is_some_and(|at| at >= awake)
    }
}

/// A moment, moved.
pub(crate) fn shifted(at: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_add(ms))
}

/// The clocks, and what was done to them.
pub(crate) struct Clocks {
    /// The process's wall clock.
    clock: Option<SimClock>,
    /// GLM's time while no process runs.
    last: Timestamp,
    frozen_ms: u64,
    /// By how much the wall clock is ahead of GLM's.
    ahead_ms: i64,
    latest_wall: Timestamp,
    disturbed: Timestamp,
    set_back: Option<Timestamp>,
    unpaced: Timestamp,
    /// When the wall clock was last set, by GLM's.
    stepped: Option<Timestamp>,
    marks: Marks,
}

/// Calls that began longer ago matter to no minute any more, in milliseconds.
const LOGGED_MS: u64 = 120_000;

impl Clocks {
    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self {
            clock: None,
            last: start,
            frozen_ms: 0,
            ahead_ms: 0,
            latest_wall: start,
            disturbed: start,
            set_back: None,
            unpaced: start,
            stepped: None,
            marks: Marks(vec![(start, 0)]),
        }
    }

    /// A process begins. Call it on its runtime.
    pub(crate) fn boot(&mut self) {
        self.clock = Some(SimClock::starting_at(shifted(self.last, self.ahead_ms)));
    }

    /// A process has ended, so long before the next begins. Call it on its runtime.
    pub(crate) fn rest(&mut self, down_ms: u64) {
        self.last = self.at_glm().plus_ms(down_ms);
        self.clock = None;
    }

    /// The wall clock of the process that runs.
    pub(crate) fn wall_clock(&self) -> SimClock {
        self.clock.clone().expect("a process runs")
    }

    /// As long as the processes were awake.
    pub(crate) fn now(&self) -> Timestamp {
        self.at_glm().minus_ms(self.frozen_ms)
    }

    /// GLM's.
    pub(crate) fn at_glm(&self) -> Timestamp {
        let wall = self.clock.as_ref().map(Clock::now);
        wall.map_or(self.last, |wall| shifted(wall, -self.ahead_ms))
    }

    /// What a clock on the wall tells.
    pub(crate) fn wall(&self) -> Timestamp {
        shifted(self.at_glm(), self.ahead_ms)
    }

    /// All of them.
    pub(crate) fn times(&self) -> Now {
        let wall = self.wall();
        Now {
            awake: self.now(),
            glm: self.at_glm(),
            wall,
            latest_wall: self.latest_wall.max(wall),
            disturbed: self.disturbed,
            set_back: self.set_back,
            unpaced: self.unpaced,
        }
    }

    /// The moment, and what the wall clock meant before.
    pub(crate) fn heard(&self) -> Heard<'_> {
        Heard {
            now: self.times(),
            marks: &self.marks,
        }
    }

    /// A queue reads in the call log when calls began.
    pub(crate) fn recovers(&mut self) {
        let at_glm = self.at_glm();
        if self.stepped.is_some_and(|at| at_glm.since(at) < LOGGED_MS) {
            self.unpaced = at_glm;
        }
    }

    /// The wall clock is set.
    pub(crate) fn step(&mut self, ms: i64) {
        self.latest_wall = self.times().latest_wall;
        self.ahead_ms += ms;
        if let Some(clock) = &self.clock {
            clock.step(ms);
        }
        if ms < 0 {
            self.set_back = Some(self.now());
        }
        self.disturbed = self.now();
        self.stepped = Some(self.at_glm());
        self.mark(self.now());
    }

    /// By how much it tells moments that it told before.
    pub(crate) fn behind_ms(&self) -> u64 {
        let now = self.times();
        now.latest_wall.since(now.wall)
    }

    /// Nothing of the process runs for so long, from now on. Answers when that is over, by GLM's clock.
    pub(crate) fn freeze(&mut self, ms: u64) -> Timestamp {
        let thaw = self.at_glm().plus_ms(ms);
        self.frozen_ms += ms;
        // The time of the thaw.
        let awake = self.now().plus_ms(ms);
        self.disturbed = awake;
        self.unpaced = thaw;
        self.mark(awake);
        thaw
    }

    fn mark(&mut self, awake: Timestamp) {
        let ahead_ms = self.ahead_ms + self.frozen_ms.cast_signed();
        self.marks.0.push((awake, ahead_ms));
    }
}
