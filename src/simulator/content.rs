//! What an answer says: text, JSON, thoughts, the call of a tool, as long as the request lets it, as the request asks.

use std::borrow::Cow;

use onelane_core::model::json;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fault::{AnswerWith, ErrorFault};
use super::sample::sample;
use crate::bounded;
use crate::object::Object;

/// What a request asks of the form of its answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Form {
    /// The functions that it offers.
    tools: Vec<Tool>,
    /// Whether the last word is a tool's: then the answer is text.
    after_tool: bool,
    /// JSON: of this schema, or of any (`null`).
    json: Option<Value>,
    n: usize,
    max_tokens: Option<u64>,
    stop: Vec<String>,
    thinks: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Tool {
    name: String,
    parameters: Value,
}

/// Choices that a request may ask for.
const CHOICES_MAX: u64 = 16;
/// GLM's own bound.
const MAX_TOKENS_MAX: u64 = 131_072;
/// GLM's own bound, too.
const TOOLS_MAX: usize = 128;
/// Words that end an answer: the most that some face of GLM takes.
const STOPS_MAX: usize = 4;

impl Form {
    /// Reads a request; the error is the refusal that GLM would send.
    pub(crate) fn read(fields: &Object<'_>, last_role: Option<&str>) -> Result<Self, ErrorFault> {
        let field = |name: &str| fields.get(name).filter(|value| value.get() != "null");
        let refuse = |name: &str| ErrorFault {
            message: Some(format!("{name} 参数非法。请检查文档。")),
            ..ErrorFault::of("1214")
        };
        let number = |name: &'static str, most: u64| match field(name).map(json::number) {
            None => Ok(None),
            Some(Some(n)) if (1..=most).contains(&n) => Ok(Some(n)),
            Some(_) => Err(refuse(name)),
        };
        let kind = |name: &str| {
            let kind = Object::read(field(name)?.get()).ok()?.get("type")?;
            json::text(kind)
        };
        let effort = field("reasoning_effort").and_then(json::text);
        let stop = match field("stop") {
            None => Vec::new(),
            Some(stop) => match json::text(stop) {
                Some(word) => vec![word.into_owned()],
                None => listed(stop, STOPS_MAX, |word| {
                    json::text(word).map(Cow::into_owned)
                })
                .ok_or_else(|| refuse("stop"))?,
            },
        };
        let no_tools = field("tool_choice").and_then(json::text).as_deref() == Some("none");
        let tools = match field("tools") {
            None => Vec::new(),
            Some(tools) => {
                listed(tools, TOOLS_MAX, |json| Some(tool(json))).ok_or_else(|| refuse("tools"))?
            }
        };
        let tools: Vec<Tool> = tools.into_iter().flatten().collect();
        Ok(Self {
            tools: if no_tools { Vec::new() } else { tools },
            after_tool: last_role == Some("tool"),
            json: match kind("response_format").as_deref() {
                None | Some("text") => None,
                Some("json_object") => {
                    let format = field("response_format").map(RawValue::get);
                    let format = format.and_then(|format| Object::read(format).ok());
                    let schema = format.and_then(|format| format.get("schema"));
                    let schema = schema.and_then(|schema| bounded::excerpt(schema.get()).ok());
                    Some(schema.unwrap_or_default())
                }
                Some(_) => return Err(refuse("response_format")),
            },
            n: usize::try_from(number("n", CHOICES_MAX)?.unwrap_or(1)).unwrap_or(1),
            max_tokens: number("max_tokens", MAX_TOKENS_MAX)?,
            stop: stop.into_iter().filter(|word| !word.is_empty()).collect(),
            thinks: kind("thinking").as_deref() == Some("enabled")
                || effort.is_some_and(|effort| effort != "none"),
        })
    }
}

