//! What GLM itself counts of an account: the windows of its plan, its balance, tokens by day and model. None of it is
//! documented; fields may be missing, be numbers or texts, one figure or one for each hour.
//!
//! It is asked over connections of its own: no call waits for a question, and no answer is taken for a call's.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use onelane_actors::ports::{AccountAsk, NotTold};
use onelane_core::model::{
    Balance, Currency, Day, Metered, Quota, QuotaKind, QuotaSpan, QuotaWindow, Secret, model_name,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Map, Value};

use super::fault::words;
use super::route::Route;
use crate::bounded;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long a connection is kept that nobody uses: most questions come one by one.
const IDLE: Duration = Duration::from_secs(5);
/// Windows and models that are read of an answer.
const ROWS_MAX: usize = 256;
/// Characters of what GLM says.
const WORDS_CHARS_MAX: usize = 200;

const QUOTA: &str = "/api/monitor/usage/quota/limit";
const BALANCE: &str = "/api/paas/v4/balance";
/// The same by the mainland's site and by the international one, which may know the other's, too.
const MODEL_USAGE: &str = "/api/monitor/usage/model-usage";
const CREDIT_USAGE: &str = "/api/monitor/usage/credit-usage/usage-detail";

/// In what the window is counted that a code says is used up.
pub(crate) fn span_of(code: &str) -> Option<QuotaSpan> {
    match code {
        "1304" => Some(QuotaSpan::Days),
        "1308" | "1316" | "1318" | "1320" => Some(QuotaSpan::Hours),
        "1310" | "1317" | "1319" | "1321" => Some(QuotaSpan::Weeks),
        _ => None,
    }
}

/// Asks.
#[derive(Debug)]
pub(super) struct AccountDesk {
    route: Route,
    /// Built when somebody first asks.
    client: OnceLock<Result<Client, String>>,
}

impl AccountDesk {
    pub(super) const fn new(route: Route) -> Self {
        Self {
            route,
            client: OnceLock::new(),
        }
    }

    pub(super) async fn quota(&self, ask: &AccountAsk) -> Result<Quota, NotTold> {
        let data = self.get(ask, QUOTA, &[]).await?;
        quota(&data).ok_or_else(|| strange(QUOTA))
    }

    pub(super) async fn balance(&self, ask: &AccountAsk) -> Result<Balance, NotTold> {
        let data = self.get(ask, BALANCE, &[]).await?;
        balance(&data).ok_or_else(|| strange(BALANCE))
    }

    pub(super) async fn metered(
        &self,
        ask: &AccountAsk,
        day: Day,
    ) -> Result<Vec<Metered>, NotTold> {
        let [begin, end] = [format!("{day} 00:00:00"), format!("{day} 23:59:59")];
        let times = [("startTime", begin.as_str()), ("endTime", end.as_str())];
        let [first, second] = match is_international(&ask.endpoint.base_url) {
            true => [CREDIT_USAGE, MODEL_USAGE],
            false => [MODEL_USAGE, CREDIT_USAGE],
        };
        let (path, told) = match self.usage(ask, first, &times).await {
            Err(NotTold::NotOffered) => (second, self.usage(ask, second, &times).await),
            told => (first, told),
        };
        metered(&told?, day).ok_or_else(|| strange(path))
    }

    async fn usage(
        &self,
        ask: &AccountAsk,
        path: &str,
        times: &[(&str, &str); 2],
    ) -> Result<Map<String, Value>, NotTold> {
        let [begin, end] = *times;
        match path == CREDIT_USAGE {
            true => {
                let kind = ("usageType", "MODEL");
                self.get(ask, path, &[kind, begin, end]).await
            }
            false => self.get(ask, path, times).await,
        }
    }

    /// What an answer has under `data`, or the answer where it has none.
    async fn get(
        &self,
        ask: &AccountAsk,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Map<String, Value>, NotTold> {
        let Some(key) = &ask.endpoint.api_key else {
            return Err(failed("no API key is configured"));
        };
        let mut url = Url::parse(&ask.endpoint.base_url)
            .map_err(|_| failed("the base URL is no URL; set glm.base_url"))?;
        url.set_path(path);
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let client = self.client().map_err(NotTold::Failed)?;
        let exchange = async {
            let sent = client.get(url).bearer_auth(key.expose()).send().await;
            let answer = sent.map_err(|error| failed(&words(&error)))?;
            let status = answer.status();
            Ok((status, whole(answer).await?))
        };
        let within = Duration::from_millis(ask.timeout_ms);
        let (status, body) = tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(failed(&format!("no answer within {} ms", ask.timeout_ms))))?;
        data(status, &body, key)
    }

