//! The attempts that GLM may have billed although no answer is stored, and an operator's word on each.

use std::sync::Arc;

use onelane_actors::ports::CallFilter;
use onelane_core::model::{AttemptNo, Billing, Cost, Currency, JobId, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::answer::Json;
use super::bulk::{Changed, Many, Meant};
use super::input::{Given, Input, Nothing};
use super::pages::{NextCursor, Page};
use super::problem::{Kind, Problem};
use super::{Api, limits};
use crate::views::CallView;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct DoubtsQuery {
    /// Of this user.
    user_id: Option<String>,
    /// For this model.
    model: Option<String>,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DoubtsAnswer {
    /// As the call log has them, without what was asked.
    maybe_billed: Vec<CallView>,
    next_cursor: NextCursor,
}

/// `GET maybe-billed`: newest first.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<Nothing, DoubtsQuery>,
) -> Result<Json<DoubtsAnswer>, Problem> {
    let DoubtsQuery {
        user_id,
        model,
        page,
    } = input.query;
    let filter = CallFilter {
        user_id,
        model,
        billing_open: true,
        ..CallFilter::default()
    };
    let found = api.lane.calls(filter, page.cursor(), page.limit()).await?;
    let calls = found.calls.into_iter();
    Ok(Json(DoubtsAnswer {
        maybe_billed: calls.map(|call| CallView::new(call, None)).collect(),
        next_cursor: found.cursor.into(),
    }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct SettledAnswer {
    billing: Billing,
}

/// What became of many.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct FoundOfMany {
    /// Whether GLM billed them: then each is booked at what budgets keep reserved for it.
    billed: bool,
}

/// `POST maybe-billed/settle`.
pub(super) async fn settle_all(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Given<Many<CallFilter, FoundOfMany>>>,
) -> Result<Json<Changed>, Problem> {
    let Given(many) = input.body;
    let Meant {
        filter,
        dry_run,
        what: FoundOfMany { billed },
    } = many.meant("every attempt in doubt")?;
    let settled = api
        .lane
        .settle_all_billing(filter, billed, dry_run, api.clock.now());
    let count = settled.await?;
    Ok(Json(Changed { count, dry_run }))
}

/// One attempt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AttemptPath {
    /// The job.
    job_id: JobId,
    /// Its attempt, numbered from 1.
    #[schemars(range(min = 1))]
    attempt: u32,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ReceivedAnswer {
    /// Its beginning.
    received: String,
}

/// `GET maybe-billed/{jobId}/{attempt}/received`.
pub(super) async fn received(
    api: Arc<Api>,
    input: Input<AttemptPath, Nothing>,
) -> Result<Json<ReceivedAnswer>, Problem> {
    let AttemptPath { job_id, attempt } = input.path;
    let mut attempts = api.lane.job(job_id).await?.attempts.into_iter();
    let call = attempts.find(|call| call.attempt == AttemptNo(attempt));
    let Some(received) = call.and_then(|call| call.received) else {
        let detail = format!("nothing that came is kept of attempt {attempt} of job {job_id}");
        return Err(Problem::new(Kind::UnknownAttempt, detail));
    };
    Ok(Json(ReceivedAnswer {
        received: received.to_string(),
    }))
}

/// What an operator found out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Found {
    /// Whether GLM billed the attempt.
    billed: bool,
    /// The tokens billed.
    usage: Option<BilledTokens>,
    /// What it cost; worked out of the tokens without it.
    cost: Option<Amount>,
    /// What the cost is counted in; as the price list in force without it.
    currency: Option<Currency>,
}

impl Found {
    /// What no schema says.
    fn checked(self) -> Result<Self, Problem> {
        if self.currency.is_some() && self.cost.is_none() {
            let problem = "is the cost's; give both or neither";
            return Err(Problem::of_field(Kind::InvalidField, "currency", problem));
        }
        Ok(self)
    }
}

/// Tokens; 0 where one is left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BilledTokens {
    #[schemars(range(min = 0, max = limits::TOKENS_MAX))]
    prompt_tokens: Option<u64>,
    #[schemars(range(min = 0, max = limits::TOKENS_MAX))]
    completion_tokens: Option<u64>,
    #[schemars(range(min = 0, max = limits::TOKENS_MAX))]
    cached_tokens: Option<u64>,
}

impl From<BilledTokens> for Usage {
    fn from(tokens: BilledTokens) -> Self {
        let prompt_tokens = tokens.prompt_tokens.unwrap_or(0);
        let completion_tokens = tokens.completion_tokens.unwrap_or(0);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            cached_tokens: tokens.cached_tokens.unwrap_or(0),
            ..Self::default()
        }
    }
}

/// `POST maybe-billed/{jobId}/{attempt}`: answers what was booked.
pub(super) async fn settle(
    api: Arc<Api>,
    input: Input<AttemptPath, Nothing, Given<Found>>,
) -> Result<Json<SettledAnswer>, Problem> {
    let AttemptPath { job_id, attempt } = input.path;
    let found = input.body.0.checked()?;
    let prices = || api.lane.settings().prices.currency();
    let currency = found.currency.unwrap_or_else(prices);
    let billing = Billing {
        billed: found.billed,
        usage: found.usage.unwrap_or_default().into(),
        cost: found.cost.map(|Amount(nanos)| Cost { nanos, currency }),
        price: None,
        at: api.clock.now(),
    };
    let settled = api.lane.settle_billing(job_id, AttemptNo(attempt), billing);
    let billing = settled.await?;
    Ok(Json(SettledAnswer { billing }))
}

#[cfg(test)]
mod tests {
    use super::super::input::Payload as _;
    use super::*;

    fn parse(json: &str) -> Result<Found, Problem> {
        let reader = <Given<Found> as super::super::input::Payload>::reader();
        let body = serde_json::from_str(json).unwrap();
        let Given(found) = Given::<Found>::read(&reader, Some(body))?;
        found.checked()
    }

    #[test]
    fn what_was_found_out_is_read_field_by_field() {
        let json = r#"{"billed":true,"usage":{"promptTokens":600,"completionTokens":400,
            "cachedTokens":100},"cost":"0.01","currency":"USD"}"#;
        let found = parse(json).unwrap();
        let usage = Usage::from(found.usage.unwrap());
        assert_eq!((usage.total_tokens, usage.cached_tokens), (1_000, 100));
        assert_eq!(found.cost, Some(Amount(10_000_000)));
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
            "usage.tokens: is unknown; did you mean cachedTokens?",
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
