//! Clients of the gateway: most read their answers in pieces, until these end or the process does. Those with an
//! `Idempotency-Key` come back, by the same request or by the job's id, and go on until they have been told an end.

use std::thread;
use std::time::Duration;

use onelane::model::{CallOutcome, JobId, JobStatus};
use onelane_actors::testing::Dice;
use serde_json::{Value, json};

use super::books::Books;
use super::keys::{Key, NewKey, Unheard};
use super::world::{EndOnPanic, Program, World};
use crate::common::Pieces;

const CHAT: &str = "/v1/chat/completions";
/// Streams that each client reads once more from the first byte on when nothing dies any more.
const FOLLOWED_IN_THE_END: usize = 50;

/// How a telling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told that this is all.
    Whole,
    /// It was told that nothing more comes.
    Refused,
    /// Its connection ended with the process.
    Lost,
}

/// What a client was told of an answer, from its first byte on.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    /// The `request_id` of the attempt that it is of, where it says so.
    pub(crate) attempt: Option<String>,
    pub(crate) text: String,
    pub(crate) end: End,
    /// The id of its last event, where events have ids.
    last_id: Option<String>,
    /// It began anew, although it was asked to go on.
    restarted: bool,
}

impl Telling {
    fn nothing(end: End) -> Self {
        Self {
            attempt: None,
            text: String::new(),
            end,
            last_id: None,
            restarted: false,
        }
    }

    /// Reads events, whole ones only.
    fn of_events(told: &str) -> Self {
        let mut telling = Self::nothing(End::Lost);
        let Some((whole, _)) = told.rsplit_once("\n\n") else {
            return telling;
        };
        let mut names_restart = false;
        for line in whole.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                telling.last_id = Some(id.to_owned());
            } else if line == "event: restarted" {
                names_restart = true;
            } else if let Some(data) = line.strip_prefix("data: ") {
                if std::mem::take(&mut names_restart) {
                    telling.restarted = true;
                } else {
                    telling.hear(data);
                }
            }
        }
        telling
    }

    fn hear(&mut self, data: &str) {
        if data == "[DONE]" {
            self.end = End::Whole;
            return;
        }
        let chunk: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"));
        if chunk["error"].is_object() {
            self.end = End::Refused;
            return;
        }
        if let Some(attempt) = chunk["request_id"].as_str() {
            let before = self.attempt.get_or_insert_with(|| attempt.to_owned());
            assert_eq!(before, attempt, "one telling, two attempts");
        }
        let text = chunk["choices"][0]["delta"]["content"].as_str();
        self.text.push_str(text.unwrap_or_default());
    }

    /// Reads an answer that came at once.
    fn of_answer(pieces: &Pieces) -> Self {
        if !pieces.whole {
            return Self::nothing(End::Lost);
        }
        let answer: Value = serde_json::from_str(&pieces.text).unwrap();
        let text = answer["choices"][0]["message"]["content"].as_str();
        Self {
            attempt: answer["request_id"].as_str().map(str::to_owned),
            text: text
                .unwrap_or_else(|| panic!("no answer: {answer}"))
                .to_owned(),
            ..Self::nothing(End::Whole)
        }
    }

    /// What this one told, put behind what its reader had.
    fn behind(mut self, had: &Self) -> Self {
        if !self.restarted {
            self.text.insert_str(0, &had.text);
            self.attempt = self.attempt.or_else(|| had.attempt.clone());
            self.last_id = self.last_id.or_else(|| had.last_id.clone());
        }
        self
    }
}

/// A chat that was asked for.
pub(crate) struct Asked {
    pub(crate) prompt: String,
    pub(crate) streamed: bool,
    /// It has an `Idempotency-Key`, and so belongs to no connection.
    pub(crate) keyed: bool,
    /// The client key that it was asked with.
    pub(crate) key: Option<String>,
    /// `None`: nobody said.
    pub(crate) job: Option<JobId>,
    /// What was told of its answer, each time.
    pub(crate) tellings: Vec<Telling>,
}

impl Asked {
    fn is_of(&mut self, pieces: &Pieces) {
        let id = pieces.headers.get("x-onelane-job").map(|id| {
            let id = id.to_str().unwrap().parse();
            id.unwrap()
        });
        let id = id.unwrap_or_else(|| panic!("an answer without its job: {pieces:?}"));
        let known = self.job.get_or_insert(id);
        assert_eq!(*known, id, "the same key and request, another job");
    }

