//! The models, as OpenAI's and GLM's SDKs list them.

use std::collections::BTreeSet;
use std::sync::Arc;

use onelane_core::model::model_name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Json;
use super::input::{Ignored, Input, Nothing};
use super::principal::Principal;
use super::problem::{Kind, Problem};

/// A model, as OpenAI lists them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct ModelCard {
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
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelCard>,
}

/// Those that have a price, and the one that is taken for a chat that names none; for a client key those that it may
/// ask for.
fn models(api: &Api, principal: &Principal) -> BTreeSet<String> {
    let settings = api.lane.settings();
    let priced = settings.prices.models().map(str::to_owned);
    let usual = model_name::canonical(&settings.glm.model).into_owned();
    let is_open = |model: &String| {
        let key = principal.key();
        key.is_none_or(|key| key.rights.has_model(&model_name::canonical(model)))
    };
    priced.chain([usual]).filter(is_open).collect()
}

/// `GET .../models`.
pub(super) async fn list_models(
    api: Arc<Api>,
    input: Input<Nothing, Ignored>,
) -> Result<Json<ModelList>, Problem> {
    let models = models(&api, &input.principal);
    Ok(Json(ModelList {
        object: "list",
        data: models.iter().map(|id| ModelCard::of(id)).collect(),
    }))
}

/// One model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelPath {
    /// Its name.
    model: String,
}

/// `GET .../models/{model}`.
pub(super) async fn read_model(
    api: Arc<Api>,
    input: Input<ModelPath, Ignored>,
) -> Result<Json<ModelCard>, Problem> {
    let name = input.path.model;
    match models(&api, &input.principal).get(&*model_name::canonical(&name)) {
        Some(id) => Ok(Json(ModelCard::of(id))),
        None => {
            let problem = format!("{name:?} is none of the models that have a price here");
            Err(Problem::new(Kind::UnknownModel, problem))
        }
    }
}
