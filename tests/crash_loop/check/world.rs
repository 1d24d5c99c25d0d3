//! Where the process is, for those who talk to it, and how they ask: once, or until they are answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use onelane::model::JobId;
use serde_json::Value;

use crate::common::{Answer, Http, PATIENCE, Pieces};

/// What operators show at the door: once client keys are made it asks everybody for something.
pub(crate) const TOKEN: &str = "open-sesame-of-the-operator";

/// What those say who end because somebody else found a promise broken.
pub(crate) const ELSEWHERE: &str = "a promise was broken elsewhere";

/// Where the process is, and whether the last round is over.
#[derive(Default)]
pub(crate) struct World {
    url: Mutex<Option<String>>,
    moved: Condvar,
    over: AtomicBool,
    broken: AtomicBool,
    pub(crate) acknowledged: Mutex<Vec<JobId>>,
}

impl World {
    pub(crate) fn is_at(&self, url: Option<String>) {
        *self.url.lock().unwrap() = url;
        self.moved.notify_all();
    }

    /// Where it is, once it is anywhere; `None` when it won't be again.
    fn url(&self) -> Option<String> {
        let gone = |url: &mut Option<String>| url.is_none() && !self.is_over();
        let found = self
            .moved
            .wait_timeout_while(self.url.lock().unwrap(), PATIENCE, gone);
        found.unwrap().0.clone()
    }

    /// Nothing new is begun; what waits for its acknowledgement gets it.
    pub(crate) fn end(&self) {
        let _url = self.url.lock().unwrap();
        self.over.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether somebody found a promise broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Fails where somebody else found a promise broken.
    pub(crate) fn is_whole(&self) {
        assert!(!self.is_broken(), "{ELSEWHERE}");
    }

    /// Asks until there is an answer, as a program may whose request can safely be sent twice.
    pub(crate) fn insist<T>(&self, mut ask: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            self.is_whole();
            // Several processes in a row may be killed before they take work, each after a start that may take as long.
            assert!(began.elapsed() < 4 * PATIENCE, "no answer");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends the loop where a thread of it fails: the others would wait for it, or it for them.
pub(crate) struct EndOnPanic<'a>(pub(crate) &'a World);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
            self.0.end();
        }
    }
}

/// A program at the process's door, wherever that is now. `None` is no answer: the process died, and nobody knows what
/// became of the request.
pub(crate) struct Program<'a> {
    pub(crate) world: &'a World,
    http: Http,
}

impl<'a> Program<'a> {
    pub(crate) fn of_operator(world: &'a World) -> Self {
        Self::with_key(world, TOKEN)
    }

    pub(crate) fn with_key(world: &'a World, key: &str) -> Self {
        let http = Http::bearing(key);
        Self { world, http }
    }

    pub(crate) fn at(&self, path: &str) -> Option<String> {
        Some(format!("{}{path}", self.world.url()?))
    }

    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        self.http.get(&self.at(path)?).ok()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.post_with(path, &[], body)
    }

    pub(crate) fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Answer> {
        self.http.post_with(&self.at(path)?, headers, body).ok()
    }

    pub(crate) fn delete(&self, path: &str) -> Option<Answer> {
        self.http.delete(&self.at(path)?).ok()
    }

    pub(crate) fn upload(&self, path: &str, content: &str) -> Option<Answer> {
        self.http.upload(&self.at(path)?, content).ok()
    }

    /// The same as `post_with`, with whatever had come when the connection ended.
    pub(crate) fn read_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Pieces> {
        self.http.read_post(&self.at(path)?, headers, body).ok()
    }

    pub(crate) fn read_get(&self, path: &str, headers: &[(&str, &str)]) -> Option<Pieces> {
        self.http.read_get(&self.at(path)?, headers).ok()
    }
}
