//! The human-readable text of a request and of an answer, and previews of it.

use onelane_actors::ports::JobRecord;
use onelane_core::model::Request;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::fields::Object;
use crate::api::limits;

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
    /// With so many characters of prompt and answer; 0 hides them.
    pub(in crate::api) fn of(record: &JobRecord, chars: usize) -> Self {
        let request = record.request.as_deref();
        let prompt = request.and_then(prompt_text);
        let answer = record.response.as_deref().and_then(answer_text);
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
        Request::Chat(raw) => Object::read(raw).unwrap_or_default(),
    };
    let shown = |name| {
        let value: &RawValue = given.get(name)?;
        let short = value.get().len() <= limits::PARAMETER_BYTES_SHOWN;
        short.then(|| (name, value.to_owned()))
    };
    PARAMETERS.into_iter().filter_map(shown).collect()
}

#[derive(Deserialize)]
struct ChatMessages<'a> {
    #[serde(borrow)]
    messages: Vec<ChatMessage<'a>>,
}

#[derive(Deserialize)]
struct ChatMessage<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChatAnswer<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: ChatMessage<'a>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

/// What was asked: the prompt, or the text of the last message that a user wrote.
pub(super) fn prompt_text(request: &Request) -> Option<String> {
    match request {
        Request::Prompt(text) => Some(text.clone()),
        Request::Chat(raw) => {
            let chat: ChatMessages<'_> = serde_json::from_str(raw.get()).ok()?;
            let of_user = |message: &&ChatMessage<'_>| {
                message.role.is_some_and(|role| role.get() == "\"user\"")
            };
            let last = chat.messages.iter().rev().find(of_user)?;
            content_text(last.content?)
        }
    }
}

/// What GLM answered: the text of the first choice.
pub(super) fn answer_text(response: &RawValue) -> Option<String> {
    let answer: ChatAnswer<'_> = serde_json::from_str(response.get()).ok()?;
    content_text(answer.choices.first()?.message.content?)
}

fn content_text(content: &RawValue) -> Option<String> {
    match serde_json::from_str(content.get()).ok()? {
        Content::Text(text) => Some(text),
        Content::Parts(parts) => {
            let texts: Vec<String> = parts.into_iter().filter_map(|part| part.text).collect();
            Some(texts.join("\n"))
        }
    }
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

    #[test]
    fn the_prompt_of_a_chat_is_what_its_user_said_last() {
        let check = |json: &str, want: Option<&str>| {
            let request = Request::chat(json).unwrap();
            assert_eq!(prompt_text(&request).as_deref(), want, "{json}");
        };
        check(
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"one"},
                {"role":"assistant","content":"a"},{"role":"user","content":"two"},
                {"role":"assistant","content":null}]}"#,
            Some("two"),
        );
        check(
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"look"},
                {"type":"image_url","image_url":{"url":"data:"}},{"type":"text","text":"here"}]}]}"#,
            Some("look\nhere"),
        );
        check(r#"{"messages":[{"role":"system","content":"s"}]}"#, None);
        check(r#"{"messages":[{"role":7,"content":"s"}]}"#, None);
        check(r#"{"messages":[3]}"#, None);
    }

    #[test]
    fn an_answer_of_any_shape_has_a_text_or_none() {
        let check = |json: &str, want: Option<&str>| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(answer_text(raw).as_deref(), want, "{json}");
        };
        check(
            r#"{"choices":[{"message":{"content":"hello"}}]}"#,
            Some("hello"),
        );
        check(
            r#"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#,
            None,
        );
        check(r#"{"choices":[]}"#, None);
        check(r#"{}"#, None);
        check("[]", None);
    }
}