/// The elements of a list of so many at most; `None`: it is none, has more, or one that is not read.
fn listed<T>(
    list: &RawValue,
    most: usize,
    read: impl Fn(&RawValue) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    json::each(list, |element| {
        let read = read(element).filter(|_| all.len() < most);
        read.map(|element| all.push(element)).is_some()
    })?;
    Some(all)
}

/// A function that may be called; what else GLM takes as a tool is done on its side.
fn tool(tool: &RawValue) -> Option<Tool> {
    let function = Object::read(tool.get()).ok()?.get("function")?;
    let function = Object::read(function.get()).ok()?;
    let parameters = function.get("parameters").map(RawValue::get);
    Some(Tool {
        name: json::text(function.get("name")?)?.into_owned(),
        parameters: parameters
            .and_then(|json| bounded::excerpt(json).ok())
            .unwrap_or_default(),
    })
}

/// One of the choices of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Choice {
    finish_reason: String,
    index: usize,
    message: Message,
}

#[derive(Debug, Serialize)]
struct Message {
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    role: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Debug, Serialize)]
struct Call {
    function: Function,
    id: String,
    index: usize,
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
struct Function {
    arguments: String,
    name: String,
}

/// An answer, before it is written.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its choices.
    pub(crate) choices: Vec<Choice>,
    /// The tokens of all of them, thoughts included.
    pub(crate) tokens: u64,
    /// Those of the thoughts.
    pub(crate) reasoning_tokens: u64,
}

/// The answer to a prompt. `length`: so many tokens, where lengths are drawn; `id` makes the ids of calls.
pub(crate) fn say(
    form: &Form,
    prompt: &str,
    with: &AnswerWith,
    length: Option<u64>,
    id: &str,
) -> Said {
    let mut said = Said {
        choices: Vec::new(),
        tokens: 0,
        reasoning_tokens: 0,
    };
    for index in 0..form.n.max(1) {
        let mut left = form.max_tokens;
        let mut is_cut = false;
        let thoughts = with.reasoning.clone().or_else(|| {
            form.thinks
                .then(|| format!("The user asks: {}. That is easily answered.", head(prompt)))
        });
        let thoughts = thoughts.map(|text| {
            let text = within(text, &mut left, &mut is_cut);
            said.reasoning_tokens += tokens_of(&text);
            text
        });
        let calls = calls(form, prompt, with, id, index);
        let content = if calls.is_empty() {
            let text = with.content.clone();
            let text = text.unwrap_or_else(|| content_for(form, prompt, length, index));
            within(stopped(text, &form.stop), &mut left, &mut is_cut)
        } else {
            with.content.clone().unwrap_or_default()
        };
        let of_calls = calls.iter().map(|call| tokens_of(&call.function.arguments));
        let of_calls: u64 = of_calls.sum();
        said.tokens += match content.as_str() {
            "" => of_calls,
            text => tokens_of(text) + of_calls,
        };
        let finish = match (is_cut, calls.is_empty()) {
            (true, _) => "length",
            (false, false) => "tool_calls",
            (false, true) => "stop",
        };
        said.choices.push(Choice {
            finish_reason: with
                .finish_reason
                .clone()
                .unwrap_or_else(|| finish.to_owned()),
            index,
            message: Message {
                content,
                reasoning_content: thoughts,
                role: "assistant",
                tool_calls: calls,
            },
        });
    }
    said.tokens += said.reasoning_tokens;
    said
}

/// The call of the function that the prompt names, or else of the first.
fn calls(form: &Form, prompt: &str, with: &AnswerWith, id: &str, choice: usize) -> Vec<Call> {
    let call = |(at, (name, arguments)): (usize, (String, String))| Call {
        function: Function { arguments, name },
        id: format!("call_{id}{choice}{at}"),
        index: at,
        r#type: "function",
    };
    if let Some(calls) = &with.tool_calls {
        let given = calls
            .iter()
            .map(|call| (call.name.clone(), call.arguments.to_string()));
        return given.enumerate().map(call).collect();
    }
    if form.after_tool || with.content.is_some() {
        return Vec::new();
    }
    let named = form.tools.iter().find(|tool| prompt.contains(&tool.name));
    let tool = named.or(form.tools.first()).into_iter();
    tool.map(|tool| (tool.name.clone(), sample(&tool.parameters).to_string()))
        .enumerate()
        .map(call)
        .collect()
}

