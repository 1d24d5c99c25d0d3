//! Writes bodies as GLM does, and reads what a request asks for as strictly as GLM does.

use std::borrow::Cow;

use bytes::Bytes;
use onelane_core::model::{Face, FailureClass, Timestamp, json, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::config::Tokens;
use super::content::{Choice, Form, say, tokens_of};
use super::faces::{as_chat, as_face};
use super::fault::{AnswerWith, ErrorFault, ResetWording, Shape};
use crate::glm::{ErrorTable, RowClass, beijing_text};
use crate::object::Object;

/// A chat request, as far as the simulator cares.
#[derive(Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) prompt: String,
    pub(crate) request_id: Option<String>,
    pub(crate) stream: bool,
    pub(crate) form: Form,
    pub(crate) wishes: Wishes,
    pub(crate) face: Face,
    /// As it came, where its face asks for more than a chat does.
    pub(crate) body: Value,
}

/// Wishes that a prompt may tell the simulator, between double brackets:
/// `[[sim latency_ms=50 prompt_tokens=600 completion_tokens=400 cached_tokens=0 pieces=10 piece_ms=5 priority=5]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wishes {
    pub(crate) latency_ms: Option<u64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    /// Of a stream: how many pieces, and so many milliseconds before each.
    pub(crate) pieces: Option<u64>,
    pub(crate) piece_ms: Option<u64>,
    pub(crate) priority: Option<i32>,
}

/// Reads a request's body; the error is the refusal that GLM would send.
pub(crate) fn read(face: Face, body: &[u8]) -> Result<ChatRequest, ErrorFault> {
    if face == Face::Chat {
        return read_chat(body);
    }
    let Ok(Value::Object(asked)) = serde_json::from_slice(body) else {
        return Err(ErrorFault::of("1210"));
    };
    let chat = Value::Object(as_chat(face, asked.clone())).to_string();
    Ok(ChatRequest {
        face,
        body: Value::Object(asked),
        ..read_chat(chat.as_bytes())?
    })
}

fn read_chat(body: &[u8]) -> Result<ChatRequest, ErrorFault> {
    let refuse = |code: &str, message: &str| ErrorFault {
        message: Some(message.to_owned()),
        ..ErrorFault::of(code)
    };
    // By type: a tree of some megabytes takes gigabytes.
    let Ok(fields) = serde_json::from_slice::<Object<'_>>(body) else {
        return Err(ErrorFault::of("1210"));
    };
    let field = |name: &str| fields.get(name).filter(|value| value.get() != "null");
    let model = match field("model").map(json::text) {
        None => return Err(refuse("1213", "未正常接收到model参数。")),
        Some(Some(model)) if !model.is_empty() => model.into_owned(),
        Some(_) => return Err(refuse("1214", "model 参数非法。请检查文档。")),
    };
    let messages = match field("messages") {
        None => return Err(refuse("1213", "未正常接收到messages参数。")),
        Some(messages) => Messages::read(messages),
    };
    let Some(messages) = messages else {
        return Err(refuse("1214", "messages 参数非法。请检查文档。"));
    };
    let request_id = match field("request_id").map(json::text) {
        None => None,
        Some(Some(id)) if (6..=64).contains(&id.chars().count()) => Some(id.into_owned()),
        Some(_) => return Err(refuse("1214", "request_id 参数非法。请检查文档。")),
    };
    let prompt = messages.prompt();
    let wishes = wishes_of(&prompt)
        .map_err(|word| refuse("1210", &format!("[[sim ...]]: {word} is not understood")))?;
    let form = Form::read(&fields, messages.last_role.as_deref())?;
    Ok(ChatRequest {
        model,
        prompt,
        request_id,
        stream: field("stream").is_some_and(|stream| stream.get() == "true"),
        form,
        wishes,
        face: Face::Chat,
        body: Value::Null,
    })
}

/// What counts of the messages of a chat.
struct Messages<'a> {
    /// The content of the last one of the user, or else of the last one.
    content: Option<&'a RawValue>,
    /// Whose the last one is.
    last_role: Option<Cow<'a, str>>,
}

/// What is read of a message.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    role: Option<&'a RawValue>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
}

impl<'a> Messages<'a> {
    /// `None`: there is none, or it is no list.
    fn read(list: &'a RawValue) -> Option<Self> {
        let (mut last, mut of_user) = (None, None);
        json::each(list, |message| {
            let message = serde_json::from_str::<Message<'_>>(message.get()).ok();
            let (role, content) = message.map_or((None, None), |m| (m.role, m.content));
            let role = role.and_then(json::text);
            if role.as_deref() == Some("user") {
                of_user = Some(content);
            }
            last = Some((content, role));
            true
        })?;
        let (content, last_role) = last?;
        Some(Self {
            content: of_user.unwrap_or(content),
            last_role,
        })
    }

