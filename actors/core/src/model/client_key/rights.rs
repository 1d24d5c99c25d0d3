//! What a key may do, and how much of it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::money::nanos_of;
use super::super::{
    Amount, Cost, Currency, Face, OnDisconnect, OverBudget, Period, limits, model_name,
};

/// What is wrong with a key that somebody makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct KeyError {
    /// The field, by its name in the API.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl KeyError {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// What the calls of one key may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyBudget {
    /// The limit.
    #[serde(flatten)]
    pub limit: Amount,
    /// For how long.
    pub period: Period,
    /// What happens beyond it.
    #[serde(default)]
    pub over: OverBudget,
}

/// A text is no budget of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an amount and its period, like 12.50 CNY/day, 3 USD/month or 1000000 tokens/day")]
pub struct NoKeyBudget;

/// `12.50 CNY/day`, `1000000 tokens/month`.
impl FromStr for KeyBudget {
    type Err = NoKeyBudget;

    fn from_str(text: &str) -> Result<Self, NoKeyBudget> {
        let (amount, period) = text.trim().split_once('/').ok_or(NoKeyBudget)?;
        let (number, unit) = amount.trim().split_once(' ').ok_or(NoKeyBudget)?;
        let period = match period.trim() {
            "day" => Period::Day,
            "month" => Period::Month,
            _ => return Err(NoKeyBudget),
        };
        let currency = match unit.trim().to_ascii_lowercase().as_str() {
            "cny" => Some(Currency::Cny),
            "usd" => Some(Currency::Usd),
            "points" => Some(Currency::Points),
            "token" | "tokens" => None,
            _ => return Err(NoKeyBudget),
        };
        let limit = match currency {
            Some(currency) => Amount::Money(Cost {
                nanos: nanos_of(number).ok_or(NoKeyBudget)?,
                currency,
            }),
            None => Amount::Tokens(number.parse().map_err(|_| NoKeyBudget)?),
        };
        let over = OverBudget::default();
        Ok(Self {
            limit,
            period,
            over,
        })
    }
}

/// How much a key may do. By default: everything, without a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRights {
    /// Whose jobs its jobs are; `None`: each says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The priority of jobs that name none.
    #[serde(default)]
    pub default_priority: i32,
    /// The highest priority that a job may name; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<i32>,
    /// The models that it may ask for, by their canonical names; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The faces that it may use; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faces: Vec<Face>,
    /// Whether its jobs may say of which session they are.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub names_sessions: bool,
    /// Calls that may be open at once; `None`: as many as the lane makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<u16>,
    /// Jobs that it may hand in within any minute; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Its weight among the client keys, which take turns: twice the weight is twice the turns.
    #[serde(default = "one")]
    pub share: u32,
    /// What its calls may come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<KeyBudget>,
    /// What becomes of a call whose client is gone; `None`: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_yes(yes: &bool) -> bool {
    *yes
}

impl Default for KeyRights {
    fn default() -> Self {
        Self {
            user_id: None,
            default_priority: 0,
            max_priority: None,
            models: Vec::new(),
            faces: Vec::new(),
            names_sessions: yes(),
            calls_in_flight: None,
            requests_per_minute: None,
            share: one(),
            budget: None,
            on_disconnect: None,
        }
    }
}

