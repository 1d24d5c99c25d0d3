//! On whose terms the lines of a file become jobs: those of the client key that made the batch, as they are when a
//! line is handed in, or an operator's.

use std::sync::Arc;

use onelane_core::life::grant::BeyondRights;
use onelane_core::model::{
    BatchInput, ClientKey, LineFault, PassedHeaders, Session, Settings, Submission, Timestamp,
    TraceContext, TraceOrigin,
};

/// The terms of one batch.
pub(super) struct Terms {
    key: Option<Arc<ClientKey>>,
    pub(super) settings: Arc<Settings>,
    priority: i32,
    user_id: Option<String>,
    session: Option<Session>,
    headers: PassedHeaders,
    trace: Option<Box<TraceContext>>,
}

impl Terms {
    /// Those of this moment, or why no more lines are handed in. Jobs stand `below` others unless the batch says
    /// otherwise.
    pub(super) fn of(
        input: &BatchInput,
        settings: Arc<Settings>,
        below: u32,
        now: Timestamp,
    ) -> Result<Self, LineFault> {
        let key = match input.key_id {
            None => None,
            Some(id) => {
                let ended = |code: &str, message: String| LineFault {
                    line: None,
                    code: code.to_owned(),
                    message,
                    param: None,
                };
                let key = settings.keys.get(id).cloned();
                let gone = || ended("key_ended", format!("client key {id} is gone"));
                let key = key.ok_or_else(gone)?;
                if let Some(why) = key.why_dead(now) {
                    return Err(ended("key_ended", why));
                }
                Some(key)
            }
        };
        let usual = key.as_ref().map_or(0, |key| key.rights.default_priority);
        let priority = usual.saturating_sub_unsigned(below);
        Ok(Self {
            key,
            settings,
            priority: input.priority.unwrap_or(priority),
            user_id: input.user_id.clone(),
            session: input.session.clone(),
            headers: input.headers.clone(),
            trace: input.trace.clone(),
        })
    }

    /// The client key, if it is one's.
    pub(super) fn key(&self) -> Option<&ClientKey> {
        self.key.as_deref()
    }

    /// The job of a line on these terms, or what of it is beyond the rights of the key.
    pub(super) fn grant(&self, mut job: Submission) -> Result<Submission, BeyondRights> {
        job.priority = Some(self.priority);
        if let Some(user) = &self.user_id {
            job.user_id.clone_from(user);
        }
        job.session = job.session.or_else(|| self.session.clone());
        job.headers.clone_from(&self.headers);
        let link = self.trace.clone().map(|made| TraceOrigin::Link(*made));
        job.trace = link.map(Box::new);
        if let Some(key) = self.key() {
            let face = job.request.face();
            key.grant(&mut job, face, &self.settings)?;
        }
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{BatchId, Face, FileId, KeyForm, KeyId, KeySecret, Request};

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000);
    const KEY: KeyId = KeyId::new(7);

    fn input() -> BatchInput {
        let (file, end) = (FileId::from_bytes([1; 16]), START.plus_ms(9_000));
        BatchInput {
            key_id: Some(KEY),
            ..BatchInput::new(BatchId::new(1), file, "/v1/chat/completions", START, end)
        }
    }

    fn settings(change: impl FnOnce(&mut ClientKey)) -> Arc<Settings> {
        let (secret, _) = KeySecret::make(KEY, &[1; 32], KeyForm::Plain);
        let mut key = ClientKey::new(KEY, "k", secret, START);
        change(&mut key);
        let keys = Arc::new([key].into_iter().collect());
        Arc::new(Settings::default().with_keys(keys))
    }

    #[test]
    fn jobs_of_a_batch_stand_below_what_its_key_hands_in_unless_it_says_otherwise() {
        let priority = |input: &BatchInput, usual| {
            let settings = settings(|key| key.rights.default_priority = usual);
            Terms::of(input, settings, 100, START).unwrap().priority
        };
        assert_eq!(priority(&input(), 10), -90);
        assert_eq!(priority(&input(), i32::MIN), i32::MIN);
        let said = BatchInput {
            priority: Some(3),
            ..input()
        };
        assert_eq!(priority(&said, 10), 3);
        let of_nobody = BatchInput {
            key_id: None,
            ..input()
        };
        assert_eq!(priority(&of_nobody, 10), -100);
    }

    #[test]
    fn a_line_may_be_of_the_faces_of_its_key_alone() {
        let settings = settings(|key| key.rights.faces = [Face::Embeddings].into_iter().collect());
        let terms = Terms::of(&input(), settings, 0, START).unwrap();
        let of = |face, raw| Submission::new(Request::body(face, raw).unwrap());
        let embedding = of(Face::Embeddings, r#"{"model":"embedding-3","input":"a"}"#);
        assert!(terms.grant(embedding).is_ok());
        let chat = of(
            Face::Chat,
            r#"{"model":"glm-4.7","messages":[{"role":"user","content":"a"}]}"#,
        );
        let refused = terms.grant(chat).unwrap_err().to_string();
        assert!(refused.contains("chat"), "{refused}");
    }

    #[test]
    fn a_line_is_of_the_session_that_it_names_else_of_that_of_its_batch() {
        let session = |id: &str| Some(Session::Ours(id.parse().unwrap()));
        let batch = BatchInput {
            session: session("batch"),
            ..input()
        };
        let of_line = |named: Option<Session>, names_sessions| {
            let settings = settings(|key| key.rights.names_sessions = names_sessions);
            let terms = Terms::of(&batch, settings, 0, START).unwrap();
            let job = Submission {
                session: named,
                ..Submission::prompt("hi").unwrap()
            };
            terms.grant(job).map(|job| job.session)
        };
        assert_eq!(of_line(None, true), Ok(session("batch")));
        assert_eq!(of_line(session("line"), true), Ok(session("line")));
        assert_eq!(of_line(None, false), Err(BeyondRights::Session));
    }

    #[test]
    fn a_key_that_has_ended_hands_no_more_lines_in_and_the_reason_says_how() {
        let at = START.plus_ms(5_000);
        let why = |settings, now| Terms::of(&input(), settings, 0, now).err();
        let expires = |key: &mut ClientKey| key.expires_at = Some(at);
        assert_eq!(why(settings(expires), START), None);
        let check = |settings, words: &str| {
            let fault = why(settings, at).unwrap();
            assert_eq!((fault.line, &*fault.code), (None, "key_ended"));
            assert!(fault.message.contains(words), "{fault:?}");
        };
        check(settings(expires), "expired at");
        check(settings(|key| key.revoke(START)), "was revoked at");
        check(Arc::default(), "is gone");
    }
}
