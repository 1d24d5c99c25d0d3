//! The users of the waiting jobs: one string for all jobs of a user, and a number by which the turns
//! of a lane go round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Users without a waiting job that are remembered, at least: a user who submits one job at a time keeps
/// their number.
const IDLE_USERS_KEPT: usize = 1_024;

/// The users of the waiting jobs.
#[derive(Debug)]
pub(super) struct Users {
    // Looked up by key only; the sweep looks at each user by itself.
    by_name: HashMap<Arc<str>, User>,
    newest: u64,
    sweep_at: usize,
}

#[derive(Debug)]
struct User {
    number: u64,
    jobs: usize,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            newest: 0,
            sweep_at: IDLE_USERS_KEPT,
        }
    }
}

impl Users {
    /// A job of this user comes in line: `name` becomes the one string of the user. Answers the user's number,
    /// which is never 0.
    pub(super) fn enter(&mut self, name: &mut Arc<str>) -> u64 {
        match self.by_name.entry(Arc::clone(name)) {
            Entry::Occupied(mut known) => {
                *name = Arc::clone(known.key());
                let user = known.get_mut();
                user.jobs += 1;
                return user.number;
            }
            Entry::Vacant(new) => {
                self.newest += 1;
                new.insert(User {
                    number: self.newest,
                    jobs: 1,
                });
            }
        }
        if self.by_name.len() > self.sweep_at {
            self.by_name.retain(|_, user| user.jobs > 0);
            self.sweep_at = (self.by_name.len() * 2).max(IDLE_USERS_KEPT);
        }
        self.newest
    }

    /// A job of this user left the line.
    pub(super) fn leave(&mut self, name: &str) {
        if let Some(user) = self.by_name.get_mut(name) {
            user.jobs = user.jobs.saturating_sub(1);
        }
    }

    /// The number of a user; 0 for one who is not known.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(0, |user| user.number)
    }

    /// The highest number so far.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_string_and_one_number_while_he_comes_and_goes() {
        let mut users = Users::default();
        let (mut first, mut second): (Arc<str>, Arc<str>) = ("u".into(), "u".into());
        let number = users.enter(&mut first);
        assert_eq!(users.enter(&mut second), number);
        assert!(Arc::ptr_eq(&first, &second));
        users.leave("u");
        users.leave("u");
        assert_eq!(users.number("u"), number);
    }

    #[test]
    fn users_of_whom_nothing_waits_are_forgotten_some_day() {
        let mut users = Users::default();
        let mut stays: Arc<str> = "stays".into();
        let number = users.enter(&mut stays);
        for n in 0..10_000 {
            let mut name: Arc<str> = format!("user {n}").into();
            users.enter(&mut name);
            users.leave(&name);
        }
        assert!(users.by_name.len() <= IDLE_USERS_KEPT + 1);
        assert_eq!(users.number("stays"), number);
    }
}
