//! What the provider itself counts of the account, and our books beside it.

use std::sync::Arc;

use onelane_core::model::Day;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Json;
use super::input::{Input, Nothing};
use super::problem::{Kind, Problem};
use crate::orchestrator::{AccountStatus, Reconciled};

/// Days of one reconciliation: each is a question to the provider.
const DAYS_MAX: i32 = 31;

#[derive(Serialize, JsonSchema)]
pub(super) struct AccountAnswer {
    account: AccountStatus,
}

/// `GET account`.
pub(super) async fn read(api: Arc<Api>, _: Input) -> Result<Json<AccountAnswer>, Problem> {
    let account = api.lane.account();
    Ok(Json(AccountAnswer { account }))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReconciliationQuery {
    /// The first day of the provider's, inclusive; without it the week up to the last one.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    start_date: Option<String>,
    /// The last day, inclusive; without it the latest that is over there.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    end_date: Option<String>,
}

/// `GET account/reconciliation`.
pub(super) async fn reconcile(
    api: Arc<Api>,
    input: Input<Nothing, ReconciliationQuery>,
) -> Result<Json<Reconciled>, Problem> {
    reconciled(&api, &input.query).await.map(Json)
}

pub(super) async fn reconciled(
    api: &Api,
    query: &ReconciliationQuery,
) -> Result<Reconciled, Problem> {
    let day = |text: &Option<String>| text.as_deref().and_then(Day::parse);
    let (start, end) = (day(&query.start_date), day(&query.end_date));
    let days = api.lane.days_to_reconcile(start, end);
    let [start, end] = days;
    let wrong = |problem| Err(Problem::of_field(Kind::InvalidQuery, "startDate", problem));
    if start > end {
        return wrong(format!("{start} is after the last day, {end}"));
    }
    if end.0.saturating_sub(start.0) >= DAYS_MAX {
        return wrong(format!("{start} to {end} are more than {DAYS_MAX} days"));
    }
    Ok(api.lane.reconcile(days).await?)
}
