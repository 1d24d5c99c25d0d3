//! The lane against a small world: a disk that applies commits in order, callers that hold one
//! call each, and crashes. The world checks the lane's three rules at every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::judge::conclude::{Finished, SettleContext, conclude};
use crate::judge::{Blame, BreakerEffect, JudgeContext, LaneEffect};
use crate::life;
use crate::model::{
    CallOutcome, CallRecord, DEFAULT_LANE, Failure, FailureClass, GlmAnswer, GlmOutcome, Hold,
    HoldKind, HoldScope, JobStatus, LaneCondition, LaneRules, ModelCondition, NamedLane, Request,
    Secret, Seq, Usage, UsageKey, UsageRow, code, limits,
};
use crate::money::budget::Ledger;

fn job(seq: u64, priority: i32) -> Job {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&seq.to_be_bytes());
    let id = JobId::from_bytes(bytes);
    Job {
        seq: Seq(seq),
        priority,
        ..Job::new(id, "u", "glm-5", Timestamp::default())
    }
}

fn id(seq: u64) -> JobId {
    job(seq, 0).id
}

fn is_same(there: &Job, new: &Job) -> bool {
    let key = |job: &Job| job.idempotency_key.clone();
    there.id == new.id || (new.idempotency_key.is_some() && key(there) == key(new))
}

#[derive(Default)]
struct Disk {
    jobs: BTreeMap<JobId, Job>,
    lane: SchedulerState,
    released: Vec<JobId>,
    completions: BTreeMap<JobId, u32>,
    closed: BTreeMap<(JobId, AttemptNo), CallOutcome>,
    calls: Vec<CallRecord>,
    unstaged: BTreeSet<(JobId, AttemptNo)>,
}

impl Disk {
    fn apply(&mut self, transition: &Transition) -> Result<Applied, Refusal> {
        if let Transition::Lane(state) = transition {
            self.lane = state.clone();
        }
        if let Transition::Release(jobs) = transition {
            self.released.clone_from(jobs);
        }
        if let Transition::Insert(new) = transition {
            // As the store says of one that asks again with its key.
            if let Some(there) = self.jobs.values().find(|job| is_same(job, &new.job)) {
                return Ok(Applied::Existing(Box::new(there.clone())));
            }
            let seq = self.jobs.values().map(|job| job.seq.0).max().unwrap_or(0) + 1;
            let mut job = new.job.clone();
            job.seq = Seq(seq);
            self.jobs.insert(job.id, job.clone());
            return Ok(Applied::Inserted(Arc::new(job)));
        }
        let Some(id) = transition.job_id() else {
            return Ok(Applied::Done);
        };
        let job = self.jobs.get_mut(&id).ok_or(Refusal::NotFound)?;
        let before = job.open;
        life::apply(job, transition)?;
        match transition {
            Transition::Settle(s) => {
                self.closed.insert((id, s.attempt), s.call.outcome);
                self.calls.push(s.call.clone());
                if job.status == JobStatus::Completed {
                    *self.completions.entry(id).or_default() += 1;
                }
                if let Some(lane) = &s.lane {
                    self.lane = lane.clone();
                }
                Ok(Applied::Job(Box::new(job.clone())))
            }
            Transition::Stage { .. } | Transition::Start { .. } | Transition::Resume { .. } => {
                Ok(Applied::Dispatch(Arc::new(Dispatch {
                    job: job.clone(),
                    request: Arc::new(Request::Prompt(
                        job.content_id.clone().unwrap_or(id.to_string()),
                    )),
                })))
            }
            _ => {
                // Taken back or given up before it was sent; a new priority does neither.
                if let Some(open) = before.filter(|_| job.open.is_none()) {
                    self.unstaged.insert((id, open.no));
                }
                Ok(Applied::Job(Box::new(job.clone())))
            }
        }
    }

    fn ledger(&self) -> Ledger {
        let mut rows: BTreeMap<UsageKey, UsageRow> = BTreeMap::new();
        for call in &self.calls {
            let key = UsageKey::of(call);
            let row = rows.entry(key.clone());
            row.or_insert_with(|| UsageRow::empty(key)).add(call);
        }
        let doubt = self.calls.iter().filter(|call| call.is_billing_open());
        Ledger {
            usage: rows.into_values().collect(),
            doubt: doubt.cloned().collect(),
        }
    }

    fn recovered(&self) -> Recovered {
        let mut recovered = Recovered {
            lane: self.lane.clone(),
            released: self.released.clone(),
            ..Recovered::default()
        };
        for job in self.jobs.values() {
            if job.open.is_some() {
                recovered.open.push(job.clone());
            } else if job.status == JobStatus::Pending {
                recovered.waiting.insert(&job.entry());
            }
        }
        recovered
    }
}

struct World {
    lane: Scheduler,
    settings: Arc<Settings>,
    now: Timestamp,
    disk: Disk,
    in_work: VecDeque<(u64, Vec<Transition>)>,
    callers: BTreeMap<SlotId, Option<Arc<Dispatch>>>,
    /// What each caller reports again to a queue that is new to it: how its last call ended.
    last: BTreeMap<SlotId, Finished>,
    /// How the one before it ended.
    before: BTreeMap<SlotId, Finished>,
    /// Whether callers go on with what lies ready.
    goes_on: bool,
    sent: Vec<(JobId, AttemptNo)>,
    seqs: u64,
    /// The process.
    instance: Option<u64>,
}

impl World {
    fn new(max_concurrency: u16) -> Self {
        let mut settings = Settings::default();
        settings.lane.rules.max_concurrency = max_concurrency;
        settings.lane.quarantine_after = 1_000;
        Self::with(settings)
    }

    fn with(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let slots: Vec<SlotId> = (0..settings.slots()).map(SlotId).collect();
        let now = Timestamp::from_millis(1_000);
        let lane = Scheduler::recover(
            Recovered::default(),
            Arc::clone(&settings),
            slots.clone(),
            1,
            now,
        );
        let mut world = Self {
            lane,
            settings,
            now,
            disk: Disk::default(),
            in_work: VecDeque::new(),
            callers: slots.into_iter().map(|s| (s, None)).collect(),
            last: BTreeMap::new(),
            before: BTreeMap::new(),
            goes_on: false,
            sent: Vec::new(),
            seqs: 0,
            instance: Some(1),
        };
        world.all_ready();
        world
    }

    fn all_ready(&mut self) {
        self.tell(|lane, now| lane.start(now));
        for slot in self.callers.keys().copied().collect::<Vec<_>>() {
            self.tell(|lane, now| lane.ready(slot, now));
        }
    }

    /// Tells the lane something and does what it says.
    fn tell(&mut self, what: impl FnOnce(&mut Scheduler, Timestamp) -> Vec<Effect>) {
        let effects = what(&mut self.lane, self.now);
        self.carry_out(effects);
    }

    /// The same, and the disk finishes all that it has.
    fn step(&mut self, what: impl FnOnce(&mut Scheduler, Timestamp) -> Vec<Effect>) {
        self.tell(what);
        self.ack_all();
    }

    fn cancel(&mut self, id: JobId) -> CancelPath {
        let (path, effects) = self.lane.cancel(id, self.now);
        self.carry_out(effects);
        path
    }

    /// Whether there was such a hold.
    fn release(&mut self, scope: &HoldScope) -> bool {
        let (was, effects) = self.lane.release(scope, self.now);
        self.carry_out(effects);
        self.ack_all();
        was
    }

    fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings));
        let settings = Arc::clone(&self.settings);
        self.tell(|lane, now| lane.configure(settings, now));
        for slot in self.lane.missing_callers() {
            self.callers.insert(slot, None);
            self.lane.caller_added(slot);
            self.announce(slot);
        }
        self.ack_all();
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Run {
                    slot,
                    dispatch,
                    stopped: false,
                } => self.sends(slot, dispatch),
                Effect::Run { slot, dispatch, .. } => {
                    let caller = self.callers.get_mut(&slot).expect("a caller for the slot");
                    assert!(caller.replace(dispatch).is_none(), "a credit is spent once");
                    self.end(slot, &GlmOutcome::NotSent);
                }
                Effect::Commit {
                    ticket,
                    transitions,
                } => self.in_work.push_back((ticket, transitions)),
                Effect::Abort {
                    slot,
                    job_id,
                    attempt,
                } => {
                    let open = self.callers.get(&slot).and_then(Option::as_ref);
                    if open.is_some_and(|d| d.job.id == job_id && attempt_of(d) == attempt) {
                        self.end(slot, &GlmOutcome::Aborted);
                    }
                }
                Effect::Retire { .. } => {}
            }
        }
    }

    /// A caller sends.
    fn sends(&mut self, slot: SlotId, dispatch: Arc<Dispatch>) {
        let attempt = attempt_of(&dispatch);
        let on_disk = &self.disk.jobs[&dispatch.job.id];
        assert_eq!(
            on_disk.open.map(|o| o.no),
            Some(attempt),
            "an attempt is on disk before it is sent"
        );
        // What GLM holds as a task is fetched under the same attempt.
        if dispatch.job.task.is_none() {
            assert!(
                !self.sent.contains(&(dispatch.job.id, attempt)),
                "an attempt is sent once"
            );
            self.sent.push((dispatch.job.id, attempt));
        }
        let caller = self.callers.get_mut(&slot).expect("a caller for the slot");
        assert!(caller.is_none(), "a credit is spent once");
        *caller = Some(dispatch);
        let open = self.callers.values().flatten().count();
        assert!(open <= usize::from(self.settings.slots()));
    }

    fn submit(&mut self, priority: i32) -> JobId {
        self.submit_as(|job| job.priority = priority)
    }

    fn submit_as(&mut self, change: impl FnOnce(&mut Job)) -> JobId {
        self.seqs += 1;
        let mut job = job(self.seqs, 0);
        change(&mut job);
        let entry = job.entry();
        self.disk.jobs.insert(job.id, job);
        self.tell(|lane, now| lane.submitted([entry.clone()], now));
        entry.id
    }

    fn ask(&mut self, model: &str) -> JobId {
        self.submit_as(|job| job.model = model.to_owned())
    }

    /// Jobs of these priorities come, and the disk has them all.
    fn submit_all<const N: usize>(&mut self, priorities: [i32; N]) -> [JobId; N] {
        let ids = priorities.map(|priority| self.submit(priority));
        self.ack_all();
        ids
    }

    /// The disk finishes the oldest commit.
    fn ack(&mut self) -> bool {
        let Some((ticket, transitions)) = self.in_work.pop_front() else {
            return false;
        };
        let decisions: Vec<Decision> = transitions
            .into_iter()
            .map(|t| {
                let decision = self.disk.apply(&t);
                assert!(
                    !matches!((&t, &decision), (Transition::Settle(_), Err(_))),
                    "an outcome that the lane waited for is never refused: {t:?} {decision:?}"
                );
                (t, decision)
            })
            .collect();
        let inserted = decisions.iter().filter_map(|(_, decision)| match decision {
            Ok(Applied::Inserted(job)) => Some(job.entry()),
            _ => None,
        });
        let inserted: Vec<JobEntry> = inserted.collect();
        if !inserted.is_empty() {
            self.tell(|lane, now| lane.submitted(inserted, now));
        }
        assert_eq!(self.lane.lacks(&decisions), None);
        self.tell(|lane, now| lane.committed(ticket, &decisions, now));
        true
    }

    fn ack_all(&mut self) {
        while self.ack() {}
    }

    fn end(&mut self, slot: SlotId, outcome: &GlmOutcome) {
        let Some(went_on_with) = self.ends(slot, outcome) else {
            return;
        };
        match went_on_with {
            Some(with) => self.reports(slot, with),
            None => self.announce(slot),
        }
    }

    /// A call ends, of which nobody has heard yet. Answers what its caller has gone on with.
    fn ends(&mut self, slot: SlotId, outcome: &GlmOutcome) -> Option<Option<JobId>> {
        let dispatch = self.callers.get_mut(&slot).and_then(Option::take)?;
        let call = (dispatch.job.id, attempt_of(&dispatch));
        let finished = finished(call, &self.settings, outcome.clone(), self.now);
        let is_plain = finished.is_plain_success(dispatch.job.sent_to());
        if let Some(before) = self.last.insert(slot, finished) {
            self.before.insert(slot, before);
        }
        let next = self.lane.next_up().filter(|_| is_plain && self.goes_on);
        let Some((of, dispatch)) = next else {
            return Some(None);
        };
        assert_eq!(
            of, slot,
            "what lies ready is for the caller of the open call"
        );
        let with = dispatch.job.id;
        self.sends(slot, dispatch);
        Some(Some(with))
    }

    /// A caller says that it has gone on.
    fn reports(&mut self, slot: SlotId, with: JobId) {
        let concluded = self
            .concluded(slot, &self.last[&slot])
            .expect("its call was awaited");
        let effects = self.lane.went_on(slot, concluded, with, self.now);
        let effects = effects.expect("the lane would have sent the same");
        let sends = |effect: &Effect| matches!(effect, Effect::Run { .. });
        assert!(!effects.iter().any(sends), "its credit is spent");
        self.carry_out(effects);
    }

    /// What an outcome means, if it is awaited.
    fn concluded(&self, slot: SlotId, finished: &Finished) -> Option<Concluded> {
        let (job, cancelled) = self.lane.awaited(slot, finished.job_id, finished.attempt)?;
        let (lane, model) = self.lane.conditions(job.sent_to());
        let context = JudgeContext {
            settings: &self.settings,
            lane: &lane,
            model: &model,
            foreign_answers: self.lane.foreign_answers(),
            route: self.lane.route(),
            blame: match &*finished.outcome {
                GlmOutcome::Failed(failure, _) => self.lane.blame(slot, job, failure),
                _ => Blame::Unknown,
            },
            eased: self.lane.would_ease(slot, self.now),
            sent_at: finished.started_at,
            has_fallback: self.lane.has_fallback(&job.model, job.sent_to()),
            seed: 1,
            now: self.now,
        };
        let on = SettleContext { context, cancelled };
        Some(conclude(job, finished, &on))
    }

    /// A caller is ready, and says how its last call ended, and the one before.
    fn announce(&mut self, slot: SlotId) {
        let before = self.before.get(&slot);
        if let Some(concluded) = before.and_then(|before| self.concluded(slot, before)) {
            self.lane.finished_before(slot, concluded, None, self.now);
        }
        let last = self.last.get(&slot);
        let effects = match last.and_then(|last| self.concluded(slot, last)) {
            None => self.lane.ready(slot, self.now),
            Some(concluded) => self.lane.finished(slot, concluded, None, self.now),
        };
        self.carry_out(effects);
    }

    fn slot_of(&self, id: JobId) -> SlotId {
        let has = |call: &&Option<Arc<Dispatch>>| call.as_ref().is_some_and(|d| d.job.id == id);
        let found = self.callers.iter().find(|(_, call)| has(call));
        *found.expect("the job has a call").0
    }

    fn end_of(&mut self, id: JobId, outcome: &GlmOutcome) {
        self.end(self.slot_of(id), outcome);
        self.ack_all();
    }

    /// The open call of the first busy slot ends so, and the disk finishes all that it has.
    fn call_ends(&mut self, outcome: &GlmOutcome) {
        let slot = self.busy_slot(0).expect("a call is open");
        self.end(slot, outcome);
        self.ack_all();
    }

    #[track_caller]
    fn runs<const N: usize>(&self, want: [JobId; N], why: &str) {
        assert_eq!(self.running(), want, "{why}");
    }

    fn status_of(&self, id: JobId) -> JobStatus {
        self.disk.jobs[&id].status
    }

    fn running(&self) -> Vec<JobId> {
        self.callers.values().flatten().map(|d| d.job.id).collect()
    }

    fn busy_slot(&self, pick: usize) -> Option<SlotId> {
        let busy = self.callers.iter().filter(|(_, call)| call.is_some());
        let busy: Vec<SlotId> = busy.map(|(slot, _)| *slot).collect();
        (!busy.is_empty()).then(|| busy[pick % busy.len()])
    }

    fn recover(&mut self) {
        self.lane = Scheduler::recover(
            Recovered {
                instance: self.instance,
                ..self.disk.recovered()
            },
            Arc::clone(&self.settings),
            self.callers.keys().copied().collect::<Vec<_>>(),
            self.lane.snapshot().generation + 1,
            self.now,
        );
        self.lane
            .load_budgets(&self.disk.ledger(), &self.settings, self.now);
        self.tell(|lane, now| lane.start(now));
    }

    /// `kill -9`: what was not on disk is gone, open calls are closed.
    fn crash(&mut self) {
        self.in_work.clear();
        let unknown: Vec<(JobId, AttemptNo)> = self
            .sent
            .iter()
            .filter(|key| !self.disk.closed.contains_key(*key))
            .copied()
            .collect();
        for caller in self.callers.values_mut() {
            *caller = None;
        }
        self.last.clear();
        self.before.clear();
        self.recover();
        for slot in self.callers.keys().copied().collect::<Vec<_>>() {
            self.tell(|lane, now| lane.ready(slot, now));
        }
        self.ack_all();
        for key in unknown {
            assert_eq!(
                self.disk.closed.get(&key),
                Some(&CallOutcome::Interrupted),
                "every call whose outcome was lost is on record as interrupted"
            );
        }
    }

    /// The queue actor fails: commits under way still happen, open calls go on.
    fn restart_queue(&mut self) {
        self.restart_store(usize::MAX);
    }

    /// The store actor fails, and the queue with it: of the commits under way the first `kept`
    /// happen, the others never; open calls go on.
    fn restart_store(&mut self, kept: usize) {
        for (_, transitions) in std::mem::take(&mut self.in_work).into_iter().take(kept) {
            for transition in &transitions {
                let _ = self.disk.apply(transition);
            }
        }
        self.recover();
        for slot in self.callers.keys().copied().collect::<Vec<_>>() {
            // A busy caller can't read its mailbox: it is ready when its call has ended.
            if self.callers[&slot].is_none() {
                self.announce(slot);
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.tell(|lane, now| lane.tick(now));
    }

    /// So many milliseconds pass, and the disk finishes all that it has.
    fn pass(&mut self, ms: u64) {
        self.advance(ms);
        self.ack_all();
    }

    /// Lets everything come to its end and checks the books.
    fn finish(&mut self) {
        self.tell(|lane, now| lane.resume(now));
        for _ in 0..10_000 {
            self.ack_all();
            match self.busy_slot(0) {
                Some(slot) => self.end(slot, &answered()),
                None => self.advance(1_000_000),
            }
            if self.disk.jobs.values().all(|j| j.status.is_terminal()) {
                break;
            }
        }
        self.ack_all();
        for job in self.disk.jobs.values() {
            assert!(job.status.is_terminal(), "{job:?}");
            let completions = self.disk.completions.get(&job.id).copied().unwrap_or(0);
            let want = u32::from(job.status == JobStatus::Completed);
            assert_eq!(completions, want, "completed exactly once");
        }
        for key in &self.sent {
            assert!(
                self.disk.closed.contains_key(key),
                "every call is in the log"
            );
            assert!(
                !self.disk.unstaged.contains(key),
                "no sent attempt was voided"
            );
        }
        assert!(self.lane.is_drained());
    }
}

fn answered() -> GlmOutcome {
    GlmOutcome::Answered(GlmAnswer {
        body: serde_json::value::RawValue::from_string("{}".to_owned())
            .unwrap()
            .into(),
        status_code: 200,
        usage: Usage::default(),
        model: None,
    })
}

/// A lane of its own for this model, with one call at a time.
fn lane_for(model: &str) -> NamedLane {
    NamedLane {
        models: vec![model.to_owned()],
        rules: LaneRules::default(),
    }
}

fn finished(
    (job_id, attempt): (JobId, AttemptNo),
    settings: &Arc<Settings>,
    outcome: GlmOutcome,
    now: Timestamp,
) -> Finished {
    Finished {
        job_id,
        attempt,
        endpoint: String::new(),
        settings: Arc::clone(settings),
        bounded_by_job: false,
        delivered: false,
        estimate: None,
        call_ids: Default::default(),
        task: None,
        started_at: now,
        response_time_ms: 1,
        parts: Default::default(),
        outcome: Arc::new(outcome),
    }
}

fn throttle_level(state: &SchedulerState) -> u32 {
    let lane = state.lanes.get(DEFAULT_LANE);
    lane.map_or(0, |lane| lane.throttle_level)
}

/// Nothing is known of the lane or the model.
fn context(settings: &Settings, now: Timestamp) -> JudgeContext<'_> {
    const LANE: &LaneCondition = &LaneCondition {
        hold: None,
        throttle_level: 0,
        throttled_at: None,
        learnt: None,
    };
    const MODEL: &ModelCondition = &ModelCondition {
        substitutes: BTreeSet::new(),
        hold: None,
        overloads: 0,
        overloaded_at: None,
        probing: false,
    };
    JudgeContext {
        settings,
        lane: LANE,
        model: MODEL,
        foreign_answers: 0,
        route: None,
        blame: Blame::Unknown,
        eased: false,
        sent_at: now,
        has_fallback: false,
        seed: 1,
        now,
    }
}