    /// What was told before is not taken back: of one attempt each telling goes on where another ended.
    fn is_told(&mut self, telling: Telling) {
        let of_same =
            |before: &&Telling| before.attempt.is_some() && before.attempt == telling.attempt;
        for before in self.tellings.iter().filter(of_same) {
            let (short, long) = match before.text.len() <= telling.text.len() {
                true => (before, &telling),
                false => (&telling, before),
            };
            assert!(long.text.starts_with(&short.text), "{before:?} {telling:?}");
            assert!(
                short.end != End::Whole || short.text == long.text,
                "{before:?} {telling:?}"
            );
        }
        self.tellings.push(telling);
    }

    fn has_ended(&self) -> bool {
        let last = self.tellings.last();
        last.is_some_and(|telling| telling.end != End::Lost)
    }
}

/// One of the clients.
pub(crate) struct Client<'a> {
    who: u64,
    dice: Dice,
    program: Program<'a>,
    key: Option<Key>,
    asked: Vec<Asked>,
}

/// What a client knows in the end.
pub(crate) struct Known {
    pub(crate) asked: Vec<Asked>,
    pub(crate) key: Option<Key>,
    pub(crate) unheard: Unheard,
}

/// Every other client has a client key, which nobody takes back.
pub(crate) fn run(who: u64, seed: u64, world: &World) -> Known {
    let _ends = EndOnPanic(world);
    let mut unheard = Unheard::default();
    let key = who.is_multiple_of(2).then(|| {
        let mut new = NewKey::named(format!("gateway {who}"));
        new.user = Some(format!("agent-{who}"));
        new.share = 1 + who % 3;
        new.make(&Program::of_operator(world), &mut unheard)
    });
    let client = Client {
        who,
        dice: Dice::new(seed, &format!("gateway {who}")),
        program: match &key {
            Some(key) => Program::with_key(world, &key.text),
            None => Program::of_operator(world),
        },
        key,
        asked: Vec::new(),
    };
    let (asked, key) = client.run();
    Known {
        asked,
        key,
        unheard,
    }
}

impl Client<'_> {
    fn run(mut self) -> (Vec<Asked>, Option<Key>) {
        while !self.program.world.is_over() {
            let asked = self.ask();
            self.asked.push(asked);
            thread::sleep(Duration::from_micros(self.dice.below(10_000)));
        }
        // The process that is there now stays: whoever comes back is told all of it, from the first byte on.
        let mut asked = std::mem::take(&mut self.asked);
        let streams = asked.iter_mut().filter(|one| one.keyed && one.streamed);
        for one in streams.rev().take(FOLLOWED_IN_THE_END) {
            let id = one.job.expect("it was told its end");
            let telling = self.program.world.insist(|| self.follow(id, None));
            assert_ne!(telling.end, End::Lost, "{telling:?}");
            one.is_told(telling);
        }
        (asked, self.key)
    }

    fn ask(&mut self) -> Asked {
        let dice = &mut self.dice;
        let name = format!("gateway {} call {}", self.who, self.asked.len());
        let prompt = format!("{name} [[sim piece_ms={}]]", dice.below(3));
        let (streamed, keyed) = (dice.below(4) > 0, dice.below(2) > 0);
        let body = json!({
            "model": "glm-4.7",
            "messages": [{"role": "user", "content": prompt}],
            "stream": streamed,
        });
        // The others hand in more than is worked off: whoever waits for the end goes before them, or waits for the last life.
        let priority = match keyed || dice.below(2) == 0 {
            true => 5,
            false => dice.below(5) as i64 - 1,
        };
        let priority = priority.to_string();
        let mut asked = Asked {
            prompt,
            streamed,
            keyed,
            key: self.key.as_ref().map(|key| key.id.clone()),
            job: None,
            tellings: Vec::new(),
        };
        let mut headers = vec![("x-onelane-priority", priority.as_str())];
        if keyed {
            headers.push(("idempotency-key", &name));
        }
        self.open(&mut asked, &headers, &body);
        while keyed && !asked.has_ended() {
            self.program.world.is_whole();
            match asked.job {
                Some(id) if streamed && self.dice.below(2) > 0 => {
                    let had = asked.tellings.last();
                    let had = had.filter(|had| had.last_id.is_some() && self.dice.below(2) > 0);
                    if let Some(telling) = self.follow(id, had) {
                        asked.is_told(telling);
                    }
                }
                _ => self.open(&mut asked, &headers, &body),
            }
        }
        asked
    }

    /// Asks, and reads as far as it comes.
    fn open(&self, asked: &mut Asked, headers: &[(&str, &str)], body: &Value) {
        let Some(pieces) = self.program.read_post(CHAT, headers, body) else {
            return;
        };
        match pieces.status {
            200 => {
                asked.is_of(&pieces);
                asked.is_told(match asked.streamed {
                    true => Telling::of_events(&pieces.text),
                    false => Telling::of_answer(&pieces),
                });
            }
            _ if !pieces.whole => {}
            // It had failed in the middle of its answer, before its client came back.
            _ if asked.keyed => {
                asked.is_of(&pieces);
                asked.is_told(Telling::nothing(End::Refused));
            }
            _ => panic!("{} is refused: {pieces:?}", asked.prompt),
        }
    }

    /// Reads a job's stream by its id, behind what was had.
    fn follow(&self, id: JobId, had: Option<&Telling>) -> Option<Telling> {
        let path = format!("/api/glm/jobs/{id}/stream");
        let last_id = had.and_then(|had| had.last_id.as_deref());
        let headers: Vec<_> = last_id
            .map(|id| ("last-event-id", id))
            .into_iter()
            .collect();
        let pieces = self.program.read_get(&path, &headers)?;
        match pieces.status {
            200 => {
                let telling = Telling::of_events(&pieces.text);
                Some(match had {
                    Some(had) => telling.behind(had),
                    None => telling,
                })
            }
            _ if !pieces.whole => None,
            409 => Some(Telling::nothing(End::Refused)),
            _ => panic!("{path}: {pieces:?}"),
        }
    }
}

