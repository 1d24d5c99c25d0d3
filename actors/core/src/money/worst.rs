//! The most that a call can come to in tokens: what budgets reserve. Unlike an estimate it must not be
//! exceeded, so it counts bytes where an estimate counts words, and takes the whole context of a model
//! where nothing of the request bounds what GLM puts into the prompt.

use serde_json::Value;

use crate::model::{Request, Reserve, Settings, WorstCase};
use crate::money::estimate::{completion_cap, of_model};

/// What GLM's chat template adds to a prompt, beginning and end; what it adds to a message is less than
/// the bytes of the message's own JSON.
const TEMPLATE_TOKENS: u64 = 64;
/// What it says about tools before it lists them.
const TOOLS_TOKENS: u64 = 512;
/// An image: GLM's vision models scale it down to 28 x 28 x 15000 pixels, a token for 28 x 28 of them.
const IMAGE_TOKENS: u64 = 15_000;

/// Tokens of prompt and answer together that models take. What is longer is refused (1261), which costs
/// nothing.
const CONTEXTS: [(&str, u64); 13] = [
    ("glm-5.3*", 1_048_576),
    ("glm-5.2*", 1_048_576),
    ("glm-5*", 204_800),
    ("glm-4.7*", 204_800),
    ("glm-4.6v*", 131_072),
    ("glm-4.6*", 204_800),
    ("glm-4.5*", 131_072),
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
        Request::Chat(raw) => match serde_json::from_str::<Value>(raw.get()) {
            Ok(body) => of_chat(raw.get(), &body),
            // One that nests too deep to be looked through.
            Err(_) => WorstCase {
                prompt: WorstCase::CONTEXT,
                completion: WorstCase::MODEL,
            },
        },
    }
}

fn of_chat(raw: &str, body: &Value) -> WorstCase {
    let max_tokens = body.get("max_tokens").and_then(Value::as_u64);
    let prompt = prompt_of(raw, body).map_or(WorstCase::CONTEXT, bounded);
    WorstCase {
        prompt,
        completion: max_tokens.map_or(WorstCase::MODEL, bounded),
    }
}

/// A token has at least a byte; what is no text counts by what GLM makes of it at most. `None`: GLM puts
/// into the prompt what it finds elsewhere.
fn prompt_of(raw: &str, body: &Value) -> Option<u64> {
    let mut tokens = bytes(raw) + TEMPLATE_TOKENS;
    if let Some(tools) = body.get("tools").filter(|tools| !tools.is_null()) {
        let are_functions =
            |tool: &Value| tool.get("type").and_then(Value::as_str) == Some("function");
        if !tools.as_array()?.iter().all(are_functions) {
            return None;
        }
        tokens += TOOLS_TOKENS;
    }
    let messages = body.get("messages").and_then(Value::as_array);
    for message in messages.into_iter().flatten() {
        let Some(Value::Array(parts)) = message.get("content") else {
            continue;
        };
        for part in parts {
            match part.get("type").and_then(Value::as_str) {
                Some("text") => {}
                Some("image_url") => {
                    // The picture itself is in the body, but not text.
                    let url = part
                        .pointer("/image_url/url")
                        .or_else(|| part.get("image_url"));
                    let inline = url.and_then(Value::as_str).map_or(0, bytes);
                    tokens = tokens.saturating_sub(inline) + IMAGE_TOKENS;
                }
                _ => return None,
            }
        }
    }
    Some(tokens)
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

/// What is reserved for a call to `model`.
#[must_use]
pub fn reserve(worst: WorstCase, settings: &Settings, model: &str) -> Reserve {
    let (prompt, completion) = tokens(worst, settings, model);
    Reserve {
        tokens: prompt.saturating_add(completion),
        cost: settings.prices.worst_case(model, prompt, completion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
