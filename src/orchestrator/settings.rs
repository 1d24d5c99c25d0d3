//! The configuration of a running lane: shown, and changed while it runs.

use std::sync::{Arc, PoisonError};

use onelane_actors::protocol::QueueMsg;
use onelane_core::model::{Event, Settings, Transition};
use serde_json::Value;

use super::Orchestrator;
use crate::config::{Loaded, Reread};
use crate::error::Error;

impl Orchestrator {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.borrow())
    }

    /// The configuration in force, with the origin of every value.
    #[must_use]
    pub fn config(&self) -> Loaded {
        self.inner
            .config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The configuration as the admin API shows it: a `GLMConfig` in camelCase, the key masked.
    #[must_use]
    pub fn config_view(&self) -> Value {
        serde_json::to_value(self.config().view()).unwrap_or_default()
    }

    /// Changes the running configuration: validated, stored, live at once, without a restart.
    /// `patch` is a part of a `GLMConfig`; a `null` takes a stored change back. Answers the new view,
    /// with `shadowed` naming the changed fields that a flag or the environment fixes until the next
    /// start without it. Every bad field is told in one `Invalid`.
    pub async fn set_config(&self, patch: &Value) -> Result<Value, Error> {
        let (lane, patch) = (self.clone(), patch.clone());
        // In a task of its own: a caller that goes away must not leave a change half made, stored
        // but not in force.
        tokio::spawn(async move { lane.change_config(&patch).await })
            .await
            .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    /// Reads `glm.api_key_file` again: a key that was changed there is in force at once and ends what was
    /// held for the old one. Tells whether it was changed; `Invalid` if the file can't be used, then
    /// nothing changes.
    pub async fn reload_key(&self) -> Result<bool, Error> {
        let lane = self.clone();
        // As above.
        tokio::spawn(async move { lane.read_key_again().await })
            .await
            .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    async fn read_key_again(&self) -> Result<bool, Error> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let config = self.config();
        let reading = tokio::task::spawn_blocking(move || config.with_key_file_read_again());
        let read = reading
            .await
            .map_err(|_| Error::Stopped("the runtime is ending".to_owned()))?
            .map_err(|error| Error::Invalid {
                field: "glm.api_key_file".to_owned(),
                problem: error.to_string(),
            })?;
        let Some(loaded) = read else {
            return Ok(false);
        };
        let changed = loaded.settings.glm.endpoint() != self.settings().glm.endpoint();
        self.put_in_force(loaded).await?;
        Ok(changed)
    }

    /// Puts in force what `fresh` says, a configuration that was read anew from the same places: as far as it may change
    /// while the lane runs. Changes made while running win over it, as ever. `Invalid` if the whole makes no sense; then
    /// nothing changes.
    pub async fn reread(&self, fresh: &Loaded) -> Result<Reread, Error> {
        let (lane, fresh) = (self.clone(), fresh.clone());
        // As above.
        tokio::spawn(async move {
            let _one_at_a_time = lane.inner.changing.lock().await;
            let reread = lane.config().reread(&fresh);
            let reread = reread.map_err(|error| Error::Invalid {
                field: "config".to_owned(),
                problem: error.to_string(),
            })?;
            if !reread.changed.is_empty() {
                lane.put_in_force(reread.loaded.clone()).await?;
            }
            Ok(reread)
        })
        .await
        .unwrap_or_else(|_| Err(Error::Stopped("the runtime is ending".to_owned())))
    }

    async fn put_in_force(&self, mut loaded: Loaded) -> Result<(), Error> {
        // No settings of the configuration: they stay as they are.
        let before = self.settings();
        loaded.settings.scope = before.scope;
        loaded.settings = loaded.settings.with_keys(Arc::clone(&before.keys));
        self.inner
            .settings
            .send_replace(Arc::new(loaded.settings.clone()));
        self.inner.account.configure(&loaded.config.account);
        *self
            .inner
            .config
            .write()
            .unwrap_or_else(PoisonError::into_inner) = loaded;
        self.ask(|refs, reply| refs.queue.cast(QueueMsg::Configure { reply }))
            .await?;
        let now = self.inner.ports.clock.now();
        self.inner.ports.events.send(now, || Event::ConfigChanged);
        self.inner.notifier.configured.notify_one();
        Ok(())
    }

    async fn change_config(&self, patch: &Value) -> Result<Value, Error> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let now = self.inner.ports.clock.now();
        let change = self.config().change(patch, now)?;
        let shadowed = change.shadowed;
        if !change.changed.is_empty() {
            let loaded = change.loaded;
            if let Some(json) = loaded.stored_json() {
                self.commit(vec![Transition::Config(json)]).await?;
            }
            self.put_in_force(loaded).await?;
            let changed = change.changed.join(", ");
            tracing::info!(changed, "the configuration changed");
        }
        let mut view = self.config_view();
        if !shadowed.is_empty()
            && let Some(view) = view.as_object_mut()
        {
            let shadowed = serde_json::to_value(shadowed).unwrap_or_default();
            view.insert("shadowed".to_owned(), shadowed);
        }
        Ok(view)
    }
}
