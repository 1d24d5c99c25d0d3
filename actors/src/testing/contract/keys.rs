//! Client keys: whole with their secrets, changed in one transaction each.

use super::super::sample::{self, START};
use super::{Open, done, refused};
use crate::ports::Store;
use onelane_core::model::{
    Amount, Applied, ClientKey, Face, KeyBudget, KeyForm, KeyId, KeyRights, KeyRole, KeySecret,
    KeyState, KeyStep, OnDisconnect, OverBudget, Period, Refusal, Timestamp, Transition, limits,
};

fn secret(id: KeyId, random: u8) -> KeySecret {
    KeySecret::make(id, &[random; 32], KeyForm::Jwt).0
}

fn key(n: u64) -> ClientKey {
    let id = KeyId::new(n);
    ClientKey::new(id, format!("key {n}"), secret(id, 1), START)
}

fn insert(key: &ClientKey) -> Transition {
    Transition::InsertKey(Box::new(key.clone()))
}

fn step(n: u64, step: KeyStep, at: Timestamp) -> Transition {
    let id = KeyId::new(n);
    Transition::Key { id, step, at }
}

fn rotate(n: u64, random: u8, overlap_ms: u64) -> KeyStep {
    let secret = secret(KeyId::new(n), random);
    KeyStep::Rotate { secret, overlap_ms }
}

/// A key comes back as it was made, its secret included, and outlives the process.
pub fn a_client_key_is_kept_whole<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    assert_eq!(store.client_keys().unwrap(), []);
    let whole = ClientKey {
        role: KeyRole::Viewer,
        rights: KeyRights {
            user_id: Some("ada".into()),
            default_priority: -3,
            max_priority: Some(7),
            models: vec!["glm-5".into()],
            faces: vec![Face::Chat, Face::Messages],
            calls_in_flight: Some(2),
            names_sessions: false,
            requests_per_minute: Some(60),
            share: 5,
            budget: Some(KeyBudget {
                limit: Amount::Tokens(1_000),
                period: Period::Month,
                over: OverBudget::Refuse,
            }),
            on_disconnect: Some(OnDisconnect::Drain { seconds: 30 }),
        },
        expires_at: Some(START.plus_ms(99)),
        ..key(2)
    };
    done(&store, &[insert(&whole), insert(&key(1))]);
    drop(store);
    let store = open_store();
    assert_eq!(store.client_keys().unwrap(), [key(1), whole]);
}

/// A key is made once: asked again it is there, and another one of its id is refused.
pub fn a_client_key_is_made_once<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    done(&store, &[insert(&key(1)), rotate_now(1, 1)]);
    let again = done(&store, &[insert(&key(1))]);
    assert!(matches!(&again[..], [Applied::Key(known)] if **known == key(1)));
    let other = ClientKey {
        secret: secret(KeyId::new(1), 9),
        ..key(1)
    };
    let refusal = refused(&store, insert(&other));
    assert_eq!(refusal, Refusal::KeyExists(KeyId::new(1)));
    assert_eq!(store.client_keys().unwrap(), [key(1)]);
}

fn rotate_now(n: u64, random: u8) -> Transition {
    step(n, rotate(n, random, 0), START)
}

/// A key that is taken back stays so, and one that is not there is refused.
pub fn a_client_key_is_replaced_and_taken_back<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    let one = KeyId::new(1);
    let at = |ms| START.plus_ms(ms);
    let revoke = |ms| step(1, KeyStep::Revoke, at(ms));
    assert_eq!(refused(&store, revoke(1)), Refusal::NoSuchKey(one));
    done(
        &store,
        &[insert(&key(1)), step(1, rotate(1, 2, 50), at(10))],
    );
    drop(store);
    let store = open_store();
    let kept = store.client_keys().unwrap().remove(0);
    assert_eq!(kept.rotated_at, Some(at(10)));
    let opens: Vec<_> = kept.secrets(at(59)).cloned().collect();
    assert_eq!(opens, [secret(one, 2), secret(one, 1)]);
    done(&store, &[revoke(20), revoke(30)]);
    let kept = store.client_keys().unwrap().remove(0);
    assert_eq!(kept.state(at(40)), KeyState::Revoked(at(20)));
    let again = step(1, rotate(1, 3, 0), at(40));
    assert_eq!(refused(&store, again), Refusal::DeadKey(one));
}

/// There are so many keys; the one that has been dead the longest makes room, and a live one never.
pub fn a_dead_client_key_makes_room<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    let most = limits::CLIENT_KEYS_MAX as u64;
    let all: Vec<Transition> = (1..=most).map(|n| insert(&key(n))).collect();
    for part in all.chunks(limits::BATCH_TRANSITIONS_MAX) {
        done(&store, part);
    }
    let one_more = key(most + 1);
    assert_eq!(refused(&store, insert(&one_more)), Refusal::TooManyKeys);
    let later = ClientKey {
        created_at: START.plus_ms(50),
        ..one_more
    };
    done(
        &store,
        &[
            step(5, KeyStep::Revoke, START.plus_ms(20)),
            step(7, KeyStep::Revoke, START.plus_ms(10)),
            insert(&later),
            sample::insert(1),
        ],
    );
    let kept = store.client_keys().unwrap();
    assert_eq!(kept.len(), limits::CLIENT_KEYS_MAX);
    let has = |n| kept.iter().any(|key| key.id == KeyId::new(n));
    assert!(has(5) && !has(7) && has(most + 1));
}
