//! The models, as OpenAI's, GLM's and Anthropic's SDKs list them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onelane_core::model::{Day, Hold, HoldKind, HoldScope, Unpriced, model_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use warp::http::{HeaderMap, StatusCode};

use super::Api;
use super::answer::{Answer, Reply, Shapes};
use super::envelope::AnthropicErrorBody;
use super::input::{Ignored, Input, Nothing};
use super::principal::Principal;
use super::problem::{Dialect, GlmErrorBody, Kind, Problem};

/// A model, as OpenAI lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
struct ModelCard {
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Seconds since 1970; not known.
    created: i64,
    owned_by: &'static str,
}

impl ModelCard {
    fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            object: "model",
            created: 0,
            owned_by: "zhipuai",
        }
    }
}

/// The models, as OpenAI lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Models")]
struct ModelList {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelCard>,
}

/// A model, as Anthropic lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicModel")]
struct AnthropicCard {
    /// Always `model`.
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    display_name: String,
    /// The beginning of 1970: not known.
    created_at: &'static str,
}

impl AnthropicCard {
    fn of(id: &str) -> Self {
        Self {
            kind: "model",
            id: id.to_owned(),
            display_name: id.to_owned(),
            created_at: "1970-01-01T00:00:00Z",
        }
    }
}

/// A page of the models, as Anthropic lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicModels")]
struct AnthropicList {
    data: Vec<AnthropicCard>,
    /// Whether there are others beyond the page.
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

/// Whether a client is Anthropic's, by the headers that its SDKs send.
fn is_anthropic(headers: &HeaderMap) -> bool {
    ["anthropic-version", "x-api-key"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// The models that GLM does not serve this account with, until an operator changes that.
async fn refused(api: &Api) -> BTreeMap<String, Hold> {
    // A lane that has stopped knows of none.
    let holds = api.lane.lane().await.map(|lane| lane.holds);
    let holds = holds.unwrap_or_default().into_iter();
    let of_model = holds.filter_map(|held| match held.scope {
        HoldScope::Model(name) if held.hold.kind == HoldKind::Operator => Some((name, held.hold)),
        _ => None,
    });
    of_model.collect()
}

/// For so many days a model is known that was asked for and answered.
const ANSWERED_DAYS: i32 = 7;

/// Those that have a price, the one that is taken for a chat that names none, and those that answered lately, where jobs
/// for models without a price are taken; for a client key those that it may ask for.
async fn known(api: &Api, principal: &Principal) -> Result<BTreeSet<String>, Problem> {
    let settings = api.lane.settings();
    let priced = settings.prices.models().map(str::to_owned);
    let usual = model_name::canonical(&settings.glm.model).into_owned();
    let today = settings.calendar.day(api.clock.now());
    let since = Day(today.0.saturating_sub(ANSWERED_DAYS - 1));
    let mut answering = api.lane.answering_models(since).await?;
    answering
        .retain(|model| settings.unpriced != Unpriced::Refuse || settings.prices.is_priced(model));
    let is_open = |model: &String| {
        let key = principal.key();
        key.is_none_or(|key| key.rights.has_model(&model_name::canonical(model)))
    };
    let all = priced.chain([usual]).chain(answering);
    Ok(all.filter(is_open).collect())
}

/// Which of the models a client of Anthropic's kind asks for.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ModelsQuery {
    /// How many at most; all without it.
    #[schemars(range(min = 1, max = 1_000))]
    limit: Option<usize>,
    /// Those behind this one.
    after_id: Option<String>,
    /// Those before this one, the nearest.
    before_id: Option<String>,
}

fn page(models: Vec<String>, query: &ModelsQuery) -> AnthropicList {
    let behind = query.after_id.as_deref().map(model_name::canonical);
    let before = query.before_id.as_deref().map(model_name::canonical);
    let is_within = |id: &String| {
        behind.as_deref().is_none_or(|after| id.as_str() > after)
            && before.as_deref().is_none_or(|before| id.as_str() < before)
    };
    let mut all: Vec<String> = models.into_iter().filter(is_within).collect();
    let over = all.len().saturating_sub(query.limit.unwrap_or(usize::MAX));
    match before.is_some() && behind.is_none() {
        true => drop(all.drain(..over)),
        false => all.truncate(all.len() - over),
    }
    AnthropicList {
        first_id: all.first().cloned(),
        last_id: all.last().cloned(),
        data: all.iter().map(|id| AnthropicCard::of(id)).collect(),
        has_more: over > 0,
    }
}

/// Models in the form of the client's SDK.
pub(super) struct Models(Reply);

impl Answer for Models {
    fn reply(self) -> Reply {
        self.0
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<ModelList>("200", "As OpenAI lists them.");
        shapes.json::<AnthropicList>(
            "200",
            "As Anthropic lists them, for a client that sends `anthropic-version` or `x-api-key`.",
        );
    }
}

/// `GET .../models`.
pub(super) async fn list_models(
    api: Arc<Api>,
    input: Input<Nothing, ModelsQuery>,
) -> Result<Models, Problem> {
    let refused = refused(&api).await;
    let models = known(&api, &input.principal).await?.into_iter();
    let models: Vec<String> = models.filter(|id| !refused.contains_key(id)).collect();
    Ok(Models(match is_anthropic(&input.headers) {
        true => Reply::json(StatusCode::OK, &page(models, &input.query)),
        false => {
            let data = models.iter().map(|id| ModelCard::of(id)).collect();
            Reply::json(
                StatusCode::OK,
                &ModelList {
                    object: "list",
                    data,
                },
            )
        }
    }))
}

/// One model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelPath {
    /// Its name.
    model: String,
}

/// A model in the form of the client's SDK.
pub(super) struct OneModel(Reply);

impl Answer for OneModel {
    fn reply(self) -> Reply {
        self.0
    }

