//! What a client key lets a submission ask for: rights fill in what it leaves open, and refuse what is beyond them.

use crate::model::{ClientKey, DEFAULT_USER, Face, Settings, Submission, model_name};

/// What a key does not allow, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeyondRights {
    /// Somebody else's job.
    #[error("this key hands in jobs of user {own} alone; leave the user out")]
    User {
        /// Whose jobs it hands in.
        own: String,
    },
    /// Too urgent.
    #[error("priority {asked} is above {max}, the highest that this key may name")]
    Priority {
        /// What was asked for.
        asked: i32,
        /// What it may name.
        max: i32,
    },
    /// Another model.
    #[error("this key may not ask for model {model}; it may ask for {}", .models.join(", "))]
    Model {
        /// What was asked for.
        model: String,
        /// What it may ask for.
        models: Vec<String>,
    },
    /// A session, by a key that names none.
    #[error("this key may not say of which session a job is; leave the session out")]
    Session,
    /// Another face.
    #[error("this key may not use the face {}; it may use {}", .face.name(), names(.faces))]
    Face {
        /// What was used.
        face: Face,
        /// What it may use.
        faces: Vec<Face>,
    },
}

fn names(faces: &[Face]) -> String {
    let names: Vec<&str> = faces.iter().map(|face| face.name()).collect();
    names.join(", ")
}

impl ClientKey {
    /// Whether jobs may come by this face, of this user, as urgent as this.
    pub fn allow(&self, face: Face, user: &str, priority: i32) -> Result<(), BeyondRights> {
        let rights = &self.rights;
        if !rights.has_face(face) {
            let faces = rights.faces.clone();
            return Err(BeyondRights::Face { face, faces });
        }
        let another = |own: &&String| *own != user && user != DEFAULT_USER;
        if let Some(own) = rights.user_id.as_ref().filter(another) {
            return Err(BeyondRights::User { own: own.clone() });
        }
        match rights.max_priority.filter(|max| priority > *max) {
            Some(max) => Err(BeyondRights::Priority {
                asked: priority,
                max,
            }),
            None => Ok(()),
        }
    }

    /// Whether it may say of which session a job is.
    pub const fn allow_session(&self) -> Result<(), BeyondRights> {
        match self.rights.names_sessions {
            true => Ok(()),
            false => Err(BeyondRights::Session),
        }
    }

    /// Makes a submission that came by a face one of this key.
    pub fn grant(
        &self,
        submission: &mut Submission,
        face: Face,
        settings: &Settings,
    ) -> Result<(), BeyondRights> {
        let rights = &self.rights;
        let asked = submission.priority.unwrap_or(rights.default_priority);
        self.allow(face, &submission.user_id, asked)?;
        if let Some(own) = &rights.user_id {
            submission.user_id.clone_from(own);
        }
        submission.priority = Some(asked);
        if submission.session.is_some() {
            self.allow_session()?;
        }
        if !rights.models.is_empty() {
            let model = submission.model_in(settings);
            if !rights.has_model(&model_name::canonical(&model)) {
                let models = rights.models.clone();
                return Err(BeyondRights::Model { model, models });
            }
        }
        submission.key_id = Some(self.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyForm, KeyId, KeyRights, KeySecret, SessionId, Timestamp};

    fn granted(
        change: impl FnOnce(&mut KeyRights),
        ask: impl FnOnce(&mut Submission),
    ) -> Result<Submission, BeyondRights> {
        let id = KeyId::new(7);
        let (secret, _) = KeySecret::make(id, &[1; 32], KeyForm::Plain);
        let mut key = ClientKey::new(id, "agent", secret, Timestamp::default());
        change(&mut key.rights);
        let mut submission = Submission::prompt("hi").unwrap();
        ask(&mut submission);
        key.grant(&mut submission, Face::Chat, &Settings::default())?;
        assert_eq!(submission.key_id, Some(id));
        Ok(submission)
    }

    #[test]
    fn a_key_without_bounds_lets_everything_through_as_it_was_asked() {
        let ask = |job: &mut Submission| {
            job.user_id = "ada".into();
            job.priority = Some(99);
        };
        let job = granted(|_| {}, ask).unwrap();
        assert_eq!((job.user_id.as_str(), job.priority), ("ada", Some(99)));
        assert_eq!(granted(|_| {}, |_| {}).unwrap().priority, Some(0));
    }

    #[test]
    fn rights_fill_in_what_a_submission_leaves_open() {
        let rights = |rights: &mut KeyRights| {
            rights.user_id = Some("ada".into());
            rights.default_priority = -3;
            rights.max_priority = Some(5);
        };
        let job = granted(rights, |_| {}).unwrap();
        assert_eq!((job.user_id.as_str(), job.priority), ("ada", Some(-3)));
        let zero = granted(rights, |job| job.priority = Some(0)).unwrap();
        assert_eq!(zero.priority, Some(0), "what is said counts, 0 too");
        let most = granted(rights, |job| job.priority = Some(5)).unwrap();
        assert_eq!(most.priority, Some(5), "as urgent as it may be");
        let own = granted(rights, |job| job.user_id = "ada".into());
        assert_eq!(own.unwrap().user_id, "ada");
    }

    #[test]
    fn what_is_beyond_a_right_is_refused_and_says_which() {
        let check = |change: fn(&mut KeyRights), ask: fn(&mut Submission), want: &str| {
            let refused = granted(change, ask).unwrap_err().to_string();
            assert!(refused.contains(want), "{refused}");
        };
        check(
            |rights| rights.user_id = Some("ada".into()),
            |job| job.user_id = "bob".into(),
            "user ada alone",
        );
        check(
            |rights| rights.max_priority = Some(5),
            |job| job.priority = Some(6),
            "priority 6 is above 5",
        );
        check(
            |rights| rights.models = vec!["glm-5".into()],
            |job| job.model = Some("GLM-4.6".into()),
            "model GLM-4.6; it may ask for glm-5",
        );
        check(
            |rights| rights.names_sessions = false,
            |job| job.session = Some("s".parse::<SessionId>().unwrap().into()),
            "may not say of which session",
        );
        // The configured model is asked for by whoever names none.
        check(
            |rights| rights.models = vec!["glm-5".into()],
            |_| {},
            "it may ask for glm-5",
        );
        check(
            |rights| rights.faces = vec![Face::Messages],
            |_| {},
            "the face chat; it may use messages",
        );
        let spelled = granted(
            |rights| rights.models = vec!["glm-5".into()],
            |job| job.model = Some(" GLM-5".into()),
        );
        assert!(spelled.is_ok());
    }
}
