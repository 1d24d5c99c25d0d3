//! The text that a person reads in a request and in an answer of GLM's chat shape.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JobRecord, Request, json};

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Message<'_> {
    /// A text, or those of a list of parts.
    fn text(&self) -> Option<String> {
        let content = self.content?;
        if let Some(text) = json::text(content) {
            return Some(text.into_owned());
        }
        let mut texts: Option<String> = None;
        json::each(content, |part| {
            let Ok(part) = serde_json::from_str::<Part>(part.get()) else {
                return false;
            };
            match (&mut texts, part.text) {
                (Some(texts), Some(text)) => {
                    texts.push('\n');
                    texts.push_str(&text);
                }
                (None, Some(text)) => texts = Some(text),
                (_, None) => {}
            }
            true
        })?;
        Some(texts.unwrap_or_default())
    }
}

impl Request {
    /// What was asked: the prompt, or the text of the last message that a user wrote. `None` when a chat
    /// has no such message.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Prompt(text) => Some(text.clone()),
            Self::Chat(raw) => {
                let chat: Chat<'_> = serde_json::from_str(raw.get()).ok()?;
                let of_user =
                    |message: &&Message<'_>| message.role.is_some_and(|r| r.get() == "\"user\"");
                chat.messages.iter().rev().find(of_user)?.text()
            }
        }
    }
}

impl JobRecord {
    /// The text that GLM answered: the message of the first choice, its parts joined by line ends. `None`
    /// while the job is not completed, once its bodies are pruned, and when the answer has no text: GLM
    /// calls a tool with `content` null (with empty `content` the text is empty). What else the answer
    /// holds, such as tool calls and reasoning, stands in [`JobRecord::response`].
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let answer: Answer<'_> = serde_json::from_str(self.response.as_ref()?.get()).ok()?;
        answer.choices.first()?.message.text()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::sample;

    fn record(response: Option<&str>) -> JobRecord {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        JobRecord {
            job: sample::new_job(1).job,
            request: None,
            response: response.map(|json| Arc::from(raw(json))),
            refusal: None,
        }
    }

    #[test]
    fn an_answer_of_any_shape_has_a_text_or_none() {
        let check = |json: &str, want: Option<&str>| {
            assert_eq!(record(Some(json)).text().as_deref(), want, "{json}");
        };
        check(
            r#"{"choices":[{"message":{"content":"say \"hello\" 智"}},{"message":{"content":"two"}}]}"#,
            Some("say \"hello\" 智"),
        );
        check(
            r#"{"choices":[{"message":{"content":[{"type":"text","text":"one"},{"type":"x"},{"text":"two"}]}}]}"#,
            Some("one\ntwo"),
        );
        check(
            r#"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#,
            None,
        );
        check(r#"{"choices":[{"message":{"tool_calls":[]}}]}"#, None);
        check(
            r#"{"choices":[{"message":{"content":"","tool_calls":[]}}]}"#,
            Some(""),
        );
        check(r#"{"choices":[{"message":{"content":7}}]}"#, None);
        check(r#"{"choices":[]}"#, None);
        check(r#"{}"#, None);
        check("[]", None);
    }

    #[test]
    fn a_job_without_an_answer_has_no_text() {
        assert_eq!(record(None).text(), None);
    }

    #[test]
    fn the_prompt_of_a_chat_is_what_its_user_said_last() {
        let check = |json: &str, want: Option<&str>| {
            let request = Request::chat(json).unwrap();
            assert_eq!(request.text().as_deref(), want, "{json}");
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
}