fn content_for(form: &Form, prompt: &str, length: Option<u64>, index: usize) -> String {
    let head = head(prompt);
    let mut text = if prompt.chars().any(is_chinese) {
        format!("已收到：{head}。这是模拟器的回答。")
    } else {
        format!("Received: {head}. This is the simulator's answer.")
    };
    if index > 0 {
        text.push_str(&format!(" ({})", index + 1));
    }
    if let Some(length) = length {
        lengthen(&mut text, length);
    }
    match &form.json {
        None => text,
        Some(Value::Null) => json!({"answer": text}).to_string(),
        Some(schema) => sample(schema).to_string(),
    }
}

/// Makes a text so many tokens long.
fn lengthen(text: &mut String, tokens: u64) {
    const FILLER: &str = " And so it goes on.";
    let bytes = usize::try_from(tokens.saturating_mul(4)).unwrap_or(usize::MAX);
    while text.len() < bytes {
        let room = bytes - text.len();
        text.push_str(FILLER.get(..room.min(FILLER.len())).unwrap_or(FILLER));
    }
}

fn head(prompt: &str) -> String {
    prompt.chars().take(24).collect()
}

/// A text up to the first of these words.
fn stopped(mut text: String, stop: &[String]) -> String {
    let ends = stop.iter().filter_map(|word| text.find(word.as_str()));
    if let Some(end) = ends.min() {
        text.truncate(end);
    }
    text
}

/// A text of no more tokens than are left; what it took is left no more.
fn within(text: String, left: &mut Option<u64>, is_cut: &mut bool) -> String {
    let Some(room) = left else { return text };
    let mut kept = String::new();
    if tokens_of(&text) <= *room && (*room > 0 || text.is_empty()) {
        kept = text;
    } else {
        *is_cut = true;
        for c in text.chars() {
            kept.push(c);
            if tokens_of(&kept) > *room {
                kept.pop();
                break;
            }
        }
    }
    if !kept.is_empty() {
        *room = room.saturating_sub(tokens_of(&kept));
    }
    kept
}

