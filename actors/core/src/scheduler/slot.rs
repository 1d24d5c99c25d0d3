//! One slot of the lane: who may send, and what is under way. A slot's credit comes from its
//! caller's `Ready` and is spent on exactly one run.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{AttemptNo, Dispatch, JobEntry, JobId, Timestamp};
use crate::queue::Place;

/// What a slot is doing.
#[derive(Debug, Clone)]
pub enum Slot {
    /// Its caller has not announced itself to this generation: a call may be open.
    Unknown,
    /// Its caller is ready: the slot holds one credit.
    Idle,
    /// The credit is promised to a job whose start is being put on disk.
    Starting {
        /// The job.
        entry: JobEntry,
        /// Where it goes and since when.
        sending: Sending,
        /// The commit that is waited for.
        ticket: u64,
        /// Whether the job was cancelled meanwhile.
        cancelled: bool,
    },
    /// The credit is spent: the caller has the job.
    Busy {
        /// The job, with its open attempt.
        dispatch: Arc<Dispatch>,
        /// Where it went and when.
        sending: Sending,
        /// Whether the job was cancelled meanwhile.
        cancelled: bool,
    },
}

/// What is known of a call from the decision to send it.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The model it is sent to: the job's own or a fallback.
    pub model: Arc<str>,
    /// When that was decided.
    pub at: Timestamp,
    /// The same by the clock that paces go by; `None`: no pace counts it.
    pub paced: Option<Timestamp>,
    /// The priority that its job had risen to.
    pub urgency: i64,
}

impl Slot {
    /// Whether a call is open on it, may be, or is about to be.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Busy { .. })
    }

    /// The model that its call goes to.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.sending().map(|sending| &*sending.model)
    }

    /// What is known of its call from the decision to send it.
    #[must_use]
    pub const fn sending(&self) -> Option<&Sending> {
        match self {
            Self::Unknown | Self::Idle => None,
            Self::Starting { sending, .. } | Self::Busy { sending, .. } => Some(sending),
        }
    }

    /// Its job has another priority.
    pub fn reprioritise(&mut self, priority: i32) {
        match self {
            Self::Unknown | Self::Idle => {}
            // The answer to its start brings the job as it is by then.
            Self::Starting { entry, .. } => entry.priority = priority,
            Self::Busy { dispatch, .. } => reprioritise(dispatch, priority),
        }
    }

    /// The job that it has.
    #[must_use]
    pub fn job_id(&self) -> Option<JobId> {
        match self {
            Self::Unknown | Self::Idle => None,
            Self::Starting { entry, .. } => Some(entry.id),
            Self::Busy { dispatch, .. } => Some(dispatch.job.id),
        }
    }
}

/// A dispatched job has another priority: a retry of it goes back into the queue by what the dispatch says.
pub fn reprioritise(dispatch: &mut Arc<Dispatch>, priority: i32) {
    Arc::make_mut(dispatch).job.priority = priority;
}

/// The number of the open attempt of a dispatched job; 0 if the store left it out.
#[must_use]
pub fn attempt_of(dispatch: &Dispatch) -> AttemptNo {
    dispatch.job.open.map_or(AttemptNo(0), |open| open.no)
}

/// A job whose next attempt is on record ahead of the slot, or about to be.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The job.
    pub entry: JobEntry,
    /// Its place in the order of dispatch when it was taken.
    pub place: Place,
    /// The commit that puts it on record.
    pub ticket: u64,
    /// What the call needs, once the commit has been answered.
    pub dispatch: Option<Arc<Dispatch>>,
    /// The commit that says that it may be sent before its start is stored; `None`: it may not.
    pub released: Option<u64>,
}

/// The staged jobs, most urgent first, and how many there should be.
#[derive(Debug, Clone)]
pub struct Stage {
    jobs: Vec<Staged>,
    depth: usize,
    window: usize,
    max: usize,
    /// Runs since the depth was last too small or shrank, and since the window was last looked at.
    calm: u32,
    runs: u32,
    /// The commits that bring the starts of jobs that were sent ahead of them.
    ahead: VecDeque<u64>,
    /// The most of them since the window was last looked at.
    ahead_peak: usize,
}

/// Runs without a stall after which the stage becomes shallower.
const CALM_RUNS: u32 = 256;
/// Runs after which the window is fitted to how many were sent ahead of their starts.
const WINDOW_RUNS: u32 = 64;

/// Less by one part in so many, and never nothing.
fn shrunk(count: usize, parts: usize) -> usize {
    count.saturating_sub((count / parts).max(1)).max(1)
}

