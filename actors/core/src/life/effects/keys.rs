//! What becomes of client keys.

use super::Decision;
use crate::model::{Applied, ClientKey, KeyId, KeyState, KeyStep, Refusal, Timestamp, limits};
use crate::rows::Rows;

/// Keeps a new key. Asked again, it is there. Where there are as many as there may be, the one that has been dead
/// the longest makes room.
pub(super) fn insert<R: Rows>(rows: &mut R, new: &ClientKey) -> Decision<R::Error> {
    if let Some(known) = rows.client_key(new.id)? {
        return Ok(if known.secret == new.secret {
            Ok(Applied::Key(Box::new(known)))
        } else {
            Err(Refusal::KeyExists(new.id))
        });
    }
    if rows.client_key_count()? >= limits::CLIENT_KEYS_MAX as u64 {
        let known = rows.client_keys()?;
        let dead = known
            .iter()
            .filter_map(|key| match key.state(new.created_at) {
                KeyState::Live => None,
                KeyState::Expired(at) | KeyState::Revoked(at) => Some((at, key.id)),
            });
        let Some((_, oldest)) = dead.min() else {
            return Ok(Err(Refusal::TooManyKeys));
        };
        rows.remove_client_key(oldest)?;
    }
    rows.put_client_key(new)?;
    Ok(Ok(Applied::Key(Box::new(new.clone()))))
}

/// Changes a key that exists.
pub(super) fn step<R: Rows>(
    rows: &mut R,
    id: KeyId,
    step: &KeyStep,
    at: Timestamp,
) -> Decision<R::Error> {
    let Some(mut key) = rows.client_key(id)? else {
        return Ok(Err(Refusal::NoSuchKey(id)));
    };
    match step {
        KeyStep::Revoke => key.revoke(at),
        KeyStep::Rotate { .. } if key.state(at) != KeyState::Live => {
            return Ok(Err(Refusal::DeadKey(id)));
        }
        KeyStep::Rotate { secret, overlap_ms } => key.rotate(secret.clone(), *overlap_ms, at),
    }
    rows.put_client_key(&key)?;
    Ok(Ok(Applied::Key(Box::new(key))))
}
