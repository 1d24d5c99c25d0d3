//! The table of error codes, shipped as data: which code means what, is of which class, and where its
//! rule differs from that of its class.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use onelane_core::model::{BreakerRule, FailureClass, JobRule, LaneRule, PolicyOverride, code};
use serde::{Deserialize, Serialize};

/// The class of a row's failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowClass {
    /// The code inside the body decides: a 200 that carries an error.
    MapByInnerCode,
    /// This class.
    #[serde(untagged)]
    Is(FailureClass),
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRow {
    /// GLM's code, `http_NNN`, `finish:REASON`, or one of the transport's own.
    pub code: String,
    /// The HTTP status it comes with; `None` where no document says one.
    pub http_status: Option<u16>,
    /// Its meaning, in English.
    pub meaning: String,
    /// Its meaning, in Chinese.
    pub meaning_zh: String,
    /// What to do about it, where that is not what its class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The same in Chinese.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_zh: Option<String>,
    /// Its class.
    pub class: RowClass,
    /// The rule for the job, where it is not the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRule>,
    /// The rule for the lane, where it is not the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneRule>,
    /// The rule for the breaker, where it is not the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerRule>,
}

impl ErrorRow {
    /// Its class; `None` where the code inside the body decides.
    #[must_use]
    pub const fn failure_class(&self) -> Option<FailureClass> {
        match self.class {
            RowClass::Is(class) => Some(class),
            RowClass::MapByInnerCode => None,
        }
    }

    /// The parts of its rule that differ from its class's.
    #[must_use]
    pub const fn exception(&self) -> PolicyOverride {
        PolicyOverride {
            class: None,
            job: self.job,
            lane: self.lane,
            breaker: self.breaker,
        }
    }
}

/// Failures of calls that GLM does not state: their codes, classes and meanings.
/// A text in both languages.
#[derive(Debug, Clone, Copy)]
struct Both {
    en: &'static str,
    zh: &'static str,
}

const OWN: [(&str, FailureClass, Both); 16] = [
    (
        code::CONNECTION_ENDED,
        FailureClass::ServerTransient,
        Both {
            en: "a kept connection ended before an answer began",
            zh: "沿用的连接在回答开始之前断开",
        },
    ),
    (
        code::FOREIGN_ANSWER,
        FailureClass::ForeignAnswer,
        Both {
            en: "an answer that belongs to another call",
            zh: "回答属于另一次调用",
        },
    ),
    (
        code::UNREACHABLE,
        FailureClass::Unreachable,
        Both {
            en: "no connection to GLM: refused, no route, no such name, or broken off while it was made",
            zh: "无法连接 GLM：被拒绝、没有路由、域名不存在，或在建立连接时断开",
        },
    ),
    (
        code::TLS_UNTRUSTED,
        FailureClass::OperatorFatal,
        Both {
            en: "the server's certificate is not trusted",
            zh: "服务器证书不受信任",
        },
    ),
    (
        code::TIMEOUT_CONNECT,
        FailureClass::Unreachable,
        Both {
            en: "no connection within timeouts.connect_ms",
            zh: "未能在 timeouts.connect_ms 内建立连接",
        },
    ),
    (
        code::TIMEOUT_FIRST_BYTE,
        FailureClass::ServerTransient,
        Both {
            en: "no response headers within timeouts.first_byte_ms when a task was handed over",
            zh: "提交任务时未能在 timeouts.first_byte_ms 内收到响应头",
        },
    ),
    (
        code::TIMEOUT_IDLE,
        FailureClass::ServerTransient,
        Both {
            en: "no byte for timeouts.idle_ms in the middle of a response",
            zh: "响应中途超过 timeouts.idle_ms 没有收到数据",
        },
    ),
    (
        code::TIMEOUT_TOTAL,
        FailureClass::ServerTransient,
        Both {
            en: "not finished within timeouts.total_ms",
            zh: "未能在 timeouts.total_ms 内完成",
        },
    ),
    (
        code::BODY_INVALID,
        FailureClass::ServerTransient,
        Both {
            en: "a success whose body is no GLM answer",
            zh: "返回成功，但内容不是 GLM 的回答",
        },
    ),
    (
        code::HTML_PAGE,
        FailureClass::OperatorFatal,
        Both {
            en: "a page for people in place of an answer: the base URL leads to a website, or the network has a door",
            zh: "返回的是网页而不是回答：基础地址指向网站，或网络有登录门户",
        },
    ),
    (
        code::BODY_TOO_LARGE,
        FailureClass::ServerTransient,
        Both {
            en: "a response larger than what is taken",
            zh: "响应超过可接收的大小",
        },
    ),
    (
        code::REQUEST_INVALID,
        FailureClass::RequestFatal,
        Both {
            en: "the stored request can't be written as a GLM body",
            zh: "保存的请求无法写成 GLM 的请求内容",
        },
    ),
    (
        code::ASYNC_UNSUPPORTED,
        FailureClass::RequestFatal,
        Both {
            en: "the transport has no asynchronous calls",
            zh: "该传输方式没有异步调用",
        },
    ),
    (
        code::FACE_UNKNOWN,
        FailureClass::RequestFatal,
        Both {
            en: "where this base URL has the API that the request is for is not known",
            zh: "不知道该基础地址在哪里提供请求所需的接口",
        },
    ),
    (
        code::NO_API_KEY,
        FailureClass::OperatorFatal,
        Both {
            en: "no API key, or one that no header can hold",
            zh: "没有 API 密钥，或密钥含有请求头不允许的字符",
        },
    ),
    (
        code::BASE_URL_INVALID,
        FailureClass::OperatorFatal,
        Both {
            en: "the base URL is no URL",
            zh: "基础地址不是 URL",
        },
    ),
];