fn failed(class: FailureClass) -> GlmOutcome {
    failed_with(Failure::new(class, "x", "words"))
}

fn failed_with(failure: Failure) -> GlmOutcome {
    GlmOutcome::Failed(failure, Usage::default())
}

/// The plan's calls are used up, until then.
fn used_up_until(reset_at: Timestamp) -> GlmOutcome {
    let mut failure = Failure::new(FailureClass::QuotaWindow, "1308", "words");
    failure.reset_at = Some(reset_at);
    failed_with(failure)
}

#[test]
fn dispatch_order_is_priority_then_submission() {
    let mut world = World::new(1);
    let [blocker] = world.submit_all([0]);
    assert_eq!(world.running(), [blocker]);
    for priority in [1, 5, 3, 5, 1, 9] {
        world.submit(priority);
    }
    let mut order = Vec::new();
    for _ in 0..7 {
        world.ack_all();
        let slot = world.busy_slot(0).unwrap();
        order.extend(world.running());
        world.end(slot, &answered());
    }
    let want: Vec<JobId> = [1, 7, 3, 5, 4, 2, 6].into_iter().map(id).collect();
    assert_eq!(order, want);
    world.finish();
}

#[test]
fn an_urgent_job_that_arrives_during_a_call_is_the_very_next_one() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.submit_all([1]);
    let urgent = world.submit(9);
    // Its stage is not stored yet: the lane waits for the disk rather than send the lesser one.
    world.end(SlotId(0), &answered());
    assert!(world.running().is_empty());
    world.ack_all();
    assert_eq!(world.running(), [urgent]);
    world.finish();
}

