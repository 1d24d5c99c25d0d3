//! What a request may come to in tokens, before it is sent. Two figures of different worth: a rough one
//! of every submission, for pacing and fairness, that costs one look at the text; and one by a
//! tokenizer, which comes in from outside ([`CountTokens`]), for estimates. What budgets reserve is a third
//! ([`crate::money::worst`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::json;
use crate::model::{Face, Request, Usage};

/// Tokens that a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EstimatedTokens")]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// The prompt's, about.
    pub prompt_tokens: u64,
    /// The completion's at most, reasoning included: what the request allows, else what the model does.
    #[serde(rename = "maxCompletionTokens")]
    pub completion_tokens_max: u64,
}

/// Counts the tokens of a text as a model's tokenizer does, or nearly so.
pub trait CountTokens: Send + Sync {
    /// The tokens of `text` for this model.
    fn count(&self, model: &str, text: &str) -> u64;
}

/// The count without a tokenizer: four bytes of ASCII or two thirds of any other character make a token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rough;

impl CountTokens for Rough {
    fn count(&self, _model: &str, text: &str) -> u64 {
        // Of bytes alone: prompts are long, and every submission is counted.
        let (ascii, other) = match text.is_ascii() {
            true => (text.len(), 0),
            false => {
                let bytes = text.as_bytes();
                (
                    count(bytes, |byte| byte < 0x80),
                    count(bytes, |byte| byte >= 0xC0),
                )
            }
        };
        (ascii.div_ceil(4) + (other * 2).div_ceil(3)) as u64
    }
}

/// How many bytes are such. A piece at a time, whose count fits into a byte: so the machine looks at many at once.
fn count(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let of_piece = |piece: &[u8]| piece.iter().map(|byte| u8::from(is(*byte))).sum::<u8>();
    let pieces = bytes.chunks(usize::from(u8::MAX));
    pieces.map(|piece| usize::from(of_piece(piece))).sum()
}

/// The completion tokens that models allow: measured, and where nobody has measured it the context, which
/// no answer can exceed.
const COMPLETION_CAPS: [(&str, u64); 14] = [
    ("glm-4.5-air*", 98_304),
    ("glm-4.5-flash", 98_304),
    ("glm-4.5v*", 16_384),
    ("glm-4.6v*", 32_768),
    ("glm-4.1v*", 16_384),
    ("glm-4-flash*", 16_384),
    ("glm-4-long", 4_095),
    ("glm-4v-flash", 1_024),
    ("glm-4-airx", 8_192),
    ("glm-4-*", 128_000),
    ("glm-4", 128_000),
    ("glm-3-*", 128_000),
    ("embedding-*", 0),
    // GLM's own bound of `max_tokens`: that of 4.5, 4.6, 4.7 and 5, and of what is not known.
    ("*", 131_072),
];

/// The completion tokens that a model allows. For a model that is not known, the most that any does.
#[must_use]
pub fn completion_cap(model: &str) -> u64 {
    of_model(&COMPLETION_CAPS, model).unwrap_or(131_072)
}

/// What a table says of a model: the first row whose name fits counts. A name that ends in `*` is the
/// beginning of names.
pub(super) fn of_model(table: &[(&str, u64)], model: &str) -> Option<u64> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => model == pattern,
    };
    let found = table.iter().find(|(pattern, _)| fits(pattern));
    found.map(|(_, tokens)| *tokens)
}

/// How long the answers of models usually are, thoughts included: what is expected where nobody has counted them.
/// Models that think by default think most of the time.
const USUAL_ANSWERS: [(&str, u64); 5] = [
    ("embedding-*", 0),
    ("glm-4-*", 350),
    ("glm-4v*", 350),
    ("glm-3-*", 350),
    ("*", 1_200),
];

/// The tokens that an answer of this model usually has.
#[must_use]
pub fn usual_answer(model: &str) -> u64 {
    of_model(&USUAL_ANSWERS, model).unwrap_or(1_200)
}

/// What GLM's chat template puts around the messages: a beginning of two tokens, and the mark behind
/// which the answer is written.
const TEMPLATE_TOKENS: u64 = 3;
/// What it puts around each message: its role, a line break, and one to spare.
const MESSAGE_TOKENS: u64 = 3;
/// What it says about tools before it lists them.
const TOOLS_TOKENS: u64 = 150;
/// An image: one of 1120 x 1120 pixels in patches of 28 x 28. Its real size is not looked up.
const IMAGE_TOKENS: u64 = 1_600;
/// A video or a file, whose length is not looked up.
const FILE_TOKENS: u64 = 16_000;

