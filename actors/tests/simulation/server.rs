//! GLM as the world knows it: its own rules, which change over time, and the truth about every call,
//! whatever became of those who made it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onelane_actors::ports::GlmCall;
use onelane_actors::testing::Dice;
use onelane_core::model::{AttemptNo, Failure, FailureClass, JobId, Timestamp, Usage, code};

use crate::replies::{broken, cut_off, number_of, stated, text_of};
use crate::streams;

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The synchronous API.
    Call,
    /// The asynchronous one: the answer is fetched.
    Submission,
}

/// The truth about one call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptNo,
    pub(crate) model: String,
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) begun: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    /// What GLM charged, if it did.
    pub(crate) billed: Option<Usage>,
    /// Somebody may have read of its answer before it was whole.
    pub(crate) is_told: bool,
    /// Somebody heard that it broke off.
    pub(crate) is_cut: bool,
    pub(crate) plan: Plan,
}

/// What will become of a call if nobody closes it before.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) after_ms: u64,
    pub(crate) end: End,
    /// What is told of it while it comes.
    pub(crate) pieces: Vec<Bytes>,
}

impl Plan {
    /// Nothing is told before the end.
    const fn silent(after_ms: u64, end: End) -> Self {
        Self {
            after_ms,
            end,
            pieces: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum End {
    /// An answer with these tokens.
    Answer(Usage),
    /// A failure, and what GLM charges all the same, told or not.
    Fail(Failure, Usage),
    /// The adapter breaks its word and panics.
    Panic,
}

/// A task of the asynchronous API.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The call that handed it over.
    pub(crate) number: usize,
    pub(crate) key: String,
    pub(crate) ready: Timestamp,
    pub(crate) end: End,
}

/// How things go at GLM.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    broken: u64,
    hanging: u64,
    unlucky: u64,
    panicking: u64,
}

/// GLM.
pub(crate) struct Server {
    seed: u64,
    account_limit: usize,
    model_limit: usize,
    throttled_until: Timestamp,
    overloaded: BTreeMap<String, Timestamp>,
    quota_until: Timestamp,
    unpaid: BTreeSet<String>,
    forbidden: BTreeSet<String>,
    weather: Weather,
    /// Calls whose connection is closed and that GLM still counts.
    lingering: Vec<(String, Timestamp)>,
    pub(crate) calls: Vec<Call>,
    by_attempt: BTreeMap<(JobId, AttemptNo), usize>,
    pub(crate) open: BTreeSet<usize>,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) fetches: u64,
}

