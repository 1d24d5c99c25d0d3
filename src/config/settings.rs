//! What the lane and the server are told by a configuration, and the ranges of its values.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use onelane_core::model::{
    AutoSettings, BreakerSettings, Budget, BudgetScope, CoolDownSettings, Cost, Currency, Endpoint,
    LaneRules, Limit, NamedLane, OrderSettings, PaceSettings, Retention, RetrySettings, Secret,
    Settings, SettingsError, Timeouts,
};

use super::error::ConfigError;
use super::path::join;
use super::sections::{
    BreakerSection, BudgetSection, Config, LaneSection, NamedLaneSection, RetentionSection,
    RetrySection, TimeoutsSection,
};
use super::{policy, prices, text};

impl Config {
    /// What the lane is told. Fails on the first value that is out of its range, by its name in
    /// `config.toml`.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let base_url =
            text::base_url(&self.glm.base_url).map_err(|problem| fault("glm.base_url", problem))?;
        checked_secret("glm.api_key", self.glm.api_key.as_ref())?;
        for code in self.policy.keys() {
            let field = || join("policy", code);
            text::policy_code(code).map_err(|problem| fault(field(), problem))?;
        }
        let policy = policy::in_force(&self.policy);
        policy::refuse_endless(&self.policy, &policy)
            .map_err(|(code, problem)| fault(join("policy", &code), problem))?;
        prices::check(&self.money.prices).map_err(|e| fault("money.prices", e.problem))?;
        let currency = self.money.price_list.currency(&base_url);
        let table = prices::table(currency, &self.money.prices)
            .map_err(|error| ConfigError::Bug(format!("shipped prices: {error}")))?;
        let settings = Settings {
            endpoint: Endpoint {
                base_url,
                api_key: self.glm.api_key.clone(),
            },
            model: self.glm.model.clone(),
            max_tokens: self.glm.max_tokens,
            temperature: self.glm.temperature,
            timeouts: self.glm.timeouts.into(),
            is_active: self.glm.is_active,
            lane: self.lane.into(),
            lanes: self
                .lanes
                .iter()
                .map(|(name, lane)| (name.clone(), lane.into()))
                .collect(),
            max_queue_jobs: self.lane.max_queue_jobs,
            retry: self.retry.into(),
            throttle: CoolDownSettings {
                base_ms: self.retry.throttle_base_ms,
                max_ms: self.retry.throttle_max_ms,
            },
            overload: CoolDownSettings {
                base_ms: self.retry.overload_base_ms,
                max_ms: self.retry.overload_max_ms,
            },
            breaker: self.breaker.into(),
            on_interrupted: self.lane.on_interrupted,
            quarantine_after: self.lane.quarantine_after,
            policy,
            fallbacks: self
                .glm
                .fallbacks
                .iter()
                .filter(|(_, chain)| !chain.is_empty())
                .map(|(model, chain)| (model.clone(), chain.clone()))
                .collect(),
            async_models: self.glm.async_models.iter().cloned().collect(),
            async_poll_ms: self.glm.async_poll_ms,
            pause_after_timeout_ms: self.lane.pause_after_timeout_ms,
            operator_probe_ms: self.lane.operator_probe_ms,
            budgets: self.budgets(currency)?,
            calendar: self.money.zone,
            callbacks: self.webhooks.callbacks(),
            prices: Arc::new(table),
            unpriced: self.money.unpriced,
            retention: self.store.retention.into(),
        };
        settings.validate()?;
        Ok(settings)
    }

    /// The budgets, in money of `currency` where they say no tokens.
    fn budgets(&self, currency: Currency) -> Result<Vec<Budget>, ConfigError> {
        let whose = |name: Option<&String>| match name.map(String::as_str) {
            None => BudgetScope::All,
            Some("*") => BudgetScope::Each,
            Some(name) => BudgetScope::One(name.to_owned()),
        };
        let budget = |(name, section): (&String, &BudgetSection)| {
            let refuse = |field: &str, problem: String| {
                ConfigError::Setting(SettingsError {
                    field: format!("money.budgets.{name}.{field}").into(),
                    problem,
                })
            };
            let limit = match (&section.amount, section.tokens) {
                (Some(amount), None) => Limit::Money(Cost {
                    nanos: text::nanos(amount).map_err(|problem| refuse("amount", problem))?,
                    currency: section.currency.unwrap_or(currency),
                }),
                (None, Some(_)) if section.currency.is_some() => {
                    let problem = "goes with amount, and tokens is there".to_owned();
                    return Err(refuse("currency", problem));
                }
                (None, Some(tokens)) => Limit::Tokens(tokens),
                _ => {
                    let problem = "must be there, or tokens instead; not both".to_owned();
                    return Err(refuse("amount", problem));
                }
            };
            Ok(Budget {
                name: name.clone(),
                period: section.period,
                users: whose(section.user.as_ref()),
                models: whose(section.model.as_ref()),
                limit,
                warn_percent: section.warn_percent,
                over: section.over,
            })
        };
        self.money.budgets.iter().map(budget).collect()
    }

    /// Checks what the lane is not told: store, server, alerts, webhooks and log.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const DAY_MS: u64 = 86_400_000;
        let server = &self.server;
        text::plain(&self.store.path).map_err(|problem| fault("store.path", problem))?;
        checked_secret("server.admin_token", server.admin_token.as_ref())?;
        self.listen_addr()?;
        self.alerts.settings()?;
        self.webhooks.settings()?;
        text::log_filter(&self.log.filter).map_err(|problem| fault("log.filter", problem))?;
        let check = |ok: bool, field, problem: &str| {
            ok.then_some(())
                .ok_or_else(|| fault(field, problem.to_owned()))
        };
        check(
            self.store.cache_bytes >= 1024 * 1024,
            "store.cache_bytes",
            "must be at least 1048576 (1 MiB)",
        )?;
        check(
            (1024..=1024 * 1024 * 1024).contains(&server.max_body_bytes),
            "server.max_body_bytes",
            "must be 1024 to 1073741824 (1 GiB)",
        )?;
        check(
            server.preview_chars <= 100_000,
            "server.preview_chars",
            "must be 0 to 100000",
        )?;
        check(
            (1..=DAY_MS).contains(&server.header_timeout_ms),
            "server.header_timeout_ms",
            "must be 1 to 86400000 milliseconds (a day)",
        )?;
        check(
            server.shutdown_deadline_ms <= DAY_MS,
            "server.shutdown_deadline_ms",
            "must be 0 to 86400000 milliseconds (a day)",
        )
    }

    /// Where the server listens.
    pub fn listen_addr(&self) -> Result<SocketAddr, ConfigError> {
        text::socket_addr(&self.server.listen).map_err(|problem| fault("server.listen", problem))
    }

    /// Refuses a server that other machines can reach without a token. For those who serve.
    pub fn check_server(&self) -> Result<(), ConfigError> {
        let listen = self.listen_addr()?;
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

pub(super) fn fault(field: impl Into<Cow<'static, str>>, problem: String) -> ConfigError {
    ConfigError::Setting(SettingsError {
        field: field.into(),
        problem,
    })
}

fn checked_secret(field: &'static str, secret: Option<&Secret>) -> Result<(), ConfigError> {
    match secret.map(|secret| text::secret(secret.expose())) {
        Some(Err(problem)) => Err(fault(field, problem)),
        _ => Ok(()),
    }
}

impl From<TimeoutsSection> for Timeouts {
    fn from(section: TimeoutsSection) -> Self {
        Self {
            connect_ms: section.connect_ms,
            first_byte_ms: section.first_byte_ms,
            idle_ms: section.idle_ms,
            total_ms: section.total_ms,
        }
    }
}

/// The rules in a section that has the settings of a lane.
macro_rules! rules_of {
    ($section:expr) => {
        LaneRules {
            max_concurrency: $section.max_concurrency,
            auto: $section.auto_concurrency.then_some(AutoSettings {
                min: $section.auto_min,
                trial_ms: $section.auto_trial_ms,
            }),
            pace: PaceSettings {
                requests_per_minute: $section.requests_per_minute,
                tokens_per_minute: $section.tokens_per_minute,
                min_spacing_ms: $section.min_spacing_ms,
            },
            order: OrderSettings {
                fair_quantum_tokens: $section.fair_quantum_tokens,
                ageing_ms: $section.ageing_ms,
            },
        }
    };
}

impl From<LaneSection> for LaneRules {
    fn from(section: LaneSection) -> Self {
        rules_of!(section)
    }
}

impl From<&NamedLaneSection> for NamedLane {
    fn from(section: &NamedLaneSection) -> Self {
        Self {
            models: section.models.clone(),
            rules: rules_of!(section),
        }
    }
}

impl From<RetentionSection> for Retention {
    fn from(section: RetentionSection) -> Self {
        Self {
            calls_days: section.calls_days,
            calls_max: section.calls_max,
            jobs_days: section.jobs_days,
            jobs_max: section.jobs_max,
            failed_days: section.failed_days,
            failed_max: section.failed_max,
            bodies_days: section.bodies_days,
        }
    }
}

impl From<RetrySection> for RetrySettings {
    fn from(section: RetrySection) -> Self {
        Self {
            max_retries: section.max_retries,
            base_delay_ms: section.base_delay_ms,
            backoff_multiplier: section.backoff_multiplier,
            max_delay_ms: section.max_delay_ms,
            jitter: section.jitter,
            max_throttles: section.max_throttles,
        }
    }
}

impl From<BreakerSection> for BreakerSettings {
    fn from(section: BreakerSection) -> Self {
        Self {
            consecutive_failures: section.consecutive_failures,
            failure_rate: section.failure_rate,
            window_ms: section.window_ms,
            min_calls: section.min_calls,
            cool_down_ms: section.cool_down_ms,
            cool_down_multiplier: section.cool_down_multiplier,
            cool_down_max_ms: section.cool_down_max_ms,
        }
    }
}
