//! Refusals without a code of GLM's: whose fault they are shows only when other jobs have met them, or have passed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Failure, Fingerprint, JobId, Timestamp};

/// What is known of refusals that nobody is known to be to blame for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unattributed {
    /// What met each refusal since the last answer, by code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub met: BTreeMap<String, Met>,
    /// The jobs that stepped aside for others, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<Refused>,
}

/// Distinct requests that met one refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Met {
    /// Digests of the requests.
    pub requests: Vec<String>,
    /// When the last of them was refused.
    pub at: Timestamp,
}

/// A job that was refused so and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The job.
    pub job_id: JobId,
    /// Its refusal.
    pub failure: Failure,
    /// When it met that.
    pub at: Timestamp,
    /// Where it is.
    pub place: RefusedPlace,
    /// An answer to another job came since: refused the same way again, it is at fault itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
}

/// Where a refused job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedPlace {
    /// It stepped aside: others find out whose fault it is, and an answer to one of them fails it.
    Aside,
    /// Its refusal held the account: after that others go before it, and an answer lets it try again.
    Behind,
    /// Back in the queue.
    Back,
}

impl Fingerprint {
    /// Enough of it to tell requests apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

impl Unattributed {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is known of a job.
    #[must_use]
    pub fn of(&self, id: JobId) -> Option<&Refused> {
        self.jobs.iter().find(|refused| refused.job_id == id)
    }

    /// What is known of a job that stays out of the queue for now.
    #[must_use]
    pub fn kept_out(&self, id: JobId) -> Option<&Refused> {
        self.of(id)
            .filter(|refused| refused.place != RefusedPlace::Back)
    }

    /// How many jobs stay out of the queue.
    #[must_use]
    pub fn kept_out_len(&self) -> usize {
        let jobs = self.jobs.iter();
        jobs.filter(|refused| refused.place != RefusedPlace::Back)
            .count()
    }
}