#[test]
fn between_two_calls_the_lane_waits_for_no_disk() {
    let mut world = World::new(1);
    world.submit_all([0, 0]);
    assert_eq!(world.running(), [id(1)]);
    world.end(SlotId(0), &answered());
    world.runs([id(2)], "sent before the outcome is stored");
    assert_eq!(world.in_work.len(), 1);
    world.finish();
}

#[test]
fn outcomes_that_are_not_stored_are_bounded() {
    let mut world = World::new(1);
    for _ in 0..200 {
        world.submit(0);
    }
    for _ in 0..1_000 {
        match world.busy_slot(0) {
            Some(slot) => world.end(slot, &answered()),
            None => {
                if !world.ack() {
                    break;
                }
            }
        }
        assert!(world.lane.snapshot().unsettled <= limits::UNSETTLED_MAX);
    }
    world.finish();
}

#[test]
fn a_retry_does_not_hold_the_slot_and_comes_back_to_its_place() {
    let mut world = World::new(1);
    let [first, ..] = world.submit_all([5, 5, 5]);
    world.call_ends(&failed(FailureClass::ServerTransient));
    assert_eq!(world.running(), [id(2)]);
    world.pass(2_000);
    world.call_ends(&answered());
    assert_eq!(world.running(), [first]);
    world.finish();
}

#[test]
fn an_operator_hold_fails_no_job_and_a_changed_key_ends_it() {
    let mut world = World::new(1);
    world.submit_all([0; 10]);
    world.call_ends(&failed(FailureClass::OperatorFatal));
    world.advance(10_000_000);
    assert!(world.running().is_empty());
    assert_eq!(world.sent.len(), 1);
    world.crash();
    world.runs([], "a restart changes nothing");
    world.configure(|settings| settings.glm.api_key = Some(Secret::new("another")));
    world.runs([id(1)], "the job kept its place");
    assert!(world.disk.jobs.values().all(|j| j.retry_count == 0));
    world.finish();
}

#[test]
fn a_quota_hold_wakes_by_itself_and_not_a_call_before() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.call_ends(&used_up_until(world.now.plus_ms(3 * 3_600_000)));
    world.advance(3 * 3_600_000);
    world.crash();
    assert!(world.running().is_empty());
    assert_eq!(
        world.lane.next_change(),
        Some(world.now.plus_ms(3_000)),
        "the grace is still to come"
    );
    world.pass(3_000);
    assert_eq!(world.running(), [id(1)]);
    world.finish();
}

#[test]
fn an_open_breaker_sends_nothing_and_a_half_open_one_a_single_probe() {
    let mut world = World::new(4);
    let set = |world: &mut World, state| {
        let snapshot = BreakerSnapshot {
            state,
            ..BreakerSnapshot::default()
        };
        world.step(|lane, now| lane.breaker_changed(&snapshot, true, now));
    };
    set(&mut world, BreakerState::Open);
    world.submit_all([0; 5]);
    assert_eq!(world.running().len(), 0);
    set(&mut world, BreakerState::HalfOpen);
    assert_eq!(world.running().len(), 1);
    set(&mut world, BreakerState::Closed);
    assert_eq!(world.running().len(), 4);
    world.finish();
}

#[test]
fn a_cancelled_job_is_never_sent_and_a_running_one_is_closed() {
    let mut world = World::new(1);
    world.submit_all([0, 0, 0]);
    use CancelPath::{Commit, Settlement};
    for (seq, want) in [(3, Commit), (2, Commit), (1, Settlement)] {
        assert_eq!(world.cancel(id(seq)), want, "job {seq}");
        world.ack_all();
    }
    let cancelled = |job: &Job| job.status == JobStatus::Cancelled;
    assert!(world.disk.jobs.values().all(cancelled));
    assert_eq!(world.sent.len(), 1);
    world.finish();
}

#[test]
fn a_job_whose_start_comes_to_disk_behind_a_stop_goes_back_to_its_place() {
    let pause = |world: &mut World| world.tell(|lane, now| lane.pause(None, now));
    let switch_off = |world: &mut World| world.configure(|settings| settings.glm.is_active = false);
    for stop in [pause, switch_off] {
        let mut world = World::new(1);
        let job = world.submit(0);
        stop(&mut world);
        world.ack_all();
        assert!(
            world.sent.is_empty(),
            "its start was on its way when the lane was stopped"
        );
        assert_eq!(world.status_of(job), JobStatus::Pending);
        world.configure(|settings| settings.glm.is_active = true);
        world.step(|lane, now| lane.resume(now));
        assert_eq!(world.sent, [(job, AttemptNo(2))]);
        world.call_ends(&answered());
        world.finish();
        // What belongs to a connection would end with it.
        let mut world = World::new(1);
        let job = world.submit_as(|job| job.bound_to = Some(1));
        stop(&mut world);
        world.ack_all();
        assert_eq!(world.sent, [(job, AttemptNo(1))]);
    }
}

#[test]
fn a_staged_attempt_is_in_doubt_only_while_a_started_one_is_unsettled() {
    // Staged, and nothing started: it can't have been sent.
    let mut world = World::new(1);
    world.submit_all([0, 0]);
    world.tell(|lane, now| lane.pause(None, now));
    world.call_ends(&answered());
    assert_eq!(world.disk.jobs[&id(2)].phase(), crate::model::Phase::Staged);
    world.crash();
    assert_eq!(world.disk.closed.len(), 1, "voided, not interrupted");
    world.finish();
}

#[test]
fn an_outcome_that_the_store_lost_is_not_held_against_its_job() {
    let mut world = World::new(1);
    let [first, ..] = world.submit_all([0, 0]);
    // The next call is on its way when the commit of the first outcome fails.
    world.end(SlotId(0), &answered());
    world.in_work.clear();
    // It was followed by more outcomes than the two that its caller tells again.
    world.last.clear();
    world.recover();
    world.lane.outlived(SlotId(0));
    world.call_ends(&answered());
    let lost = (first, AttemptNo(1));
    assert_eq!(world.disk.closed[&lost], CallOutcome::Interrupted);
    assert_eq!(world.disk.jobs[&first].interruptions, 0);
    world.runs([first], "it is called again");
    world.crash();
    assert_eq!(world.disk.jobs[&first].interruptions, 1, "a crash counts");
    world.finish();
}

#[test]
fn an_outcome_that_the_store_lost_is_told_again_with_the_next_one() {
    let mut world = World::new(1);
    let [first, second] = world.submit_all([0, 0]);
    // The next call is on its way when the commit of the first outcome fails.
    world.end(SlotId(0), &answered());
    world.restart_store(0);
    world.call_ends(&answered());
    for job in [first, second] {
        assert_eq!(world.status_of(job), JobStatus::Completed);
    }
    assert_eq!(world.sent.len(), 2, "nothing is bought twice");
    world.finish();
}

#[test]
fn a_deadline_that_passes_fails_the_job_wherever_it_waits() {
    let mut world = World::new(1);
    world.submit_all([0]);
    for ms in [10, 20] {
        let deadline = world.now.plus_ms(ms);
        world.submit_as(|job| job.deadline = Some(deadline));
    }
    world.ack_all();
    // The one that is staged wakes the lane as the one in line does.
    for _ in 0..2 {
        assert_eq!(world.lane.next_change(), Some(world.now.plus_ms(10)));
        world.pass(10);
    }
    for seq in [2, 3] {
        let job = &world.disk.jobs[&id(seq)];
        assert_eq!(job.status, JobStatus::Failed);
        assert_eq!(job.error.as_ref().unwrap().code, code::DEADLINE);
    }
    world.finish();
}

