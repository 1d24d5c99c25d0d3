//! The text that a person reads in a request and in an answer.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JobRecord, Request, json};

/// What is asked.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// What is answered: as choices of a chat, items of a response, or parts of one message.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow, default)]
    output: Vec<Message<'a>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
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
    fn text(&self) -> Option<String> {
        text_of(self.content?)
    }
}

/// A text, or those of a list of parts.
fn text_of(content: &RawValue) -> Option<String> {
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

/// The text of the last message that a user wrote.
fn last_of_user(messages: &RawValue) -> Option<String> {
    let messages: Vec<Message<'_>> = serde_json::from_str(messages.get()).ok()?;
    let of_user = |message: &&Message<'_>| message.role.is_some_and(|r| r.get() == "\"user\"");
    messages.iter().rev().find(of_user)?.text()
}

impl Request {
    /// What was asked: the prompt, the text of the last message that a user wrote, or the texts to embed, joined by
    /// line ends. `None` when there is no such text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let (face, raw) = match self {
            Self::Prompt(text) => return Some(text.clone()),
            Self::Body(face, raw) => (face, raw),
        };
        let asked: Asked<'_> = serde_json::from_str(raw.get()).ok()?;
        let subject = match face.subject() {
            "input" => asked.input?,
            _ => asked.messages?,
        };
        if let Some(text) = json::text(subject) {
            return Some(text.into_owned());
        }
        let texts: Option<Vec<String>> = serde_json::from_str(subject.get()).ok();
        texts
            .map(|texts| texts.join("\n"))
            .or_else(|| last_of_user(subject))
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
        match (answer.choices.first(), answer.content) {
            (Some(choice), _) => choice.message.text(),
            (None, Some(parts)) => text_of(parts),
            (None, None) => answer.output.iter().find_map(Message::text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Face;
    use super::*;
    use crate::testing::sample;

    fn record(response: Option<&str>) -> JobRecord {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        JobRecord {
            job: sample::new_job(1).job,
            request: None,
            response: response.map(|json| raw(json).into()),
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
        // Of the other faces.
        check(
            r#"{"type":"message","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"one"}]}"#,
            Some("one"),
        );
        check(
            r#"{"object":"response","output":[{"type":"reasoning","summary":[]},
                {"type":"message","content":[{"type":"output_text","text":"one"}]}]}"#,
            Some("one"),
        );
        check(r#"{"object":"list","data":[{"embedding":[0.5]}]}"#, None);
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
        let check = |face, json: &str, want: Option<&str>| {
            let request = Request::body(face, json).unwrap();
            assert_eq!(request.text().as_deref(), want, "{json}");
        };
        use Face::{Embeddings, Messages, Responses};
        let said = r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"one"}]}]}"#;
        check(Messages, said, Some("one"));
        check(Responses, r#"{"input":"one"}"#, Some("one"));
        let said = r#"{"input":[{"type":"reasoning"},{"role":"user","content":[{"type":"input_text","text":"one"}]}]}"#;
        check(Responses, said, Some("one"));
        check(Responses, r#"{"previous_response_id":"r"}"#, None);
        check(Embeddings, r#"{"input":["one","two"]}"#, Some("one\ntwo"));
        check(Embeddings, r#"{"input":[1,2]}"#, None);
    }
}
