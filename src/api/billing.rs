//! `/api/admin/glm/maybe-billed`: the attempts that GLM may have billed although no answer is stored, and
//! an operator's word on each.

use onelane_actors::ports::CallFilter;
use onelane_core::model::{AttemptNo, Billing, Cost, Currency, JobId, Nanos, Usage};
use serde::Serialize;
use serde_json::value::RawValue;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::{Fields, Object};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::views::{BillingView, MaybeBilledView};
use super::{Api, limits, reply};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    maybe_billed: Vec<MaybeBilledView<'a>>,
    next_cursor: Option<String>,
}

/// `GET maybe-billed`: newest first.
pub(super) async fn list(api: &Api, query: &str) -> Result<Response, Problem> {
    let query = Query::parse(query, &["limit", "cursor", "userId", "model"])?;
    let filter = CallFilter {
        user_id: query.text("userId").map(str::to_owned),
        model: query.text("model").map(str::to_owned),
        billing_open: true,
        ..CallFilter::default()
    };
    let page = api
        .lane
        .calls(filter, query.cursor()?, query.limit()?)
        .await?;
    let body = Page {
        maybe_billed: page.calls.iter().map(MaybeBilledView::new).collect(),
        next_cursor: page.cursor.map(|cursor| cursor.to_string()),
    };
    Ok(reply::json(StatusCode::OK, &body))
}

#[derive(Serialize)]
struct Settled<'a> {
    billing: BillingView<'a>,
}

/// `POST maybe-billed/{jobId}/{attempt}`: answers what was booked.
pub(super) async fn settle(
    api: &Api,
    job_id: JobId,
    attempt: AttemptNo,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let raw = body.json(headers).await?;
    let found = read(&raw)?;
    let currency = found
        .currency
        .unwrap_or_else(|| api.lane.settings().prices.currency());
    let billing = Billing {
        billed: found.billed,
        usage: found.usage,
        cost: found.cost.map(|nanos| Cost { nanos, currency }),
        price: None,
        at: api.clock.now(),
    };
    let booked = api.lane.settle_billing(job_id, attempt, billing).await?;
    let billing = BillingView::new(&booked);
    Ok(reply::json(StatusCode::OK, &Settled { billing }))
}

/// What an operator found out.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    billed: bool,
    usage: Usage,
    cost: Option<Nanos>,
    currency: Option<Currency>,
}

fn read(raw: &RawValue) -> Result<Found, Problem> {
    let object = Object::read(raw)
        .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
    let mut fields = Fields::new(String::new(), object);
    let billed = fields.boolean("billed");
    if billed.is_none() && !fields.has("billed") {
        fields.fault("billed", "is missing; say true or false");
    }
    let usage = fields.object("usage");
    let usage = usage.map(|usage| read_usage(&mut fields, usage));
    let cost = fields.raw("cost");
    let cost = cost.and_then(|raw| match nanos(&raw) {
        Ok(nanos) => Some(nanos),
        Err(problem) => {
            fields.fault("cost", problem);
            None
        }
    });
    let currency = fields.choice(
        "currency",
        &[
            ("CNY", Currency::Cny),
            ("USD", Currency::Usd),
            ("POINTS", Currency::Points),
        ],
    );
    if currency.is_some() && !fields.has("cost") {
        fields.fault("currency", "is the cost's; give both or neither");
    }
    fields
        .finish()
        .map_err(|faults| Problem::faults(Kind::InvalidField, faults))?;
    Ok(Found {
        billed: billed.unwrap_or_default(),
        usage: usage.unwrap_or_default(),
        cost,
        currency,
    })
}

fn read_usage(fields: &mut Fields, object: Object) -> Usage {
    let mut inner = Fields::new("usage.".to_owned(), object);
    let mut tokens = |name| inner.integer(name, 0..=limits::TOKENS_MAX).unwrap_or(0);
    let prompt_tokens = tokens("promptTokens");
    let completion_tokens = tokens("completionTokens");
    let cached_tokens = tokens("cachedTokens");
    if let Err(faults) = inner.finish() {
        fields.extend(faults);
    }
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        cached_tokens,
        reasoning_tokens: 0,
    }
}