/// What the failures of a class mean, and what to do about them.
const fn in_general(class: FailureClass) -> (Both, Both) {
    match class {
        FailureClass::Throttle => (
            Both {
                en: "too many requests at once",
                zh: "同时请求过多",
            },
            Both {
                en: "the lane cools down and goes on by itself; a lower lane.max_concurrency meets it less often",
                zh: "通道会冷却后自动继续；降低 lane.max_concurrency 可减少这种情况",
            },
        ),
        FailureClass::Overload => (
            Both {
                en: "the model has no capacity",
                zh: "模型没有可用容量",
            },
            Both {
                en: "the lane tries again by itself; a fallback model can serve meanwhile (glm.fallbacks)",
                zh: "通道会自动重试；期间可由备用模型处理（glm.fallbacks）",
            },
        ),
        FailureClass::QuotaWindow => (
            Both {
                en: "a quota is used up",
                zh: "额度已用完",
            },
            Both {
                en: "the lane goes on by itself once the quota opens again; a larger one or another key ends the wait sooner",
                zh: "额度恢复后通道自动继续；更大的额度或另一个密钥可以更早结束等待",
            },
        ),
        FailureClass::OperatorFatal => (
            Both {
                en: "the account or its key is refused",
                zh: "账户或密钥被拒绝",
            },
            Both {
                en: "mend the account, the key or the base URL, then resume the lane",
                zh: "修正账户、密钥或基础地址，然后恢复通道",
            },
        ),
        FailureClass::RequestFatal => (
            Both {
                en: "the request is refused",
                zh: "请求被拒绝",
            },
            Both {
                en: "change the request: sent again as it is it ends the same",
                zh: "请修改请求：原样重发结果相同",
            },
        ),
        FailureClass::ServerTransient => (
            Both {
                en: "GLM, or something between here and GLM, has failed",
                zh: "GLM 或通往 GLM 的途中出现故障",
            },
            Both {
                en: "the lane tries again by itself; if it stays so, look at GLM's status page",
                zh: "通道会自动重试；如果持续出现，请查看 GLM 的状态页",
            },
        ),
        FailureClass::Unreachable => (
            Both {
                en: "no call gets through to GLM",
                zh: "调用无法到达 GLM",
            },
            Both {
                en: "look at the network, the proxy and glm.base_url; jobs keep their places and go on by themselves once it is back",
                zh: "请检查网络、代理和 glm.base_url；任务保留排队位置，恢复后自动继续",
            },
        ),
        FailureClass::Unattributed => (
            Both {
                en: "refused without a code of GLM's, by GLM or by something before it",
                zh: "被拒绝但没有 GLM 的错误码，可能来自 GLM 或其前面的设备",
            },
            Both {
                en: "other jobs show whose fault it is: if they are refused as well, look at glm.base_url, the proxy and the firewall; if they pass, at this job's prompt",
                zh: "其他任务会说明原因：如果也被拒绝，请检查 glm.base_url、代理和防火墙；如果通过，请检查该任务的提示词",
            },
        ),
        FailureClass::DuplicateRequest => (
            Both {
                en: "the request_id was used before",
                zh: "该 request_id 已被使用",
            },
            Both {
                en: "the lane sends it again under another one by itself",
                zh: "通道会自动换一个重新发送",
            },
        ),
        FailureClass::ForeignAnswer => (
            Both {
                en: "an answer that belongs to another call",
                zh: "回答属于另一次调用",
            },
            Both {
                en: "look for a proxy or relay between here and GLM that mixes up answers; glm.reuse = \"echoed\" keeps connections apart",
                zh: "请检查本机与 GLM 之间是否有代理或中转串了回答；glm.reuse = \"echoed\" 可分开连接",
            },
        ),
    }
}

