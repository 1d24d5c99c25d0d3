//! What lists show of a request and of an answer: the beginning of their texts.

use onelane_actors::ports::JobRecord;
use onelane_core::model::Request;
use serde_json::value::RawValue;

use crate::object::Object;

/// The parameters of a chat body that the call log shows; its messages and tools are the job's.
const PARAMETERS: [&str; 11] = [
    "do_sample",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "tool_choice",
    "stop",
    "response_format",
    "thinking",
    "reasoning_effort",
    "seed",
];

/// Bytes of one parameter that the call log shows; a longer one is left out.
const PARAMETER_BYTES_SHOWN: usize = 256;

/// What lists show of a job's bodies: nothing of those that were pruned. Made once for a job, however
/// many attempts are shown with it.
#[derive(Debug, Default)]
pub(crate) struct Excerpt {
    /// The beginning of what was asked.
    pub(super) prompt: Option<String>,
    /// The beginning of the answer's text.
    pub(super) answer: Option<String>,
    /// What of [`PARAMETERS`] the request carried, verbatim, but for long ones.
    pub(super) parameters: Vec<(&'static str, Box<RawValue>)>,
}

impl Excerpt {
    /// The beginning of what was asked.
    #[cfg(feature = "desk")]
    pub(crate) fn into_prompt(self) -> Option<String> {
        self.prompt
    }

    /// With so many characters of prompt and answer; 0 hides them.
    pub(crate) fn of(record: &JobRecord, chars: usize) -> Self {
        let request = record.request.as_deref();
        let prompt = request.and_then(Request::text);
        let answer = record.text();
        Self {
            prompt: prompt.and_then(|text| cut(&text, chars)),
            answer: answer.and_then(|text| cut(&text, chars)),
            parameters: request.map(parameters).unwrap_or_default(),
        }
    }
}

fn parameters(request: &Request) -> Vec<(&'static str, Box<RawValue>)> {
    let given = match request {
        Request::Prompt(_) => return Vec::new(),
        Request::Body(_, raw) => serde_json::from_str::<Object<'_>>(raw.get()).unwrap_or_default(),
    };
    let shown = |name| {
        let value = given.get(name)?;
        let short = value.get().len() <= PARAMETER_BYTES_SHOWN;
        (short && value.get() != "null").then(|| (name, value.to_owned()))
    };
    PARAMETERS.into_iter().filter_map(shown).collect()
}

/// The first `chars` characters, with an ellipsis if there are more; nothing when `chars` is 0.
pub(super) fn cut(text: &str, chars: usize) -> Option<String> {
    if chars == 0 {
        return None;
    }
    let end = text.char_indices().nth(chars);
    Some(match end.and_then(|(at, _)| text.get(..at)) {
        Some(head) => format!("{head}…"),
        None => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_ends_between_characters() {
        assert_eq!(cut("智谱清言", 2).as_deref(), Some("智谱…"));
        assert_eq!(cut("智谱清言", 4).as_deref(), Some("智谱清言"));
        assert_eq!(cut("", 4).as_deref(), Some(""));
        assert_eq!(cut("智谱清言", 0), None);
    }
}
