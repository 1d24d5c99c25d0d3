//! The most that a call can come to in tokens: what budgets reserve. Unlike an estimate it must not be
//! exceeded, so it counts bytes where an estimate counts words, and takes the whole context of a model
//! where nothing of the request bounds what GLM puts into the prompt.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::json;
use crate::model::{Face, Request, Reserve, Settings, WorstCase};
use crate::money::estimate::{Body, completion_cap, of_model};

/// What GLM's chat template adds to a prompt, beginning and end; what it adds to a message is less than
/// the bytes of the message's own JSON.
const TEMPLATE_TOKENS: u64 = 64;
/// What it says about tools before it lists them.
const TOOLS_TOKENS: u64 = 512;
/// An image: GLM's vision models scale it down to 28 x 28 x 15000 pixels, a token for 28 x 28 of them.
const IMAGE_TOKENS: u64 = 15_000;

/// Tokens of prompt and answer together that models take. What is longer is refused (1261), which costs
/// nothing.
const CONTEXTS: [(&str, u64); 15] = [
    ("glm-5.4*", 1_048_576),
    ("glm-5.3*", 1_048_576),
    ("glm-5.2*", 1_048_576),
    ("glm-5*", 204_800),
    ("glm-4.7*", 204_800),
    ("glm-4.6v*", 131_072),
    ("glm-4.6*", 204_800),
    ("glm-4.5*", 131_072),
    ("glm-4.1v*", 65_536),
    ("glm-4-long", 1_048_576),
    ("glm-4-airx", 8_192),
    ("glm-4v*", 131_072),
    ("glm-4-*", 131_072),
    ("glm-4", 131_072),
    // The most that any has.
    ("*", 1_048_576),
];

/// The tokens that a model takes. For a model that is not known, the most that any does.
fn context(model: &str) -> u64 {
    of_model(&CONTEXTS, model).unwrap_or(1_048_576)
}

/// What a request says of the most that it can come to.
#[must_use]
pub fn of(request: &Request) -> WorstCase {
    match request {
        Request::Prompt(text) => WorstCase {
            prompt: bounded(bytes(text) + TEMPLATE_TOKENS),
            completion: WorstCase::CONFIGURED,
        },
        Request::Body(face, raw) => match serde_json::from_str::<Body<'_>>(raw.get()) {
            Ok(body) => of_body(*face, raw.get(), &body),
            // One that says something twice.
            Err(_) => WorstCase {
                prompt: WorstCase::CONTEXT,
                completion: WorstCase::MODEL,
            },
        },
    }
}

/// A part of a message, or a tool.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(default, borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(default, borrow)]
    source: Option<&'a RawValue>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(default, borrow)]
    url: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

impl Part<'_> {
    fn is(&self, kinds: &[&str]) -> bool {
        let kind = self.kind.and_then(json::text);
        kind.is_some_and(|of| kinds.contains(&&*of))
    }

    /// The bytes of a picture that stands in the body itself, or of its address.
    fn image_bytes(&self) -> u64 {
        let Some(image) = self.image_url.or(self.source) else {
            return 0;
        };
        let told = match serde_json::from_str::<Image<'_>>(image.get()) {
            Ok(told) => told.data.or(told.url).unwrap_or(image),
            Err(_) => image,
        };
        json::text(told).map_or(0, |told| bytes(&told))
    }

    /// Whether it defines a function of the client's own: what any other tool finds is put into the prompt.
    fn is_function(&self, face: Face) -> bool {
        match face {
            Face::Messages => self.kind.is_none() || self.is(&["custom"]),
            _ => self.is(&["function", "custom"]),
        }
    }
}

/// Parts of messages that are nothing but the text that they hold.
const TEXTS: [&str; 11] = [
    "text",
    "input_text",
    "output_text",
    "summary_text",
    "refusal",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "function_call",
    "function_call_output",
    "reasoning",
];
/// Parts that hold other parts.
const WHOLES: [&str; 2] = ["message", "tool_result"];
const IMAGES: [&str; 3] = ["image_url", "image", "input_image"];

