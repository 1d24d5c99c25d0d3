//! What the clients know: each job that may be in the store, and how it may have ended.

use std::collections::{BTreeMap, BTreeSet};

use onelane::model::{JobId, JobStatus};
use serde_json::Value;

use super::batches;
use super::clients::Submitted;
use super::gateway::{self, Asked};
use super::keys::{Key, Keys};

/// All that the clients were told.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) submitted: Vec<Submitted>,
    /// The answers that a reader saw.
    pub(crate) seen: BTreeMap<JobId, Value>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) batches: Vec<batches::Batch>,
    pub(crate) unheard_files: Vec<String>,
    pub(crate) keys: Vec<Key>,
    pub(crate) unheard_keys: Vec<String>,
    pub(crate) rotations: u64,
    pub(crate) shown_in_vain: u64,
    pub(crate) refused: u64,
}

/// A job that a client asked for.
pub(crate) struct Claim<'a> {
    /// Its submitter knows that it is there.
    pub(crate) is_acknowledged: bool,
    /// `None`: nobody told it.
    pub(crate) id: Option<JobId>,
    pub(crate) user: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) batch: Option<&'a str>,
    /// How it may have ended.
    pub(crate) ends: &'static [JobStatus],
}

const DONE: &[JobStatus] = &[JobStatus::Completed];
const OR_GIVEN_UP: &[JobStatus] = &[JobStatus::Completed, JobStatus::Cancelled];
/// A stream that was cut when something of it had been told.
const OR_CUT: &[JobStatus] = &[JobStatus::Completed, JobStatus::Failed];
/// It may also have died with the process that its connection led to.
const OR_DEAD: &[JobStatus] = &[
    JobStatus::Completed,
    JobStatus::Failed,
    JobStatus::Cancelled,
];

impl Ledger {
    pub(crate) fn take_gateway(&mut self, known: gateway::Known) {
        self.asked.extend(known.asked);
        self.keys.extend(known.key);
        self.unheard_keys.extend(known.unheard.0);
    }

    pub(crate) fn take_batches(&mut self, known: batches::Known) {
        self.batches.extend(known.batches);
        self.unheard_files.extend(known.unheard_files);
        self.keys.extend(known.key);
        self.unheard_keys.extend(known.unheard.0);
    }

    pub(crate) fn take_keys(&mut self, known: Keys) {
        self.submitted.extend(known.jobs);
        self.keys.extend(known.keys);
        self.unheard_keys.extend(known.unheard.0);
        self.rotations += known.rotations;
        self.shown_in_vain += known.shown_in_vain;
        self.refused += known.refused;
    }

    fn user_of(&self, key: Option<&str>) -> Option<&str> {
        let key = self.keys.iter().find(|one| Some(&*one.id) == key)?;
        key.user.as_deref()
    }

    /// Every job that was asked for, by its prompt, which no two have in common.
    pub(crate) fn claims(&self) -> BTreeMap<String, Claim<'_>> {
        let submitted = self.submitted.iter().map(|job| {
            let key = job.key.as_deref();
            let claim = Claim {
                is_acknowledged: job.id.is_some(),
                id: job.id,
                user: job.body["userId"].as_str().or(self.user_of(key)),
                key,
                batch: None,
                ends: match job.may_be_given_up {
                    true => OR_GIVEN_UP,
                    false => DONE,
                },
            };
            (job.prompt().to_owned(), claim)
        });
        let asked = self.asked.iter().map(|asked| {
            let key = asked.key.as_deref();
            let claim = Claim {
                is_acknowledged: asked.job.is_some(),
                id: asked.job,
                user: self.user_of(key),
                key,
                batch: None,
                ends: match (asked.keyed, asked.streamed) {
                    (true, true) => OR_CUT,
                    (true, false) => DONE,
                    (false, _) => OR_DEAD,
                },
            };
            (asked.prompt.clone(), claim)
        });
        let right = self.batches.iter().filter(|batch| !batch.is_wrong);
        let lines = right.flat_map(|batch| {
            batch.lines.iter().map(move |line| {
                let key = batch.key.as_deref();
                let claim = Claim {
                    is_acknowledged: !batch.is_given_up,
                    id: None,
                    user: self.user_of(key),
                    key,
                    batch: Some(&batch.id),
                    ends: match batch.is_given_up {
                        true => OR_GIVEN_UP,
                        false => DONE,
                    },
                };
                (format!("{line}."), claim)
            })
        });
        let mut claims = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (prompt, claim) in submitted.chain(asked).chain(lines) {
            let id = claim.id;
            assert!(
                id.is_none_or(|id| ids.insert(id)),
                "two jobs have one id: {id:?}"
            );
            let twice = claims.insert(prompt, claim);
            assert!(twice.is_none(), "two jobs with one prompt");
        }
        claims
    }
}
