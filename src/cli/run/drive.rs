//! The run itself: lines in, jobs out, results as they come. One loop owns everything; whatever takes
//! time is a task beside it whose end is a [`Step`] of the loop.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use onelane::error::Error;
use onelane::model::{Batch, Event, JobId, WaitReason};
use onelane::orchestrator::StopReason;
use onelane::ports::Clock as _;
use onelane::results::{LineError, ResultLine};
use onelane::system::SystemClock;
use onelane::words::counted;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::elapsed_ms;
use super::elsewhere::Others;
use super::identity::{LineId, Name, Source};
use super::input::Chunk;
use super::output::Results;
use super::progress::{Far, Progress, Standstill};
use super::reach::Reach;
use super::ready::{Defaults, Ready};
use super::summary::{End, Failures, Spent, Tally};
use super::tracker::{Tracker, Verdict};
use super::way::{Figures, Heard, Looked, Retried, Trouble, Way};
use crate::cli::exit::{CliError, Exit};
use crate::cli::remote::HandedIn;
use crate::telemetry::Signals;

/// How often figures are fetched and what was refused for lack of room is submitted again.
const TICK: Duration = Duration::from_millis(500);
/// How long a store's trouble waits for the lane to tell what broke the store first.
const REASON_WAIT: Duration = Duration::from_secs(5);
/// Jobs that are looked at at once.
const LOOKS_MAX: usize = 32;

type SubmitReply = Result<Vec<Result<HandedIn, Trouble>>, Trouble>;

/// Bad lines that are told one by one.
pub(crate) const BAD_TOLD_MAX: u64 = 10;

/// How many looks in a row must find that nothing of what is left can go on: one may come while a line
/// of an earlier run is being put back in line.
const STUCK_LOOKS: u32 = 2;

/// What a run sends, and since when.
pub(crate) struct Own {
    /// Its batch, as it was when the run began.
    pub(crate) before: Batch,
    /// What the others that wait are to it: it sends them too.
    pub(crate) sends_all: bool,
    /// What other batches have, where the input could not be looked at before.
    pub(crate) others_have: Others,
    /// Lines of the input, if they were counted before.
    pub(crate) lines: Option<u64>,
    /// Since when it sends.
    pub(crate) since: Instant,
}

/// What the loop has to deal with next.
enum Step {
    Heard(Heard),
    Chunk(Option<Chunk>),
    Submitted(Vec<Ready>, SubmitReply),
    Looked(JobId, Result<Option<Looked>, Trouble>),
    Retried(JobId, Result<Retried, Trouble>),
    Figures(Box<Result<Figures, Trouble>>),
    Closed(Result<Batch, Trouble>),
    Tick,
    Signal,
    LaneStopped(StopReason),
    /// The store failed, and the lane did not say why.
    Trouble(Trouble),
    Drained,
}

/// One run.
pub(crate) struct Run<'a> {
    lane: Way,
    drain: Duration,
    source: Source,
    defaults: Defaults,
    results: &'a mut Results,
    progress: &'a mut Progress,
    reach: Reach,
    /// `None` once it was read to its end, or the run wants no more of it.
    input: Option<mpsc::Receiver<Chunk>>,
    tracker: Tracker,
    tasks: FuturesUnordered<BoxFuture<'static, Step>>,
    looks: usize,
    submitting: bool,
    asking_figures: bool,
    own: Own,
    /// What its batch came to in this run.
    pub(crate) spent: Spent,
    /// Jobs in the store that wait or run, at the last look.
    left: Option<u64>,
    /// Whether its batch was closed: no more lines come.
    closed: bool,
    /// Whether that is on disk, or known to have failed.
    close_told: bool,
    /// Bad lines that were told one by one.
    bad_told: u64,
    /// Looks in a row that found everything stuck.
    stuck_looks: u32,
    /// Lines that the lane had no room for.
    no_room: Vec<Ready>,
    /// Whether the input was read to its end.
    all_read: bool,
    /// Whether the lane or its store failed: then the reason is on its way, and nothing is complete.
    broken: bool,
    signals: u32,
    end: Option<End>,
    /// Whether the lane was shut down, since a signal asked for it.
    pub(crate) drained: bool,
    /// How many lines ended how.
    pub(crate) tally: Tally,
    /// What lines failed for.
    pub(crate) failures: Failures,
}