fn of_body(face: Face, raw: &str, body: &Body<'_>) -> WorstCase {
    let prompt = prompt_of(face, raw, body).map_or(WorstCase::CONTEXT, bounded);
    WorstCase {
        prompt,
        completion: body.bound(face).map_or(WorstCase::MODEL, bounded),
    }
}

/// A token has at least a byte; what is no text counts by what GLM makes of it at most. `None`: GLM puts
/// into the prompt what it finds elsewhere.
fn prompt_of(face: Face, raw: &str, body: &Body<'_>) -> Option<u64> {
    if body.is_elsewhere(face) {
        return None;
    }
    let mut tokens = bytes(raw) + TEMPLATE_TOKENS;
    if let Some(tools) = body.tools.filter(|tools| tools.get() != "null") {
        json::each(tools, |tool| {
            part_of(tool).is_some_and(|tool| tool.is_function(face))
        })?;
        tokens += TOOLS_TOKENS;
    }
    let mut is_known = true;
    for text in body.texts(face) {
        let _ = json::each(text, |message| {
            is_known = count_message(message, &mut tokens);
            is_known
        });
    }
    is_known.then_some(tokens)
}

fn part_of(json: &RawValue) -> Option<Part<'_>> {
    let object = json.get().starts_with('{').then_some(json.get());
    serde_json::from_str(object?).ok()
}

/// Counts what is no text in a message. `false`: what it comes to is not known.
fn count_message(message: &RawValue, tokens: &mut u64) -> bool {
    let Some(part) = part_of(message) else {
        // A text, or the numbers of one.
        return true;
    };
    match part.kind {
        None => count_parts(part.content, tokens),
        Some(_) => count_part(message, tokens),
    }
}

fn count_parts(parts: Option<&RawValue>, tokens: &mut u64) -> bool {
    let Some(parts) = parts.filter(|parts| parts.get().starts_with('[')) else {
        return true;
    };
    json::each(parts, |part| count_part(part, tokens)).is_some()
}

fn count_part(part: &RawValue, tokens: &mut u64) -> bool {
    let Some(part) = part_of(part) else {
        return false;
    };
    if part.is(&IMAGES) {
        // The picture itself is in the body, but not text.
        *tokens = tokens.saturating_sub(part.image_bytes()) + IMAGE_TOKENS;
        return true;
    }
    match part.is(&WHOLES) {
        true => count_parts(part.content, tokens),
        false => part.is(&TEXTS),
    }
}

fn bytes(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX >> 1)
}

/// As a number of tokens; the highest two numbers say something else.
fn bounded(tokens: u64) -> u32 {
    u32::try_from(tokens)
        .unwrap_or(u32::MAX)
        .min(WorstCase::MODEL - 1)
}

/// The most tokens of prompt and answer of a call to `model`, by the settings in force.
#[must_use]
pub fn tokens(worst: WorstCase, settings: &Settings, model: &str) -> (u64, u64) {
    let context = context(model);
    let prompt = match worst.prompt {
        0 | WorstCase::CONTEXT => context,
        known => u64::from(known).min(context),
    };
    let cap = completion_cap(model);
    let completion = match worst.completion {
        WorstCase::CONFIGURED => settings.glm.max_tokens.map_or(cap, u64::from),
        WorstCase::MODEL => cap,
        known => u64::from(known),
    };
    (prompt, completion)
}

/// What stays reserved for a call that is open, or in doubt: what was when it was sent, and no less than
/// would be now, since it is charged by the prices in force when it ends.
#[must_use]
pub fn kept(known: Option<Reserve>, by_now: Reserve) -> Reserve {
    let Some(known) = known else { return by_now };
    let cost = match (known.cost, by_now.cost) {
        (Some(known), Some(by_now)) if known.currency == by_now.currency => {
            Some(if known.nanos > by_now.nanos {
                known
            } else {
                by_now
            })
        }
        (known, by_now) => by_now.or(known),
    };
    Reserve {
        tokens: known.tokens.max(by_now.tokens),
        cost,
    }
}

/// What a call has come to of which GLM has read the prompt and answered nothing, at most.
#[must_use]
pub fn prompt(worst: WorstCase, settings: &Settings, model: &str) -> Reserve {
    let (prompt, _) = tokens(worst, settings, model);
    Reserve {
        tokens: prompt,
        cost: settings.prices.worst_case(model, prompt, 0),
    }
}

