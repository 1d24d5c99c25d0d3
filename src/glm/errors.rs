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
    /// What to do about it, where that is not what its class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
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
const OWN: [(&str, FailureClass, &str); 16] = [
    (
        code::CONNECTION_ENDED,
        FailureClass::ServerTransient,
        "a kept connection ended before an answer began",
    ),
    (
        code::FOREIGN_ANSWER,
        FailureClass::ForeignAnswer,
        "an answer that belongs to another call",
    ),
    (
        code::UNREACHABLE,
        FailureClass::Unreachable,
        "no connection to GLM: refused, no route, no such name, or broken off while it was made",
    ),
    (
        code::TLS_UNTRUSTED,
        FailureClass::OperatorFatal,
        "the server's certificate is not trusted",
    ),
    (
        code::TIMEOUT_CONNECT,
        FailureClass::Unreachable,
        "no connection within timeouts.connect_ms",
    ),
    (
        code::TIMEOUT_FIRST_BYTE,
        FailureClass::ServerTransient,
        "no response headers within timeouts.first_byte_ms when a task was handed over",
    ),
    (
        code::TIMEOUT_IDLE,
        FailureClass::ServerTransient,
        "no byte for timeouts.idle_ms in the middle of a response",
    ),
    (
        code::TIMEOUT_TOTAL,
        FailureClass::ServerTransient,
        "not finished within timeouts.total_ms",
    ),
    (
        code::BODY_INVALID,
        FailureClass::ServerTransient,
        "a success whose body is no GLM answer",
    ),
    (
        code::HTML_PAGE,
        FailureClass::OperatorFatal,
        "a page for people in place of an answer: the base URL leads to a website, or the network has a door",
    ),
    (
        code::BODY_TOO_LARGE,
        FailureClass::ServerTransient,
        "a response larger than what is taken",
    ),
    (
        code::REQUEST_INVALID,
        FailureClass::RequestFatal,
        "the stored request can't be written as a GLM body",
    ),
    (
        code::ASYNC_UNSUPPORTED,
        FailureClass::RequestFatal,
        "the transport has no asynchronous calls",
    ),
    (
        code::FACE_UNKNOWN,
        FailureClass::RequestFatal,
        "where this base URL has the API that the request is for is not known",
    ),
    (
        code::NO_API_KEY,
        FailureClass::OperatorFatal,
        "no API key, or one that no header can hold",
    ),
    (
        code::BASE_URL_INVALID,
        FailureClass::OperatorFatal,
        "the base URL is no URL",
    ),
];

/// What the failures of a class mean, and what to do about them.
const fn in_general(class: FailureClass) -> (&'static str, &'static str) {
    match class {
        FailureClass::Throttle => (
            "too many requests at once",
            "the lane cools down and goes on by itself; a lower lane.max_concurrency meets it less often",
        ),
        FailureClass::Overload => (
            "the model has no capacity",
            "the lane tries again by itself; a fallback model can serve meanwhile (glm.fallbacks)",
        ),
        FailureClass::QuotaWindow => (
            "a quota is used up",
            "the lane goes on by itself once the quota opens again; a larger one or another key ends the wait sooner",
        ),
        FailureClass::OperatorFatal => (
            "the account or its key is refused",
            "mend the account, the key or the base URL, then resume the lane",
        ),
        FailureClass::RequestFatal => (
            "the request is refused",
            "change the request: sent again as it is it ends the same",
        ),
        FailureClass::ServerTransient => (
            "GLM, or something between here and GLM, has failed",
            "the lane tries again by itself; if it stays so, look at GLM's status page",
        ),
        FailureClass::Unreachable => (
            "no call gets through to GLM",
            "look at the network, the proxy and glm.base_url; jobs keep their places and go on by themselves once it is back",
        ),
        FailureClass::Unattributed => (
            "refused without a code of GLM's, by GLM or by something before it",
            "other jobs show whose fault it is: if they are refused as well, look at glm.base_url, the proxy and the firewall; if they pass, at this job's prompt",
        ),
        FailureClass::DuplicateRequest => (
            "the request_id was used before",
            "the lane sends it again under another one by itself",
        ),
        FailureClass::ForeignAnswer => (
            "an answer that belongs to another call",
            "look for a proxy or relay between here and GLM that mixes up answers; glm.reuse = \"echoed\" keeps connections apart",
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
        meaning: meaning.to_owned(),
        next: None,
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

    /// What a failure means and what to do about it, in English.
    #[must_use]
    pub fn explanation(&self, code: &str, class: FailureClass) -> String {
        let row = self.row(code).or_else(|| self.own_row(code));
        let (meaning, next) = in_general(class);
        let meaning = row.map_or(meaning, |row| row.meaning.as_str());
        let next = row.and_then(|row| row.next.as_deref()).unwrap_or(next);
        format!("{meaning}; {next}")
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