impl<'a> Run<'a> {
    /// A run of these lines through this lane.
    pub(crate) fn new(
        (lane, drain): (Way, Duration),
        (source, own): (Source, Own),
        defaults: Defaults,
        input: mpsc::Receiver<Chunk>,
        results: &'a mut Results,
        progress: &'a mut Progress,
        reach: Reach,
    ) -> Self {
        Self {
            lane,
            drain,
            source,
            defaults,
            results,
            progress,
            reach,
            input: Some(input),
            tracker: Tracker::default(),
            tasks: FuturesUnordered::new(),
            looks: 0,
            submitting: false,
            asking_figures: false,
            own,
            spent: Spent::default(),
            left: None,
            closed: false,
            close_told: false,
            bad_told: 0,
            stuck_looks: 0,
            no_room: Vec::new(),
            all_read: false,
            broken: false,
            signals: 0,
            end: None,
            drained: false,
            tally: Tally::default(),
            failures: Failures::default(),
        }
    }

    /// Runs until every line ended, the lane stands still for an operator, or a signal. An error ends it
    /// at once: the store or the lane failed, or results can't be written.
    pub(crate) async fn drive(&mut self, signals: &mut Signals) -> Result<End, CliError> {
        let mut events = self.lane.subscribe();
        let mut events_open = true;
        let lane = self.lane.clone();
        let mut stopped = Box::pin(async move { lane.stopped().await });
        let mut stopped_open = true;
        let mut tick = ticks();
        loop {
            self.start_tasks();
            if let Some(end) = self.ended() {
                return Ok(end);
            }
            let wants_input = !self.submitting && self.no_room.is_empty();
            let step = tokio::select! {
                // Events first: a subscriber that lags misses some.
                biased;
                Some(heard) = events.next(), if events_open => Step::Heard(heard),
                Some(step) = self.tasks.next(), if !self.tasks.is_empty() => step,
                _ = signals.next() => Step::Signal,
                reason = &mut stopped, if stopped_open => Step::LaneStopped(reason),
                _ = tick.tick() => Step::Tick,
                chunk = next_chunk(&mut self.input), if wants_input => Step::Chunk(chunk),
            };
            match step {
                Step::Heard(Heard::Over) => events_open = false,
                Step::LaneStopped(StopReason::Shutdown) => stopped_open = false,
                step => self.take(step)?,
            }
        }
    }

    /// Takes a step.
    fn take(&mut self, step: Step) -> Result<(), CliError> {
        match step {
            Step::Heard(Heard::Event(event)) => self.heard(&event),
            Step::Heard(Heard::Missed) => self.tracker.missed(),
            Step::Heard(Heard::Over) => {}
            Step::Chunk(Some(chunk)) => self.read(chunk)?,
            Step::Chunk(None) => {
                self.input = None;
                self.all_read = true;
                self.tell_more_bad();
            }
            Step::Submitted(ready, reply) => self.submitted(ready, reply)?,
            Step::Looked(id, reply) => self.looked(id, reply)?,
            Step::Retried(id, reply) => self.retried(id, reply)?,
            Step::Figures(reply) => self.figures(*reply)?,
            Step::Closed(reply) => {
                self.close_told = true;
                if let Err(error) = reply {
                    self.trouble(error)?;
                }
            }
            Step::Tick => {
                let no_room = std::mem::take(&mut self.no_room);
                self.submit(no_room);
                self.ask_figures();
            }
            Step::Signal => self.interrupt(),
            Step::LaneStopped(reason) => return Err(reason.into()),
            Step::Trouble(error) => return Err(error.into()),
            Step::Drained => {
                self.drained = true;
                let done = self.all_read && self.tally.unfinished() == 0;
                self.end = Some(if done {
                    End::Complete
                } else {
                    End::Interrupted
                });
            }
        }
        Ok(())
    }

