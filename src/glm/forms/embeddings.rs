//! Embeddings: numbers, and no stream of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Form, Head, counted, named, none_odd};
use crate::bounded::First;
use crate::glm::stream::Tells;
use crate::glm::usage::{self, Names};

pub(super) const FORM: Form = Form {
    typed,
    lenient: none_odd,
    assemble: |_| None,
    tells: |_| Tells::Other,
    #[cfg(feature = "api")]
    ends: |_| false,
    #[cfg(feature = "api")]
    events: |_| None,
    #[cfg(feature = "api")]
    is_failed: |_| false,
    usage: &usage::EMBEDDINGS,
    lacks: "data",
};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: First<Embedding<'a>, 1>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Embedding<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "that it is there is all")]
    embedding: &'a RawValue,
}

fn typed(text: &str, names: &Names) -> Option<Head> {
    let answer: Answer<'_> = serde_json::from_str(text).ok()?;
    answer.data.0.first()?;
    Some(Head {
        finish_reason: None,
        is_whole: true,
        // No tokens are written for it.
        has_content: false,
        usage: counted(answer.usage, names),
        model: answer.model.as_deref().and_then(named),
        request_id: None,
    })
}