impl KeyRights {
    /// The same, with its lists in one order and its models by their canonical names.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        let models = self.models.iter();
        self.models = models
            .map(|model| model_name::canonical(model.trim()).into_owned())
            .collect();
        self.models.sort_unstable();
        self.models.dedup();
        self.faces.sort_unstable();
        self.faces.dedup();
        self
    }

    pub(super) fn check(&self) -> Result<(), KeyError> {
        let within = |field, number: u64, range: std::ops::RangeInclusive<u64>| {
            let (min, max) = (range.start(), range.end());
            match range.contains(&number) {
                true => Ok(()),
                false => Err(KeyError::new(field, format!("must be {min} to {max}"))),
            }
        };
        let chars = |field, text: &str, max: usize| {
            let problem = format!("must have 1 to {max} characters");
            match (1..=max).contains(&text.chars().count()) {
                true => Ok(()),
                false => Err(KeyError::new(field, problem)),
            }
        };
        if let Some(user) = &self.user_id {
            chars("userId", user, limits::USER_ID_CHARS_MAX)?;
        }
        if let Some(max) = self.max_priority.filter(|max| self.default_priority > *max) {
            let problem = format!("must not be above the maximum priority, {max}");
            return Err(KeyError::new("defaultPriority", problem));
        }
        if self.models.len() > limits::KEY_MODELS_MAX {
            let problem = format!("must name at most {} models", limits::KEY_MODELS_MAX);
            return Err(KeyError::new("models", problem));
        }
        for model in &self.models {
            chars("models", model, limits::MODEL_CHARS_MAX)?;
        }
        if let Some(calls) = self.calls_in_flight {
            let max = u64::from(limits::CONCURRENCY_MAX);
            within("callsInFlight", u64::from(calls), 1..=max)?;
        }
        if let Some(requests) = self.requests_per_minute {
            let max = u64::from(limits::KEY_REQUESTS_PER_MINUTE_MAX);
            within("requestsPerMinute", u64::from(requests), 1..=max)?;
        }
        if self.budget.is_some_and(|budget| budget.limit.number() == 0) {
            return Err(KeyError::new("budget", "must be more than nothing"));
        }
        within(
            "share",
            u64::from(self.share),
            1..=u64::from(limits::KEY_SHARE_MAX),
        )
    }

    /// Whether it may ask for a model, by its canonical name.
    #[must_use]
    pub fn has_model(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|own| own == model)
    }

    /// Whether it may use a face.
    #[must_use]
    pub fn has_face(&self, face: Face) -> bool {
        self.faces.is_empty() || self.faces.contains(&face)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_exactly_from_text() {
        let read = |text: &str| {
            text.parse::<KeyBudget>()
                .map(|budget| (budget.limit, budget.period))
        };
        let money = |nanos, currency| Amount::Money(Cost { nanos, currency });
        assert_eq!(
            read("12.50 CNY/day"),
            Ok((money(12_500_000_000, Currency::Cny), Period::Day))
        );
        assert_eq!(
            read("0.000000001 usd / month"),
            Ok((money(1, Currency::Usd), Period::Month))
        );
        assert_eq!(
            read("1000000 tokens/month"),
            Ok((Amount::Tokens(1_000_000), Period::Month))
        );
        for bad in [
            "",
            "5",
            "5 CNY",
            "5 EUR/day",
            "-5 CNY/day",
            "5 CNY/week",
            "x tokens/day",
        ] {
            assert_eq!(read(bad), Err(NoKeyBudget), "{bad}");
        }
    }

    #[test]
    fn rights_beyond_their_bounds_are_refused_by_field() {
        let check = |change: fn(&mut KeyRights), want: Option<&str>| {
            let mut rights = KeyRights::default();
            change(&mut rights);
            let field = rights.check().err().map(|error| error.field);
            assert_eq!(field, want, "{rights:?}");
        };
        check(|_| {}, None);
        check(|r| r.user_id = Some(String::new()), Some("userId"));
        check(
            |r| {
                r.default_priority = 2;
                r.max_priority = Some(1);
            },
            Some("defaultPriority"),
        );
        check(|r| r.models = vec!["m".into(); 65], Some("models"));
        check(|r| r.models = vec![String::new()], Some("models"));
        check(|r| r.calls_in_flight = Some(0), Some("callsInFlight"));
        check(|r| r.calls_in_flight = Some(257), Some("callsInFlight"));
        check(
            |r| r.requests_per_minute = Some(0),
            Some("requestsPerMinute"),
        );
        check(|r| r.share = 1_001, Some("share"));
        let budget = KeyBudget {
            limit: Amount::Tokens(0),
            period: Period::Day,
            over: OverBudget::Wait,
        };
        let rights = KeyRights {
            budget: Some(budget),
            ..KeyRights::default()
        };
        assert_eq!(rights.check().unwrap_err().field, "budget");
    }

    #[test]
    fn a_key_without_a_list_may_everything_and_one_with_a_list_that_alone() {
        let all = KeyRights::default();
        assert!(all.has_model("glm-5") && all.has_face(Face::Messages));
        let some = KeyRights {
            models: vec!["GLM-5".into(), "glm-5".into()],
            faces: vec![Face::Chat],
            ..KeyRights::default()
        }
        .in_order();
        assert_eq!(some.models, ["glm-5"]);
        assert!(some.has_model("glm-5") && !some.has_model("glm-4.7"));
        assert!(some.has_face(Face::Chat) && !some.has_face(Face::Responses));
    }
}