/// An amount as a JSON number or as decimal text, to the last nano-unit: it never is a float.
fn nanos(raw: &RawValue) -> Result<Nanos, String> {
    let text: String;
    let literal = if raw.get().starts_with('"') {
        text = serde_json::from_str(raw.get()).unwrap_or_default();
        text.as_str()
    } else {
        raw.get()
    };
    parse_nanos(literal).ok_or_else(|| {
        "must be an amount of at most nine decimals, not negative, such as 0.0125".to_owned()
    })
}

/// `12`, `0.0125` or, as some programs write small numbers, `1.25e-2`.
fn parse_nanos(text: &str) -> Option<Nanos> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = [whole, part].concat();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(part) {
        return None;
    }
    let number: i128 = digits.parse().ok()?;
    if number == 0 {
        return Some(0);
    }
    // The power of ten that is still missing.
    let shift = exponent
        .checked_add(9)?
        .checked_sub(i32::try_from(part.len()).ok()?)?;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let nanos = if shift >= 0 {
        number.checked_mul(power)?
    } else {
        (number % power == 0).then_some(number / power)?
    };
    Nanos::try_from(nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Found, Problem> {
        read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_amount_is_exact_to_the_last_nano_unit() {
        let check = |json: &str, want: Option<Nanos>| {
            let read = nanos(serde_json::from_str(json).unwrap()).ok();
            assert_eq!(read, want, "{json}");
        };
        check("0", Some(0));
        check("0.000", Some(0));
        check("12", Some(12_000_000_000));
        check("0.0125", Some(12_500_000));
        check("\"0.000000001\"", Some(1));
        check("0.1", Some(100_000_000));
        check("9007199.254740993", Some(9_007_199_254_740_993));
        check("9223372036.854775807", Some(i64::MAX));
        check("9223372036.854775808", None);
        check("1e-9", Some(1));
        check("1.25E-2", Some(12_500_000));
        check("1e+3", Some(1_000_000_000_000));
        check("0.1000000000", Some(100_000_000));
        check("0.0000000001", None);
        check("1e-10", None);
        check("1e99", None);
        check("-1", None);
        check("\"\"", None);
        check("\".5\"", None);
        check("\"5.\"", None);
        check("\"1,5\"", None);
        check("\"+1\"", None);
        check("true", None);
        check("[1]", None);
    }

    #[test]
    fn what_was_found_out_is_read_field_by_field() {
        let json = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400,
            "cachedTokens":100},"cost":"0.01","currency":"USD"}"#;
        let found = parse(json).unwrap();
        assert_eq!(found.usage.total_tokens, 1_000);
        assert_eq!(found.usage.cached_tokens, 100);
        assert_eq!(found.cost, Some(10_000_000));
        assert_eq!(found.currency, Some(Currency::Usd));
        let nothing = parse(r#"{"billed":false}"#).unwrap();
        assert_eq!((nothing.billed, nothing.cost), (false, None));
    }

    #[test]
    fn a_bad_word_is_told_what_and_where() {
        let check = |json: &str, want: &str| {
            let problem = parse(json).unwrap_err();
            let body = serde_json::to_value(problem.body()).unwrap();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.starts_with(want), "{json}: {detail}");
        };
        check("{}", "billed: is missing");
        check(r#"{"billed":"yes"}"#, "billed: must be true or false");
        check(
            r#"{"billed":true,"usage":{"promptTokens":-1}}"#,
            "usage.promptTokens: must be a whole number from 0",
        );
        check(
            r#"{"billed":true,"usage":{"tokens":1}}"#,
            "usage.tokens: is unknown; the fields are promptTokens",
        );
        check(
            r#"{"billed":true,"cost":-0.5}"#,
            "cost: must be an amount of at most nine decimals",
        );
        check(
            r#"{"billed":true,"currency":"CNY"}"#,
            "currency: is the cost's",
        );
        check(
            r#"{"billed":true,"cost":1,"currency":"EUR"}"#,
            "currency: must be one of CNY, USD, POINTS",
        );
    }
}
