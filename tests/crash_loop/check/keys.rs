//! An operator who makes, replaces and takes back client keys, and the programs that have them: what was taken back opens
//! nothing any more, whatever dies; what was made does.

use std::thread;
use std::time::{Duration, Instant};

use onelane::model::{CallRecord, Timestamp};
use onelane_actors::testing::Dice;
use serde_json::{Value, json};

use super::accounts;
use super::books::Books;
use super::clients::{Submitted, id_of};
use super::world::{EndOnPanic, Program, World};
use crate::common::{Answer, Http};

const JOBS: &str = "/api/glm/jobs";
const MINUTE: Duration = Duration::from_secs(60);
/// Keys that are live at once.
const LIVE_MAX: usize = 12;

/// A key to be made.
pub(crate) struct NewKey {
    name: String,
    pub(crate) user: Option<String>,
    pub(crate) share: u64,
    /// Tokens a month; what does not fit is refused.
    pub(crate) tokens: Option<u64>,
    pub(crate) per_minute: Option<u64>,
}

impl NewKey {
    pub(crate) fn named(name: String) -> Self {
        Self {
            name,
            user: None,
            share: 1,
            tokens: None,
            per_minute: None,
        }
    }

    fn body(&self, name: &str) -> Value {
        let mut body = json!({"name": name, "share": self.share});
        if let Some(user) = &self.user {
            body["userId"] = json!(user);
        }
        if let Some(tokens) = self.tokens {
            body["budget"] = json!({"tokens": tokens, "period": "month", "over": "refuse"});
        }
        if let Some(per_minute) = self.per_minute {
            body["requestsPerMinute"] = json!(per_minute);
        }
        body
    }

    /// Makes it: under another name each time that nobody answers, for the secret of a key is told once.
    pub(crate) fn make(self, operator: &Program<'_>, unheard: &mut Unheard) -> Key {
        let mut tries = 0;
        operator.world.insist(|| {
            tries += 1;
            let name = format!("{}, try {tries}", self.name);
            let Some(answer) = operator.post("/api/admin/glm/keys", &self.body(&name)) else {
                unheard.0.push(name);
                return None;
            };
            assert_eq!(answer.status, 201, "{answer:?}");
            let made = answer.json();
            let text = |member: &str| made[member].as_str().unwrap().to_owned();
            Some(Key {
                id: text("id"),
                name,
                text: text("key"),
                user: self.user.clone(),
                share: self.share,
                tokens: self.tokens,
                per_minute: self.per_minute,
                before: None,
                is_revoked: false,
            })
        })
    }
}

/// The names of keys of which nobody knows whether they were made.
#[derive(Default)]
pub(crate) struct Unheard(pub(crate) Vec<String>);

/// A key whose making was acknowledged.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) user: Option<String>,
    pub(crate) share: u64,
    pub(crate) tokens: Option<u64>,
    pub(crate) per_minute: Option<u64>,
    /// The text before the latest one, where that opens, too.
    before: Option<String>,
    pub(crate) is_revoked: bool,
}

/// What the operator and the holders of the keys know in the end.
pub(crate) struct Keys {
    pub(crate) keys: Vec<Key>,
    pub(crate) unheard: Unheard,
    pub(crate) jobs: Vec<Submitted>,
    pub(crate) rotations: u64,
    /// Texts that opened once and were shown in vain.
    pub(crate) shown_in_vain: u64,
    /// Jobs that a budget or the bound of a minute refused.
    pub(crate) refused: u64,
    /// The key with the budget.
    pub(crate) poor: String,
}

struct Operator<'a> {
    dice: Dice,
    program: Program<'a>,
    /// With no word of its own: each request brings a key.
    http: Http,
    known: Keys,
    /// Jobs that were tried.
    tried: u64,
    /// What opens nothing any more, the latest last.
    dead: Vec<String>,
    /// When jobs of the key with the bound of a minute were sent and taken.
    taken: Vec<[Instant; 2]>,
}

/// The tokens of the key with a budget: some dozen of its calls.
const BUDGET: u64 = 4_000;
/// The jobs that the bounded key may hand in a minute.
const PER_MINUTE: u64 = 20;