    fn client(&self) -> Result<&Client, String> {
        let built = self.client.get_or_init(|| {
            let client = Client::builder()
                .http1_only()
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .pool_idle_timeout(IDLE)
                .user_agent(concat!("onelane/", env!("CARGO_PKG_VERSION")));
            let client = self.route.on(client);
            let built = client.and_then(|client| Ok(client.build()?));
            built.map_err(|error| error.to_string())
        });
        built.as_ref().map_err(Clone::clone)
    }
}

fn failed(problem: &str) -> NotTold {
    NotTold::Failed(problem.to_owned())
}

fn strange(path: &str) -> NotTold {
    failed(&format!("what {path} answers is not understood"))
}

fn is_international(base_url: &str) -> bool {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str);
    host.is_some_and(|host| host == "z.ai" || host.ends_with(".z.ai"))
}

async fn whole(mut answer: Response) -> Result<Bytes, NotTold> {
    let mut body = Vec::new();
    loop {
        let piece = answer.chunk().await;
        match piece.map_err(|error| failed(&words(&error)))? {
            None => return Ok(body.into()),
            Some(piece) if body.len() + piece.len() > ANSWER_BYTES_MAX => {
                return Err(failed(&format!(
                    "the answer has more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            Some(piece) => body.extend_from_slice(&piece),
        }
    }
}

/// The platform refuses under a success, too: by a code that is neither 0 nor 200.
fn data(status: StatusCode, body: &[u8], key: &Secret) -> Result<Map<String, Value>, NotTold> {
    let text = String::from_utf8_lossy(body);
    let read = bounded::whole(&text);
    if status == StatusCode::NOT_FOUND {
        return Err(NotTold::NotOffered);
    }
    let Ok(Value::Object(mut answer)) = read else {
        let status = status.as_u16();
        return Err(failed(&format!("it answers {status} and no JSON object")));
    };
    let error = answer.get("error").and_then(Value::as_object);
    let stated = error.unwrap_or(&answer);
    let code = stated.get("code").and_then(figure);
    if status.is_success() && matches!(code, None | Some(0 | 200)) {
        return match answer.remove("data") {
            Some(Value::Object(data)) => Ok(data),
            _ => Ok(answer),
        };
    }
    // An account without a plan is told so by this code.
    if status.is_success() && code == Some(500) {
        return Err(NotTold::NotOffered);
    }
    let said = ["message", "msg"].iter().find_map(|name| stated.get(*name));
    let said = said.and_then(Value::as_str).unwrap_or("no reason given");
    let said = said.replace(key.expose(), "***");
    let said: String = said.chars().take(WORDS_CHARS_MAX).collect();
    let code = code.unwrap_or_else(|| u64::from(status.as_u16()));
    Err(failed(&format!("{code}: {said}")))
}

/// A number, a number as text, or the sum of a list of them.
fn figure(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64().filter(|number| *number >= 0.0)?;
            Some(number.round() as u64)
        }),
        Value::String(text) => match text.trim().parse::<u64>() {
            Ok(number) => Some(number),
            Err(_) => {
                let number = text.trim().parse::<f64>().ok();
                let number = number.filter(|number| number.is_finite() && *number >= 0.0)?;
                Some(number.round() as u64)
            }
        },
        Value::Array(parts) => {
            let mut parts = parts.iter().filter_map(figure).peekable();
            parts.peek()?;
            Some(parts.fold(0, u64::saturating_add))
        }
        _ => None,
    }
}

/// The first of these that is a figure; one figure is rather meant than one for each hour.
fn first(row: &Map<String, Value>, names: &[&str]) -> Option<u64> {
    let of = |is_list: bool| {
        let named = names.iter().filter_map(|name| row.get(*name));
        let mut named = named.filter(move |value| value.is_array() == is_list);
        named.find_map(figure)
    };
    of(false).or_else(|| of(true))
}

fn quota(data: &Map<String, Value>) -> Option<Quota> {
    let limits = data.get("limits")?.as_array()?;
    let rows = limits.iter().filter_map(Value::as_object).take(ROWS_MAX);
    let plan = ["planName", "level"]
        .iter()
        .find_map(|name| data.get(*name));
    Some(Quota {
        plan: plan
            .and_then(Value::as_str)
            .map(|plan| plan.chars().take(WORDS_CHARS_MAX).collect()),
        windows: rows.filter_map(window).collect(),
    })
}

fn window(row: &Map<String, Value>) -> Option<QuotaWindow> {
    let kind = match row.get("type")?.as_str()? {
        "TOKENS_LIMIT" => QuotaKind::Tokens,
        "CREDIT_LIMIT" => QuotaKind::Credits,
        "TIME_LIMIT" => QuotaKind::Tools,
        _ => return None,
    };
    let of = |name: &str| row.get(name).and_then(figure);
    let span = match of("unit") {
        Some(3) => Some(QuotaSpan::Hours),
        Some(4) => Some(QuotaSpan::Days),
        Some(5) => Some(QuotaSpan::Months),
        Some(6) => Some(QuotaSpan::Weeks),
        _ => None,
    };
    let (cap, remaining) = (of("usage"), of("remaining"));
    let left = cap
        .zip(remaining)
        .map(|(cap, left)| cap.saturating_sub(left));
    let used = of("currentValue").or(left);
    let share = |used: u64, cap: u64| {
        let share = u128::from(used) * u128::from(onelane_core::model::WHOLE_E4);
        u64::try_from(share.checked_div(cap.into())?).ok()
    };
    let counted = used.zip(cap).and_then(|(used, cap)| share(used, cap));
    let percentage = row.get("percentage").and_then(|value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    });
    let told = percentage.filter(|percent| (0.0..=1_000.0).contains(percent));
    let reset = of("nextResetTime").filter(|at| *at > 0);
    // Milliseconds; seconds would be of 1970.
    let reset = reset.map(|at| if at < 100_000_000_000 { at * 1_000 } else { at });
    let reset = reset.and_then(|at| i64::try_from(at).ok());
    Some(QuotaWindow {
        kind,
        span,
        length: of("number")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(1),
        used_e4: counted.or_else(|| told.map(|percent| (percent * 100.0).round() as u64)),
        used,
        cap,
        resets_at: reset.map(onelane_core::model::Timestamp::from_millis),
    })
}

