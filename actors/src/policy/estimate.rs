//! A rough figure of what a request may come to in tokens, for pacing and fairness: cheap, without a
//! tokenizer, and corrected by the real usage once it is known.

use serde::Deserialize;

use crate::model::{Request, WorstCase};

/// Tokens of an answer whose request bounds it in no way.
const ANSWER_TOKENS: u32 = 1_024;
/// What every message costs beside its text.
const OVERHEAD_TOKENS: u32 = 8;

/// The tokens that prompt and answer may come to. `max_tokens` is the bound of plain prompts.
#[must_use]
pub fn tokens(request: &Request, max_tokens: Option<u32>) -> u32 {
    let (text, bound) = parts(request, max_tokens);
    let answer = bound.unwrap_or(ANSWER_TOKENS).min(ANSWER_TOKENS);
    text_tokens(text)
        .saturating_add(OVERHEAD_TOKENS)
        .saturating_add(answer)
}

/// The text of a request, and what bounds its answer.
fn parts(request: &Request, max_tokens: Option<u32>) -> (&str, Option<u32>) {
    #[derive(Deserialize)]
    struct Bound {
        #[serde(default)]
        max_tokens: Option<serde_json::Value>,
    }
    match request {
        Request::Prompt(text) => (text.as_str(), max_tokens),
        Request::Chat(raw) => {
            let bound: Option<Bound> = serde_json::from_str(raw.get()).ok();
            let bound = bound.and_then(|b| b.max_tokens?.as_u64());
            (
                raw.get(),
                bound.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            )
        }
    }
}

/// The most tokens that any model of GLM's answers with.
const COMPLETION_MAX: u32 = 131_072;
/// Tokens of the template around a chat's messages.
const TEMPLATE_TOKENS: u32 = 64;

/// The most tokens that prompt and answer can come to: a token has at least a byte.
#[must_use]
pub fn worst_case(request: &Request, max_tokens: Option<u32>) -> WorstCase {
    let (text, bound) = parts(request, max_tokens);
    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    WorstCase {
        prompt: bytes.saturating_add(TEMPLATE_TOKENS),
        completion: bound.unwrap_or(COMPLETION_MAX).min(COMPLETION_MAX),
    }
}

/// Four bytes of ASCII or two thirds of any other character make a token, roughly.
fn text_tokens(text: &str) -> u32 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let other = text.chars().filter(|c| !c.is_ascii()).count();
    u32::try_from(ascii.div_ceil(4) + (other * 2).div_ceil(3)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_of_prompt_and_bounded_answer() {
        let prompt = Request::prompt("a".repeat(400)).unwrap();
        assert_eq!(tokens(&prompt, None), 100 + 8 + 1_024);
        assert_eq!(tokens(&prompt, Some(10)), 100 + 8 + 10);
        let chinese = Request::prompt("\u{4f60}".repeat(300)).unwrap();
        assert_eq!(tokens(&chinese, Some(10)), 200 + 8 + 10);
        let chat = Request::chat(r#"{"messages":[{"role":"user"}],"max_tokens":50}"#).unwrap();
        assert!((58..90).contains(&tokens(&chat, None)));
    }
}
