//! Turns: deficit round robin over the users and client keys of one class. In every round each may take jobs worth
//! a quantum of tokens, times its weight; one whose next job is larger keeps the rest while it
//! waits. Where no quantum is set each job counts the same: a round is as many jobs as a weight says.
//!
//! It is written with running totals instead of deficits. A round begins at a mark, `base`, and each
//! user may run on to `base + quantum`; `spent` is how far they have got, and their deficit the difference.
//! So a job that was taken and did not run is taken back exactly, by as much as it had moved its user,
//! and rounds in which every job is too large are skipped by arithmetic instead of by going round.
//!
//! The bound is that of deficit round robin (Shreedhar and Varghese, 1995): while two users both have
//! jobs waiting, what they were given in tokens differs by less than a quantum and two of the largest
//! jobs, over any stretch of time.

use std::collections::BTreeMap;

use crate::model::Seq;

/// The next job of a user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Whose it is.
    pub(super) user: u64,
    /// Which.
    pub(super) seq: Seq,
    /// What it may come to; 0: nobody knows.
    pub(super) tokens: u32,
    /// The weight of its user.
    pub(super) share: u32,
}

/// Tokens are counted in so many parts, so that a weight divides them without being lost.
const PARTS: u64 = 1_000_000;

/// Whose turn it is in one class of one lane.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// Where the round began, in parts of tokens.
    base: u64,
    /// What each gets a round.
    quantum: u64,
    /// A job is a whole turn, whatever it may come to.
    by_jobs: bool,
    /// The user whose turn it is, or the first that may be.
    cursor: u64,
    /// The last user of the round. Those who come later wait for the next: newcomers without end must
    /// not keep the round from ending.
    last: u64,
    /// Where each user stands; one who is not here stands at `base`.
    spent: BTreeMap<u64, u64>,
}

impl Turns {
    /// A first round, of the users up to `newest`.
    pub(super) const fn new(newest: u64) -> Self {
        Self {
            base: 0,
            quantum: PARTS,
            by_jobs: true,
            cursor: 0,
            last: newest,
            spent: BTreeMap::new(),
        }
    }

    /// Takes the job whose turn it is. A quantum of 0 counts jobs instead of tokens. `head_from` gives the next job of the first user of that number
    /// or above who has any.
    pub(super) fn take(
        &mut self,
        quantum: u32,
        newest: u64,
        head_from: impl Fn(u64) -> Option<Head>,
    ) -> Option<Seq> {
        self.quantum = u64::from(quantum).max(1) * PARTS;
        self.by_jobs = quantum == 0;
        self.in_this_round(&head_from).or_else(|| {
            self.next_round(newest, &head_from);
            self.in_this_round(&head_from)
        })
    }

    /// A job is taken before its turn: its user is as far as if it had been theirs, and waits the longer for the next.
    pub(super) fn charge(&mut self, quantum: u32, user: u64, tokens: u32, share: u32) {
        self.quantum = u64::from(quantum).max(1) * PARTS;
        let size = self.size(tokens, share);
        *self.spent.entry(user).or_insert(self.base) += size;
    }

    /// A job that was taken before its turn did not run.
    pub(super) fn discharge(&mut self, user: u64, tokens: u32, share: u32) {
        let size = self.size(tokens, share);
        // Who is not here has been given new turns since.
        if let Some(spent) = self.spent.get_mut(&user) {
            *spent = spent.saturating_sub(size);
        }
    }

    /// A job that was taken did not run: its user is as far as before, and the round is again
    /// the one that it was taken in, so that the next job is the same as then.
    pub(super) fn give_back(&mut self, user: u64, tokens: u32, share: u32) {
        let size = self.size(tokens, share);
        let spent = self.spent.entry(user).or_insert(self.base);
        let end = *spent;
        *spent = end.saturating_sub(size);
        if end > self.base {
            self.cursor = self.cursor.min(user);
        } else {
            let rounds = (self.base - end) / self.quantum + 1;
            self.base = self.base.saturating_sub(rounds * self.quantum);
            self.cursor = user;
        }
    }

    /// A job of unknown size counts as a whole turn. For a user of twice the weight it counts half.
    fn size(&self, tokens: u32, share: u32) -> u64 {
        let whole = if tokens == 0 || self.by_jobs {
            self.quantum
        } else {
            u64::from(tokens) * PARTS
        };
        (whole / u64::from(share.max(1))).max(1)
    }

    fn in_this_round(&mut self, head_from: impl Fn(u64) -> Option<Head>) -> Option<Seq> {
        while let Some(head) = head_from(self.cursor).filter(|head| head.user <= self.last) {
            self.cursor = head.user;
            let size = self.size(head.tokens, head.share);
            let spent = self.spent.entry(head.user).or_insert(self.base);
            if *spent + size <= self.base + self.quantum {
                *spent += size;
                return Some(head.seq);
            }
            self.cursor += 1;
        }
        None
    }