fn balance(data: &Map<String, Value>) -> Option<Balance> {
    let names = ["available_balance", "availableBalance"];
    let amount = match names.iter().find_map(|name| data.get(*name))? {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let currency = match data.get("currency").and_then(Value::as_str) {
        None | Some("CNY" | "¥") => Currency::Cny,
        Some("USD" | "$") => Currency::Usd,
        Some(_) => return None,
    };
    Balance::parse(&amount, currency)
}

/// The models of a day: a list of them, or none where nothing was counted.
fn metered(data: &Map<String, Value>, day: Day) -> Option<Vec<Metered>> {
    let inner = |name: &str| data.get(name).and_then(Value::as_object);
    let lists = [
        inner("modelUsage").and_then(|usage| usage.get("modelDataList")),
        data.get("modelDataList"),
        data.get("modelSummaryList"),
        inner("totalUsage").and_then(|usage| usage.get("modelSummaryList")),
    ];
    let list = lists.into_iter().flatten().find_map(Value::as_array);
    let Some(list) = list else {
        let total = inner("totalUsage").or_else(|| inner("modelUsage"))?;
        let is_nothing = first(total, &["totalTokensUsage"]) == Some(0);
        return is_nothing.then(Vec::new);
    };
    let rows = list.iter().filter_map(Value::as_object).take(ROWS_MAX);
    rows.map(|row| of_model(row, day)).collect()
}

fn of_model(row: &Map<String, Value>, day: Day) -> Option<Metered> {
    let name = ["modelName", "modelCode"]
        .iter()
        .find_map(|name| row.get(*name));
    let parts = [
        "cachedInputTokensUsage",
        "uncachedInputTokensUsage",
        "outputTokensUsage",
    ];
    let parts = parts.map(|name| first(row, &[name]));
    let sum = parts.iter().any(Option::is_some).then(|| {
        let parts = parts.iter().flatten();
        parts.fold(0_u64, |sum, part| sum.saturating_add(*part))
    });
    let total = first(row, &["totalTokens", "totalTokensUsage", "tokensUsage"]);
    Some(Metered {
        day,
        model: model_name::canonical(name?.as_str()?).into_owned(),
        calls: first(row, &["totalModelCallCount", "modelCallCount", "callCount"]),
        tokens: total.or(sum)?,
    })
}

#[cfg(test)]
mod tests {
    use onelane_core::model::Timestamp;
    use serde_json::json;

    use super::*;

    fn read(status: u16, body: &Value) -> Result<Map<String, Value>, NotTold> {
        let status = StatusCode::from_u16(status).unwrap();
        data(
            status,
            body.to_string().as_bytes(),
            &Secret::new("id.secret"),
        )
    }

    fn day() -> Day {
        Day::parse("2026-11-28").unwrap()
    }

    #[test]
    fn quota_is_read_of_each_shape_and_whatever_is_missing() {
        let body = json!({"code": 200, "msg": "ok", "success": true, "data": {"level": "lite", "limits": [
            {"type": "TIME_LIMIT", "unit": 5, "number": 1, "usage": 100, "currentValue": 28, "remaining": 72,
             "percentage": 28, "nextResetTime": 1_772_615_765_983_u64},
            {"type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": 1.5, "nextResetTime": 1_771_073_738_808_u64},
            {"type": "CREDIT_LIMIT", "unit": 6, "usage": "10000", "remaining": "9950"},
            {"type": "TOKENS_LIMIT"},
            {"type": "NEWS"},
            7,
        ]}});
        let read = quota(&read(200, &body).unwrap()).unwrap();
        let told: Vec<_> = read
            .windows
            .iter()
            .map(|w| (w.to_string(), w.used_e4))
            .collect();
        let want = [
            ("1 mo tools", Some(2_800)),
            ("5 h tokens", Some(150)),
            ("1 w credits", Some(50)),
            ("tokens", None),
        ];
        assert_eq!(told, want.map(|(name, share)| (name.to_owned(), share)));
        assert_eq!(read.plan.as_deref(), Some("lite"));
        let reset = Timestamp::from_millis(1_771_073_738_808);
        assert_eq!(read.windows[1].resets_at, Some(reset));
        assert_eq!(quota(&Map::new()), None);
    }

    #[test]
    fn a_refusal_says_why_without_the_key_and_an_account_without_a_plan_has_none() {
        let none = json!({"code": 500, "msg": "当前用户不存在coding plan", "success": false});
        assert_eq!(read(200, &none), Err(NotTold::NotOffered));
        assert_eq!(
            read(404, &json!({"path": "/v4/balance"})),
            Err(NotTold::NotOffered)
        );
        let refused = json!({"error": {"code": "1000", "message": "bad key id.secret"}});
        let told = read(401, &refused).unwrap_err().to_string();
        assert_eq!(told, "1000: bad key ***");
        let told = read(200, &json!({"code": 1001, "msg": "no header"})).unwrap_err();
        assert_eq!(told.to_string(), "1001: no header");
    }

    #[test]
    fn tokens_by_model_are_read_of_either_site() {
        let of = |body: Value| metered(&read(200, &body).unwrap(), day()).unwrap();
        let mainland = of(json!({"code": 200, "data": {
            "x_time": ["2026-11-28 00:00", "2026-11-28 01:00"],
            "totalUsage": {"totalModelCallCount": 7, "totalTokensUsage": 900},
            "modelDataList": [{"modelName": "GLM-4.7", "tokensUsage": [300, 600], "totalTokens": 900}],
        }}));
        let counted = Metered {
            day: day(),
            model: "glm-4.7".to_owned(),
            calls: None,
            tokens: 900,
        };
        assert_eq!(mainland, std::slice::from_ref(&counted));
        let international = of(json!({"code": 0, "data": {"modelUsage": {"modelDataList": [
            {"modelCode": "glm-4.7", "cachedInputTokensUsage": [100], "uncachedInputTokensUsage": 300,
             "outputTokensUsage": "500", "modelCallCount": [1, 2]},
        ]}}}));
        assert_eq!(
            international,
            [Metered {
                calls: Some(3),
                ..counted
            }]
        );
        let nothing = of(json!({"code": 200, "data": {"totalUsage": {"totalTokensUsage": 0}}}));
        assert_eq!(nothing, []);
        assert_eq!(metered(&Map::new(), day()), None);
    }

    #[test]
    fn a_balance_is_read_as_it_is_written() {
        let of = |body: Value| balance(&read(200, &body).unwrap());
        let told = of(
            json!({"data": {"total_balance": 88, "available_balance": 66.6, "currency": "CNY"}}),
        );
        assert_eq!(told, Balance::parse("66.6", Currency::Cny));
        let told = of(json!({"data": {"available_balance": "-1.5", "currency": "USD"}}));
        assert_eq!(told, Balance::parse("-1.5", Currency::Usd));
        assert_eq!(of(json!({"data": {"currency": "USD"}})), None);
    }
}
