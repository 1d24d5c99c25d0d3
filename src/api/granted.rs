//! What a request asks for beside its body, and what its client key makes of it.

use onelane_core::life::grant::BeyondRights;
use onelane_core::model::limits as bounds;
use onelane_core::model::{
    BatchId, DEFAULT_USER, Face, JobId, NoSessionId, Session, SessionId, Submission,
};
use warp::http::HeaderMap;

use super::principal::Principal;
use super::problem::{Kind, Problem};
use super::rates::Taken;
use super::submission::header_text;
use super::{Api, limits};
use crate::error::Error;

/// Whose job it is, where the body does not say so.
pub(super) const USER: &str = "x-onelane-user";
/// Of which session it is, where the body does not say so.
pub(super) const SESSION: &str = "x-onelane-session";
/// The same by the header that GLM has for it.
pub(super) const GLMS_SESSION: &str = "x-session-id";
/// The batch that jobs come to.
pub(super) const BATCH: &str = "x-onelane-batch";
/// How urgent it is, where the body does not say so.
pub(super) const PRIORITY: &str = "x-onelane-priority";

/// What headers say of a job.
pub(super) struct Said {
    pub(super) user: Option<String>,
    pub(super) priority: Option<i32>,
    pub(super) session: Option<Session>,
}

impl Said {
    /// Reads the headers.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let priority = match header_text(headers, PRIORITY, 16)? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                let problem = format!("must be a whole number from {} to {}", i32::MIN, i32::MAX);
                Problem::of_field(Kind::InvalidHeader, PRIORITY, problem)
            })?),
        };
        Ok(Self {
            user: header_text(headers, USER, bounds::USER_ID_CHARS_MAX)?,
            priority,
            session: session(headers)?,
        })
    }

    /// Fills in what a job of ours leaves open.
    pub(super) fn fill(&self, job: &mut Submission) {
        if let Some(user) = self.user.as_ref().filter(|_| job.user_id == DEFAULT_USER) {
            job.user_id.clone_from(user);
        }
        job.priority = job.priority.or(self.priority);
        job.session = job.session.take().or_else(|| self.session.clone());
    }

    /// Counts before what a body says that is GLM's: its user is the end user, who may be another.
    pub(super) fn prevail(self, job: &mut Submission) {
        if let Some(user) = self.user {
            job.user_id = user;
        }
        job.priority = self.priority.or(job.priority);
        job.session = self.session.or(job.session.take());
    }
}

/// The batch that jobs come to. A client key's jobs come to those that it makes of files alone.
pub(super) fn batch(
    headers: &HeaderMap,
    principal: &Principal,
) -> Result<Option<BatchId>, Problem> {
    let Some(text) = header_text(headers, BATCH, 64)? else {
        return Ok(None);
    };
    let wrong = |problem: &str| Problem::of_field(Kind::InvalidHeader, BATCH, problem);
    if principal.key().is_some() {
        return Err(wrong(
            "is for operators; a client key makes batches of files",
        ));
    }
    let id = serde_json::from_value(text.into());
    id.map(Some).map_err(|_| wrong("must be the id of a batch"))
}

/// The session that headers name.
fn session(headers: &HeaderMap) -> Result<Option<Session>, Problem> {
    let named = |name: &'static str| {
        let wrong = |problem: &str| Problem::of_field(Kind::InvalidHeader, name, problem);
        let mut found: Option<SessionId> = None;
        for value in headers.get_all(name) {
            let text = value
                .to_str()
                .map_err(|_| wrong(&NoSessionId.to_string()))?;
            let id: SessionId = text
                .parse()
                .map_err(|no: NoSessionId| wrong(&no.to_string()))?;
            if found.as_ref().is_some_and(|before| *before != id) {
                return Err(wrong("names two sessions; send one"));
            }
            found = Some(id);
        }
        Ok(found)
    };
    match (named(GLMS_SESSION)?, named(SESSION)?) {
        (Some(glms), Some(ours)) if glms != ours => {
            let problem = format!("differs from {GLMS_SESSION}; send one of them");
            Err(Problem::of_field(Kind::InvalidHeader, SESSION, problem))
        }
        (Some(glms), _) => Ok(Some(Session::Glms(glms))),
        (None, ours) => Ok(ours.map(Session::Ours)),
    }
}

impl From<BeyondRights> for Problem {
    fn from(beyond: BeyondRights) -> Self {
        Self::new(Kind::BeyondRights, beyond.to_string())
    }
}

impl Api {
    /// Makes jobs those of the client key that hands them in, and counts them: whoever submits them says which of them
    /// are new. Nothing is counted where one is beyond the key's rights.
    pub(super) fn grant(
        &self,
        principal: &Principal,
        jobs: &mut [Submission],
    ) -> Result<Taken, Problem> {
        let key = principal.key();
        if let Some(key) = key {
            let settings = self.lane.settings();
            for job in &mut *jobs {
                let face = job.request.face();
                key.grant(job, face, &settings)?;
            }
        }
        Ok(self.rates.count(key, jobs.iter_mut(), self.clock.now()))
    }

    /// Refuses a client what it says of jobs that are still to be made, where that is beyond the rights of its key.
    pub(super) fn allow(
        &self,
        principal: &Principal,
        face: Face,
        said: &Said,
    ) -> Result<(), Problem> {
        let Some(key) = principal.key() else {
            return Ok(());
        };
        let user = said.user.as_deref().unwrap_or(DEFAULT_USER);
        let priority = said.priority.unwrap_or(key.rights.default_priority);
        key.allow(face, user, priority)?;
        if said.session.is_some() {
            key.allow_session()?;
        }
        Ok(())
    }

    /// Refuses a client more batches whose lines are still to become jobs than it may have.
    pub(super) async fn check_open_batches(&self, principal: &Principal) -> Result<(), Problem> {
        let Some(key) = principal.key_id() else {
            return Ok(());
        };
        let all = self.lane.all_inputs().await?;
        let open = all
            .iter()
            .filter(|batch| batch.key_id == Some(key) && batch.is_open());
        let most = limits::BATCHES_OPEN_OF_KEY_MAX;
        if open.count() < most {
            return Ok(());
        }
        let problem = format!(
            "{most} batches of this key wait for their lines to become jobs, as many as may; try again later"
        );
        Err(Problem::new(Kind::QueueFull, problem))
    }

    /// Refuses a client the jobs of others, in the words of jobs that are not there.
    pub(super) async fn check_own(&self, principal: &Principal, id: JobId) -> Result<(), Problem> {
        let Some(key) = principal.key() else {
            return Ok(());
        };
        match self.lane.key_of(id).await? {
            Some(own) if own == key.id => Ok(()),
            _ => Err(Error::NotFound(id).into()),
        }
    }
}
