//! Writes the body of a call. A chat request keeps every field, its order and its spelling: what GLM
//! will understand tomorrow goes through today.

use std::borrow::Cow;
use std::ops::Range;

use onelane_actors::ports::GlmCall;
use onelane_core::model::model_name::{canonical, is_model};
use onelane_core::model::{Face, Request};
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::object::Object;

/// The body of `call`. Errors when the stored request is no JSON object: another attempt won't help.
pub(crate) fn body(call: &GlmCall) -> Result<Vec<u8>, serde_json::Error> {
    match call.request.as_ref() {
        Request::Prompt(prompt) => prompt_body(call, prompt),
        Request::Body(face, raw) => whole_body(call, *face, raw),
    }
}

#[derive(serde::Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(serde::Serialize)]
struct PromptBody<'a> {
    model: &'a str,
    messages: [Message<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    stream: bool,
    request_id: &'a str,
}

fn prompt_body(call: &GlmCall, prompt: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&PromptBody {
        model: &call.model,
        messages: [Message {
            role: "user",
            content: prompt,
        }],
        max_tokens: call.max_tokens,
        temperature: call.temperature,
        stream: false,
        request_id: call.request_id.as_str(),
    })
}

/// The body of a face with what the lane has to set: the model that is called, where it is not the one that the body
/// names; the id of the attempt; that nothing comes in pieces, where it can't. All else is as the client wrote it, to the
/// byte.
fn whole_body(call: &GlmCall, face: Face, raw: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    let fields: Object<'_> = serde_json::from_str(raw.get())?;
    let mut text = Spliced::new(raw.get());
    let id = || serde_json::to_string(call.request_id.as_str());
    let model = || serde_json::to_string(&call.model);
    // Only a task is asked for what its client wants in pieces, and not told so.
    let asks = |value: &RawValue| value.get() == "true";
    let is_stopped = !call.streams && face.streams() && fields.get("stream").is_some_and(asks);
    let mut before = None;
    let mut seen = Vec::new();
    for (name, value) in fields.iter() {
        let is_set = matches!(name, "model" | "request_id" | "stream");
        if is_set && seen.contains(&name) {
            // The first one counts.
            text.cut(before, value);
            before = Some(value);
            continue;
        }
        seen.extend(is_set.then_some(name));
        match name {
            "model" if !is_called(call, value) => text.replace(value, model()?),
            "request_id" if face.echoes() => text.replace(value, id()?),
            "stream" if is_stopped => text.replace(value, "false".to_owned()),
            // Means something only with `stream`.
            "stream_options" if is_stopped => text.cut(before, value),
            // The queue serves it: GLM is asked for the answer itself.
            "background" if face == Face::Responses && asks(value) => {
                text.replace(value, "false".to_owned());
            }
            _ => {}
        }
        before = Some(value);
    }
    let mut more = Vec::new();
    if fields.get("model").is_none() {
        more.push(format!("\"model\":{}", model()?));
    }
    if face.echoes() && fields.get("request_id").is_none() {
        more.push(format!("\"request_id\":{}", id()?));
    }
    let comma = if before.is_some() { "," } else { "" };
    if !more.is_empty() {
        text.append(format!("{comma}{}", more.join(",")));
    }
    text.end()
}

/// Whether a body names the model that is called, however it spells it.
fn is_called(call: &GlmCall, named: &RawValue) -> bool {
    let name: Option<Cow<'_, str>> = serde_json::from_str(named.get()).ok();
    name.is_some_and(|name| is_model(&name, &canonical(&call.model)))
}

