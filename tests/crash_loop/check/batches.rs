//! Programs that upload files of lines, make batches of them, look how far these are and read their results; some they
//! give up, and of some files a line is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use onelane::model::{BatchId, Job, JobStatus};
use onelane::ports::{JobRecord, Store as _};
use onelane_actors::testing::Dice;
use serde_json::{Value, json};

use super::books::Books;
use super::keys::{Key, NewKey, Unheard};
use super::world::{EndOnPanic, Program, World};
use crate::common::Answer;

const ENDPOINT: &str = "/v1/chat/completions";
const LINES_MAX: u64 = 30;
/// Batches of a program that have not ended.
const OPEN_MAX: usize = 3;

/// A batch that was acknowledged.
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) file: String,
    pub(crate) content: String,
    /// The `custom_id` of each line, which its prompt begins with.
    pub(crate) lines: Vec<String>,
    pub(crate) is_wrong: bool,
    pub(crate) is_given_up: bool,
    pub(crate) file_is_deleted: bool,
    /// The client key of who made it.
    pub(crate) key: Option<String>,
    /// As it was seen last.
    pub(crate) shown: Value,
    /// The results as they were read once it had ended, by `custom_id`.
    pub(crate) results: BTreeMap<String, Value>,
}

/// What a program knows in the end.
pub(crate) struct Known {
    pub(crate) batches: Vec<Batch>,
    /// Contents of which nobody knows whether they were taken as files.
    pub(crate) unheard_files: Vec<String>,
    pub(crate) key: Option<Key>,
    pub(crate) unheard: Unheard,
}

struct Uploader<'a> {
    who: u64,
    dice: Dice,
    program: Program<'a>,
    key: Option<String>,
    batches: Vec<Batch>,
    unheard_files: Vec<String>,
}

/// Every other one has a client key, which nobody takes back.
pub(crate) fn run(who: u64, seed: u64, world: &World) -> Known {
    let _ends = EndOnPanic(world);
    let mut unheard = Unheard::default();
    let key = who.is_multiple_of(2).then(|| {
        let mut new = NewKey::named(format!("uploader {who}"));
        new.user = Some(format!("uploader-{who}"));
        new.make(&Program::of_operator(world), &mut unheard)
    });
    let uploader = Uploader {
        who,
        dice: Dice::new(seed, &format!("uploader {who}")),
        program: match &key {
            Some(key) => Program::with_key(world, &key.text),
            None => Program::of_operator(world),
        },
        key: key.as_ref().map(|key| key.id.clone()),
        batches: Vec::new(),
        unheard_files: Vec::new(),
    };
    let (batches, unheard_files) = uploader.run();
    Known {
        batches,
        unheard_files,
        key,
        unheard,
    }
}

/// How far a batch is by its status: what was seen is never taken back.
fn rank(status: &str) -> usize {
    let all = [
        &["validating"] as &[&str],
        &["in_progress"],
        &["cancelling"],
        &["completed", "failed", "cancelled"],
    ];
    let rank = all.iter().position(|these| these.contains(&status));
    rank.unwrap_or_else(|| panic!("a batch is {status}"))
}

impl Batch {
    pub(crate) fn path(&self) -> String {
        format!("/v1/batches/{}", self.id)
    }

    fn status(&self) -> &str {
        self.shown["status"].as_str().unwrap()
    }

    pub(crate) fn has_ended(&self) -> bool {
        rank(self.status()) == 3
    }

    fn count(&self, what: &str) -> u64 {
        self.shown["request_counts"][what].as_u64().unwrap()
    }

