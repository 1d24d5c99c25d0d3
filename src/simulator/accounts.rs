//! What the simulator answers where GLM's own meters are: the windows of a plan, the balance, tokens by day and model.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::HeaderMap;
use onelane_core::model::{Calendar, Day, Timestamp};
use serde_json::{Map, Value, json};

use super::account::{BalanceScript, QuotaScript};
use super::answer::not_found;
use super::meters::Count;
use super::respond::{json as told, refuse_unseen};
use super::shared::{Answer, Shared};
use super::work::{account_of, authorise};

/// Days of one question.
const DAYS_MAX: i32 = 366;

/// Which meter a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meter {
    Quota,
    Balance,
    /// As the mainland's site tells it.
    ModelUsage,
    /// As the international one does.
    CreditUsage,
}

impl Meter {
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/api/monitor/usage/quota/limit" => Some(Self::Quota),
            "/api/paas/v4/balance" => Some(Self::Balance),
            "/api/monitor/usage/model-usage" => Some(Self::ModelUsage),
            "/api/monitor/usage/credit-usage/usage-detail" => Some(Self::CreditUsage),
            _ => None,
        }
    }
}

/// What a meter shows.
pub(crate) fn look(
    meter: Meter,
    (path, query): (&str, &str),
    headers: &HeaderMap,
    shared: &Shared,
) -> Answer {
    let account = match authorise(headers, shared) {
        Ok(key) => account_of(key),
        Err(fault) => return refuse_unseen(&fault, shared),
    };
    let now = shared.clock.now();
    let script = shared.script().account();
    match meter {
        Meter::Quota if script.quota.is_empty() => {
            let none = json!({"code": 500, "msg": "当前用户不存在coding plan", "success": false});
            told(200, body(&none), None)
        }
        Meter::Quota => {
            let limits: Vec<Value> = script.quota.iter().map(|one| one.told(now)).collect();
            told(200, data(&json!({"limits": limits, "level": "lite"})), None)
        }
        Meter::Balance => match script.balance {
            None => told(404, not_found(path, now), None),
            Some(balance) => {
                let BalanceScript {
                    available,
                    currency,
                } = balance;
                let shown = json!({
                    "available_balance": available,
                    "total_balance": available,
                    "currency": currency,
                });
                told(200, data(&shown), None)
            }
        },
        Meter::ModelUsage | Meter::CreditUsage => {
            let today = Calendar::beijing().day(now);
            let Some(days) = days(query) else {
                let wrong = json!({"code": 400, "msg": "startTime, endTime", "success": false});
                return told(400, body(&wrong), None);
            };
            let sums = shared.meters.of(account, days, &script.planted, today);
            told(200, data(&usage(meter, &sums)), None)
        }
    }
}

impl QuotaScript {
    fn told(&self, now: Timestamp) -> Value {
        let reset = self.reset_in_ms.map(|ms| now.plus_ms(ms).as_millis());
        let remaining = self.usage.zip(self.current_value);
        let remaining = remaining.map(|(all, used)| all.saturating_sub(used));
        let fields = [
            ("type", Some(json!(self.kind))),
            ("unit", self.unit.map(Value::from)),
            ("number", self.number.map(Value::from)),
            ("usage", self.usage.map(Value::from)),
            ("currentValue", self.current_value.map(Value::from)),
            ("remaining", remaining.map(Value::from)),
            ("percentage", self.percentage.map(Value::from)),
            ("nextResetTime", reset.map(Value::from)),
        ];
        let told = fields.into_iter();
        let told = told.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(told.collect::<Map<String, Value>>())
    }
}

/// The first and the last day of a question, as GLM's own pages ask.
fn days(query: &str) -> Option<[Day; 2]> {
    let day = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(given, _)| *given == name)?;
        Day::parse(value.get(..10)?)
    };
    let days = [day("startTime")?, day("endTime")?];
    let [first, last] = days;
    (first <= last && last.0.saturating_sub(first.0) < DAYS_MAX).then_some(days)
}

fn usage(meter: Meter, sums: &BTreeMap<String, Count>) -> Value {
    let calls: i64 = sums.values().map(|sum| sum.calls).sum();
    let tokens: i64 = sums.values().map(|sum| sum.tokens).sum();
    let total = json!({"totalModelCallCount": calls, "totalTokensUsage": tokens});
    let models = sums.iter();
    if meter == Meter::CreditUsage {
        let list = models.map(|(model, sum)| {
            json!({
                "modelCode": model,
                "cachedInputTokensUsage": 0,
                "uncachedInputTokensUsage": [sum.tokens / 2],
                "outputTokensUsage": sum.tokens - sum.tokens / 2,
                "modelCallCount": [sum.calls],
            })
        });
        let list: Vec<Value> = list.collect();
        return json!({"modelUsage": {"modelDataList": list}, "totalUsage": total});
    }
    // Names as the site shows them.
    let list = models.map(|(model, sum)| {
        let tokens = sum.tokens;
        json!({"modelName": model.to_uppercase(), "tokensUsage": [tokens], "totalTokens": tokens})
    });
    let list: Vec<Value> = list.collect();
    json!({"granularity": "daily", "totalUsage": total, "modelDataList": list})
}

fn data(data: &Value) -> Bytes {
    body(&json!({"code": 200, "msg": "操作成功", "data": data, "success": true}))
}

fn body(body: &Value) -> Bytes {
    body.to_string().into()
}