/// The text of an object with some places of it changed.
struct Spliced<'a> {
    text: &'a str,
    /// What comes in the place of what, from the front to the back.
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Spliced<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            text,
            changes: Vec::new(),
        }
    }

    /// Where a value of the text stands in it.
    fn place(&self, value: &RawValue) -> Range<usize> {
        let (whole, part) = (self.text.as_ptr().addr(), value.get().as_ptr().addr());
        let from = part.saturating_sub(whole);
        from..from + value.get().len()
    }

    fn replace(&mut self, value: &RawValue, with: String) {
        self.changes.push((self.place(value), with));
    }

    /// Leaves out a field, which stands behind the field of another value or is the first.
    fn cut(&mut self, before: Option<&RawValue>, value: &RawValue) {
        let end = self.place(value).end;
        let range = match before {
            Some(before) => self.place(before).end..end,
            None => {
                let begin = self.text.find('{').map_or(0, |at| at + 1);
                let rest = self.text.get(end..).unwrap_or_default();
                // With the comma behind it, if another field follows.
                let blanks = rest.len() - rest.trim_start().len();
                let comma = usize::from(rest.trim_start().starts_with(','));
                begin..end + (blanks + 1) * comma
            }
        };
        self.changes.push((range, String::new()));
    }

    /// Adds something before the end of the object.
    fn append(&mut self, text: String) {
        let end = self.text.rfind('}').unwrap_or(self.text.len());
        self.changes.push((end..end, text));
    }

    fn end(self) -> Result<Vec<u8>, serde_json::Error> {
        let added: usize = self.changes.iter().map(|(_, with)| with.len()).sum();
        let mut out = String::with_capacity(self.text.len() + added);
        let mut at = 0;
        let outside = || serde_json::Error::custom("a change lies outside of the body");
        for (range, with) in self.changes {
            out.push_str(self.text.get(at..range.start).ok_or_else(outside)?);
            out.push_str(&with);
            at = range.end;
        }
        out.push_str(self.text.get(at..).ok_or_else(outside)?);
        Ok(out.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use onelane_actors::testing::glm_call;
    use serde_json::Value;

    use super::*;

    fn call(request: Request) -> GlmCall {
        glm_call(7, 2, request)
    }

    const ID: &str = "019aae00000070008000000000000007-2";

    fn check(chat: &str, want: &str) {
        let got = body(&call(Request::chat(chat).unwrap())).unwrap();
        let want = want.replace("$ID", ID);
        assert_eq!(String::from_utf8(got).unwrap(), want, "{chat}");
    }

    #[test]
    fn a_prompt_becomes_one_user_message() {
        let mut call = call(Request::prompt("你好 \"GLM\"\n").unwrap());
        let plain = String::from_utf8(body(&call).unwrap()).unwrap();
        let want = r#"{"model":"glm-4.7","messages":[{"role":"user","content":"你好 \"GLM\"\n"}],"stream":false,"request_id":"$ID"}"#;
        assert_eq!(plain, want.replace("$ID", ID));

        call.max_tokens = Some(512);
        call.temperature = Some(0.7);
        let set: Value = serde_json::from_slice(&body(&call).unwrap()).unwrap();
        assert_eq!(set["max_tokens"], 512);
        assert_eq!(set["temperature"].to_string(), "0.7");
    }

    #[test]
    fn a_chat_body_keeps_order_spelling_nulls_and_the_unknown() {
        check(
            r#"{"zeta":1.50,"messages":[ {"role":"user","content":"h\u0069"} ],"response_format":null,"top_p":9e-1,"new":{"b":1,"a":[]},"model":"glm-4.7","stream":false,"request_id":"mine-123"}"#,
            r#"{"zeta":1.50,"messages":[ {"role":"user","content":"h\u0069"} ],"response_format":null,"top_p":9e-1,"new":{"b":1,"a":[]},"model":"glm-4.7","stream":false,"request_id":"$ID"}"#,
        );
    }

    #[test]
    fn what_the_lane_decides_is_added_when_it_is_missing() {
        check(
            r#"{"messages":[{}]}"#,
            r#"{"messages":[{}],"model":"glm-4.7","request_id":"$ID"}"#,
        );
    }

    #[test]
    fn a_model_goes_out_as_the_body_spells_it() {
        for spelled in ["\"GLM-4.7\"", "\" glm-4.7 \"", "\"glm\\u002d4.7\""] {
            let chat = format!(r#"{{"model":{spelled},"messages":[{{}}]}}"#);
            let want = r#"{"model":$M,"messages":[{}],"request_id":"$ID"}"#;
            check(&chat, &want.replace("$M", spelled));
        }
    }

    #[test]
    fn what_the_lane_decides_is_set_in_its_place() {
        check(
            r#"{"model":"glm-5","stream":true,"stream_options":{"include_usage":true},"messages":[{}]}"#,
            r#"{"model":"glm-4.7","stream":false,"messages":[{}],"request_id":"$ID"}"#,
        );
        check(
            r#"{"messages":[{}],"model":null,"request_id":null,"stream":null}"#,
            r#"{"messages":[{}],"model":"glm-4.7","request_id":"$ID","stream":null}"#,
        );
    }

    #[test]
    fn the_body_of_each_face_reaches_glm_to_the_byte_but_for_what_the_lane_sets() {
        let odd = r#""zeta":1.50,"e":1E+2,"big":123456789012345678901234567890,"n":null,"esc":"\u4e2d\/\n","dup":1,"dup":2, "o" : {"b":1,"a":[ ],"b":2},"𝄞":"😀""#;
        for (face, subject) in [
            (
                Face::Chat,
                r#""messages":[ {"role":"user","content":"h\u0069"} ]"#,
            ),
            (
                Face::Responses,
                r#""input":"h\u0069","previous_response_id":null"#,
            ),
            (
                Face::Messages,
                r#""max_tokens":9.0e1,"messages":[{"content":"hi"}],"system":null"#,
            ),
            (Face::Embeddings, r#""input":["a",[1,2]],"dimensions":256"#),
        ] {
            let id = if face.echoes() {
                r#","request_id":"$ID""#
            } else {
                ""
            }
            .replace("$ID", ID);
            let sent = |json: &str, streams: bool| {
                let mut call = call(Request::body(face, json).unwrap());
                call.streams = streams;
                String::from_utf8(body(&call).unwrap()).unwrap()
            };
            let own = format!(r#"{{ "mod\u0065l" :" GLM-4.7",{odd} , {subject},"stream":false }}"#);
            let want = format!("{}{id}}}", own.strip_suffix('}').unwrap());
            assert_eq!(sent(&own, false), want, "{face:?}");
            let bare = format!("{{{subject},{odd}}}");
            let want = format!(r#"{{{subject},{odd},"model":"glm-4.7"{id}}}"#);
            assert_eq!(sent(&bare, false), want, "{face:?}");
            let streamed =
                format!(r#"{{{subject},"stream":true,"model":"glm-5","stream_options":{{}}}}"#);
            let want = streamed.replace("glm-5", "glm-4.7");
            let want = format!("{}{id}}}", want.strip_suffix('}').unwrap());
            assert_eq!(sent(&streamed, face.streams()), want, "{face:?}");
        }
    }

    #[test]
    fn what_means_nothing_without_a_stream_is_left_out_wherever_it_stands() {
        for (chat, want) in [
            (
                r#"{ "stream_options":{} , "stream":true,"messages":[{}],"model":"glm-4.7"}"#,
                r#"{ "stream":false,"messages":[{}],"model":"glm-4.7","request_id":"$ID"}"#,
            ),
            (
                r#"{"messages":[{}],"stream":true,"model":"glm-4.7" , "stream_options":{"a":1} }"#,
                r#"{"messages":[{}],"stream":false,"model":"glm-4.7" ,"request_id":"$ID"}"#,
            ),
        ] {
            check(chat, want);
        }
    }

    #[test]
    fn what_the_queue_serves_in_the_background_is_asked_for_in_the_foreground() {
        let json = r#"{"input":"hi","background":true,"store":true,"model":"glm-4.7"}"#;
        let call = call(Request::body(Face::Responses, json).unwrap());
        let want = json.replace("\"background\":true", "\"background\":false");
        assert_eq!(String::from_utf8(body(&call).unwrap()).unwrap(), want);
        // Elsewhere it is a field like any other.
        let json = r#"{"messages":[{}],"background":true,"model":"glm-4.7"}"#;
        let sent = body(&self::call(Request::body(Face::Messages, json).unwrap()));
        assert_eq!(String::from_utf8(sent.unwrap()).unwrap(), json);
    }

    #[test]
    fn a_field_given_twice_can_not_bring_back_what_the_lane_decided() {
        let chat = RawValue::from_string(
            r#"{"stream":false,"messages":[{}],"stream":true,"model":"a","mod\u0065l":"b"}"#
                .to_owned(),
        );
        let got = body(&call(Request::Body(Face::Chat, chat.unwrap().into()))).unwrap();
        assert_eq!(
            String::from_utf8(got).unwrap(),
            r#"{"stream":false,"messages":[{}],"model":"glm-4.7","request_id":"$ID"}"#
                .replace("$ID", ID)
        );
    }

    #[test]
    fn a_stored_request_that_is_no_object_is_an_error() {
        for text in ["[]", "7", "null", "\"x\""] {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            assert!(
                body(&call(Request::Body(Face::Chat, raw.into()))).is_err(),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn every_other_field_arrives_with_its_value(
            fields in proptest::collection::btree_map("[a-z_\"\\\\\u{4e00}]{1,8}", proptest::num::i64::ANY, 0..8)
        ) {
            let mut chat = serde_json::to_value(&fields).unwrap();
            chat["messages"] = serde_json::json!([{"role": "user", "content": "hi"}]);
            let raw = RawValue::from_string(chat.to_string()).unwrap();
            let sent: Value = serde_json::from_slice(&body(&call(Request::Body(Face::Chat, raw.into()))).unwrap()).unwrap();
            for (name, value) in chat.as_object().unwrap() {
                if !["model", "stream", "request_id", "stream_options"].contains(&name.as_str()) {
                    proptest::prop_assert_eq!(&sent[name], value);
                }
            }
            proptest::prop_assert_eq!(&sent["model"], "glm-4.7");
            proptest::prop_assert_eq!(&sent["request_id"], ID);
        }
    }
}
