//! The users of the waiting jobs: one string for all jobs of a user, and a number by which the turns
//! of a lane go round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::model::{JobEntry, KeyId};

/// Users without a waiting job that are remembered, at least: a user who submits one job at a time keeps
/// their number.
const IDLE_USERS_KEPT: usize = 1_024;

/// The users of the waiting jobs, and those who take turns: the jobs of a client key have the key's, all others
/// their user's.
#[derive(Debug, Clone)]
pub(super) struct Users {
    // Looked up by key only; the sweep looks at each by itself.
    by_name: HashMap<Arc<str>, User>,
    by_key: HashMap<KeyId, User>,
    newest: u64,
    sweep_at: usize,
}

#[derive(Debug, Clone)]
struct User {
    number: u64,
    jobs: usize,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            newest: 0,
            sweep_at: IDLE_USERS_KEPT,
        }
    }
}

impl Users {
    /// Writes who is known, in their order.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn imprint(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        let Self {
            by_name,
            by_key,
            newest,
            sweep_at,
        } = self;
        let by_name: std::collections::BTreeMap<_, _> = by_name.iter().collect();
        let by_key: std::collections::BTreeMap<_, _> = by_key.iter().collect();
        write!(to, "{by_name:?}{by_key:?}{newest}/{sweep_at}")
    }

    /// So many jobs of a user, and of a client key, come in line: `name` becomes the one string of the user. Answers the
    /// number of who takes turns for them, which is never 0.
    pub(super) fn enter(&mut self, name: &mut Arc<str>, key: Option<KeyId>, jobs: usize) -> u64 {
        self.sweep();
        let newest = &mut self.newest;
        let mut new = || {
            *newest += 1;
            User {
                number: *newest,
                jobs: 0,
            }
        };
        let mut number = match self.by_name.entry(Arc::clone(name)) {
            Entry::Occupied(mut known) => {
                *name = Arc::clone(known.key());
                known.get_mut().jobs += jobs;
                known.get().number
            }
            Entry::Vacant(vacant) => {
                let user = vacant.insert(new());
                user.jobs += jobs;
                user.number
            }
        };
        if let Some(key) = key {
            let keyed = self.by_key.entry(key).or_insert_with(new);
            keyed.jobs += jobs;
            number = keyed.number;
        }
        number
    }

    /// Forgets those of whom nothing waits, when there are many.
    fn sweep(&mut self) {
        let known = self.by_name.len() + self.by_key.len();
        if known > self.sweep_at {
            self.by_name.retain(|_, user| user.jobs > 0);
            self.by_key.retain(|_, user| user.jobs > 0);
            let kept = self.by_name.len() + self.by_key.len();
            self.sweep_at = (kept * 2).max(IDLE_USERS_KEPT);
        }
    }

    /// A job left the line.
    pub(super) fn leave(&mut self, job: &JobEntry) {
        let named = self.by_name.get_mut(&*job.user_id);
        let keyed = job.key.and_then(|key| self.by_key.get_mut(&key));
        for user in named.into_iter().chain(keyed) {
            user.jobs = user.jobs.saturating_sub(1);
        }
    }

    /// The number of who takes turns for a job; 0 where that is not known.
    pub(super) fn number<N: AsRef<str>>(&self, job: &JobEntry<N>) -> u64 {
        let user = match job.key {
            Some(key) => self.by_key.get(&key),
            None => self.by_name.get(job.user_id.as_ref()),
        };
        user.map_or(0, |user| user.number)
    }

    /// The highest number so far.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;

    fn job(user: &str, key: Option<KeyId>) -> JobEntry {
        JobEntry {
            user_id: user.into(),
            key,
            ..sample::new_job(1).job.entry()
        }
    }

    fn enter(users: &mut Users, job: &mut JobEntry) -> u64 {
        users.enter(&mut job.user_id, job.key, 1)
    }

    #[test]
    fn a_user_has_one_string_and_one_number_while_he_comes_and_goes() {
        let mut users = Users::default();
        let (mut first, mut second) = (job("u", None), job("u", None));
        let number = enter(&mut users, &mut first);
        assert_eq!(enter(&mut users, &mut second), number);
        assert!(Arc::ptr_eq(&first.user_id, &second.user_id));
        users.leave(&first);
        users.leave(&second);
        assert_eq!(users.number(&first), number);
    }

    #[test]
    fn a_client_key_takes_turns_of_its_own_whichever_user_its_jobs_are_of() {
        let mut users = Users::default();
        let key = Some(KeyId::new(1));
        let plain = enter(&mut users, &mut job("u", None));
        let keyed = enter(&mut users, &mut job("u", key));
        assert_ne!(plain, keyed);
        assert_eq!(enter(&mut users, &mut job("v", key)), keyed);
        assert_ne!(enter(&mut users, &mut job("u", Some(KeyId::new(2)))), keyed);
        assert_eq!(users.number(&job("u", None)), plain);
    }

    #[test]
    fn users_of_whom_nothing_waits_are_forgotten_some_day() {
        let mut users = Users::default();
        let mut stays = job("stays", None);
        let number = enter(&mut users, &mut stays);
        for n in 0..10_000 {
            let mut one = job(&format!("user {n}"), None);
            enter(&mut users, &mut one);
            users.leave(&one);
        }
        assert!(users.by_name.len() <= IDLE_USERS_KEPT + 1);
        assert_eq!(users.number(&stays), number);
    }
}