pub(crate) fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// A Chinese character is a token, four other bytes are one; nothing is less than one.
pub(crate) fn tokens_of(text: &str) -> u64 {
    let (chinese, other) = text.chars().fold((0_u64, 0_u64), |(chinese, other), c| {
        if is_chinese(c) {
            (chinese + 1, other)
        } else {
            (chinese, other + c.len_utf8() as u64)
        }
    });
    (chinese + other.div_ceil(4)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(request: Value) -> Result<Form, ErrorFault> {
        let last_role = request["messages"][0]["role"].as_str();
        Form::read(&Object::read(&request.to_string()).unwrap(), last_role)
    }

    fn answer(request: Value, with: &AnswerWith, length: Option<u64>) -> (Value, u64, u64) {
        let said = say(
            &form(request).unwrap(),
            "weather in Bonn?",
            with,
            length,
            "id",
        );
        (json!(said.choices), said.tokens, said.reasoning_tokens)
    }

    fn plain(request: Value) -> Value {
        answer(request, &AnswerWith::default(), None).0
    }

    fn weather() -> Value {
        json!([
            {"type": "function", "function": {"name": "time", "parameters": {}}},
            {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
                "city": {"type": "string"}, "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C", "F"]}, "tags": {"type": "array", "items": {"type": "boolean"}}}}}},
        ])
    }

    #[test]
    fn a_tool_is_called_with_arguments_that_its_schema_allows_and_its_answer_is_answered() {
        let choice = plain(json!({"tools": weather()}))[0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls");
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(
            (&call["type"], &call["function"]["name"]),
            (&json!("function"), &json!("weather"))
        );
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(
            arguments,
            json!({"city": "text", "days": 2, "unit": "C", "tags": [true]})
        );
        for request in [
            json!({"tools": weather(), "tool_choice": "none"}),
            json!({"tools": weather(), "messages": [{"role": "tool", "content": "{}"}]}),
        ] {
            let choice = plain(request)[0].clone();
            assert_eq!(choice["finish_reason"], "stop");
            assert!(choice["message"].get("tool_calls").is_none(), "{choice}");
        }
    }

    #[test]
    fn json_mode_n_and_thoughts_are_as_they_are_asked_for() {
        let content = plain(json!({"response_format": {"type": "json_object"}}));
        let content = content[0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(serde_json::from_str::<Value>(&content).unwrap()["answer"].is_string());
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]});
        let format = json!({"type": "json_object", "schema": schema});
        let content = plain(json!({"response_format": format}))[0]["message"]["content"].clone();
        assert_eq!(content, r#"{"n":3}"#);
        let choices = plain(json!({"n": 3}));
        assert_eq!(choices.as_array().unwrap().len(), 3);
        assert_eq!(choices[2]["index"], 2);
        assert_ne!(choices[0]["message"], choices[1]["message"]);
        let (choices, tokens, thoughts) = answer(
            json!({"thinking": {"type": "enabled"}}),
            &AnswerWith::default(),
            None,
        );
        assert!(choices[0]["message"]["reasoning_content"].is_string());
        assert!(0 < thoughts && thoughts < tokens);
        let silent = plain(json!({"thinking": {"type": "disabled"}}));
        assert!(silent[0]["message"].get("reasoning_content").is_none());
    }

    #[test]
    fn an_answer_is_no_longer_than_it_may_be_and_ends_at_a_stop() {
        for most in [1_u64, 2, 5] {
            let (choices, tokens, _) = answer(
                json!({"max_tokens": most}),
                &AnswerWith::default(),
                Some(500),
            );
            assert_eq!(
                (tokens, &choices[0]["finish_reason"]),
                (most, &json!("length"))
            );
        }
        let (choices, tokens, _) = answer(json!({}), &AnswerWith::default(), Some(500));
        assert_eq!(
            (tokens, &choices[0]["finish_reason"]),
            (500, &json!("stop"))
        );
        let thoughts = json!({"max_tokens": 3, "reasoning_effort": "high"});
        let (choices, tokens, reasoning) = answer(thoughts, &AnswerWith::default(), None);
        assert_eq!((tokens, reasoning), (3, 3), "thoughts count, {choices}");
        assert_eq!(choices[0]["message"]["content"], "");
        let stopped = plain(json!({"stop": ["This"]}));
        assert_eq!(
            stopped[0]["message"]["content"],
            "Received: weather in Bonn?. "
        );
        assert_eq!(stopped[0]["finish_reason"], "stop");
    }

    #[test]
    fn a_script_says_thoughts_and_calls_word_for_word() {
        let with: AnswerWith = serde_json::from_value(json!({
            "reasoning": "hm", "toolCalls": [{"name": "f", "arguments": {"a": 1}}]
        }))
        .unwrap();
        let (choices, ..) = answer(json!({}), &with, None);
        let message = &choices[0]["message"];
        assert_eq!(message["reasoning_content"], "hm");
        assert_eq!(
            message["tool_calls"][0]["function"],
            json!({"name": "f", "arguments": "{\"a\":1}"})
        );
    }

    #[test]
    fn what_glm_would_refuse_is_refused() {
        for request in [
            json!({"n": 0}),
            json!({"n": "two"}),
            json!({"max_tokens": 0}),
            json!({"max_tokens": 200_000}),
            json!({"stop": [1]}),
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            json!({"tools": {}}),
            json!({"response_format": {"type": "json_schema"}}),
        ] {
            assert_eq!(form(request.clone()).unwrap_err().code, "1214", "{request}");
        }
    }
}