    /// Their text: a content, or the text parts of it.
    fn prompt(&self) -> String {
        #[derive(Deserialize)]
        struct Part<'a> {
            #[serde(default, borrow)]
            text: Option<&'a RawValue>,
        }
        let Some(content) = self.content else {
            return String::new();
        };
        if let Some(text) = json::text(content) {
            return text.into_owned();
        }
        let mut prompt = String::new();
        json::each(content, |part| {
            let part = serde_json::from_str::<Part<'_>>(part.get()).ok();
            if let Some(text) = part.and_then(|part| json::text(part.text?)) {
                prompt.push_str(&text);
            }
            true
        });
        prompt
    }
}

/// The error is the word that makes no sense.
fn wishes_of(prompt: &str) -> Result<Wishes, &str> {
    let mut wishes = Wishes::default();
    let Some((_, rest)) = prompt.split_once("[[sim ") else {
        return Ok(wishes);
    };
    let (inside, _) = rest.split_once("]]").ok_or("a missing ]]")?;
    for word in inside.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or(word)?;
        let number = || value.parse().map(Some).map_err(|_| word);
        match name {
            "latency_ms" => wishes.latency_ms = number()?,
            "prompt_tokens" => wishes.prompt_tokens = number()?,
            "completion_tokens" => wishes.completion_tokens = number()?,
            "cached_tokens" => wishes.cached_tokens = number()?,
            "pieces" => wishes.pieces = number()?,
            "piece_ms" => wishes.piece_ms = number()?,
            "priority" => wishes.priority = Some(value.parse().map_err(|_| word)?),
            _ => return Err(word),
        }
    }
    Ok(wishes)
}

#[derive(Serialize)]
struct Completion<'a> {
    choices: Vec<Choice>,
    created: i64,
    id: &'a str,
    model: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Usage {
    completion_tokens: u64,
    completion_tokens_details: CompletionDetails,
    prompt_tokens: u64,
    prompt_tokens_details: PromptDetails,
    total_tokens: u64,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

/// GLM's answer about a task that is accepted, and about one that is not finished.
pub(crate) fn task_processing(asked: &ChatRequest, id: &str) -> Bytes {
    task_body(asked, id, "PROCESSING").to_string().into()
}

/// The answer to a look at a task that failed.
pub(crate) fn task_failed(asked: &ChatRequest, id: &str, error: Option<&ErrorFault>) -> Bytes {
    let mut body = task_body(asked, id, "FAIL");
    if let (Some(error), Some(fields)) = (error, body.as_object_mut()) {
        let message = error.message.clone();
        let message = message.unwrap_or_else(|| words_of(&error.code));
        let error = json!({"code": error.code, "message": message});
        fields.insert("error".to_owned(), error);
    }
    body.to_string().into()
}

fn task_body(asked: &ChatRequest, id: &str, status: &str) -> Value {
    json!({
        "id": id,
        "model": asked.model,
        "request_id": asked.request_id.as_deref().unwrap_or(id),
        "task_status": status,
    })
}

/// A look at a task that the account did not make: a number outside an error object.
pub(crate) fn task_unknown() -> ErrorFault {
    ErrorFault {
        shape: Shape::FlatNumber,
        message: Some("任务不存在".to_owned()),
        ..ErrorFault::of("1233")
    }
}

/// The answer to `asked` with this id, as GLM shapes it, with a status when a task shows it; and the tokens that are
/// counted for it.
pub(crate) fn completion(
    asked: &ChatRequest,
    with: &AnswerWith,
    (tokens, length): (Tokens, Option<u64>),
    now: Timestamp,
    id: &str,
    task_status: Option<&'static str>,
) -> (Bytes, u64) {
    let said = say(&asked.form, &asked.prompt, with, length, id);
    let (prompt, completion, cached) = match with.tokens.unwrap_or(tokens) {
        Tokens::Counted => (tokens_of(&asked.prompt), said.tokens, 0),
        Tokens::Fixed {
            prompt,
            completion,
            cached,
        } => (prompt, completion, cached),
    };
    let wishes = &asked.wishes;
    let prompt_tokens = wishes.prompt_tokens.unwrap_or(prompt);
    let completion_tokens = wishes.completion_tokens.unwrap_or(completion);
    let total_tokens = prompt_tokens.saturating_add(completion_tokens);
    let body = Completion {
        choices: said.choices,
        created: now.as_millis().div_euclid(1_000),
        model: with.served_by.as_ref().unwrap_or(&asked.model),
        request_id: asked.request_id.as_deref().unwrap_or(id),
        task_status,
        usage: (!with.untold).then_some(Usage {
            completion_tokens,
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: said.reasoning_tokens.min(completion_tokens),
            },
            prompt_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: wishes.cached_tokens.unwrap_or(cached),
            },
            total_tokens,
        }),
        id,
    };
    // Strings and numbers always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    (as_face(asked.face, &asked.body, body.into()), total_tokens)
}