#[test]
fn a_lower_bound_takes_effect_as_calls_finish() {
    let mut world = World::new(4);
    world.submit_all([0; 12]);
    assert_eq!(world.running().len(), 4);
    world.configure(|settings| settings.lane.rules.max_concurrency = 2);
    for want in [3, 2, 2, 2] {
        world.call_ends(&answered());
        assert_eq!(world.running().len(), want);
    }
    world.finish();
}

#[test]
fn calls_shorter_than_commits_deepen_the_stage() {
    let mut world = World::new(1);
    for _ in 0..400 {
        world.submit(0);
    }
    let mut without_wait = 0;
    for _ in 0..300 {
        // What was handed out before is one transaction.
        for _ in 0..world.in_work.len() {
            world.ack();
        }
        // Three calls end in the time of one commit.
        for _ in 0..3 {
            if let Some(slot) = world.busy_slot(0) {
                world.end(slot, &answered());
                without_wait += usize::from(world.busy_slot(0).is_some());
            }
        }
    }
    assert!(without_wait > 360, "{without_wait}");
    world.finish();
}

#[test]
fn a_crash_leaves_no_more_in_doubt_than_the_last_commit_released() {
    let mut world = World::new(1);
    for _ in 0..2_000 {
        world.submit(0);
    }
    // Commits take long for a while: the stage gets deep.
    for _ in 0..40 {
        world.ack();
        for _ in 0..12 {
            if let Some(slot) = world.busy_slot(0) {
                world.end(slot, &answered());
            }
        }
    }
    let deep = |world: &World| {
        let staged = |job: &&Job| job.phase() == crate::model::Phase::Staged;
        world.disk.jobs.values().filter(staged).count()
    };
    assert!(deep(&world) > 12, "{}", deep(&world));
    // Then they are quick, and one call runs when the process is killed.
    for _ in 0..600 {
        world.ack_all();
        if let Some(slot) = world.busy_slot(0) {
            world.end(slot, &answered());
        }
    }
    world.ack_all();
    let (staged, released) = (deep(&world), world.disk.released.len());
    assert!(released < staged, "{released} of {staged}");
    let before = world.disk.closed.len();
    world.crash();
    let interrupted = world.disk.closed.len() - before;
    assert!(
        (1..=released + 1).contains(&interrupted),
        "{interrupted}, {released} were released and one was open"
    );
}

#[derive(Debug, Clone)]
enum Op {
    Submit(i32),
    Ack,
    End(usize, u8),
    Cancel(u64),
    Requeue(u64),
    Reprioritise(u64, i32),
    Advance(u64),
    Pause,
    Resume,
    Crash,
    RestartQueue,
    RestartStore(usize),
    CallerDies(usize),
    /// A call ends well, its caller goes on where it may, and the queue fails before it hears of it.
    EndsUnheard(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (-2_i32..3).prop_map(Op::Submit),
        10 => Just(Op::Ack),
        10 => (0_usize..4, 0_u8..8).prop_map(|(s, o)| Op::End(s, o)),
        2 => (1_u64..30).prop_map(Op::Cancel),
        1 => (1_u64..30).prop_map(Op::Requeue),
        2 => (1_u64..30, -3_i32..4).prop_map(|(s, p)| Op::Reprioritise(s, p)),
        3 => (1_u64..40_000).prop_map(Op::Advance),
        1 => Just(Op::Pause),
        2 => Just(Op::Resume),
        1 => Just(Op::Crash),
        1 => Just(Op::RestartQueue),
        1 => (0_usize..3).prop_map(Op::RestartStore),
        1 => (0_usize..4).prop_map(Op::CallerDies),
        1 => (0_usize..4).prop_map(Op::EndsUnheard),
    ]
}