    /// Begins the next round in which anybody's job fits.
    fn next_round(&mut self, newest: u64, head_from: impl Fn(u64) -> Option<Head>) {
        let next = self.base + self.quantum;
        // A user without jobs keeps nothing but the tokens taken ahead of the round.
        let mut standing: BTreeMap<u64, u64> = self
            .spent
            .iter()
            .filter(|(_, spent)| **spent > next)
            .map(|(user, spent)| (*user, *spent))
            .collect();
        let mut skipped: Option<u64> = None;
        let mut from = 0;
        while let Some(head) = head_from(from) {
            let spent = self.spent.get(&head.user).copied().unwrap_or(next);
            standing.insert(head.user, spent);
            let missing =
                (spent + self.size(head.tokens, head.share)).saturating_sub(next + self.quantum);
            let rounds = missing.div_ceil(self.quantum);
            skipped = Some(skipped.map_or(rounds, |least| least.min(rounds)));
            from = head.user + 1;
        }
        self.spent = standing;
        self.base = next + skipped.unwrap_or(0) * self.quantum;
        self.cursor = 0;
        self.last = newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user of three times the weight.
    const HEAVY: u64 = 9;

    /// Jobs by user and sequence, with their tokens.
    type Jobs = BTreeMap<(u64, u64), u32>;

    /// Takes the job whose turn it is.
    fn serve(turns: &mut Turns, quantum: u32, jobs: &mut Jobs) -> u64 {
        let newest = jobs.keys().map(|(user, _)| *user).max().unwrap();
        let head_from = |from| {
            let ((user, seq), tokens) = jobs.range((from, 0)..).next()?;
            Some(Head {
                user: *user,
                seq: Seq(*seq),
                tokens: *tokens,
                share: if *user == HEAVY { 3 } else { 1 },
            })
        };
        let seq = turns.take(quantum, newest, head_from).unwrap().0;
        jobs.retain(|(_, other), _| *other != seq);
        seq
    }

    /// All the jobs in the order in which they are taken.
    fn serve_all(quantum: u32, mut jobs: Jobs) -> Vec<u64> {
        let mut turns = Turns::new(u64::MAX);
        (0..jobs.len())
            .map(|_| serve(&mut turns, quantum, &mut jobs))
            .collect()
    }

    #[test]
    fn each_gets_a_quantum_a_round_and_keeps_what_is_too_small_for_his_next_job() {
        let jobs = Jobs::from([
            ((1, 1), 60),
            ((1, 2), 60),
            ((1, 3), 60),
            ((1, 4), 60),
            ((2, 5), 100),
            ((2, 6), 100),
            ((3, 7), 200),
        ]);
        // The first user's 40 of the first round make two jobs in the second.
        assert_eq!(serve_all(100, jobs), [1, 5, 2, 3, 6, 7, 4]);
    }

    #[test]
    fn a_user_of_three_times_the_weight_gets_three_times_as_much() {
        let jobs = |user: u64| (0..40).map(move |n| ((user, user * 100 + n), 100));
        let mut waiting: Jobs = jobs(1).chain(jobs(HEAVY)).collect();
        let mut turns = Turns::new(u64::MAX);
        let served: Vec<u64> = (0..40)
            .map(|_| serve(&mut turns, 100, &mut waiting))
            .collect();
        let heavy = served.iter().filter(|seq| **seq >= HEAVY * 100).count();
        assert!((29..=31).contains(&heavy), "{heavy} of 40");
    }

    #[test]
    fn a_job_that_did_not_run_is_given_back_by_the_weight_of_its_user() {
        let jobs = |user: u64| (0..9).map(move |n| ((user, user * 100 + n), 100));
        let mut waiting: Jobs = jobs(1).chain(jobs(HEAVY)).collect();
        let mut turns = Turns::new(u64::MAX);
        for _ in 0..12 {
            let before = waiting.clone();
            let seq = serve(&mut turns, 100, &mut waiting);
            let (user, share) = if seq >= HEAVY * 100 {
                (HEAVY, 3)
            } else {
                (1, 1)
            };
            turns.give_back(user, 100, share);
            waiting = before;
            assert_eq!(serve(&mut turns, 100, &mut waiting), seq);
        }
    }

    #[test]
    fn rounds_in_which_every_job_is_too_large_are_skipped() {
        let jobs = Jobs::from([((1, 1), u32::MAX), ((2, 2), u32::MAX - 1)]);
        assert_eq!(serve_all(1, jobs), [2, 1]);
    }

    #[test]
    fn a_job_of_unknown_size_is_a_whole_turn() {
        let jobs = Jobs::from([((1, 1), 0), ((1, 2), 0), ((2, 3), 0), ((2, 4), 0)]);
        assert_eq!(serve_all(1_000, jobs), [1, 3, 2, 4]);
    }

    #[test]
    fn without_a_quantum_each_job_counts_the_same() {
        let jobs = |user: u64| (0..6).map(move |n| ((user, user * 100 + n), u32::MAX / 2));
        let small = (0..6).map(|n| ((1, 100 + n), 1));
        let waiting: Jobs = small.chain(jobs(2)).chain(jobs(HEAVY)).collect();
        let users: Vec<u64> = serve_all(0, waiting).iter().map(|seq| seq / 100).collect();
        assert_eq!(users[..10], [1, 2, 9, 9, 9, 1, 2, 9, 9, 9]);
        assert_eq!(users[10..], [1, 2, 1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn a_newcomer_begins_with_one_quantum() {
        let mut jobs = Jobs::from([((1, 1), 100), ((1, 2), 100), ((1, 3), 100)]);
        let mut turns = Turns::new(1);
        assert_eq!(serve(&mut turns, 100, &mut jobs), 1);
        jobs.extend([((2, 4), 100), ((2, 5), 100)]);
        let order: Vec<u64> = (0..4).map(|_| serve(&mut turns, 100, &mut jobs)).collect();
        assert_eq!(order, [2, 4, 3, 5]);
    }

    #[test]
    fn newcomers_without_end_do_not_keep_the_others_from_their_turn() {
        let mut jobs = Jobs::from([((1, 1), 10), ((1, 2), 10), ((1, 3), 10), ((1, 4), 10)]);
        let mut turns = Turns::new(1);
        for newcomer in 2..20 {
            jobs.insert((newcomer, 100 + newcomer), 10);
            serve(&mut turns, 10, &mut jobs);
        }
        // Its rounds are those of the newcomers of the round before: 1, 2, 4, 8.
        assert!(jobs.keys().all(|(user, _)| *user != 1), "{jobs:?}");
    }
}
