//! Client keys: made, replaced and taken back. What is in force is what the store has.

use std::sync::Arc;

use onelane_actors::ports::Ids;
use onelane_actors::protocol::{QueueMsg, SubmitError};
use onelane_core::model::{
    Applied, ClientKey, ClientKeys, KeyError, KeyForm, KeyId, KeyRights, KeyRole, KeySecret,
    KeyStep, Refusal, Secret, Timestamp, Transition, limits,
};
use serde::{Serialize, Serializer};

use super::Orchestrator;
use crate::error::Error;

/// A client key that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What its operator calls it.
    pub name: String,
    /// What it is for.
    pub role: KeyRole,
    /// How it is used. One that SDKs sign with stays readable in the store.
    pub form: KeyForm,
    /// How much it may do.
    pub rights: KeyRights,
    /// When it ends; `None`: never by itself.
    pub expires_at: Option<Timestamp>,
}

/// A key with its secret, which is told this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MadeKey {
    /// The whole key, as its holder sends it.
    #[serde(rename = "key", serialize_with = "expose")]
    #[schemars(with = "String")]
    pub text: Secret,
    /// What is known of it.
    #[serde(flatten)]
    pub known: ClientKey,
}

/// The one place where a secret is written: it was just made, and nobody will see it again.
fn expose<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

impl NewKey {
    /// A key of this name, with every right and no bound.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            role: KeyRole::Client,
            form: KeyForm::Plain,
            rights: KeyRights::default(),
            expires_at: None,
        }
    }

    /// The key with a secret of its own, to be stored.
    pub fn make(self, ids: &dyn Ids, now: Timestamp) -> Result<MadeKey, Error> {
        let id = KeyId::new(ids.seed());
        let (secret, text) = draw(ids, id, self.form)?;
        let known = ClientKey {
            role: self.role,
            rights: self.rights.in_order(),
            expires_at: self.expires_at,
            ..ClientKey::new(id, self.name, secret, now)
        };
        known.check()?;
        Ok(MadeKey { text, known })
    }
}

/// The change that replaces a key's secret, and the new key.
pub fn rotation(
    ids: &dyn Ids,
    key: &ClientKey,
    overlap_ms: u64,
    at: Timestamp,
) -> Result<(Transition, Secret), Error> {
    if overlap_ms > limits::KEY_OVERLAP_MS_MAX {
        return Err(Error::Invalid {
            field: "overlapMs".to_owned(),
            problem: format!("must be at most {}, 30 days", limits::KEY_OVERLAP_MS_MAX),
        });
    }
    let (secret, text) = draw(ids, key.id, key.form())?;
    let step = KeyStep::Rotate { secret, overlap_ms };
    Ok((
        Transition::Key {
            id: key.id,
            step,
            at,
        },
        text,
    ))
}

fn draw(ids: &dyn Ids, id: KeyId, form: KeyForm) -> Result<(KeySecret, Secret), Error> {
    let none = || Error::Stopped("the system has no randomness for a key".to_owned());
    let random = ids.secret().ok_or_else(none)?;
    Ok(KeySecret::make(id, &random, form))
}

/// The key that a store says to have kept or changed.
pub fn stored_key(decision: Option<Result<Applied, Refusal>>) -> Result<ClientKey, Error> {
    match decision {
        Some(Ok(Applied::Key(key))) => Ok(*key),
        Some(Err(Refusal::NoSuchKey(id))) => Err(Error::NoSuchKey(id)),
        Some(Err(Refusal::DeadKey(id))) => Err(Error::DeadKey(id)),
        Some(Err(Refusal::TooManyKeys)) => Err(Error::Invalid {
            field: "name".to_owned(),
            problem: format!(
                "there are {} live keys, and no more may be; revoke one first",
                limits::CLIENT_KEYS_MAX
            ),
        }),
        Some(Err(refusal)) => Err(SubmitError::Refused(refusal).into()),
        _ => Err(SubmitError::Unknown.into()),
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Invalid {
            field: error.field.to_owned(),
            problem: error.problem,
        }
    }
}

impl Orchestrator {
    /// The client keys, dead ones included, in the order of their ids.
    #[must_use]
    pub fn client_keys(&self) -> Arc<ClientKeys> {
        Arc::clone(&self.settings().keys)
    }

    /// One of them.
    pub fn client_key(&self, id: KeyId) -> Result<Arc<ClientKey>, Error> {
        let keys = self.client_keys();
        keys.get(id).cloned().ok_or(Error::NoSuchKey(id))
    }

    /// Makes a client key; it opens at once. Its secret is told in this answer and never again.
    pub async fn create_key(&self, new: NewKey) -> Result<MadeKey, Error> {
        let ports = &self.inner.ports;
        let made = new.make(&*ports.ids, ports.clock.now())?;
        let change = Transition::InsertKey(Box::new(made.known.clone()));
        let known = self.change_key(change).await?;
        Ok(MadeKey { known, ..made })
    }

    /// Takes a client key back: it opens nothing any more. Jobs that it handed in go on.
    pub async fn revoke_key(&self, id: KeyId) -> Result<ClientKey, Error> {
        let at = self.inner.ports.clock.now();
        let step = KeyStep::Revoke;
        self.change_key(Transition::Key { id, step, at }).await
    }

    /// Gives a live client key another secret; the one before opens for `overlap_ms` more.
    pub async fn rotate_key(&self, id: KeyId, overlap_ms: u64) -> Result<MadeKey, Error> {
        let key = self.client_key(id)?;
        let ports = &self.inner.ports;
        let (change, text) = rotation(&*ports.ids, &key, overlap_ms, ports.clock.now())?;
        let known = self.change_key(change).await?;
        Ok(MadeKey { text, known })
    }

    /// Stores a change of a key and puts it in force. In a task of its own: a caller that goes away must not leave
    /// a key stored and not in force.
    async fn change_key(&self, change: Transition) -> Result<ClientKey, Error> {
        let lane = self.clone();
        tokio::spawn(async move {
            let _one_at_a_time = lane.inner.changing.lock().await;
            let mut decisions = lane.commit(vec![change]).await?;
            let changed = stored_key(decisions.pop())?;
            let keys: ClientKeys = lane
                .read(|store| store.client_keys())
                .await?
                .into_iter()
                .collect();
            let settings = lane.settings().as_ref().clone();
            let settings = settings.with_keys(Arc::new(keys));
            lane.inner.settings.send_replace(Arc::new(settings));
            lane.ask(|refs, reply| refs.queue.cast(QueueMsg::Configure { reply }))
                .await?;
            Ok(changed)
        })
        .await
        .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }
}