impl Stage {
    /// Writes what is staged, with commits by how long ago they were asked for. What it learns over many runs is left
    /// out: it decides nothing before there were [`WINDOW_RUNS`] of them.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn imprint(
        &self,
        ticket: u64,
        is_answered: impl Fn(u64) -> bool,
        to: &mut impl std::fmt::Write,
    ) -> std::fmt::Result {
        let Self {
            jobs,
            depth,
            window,
            max: _,
            calm: _,
            runs: _,
            ahead,
            ahead_peak: _,
        } = self;
        for staged in jobs {
            let Staged {
                entry,
                place,
                ticket: put_by,
                dispatch,
                released,
            } = staged;
            write!(to, "{entry:?}{place:?}{dispatch:?}")?;
            // Once the stage is answered nobody asks again by which commit.
            write!(to, "{:?}", dispatch.is_none().then(|| ticket - put_by))?;
            let open = released.map(|by| (!is_answered(by)).then(|| ticket - by));
            write!(to, "{open:?};")?;
        }
        let ahead = ahead.iter().map(|by| ticket - by);
        write!(to, "{depth}/{window}{:?}", ahead.collect::<Vec<_>>())
    }

    /// An empty one that never gets deeper than `depth_max` a slot.
    #[must_use]
    pub const fn new(depth_max: usize) -> Self {
        Self {
            jobs: Vec::new(),
            depth: 1,
            window: 1,
            max: depth_max,
            calm: 0,
            runs: 0,
            ahead: VecDeque::new(),
            ahead_peak: 0,
        }
    }

    /// How many jobs a slot should have staged.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// How many of them it should be allowed to send before their starts are stored: so many are in doubt after a
    /// crash.
    #[must_use]
    pub const fn window(&self) -> usize {
        self.window
    }

    /// A slot had to wait for the disk although work was there: commits take longer than calls.
    pub fn stalled(&mut self) {
        self.depth = (self.depth * 2).min(self.max);
        self.calm = 0;
        self.held_back();
    }

    /// A slot had to wait for the disk although a staged job was there: no more were allowed to be sent before their
    /// starts are stored. Where as many as are staged may be, too few are: the next are said of when half of those are gone,
    /// so that half of them have to last for a commit.
    pub fn held_back(&mut self) {
        if self.window >= self.depth {
            self.depth = (self.depth * 2).min(self.max);
            self.calm = 0;
        } else {
            self.window = (self.window * 2).min(self.max);
        }
        self.runs = 0;
    }

    /// A slot went on without waiting for the commit that brings the start.
    pub fn ran(&mut self, ticket: u64) {
        self.ahead.push_back(ticket);
        self.ahead_peak = self.ahead_peak.max(self.ahead.len());
        self.calm += 1;
        if self.calm >= CALM_RUNS {
            self.calm = 0;
            self.depth = shrunk(self.depth, 8);
        }
        self.runs += 1;
        if self.runs >= WINDOW_RUNS {
            self.runs = 0;
            // So many are sent while a release is on its way to the disk, and as many until the next one is there.
            let needed = match std::mem::take(&mut self.ahead_peak) {
                0 | 1 => 1,
                peak => peak * 3,
            };
            self.window = shrunk(self.window, 4).max(needed.min(self.window));
        }
    }

    /// A commit is on disk.
    pub fn answered(&mut self, ticket: u64) {
        while self.ahead.front().is_some_and(|ahead| *ahead <= ticket) {
            self.ahead.pop_front();
        }
    }

    /// The first so many may be sent before their starts are stored, says the commit with this ticket, and no
    /// others. Tells whether that is news: it is none where enough of them may already.
    pub fn release(&mut self, count: usize, ticket: u64) -> bool {
        let may = |staged: &&Staged| staged.released.is_some();
        let count = count.min(self.jobs.len());
        // Said of several at once: each saying is a row to write.
        let some = self.jobs.iter().take(count).filter(may).count();
        if count == 0 || (some * 2 > count && self.jobs.first().as_ref().is_some_and(may)) {
            return false;
        }
        for (at, staged) in self.jobs.iter_mut().enumerate() {
            staged.released = match staged.released {
                _ if at >= count => None,
                Some(before) => Some(before),
                None => Some(ticket),
            };
        }
        true
    }

    /// Who may be sent before their starts are stored.
    pub fn released(&self) -> impl Iterator<Item = JobId> {
        let may = |staged: &&Staged| staged.released.is_some();
        self.jobs.iter().filter(may).map(|staged| staged.entry.id)
    }

    /// Since when the oldest of them could have run.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.jobs.iter().map(|staged| staged.entry.since).min()
    }

    /// Their priorities.
    pub fn priorities(&self) -> impl Iterator<Item = i32> {
        self.jobs.iter().map(|staged| staged.entry.priority)
    }

    /// How many are staged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The most urgent one.
    #[must_use]
    pub fn first(&self) -> Option<&Staged> {
        self.jobs.first()
    }

    /// The least urgent one.
    #[must_use]
    pub fn last(&self) -> Option<&Staged> {
        self.jobs.last()
    }

    /// Puts one before the first that it outranks, or last. So of those that age alike the most urgent comes first;
    /// jobs that age differently stand in the order in which they came, but where that would break the former.
    pub fn insert(&mut self, staged: Staged) {
        self.insert_near(self.jobs.len(), staged);
    }

    /// Puts one as near to where it stood as the others of its ageing allow.
    fn insert_near(&mut self, at: usize, staged: Staged) {
        let before = |other: &Staged| other.place.outranks(staged.place);
        let behind = |other: &Staged| staged.place.outranks(other.place);
        let least = self.jobs.iter().rposition(before).map_or(0, |at| at + 1);
        let most = self.jobs.iter().position(behind);
        let at = at.max(least).min(most.unwrap_or(self.jobs.len()));
        self.jobs.insert(at, staged);
    }

    /// Changes the place of a job's, and what else `change` does of it. Tells whether it is staged.
    pub fn change(&mut self, id: JobId, change: impl FnOnce(&mut Staged)) -> bool {
        let Some(at) = self.jobs.iter().position(|staged| staged.entry.id == id) else {
            return false;
        };
        let mut staged = self.jobs.remove(at);
        change(&mut staged);
        self.insert_near(at, staged);
        true
    }

    /// Puts one back before all others: it was the first of those that may go.
    pub fn put_first(&mut self, staged: Staged) {
        self.jobs.insert(0, staged);
    }

    /// Takes the one of a job.
    pub fn take(&mut self, id: JobId) -> Option<Staged> {
        let at = self.jobs.iter().position(|staged| staged.entry.id == id)?;
        Some(self.jobs.remove(at))
    }

    /// Whether the job is staged.
    #[must_use]
    pub fn contains(&self, id: JobId) -> bool {
        self.jobs.iter().any(|staged| staged.entry.id == id)
    }

    /// All of them, the most urgent first.
    pub fn iter(&self) -> impl Iterator<Item = &Staged> {
        self.jobs.iter()
    }

    /// Takes those that `leaves` says.
    pub fn take_where(&mut self, leaves: impl Fn(&JobEntry) -> bool) -> Vec<Staged> {
        self.jobs
            .extract_if(.., |staged| leaves(&staged.entry))
            .collect()
    }

    /// Takes those whose deadline has passed.
    pub fn expire(&mut self, now: Timestamp) -> Vec<JobEntry> {
        self.jobs
            .extract_if(.., |staged| {
                staged
                    .entry
                    .deadline
                    .is_some_and(|deadline| deadline <= now)
            })
            .map(|staged| staged.entry)
            .collect()
    }

    /// When the first deadline of them passes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.jobs.iter().filter_map(|s| s.entry.deadline).min()
    }

    /// The one of a job, to change it.
    pub fn get_mut(&mut self, id: JobId) -> Option<&mut Staged> {
        self.jobs.iter_mut().find(|staged| staged.entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Job, Seq, Settings};
    use crate::queue::Queue;

    const DEPTH_MAX: usize = 64;

    fn staged(seq: u64, change: impl FnOnce(&mut JobEntry)) -> Staged {
        let id = JobId::from_bytes(u128::from(seq).to_be_bytes());
        let mut entry = Job::new(id, "u", "m", Timestamp::default()).entry();
        entry.seq = Seq(seq);
        change(&mut entry);
        Staged {
            place: Queue::new().place_of(&entry),
            entry,
            ticket: 1,
            dispatch: None,
            released: None,
        }
    }

    /// One of this number and priority, of a lane whose jobs rise so.
    fn staged_in((seq, priority, ageing_ms): (u64, i32, u64)) -> Staged {
        let mut settings = Settings::default();
        settings.lane.rules.order.ageing_ms = ageing_ms;
        let mut line = Queue::new();
        line.configure(&settings);
        let mut staged = staged(seq, |entry| entry.priority = priority);
        staged.place = line.place_of(&staged.entry);
        staged
    }

    fn stage_of(jobs: u64) -> Stage {
        let mut stage = Stage::new(DEPTH_MAX);
        (1..=jobs).for_each(|seq| stage.insert(staged(seq, |_| ())));
        stage
    }

    /// By which commit each may be sent ahead.
    fn released(stage: &Stage) -> Vec<Option<u64>> {
        stage.iter().map(|staged| staged.released).collect()
    }

    #[test]
    fn as_many_as_are_said_may_be_sent_ahead_and_no_others() {
        let mut stage = stage_of(4);
        assert!(stage.release(2, 7));
        assert_eq!(released(&stage), [Some(7), Some(7), None, None]);
        assert!(!stage.release(3, 8), "two of three are enough");
        assert!(stage.release(4, 9), "half of them are not");
        assert_eq!(released(&stage), [Some(7), Some(7), Some(9), Some(9)]);
        stage.insert(staged(0, |_| ()));
        assert!(stage.release(2, 10), "the first is new");
        assert_eq!(released(&stage), [Some(10), Some(7), None, None, None]);
        let first = stage.iter().take(2).map(|staged| staged.entry.id);
        assert!(stage.released().eq(first));
        assert!(!stage.release(0, 11));
    }

    #[test]
    fn a_staged_job_stands_before_the_first_that_it_outranks_which_ages_as_it_does() {
        let mut stage = Stage::new(DEPTH_MAX);
        let came = [
            (1, 0, 30_000),
            (2, 5, 18_000),
            (3, 7, 18_000),
            (4, 9, 30_000),
            (5, 1, 18_000),
        ];
        for job in came {
            stage.insert(staged_in(job));
        }
        let seqs: Vec<u64> = stage.iter().map(|staged| staged.entry.seq.0).collect();
        assert_eq!(seqs, [4, 1, 3, 2, 5]);
    }

    #[test]
    fn a_staged_job_of_another_priority_moves_no_farther_than_it_has_to() {
        let jobs = [
            (1, 5, 30_000),
            (2, 5, 18_000),
            (3, 4, 30_000),
            (4, 4, 18_000),
        ];
        let moved = |seq: u64, priority: i32| {
            let mut stage = Stage::new(DEPTH_MAX);
            for job in jobs {
                stage.insert(staged_in(job));
            }
            let (_, _, ageing_ms) = jobs[usize::try_from(seq).unwrap() - 1];
            let changed = staged_in((seq, priority, ageing_ms));
            let id = changed.entry.id;
            assert!(stage.change(id, |staged| *staged = changed));
            let seqs = stage.iter().map(|staged| staged.entry.seq.0);
            seqs.collect::<Vec<_>>()
        };
        assert_eq!(moved(1, 9), [1, 2, 3, 4], "raised");
        assert_eq!(moved(2, 5), [1, 2, 3, 4], "as before");
        assert_eq!(moved(1, 1), [2, 3, 1, 4], "behind the one that outranks it");
        assert_eq!(moved(4, 9), [1, 4, 2, 3], "before the one that it outranks");
        let mut stage = Stage::new(DEPTH_MAX);
        let nobody = JobId::from_bytes([9; 16]);
        assert!(!stage.change(nobody, |_| ()));
    }

    #[test]
    fn who_was_held_back_may_send_twice_as_far_ahead_of_twice_as_many_up_to_a_bound() {
        let mut stage = Stage::new(DEPTH_MAX);
        let bounds = [2, 4, 8, 16, 32, 64];
        for (window, depth) in bounds.into_iter().flat_map(|to| [(to / 2, to), (to, to)]) {
            stage.held_back();
            assert_eq!((stage.window(), stage.depth()), (window, depth));
        }
        stage.held_back();
        assert_eq!((stage.window(), stage.depth()), (DEPTH_MAX, DEPTH_MAX));
    }

    #[test]
    fn the_window_shrinks_to_three_times_what_was_sent_ahead() {
        let mut stage = Stage::new(DEPTH_MAX);
        (0..8).for_each(|_| stage.held_back());
        assert_eq!(stage.window(), 16);
        let mut run = |at_once: u64| {
            for ticket in 1..=u64::from(WINDOW_RUNS) {
                stage.ran(ticket);
                if ticket >= at_once {
                    stage.answered(ticket);
                }
            }
            stage.window()
        };
        assert_eq!(run(5), 15);
        assert_eq!(run(1), 12, "by a quarter at most");
    }

    #[test]
    fn the_oldest_and_the_first_deadline_are_known_wherever_they_stand() {
        let at = Timestamp::from_millis;
        let mut stage = Stage::new(DEPTH_MAX);
        assert_eq!((stage.oldest(), stage.next_deadline()), (None, None));
        for (seq, since, deadline) in [(1, 30, None), (2, 10, Some(90)), (3, 20, Some(80))] {
            stage.insert(staged(seq, |entry| {
                entry.since = at(since);
                entry.deadline = deadline.map(at);
            }));
        }
        assert_eq!(stage.oldest(), Some(at(10)));
        assert_eq!(stage.next_deadline(), Some(at(80)));
    }
}