    /// The end, once nothing of it is left to be written.
    fn ended(&self) -> Option<End> {
        let nothing_left = self.looks == 0 && self.tracker.nothing_to_look_at();
        if self.end.is_some() {
            // A second signal waits for nothing.
            return self
                .end
                .clone()
                .filter(|_| nothing_left || self.signals > 1);
        }
        let complete =
            self.all_sent() && !self.broken && self.tracker.is_empty() && self.signals == 0;
        let complete = complete && self.close_told && (!self.own.sends_all || self.left == Some(0));
        complete.then_some(End::Complete)
    }

    /// Whether every line of the input is a job, or is known not to become one.
    fn all_sent(&self) -> bool {
        self.all_read && !self.submitting && self.no_room.is_empty()
    }

    fn start_tasks(&mut self) {
        if self.all_sent() && !self.closed && self.signals == 0 {
            self.closed = true;
            let (lane, id) = (self.lane.clone(), self.own.before.id);
            self.task(async move { Step::Closed(lane.close_batch(id).await) });
        }
        while self.looks < LOOKS_MAX
            && let Some(id) = self.tracker.next()
        {
            self.looks += 1;
            let lane = self.lane.clone();
            self.task(async move { Step::Looked(id, patient(|| lane.job(id)).await) });
        }
    }