    /// Takes what is shown for what it is, if that can be after what was shown before.
    fn is_shown(&mut self, shown: Value) {
        let before = std::mem::replace(&mut self.shown, shown);
        let of = |shown: &Value, what: &str| shown["request_counts"][what].as_u64().unwrap();
        let shown = &self.shown;
        let told = format!("{before} and then {shown}");
        assert_eq!(shown["id"], self.id.as_str(), "{told}");
        let is_further = rank(before["status"].as_str().unwrap()) <= rank(self.status());
        assert!(is_further, "{told}");
        let lines = self.lines.len() as u64;
        let total = of(shown, "total");
        assert!(total == lines || total == 0, "{lines} lines: {told}");
        assert!(total >= of(&before, "total"), "{told}");
        let (completed, failed) = (of(shown, "completed"), of(shown, "failed"));
        assert!(completed + failed <= total, "{told}");
        assert!(completed >= of(&before, "completed"), "{told}");
        assert!(failed >= of(&before, "failed"), "{told}");
        let end = match (self.is_wrong, self.is_given_up) {
            (true, false) => &["failed"] as &[&str],
            // It may have ended before it was given up.
            (true, true) => &["failed", "cancelled"],
            (false, true) => &["completed", "cancelled"],
            (false, false) => &["completed"],
        };
        assert!(!self.has_ended() || end.contains(&self.status()), "{told}");
        assert!(self.is_given_up || failed == 0 || self.is_wrong, "{told}");
    }
}