/// All rows, by code.
#[derive(Debug, Clone, Default)]
pub struct ErrorTable {
    rows: BTreeMap<String, ErrorRow>,
    own: BTreeMap<String, ErrorRow>,
}

/// Read once; that it can be read is a test below, since the file is part of the program.
static SHIPPED: LazyLock<ErrorTable> = LazyLock::new(|| {
    let rows: Vec<ErrorRow> = serde_json::from_str(include_str!("errors.json")).unwrap_or_default();
    let own = OWN.map(|(code, class, meaning)| ErrorRow {
        code: code.to_owned(),
        http_status: None,
        meaning: meaning.en.to_owned(),
        meaning_zh: meaning.zh.to_owned(),
        next: None,
        next_zh: None,
        class: RowClass::Is(class),
        job: match code {
            // It may have been paid for.
            code::BODY_INVALID | code::BODY_TOO_LARGE => Some(JobRule::Once),
            // Even a page may be a firewall's, for one prompt.
            code::HTML_PAGE => Some(JobRule::StepAside),
            _ => None,
        },
        lane: None,
        breaker: None,
    });
    let by_code = |row: ErrorRow| (row.code.clone(), row);
    ErrorTable {
        rows: rows.into_iter().map(by_code).collect(),
        own: own.into_iter().map(by_code).collect(),
    }
});

impl ErrorTable {
    /// The table that comes with the program.
    #[must_use]
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// The row of a code.
    #[must_use]
    pub fn row(&self, code: &str) -> Option<&ErrorRow> {
        self.rows.get(code)
    }

    /// The class of a code; `None` for a code that the table does not know.
    #[must_use]
    pub fn class(&self, code: &str) -> Option<FailureClass> {
        self.row(code)?.failure_class()
    }

    /// The row of a code that GLM does not state. Apart from the others, so that no server can
    /// state it.
    #[must_use]
    pub fn own_row(&self, code: &str) -> Option<&ErrorRow> {
        self.own.get(code)
    }

    /// The rows of all codes that GLM does not state, ordered by code.
    pub fn own_rows(&self) -> impl Iterator<Item = &ErrorRow> {
        self.own.values()
    }

    /// The row of a code, whoever states it.
    fn any_row(&self, code: &str) -> Option<&ErrorRow> {
        self.row(code).or_else(|| self.own_row(code))
    }

    /// What a failure means and what to do about it, in English.
    #[must_use]
    pub fn explanation(&self, code: &str, class: FailureClass) -> String {
        let row = self.any_row(code);
        let (meaning, next) = in_general(class);
        let meaning = row.map_or(meaning.en, |row| row.meaning.as_str());
        let next = row.and_then(|row| row.next.as_deref()).unwrap_or(next.en);
        format!("{meaning}; {next}")
    }