pub(crate) fn run(seed: u64, world: &World) -> Keys {
    let _ends = EndOnPanic(world);
    let program = Program::of_operator(world);
    let mut unheard = Unheard::default();
    let mut poor = NewKey::named("poor".to_owned());
    (poor.tokens, poor.user) = (Some(BUDGET), Some("poor".to_owned()));
    let poor = poor.make(&program, &mut unheard);
    let mut hasty = NewKey::named("hasty".to_owned());
    hasty.per_minute = Some(PER_MINUTE);
    let hasty = hasty.make(&program, &mut unheard);
    let mut operator = Operator {
        dice: Dice::new(seed, "keys"),
        program,
        http: Http::new(),
        known: Keys {
            poor: poor.id.clone(),
            keys: vec![poor, hasty],
            unheard,
            jobs: Vec::new(),
            rotations: 0,
            shown_in_vain: 0,
            refused: 0,
        },
        tried: 0,
        dead: Vec::new(),
        taken: Vec::new(),
    };
    // However short it all is, each is done once.
    let each = [Operator::make, Operator::rotate, Operator::revoke];
    let mut first = each
        .into_iter()
        .chain([Operator::show_what_is_dead as fn(&mut _)]);
    while !world.is_over() {
        if let Some(first) = first.next() {
            first(&mut operator);
            continue;
        }
        match operator.dice.below(20) {
            0..=2 => operator.make(),
            3 => operator.revoke(),
            4 => operator.rotate(),
            5..=6 => operator.hand_in(0),
            7..=8 => operator.hand_in(1),
            9..=13 => operator.show_what_is_dead(),
            _ => {
                let some = operator.some_live();
                operator.hand_in(some);
            }
        }
        let pause = operator.dice.below(10_000);
        thread::sleep(Duration::from_micros(pause));
    }
    operator.show_all()
}

impl Operator<'_> {
    fn live(&self) -> Vec<usize> {
        let keys = self.known.keys.iter().enumerate();
        keys.filter(|(_, key)| !key.is_revoked)
            .map(|(n, _)| n)
            .collect()
    }

    fn some_live(&mut self) -> usize {
        let live = self.live();
        live[self.dice.below(live.len() as u64) as usize]
    }

    /// One that may be taken back or replaced: not the two of which there is one.
    fn some_common(&mut self) -> Option<usize> {
        let live = self.live();
        let common = live.get(2..).filter(|common| !common.is_empty())?;
        Some(common[self.dice.below(common.len() as u64) as usize])
    }

    fn make(&mut self) {
        if self.live().len() >= LIVE_MAX {
            return self.revoke();
        }
        let n = self.known.keys.len();
        let mut new = NewKey::named(format!("key {n}"));
        new.user = (self.dice.below(2) > 0).then(|| format!("holder-{n}"));
        new.share = 1 + self.dice.below(3);
        let key = new.make(&self.program, &mut self.known.unheard);
        self.known.keys.push(key);
    }

    fn revoke(&mut self) {
        let Some(n) = self.some_common() else { return };
        let path = format!("/api/admin/glm/keys/{}/revoke", self.known.keys[n].id);
        let told = self.insist(&path, &json!({}), 200);
        assert_eq!(told["key"]["state"], "revoked", "{told}");
        let key = &mut self.known.keys[n];
        key.is_revoked = true;
        self.dead.extend(key.before.take());
        self.dead.push(key.text.clone());
    }

    /// Another text for a key; in half of the cases the one before opens, too. Where nobody answered a text may have been
    /// made that nobody knows, so that the one before is not the one that was.
    fn rotate(&mut self) {
        let Some(n) = self.some_common() else { return };
        let path = format!("/api/admin/glm/keys/{}/rotate", self.known.keys[n].id);
        let overlaps = self.dice.below(2) > 0;
        let body = match overlaps {
            true => json!({"overlapMs": 3_600_000}),
            false => json!({}),
        };
        let mut asked = 0;
        let made = self.program.world.insist(|| {
            asked += 1;
            let answer = self.program.post(&path, &body)?;
            assert_eq!(answer.status, 201, "{answer:?}");
            Some(answer.json())
        });
        self.known.rotations += 1;
        let key = &mut self.known.keys[n];
        let text = made["key"].as_str().unwrap().to_owned();
        let old = std::mem::replace(&mut key.text, text);
        // What was replaced before the last time opens in no case.
        self.dead.extend(key.before.take());
        match (overlaps, asked) {
            (true, 1) => key.before = Some(old),
            (true, _) => {}
            (false, _) => self.dead.push(old),
        }
    }

    fn insist(&self, path: &str, body: &Value, status: u16) -> Value {
        self.program.world.insist(|| {
            let answer = self.program.post(path, body)?;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            Some(answer.json())
        })
    }

    fn post_job(&self, text: &str, body: &Value) -> Option<Answer> {
        let bearer = format!("Bearer {text}");
        let headers = [("authorization", bearer.as_str())];
        let url = self.program.at(JOBS)?;
        self.http.post_with(&url, &headers, body).ok()
    }

    /// A job by the holder of a live key, until it is taken or refused.
    fn hand_in(&mut self, n: usize) {
        let number = self.tried;
        self.tried += 1;
        let mut body = json!({
            "prompt": format!("held job {number}."),
            "model": "glm-4.7",
            "max_tokens": 200,
            "idempotencyKey": format!("held {number}"),
        });
        let key = &self.known.keys[n];
        if key.user.is_none() {
            body["userId"] = json!(format!("user-{}", self.dice.below(3)));
        }
        let text = match &key.before {
            Some(before) if self.dice.below(2) > 0 => before.clone(),
            _ => key.text.clone(),
        };
        let sent = Instant::now();
        let answer = self.program.world.insist(|| self.post_job(&text, &body));
        let mut job = Submitted::new(body);
        job.key = Some(key.id.clone());
        match answer.status {
            202 => {
                job.id = Some(id_of(&answer.json()));
                job.may_be_given_up = key.tokens.is_some();
            }
            429 if key.tokens.or(key.per_minute).is_some() => {
                let kind = match key.tokens {
                    Some(_) => "urn:onelane:problem:over-budget",
                    None => "urn:onelane:problem:rate-limited",
                };
                assert_eq!(answer.json()["type"], kind, "{answer:?}");
                self.known.refused += 1;
                return;
            }
            _ => panic!("a live key, {}: {answer:?}", key.name),
        }
        if key.per_minute.is_some() {
            self.is_taken([sent, Instant::now()]);
        }
        self.known.jobs.push(job);
    }

    /// No more are taken in any minute than the key may hand in, whatever dies in it.
    fn is_taken(&mut self, between: [Instant; 2]) {
        self.taken.push(between);
        let bound = PER_MINUTE as usize;
        if let Some(first) = self.taken.len().checked_sub(bound + 1) {
            let took = between[1].duration_since(self.taken[first][0]);
            // Its clock counts milliseconds.
            let least = MINUTE - Duration::from_millis(5);
            assert!(took >= least, "{bound} and one in {took:?}");
        }
    }

    /// Half of the time what died last.
    fn show_what_is_dead(&mut self) {
        let back = match self.dice.below(2) {
            0 => 0,
            _ => self.dice.below(self.dead.len().max(1) as u64) as usize,
        };
        let Some(text) = self.dead.iter().rev().nth(back).cloned() else {
            return;
        };
        if let Some(answer) = self.post_job(&text, &json!({"prompt": "by a dead key"})) {
            assert_eq!(answer.status, 401, "a dead key opens: {answer:?}");
            self.known.shown_in_vain += 1;
        }
    }

    /// Every text that ever opened, once more: the live ones open, and no other.
    fn show_all(mut self) -> Keys {
        for text in std::mem::take(&mut self.dead) {
            let body = json!({"prompt": "by a dead key"});
            let answer = self.program.world.insist(|| self.post_job(&text, &body));
            assert_eq!(answer.status, 401, "a dead key opens: {answer:?}");
            self.known.shown_in_vain += 1;
        }
        for key in self.known.keys.iter().filter(|key| !key.is_revoked) {
            let program = Program::with_key(self.program.world, &key.text);
            let answer = self.program.world.insist(|| program.get(JOBS));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        self.known
    }
}