impl Uploader<'_> {
    fn run(mut self) -> (Vec<Batch>, Vec<String>) {
        while !self.program.world.is_over() {
            let open = self.open();
            if open.len() < OPEN_MAX && self.dice.below(2) > 0 {
                self.make();
            } else if let Some(n) = open.get(self.dice.below(open.len().max(1) as u64) as usize) {
                self.go_on(*n);
            }
            let pause = self.dice.below(20_000);
            thread::sleep(Duration::from_micros(pause));
        }
        // Nothing dies any more.
        let world = self.program.world;
        world.insist(|| {
            let open = self.open();
            open.iter().for_each(|n| self.look(*n));
            open.is_empty().then_some(())
        });
        for n in 0..self.batches.len() {
            self.read_results(n);
            let file = format!("/v1/files/{}", self.batches[n].file);
            let shown = world.insist(|| self.program.get(&format!("{file}/content")));
            match self.batches[n].file_is_deleted {
                true => assert_eq!(shown.status, 404, "{shown:?}"),
                false => assert_eq!(shown.text, self.batches[n].content),
            }
        }
        (self.batches, self.unheard_files)
    }

    fn open(&self) -> Vec<usize> {
        let batches = self.batches.iter().enumerate();
        let open = batches.filter(|(_, batch)| !batch.has_ended());
        open.map(|(n, _)| n).collect()
    }

    /// Uploads a file, and makes a batch of it.
    fn make(&mut self) {
        let n = self.batches.len();
        let lines = 1 + self.dice.below(LINES_MAX);
        let wrong = (self.dice.below(8) == 0).then(|| self.dice.below(lines));
        let mut content = String::new();
        let mut names = Vec::new();
        for line in 0..lines {
            let name = format!("uploader {} batch {n} line {line}", self.who);
            let method = match wrong {
                Some(wrong) if wrong == line => "GET",
                _ => "POST",
            };
            let messages = json!([{"role": "user", "content": format!("{name}.")}]);
            let body = json!({"model": "glm-4.7", "messages": messages});
            let line = json!({"custom_id": name, "method": method, "url": ENDPOINT, "body": body});
            content += &format!("{line}\n");
            names.push(name);
        }
        let file = self.program.world.insist(|| {
            let Some(answer) = self.program.upload("/v1/files", &content) else {
                self.unheard_files.push(content.clone());
                return None;
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            Some(answer.json()["id"].as_str().unwrap().to_owned())
        });
        let shown = self.create(n, &file);
        self.batches.push(Batch {
            id: shown["id"].as_str().unwrap().to_owned(),
            file,
            content,
            lines: names,
            is_wrong: wrong.is_some(),
            is_given_up: false,
            file_is_deleted: false,
            key: self.key.clone(),
            shown,
            results: BTreeMap::new(),
        });
        // The same key for the same file after an acknowledgement: the same batch.
        if self.dice.below(4) == 0 {
            let file = self.batches[n].file.clone();
            let again = self.create(n, &file);
            self.batches[n].is_shown(again);
        }
    }

    fn create(&self, n: usize, file: &str) -> Value {
        let new = json!({"input_file_id": file, "endpoint": ENDPOINT});
        let key = format!("uploader {} batch {n}", self.who);
        // Some go before jobs, some behind them.
        let priority = ["-4", "2", "4"][n % 3];
        let headers = [
            ("idempotency-key", key.as_str()),
            ("x-onelane-priority", priority),
        ];
        let world = self.program.world;
        let answer = world.insist(|| self.program.post_with("/v1/batches", &headers, &new));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn go_on(&mut self, n: usize) {
        match self.dice.below(12) {
            0 => self.give_up(n),
            1 => self.delete_file(n),
            _ => self.look(n),
        }
    }

    fn look(&mut self, n: usize) {
        let Some(answer) = self.program.get(&self.batches[n].path()) else {
            return;
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        self.batches[n].is_shown(answer.json());
        if self.batches[n].has_ended() {
            self.read_results(n);
        }
    }

    fn give_up(&mut self, n: usize) {
        let path = format!("{}/cancel", self.batches[n].path());
        self.batches[n].is_given_up = true;
        let world = self.program.world;
        let answer: Answer = world.insist(|| self.program.post(&path, &json!({})));
        // One that has ended can't be given up.
        assert!(matches!(answer.status, 200 | 400 | 409), "{answer:?}");
        if answer.status == 200 {
            self.batches[n].is_shown(answer.json());
        }
    }

    fn delete_file(&mut self, n: usize) {
        if self.batches[n].file_is_deleted {
            return;
        }
        let path = format!("/v1/files/{}", self.batches[n].file);
        let mut asked = 0;
        let answer = self.program.world.insist(|| {
            asked += 1;
            self.program.delete(&path)
        });
        match answer.status {
            200 => self.batches[n].file_is_deleted = true,
            // The one before was heard.
            404 if asked > 1 => self.batches[n].file_is_deleted = true,
            // Its lines are not jobs yet.
            400 | 409 => {}
            _ => panic!("{path}: {answer:?}"),
        }
    }

    /// The results of a batch that has ended: each line once, and what was read before is still so.
    fn read_results(&mut self, n: usize) {
        let batch = &self.batches[n];
        let mut results: BTreeMap<String, Value> = BTreeMap::new();
        let mut counted = Vec::new();
        for member in ["output_file_id", "error_file_id"] {
            counted.push(0);
            let Some(file) = batch.shown[member].as_str() else {
                continue;
            };
            let path = format!("/v1/files/{file}/content");
            let Some(answer) = self.program.get(&path) else {
                return;
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            for line in answer.text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let name = line["custom_id"].as_str().unwrap().to_owned();
                let is_answer = member == "output_file_id";
                assert_eq!(line["error"].is_null(), is_answer, "{line}");
                let twice = results.insert(name, line);
                assert!(twice.is_none(), "a line has two results: {twice:?}");
                *counted.last_mut().unwrap() += 1;
            }
        }
        let names: BTreeSet<&String> = results.keys().collect();
        let lines: BTreeSet<&String> = batch.lines.iter().collect();
        let shown = &batch.shown;
        assert_eq!(batch.count("completed"), counted[0], "{shown}");
        match batch.status() {
            "completed" => assert_eq!(names, lines, "{shown}"),
            "cancelled" => assert!(names.is_subset(&lines), "{shown}"),
            _ => assert!(names.is_empty(), "{shown} {results:?}"),
        }
        for (name, result) in &batch.results {
            assert_eq!(results.get(name), Some(result), "it was another: {shown}");
        }
        self.batches[n].results = results;
    }
}

/// Each line is a job once, as the batch counts them and costs them; each result is the stored answer; files are there
/// to the byte, and no others.
pub(crate) fn every_line_is_there_once(books: &Books, batches: &[Batch], unheard: &[String]) {
    for batch in batches {
        let id: BatchId = batch.id.parse().unwrap();
        let of_batch = |record: &&JobRecord| record.job.batch_id == Some(id);
        let jobs: Vec<&Job> = books
            .jobs
            .values()
            .filter(of_batch)
            .map(|record| &record.job)
            .collect();
        let by_name: BTreeMap<&str, &Job> = jobs
            .iter()
            .map(|job| (job.content_id.as_deref().unwrap(), *job))
            .collect();
        assert_eq!(by_name.len(), jobs.len(), "a line is two jobs: {jobs:?}");
        let named = |name: &&str| batch.lines.iter().any(|line| line == name);
        assert!(by_name.keys().all(named), "{by_name:?}");
        let all_or_none = match batch.is_wrong {
            true => jobs.is_empty(),
            false => jobs.len() == batch.lines.len() || batch.is_given_up,
        };
        assert!(all_or_none, "{} jobs: {}", jobs.len(), batch.shown);

        let so = |status| jobs.iter().filter(|job| job.status == status).count() as u64;
        let completed = so(JobStatus::Completed);
        let ended = completed + so(JobStatus::Failed) + so(JobStatus::Cancelled);
        assert_eq!(batch.count("completed"), completed, "{}", batch.shown);
        let not = batch.count("failed");
        assert!(
            not == ended - completed || jobs.len() < batch.lines.len(),
            "{}",
            batch.shown
        );
        let stored = books.left.0.batch(id).unwrap();
        let Some(stored) = stored else {
            assert!(jobs.is_empty(), "{}", batch.shown);
            continue;
        };
        for status in JobStatus::ALL {
            assert_eq!(stored.counts.of(status), so(status), "{stored:?}");
        }
        let calls = books.calls.iter();
        let costs = calls.filter(|call| by_name.values().any(|job| job.id == call.job_id));
        let nanos: i64 = costs
            .filter_map(|call| call.cost)
            .map(|cost| cost.nanos)
            .sum();
        let told: i64 = stored.costs.iter().map(|cost| cost.nanos).sum();
        assert_eq!(told, nanos, "{stored:?}");

        for (name, result) in &batch.results {
            let job = by_name.get(name.as_str());
            if result["response"].is_null() {
                assert!(
                    job.is_none_or(|job| job.status == JobStatus::Cancelled),
                    "{result}"
                );
                continue;
            }
            let answer = books.answer(job.expect("it was answered").id);
            assert_eq!(
                Some(&result["response"]["body"]),
                answer.as_ref(),
                "{result}"
            );
        }
    }
    files_are_there(books, batches, unheard);
}

fn files_are_there(books: &Books, batches: &[Batch], unheard: &[String]) {
    let kept = batches.iter().filter(|batch| !batch.file_is_deleted);
    let kept: BTreeSet<&str> = kept.map(|batch| &*batch.file).collect();
    let (mut found, mut unheard) = (BTreeSet::new(), unheard.to_vec());
    for file in books.left.files() {
        assert!(file.is_whole(), "half a file: {file:?}");
        let id = file.id.to_string();
        if kept.contains(id.as_str()) {
            found.insert(id);
            continue;
        }
        // One whose acknowledgement was lost.
        let parts = (0..).map_while(|n| books.left.0.file_part(file.id, n).unwrap());
        let content = String::from_utf8(parts.flatten().collect()).unwrap();
        let place = unheard.iter().position(|one| *one == content);
        let place = place.unwrap_or_else(|| panic!("nobody uploaded {file:?}"));
        unheard.swap_remove(place);
    }
    assert_eq!(found.len(), kept.len(), "a file is lost");
}