/// What a request to `model` may come to, by a tokenizer. `max_tokens` is the bound of plain prompts.
///
/// Texts of messages, reasoning that is sent back, tool calls and the definitions of tools (as JSON) are
/// counted; what the template adds is a fixed number of tokens, and so is whatever is no text: 1600 for an
/// image, 16000 for a video or a file.
#[must_use]
pub fn of(
    request: &Request,
    model: &str,
    max_tokens: Option<u32>,
    counter: &dyn CountTokens,
) -> Estimate {
    let count = |text: &str| counter.count(model, text);
    let (messages, bound) = match request {
        Request::Prompt(text) => (MESSAGE_TOKENS + count(text), max_tokens.map(u64::from)),
        Request::Body(face, raw) => match serde_json::from_str::<Body<'_>>(raw.get()) {
            Ok(body) => (body.tokens(*face, &count), body.bound(*face)),
            // A request was checked when it was made; one that says something twice is counted as it is.
            Err(_) => (count(raw.get()), None),
        },
    };
    Estimate {
        prompt_tokens: TEMPLATE_TOKENS + messages,
        completion_tokens_max: completion_max(model, bound),
    }
}

/// The longest answer: as long as the request allows, and never longer than the model does. GLM refuses a
/// request that asks for more.
fn completion_max(model: &str, bound: Option<u64>) -> u64 {
    let cap = completion_cap(model);
    bound.map_or(cap, |bound| bound.min(cap))
}

/// What is counted of a body, and what bounds its answer. Which of it means something its face says.
#[derive(Deserialize)]
pub(super) struct Body<'a> {
    #[serde(default, borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(default, borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) tools: Option<&'a RawValue>,
    #[serde(default, borrow)]
    messages: Option<&'a RawValue>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
    #[serde(default, borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(default, borrow)]
    system: Option<&'a RawValue>,
    #[serde(default, borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    conversation: Option<&'a RawValue>,
    #[serde(default, borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(default, borrow)]
    container: Option<&'a RawValue>,
    #[serde(default, borrow)]
    mcp_servers: Option<&'a RawValue>,
}

impl<'a> Body<'a> {
    fn field(&self, name: &str) -> Option<&'a RawValue> {
        let value = match name {
            "max_tokens" => self.max_tokens,
            "max_output_tokens" => self.max_output_tokens,
            "messages" => self.messages,
            "input" => self.input,
            "instructions" => self.instructions,
            "system" => self.system,
            "previous_response_id" => self.previous_response_id,
            "conversation" => self.conversation,
            "prompt" => self.prompt,
            "container" => self.container,
            "mcp_servers" => self.mcp_servers,
            _ => None,
        };
        value.filter(|value| value.get() != "null")
    }

    /// The most tokens that the answer may have, as the body says; 0 where answers have none.
    pub(super) fn bound(&self, face: Face) -> Option<u64> {
        match face.bound() {
            Some(name) => self.field(name).and_then(json::number),
            None => Some(0),
        }
    }

    /// What its prompt is made of.
    pub(super) fn texts(&self, face: Face) -> impl Iterator<Item = &'a RawValue> {
        face.texts().iter().filter_map(|name| self.field(name))
    }

    /// Whether GLM puts into the prompt what stands elsewhere.
    pub(super) fn is_elsewhere(&self, face: Face) -> bool {
        face.elsewhere()
            .iter()
            .any(|name| self.field(name).is_some())
    }

    /// The tokens of its prompt.
    fn tokens(&self, face: Face, count: &dyn Fn(&str) -> u64) -> u64 {
        let texts = self.texts(face).map(|text| text_tokens(text, count));
        let tools = self
            .tools
            .and_then(|list| sum(list, |tool| json_tokens(tool, count)));
        let some_tools = self
            .tools
            .is_some_and(|tools| json::compact(tools.get()) != "[]");
        let tools = match tools {
            Some(tools) if some_tools => TOOLS_TOKENS + tools,
            _ => 0,
        };
        texts.fold(tools, u64::saturating_add)
    }
}

#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Part<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(default, borrow)]
    text: Option<&'a RawValue>,
}

/// The sum of what `tokens` says of the elements of a list; `None`: it is none.
fn sum(list: &RawValue, tokens: impl Fn(&RawValue) -> u64) -> Option<u64> {
    let mut sum: u64 = 0;
    json::each(list, |element| {
        sum = sum.saturating_add(tokens(element));
        true
    })?;
    Some(sum)
}

/// A text is one message, and so is each element of a list.
fn text_tokens(text: &RawValue, count: &dyn Fn(&str) -> u64) -> u64 {
    sum(text, |message| message_tokens(message, count))
        .unwrap_or_else(|| MESSAGE_TOKENS + content_tokens(text, count))
}