    /// The same in Chinese.
    #[must_use]
    pub fn explanation_zh(&self, code: &str, class: FailureClass) -> String {
        let row = self.any_row(code);
        let (meaning, next) = in_general(class);
        let meaning = row.map_or(meaning.zh, |row| row.meaning_zh.as_str());
        let next = row
            .and_then(|row| row.next_zh.as_deref())
            .unwrap_or(next.zh);
        format!("{meaning}；{next}")
    }

    /// The meaning of a code in Chinese.
    #[must_use]
    pub fn meaning_zh(&self, code: &str) -> Option<&str> {
        self.any_row(code).map(|row| row.meaning_zh.as_str())
    }

    /// The meaning of each code in English, our own among them.
    #[must_use]
    pub fn meanings() -> Arc<BTreeMap<String, String>> {
        static MEANINGS: LazyLock<Arc<BTreeMap<String, String>>> = LazyLock::new(|| {
            let rows = SHIPPED.rows().chain(SHIPPED.own_rows());
            let meaning = |row: &ErrorRow| (row.code.clone(), row.meaning.clone());
            Arc::new(rows.map(meaning).collect())
        });
        Arc::clone(&MEANINGS)
    }

    /// All rows, ordered by code.
    pub fn rows(&self) -> impl Iterator<Item = &ErrorRow> {
        self.rows.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_one_model_holds_that_model_alone() {
        let exceptions: Vec<_> = ErrorTable::shipped()
            .rows()
            .filter(|row| row.exception() != PolicyOverride::default())
            .map(|row| (row.code.as_str(), row.exception()))
            .collect();
        let of_the_model = PolicyOverride {
            lane: Some(LaneRule::HoldModelForOperator),
            ..PolicyOverride::default()
        };
        assert_eq!(exceptions, [("1220", of_the_model), ("1311", of_the_model)]);
    }

    #[test]
    fn what_glm_does_not_state_has_a_row_that_no_server_can_use() {
        let table = ErrorTable::shipped();
        assert_eq!(table.own_rows().count(), OWN.len());
        for row in table.own_rows() {
            assert_eq!(table.row(&row.code), None, "{}", row.code);
        }
        let row = table.own_row(code::TIMEOUT_TOTAL).unwrap();
        assert_eq!(row.failure_class(), Some(FailureClass::ServerTransient));
    }

    #[test]
    fn every_code_and_every_class_is_explained_in_both_languages() {
        let table = ErrorTable::shipped();
        let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        for row in table.rows().chain(table.own_rows()) {
            let is_chinese = row.meaning_zh.contains(han) && !row.meaning.contains(han);
            assert!(is_chinese, "{}", row.code);
            assert_eq!(row.next.is_some(), row.next_zh.is_some(), "{}", row.code);
            assert!(row.next_zh.iter().all(|next| next.contains(han)));
        }
        for class in FailureClass::ALL {
            assert!(!table.explanation("9999", class).contains(han), "{class}");
            let explained = table.explanation_zh("9999", class);
            let mut parts = explained.split('；');
            assert!(parts.all(|part| part.contains(han)), "{explained}");
        }
    }

    #[test]
    fn the_shipped_table_is_whole() {
        let table = ErrorTable::shipped();
        assert_eq!(table.rows().count(), 74);
        assert_eq!(table.class("1302"), Some(FailureClass::Throttle));
        assert_eq!(table.class("1113"), Some(FailureClass::OperatorFatal));
        assert_eq!(table.class("body:200_error"), None);
        assert_eq!(table.class("9999"), None);
        // The key point of the table: most 429 are not worth a quick retry.
        let quick = |row: &&ErrorRow| {
            matches!(
                row.class,
                RowClass::Is(FailureClass::Throttle | FailureClass::Overload)
            )
        };
        let too_many = table.rows().filter(|r| r.http_status == Some(429));
        let (retry, wait): (Vec<_>, Vec<_>) = too_many.partition(quick);
        let codes: Vec<&str> = retry.iter().map(|r| r.code.as_str()).collect();
        assert_eq!(
            codes,
            [
                "1302",
                "1303",
                "1305",
                "1312",
                "rate_limit_error",
                "rate_limit_exceeded"
            ]
        );
        assert!(wait.len() > 16, "{}", wait.len());
    }
}
