//! What the lane is told by a configuration, and what those who serve or call must have.

use std::net::SocketAddr;
use std::sync::Arc;

use onelane_core::model::setting::KeyPath;
use onelane_core::model::{Scope, Settings};

use super::error::{ConfigError, Origin, WrongValue};
use super::sections::Config;
use super::{policy, prices, text};
use crate::glm::ErrorTable;

impl Config {
    /// What the lane is told. Fails only if what is shipped is broken.
    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        let currency = self.money.price_list.currency(&self.glm.base_url);
        let table = prices::table(currency, &self.money.prices)
            .map_err(|error| ConfigError::Bug(format!("shipped prices: {error}")))?;
        let mut glm = self.glm.clone();
        glm.fallbacks.retain(|_, chain| !chain.is_empty());
        let budgets = self.money.budgets.iter();
        Ok(Settings {
            glm,
            lane: self.lane.clone(),
            lanes: self.lanes.clone(),
            retry: self.retry.clone(),
            breaker: self.breaker,
            policy: policy::in_force(&self.policy),
            meanings: ErrorTable::meanings(),
            budgets: budgets
                .filter_map(|(name, section)| section.budget(name, currency))
                .collect(),
            in_doubt: self.money.in_doubt,
            calendar: self.money.zone,
            gateway: self.gateway,
            callbacks: self.webhooks.callbacks.clone(),
            prices: Arc::new(table),
            unpriced: self.money.unpriced,
            retention: self.store.retention,
            scope: Scope::All,
            keys: Arc::default(),
        })
    }

    /// The address that the server listens on; `None`: it listens on a socket alone.
    pub fn listen_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.server.listen == text::NOWHERE {
            return Ok(None);
        }
        let address = text::socket_addr(&self.server.listen).map_err(|problem| {
            let path = KeyPath::from("server.listen");
            ConfigError::Invalid(vec![WrongValue::of(Origin::Program, path, problem)])
        })?;
        Ok(Some(address))
    }

    /// Refuses a server that other machines can reach without a token. For those who serve.
    pub fn check_server(&self) -> Result<(), ConfigError> {
        let Some(listen) = self.listen_addr()? else {
            return Ok(());
        };
        if listen.ip().to_canonical().is_loopback() || self.server.admin_token.is_some() {
            return Ok(());
        }
        Err(ConfigError::Unguarded {
            listen: listen.to_string(),
        })
    }

    /// Refuses to go without a key for GLM. For those who call the real one.
    pub fn check_key(&self) -> Result<(), ConfigError> {
        match self.glm.api_key {
            Some(_) => Ok(()),
            None => Err(ConfigError::NoApiKey),
        }
    }
}
