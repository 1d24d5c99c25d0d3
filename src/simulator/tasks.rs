//! The tasks of the asynchronous API: handed over, worked on for a while, and then there to be fetched
//! by the account that handed them over, and by no other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::recorder::Place;

/// Tasks that are remembered; the oldest are forgotten first.
const TASKS_MAX: usize = 20_000;

/// The account of a task: a digest of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account(pub(crate) u64);

#[derive(Debug)]
struct Task {
    account: Account,
    /// The answer to a look at it.
    shows: Bytes,
    /// While it is worked on.
    place: Option<Place>,
}

#[derive(Debug, Default)]
struct Known {
    tasks: HashMap<String, Task>,
    order: VecDeque<String>,
}

/// All tasks that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<Known>);

impl Tasks {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task begins. It keeps its place of the limit until it is finished.
    pub(crate) fn begin(&self, id: &str, account: Account, shows: Bytes, place: Place) {
        let mut known = self.known();
        if known.order.len() >= TASKS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.tasks.remove(&oldest);
        }
        known.order.push_back(id.to_owned());
        let task = Task {
            account,
            shows,
            place: Some(place),
        };
        known.tasks.insert(id.to_owned(), task);
    }

    /// It is finished; a look shows this from now on.
    pub(crate) fn finish(&self, id: &str, shows: Bytes) {
        if let Some(task) = self.known().tasks.get_mut(id) {
            task.shows = shows;
            task.place = None;
        }
    }

    /// The answer to an account's look; `None` for a task that it did not make.
    pub(crate) fn look(&self, id: &str, account: Account) -> Option<Bytes> {
        let known = self.known();
        let task = known.tasks.get(id)?;
        (task.account == account).then(|| task.shows.clone())
    }
}