/// What became of the chats, and of what was told of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Streams {
    pub(crate) asked: u64,
    pub(crate) tellings: u64,
    /// Tellings that ended with the process.
    pub(crate) lost: u64,
    /// Of these, the ones that had told something.
    pub(crate) lost_in_the_middle: u64,
    /// Answers that were told by an attempt that is in doubt now, as a whole or in part.
    pub(crate) told_in_doubt: u64,
    /// Jobs that died with the process that their connection led to.
    pub(crate) given_up: u64,
    /// Streams that GLM cut.
    pub(crate) cut: u64,
}

/// What was told is stored, or else its attempt is on record as one that may have been billed.
pub(crate) fn what_was_told_is_stored_or_in_doubt(books: &Books, asked: &[Asked]) -> Streams {
    let rows = books.by_request_id();
    let mut streams = Streams::default();
    for one in asked {
        streams.asked += 1;
        let Some(id) = one.job else { continue };
        let job = &books.jobs[&id].job;
        match job.status {
            JobStatus::Cancelled => streams.given_up += 1,
            JobStatus::Failed => streams.cut += 1,
            _ => {}
        }
        let answer = books.answer(id);
        let stored = answer.as_ref().map(|answer| {
            let text = answer["choices"][0]["message"]["content"].as_str();
            let attempt = answer["request_id"].as_str();
            (attempt.unwrap(), text.unwrap())
        });
        for telling in &one.tellings {
            streams.tellings += 1;
            if telling.end == End::Lost {
                streams.lost += 1;
                streams.lost_in_the_middle += u64::from(!telling.text.is_empty());
            }
            // What is made of the stored answer does not name the attempt.
            let of_stored = stored.filter(|(attempt, _)| {
                let told = telling.attempt.as_deref();
                told.is_none_or(|told| told == *attempt)
            });
            if let Some((_, text)) = of_stored {
                assert!(
                    text.starts_with(&telling.text),
                    "{telling:?} {text:?} {job:?}"
                );
                let is_whole = telling.end != End::Whole || telling.text == text;
                assert!(is_whole, "{telling:?} {text:?} {job:?}");
                assert!(
                    telling.end != End::Refused || telling.text != text,
                    "{telling:?} {job:?}"
                );
                continue;
            }
            let Some(attempt) = telling.attempt.as_deref() else {
                let is_told = telling.text.is_empty() && telling.end != End::Whole;
                assert!(is_told, "nothing is stored of it: {telling:?} {job:?}");
                continue;
            };
            let row = rows.get(attempt);
            let row = row.unwrap_or_else(|| panic!("told by nobody: {telling:?} {job:?}"));
            assert_eq!(row.job_id, id, "another's answer: {telling:?}");
            match row.outcome {
                CallOutcome::Interrupted => {
                    assert!(row.maybe_billed, "{row:?}");
                    streams.told_in_doubt += 1;
                }
                CallOutcome::Failed => {
                    let is_cut = telling.end != End::Whole && job.status == JobStatus::Failed;
                    assert!(is_cut, "{telling:?} {row:?} {job:?}");
                }
                _ => panic!("told, and not stored: {telling:?} {row:?} {job:?}"),
            }
        }
    }
    streams
}