impl Server {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "glm");
        Self {
            seed,
            account_limit: dice.between(2, 8) as usize,
            model_limit: dice.between(1, 4) as usize,
            throttled_until: Timestamp::default(),
            overloaded: BTreeMap::new(),
            quota_until: Timestamp::default(),
            unpaid: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            weather: Weather::default(),
            lingering: Vec::new(),
            calls: Vec::new(),
            by_attempt: BTreeMap::new(),
            open: BTreeSet::new(),
            tasks: BTreeMap::new(),
            fetches: 0,
        }
    }

    /// Something changes at GLM.
    pub(crate) fn turn(
        &mut self,
        models: &[&str],
        key: &str,
        now: Timestamp,
        dice: &mut Dice,
    ) -> String {
        match dice.below(11) {
            0 => {
                let ms = dice.between(2_000, 120_000);
                self.throttled_until = now.plus_ms(ms);
                format!("1302 to everything for {ms} ms")
            }
            1 | 2 => {
                let model = (*dice.pick(models)).to_owned();
                let ms = dice.between(5_000, 200_000);
                let what = format!("{model} is overloaded for {ms} ms");
                self.overloaded.insert(model, now.plus_ms(ms));
                what
            }
            3 => {
                let ms = dice.between(10_000, 300_000);
                self.quota_until = now.plus_ms(ms);
                format!("the quota is used up for {ms} ms")
            }
            4 => {
                self.unpaid.insert(key.to_owned());
                format!("{key} has no money left")
            }
            5 => {
                let model = (*dice.pick(models)).to_owned();
                let what = format!("{model} is not allowed any more");
                self.forbidden.insert(model);
                what
            }
            6 | 7 => {
                self.account_limit = dice.between(1, 8) as usize;
                self.model_limit = dice.between(1, 4) as usize;
                format!(
                    "{} calls an account, {} a model",
                    self.account_limit, self.model_limit
                )
            }
            8 | 9 => {
                self.weather = Weather {
                    broken: *dice.pick(&[0, 50, 300, 900]),
                    hanging: *dice.pick(&[0, 20, 100]),
                    unlucky: *dice.pick(&[0, 30]),
                    panicking: *dice.pick(&[0, 0, 0, 3]),
                };
                format!("{:?}", self.weather)
            }
            _ => {
                self.heal(now);
                "all is well".to_owned()
            }
        }
    }

    /// All is well from now on, with any key.
    pub(crate) fn heal(&mut self, now: Timestamp) {
        self.account_limit = 64;
        self.model_limit = 64;
        self.throttled_until = now;
        self.overloaded.clear();
        self.quota_until = now;
        self.unpaid.clear();
        self.forbidden.clear();
        self.weather = Weather::default();
    }

    /// A call begins. `None`: this attempt has called before.
    pub(crate) fn begin(&mut self, call: &GlmCall, kind: Kind, now: Timestamp) -> Option<usize> {
        let key = call.endpoint.api_key.as_ref();
        let key = key.map_or_else(String::new, |key| key.expose().to_owned());
        let number = self.calls.len();
        let plan = self.plan(call, kind, &key, (number, now));
        let attempt = (call.job_id, call.attempt);
        if self.by_attempt.insert(attempt, number).is_some() {
            return None;
        }
        self.calls.push(Call {
            job: call.job_id,
            attempt: call.attempt,
            model: call.model.clone(),
            key,
            kind,
            begun: now,
            ended: None,
            billed: None,
            is_told: false,
            is_cut: false,
            plan,
        });
        self.open.insert(number);
        Some(number)
    }

    /// How many open calls are answered by then.
    pub(crate) fn answers_until(&self, then: Timestamp) -> u64 {
        let open = self.open.iter().map(|number| &self.calls[*number]);
        let answered = open.filter(|call| {
            matches!(call.plan.end, End::Answer(_))
                && call.begun.plus_ms(call.plan.after_ms) <= then
        });
        answered.count() as u64
    }

    /// What will become of an open call.
    pub(crate) fn plan_of(&self, number: usize) -> Plan {
        self.calls[number].plan.clone()
    }

    /// The number of the call of this attempt.
    pub(crate) fn number_of_call(&self, job: JobId, attempt: AttemptNo) -> Option<usize> {
        self.by_attempt.get(&(job, attempt)).copied()
    }

    /// The call of this attempt.
    pub(crate) fn call_of(&self, job: JobId, attempt: AttemptNo) -> Option<&Call> {
        Some(&self.calls[self.number_of_call(job, attempt)?])
    }

    /// A call ends as planned: its connection is closed, and GLM charges what it charges.
    pub(crate) fn end(&mut self, number: usize, now: Timestamp) {
        let call = &mut self.calls[number];
        call.ended = Some(now);
        self.open.remove(&number);
        match &call.plan.end {
            End::Answer(usage) | End::Fail(_, usage) if usage.total_tokens > 0 => {
                call.billed = Some(*usage);
            }
            _ => {}
        }
    }

    /// A call's connection is closed before its time. GLM may go on with it, count it, and charge it.
    pub(crate) fn cut(&mut self, number: usize, now: Timestamp) {
        if !self.open.remove(&number) {
            return;
        }
        let call = &mut self.calls[number];
        call.ended = Some(now);
        let End::Answer(usage) = call.plan.end else {
            return;
        };
        if Dice::new(self.seed, &format!("cut {number}")).one_in(2) {
            call.billed = Some(usage);
            let until = call.begun.plus_ms(call.plan.after_ms);
            self.lingering.push((call.model.clone(), until));
        }
    }

    /// The process has died, and its connections with it.
    pub(crate) fn cut_all(&mut self, now: Timestamp) {
        for number in self.open.clone() {
            self.cut(number, now);
        }
    }

    /// GLM takes a call as a task.
    pub(crate) fn accept(&mut self, number: usize, now: Timestamp) -> String {
        let id = format!("task-{number}");
        let call = &self.calls[number];
        let task = Task {
            number,
            key: call.key.clone(),
            ready: now.plus_ms(call.plan.after_ms),
            end: call.plan.end.clone(),
        };
        self.tasks.insert(id.clone(), task);
        self.end(number, now);
        id
    }

    fn plan(
        &mut self,
        call: &GlmCall,
        kind: Kind,
        key: &str,
        (number, now): (usize, Timestamp),
    ) -> Plan {
        // The same call is the same call whatever else happens.
        let row = format!("call {} {}", number_of(&call.request), call.attempt);
        let dice = &mut Dice::new(self.seed, &row);
        let total_ms = match kind {
            Kind::Call => call.timeouts.total_ms,
            // GLM answers a submission at once.
            _ => call.timeouts.total_ms.min(call.timeouts.first_byte_ms),
        };
        let after_ms = dice.between(20, 250);
        if after_ms < total_ms
            && let Some(failure) = self.refusal(call, key, now, dice)
        {
            return Plan::silent(after_ms, End::Fail(failure, Usage::default()));
        }
        let usage = Usage {
            prompt_tokens: dice.between(5, 800),
            completion_tokens: dice.between(1, 1_500),
            cached_tokens: dice.between(0, 5),
            ..Usage::default()
        };
        let usage = Usage {
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            ..usage
        };
        if dice.per_mille(self.weather.panicking) {
            return Plan::silent(after_ms, End::Panic);
        }
        if dice.per_mille(self.weather.broken) && after_ms < total_ms {
            let end = End::Fail(broken(dice), Usage::default());
            return Plan::silent(after_ms, end);
        }
        if text_of(&call.request).contains("poison") && after_ms < total_ms {
            let failure = stated(FailureClass::RequestFatal, "1210", 400);
            let end = End::Fail(failure, Usage::default());
            return Plan::silent(after_ms, end);
        }
        if dice.per_mille(self.weather.unlucky) && after_ms < total_ms {
            // Refused for what it says, after the work was done.
            let end = End::Fail(stated(FailureClass::RequestFatal, "1301", 400), usage);
            return Plan::silent(after_ms, end);
        }
        let mut work_ms = match dice.below(10) {
            0..6 => dice.between(50, 2_000),
            6..9 => dice.between(1_000, 10_000),
            _ => dice.between(5_000, 60_000),
        };
        if dice.per_mille(self.weather.hanging) {
            work_ms = u64::MAX;
        }
        if work_ms < total_ms {
            let mut plan = Plan::silent(work_ms, End::Answer(usage));
            if call.streams {
                plan.pieces = streams::pieces(number, dice);
                if dice.one_in(8) {
                    plan.end = End::Fail(cut_off(), usage);
                }
            }
            return plan;
        }
        let class = FailureClass::ServerTransient;
        let code = match total_ms == call.timeouts.total_ms {
            true => code::TIMEOUT_TOTAL,
            false => code::TIMEOUT_FIRST_BYTE,
        };
        let mut failure = Failure::new(class, code, "too late");
        failure.maybe_billed = true;
        Plan::silent(total_ms, End::Fail(failure, Usage::default()))
    }

    /// Why GLM refuses a call, if it does.
    fn refusal(
        &mut self,
        call: &GlmCall,
        key: &str,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Option<Failure> {
        if self.unpaid.contains(key) {
            return Some(stated(FailureClass::OperatorFatal, "1113", 429));
        }
        if self.quota_until > now {
            let mut failure = stated(FailureClass::QuotaWindow, "1308", 429);
            if dice.one_in(5) {
                failure.retry_after_ms = Some(self.quota_until.since(now));
            } else {
                failure.reset_at = Some(self.quota_until);
            }
            return Some(failure);
        }
        if self.forbidden.contains(&call.model) {
            return Some(stated(FailureClass::OperatorFatal, "1311", 403));
        }
        self.lingering.retain(|(_, until)| *until > now);
        let open = self.open.iter().map(|number| &self.calls[*number].model);
        let counted: Vec<&String> = open.chain(self.lingering.iter().map(|(m, _)| m)).collect();
        let of_model = counted.iter().filter(|m| ***m == call.model).count();
        if self.throttled_until > now
            || counted.len() >= self.account_limit
            || of_model >= self.model_limit
        {
            let mut failure = stated(FailureClass::Throttle, "1302", 429);
            if dice.one_in(6) {
                failure.retry_after_ms = Some(dice.between(500, 20_000));
            }
            return Some(failure);
        }
        if self.overloaded.get(&call.model).is_some_and(|t| *t > now) {
            return Some(stated(FailureClass::Overload, "1305", 429));
        }
        None
    }
}