fn message_tokens(message: &RawValue, count: &dyn Fn(&str) -> u64) -> u64 {
    let field = |value: Option<&RawValue>| match value {
        Some(value) if value.get() != "null" => content_tokens(value, count),
        _ => 0,
    };
    if !message.get().starts_with('{') {
        return MESSAGE_TOKENS + content_tokens(message, count);
    }
    let known: Message<'_> = serde_json::from_str(message.get()).unwrap_or_default();
    let told = [known.content, known.reasoning_content, known.tool_calls];
    if told.iter().all(Option::is_none) {
        // No message: a part, the call of a tool, its result.
        return MESSAGE_TOKENS + part_tokens(message, count);
    }
    MESSAGE_TOKENS + told.into_iter().map(field).sum::<u64>()
}

/// A text, a list of parts, or whatever else somebody sends.
fn content_tokens(content: &RawValue, count: &dyn Fn(&str) -> u64) -> u64 {
    if let Some(text) = json::text(content) {
        return count(&text);
    }
    let parts = sum(content, |part| part_tokens(part, count));
    parts.unwrap_or_else(|| json_tokens(content, count))
}

fn part_tokens(part: &RawValue, count: &dyn Fn(&str) -> u64) -> u64 {
    let known: Part<'_> = serde_json::from_str(part.get()).unwrap_or_default();
    let kind = known.kind.and_then(json::text);
    match (kind.as_deref(), known.text.and_then(json::text)) {
        (Some("text" | "input_text" | "output_text"), Some(text)) => count(&text),
        (Some("image_url" | "image" | "input_image"), _) => IMAGE_TOKENS,
        (Some("video_url" | "file" | "file_url" | "document" | "input_file"), _) => FILE_TOKENS,
        _ => json_tokens(part, count),
    }
}

fn json_tokens(value: &RawValue, count: &dyn Fn(&str) -> u64) -> u64 {
    count(&json::compact(value.get()))
}

/// Tokens of an answer whose request bounds it in no way, as pacing takes them.
const ANSWER_TOKENS: u64 = 1_024;
/// What a call comes to of which `said` was delivered before it ended, by a tokenizer.
#[must_use]
pub fn delivered(request: &Request, model: &str, said: &str, counter: &dyn CountTokens) -> Usage {
    let prompt_tokens = of(request, model, None, counter).prompt_tokens;
    let completion_tokens = counter.count(model, said);
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens.saturating_add(completion_tokens),
        estimated: true,
        ..Usage::default()
    }
}

/// What every request costs beside its text, roughly.
const OVERHEAD_TOKENS: u64 = 8;