fn perform(world: &mut World, op: Op) {
    match op {
        // Nobody knows the id of a job before it is on disk.
        Op::Cancel(seq) | Op::Requeue(seq) | Op::Reprioritise(seq, _) if seq > world.seqs => {}
        Op::Submit(priority) => {
            world.submit(priority);
        }
        Op::Ack => {
            world.ack();
        }
        Op::End(pick, outcome) => {
            if let Some(slot) = world.busy_slot(pick) {
                let outcome = match outcome {
                    0 => failed(FailureClass::ServerTransient),
                    1 => failed(FailureClass::Throttle),
                    2 => failed(FailureClass::RequestFatal),
                    3 => failed(FailureClass::OperatorFatal),
                    _ => answered(),
                };
                world.end(slot, &outcome);
            }
        }
        Op::Cancel(seq) => {
            world.cancel(id(seq));
        }
        Op::Requeue(seq) => {
            world.tell(|lane, now| lane.requeue(id(seq), now));
        }
        Op::Reprioritise(seq, priority) => {
            world.tell(|lane, now| lane.reprioritise(id(seq), priority, now));
        }
        Op::Advance(ms) => world.advance(ms),
        Op::Pause => {
            world.tell(|lane, now| lane.pause(None, now));
        }
        Op::Resume => {
            world.tell(|lane, now| lane.resume(now));
        }
        Op::Crash => world.crash(),
        Op::RestartQueue => world.restart_queue(),
        Op::RestartStore(kept) => world.restart_store(kept),
        Op::EndsUnheard(pick) => {
            if let Some(slot) = world.busy_slot(pick) {
                let _ = world.ends(slot, &answered());
                world.restart_queue();
            }
        }
        Op::CallerDies(pick) => {
            // The call is lost with its caller; queue and later actors restart with it.
            if let Some(slot) = world.busy_slot(pick) {
                world.callers.insert(slot, None);
                world.last.remove(&slot);
                world.before.remove(&slot);
                world.restart_queue();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_are_right(
        concurrency in 1_u16..4,
        goes_on: bool,
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(concurrency);
        world.goes_on = goes_on;
        for op in ops {
            perform(&mut world, op);
        }
        world.finish();
    }

    #[test]
    fn what_lies_ready_is_what_the_lane_would_send(
        ops in proptest::collection::vec(op(), 0..160),
    ) {
        let (mut asks, mut goes_on) = (World::new(1), World::new(1));
        goes_on.goes_on = true;
        for op in ops {
            perform(&mut asks, op.clone());
            perform(&mut goes_on, op.clone());
            if matches!(op, Op::EndsUnheard(_)) {
                // Only one of them has sent its next call already.
                break;
            }
            prop_assert_eq!(&asks.sent, &goes_on.sent);
            prop_assert_eq!(asks.running(), goes_on.running());
        }
        goes_on.finish();
    }
}

/// A lane whose caller goes on by itself: two jobs came, the first one is sent, the second lies ready.
fn with_one_ready() -> World {
    let mut world = World::new(1);
    world.goes_on = true;
    world.submit_all([0, 0]);
    assert_eq!(world.running(), [id(1)]);
    let (slot, next) = world.lane.next_up().expect("the next call");
    assert_eq!((slot, next.job.id), (SlotId(0), id(2)));
    world
}

#[test]
fn a_caller_goes_on_with_what_lies_ready_and_both_are_stored_in_one_commit() {
    let mut world = with_one_ready();
    world.end(SlotId(0), &answered());
    world.runs([id(2)], "before anybody was asked");
    let (_, commit) = world.in_work.pop_front().expect("one commit");
    assert!(world.in_work.is_empty());
    let settled =
        |change: &Transition| matches!(change, Transition::Settle(end) if end.job_id == id(1));
    let started = |change: &Transition| matches!(change, Transition::Start { job_id, .. } if *job_id == id(2));
    assert!(commit.iter().any(settled) && commit.iter().any(started));
}

#[test]
fn nothing_lies_ready_that_something_else_may_come_before() {
    let none = |change: fn(&mut World), why: &str| {
        let mut world = with_one_ready();
        change(&mut world);
        world.ack_all();
        assert!(world.lane.next_up().is_none(), "{why}");
    };
    none(
        |world| world.tell(|lane, now| lane.pause(None, now)),
        "a pause",
    );
    none(
        |world| {
            world.cancel(id(1));
        },
        "its call is being closed",
    );
    none(
        |world| {
            world.cancel(id(2));
        },
        "it is given up",
    );
    none(
        |world| world.tell(|lane, now| lane.drain(now)),
        "a shutdown",
    );
    none(
        |world| world.tell(|lane, now| lane.disk(true, now)),
        "a full disk",
    );
    none(
        |world| world.configure(|settings| settings.lane.rules.pace.requests_per_minute = 60),
        "a pace",
    );
}

#[test]
fn a_staged_job_that_no_outcome_sends_waits_until_its_start_is_stored() {
    let mut world = World::new(1);
    let [_, second] = world.submit_all([0, 0]);
    world.step(|lane, now| lane.pause(None, now));
    world.call_ends(&answered());
    world.tell(|lane, now| lane.resume(now));
    world.runs([], "its start is not on disk");
    world.ack_all();
    world.runs([second], "it is");
    let window = world.lane.tracks[DEFAULT_LANE].stage.window();
    assert_eq!(window, 1, "nobody was held back");
}

#[test]
fn nothing_lies_ready_while_the_lane_knows_of_what_an_answer_could_change() {
    fn lane(lane: &mut Scheduler) -> &mut LaneCondition {
        let lanes = &mut lane.state.lanes;
        lanes.entry(DEFAULT_LANE.to_owned()).or_default()
    }
    fn model(lane: &mut Scheduler) -> &mut ModelCondition {
        lane.state.models.entry("other".to_owned()).or_default()
    }
    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const HOLD: Hold = Hold {
        kind: HoldKind::Operator,
        code: String::new(),
        message: String::new(),
        since: NOW,
        until: None,
    };
    type Change = (&'static str, fn(&mut Scheduler));
    let changes: [Change; 10] = [
        ("a breaker that probes", |it| {
            it.breaker.state = BreakerState::HalfOpen;
        }),
        ("outcomes that are not stored", |it| {
            it.unsettled = vec![id(9); limits::UNSETTLED_MAX - 1];
        }),
        ("a doubt", |it| it.state.in_doubt = true),
        ("an answer of another", |it| it.state.foreign_answers = 1),
        ("a probe", |it| it.state.probing = true),
        ("a held lane", |it| lane(it).hold = Some(HOLD)),
        ("a throttled lane", |it| lane(it).throttle_level = 1),
        ("a throttle", |it| lane(it).throttled_at = Some(NOW)),
        ("a held model", |it| model(it).hold = Some(HOLD)),
        ("a probed model", |it| model(it).probing = true),
    ];
    assert!(with_one_ready().lane.next_up().is_some());
    for (why, change) in changes {
        let mut world = with_one_ready();
        change(&mut world.lane);
        assert!(world.lane.next_up().is_none(), "{why}");
    }
}

#[test]
fn a_more_urgent_job_lies_ready_in_the_place_of_the_one_before() {
    let mut world = with_one_ready();
    let urgent = world.submit(5);
    assert!(world.lane.next_up().is_none(), "it is not on record yet");
    world.ack_all();
    let (_, next) = world.lane.next_up().expect("the next call");
    assert_eq!(next.job.id, urgent);
}

#[test]
fn what_a_caller_did_by_itself_outlives_the_queue_that_did_not_hear_of_it() {
    let mut world = with_one_ready();
    assert_eq!(world.ends(SlotId(0), &answered()), Some(Some(id(2))));
    world.restart_queue();
    world.ack_all();
    assert_eq!(world.running(), [id(2)]);
    world.call_ends(&answered());
    for job in [1, 2] {
        assert_eq!(world.status_of(id(job)), JobStatus::Completed);
        assert_eq!(world.disk.jobs[&id(job)].attempts, AttemptNo(1));
    }
    assert_eq!(world.sent.len(), 2, "nothing is bought twice");
    world.finish();
}

#[test]
fn a_judged_success_ends_a_series_of_throttles() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.call_ends(&failed(FailureClass::Throttle));
    assert_eq!(throttle_level(world.lane.state()), 1);
    assert_eq!(
        world.disk.lane.holds().map(|(_, h)| h.kind).next(),
        Some(HoldKind::Throttle)
    );
    world.pass(5_000);
    world.call_ends(&answered());
    assert_eq!(throttle_level(world.lane.state()), 0);
    assert_eq!(throttle_level(&world.disk.lane), 0);
    assert_eq!(world.disk.jobs[&id(1)].retry_count, 0);
}

#[test]
fn a_second_credit_for_a_slot_is_none() {
    let mut world = World::new(1);
    world.submit(0);
    world.submit(0);
    world.step(|lane, now| lane.ready(SlotId(0), now));
    assert_eq!(world.running(), [id(1)]);
    world.step(|lane, now| lane.ready(SlotId(0), now));
    world.runs([id(1)], "the slot has its call still");
    world.finish();
}

#[test]
fn cancelling_a_job_in_doubt_closes_nobody_elses_call() {
    let mut world = World::new(1);
    world.submit_all([0, 0]);
    world.restart_queue();
    let path = world.cancel(id(2));
    assert_eq!(path, CancelPath::Settlement);

    assert_eq!(world.running(), [id(1)]);
    world.call_ends(&answered());
    assert_eq!(world.disk.jobs[&id(1)].status, JobStatus::Completed);
    assert_eq!(world.disk.jobs[&id(2)].status, JobStatus::Cancelled);
    world.finish();
}

#[test]
fn a_caller_that_is_gone_leaves_no_slot_to_wait_for() {
    let mut world = World::new(2);
    world.submit_all([0, 0]);
    // Slot 1's caller ended with its call, and the new queue was told of it too late.
    world.callers.insert(SlotId(1), None);
    world.last.remove(&SlotId(1));
    world.recover();
    world.call_ends(&answered());
    assert_eq!(
        world.lane.snapshot().in_flight,
        1,
        "the lost call is awaited"
    );
    world.step(|lane, now| lane.caller_gone(SlotId(1), now));
    assert_eq!(world.lane.missing_callers(), [SlotId(1)]);
    world.runs([id(2)], "it goes on with the slot it has");
    world.lane.caller_added(SlotId(1));
    world.submit(0);
    world.step(|lane, now| lane.ready(SlotId(1), now));
    assert_eq!(world.running().len(), 2);
    world.finish();
}

#[test]
fn a_job_that_is_put_back_and_given_up_at_once_is_not_sent() {
    let mut world = World::new(1);
    world.submit_all([0]);
    world.call_ends(&failed(FailureClass::RequestFatal));
    world.tell(|lane, now| lane.requeue(id(1), now));
    world.cancel(id(1));
    world.ack_all();
    assert!(!world.lane.knows(id(1)));
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.disk.jobs[&id(1)].status, JobStatus::Cancelled);
    world.finish();
}

#[test]
fn a_job_that_is_put_back_as_its_deadline_passes_is_not_sent() {
    let mut world = World::new(1);
    let job = world.submit_as(|job| {
        job.on_interrupted = Some(crate::model::OnInterrupted::Park);
        job.deadline = Some(Timestamp::from_millis(5_000));
    });
    world.ack_all();
    world.crash();
    world.ack_all();
    assert!(world.disk.jobs[&job].parked.is_some());
    world.tell(|lane, now| lane.requeue(job, now));
    world.now = Timestamp::from_millis(1_000_000_000);
    world.tell(|lane, now| lane.tick(now));
    world.ack_all();
    assert!(!world.lane.knows(job));
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn a_job_is_missed_where_it_waits_on_disk_and_did_not_here_before_the_commit_that_says_so() {
    let mut world = World::new(1);
    let [_, waits] = world.submit_all([0, 0]);
    let put_back = |job_id, decision| (Transition::Requeue { job_id }, decision);
    let waits_already = |job_id| put_back(job_id, Err(Refusal::WrongStatus(JobStatus::Pending)));
    let lane = &world.lane;
    // What ends it in the same commit, with a job that it comes after, has not been heard.
    assert_eq!(lane.lacks(&[waits_already(waits)]), None);
    assert_eq!(lane.lacks(&[waits_already(id(7))]), Some(id(7)));
    let back_by_this = put_back(id(7), Ok(Applied::Done));
    assert_eq!(lane.lacks(&[back_by_this, waits_already(id(7))]), None);
    let ended = put_back(id(7), Err(Refusal::WrongStatus(JobStatus::Failed)));
    assert_eq!(lane.lacks(&[ended]), None);
    // It has been called meanwhile, and how that ended is not yet on disk.
    world.end(SlotId(0), &answered());
    world.ack_all();
    world.end(SlotId(0), &answered());
    assert!(!world.lane.knows(waits));
    assert_eq!(world.lane.lacks(&[waits_already(waits)]), None);
    world.finish();
}

#[test]
fn a_late_refusal_of_the_old_key_does_not_hold_the_new_one() {
    let mut world = World::new(1);
    world.submit_all([0]);
    let old = Arc::clone(&world.settings);
    world.configure(|settings| settings.glm.api_key = Some(Secret::new("another")));
    let call = (id(1), AttemptNo(1));
    let finished = finished(call, &old, failed(FailureClass::OperatorFatal), world.now);
    let (job, cancelled) = world.lane.awaited(SlotId(0), id(1), AttemptNo(1)).unwrap();
    let context = context(&world.settings, world.now);
    let on = SettleContext { context, cancelled };
    let concluded = conclude(job, &finished, &on);
    assert_eq!(concluded.lane, LaneEffect::GoOn);
    assert!(concluded.back_in_line.is_some(), "and fails no job");
}

#[test]
fn a_priority_that_was_changed_while_staged_outlives_a_retry() {
    let mut world = World::new(1);
    world.submit_all([0, 0]);
    world.step(|lane, now| lane.reprioritise(id(2), 9, now));
    world.submit_all([5]);
    world.call_ends(&answered());
    assert_eq!(world.running(), [id(2)]);
    world.call_ends(&failed(FailureClass::Throttle));
    world.pass(10_000);
    world.runs([id(2)], "before the job of priority 5");
    world.finish();
}

#[test]
fn a_priority_that_comes_to_disk_while_its_job_is_sent_ahead_outlives_a_retry() {
    let mut world = World::new(1);
    world.submit_all([0, 0]);
    world.tell(|lane, now| lane.reprioritise(id(2), 9, now));
    world.end(SlotId(0), &answered());
    assert_eq!(world.running(), [id(2)], "before the disk has answered");
    world.ack_all();
    world.submit_all([5]);
    world.call_ends(&failed(FailureClass::Throttle));
    world.pass(10_000);
    world.runs([id(2)], "before the job of priority 5");
    world.finish();
}

#[test]
fn a_jobs_own_bound_says_nothing_of_the_service() {
    let mut world = World::new(1);
    world.submit_all([0]);
    let mut failure = Failure::new(FailureClass::ServerTransient, code::TIMEOUT_TOTAL, "late");
    failure.maybe_billed = true;
    let effect = |bounded_by_job| {
        let (job, cancelled) = world.lane.awaited(SlotId(0), id(1), AttemptNo(1)).unwrap();
        let context = context(&world.settings, world.now);
        let call = (id(1), AttemptNo(1));
        let finished = Finished {
            bounded_by_job,
            ..finished(
                call,
                &world.settings,
                failed_with(failure.clone()),
                world.now,
            )
        };
        conclude(job, &finished, &SettleContext { context, cancelled }).breaker
    };
    assert_eq!(effect(false), BreakerEffect::Failure { at_once: false });
    assert_eq!(effect(true), BreakerEffect::Ignore);
}

#[path = "at_once_tests.rs"]
mod at_once;

#[path = "steering_tests.rs"]
mod steering;

#[path = "budget_tests.rs"]
mod budgets;

#[path = "key_tests.rs"]
mod keys;

#[path = "reserve_tests.rs"]
mod reserves;

#[path = "wait_tests.rs"]
mod wait;

#[path = "blame_tests.rs"]
mod blame;

fn refused() -> GlmOutcome {
    failed_with(Failure::new(
        FailureClass::Unreachable,
        code::UNREACHABLE,
        "refused",
    ))
}

#[test]
fn a_route_that_leads_nowhere_costs_no_retry_and_one_call_at_a_time_tries_it() {
    let mut world = World::new(2);
    let [first, second, third] = world.submit_all([0, 0, 0]);
    world.end(SlotId(0), &refused());
    world.end(SlotId(1), &refused());
    world.ack_all();
    let route = world.lane.route().unwrap();
    assert_eq!(route.failures, 1, "they were sent together");
    assert!(!world.lane.snapshot().reached);
    for id in [first, second] {
        let job = &world.disk.jobs[&id];
        assert_eq!((job.retry_count, job.throttles), (0, 0));
        assert_eq!(job.status, JobStatus::Pending);
    }
    // Whether a crash comes between or not, one call tries when the hold is over.
    world.crash();
    assert_eq!(world.running().len(), 0);
    world.now = world.now.plus_ms(5_000);
    world.step(|lane, now| lane.tick(now));
    assert_eq!(world.running().len(), 1);
    let again = world.disk.lane.route.clone().unwrap();
    assert_eq!(again.since, Timestamp::from_millis(1_000));
    world.now = world.now.plus_ms(1);
    world.end(SlotId(0), &refused());
    world.ack_all();
    assert_eq!(world.lane.route().unwrap().failures, 2);
    assert_eq!(world.running().len(), 0);
    world.now = world.now.plus_ms(10_000);
    world.step(|lane, now| lane.tick(now));
    assert_eq!(world.running().len(), 1);
    // Whatever a server says, it was reached.
    world.end(
        SlotId(0),
        &failed_with(Failure {
            status_code: Some(503),
            ..Failure::new(FailureClass::ServerTransient, "http_503", "busy")
        }),
    );
    world.ack_all();
    assert_eq!(world.lane.route(), None);
    assert!(world.lane.snapshot().reached);
    assert_eq!(world.running().len(), 2);
    assert!(!world.disk.jobs.contains_key(&third) || world.disk.jobs[&third].retry_count == 0);
}

#[test]
fn a_job_that_waits_for_its_retry_can_be_tried_now() {
    let mut world = World::new(1);
    let [first, second] = world.submit_all([0, 0]);
    world.end(SlotId(0), &failed(FailureClass::ServerTransient));
    world.ack_all();
    assert!(world.disk.jobs[&first].next_retry_at.is_some());
    assert_eq!(world.running(), [second]);
    world.step(|lane, now| lane.requeue(first, now));
    let job = &world.disk.jobs[&first];
    assert_eq!(
        (job.next_retry_at, job.retry_count),
        (None, 1),
        "its retries stay counted"
    );
    world.end(SlotId(0), &answered());
    world.ack_all();
    assert_eq!(world.running(), [first], "due now, in its old place");

    // One whose delay ends while the order is on its way to the disk runs once.
    world.end(SlotId(0), &failed(FailureClass::ServerTransient));
    world.ack_all();
    world.tell(|lane, now| lane.requeue(first, now));
    world.now = world.now.plus_ms(60_000);
    world.tell(|lane, now| lane.tick(now));
    world.ack_all();
    assert_eq!(world.running(), [first]);
    world.end(SlotId(0), &answered());
    world.ack_all();
    assert_eq!(world.disk.completions[&first], 1);
    assert!(!world.lane.knows(first));
}

#[test]
fn a_job_that_belongs_to_a_connection_ends_with_its_process() {
    let bound = |to| move |job: &mut Job| job.bound_to = Some(to);
    let started = || {
        let mut world = World::new(1);
        let open = world.submit_as(bound(1));
        world.submit_as(bound(1));
        // It would be parked or failed otherwise, but there is nobody to decide for.
        world.disk.jobs.get_mut(&open).unwrap().on_interrupted =
            Some(crate::model::OnInterrupted::Retry);
        let kept = world.submit(0);
        world.ack_all();
        assert_eq!(world.running(), [open]);
        world.submit_as(bound(1));
        world.ack_all();
        (world, open, kept)
    };
    let statuses = |world: &World| {
        let jobs = world.disk.jobs.values();
        jobs.map(|job| job.status).collect::<Vec<_>>()
    };
    use JobStatus::{Cancelled, Completed, Pending};

    // A shutdown: what waits is given up at once, what is open may finish, and is not tried again.
    let (mut world, open, kept) = started();
    world.step(|lane, now| lane.drain(now));
    assert_eq!(world.status_of(open), JobStatus::Processing);
    assert_eq!(statuses(&world)[1..], [Cancelled, Pending, Cancelled]);
    world.end(SlotId(0), &failed(FailureClass::ServerTransient));
    world.ack_all();
    assert_eq!(world.status_of(open), Cancelled);
    assert!(world.lane.is_drained());
    assert_eq!(world.status_of(kept), Pending);

    // Its deadline: the call is closed, on record as maybe billed, and not made again.
    let (mut world, open, _) = started();
    world.step(|lane, now| lane.drain(now));
    world.step(|lane, _| lane.abort_all());
    assert_eq!(world.status_of(open), Cancelled);
    let call = world.disk.calls.last().unwrap();
    assert_eq!(
        (call.job_id, call.outcome),
        (open, CallOutcome::Interrupted)
    );
    assert!(call.maybe_billed);

    // A crash.
    let (mut world, open, kept) = started();
    world.instance = Some(2);
    world.crash();
    world.ack_all();
    assert_eq!(statuses(&world)[..2], [Cancelled, Cancelled]);
    assert_eq!(statuses(&world)[3], Cancelled);
    let mut calls = world.disk.calls.iter();
    let call = calls.find(|call| call.job_id == open).unwrap();
    assert_eq!(
        (call.job_id, call.outcome),
        (open, CallOutcome::Interrupted)
    );
    assert!(call.maybe_billed);
    assert_eq!(world.running(), [kept]);

    // An actor that fails is no end of the process: its connections stand.
    let (mut world, open, _) = started();
    world.restart_queue();
    world.ack_all();
    world.end(SlotId(0), &answered());
    world.ack_all();
    assert_eq!(world.status_of(open), Completed);
    assert_eq!(world.running().len(), 1);
}

#[test]
fn a_shutdown_ends_what_glm_holds_for_a_connection_and_leaves_other_tasks_to_the_next_start() {
    let running = |bound_to| {
        let mut world = World::new(1);
        let job = world.submit_as(|job| job.bound_to = bound_to);
        world.ack_all();
        assert_eq!(world.running(), [job]);
        (world, job)
    };
    let bound = Some(1);
    for bound_to in [bound, None] {
        let (mut world, job) = running(bound_to);
        world.step(|lane, now| lane.drain(now));
        let stays = world.lane.stays_open(SlotId(0), job, AttemptNo(1));
        assert_eq!(stays, bound_to.is_none());
    }

    // One that nobody fetches just then: a queue before this one left it, and an operator paused the lanes.
    for bound_to in [bound, None] {
        let (mut world, job) = running(bound_to);
        let account = world.settings.glm.endpoint().digest();
        world.disk.jobs.get_mut(&job).unwrap().task = Some(AsyncTask {
            id: "task".to_owned(),
            account,
            left_open: false,
        });
        world.step(|lane, now| lane.pause(None, now));
        world.callers.insert(SlotId(0), None);
        world.restart_queue();
        world.ack_all();
        assert_eq!(world.status_of(job), JobStatus::Processing);
        world.step(|lane, now| lane.drain(now));
        assert!(world.lane.is_drained());
        let Some(call) = world.disk.calls.last() else {
            assert_eq!(bound_to, None);
            assert_eq!(world.status_of(job), JobStatus::Processing);
            continue;
        };
        assert_eq!(
            (bound_to, world.status_of(job)),
            (bound, JobStatus::Cancelled)
        );
        assert!(call.maybe_billed);
    }
}

#[test]
fn lanes_that_go_on_differently_are_written_differently() {
    let written = |change: fn(&mut World)| {
        let mut world = World::new(1);
        world.submit_all([0]);
        change(&mut world);
        let mut written = String::new();
        world.lane.imprint(&mut written).unwrap();
        written
    };
    let before = written(|_| ());
    assert_eq!(written(|_| ()), before);
    for change in [
        |world: &mut World| world.step(|lane, now| lane.pause(None, now)),
        |world: &mut World| world.call_ends(&answered()),
        |world: &mut World| {
            world.submit_all([1]);
        },
    ] {
        assert_ne!(written(change), before);
    }
}

#[test]
fn a_clock_that_is_set_back_makes_a_step_due_and_one_that_is_set_ahead_does_not() {
    let mut lane = World::new(1).lane;
    let mut hear = |wall, uptime_ms| lane.hear(Timestamp::from_millis(wall), uptime_ms);
    assert!(!hear(1_000_000, 0));
    assert!(!hear(1_001_000, 1_000));
    assert!(hear(500_000, 2_000));
    assert!(!hear(501_000, 3_000));
    assert!(!hear(9_000_000, 4_000));
}

#[test]
fn a_retry_waits_no_longer_than_its_delay_whatever_the_clock_does_and_whoever_restarts() {
    for crashes in [false, true] {
        let mut world = World::new(1);
        world.now = Timestamp::from_millis(100_000_000);
        let [job] = world.submit_all([0]);
        world.end(SlotId(0), &failed(FailureClass::ServerTransient));
        world.ack_all();
        let row = &world.disk.jobs[&job];
        let wait = row.next_retry_at.unwrap();
        assert!((800..=1_000).contains(&wait.length_ms), "{wait:?}");
        world.now = world.now.minus_ms(50_000_000);
        world.step(|lane, now| lane.tick(now));
        if crashes {
            world.crash();
            world.ack_all();
        }
        assert_eq!(world.running(), []);
        world.now = world.now.plus_ms(1_000);
        world.step(|lane, now| lane.tick(now));
        assert_eq!(world.running(), [job]);
    }
}
