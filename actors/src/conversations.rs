//! Which session an answer of the responses face was of, by the id that GLM gave it: a request that goes on from it is
//! of the same one. A hint of this process, bounded and gone with it: a conversation that is not known any more is one
//! that begins.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use onelane_core::model::{Face, GlmAnswer, Job, KeyId, Session, limits};

/// The sessions of the latest answers, by client key and id.
#[derive(Debug, Clone, Default)]
pub struct Conversations(Arc<Mutex<Latest>>);

type Name = (Option<KeyId>, Arc<str>);

#[derive(Debug, Default)]
struct Latest {
    sessions: HashMap<Name, Session>,
    in_order: VecDeque<Name>,
}

impl Conversations {
    /// An answer came.
    pub fn note(&self, job: &Job, answer: &GlmAnswer) {
        let Some(session) = job.as_named().filter(|_| job.face == Face::Responses) else {
            return;
        };
        let id = answer.id();
        let Some(id) = id.filter(|id| id.len() <= limits::RESPONSE_ID_BYTES_MAX) else {
            return;
        };
        let name = (job.key_id, Arc::from(id));
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.sessions.insert(name.clone(), session).is_some() {
            return;
        }
        latest.in_order.push_back(name);
        if latest.in_order.len() > limits::CONVERSATIONS_KEPT
            && let Some(oldest) = latest.in_order.pop_front()
        {
            latest.sessions.remove(&oldest);
        }
    }

    /// The session of an answer that a client key got, or somebody without one.
    #[must_use]
    pub fn session_of(&self, id: &str, key: Option<KeyId>) -> Option<Session> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.sessions.get(&(key, Arc::from(id))).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelane_core::model::{SessionId, Usage};
    use onelane_core::testing::sample;
    use serde_json::value::RawValue;

    fn answered(conversations: &Conversations, key: u64, session: &str, answer: &str) {
        let mut job = sample::new_job(1).job;
        job.face = Face::Responses;
        job.key_id = Some(KeyId::new(key));
        job.session = Some(session.parse::<SessionId>().unwrap());
        let answer = GlmAnswer {
            body: RawValue::from_string(answer.to_owned()).unwrap().into(),
            status_code: 200,
            usage: Usage::default(),
            model: None,
        };
        conversations.note(&job, &answer);
    }

    #[test]
    fn a_request_that_goes_on_from_an_answer_is_of_its_session_for_its_own_key_alone() {
        let conversations = Conversations::default();
        answered(
            &conversations,
            1,
            "a",
            r#"{"object":"response","id":"r-1","output":[]}"#,
        );
        answered(&conversations, 2, "b", r#"{"id":"r-1"}"#);
        let of = |id: &str, key| {
            let session = conversations.session_of(id, Some(KeyId::new(key)));
            session.map(|session| session.id().to_string())
        };
        assert_eq!(of("r-1", 1).as_deref(), Some("a"));
        assert_eq!(of("r-1", 2).as_deref(), Some("b"));
        assert_eq!((of("r-1", 3), of("r-2", 1)), (None, None));
        assert_eq!(conversations.session_of("r-1", None), None);
    }

    #[test]
    fn only_the_latest_answers_are_remembered() {
        let conversations = Conversations::default();
        for n in 0..=limits::CONVERSATIONS_KEPT {
            answered(&conversations, 1, "a", &format!(r#"{{"id":"r-{n}"}}"#));
        }
        let long = "x".repeat(limits::RESPONSE_ID_BYTES_MAX + 1);
        answered(&conversations, 1, "a", &format!(r#"{{"id":"{long}"}}"#));
        for nothing in [r#"{"id":7}"#, "{}", "[]"] {
            answered(&conversations, 1, "a", nothing);
        }
        let key = Some(KeyId::new(1));
        assert_eq!(conversations.session_of("r-0", key), None);
        assert!(conversations.session_of("r-1", key).is_some());
        let latest = conversations.0.lock().unwrap();
        assert_eq!(latest.sessions.len(), limits::CONVERSATIONS_KEPT);
    }
}