/// The tokens that pacing and fairness take a request for: its answer is short unless the request says so.
/// `max_tokens` is the bound of plain prompts.
#[must_use]
pub fn tokens(request: &Request, max_tokens: Option<u32>) -> u32 {
    let (text, bound) = match request {
        Request::Prompt(text) => (text.as_str(), max_tokens.map(u64::from)),
        Request::Body(face, raw) => {
            let body: Option<Body<'_>> = serde_json::from_str(raw.get()).ok();
            (raw.get(), body.and_then(|body| body.bound(*face)))
        }
    };
    let prompt = Rough.count("", text) + OVERHEAD_TOKENS;
    let answer = bound.unwrap_or(ANSWER_TOKENS).min(ANSWER_TOKENS);
    u32::try_from(prompt + answer).unwrap_or(u32::MAX)
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

    #[test]
    fn a_text_is_counted_alike_however_long_it_is_and_whatever_it_is_made_of() {
        for part in [
            "a",
            "\u{e9}",
            "\u{4f60}a",
            "\u{1f600}\u{4f60}\u{4f60}b",
            " ",
        ] {
            for times in [0, 1, 84, 85, 254, 255, 256, 1_021] {
                let text = part.repeat(times);
                let ascii = text.chars().filter(char::is_ascii).count() as u64;
                let other = text.chars().count() as u64 - ascii;
                let tokens = ascii.div_ceil(4) + (other * 2).div_ceil(3);
                assert_eq!(Rough.count("", &text), tokens, "{part} {times}");
            }
        }
    }

    #[test]
    fn the_texts_of_each_face_are_counted() {
        let prompt = |face, json: &str| {
            let request = Request::body(face, json).unwrap();
            of(&request, "glm-4.7", None, &Rough).prompt_tokens
        };
        let long = "a".repeat(400);
        use Face::{Chat, Embeddings, Messages, Responses};
        for (face, json, texts) in [
            (
                Messages,
                r#"{"system":"T","messages":[{"content":"T"},{"content":[{"type":"text","text":"T"}]}]}"#,
                3,
            ),
            (
                Responses,
                r#"{"instructions":"T","input":"T","messages":"T"}"#,
                2,
            ),
            (
                Responses,
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"T"}]},{"type":"message","content":"T"}]}"#,
                2,
            ),
            (Embeddings, r#"{"input":["T","T"]}"#, 2),
            (Embeddings, r#"{"input":"T"}"#, 1),
            (Chat, r#"{"input":"T","messages":[{"content":"T"}]}"#, 1),
        ] {
            let counted = prompt(face, &json.replace('T', &long));
            let beside = counted - texts * 100;
            assert!((1..20).contains(&beside), "{json}: {counted}");
        }
        let embedded = Request::body(Embeddings, r#"{"input":"abcd"}"#).unwrap();
        assert_eq!(tokens(&embedded, None), 4 + 8);
    }

    #[test]
    fn the_longest_answer_is_what_the_request_allows_else_the_model() {
        let prompt = Request::prompt("hi").unwrap();
        let max = |request: &Request, model: &str, max_tokens| {
            of(request, model, max_tokens, &Rough).completion_tokens_max
        };
        assert_eq!(max(&prompt, "glm-5", Some(10)), 10);
        let caps = [
            (
                131_072,
                "glm-5.3 glm-4.7-flashx glm-4.5 glm-4.5-x something-new",
            ),
            (98_304, "glm-4.5-air glm-4.5-airx glm-4.5-flash"),
            (32_768, "glm-4.6v-flash"),
            (16_384, "glm-4.5v glm-4-flash-250414 glm-4-flashx"),
            (4_095, "glm-4-long"),
            (1_024, "glm-4v-flash"),
            (8_192, "glm-4-airx"),
            (128_000, "glm-4-plus glm-4-32b-0414-128k glm-4 glm-3-turbo"),
            (0, "embedding-3"),
        ];
        for (cap, models) in caps {
            for model in models.split(' ') {
                assert_eq!(max(&prompt, model, None), cap, "{model}");
                assert_eq!(max(&prompt, model, Some(1_000_000)), cap, "{model}");
            }
        }
        let chat = |bound: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{bound}}}"#);
            Request::chat(&body).unwrap()
        };
        // The configured bound is the plain prompts'.
        assert_eq!(max(&chat(""), "glm-4-long", Some(7)), 4_095);
        assert_eq!(max(&chat(r#","max_tokens":50"#), "glm-5", None), 50);
        assert_eq!(
            max(&chat(r#","max_tokens":200000"#), "glm-4-long", None),
            4_095
        );
        assert_eq!(max(&chat(r#","max_tokens":null"#), "glm-5", None), 131_072);
        assert_eq!(max(&chat(r#","max_tokens":"x""#), "glm-5", None), 131_072);
    }

    /// Every text is one token: what is left are the fixed numbers.
    struct One;

    impl CountTokens for One {
        fn count(&self, _: &str, _: &str) -> u64 {
            1
        }
    }

    fn prompt_tokens(messages: &str, more: &str) -> u64 {
        let chat = Request::chat(&format!(r#"{{"messages":{messages}{more}}}"#)).unwrap();
        of(&chat, "glm-5", None, &One).prompt_tokens
    }

    #[test]
    fn every_message_part_and_tool_is_counted() {
        let prompt = Request::prompt("hi").unwrap();
        assert_eq!(of(&prompt, "glm-5", None, &One).prompt_tokens, 3 + 3 + 1);
        let check = |messages: &str, more: &str, tokens: u64| {
            assert_eq!(prompt_tokens(messages, more), 3 + tokens, "{messages}");
        };
        check(r#"[{"role":"user","content":"hi"}]"#, "", 3 + 1);
        check(
            r#"[{"role":"system","content":"be"},{"role":"user","content":"hi"}]"#,
            "",
            2 * (3 + 1),
        );
        check(
            r#"[{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"1"},{"id":"2"}]}]"#,
            "",
            3 + 1 + 2,
        );
        check(
            r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:"}},
                {"type":"video_url"},{"type":"file"},{"type":"new"}]}]"#,
            "",
            3 + 1 + 1_600 + 2 * 16_000 + 1,
        );
        check(
            r#"[{"content":"hi"}]"#,
            r#","tools":[{"type":"function"},{"type":"retrieval"}]"#,
            3 + 1 + 150 + 2,
        );
        check(r#"[{"content":"hi"}]"#, r#","tools":[]"#, 3 + 1);
    }

    #[test]
    fn what_was_delivered_is_an_estimate_of_the_prompt_and_of_what_was_said() {
        let prompt = Request::prompt("hi").unwrap();
        let usage = delivered(&prompt, "glm-5", "so far", &One);
        let counted = (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
        );
        assert_eq!(counted, (3 + 3 + 1, 1, 8));
        assert!(usage.estimated);
    }

    #[test]
    fn whatever_is_sent_is_counted_somehow() {
        for messages in [
            "[{}]",
            "[7]",
            "[null]",
            r#"[{"content":7}]"#,
            r#"[{"content":{}}]"#,
            r#"[{"content":[1,[2]]}]"#,
        ] {
            assert!(prompt_tokens(messages, "") >= 6, "{messages}");
            assert!(prompt_tokens(messages, r#","tools":"x""#) >= 6);
        }
    }
}