    fn describe(shapes: &mut Shapes<'_>) {
        shapes.json::<ModelCard>("200", "As OpenAI shows it.");
        let about =
            "As Anthropic shows it, for a client that sends `anthropic-version` or `x-api-key`.";
        shapes.json::<AnthropicCard>("200", about);
        shapes.json::<GlmErrorBody>("404", "There is no such model.");
        shapes.json::<AnthropicErrorBody>("404", "The same for such a client.");
    }
}

/// `GET .../models/{model}`.
pub(super) async fn read_model(
    api: Arc<Api>,
    input: Input<ModelPath, Ignored>,
) -> Result<OneModel, Problem> {
    let is_anthropic = is_anthropic(&input.headers);
    let name = input.path.model;
    let known = known(&api, &input.principal).await?;
    let id = known.get(&*model_name::canonical(&name));
    let refused = refused(&api).await;
    let problem = match id.map(|id| (id, refused.get(id))) {
        Some((id, None)) => {
            return Ok(OneModel(match is_anthropic {
                true => Reply::json(StatusCode::OK, &AnthropicCard::of(id)),
                false => Reply::json(StatusCode::OK, &ModelCard::of(id)),
            }));
        }
        Some((id, Some(hold))) => format!(
            "GLM does not serve this account with {id} ({}: {}); once it does, end the hold on the model",
            hold.code, hold.message
        ),
        None => format!("{name:?} is none of the models that have a price or answered lately here"),
    };
    let problem = Problem::new(Kind::UnknownModel, problem);
    match is_anthropic {
        true => Ok(OneModel(problem.reply(Dialect::Anthropic, &input.id))),
        false => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_paged_as_anthropic_pages_them() {
        let check = |limit, after: Option<&str>, before: Option<&str>, want: &[&str], more| {
            let models = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
            let query = ModelsQuery {
                limit,
                after_id: after.map(str::to_owned),
                before_id: before.map(str::to_owned),
            };
            let page = page(models, &query);
            let ids: Vec<&str> = page.data.iter().map(|card| card.id.as_str()).collect();
            assert_eq!((ids.as_slice(), page.has_more), (want, more));
            assert_eq!(page.first_id.as_deref(), want.first().copied());
            assert_eq!(page.last_id.as_deref(), want.last().copied());
        };
        check(None, None, None, &["a", "b", "c", "d"], false);
        check(Some(2), None, None, &["a", "b"], true);
        check(Some(2), Some("B"), None, &["c", "d"], false);
        check(Some(2), None, Some("d"), &["b", "c"], true);
        check(Some(9), Some("d"), None, &[], false);
    }
}