/// 14 digits of Beijing time and 16 of hex; `salt` makes it differ from all others.
pub(crate) fn id(now: Timestamp, salt: u64) -> String {
    let digits: String = beijing_text(now)
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    format!("{digits}{salt:016x}")
}

/// The HTTP status of a refusal.
pub(crate) fn error_status(fault: &ErrorFault) -> u16 {
    if let Some(status) = fault.status {
        return status;
    }
    let Some(row) = ErrorTable::shipped().row(&fault.code) else {
        return 400;
    };
    // Without a documented status: one that fits the class.
    row.http_status.unwrap_or(match row.class {
        RowClass::Is(FailureClass::ServerTransient) => 500,
        RowClass::Is(FailureClass::OperatorFatal) => 403,
        _ => 400,
    })
}

/// The body of a refusal.
pub(crate) fn error_body(fault: &ErrorFault, now: Timestamp, salt: u64) -> Bytes {
    let code = fault.code.as_str();
    let number = code.parse::<u32>().map_or(json!(code), Value::from);
    let message = message_of(fault, now);
    let body = match fault.shape {
        Shape::Nested => {
            let mut body = json!({"error": {"code": code, "message": message}});
            if code == "1301"
                && let Some(fields) = body.as_object_mut()
            {
                let filter = json!([{"level": 1, "role": "user"}]);
                fields.insert("contentFilter".to_owned(), filter);
            }
            body
        }
        Shape::NestedNumber => json!({"error": {"code": number, "message": message}}),
        Shape::Flat => json!({"code": code, "message": message}),
        Shape::FlatNumber => json!({"code": number, "msg": message, "success": false}),
        Shape::Anthropic | Shape::Bracketed => {
            let id = id(now, salt);
            let kind = match error_status(fault) {
                429 => "rate_limit_error",
                _ => "api_error",
            };
            let mut error = json!({"type": kind, "message": format!("[{code}][{message}][{id}]")});
            if fault.shape == Shape::Anthropic
                && let Some(fields) = error.as_object_mut()
            {
                fields.insert("code".to_owned(), json!(code));
            }
            json!({"type": "error", "error": error, "request_id": id})
        }
    };
    body.to_string().into()
}

fn message_of(fault: &ErrorFault, now: Timestamp) -> String {
    let words = match (&fault.message, fault.wording) {
        (Some(words), _) => words.clone(),
        (None, ResetWording::English) => "Usage limit reached.".to_owned(),
        (None, _) => words_of(&fault.code),
    };
    let Some(ms) = fault.reset_in_ms else {
        return words;
    };
    let reset = beijing_text(now.plus_ms(ms.min(limits::RESET_AHEAD_MS_MAX)));
    match fault.wording {
        ResetWording::Mainland => format!("{words}您的限额将在 {reset} 重置。"),
        ResetWording::MainlandContinue => {
            format!("{}，{reset} 后可继续使用", words.trim_end_matches('。'))
        }
        ResetWording::English => format!("{words} Your limit will reset at {reset}"),
    }
}

/// The words of the real service where they are known, else those of the error table.
fn words_of(code: &str) -> String {
    let known = match code {
        "1000" => "身份验证失败。",
        "1001" => "Header中未收到Authorization参数，无法进行身份验证。",
        "1113" => "余额不足或无可用资源包,请充值。",
        "1210" => "API 调用参数有误，请检查文档。",
        "1211" => "模型不存在，请检查模型代码。",
        "1231" => "您已有请求ID相同的请求。",
        "1234" => "网络错误，错误id：20261123，请联系客服。",
        "1261" => "Prompt 超长",
        "1301" => {
            "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语，感谢您的配合。"
        }
        "1302" => "您的账户已达到速率限制，请您控制请求频率",
        "1305" => "该模型当前访问量过大，请您稍后再试",
        "1308" => "已达到 5 小时的使用上限。",
        "1310" => "已达到每周/每月使用上限。",
        _ => {
            return ErrorTable::shipped()
                .row(code)
                .map_or_else(|| format!("error {code}"), |row| row.meaning.clone());
        }
    };
    known.to_owned()
}

