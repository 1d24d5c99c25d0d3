//! Client keys, as an operator makes, looks at and takes them back.

use std::sync::Arc;

use onelane_core::model::limits as bounds;
use onelane_core::model::{
    Amount, ClientKey, Cost, Currency, Face, KeyBudget, KeyForm, KeyId, KeyRights, KeyRole,
    OnDisconnect, OverBudget, Period, Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use warp::http::StatusCode;

use super::answer::{Answer, Json, Reply, Shapes};
use super::input::{Given, Input, Nothing, Optional};
use super::problem::{Kind, Problem};
use super::{Api, amount};
use crate::orchestrator::{MadeKey, NewKey};

/// A key without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClientKey")]
pub(super) struct KnownKey {
    #[serde(flatten)]
    key: ClientKey,
    /// `live`, `expired` or `revoked`.
    state: &'static str,
}

impl KnownKey {
    fn of(key: ClientKey, now: Timestamp) -> Self {
        let state = key.state(now).name();
        Self { key, state }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct KeysAnswer {
    keys: Vec<KnownKey>,
}

/// `GET keys`: all of them, the newest first.
pub(super) async fn list(api: Arc<Api>, _: Input) -> Result<Json<KeysAnswer>, Problem> {
    let now = api.clock.now();
    let known = api.lane.client_keys();
    let mut keys: Vec<_> = known.iter().map(|key| key.as_ref().clone()).collect();
    keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
    let keys = keys.into_iter().map(|key| KnownKey::of(key, now)).collect();
    Ok(Json(KeysAnswer { keys }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyPath {
    /// The key's id, with which the key itself begins.
    id: KeyId,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct KeyAnswer {
    key: KnownKey,
}

/// `GET keys/{id}`.
pub(super) async fn read(api: Arc<Api>, input: Input<KeyPath>) -> Result<Json<KeyAnswer>, Problem> {
    let key = api.lane.client_key(input.path.id)?;
    let key = KnownKey::of(key.as_ref().clone(), api.clock.now());
    Ok(Json(KeyAnswer { key }))
}

/// What the calls of a key may come to: an amount of money or tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BudgetBody {
    /// The limit in money, with its currency.
    cost: Option<amount::Amount>,
    /// What the cost is counted in.
    currency: Option<Currency>,
    /// The limit in tokens, instead.
    #[schemars(range(min = 1, max = i64::MAX))]
    tokens: Option<u64>,
    /// For how long.
    period: Period,
    /// What happens beyond it; jobs wait without it.
    over: Option<OverBudget>,
}

impl BudgetBody {
    fn read(self) -> Result<KeyBudget, Problem> {
        let limit = match (self.cost, self.currency, self.tokens) {
            (Some(amount::Amount(nanos)), Some(currency), None) => {
                Amount::Money(Cost { nanos, currency })
            }
            (None, None, Some(tokens)) => Amount::Tokens(tokens),
            _ => {
                let problem = "must have either cost and currency, or tokens";
                return Err(Problem::of_field(Kind::InvalidField, "budget", problem));
            }
        };
        Ok(KeyBudget {
            limit,
            period: self.period,
            over: self.over.unwrap_or_default(),
        })
    }
}

/// A key that an operator wants.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewKeyBody {
    /// What it is called.
    #[schemars(length(min = 1, max = bounds::KEY_NAME_CHARS_MAX))]
    name: String,
    /// What it is for; `client` without it.
    role: Option<KeyRole>,
    /// GLM's older SDKs shall sign with it: its secret stays readable in the store.
    jwt: Option<bool>,
    /// Whose jobs its jobs are; without it each says so itself.
    #[schemars(length(min = 1, max = bounds::USER_ID_CHARS_MAX))]
    user_id: Option<String>,
    /// The priority of jobs that name none; 0 without it.
    default_priority: Option<i32>,
    /// The highest priority that a job may name; any without it.
    max_priority: Option<i32>,
    /// The models that it may ask for; all without it.
    #[schemars(length(min = 1, max = bounds::KEY_MODELS_MAX))]
    models: Option<Vec<String>>,
    /// The faces that it may use; all without it.
    #[schemars(length(min = 1, max = Face::ALL.len()))]
    faces: Option<Vec<Face>>,
    /// Whether its jobs may say of which session they are; they may without it.
    names_sessions: Option<bool>,
    /// Calls that may be open at once.
    #[schemars(range(min = 1, max = bounds::CONCURRENCY_MAX))]
    calls_in_flight: Option<u16>,
    /// Jobs that it may hand in within any minute.
    #[schemars(range(min = 1, max = bounds::KEY_REQUESTS_PER_MINUTE_MAX))]
    requests_per_minute: Option<u32>,
    /// Its weight among the client keys, which take turns; 1 without it.
    #[schemars(range(min = 1, max = bounds::KEY_SHARE_MAX))]
    share: Option<u32>,
    /// What its calls may come to.
    budget: Option<BudgetBody>,
    /// When it ends; never by itself without it.
    expires_at: Option<Timestamp>,
    /// What becomes of a call whose client is gone: `abort`, `keep` or `drain:SECONDS`; without it as `gateway.on_disconnect` says.
    on_disconnect: Option<OnDisconnect>,
}

impl NewKeyBody {
    fn read(self) -> Result<NewKey, Problem> {
        let form = match self.jwt {
            Some(true) => KeyForm::Jwt,
            Some(false) | None => KeyForm::Plain,
        };
        let every = KeyRights::default();
        Ok(NewKey {
            name: self.name,
            role: self.role.unwrap_or_default(),
            form,
            rights: KeyRights {
                user_id: self.user_id,
                default_priority: self.default_priority.unwrap_or(every.default_priority),
                max_priority: self.max_priority,
                models: self.models.unwrap_or_default(),
                faces: self.faces.unwrap_or_default(),
                names_sessions: self.names_sessions.unwrap_or(every.names_sessions),
                calls_in_flight: self.calls_in_flight,
                requests_per_minute: self.requests_per_minute,
                share: self.share.unwrap_or(every.share),
                budget: self.budget.map(BudgetBody::read).transpose()?,
                on_disconnect: self.on_disconnect,
            },
            expires_at: self.expires_at,
        })
    }
}

/// A key that was just made, with its secret.
pub(super) struct Made(MadeKey);

impl Answer for Made {
    fn reply(self) -> Reply {
        Reply::json(StatusCode::CREATED, &self.0)
    }

    fn describe(shapes: &mut Shapes<'_>) {
        let about = "The key, whole in `key`: it is told this once. Its beginning is its id.";
        shapes.json::<MadeKey>("201", about);
    }
}

/// `POST keys`.
pub(super) async fn create(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, Given<NewKeyBody>>,
) -> Result<Made, Problem> {
    let new = input.body.0.read()?;
    Ok(Made(api.lane.create_key(new).await?))
}

/// `POST keys/{id}/revoke`.
pub(super) async fn revoke(
    api: Arc<Api>,
    input: Input<KeyPath>,
) -> Result<Json<KeyAnswer>, Problem> {
    let key = api.lane.revoke_key(input.path.id).await?;
    let key = KnownKey::of(key, api.clock.now());
    Ok(Json(KeyAnswer { key }))
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rotation {
    /// For how many milliseconds the old key opens, too; not at all without it.
    #[schemars(range(min = 0, max = bounds::KEY_OVERLAP_MS_MAX))]
    overlap_ms: Option<u64>,
}

/// `POST keys/{id}/rotate`.
pub(super) async fn rotate(
    api: Arc<Api>,
    input: Input<KeyPath, Nothing, Optional<Rotation>>,
) -> Result<Made, Problem> {
    let overlap_ms = input.body.0.overlap_ms.unwrap_or(0);
    Ok(Made(api.lane.rotate_key(input.path.id, overlap_ms).await?))
}
