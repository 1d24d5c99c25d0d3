//! Client keys: made and revoked while jobs that they handed in wait and run.

use std::sync::Arc;

use onelane_actors::ports::{Clock, Store};
use onelane_actors::protocol::{CommitReply, CommitRequest, QueueMsg, StoreMsg};
use onelane_actors::runtime::Refs;
use onelane_actors::testing::Dice;
use onelane_core::model::{
    Amount, ClientKey, ClientKeys, Face, KeyBudget, KeyForm, KeyId, KeyRights, KeySecret, KeyState,
    KeyStep, OverBudget, Period, Settings, Timestamp, Transition,
};

use crate::client::{Client, Order};
use crate::sim::State;

/// How many client keys a world may have.
pub(crate) const KEYS: u64 = 3;

/// What is drawn of a key.
pub(crate) fn drawn(number: u64, dice: &mut Dice, now: Timestamp) -> ClientKey {
    let id = KeyId::new(number);
    let (secret, _) = KeySecret::make(id, &[7; 32], KeyForm::Plain);
    let budget = dice.one_in(3).then(|| KeyBudget {
        limit: Amount::Tokens(dice.between(2_000, 12_000)),
        period: Period::Day,
        over: *dice.pick(&[OverBudget::Wait, OverBudget::Refuse]),
    });
    let rights = KeyRights {
        share: dice.between(1, 4) as u32,
        calls_in_flight: dice.one_in(2).then(|| dice.between(1, 2) as u16),
        budget,
        ..KeyRights::default()
    };
    ClientKey {
        rights,
        ..ClientKey::new(id, format!("key {number}"), secret, now)
    }
}

impl State {
    /// Settings with other client keys.
    pub(crate) fn with_keys(&self, before: &Settings, keys: ClientKeys) -> Arc<Settings> {
        let mut settings = before.clone().with_keys(Arc::new(keys));
        if self.is_healed {
            settings.budgets.clear();
        }
        Arc::new(settings)
    }
}

impl Client {
    /// As the door does: a key that is dead opens nothing. Tells whether the job may be handed in.
    pub(crate) fn shows_its_key(&self, order: &mut Order) -> bool {
        let Some(id) = order.promise.by else {
            return true;
        };
        let settings = self.settings();
        let Some(key) = settings.keys.get(id) else {
            // It was made by a process that died before it was on disk.
            return false;
        };
        let now = self.sim.lock().clock().now();
        if key.state(now) != KeyState::Live {
            return false;
        }
        if self.sim.lock().revoked.contains(&id) {
            self.sim
                .violated(format!("client key {id}: it was revoked, and opens again"));
        }
        key.grant(&mut order.submission, Face::Chat, &settings)
            .is_ok()
    }

    /// Makes a key, as long as there is room for one.
    pub(crate) async fn make_key(self, key: ClientKey) {
        let made = Transition::InsertKey(Box::new(key));
        if self.change_key(made).await {
            self.sim.lock().tally.keys_made += 1;
        }
    }

    /// Takes a key back. Jobs that it handed in go on.
    pub(crate) async fn revoke_key(self, id: KeyId) {
        let at = self.sim.lock().clock().now();
        let step = KeyStep::Revoke;
        if self.change_key(Transition::Key { id, step, at }).await {
            let mut state = self.sim.lock();
            state.tally.keys_revoked += 1;
            state.revoked.insert(id);
            state.note(|| format!("client key {id} is revoked"));
        }
    }

    /// As the facade does: stored first, then in force. Tells whether both are known to be done.
    async fn change_key(&self, change: Transition) -> bool {
        let send = |refs: &Refs, port| {
            let _ = refs.store.cast(StoreMsg::Commit(CommitRequest {
                transitions: vec![change.clone()],
                reply: CommitReply::Port(port),
            }));
        };
        let Some(Ok(decisions)) = self.ask("a change of a key", send).await else {
            return false;
        };
        if decisions.iter().any(Result::is_err) {
            return false;
        }
        {
            let Ok(keys) = self.sim.store.client_keys() else {
                return false;
            };
            let mut state = self.sim.lock();
            let now = state.now();
            let latest = Arc::clone(state.history.latest());
            let settings = state.with_keys(&latest, keys.into_iter().collect());
            state.history.set(Arc::clone(&settings), now);
            drop(state);
            self.put_in_force(settings);
        }
        let asked = self.ask_queue("a change of the keys", |reply| QueueMsg::Configure {
            reply,
        });
        if asked.await.is_none() {
            return false;
        }
        let mut state = self.sim.lock();
        let now = state.now();
        state.history.confirmed(now);
        true
    }
}