    fn task(&self, task: impl Future<Output = Step> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    fn heard(&mut self, event: &Event) {
        self.tracker.event(event);
        if matches!(event, Event::LaneHeld { .. } | Event::LanePaused { .. }) {
            self.ask_figures();
        }
    }

    /// Takes lines that were read: writes the bad ones, passes over the done ones, submits the others.
    fn read(&mut self, chunk: Chunk) -> Result<(), CliError> {
        let lines = chunk.map_err(|e| {
            CliError::new(Exit::Usage, format!("the input can't be read: {e}")).help(
                "the lines before it are on their way; run the same command again to continue",
            )
        })?;
        let mut ready = Vec::with_capacity(lines.len());
        for line in lines {
            self.tally.lines += 1;
            match line.asked {
                Err(problem) => {
                    let message = format!("line {}: {problem}", line.number);
                    self.tell_bad(&message);
                    self.tally.bad += 1;
                    self.write_error(&line.name, LineError::new("invalid_line", message))?;
                }
                Ok(_) if self.results.is_done(&line.name) => self.tally.done_before += 1,
                Ok(asked) => ready.push(self.defaults.ready(self.source, line.name, asked)),
            }
        }
        self.own.others_have.refuse(&ready)?;
        self.submit(ready);
        Ok(())
    }

    /// Tells the first bad lines; of the others their number is enough.
    fn tell_bad(&mut self, message: &str) {
        self.bad_told += 1;
        if self.bad_told <= BAD_TOLD_MAX {
            self.progress.note(&format!("bad {message}"));
        }
    }

    /// How many bad lines were not told one by one.
    fn tell_more_bad(&self) {
        let more = self.bad_told.saturating_sub(BAD_TOLD_MAX);
        if more > 0 {
            self.progress.note(&more_bad(more));
        }
    }

    fn submit(&mut self, ready: Vec<Ready>) {
        if ready.is_empty() || self.signals > 0 {
            return;
        }
        self.submitting = true;
        self.tracker.chunk_leaves();
        let lane = self.lane.clone();
        let batch = self.own.before.id;
        let submissions = ready.iter().map(|r| r.submission.clone()).collect();
        self.task(
            async move { Step::Submitted(ready, lane.submit_many(batch, submissions).await) },
        );
    }

    fn submitted(&mut self, ready: Vec<Ready>, reply: SubmitReply) -> Result<(), CliError> {
        self.submitting = false;
        let replies = match reply {
            Ok(replies) => replies,
            // Asked again, those that are on disk after all are found by their keys.
            Err(trouble) if trouble.is_full_disk() => {
                self.no_room.extend(ready);
                return Ok(());
            }
            // The next run finds the jobs on disk by their keys.
            Err(e) => return self.trouble(e),
        };
        let mut jobs = Vec::with_capacity(ready.len());
        for (ready, reply) in ready.into_iter().zip(replies) {
            match reply {
                Ok(HandedIn::Job(id, created)) => jobs.push((id, created, ready.name)),
                Ok(HandedIn::NoRoom) => self.no_room.push(ready),
                Ok(HandedIn::Refused(problem)) => {
                    let label = &ready.name.label;
                    self.progress
                        .note(&format!("{label} is refused: {problem}"));
                    self.tally.bad += 1;
                    self.write_error(&ready.name, LineError::new("refused", problem))?;
                }
                Err(trouble) => self.trouble(trouble)?,
            }
        }
        self.tracker.chunk_arrived(jobs);
        Ok(())
    }

    fn looked(
        &mut self,
        id: JobId,
        reply: Result<Option<Looked>, Trouble>,
    ) -> Result<(), CliError> {
        self.looks -= 1;
        let looked = match reply {
            Ok(Some(looked)) => looked,
            Ok(None) => return self.vanished(id),
            Err(e) => return self.trouble(e),
        };
        let results = &*self.results;
        let was_told = |name: &Name| results.was_told(name.digest);
        match self.tracker.judge(looked.job(), was_told) {
            Verdict::Waits => Ok(()),
            Verdict::Retry => {
                let lane = self.lane.clone();
                self.task(async move { Step::Retried(id, patient(|| lane.retry(id)).await) });
                Ok(())
            }
            Verdict::Ended(name) => self.write_end(&name, &looked),
        }
    }

    fn retried(&mut self, id: JobId, reply: Result<Retried, Trouble>) -> Result<(), CliError> {
        match reply {
            Ok(Retried::Done) => Ok(()),
            // Another client was faster; the job's status decides.
            Ok(Retried::Raced) => {
                self.tracker.look_at(id);
                Ok(())
            }
            Ok(Retried::Gone) => self.vanished(id),
            Err(e) => self.trouble(e),
        }
    }

    /// Ends the run, unless it ends already: a lane that stopped tells its reason as a step of its own. So
    /// does one whose store failed, and its reason is the first error, of which this one may only be a
    /// consequence.
    fn trouble(&mut self, error: Trouble) -> Result<(), CliError> {
        match error {
            _ if self.signals > 0 => Ok(()),
            Trouble::Lane(Error::Stopped(_)) => {
                self.broken = true;
                Ok(())
            }
            error @ Trouble::Lane(Error::Store(_)) => {
                if !self.broken {
                    self.broken = true;
                    self.task(async move {
                        tokio::time::sleep(REASON_WAIT).await;
                        Step::Trouble(error)
                    });
                }
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn vanished(&mut self, id: JobId) -> Result<(), CliError> {
        let Some(name) = self.tracker.gone(id) else {
            return Ok(());
        };
        self.tally.failed += 1;
        let message = format!("job {id} is not in the store any more");
        self.write_error(&name, LineError::new("not_found", message))
    }

    fn write_end(&mut self, name: &Name, looked: &Looked) -> Result<(), CliError> {
        let line = looked.line(self.id(name), &name.label);
        if line.is_answer() {
            self.tally.completed += 1;
        } else {
            self.tally.failed += 1;
            if let Some(why) = looked.why() {
                self.failures.note(&why.code, &why.message);
            }
        }
        self.results.write(&line)
    }

    fn write_error(&mut self, name: &Name, error: LineError) -> Result<(), CliError> {
        let line = ResultLine::of_error(self.id(name), &name.label, error);
        self.results.write(&line)
    }

    fn id(&self, name: &Name) -> LineId {
        LineId {
            source: self.source,
            line: name.digest,
        }
    }

    fn ask_figures(&mut self) {
        if self.asking_figures || self.signals > 0 {
            return;
        }
        self.asking_figures = true;
        let (lane, batch) = (self.lane.clone(), self.own.before.id);
        self.task(async move { Step::Figures(Box::new(lane.figures(batch).await)) });
    }

    fn show(&mut self, wait: Option<Standstill>) {
        self.progress.show(&Far {
            tally: &self.tally,
            lines: self.own.lines,
            spent: &self.spent,
            wait,
            stopping: self.signals > 0,
            elapsed_ms: elapsed_ms(self.own.since),
            now: SystemClock.now(),
        });
    }

    fn figures(&mut self, reply: Result<Figures, Trouble>) -> Result<(), CliError> {
        self.asking_figures = false;
        let Figures {
            in_flight,
            lane,
            wait,
            held,
            stuck,
            batch,
            left,
        } = match reply {
            Ok(figures) => figures,
            Err(trouble) if trouble.is_full_disk() => {
                self.show(Some(Standstill::of(&WaitReason::DiskFull)));
                return Ok(());
            }
            Err(e) => return self.trouble(e),
        };
        self.left = Some(left);
        if let Some(batch) = batch {
            self.spent = Spent::since(&self.own.before, &batch);
        }
        // Lines that are still to come may be of another kind, unless there is no room for them.
        let no_more = self.all_sent() || (!self.submitting && !self.no_room.is_empty());
        self.stuck_looks = match &stuck {
            Some(_) if no_more => self.stuck_looks + 1,
            _ => 0,
        };
        let stuck = stuck.filter(|_| self.stuck_looks >= STUCK_LOOKS);
        let lane = lane.as_ref();
        let unreachable = lane.and_then(|lane| self.reach.look(lane, Instant::now()));
        if in_flight == 0 && self.end.is_none() {
            self.end = held.or(unreachable).or(stuck).map(End::Held);
        }
        // The summary tells the end once.
        if self.end.is_none() {
            self.show(wait);
        }
        Ok(())
    }

    /// The first signal lets open calls finish, the second closes them.
    fn interrupt(&mut self) {
        self.signals += 1;
        self.input = None;
        self.no_room.clear();
        let deadline = if self.signals == 1 {
            self.drain
        } else {
            Duration::ZERO
        };
        if self.signals == 1 {
            self.progress.note(match &self.lane {
                Way::Here(_) => "stopping: the open call may finish; a second signal stops at once",
                Way::There(_) => "stopping: the daemon goes on with what was handed in",
            });
        }
        let lane = self.lane.clone();
        self.task(async move {
            lane.shutdown(deadline).await;
            Step::Drained
        });
    }
}

/// The words about bad lines that are not told one by one.
pub(crate) fn more_bad(more: u64) -> String {
    format!("and {}", counted(more, "more bad line", "more bad lines"))
}

/// The next chunk, `None` at the input's end. Waits for ever when the run wants no more of it.
async fn next_chunk(input: &mut Option<mpsc::Receiver<Chunk>>) -> Option<Chunk> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

fn ticks() -> Interval {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Asks again while the disk is full: the lane waits it out.
async fn patient<T, F: Future<Output = Result<T, Trouble>>>(
    ask: impl Fn() -> F,
) -> Result<T, Trouble> {
    loop {
        match ask().await {
            Err(trouble) if trouble.is_full_disk() => tokio::time::sleep(ROOM_WAIT).await,
            answer => return answer,
        }
    }
}

/// Between two questions to a store whose disk is full.
const ROOM_WAIT: Duration = Duration::from_millis(500);