/// What is reserved for a call that one of these models may answer: what the dearest of them may come to.
#[must_use]
pub fn reserve<'m>(
    worst: WorstCase,
    settings: &Settings,
    models: impl IntoIterator<Item = &'m str>,
) -> Reserve {
    let of = |model: &str| {
        let (prompt, completion) = tokens(worst, settings, model);
        Reserve {
            tokens: prompt.saturating_add(completion),
            cost: settings.prices.worst_case(model, prompt, completion),
        }
    };
    let reserves = models.into_iter().map(of);
    let dearest = reserves.reduce(|one, other| kept(Some(one), other));
    dearest.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Currency, PriceRow, PriceTable};

    fn chat(messages: &str, more: &str) -> WorstCase {
        of(&Request::chat(&format!(r#"{{"messages":{messages}{more}}}"#)).unwrap())
    }

    #[test]
    fn a_token_has_at_least_a_byte() {
        let prompt = of(&Request::prompt("four").unwrap());
        assert_eq!(prompt.prompt, 4 + 64);
        let text = r#"[{"role":"user","content":"four"}]"#;
        let body = format!(r#"{{"messages":{text}}}"#);
        assert_eq!(chat(text, "").prompt as usize, body.len() + 64);
    }

    #[test]
    fn what_is_no_text_counts_by_what_it_may_become() {
        let image = |url: &str| {
            chat(
                &format!(
                    r#"[{{"content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]"#
                ),
                "",
            )
            .prompt
        };
        let by_url = image("http://x/y.png");
        assert!((15_000..15_200).contains(&by_url), "{by_url}");
        let inline = image(&format!("data:{}", "A".repeat(1_000_000)));
        assert!((15_000..15_200).contains(&inline), "{inline}");
        for part in ["video_url", "file", "file_url", "input_audio", "new"] {
            let messages = format!(r#"[{{"content":[{{"type":"{part}"}}]}}]"#);
            assert_eq!(chat(&messages, "").prompt, WorstCase::CONTEXT, "{part}");
        }
        let text = r#"[{"content":"hi"}]"#;
        for tools in [
            r#"[{"type":"web_search"}]"#,
            r#"[{"type":"function"},{"type":"retrieval"}]"#,
            r#""x""#,
        ] {
            assert_eq!(
                chat(text, &format!(r#","tools":{tools}"#)).prompt,
                WorstCase::CONTEXT,
                "{tools}"
            );
        }
        let functions = chat(text, r#","tools":[{"type":"function"}]"#).prompt;
        assert!((512..800).contains(&functions), "{functions}");
        assert!(chat(text, r#","tools":null"#).prompt < 200);
    }

    #[test]
    fn each_face_is_bounded_in_its_own_words() {
        let worst = |face, json: &str| of(&Request::body(face, json).unwrap());
        let known = |face, json: &str| {
            let worst = worst(face, json);
            let bytes = json.len() as u32;
            assert!(
                (bytes..bytes + 700).contains(&worst.prompt),
                "{json}: {worst:?}"
            );
            worst.completion
        };
        use Face::{Embeddings, Messages, Responses};
        let text = r#"{"max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"hi"}],
            "tools":[{"name":"f","input_schema":{}}]}"#;
        assert_eq!(known(Messages, text), 9);
        assert_eq!(
            known(
                Responses,
                r#"{"input":"hi","max_output_tokens":7,"max_tokens":1}"#
            ),
            7
        );
        let items = r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"}]},
            {"type":"function_call_output","call_id":"c","output":"d"}]}"#;
        assert_eq!(known(Responses, items), WorstCase::MODEL);
        assert_eq!(known(Embeddings, r#"{"input":["a",[1,2,3]]}"#), 0);

        let picture = "A".repeat(1_000_000);
        for (face, json) in [
            (
                Messages,
                format!(
                    r#"{{"messages":[{{"content":[{{"type":"image","source":{{"type":"base64","data":"{picture}"}}}}]}}]}}"#
                ),
            ),
            (
                Messages,
                format!(
                    r#"{{"messages":[{{"content":[{{"type":"tool_result","content":[{{"type":"image","source":{{"data":"{picture}"}}}}]}}]}}]}}"#
                ),
            ),
            (
                Responses,
                format!(
                    r#"{{"input":[{{"role":"user","content":[{{"type":"input_image","image_url":"{picture}"}}]}}]}}"#
                ),
            ),
        ] {
            let prompt = worst(face, &json).prompt;
            assert!((15_000..15_400).contains(&prompt), "{prompt}");
        }
        for (face, json) in [
            (
                Responses,
                r#"{"input":"hi","previous_response_id":"resp_1"}"#,
            ),
            (Responses, r#"{"input":"hi","conversation":"conv_1"}"#),
            (Responses, r#"{"input":"hi","prompt":{"id":"p"}}"#),
            (Messages, r#"{"messages":[{}],"container":"c"}"#),
            (Messages, r#"{"messages":[{}],"mcp_servers":[{}]}"#),
            (
                Responses,
                r#"{"input":[{"role":"user","content":[{"type":"input_file"}]}]}"#,
            ),
            (
                Responses,
                r#"{"input":"hi","tools":[{"type":"web_search"}]}"#,
            ),
            (
                Messages,
                r#"{"messages":[{"content":[{"type":"document"}]}]}"#,
            ),
            (
                Messages,
                r#"{"messages":[{}],"tools":[{"type":"web_search_20250305","name":"w"}]}"#,
            ),
        ] {
            assert_eq!(worst(face, json).prompt, WorstCase::CONTEXT, "{json}");
        }
    }

    #[test]
    fn what_the_request_leaves_open_is_bounded_when_it_is_sent() {
        let mut settings = Settings::default();
        let completion = |worst, settings: &Settings, model| tokens(worst, settings, model).1;
        let prompt = of(&Request::prompt("hi").unwrap());
        assert_eq!(completion(prompt, &settings, "glm-4-long"), 4_095);
        // A fallback's own cap.
        assert_eq!(completion(prompt, &settings, "glm-5"), 131_072);
        settings.glm.max_tokens = Some(10);
        // As it is configured by now.
        assert_eq!(completion(prompt, &settings, "glm-5"), 10);
        let text = r#"[{"content":"hi"}]"#;
        // Not a chat's.
        assert_eq!(completion(chat(text, ""), &settings, "glm-5"), 131_072);
        assert_eq!(
            completion(chat(text, r#","max_tokens":7"#), &settings, "glm-5"),
            7
        );
    }

    #[test]
    fn the_dearest_model_that_may_answer_is_reserved_for() {
        let mut prices = PriceTable::new(Currency::Cny);
        for (model, price) in [("glm-4.7", 1_000_000), ("glm-5", 3_000_000)] {
            let row = PriceRow {
                input: price,
                cached_input: price,
                output: price,
                ..PriceRow::default()
            };
            prices.add(model, row);
        }
        let settings = Settings {
            prices: std::sync::Arc::new(prices),
            ..Settings::default()
        };
        let worst = WorstCase {
            prompt: 10,
            completion: 10,
        };
        let nanos = |models: &[&str]| {
            let reserve = reserve(worst, &settings, models.iter().copied());
            assert_eq!(reserve.tokens, 20);
            reserve.cost.map(|cost| cost.nanos)
        };
        assert_eq!(nanos(&["glm-4.7"]), Some(20));
        assert_eq!(nanos(&["glm-4.7", "glm-5"]), Some(60));
        assert_eq!(nanos(&["glm-5", "glm-4.7"]), Some(60));
        assert_eq!(nanos(&["unheard-of", "glm-4.7"]), Some(20));
    }

    #[test]
    fn no_prompt_is_longer_than_the_context() {
        let settings = Settings::default();
        let prompt = |prompt, model| {
            let worst = WorstCase {
                prompt,
                completion: 0,
            };
            tokens(worst, &settings, model).0
        };
        assert_eq!(prompt(4_000_000, "glm-4.7"), 204_800);
        assert_eq!(prompt(4_000_000, "glm-4-airx"), 8_192);
        assert_eq!(prompt(WorstCase::CONTEXT, "glm-4.6v-flash"), 131_072);
        assert_eq!(prompt(0, "unheard-of"), 1_048_576, "not known");
        assert_eq!(prompt(50, "glm-4.7"), 50);
    }
}
