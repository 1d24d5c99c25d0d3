//! What the simulator knows of accounts: what a script says of quota and balance, and the tokens that it answered, by day
//! and model, with planted differences.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onelane_core::model::{Calendar, Day, Timestamp, model_name};
use serde::{Deserialize, Serialize};

use super::tasks::Account;

/// Days and models that are counted; beyond them the oldest are forgotten.
const COUNTED_MAX: usize = 10_000;

/// What is told of every account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccountScript {
    /// The windows of the plan; none: the account has no plan.
    pub quota: Vec<QuotaScript>,
    /// The balance, as `{"available": "12.5", "currency": "CNY"}`; `None`: it is not told.
    pub balance: Option<BalanceScript>,
    /// What is counted beside what was answered, or left out of it.
    pub planted: Vec<Planted>,
}

/// A window, in GLM's own words but for its end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QuotaScript {
    /// `TOKENS_LIMIT`, `CREDIT_LIMIT` or `TIME_LIMIT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// 3 is hours, 6 weeks.
    pub unit: Option<u32>,
    /// So many of them.
    pub number: Option<u32>,
    /// How much there is in all.
    pub usage: Option<u64>,
    /// How much of it is used.
    pub current_value: Option<u64>,
    /// The used share in percent.
    pub percentage: Option<f64>,
    /// It opens anew so many milliseconds after the question; `None`: not told.
    pub reset_in_ms: Option<u64>,
}

/// What is left of the money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceScript {
    /// A decimal.
    pub available: String,
    /// `CNY` or `USD`.
    pub currency: String,
}

/// A difference between what is counted and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The day of UTC+8; `None`: that of the question.
    #[serde(default)]
    pub day: Option<String>,
    /// The model.
    pub model: String,
    /// So many calls more; below 0: fewer.
    #[serde(default)]
    pub calls: i64,
    /// So many tokens more; below 0: fewer.
    pub tokens: i64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) calls: i64,
    pub(crate) tokens: i64,
}

impl Count {
    const fn add(&mut self, calls: i64, tokens: i64) {
        self.calls = self.calls.saturating_add(calls);
        self.tokens = self.tokens.saturating_add(tokens);
    }
}

/// What was answered, by day of UTC+8, account and model.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<BTreeMap<(Day, u64, String), Count>>);

impl Meters {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<(Day, u64, String), Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account is charged for an answer.
    pub(crate) fn count(&self, account: Account, model: &str, tokens: u64, now: Timestamp) {
        let mut counts = self.counts();
        let place = (Calendar::beijing().day(now), account.0, canonical(model));
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        counts.entry(place).or_default().add(1, tokens);
        while counts.len() > COUNTED_MAX {
            counts.pop_first();
        }
    }

    /// By model, on the days asked for.
    pub(crate) fn of(
        &self,
        account: Account,
        [first, last]: [Day; 2],
        planted: &[Planted],
        today: Day,
    ) -> BTreeMap<String, Count> {
        let mut sums: BTreeMap<String, Count> = BTreeMap::new();
        for ((day, of, model), count) in self.counts().iter() {
            if (first..=last).contains(day) && *of == account.0 {
                let sum = sums.entry(model.clone()).or_default();
                sum.add(count.calls, count.tokens);
            }
        }
        for one in planted {
            let day = one.day.as_deref().and_then(Day::parse).unwrap_or(today);
            if (first..=last).contains(&day) {
                let sum = sums.entry(canonical(&one.model)).or_default();
                sum.add(one.calls, one.tokens);
            }
        }
        sums.retain(|_, sum| sum.calls > 0 || sum.tokens > 0);
        sums
    }
}

fn canonical(model: &str) -> String {
    model_name::canonical(model).into_owned()
}
