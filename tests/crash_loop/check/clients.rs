//! Those who hand jobs in and ask again, and a reader of answers.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use onelane::model::JobId;
use onelane_actors::testing::Dice;
use serde_json::{Value, json};

use super::world::{EndOnPanic, Program, World};

/// A job as its submitter knows it: `after` in its body names the jobs that it runs after.
pub(crate) struct Submitted {
    pub(crate) body: Value,
    /// `None`: the acknowledgement was lost, and without a key nobody can ask again.
    pub(crate) id: Option<JobId>,
    /// The client key that it was handed in by.
    pub(crate) key: Option<String>,
    /// It may wait for a budget until somebody gives it up.
    pub(crate) may_be_given_up: bool,
}

impl Submitted {
    pub(crate) fn new(body: Value) -> Self {
        Self {
            body,
            id: None,
            key: None,
            may_be_given_up: false,
        }
    }

    pub(crate) fn prompt(&self) -> &str {
        self.body["prompt"].as_str().unwrap()
    }

    /// The jobs that it was to run after, each once.
    pub(crate) fn after(&self) -> BTreeSet<JobId> {
        let ids = self.body["after"].as_array().into_iter().flatten();
        ids.map(|id| id.as_str().unwrap().parse().unwrap())
            .collect()
    }
}

/// One of the programs that submit.
pub(crate) struct Submitter<'a> {
    who: u64,
    dice: Dice,
    program: Program<'a>,
    jobs: Vec<Submitted>,
}

impl<'a> Submitter<'a> {
    pub(crate) fn new(who: u64, seed: u64, world: &'a World) -> Self {
        Self {
            who,
            dice: Dice::new(seed, &format!("submitter {who}")),
            program: Program::of_operator(world),
            jobs: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) -> Vec<Submitted> {
        let world = self.program.world;
        let _ends = EndOnPanic(world);
        while !world.is_over() {
            match self.dice.below(10) {
                0 => self.submit_list(),
                1..=3 => self.submit_without_key(),
                4 => self.ask_again(),
                _ => self.submit_with_key(),
            }
            thread::sleep(Duration::from_micros(self.dice.below(20_000)));
        }
        self.jobs
    }

    fn job(&mut self, key: Option<String>) -> Submitted {
        let prompt = format!(
            "submitter {} job {}. {}",
            self.who,
            self.jobs.len(),
            "x".repeat(self.dice.below(300) as usize)
        );
        let model = ["glm-4.7", "glm-4.6"][self.dice.below(2) as usize];
        let mut body = json!({
            "prompt": prompt,
            "priority": self.dice.below(7) as i64 - 3,
            "userId": format!("user-{}", self.dice.below(3)),
            "model": model,
        });
        if let Some(key) = key {
            body["idempotencyKey"] = json!(key);
        }
        if self.dice.below(4) == 0 {
            body["after"] = json!(self.some_of_mine());
        }
        Submitted::new(body)
    }

    /// One or two of the jobs of this submitter that were acknowledged last, done or not: chains that
    /// fork and meet again.
    fn some_of_mine(&mut self) -> Vec<String> {
        let mine = self.jobs.iter().rev().filter_map(|job| job.id);
        let latest: Vec<JobId> = mine.take(4).collect();
        let mut some = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let n = self.dice.below(latest.len().max(1) as u64) as usize;
            some.extend(latest.get(n).map(ToString::to_string));
        }
        some
    }

    fn fresh_key(&self) -> String {
        format!("{}-{}", self.who, self.jobs.len())
    }

    /// Posts once; `None` when no answer came.
    fn post(&self, body: &Value) -> Option<Value> {
        let answer = self.program.post("/api/glm/jobs", body)?;
        assert_eq!(answer.status, 202, "{answer:?}");
        Some(answer.json())
    }

    /// Posts until an answer comes, as a program with idempotency keys may.
    fn insist(&self, body: &Value) -> Value {
        self.program.world.insist(|| self.post(body))
    }

    fn acknowledged(&mut self, mut job: Submitted, answer: &Value) {
        let id = id_of(answer);
        job.id = Some(id);
        self.jobs.push(job);
        let acknowledged = &self.program.world.acknowledged;
        acknowledged.lock().unwrap().push(id);
    }

    fn submit_with_key(&mut self) {
        let job = self.job(Some(self.fresh_key()));
        let answer = self.insist(&job.body);
        self.acknowledged(job, &answer);
    }

    fn submit_without_key(&mut self) {
        let job = self.job(None);
        match self.post(&job.body) {
            Some(answer) => self.acknowledged(job, &answer),
            None => self.jobs.push(job),
        }
    }

    fn submit_list(&mut self) {
        let mut jobs = Vec::new();
        for i in 0..3 {
            let mut job = self.job(Some(format!("{}/{i}", self.fresh_key())));
            job.body["prompt"] = json!(format!("{} {i} of a list", job.prompt()));
            jobs.push(job);
        }
        let bodies: Vec<&Value> = jobs.iter().map(|job| &job.body).collect();
        let answer = self.insist(&json!(bodies));
        assert_eq!(answer["accepted"], 3, "{answer}");
        for (job, answer) in jobs.into_iter().zip(answer["jobs"].as_array().unwrap()) {
            self.acknowledged(job, answer);
        }
    }

    /// The same key and the same request after an acknowledgement: the same job.
    fn ask_again(&mut self) {
        let n = self.dice.below(self.jobs.len().max(1) as u64) as usize;
        if let Some(Submitted {
            body, id: Some(id), ..
        }) = self.jobs.get(n)
            && body.get("idempotencyKey").is_some()
            && let Some(answer) = self.post(body)
        {
            assert_eq!(id_of(&answer), *id, "{answer}");
            assert_eq!(answer["created"], false, "{answer}");
        }
    }
}

/// Waits for answers as clients do, and remembers them: what was seen must still be there in the end.
pub(crate) fn read_answers(world: &World, seed: u64) -> BTreeMap<JobId, Value> {
    let _ends = EndOnPanic(world);
    let mut dice = Dice::new(seed, "reader");
    let program = Program::of_operator(world);
    let mut seen = BTreeMap::new();
    while !world.is_over() {
        let id = {
            let ids = world.acknowledged.lock().unwrap();
            ids.get(dice.below(ids.len().max(1) as u64) as usize)
                .copied()
        };
        let answer = id.and_then(|id| {
            let answer = program.get(&format!("/api/glm/jobs/{id}?wait=100ms"))?;
            Some((id, answer))
        });
        if let Some((id, answer)) = answer {
            assert!(matches!(answer.status, 200 | 202), "{answer:?}");
            if answer.status == 200 {
                let job = answer.json();
                assert_eq!(job["status"], "completed", "{job}");
                seen.insert(id, job["result"].clone());
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
    seen
}

pub(crate) fn id_of(answer: &Value) -> JobId {
    answer["id"].as_str().unwrap().parse().unwrap()
}