/// The budget of a key has room for what its calls came to, and for those that may have been billed.
pub(crate) fn the_budget_of_a_key_was_kept(
    books: &Books,
    told: &Value,
    key: &str,
    began: Timestamp,
) {
    let budgets = told["budgets"].as_array().unwrap();
    let of_key = budgets.iter().find(|told| told["keyId"] == key);
    // It is told whether something was spent in this month or not.
    let of_key = of_key.unwrap_or_else(|| panic!("no budget of {key}: {told}"));
    let is_of = |call: &&CallRecord| call.key_id.is_some_and(|id| id.to_string() == key);
    let calls = books.calls.iter().filter(is_of);
    accounts::a_budget_was_kept(calls, Some(of_key), BUDGET, began);
}

/// Every key that was made is listed with its rights, alive or revoked, and no other but those of which nobody heard.
pub(crate) fn every_key_is_as_it_was_left(told: &Value, keys: &[Key], unheard: &[String]) {
    let mut unheard: Vec<&String> = unheard.iter().collect();
    let mut found = 0;
    for shown in told["keys"].as_array().unwrap() {
        let Some(key) = keys.iter().find(|key| shown["id"] == key.id.as_str()) else {
            let place = unheard
                .iter()
                .position(|name| shown["name"] == name.as_str());
            let place = place.unwrap_or_else(|| panic!("nobody made {shown}"));
            unheard.swap_remove(place);
            continue;
        };
        found += 1;
        let state = if key.is_revoked { "revoked" } else { "live" };
        assert_eq!(shown["state"], state, "{shown}");
        assert_eq!(shown["name"], key.name.as_str(), "{shown}");
        assert_eq!(shown["userId"].as_str(), key.user.as_deref(), "{shown}");
        assert_eq!(shown["share"], key.share, "{shown}");
        assert_eq!(shown["budget"]["tokens"].as_u64(), key.tokens, "{shown}");
        assert_eq!(
            shown["requestsPerMinute"].as_u64(),
            key.per_minute,
            "{shown}"
        );
    }
    assert_eq!(found, keys.len(), "a key is lost: {told}");
}