/// A route that does not exist, as the platform's gateway says it.
pub(crate) fn not_found(path: &str, now: Timestamp) -> Bytes {
    let body = json!({
        "timestamp": now.to_rfc3339(),
        "status": 404,
        "error": "Not Found",
        "path": path,
    });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_420_800_000);

    fn asked(prompt: &str) -> ChatRequest {
        let body = json!({"model": "glm-5", "request_id": "id-0001", "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": prompt},
        ]});
        read(Face::Chat, body.to_string().as_bytes()).unwrap()
    }

    fn answer(asked: &ChatRequest, tokens: Tokens) -> Value {
        let (body, _) = completion(
            asked,
            &AnswerWith::default(),
            (tokens, None),
            NOW,
            &id(NOW, 7),
            None,
        );
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn hostile_bodies_are_read_by_type() {
        let many = |of: &str| vec![of; 300_000].join(",");
        let elements = many(r#"{"a":1}"#);
        let names: Vec<String> = (0..300_000).map(|n| format!("\"n{n}\":1")).collect();
        let names = names.join(",");
        let deep = "[".repeat(1_000_000);
        let chat =
            |more: &str| format!(r#"{{"model":"glm-5","messages":[{{"role":"user"}}]{more}}}"#);
        for (body, code) in [
            (format!("[{elements}]"), "1210"),
            (deep.clone(), "1210"),
            (format!(r#"{{"messages":{deep}"#), "1210"),
            (chat(&format!(",{names}")), "1210"),
            (chat(&format!(r#","tools":[{elements}]"#)), "1214"),
            (chat(&format!(r#","stop":[{elements}]"#)), "1214"),
            (chat(&format!(r#","request_id":[{elements}]"#)), "1214"),
        ] {
            assert_eq!(read(Face::Chat, body.as_bytes()).unwrap_err().code, code);
        }
        let read = |body: String| read(Face::Chat, body.as_bytes()).unwrap();
        let whole = read(format!(r#"{{"model":"glm-5","messages":[{elements}]}}"#));
        assert_eq!(whole.prompt, "");
        let parts = many(r#"{"type":"text","text":"a"}"#);
        let content = format!(r#"[{{"role":"user","content":[{parts}]}}]"#);
        let whole = read(format!(r#"{{"model":"glm-5","messages":{content}}}"#));
        assert_eq!(whole.prompt.len(), 300_000);
        read(chat(&format!(r#","unknown":{{{names}}}"#)));
        // Of what a tool may be called with some is kept.
        let tool = format!(r#"{{"function":{{"name":"f","parameters":{{"enum":[{elements}]}}}}}}"#);
        let form = read(chat(&format!(r#","tools":[{tool}]"#))).form;
        assert!(format!("{form:?}").len() < 200_000);
    }

    #[test]
    fn an_answer_has_glms_shape() {
        let body = answer(&asked("写一首诗"), Tokens::Counted);
        assert_eq!(body["id"], "202611231600000000000000000007");
        assert_eq!(body["request_id"], "id-0001");
        assert_eq!(body["created"], 1_795_420_800);
        assert_eq!(body["model"], "glm-5");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["choices"][0]["message"]["role"], "assistant");
        assert_eq!(
            body["choices"][0]["message"]["content"],
            "已收到：写一首诗。这是模拟器的回答。"
        );
        assert_eq!(body["usage"]["prompt_tokens"], 4);
        let usage = &body["usage"];
        let total =
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], total);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    }

    #[test]
    fn tokens_are_counted_fixed_or_wished() {
        let fixed = Tokens::Fixed {
            prompt: 600,
            completion: 400,
            cached: 100,
        };
        let body = answer(&asked("hello"), fixed);
        assert_eq!(body["usage"]["total_tokens"], 1_000);
        assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 100);
        let wished = asked("hi [[sim completion_tokens=7 latency_ms=20 priority=-3]] there");
        assert_eq!(wished.wishes.latency_ms, Some(20));
        assert_eq!(wished.wishes.priority, Some(-3));
        assert_eq!(answer(&wished, fixed)["usage"]["total_tokens"], 607);
    }

    #[test]
    fn a_request_is_checked_as_glm_does() {
        let check = |body: &str, code: &str| {
            assert_eq!(
                read(Face::Chat, body.as_bytes()).unwrap_err().code,
                code,
                "{body}"
            );
        };
        check("", "1210");
        check("{", "1210");
        check("[]", "1210");
        check(r#"{"messages":[{"role":"user"}]}"#, "1213");
        check(r#"{"model":"m"}"#, "1213");
        check(r#"{"model":"m","messages":null}"#, "1213");
        check(r#"{"model":"m","messages":[]}"#, "1214");
        check(r#"{"model":"m","messages":"hi"}"#, "1214");
        check(r#"{"model":7,"messages":[{}]}"#, "1214");
        check(
            r#"{"model":"m","messages":[{}],"request_id":"short"}"#,
            "1214",
        );
        check(
            r#"{"model":"m","messages":[{"role":"user","content":"[[sim speed=9]]"}]}"#,
            "1210",
        );
        check(
            r#"{"model":"m","messages":[{"role":"user","content":"[[sim priority=9"}]}"#,
            "1210",
        );
    }

    #[test]
    fn the_prompt_is_the_last_message_of_the_user() {
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "text", "text": "se"}, {"type": "image_url"}, {"type": "text", "text": "cond"}]},
            {"role": "assistant", "content": "x"},
        ]});
        assert_eq!(
            read(Face::Chat, body.to_string().as_bytes())
                .unwrap()
                .prompt,
            "second"
        );
    }

    #[test]
    fn every_row_of_the_error_table_has_a_status() {
        for row in ErrorTable::shipped()
            .rows()
            .filter(|r| r.code.parse::<u32>().is_ok())
        {
            let status = error_status(&ErrorFault::of(&row.code));
            assert!((400..600).contains(&status), "{row:?}");
        }
    }

    #[test]
    fn a_reset_is_stated_in_beijing_time_in_each_wording() {
        let check = |wording: ResetWording, want: &str| {
            let fault = ErrorFault {
                reset_in_ms: Some(90_000),
                wording,
                ..ErrorFault::of("1308")
            };
            let body: Value = serde_json::from_slice(&error_body(&fault, NOW, 0)).unwrap();
            assert_eq!(body["error"]["code"], "1308");
            assert_eq!(body["error"]["message"], want);
        };
        check(
            ResetWording::Mainland,
            "已达到 5 小时的使用上限。您的限额将在 2026-11-23 16:01:30 重置。",
        );
        check(
            ResetWording::MainlandContinue,
            "已达到 5 小时的使用上限，2026-11-23 16:01:30 后可继续使用",
        );
        check(
            ResetWording::English,
            "Usage limit reached. Your limit will reset at 2026-11-23 16:01:30",
        );
    }

    #[test]
    fn a_bracketed_error_has_its_code_in_the_message_alone() {
        let body = |shape| {
            let fault = ErrorFault {
                shape,
                ..ErrorFault::of("1302")
            };
            serde_json::from_slice::<Value>(&error_body(&fault, NOW, 7)).unwrap()
        };
        let anthropic = body(Shape::Anthropic);
        let bracketed = body(Shape::Bracketed);
        let message =
            "[1302][您的账户已达到速率限制，请您控制请求频率][202611231600000000000000000007]";
        assert_eq!(anthropic["error"]["code"], "1302");
        assert_eq!(bracketed["error"].get("code"), None);
        assert_eq!(bracketed["error"]["type"], "rate_limit_error");
        for body in [anthropic, bracketed] {
            assert_eq!(body["error"]["message"], message);
        }
    }

    #[test]
    fn a_task_has_glms_shape_in_each_state() {
        let json = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();
        let asked = asked("hello");
        let processing = json!({"id": "t-1", "model": "glm-5", "request_id": "id-0001", "task_status": "PROCESSING"});
        assert_eq!(json(task_processing(&asked, "t-1")), processing);
        let with = AnswerWith::default();
        let done = json(
            completion(
                &asked,
                &with,
                (Tokens::Counted, None),
                NOW,
                "t-1",
                Some("SUCCESS"),
            )
            .0,
        );
        assert_eq!(done["id"], "t-1");
        assert_eq!(done["task_status"], "SUCCESS");
        assert_eq!(done["choices"][0]["finish_reason"], "stop");
        assert!(done["usage"]["total_tokens"].as_u64() > Some(0));
        let failed = json(task_failed(&asked, "t-1", Some(&ErrorFault::of("1301"))));
        assert_eq!(failed["task_status"], "FAIL");
        assert_eq!(failed["error"]["code"], "1301");
        assert_eq!(json(task_failed(&asked, "t-1", None)).get("error"), None);
        let unknown = json(error_body(&task_unknown(), NOW, 0));
        assert_eq!(
            unknown,
            json!({"code": 1233, "msg": "任务不存在", "success": false})
        );
        assert_eq!(error_status(&task_unknown()), 400);
    }
}
