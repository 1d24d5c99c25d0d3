//! Anthropic's messages beside the calls themselves: how many tokens they have.

use std::sync::Arc;

use onelane_core::model::Face;
use onelane_core::money::estimate;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::answer::Json;
use super::gateway::{Call, Messages};
use super::granted::Said;
use super::input::{Ignored, Input, Nothing};
use super::problem::{Kind, Problem};
use crate::estimate::GlmTokenizer;

/// How many tokens a message has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CountedTokens")]
pub(super) struct Counted {
    /// Of the prompt, as GLM's tokenizer counts them; tools are counted as JSON.
    input_tokens: u64,
}

/// `POST .../messages/count_tokens`. Nothing is submitted, and GLM is not asked.
pub(super) async fn count_tokens(
    api: Arc<Api>,
    input: Input<Nothing, Ignored, Call<Messages>>,
) -> Result<Json<Counted>, Problem> {
    api.allow(
        &input.principal,
        Face::Messages,
        &Said::read(&input.headers)?,
    )?;
    let submission = input.body.submission;
    let model = submission.model_in(&api.lane.settings());
    // A long prompt takes a while.
    let counting = tokio::task::spawn_blocking(move || {
        estimate::of(&submission.request, &model, None, &GlmTokenizer).prompt_tokens
    });
    let input_tokens = counting
        .await
        .map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    Ok(Json(Counted { input_tokens }))
}
