//! Query parameters: decoded strictly, so that a misspelt or malformed one is named instead of
//! ignored.

use std::time::Duration;

use onelane_actors::ports::{JobFilter, MoreFilter};
use onelane_core::model::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use onelane_core::model::{Day, FailureClass, JobId, JobStatus, Timestamp};

use super::limits;
use super::problem::{Kind, Problem};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON.
    Json,
    /// Comma-separated values.
    Csv,
}

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `raw`, what follows the question mark. Refuses a parameter that is not `allowed`, that
    /// comes twice, that is empty or malformed.
    pub(super) fn parse(raw: &str, allowed: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| wrong(name, "is not percent-encoded UTF-8"))?;
            if !allowed.contains(&name.as_str()) {
                let problem = if allowed.is_empty() {
                    "is unknown; this route takes no parameters".to_owned()
                } else {
                    format!("is unknown; this route takes {}", allowed.join(", "))
                };
                return Err(wrong(&name, problem));
            }
            let value =
                decode(value).ok_or_else(|| wrong(&name, "is not percent-encoded UTF-8"))?;
            if value.is_empty() {
                return Err(wrong(&name, "is empty; give it a value or leave it out"));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(wrong(&name, "is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// A parameter as it is.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `status`: one of a job's.
    pub(super) fn status(&self) -> Result<Option<JobStatus>, Problem> {
        self.read("status", JobStatus::parse, || {
            let names = JobStatus::ALL.map(JobStatus::name);
            format!("must be one of {}", names.join(", "))
        })
    }

    /// What of jobs can be asked for in a query, beside their status.
    pub(super) const OF_JOBS: [&'static str; 11] = [
        "userId",
        "model",
        "contentId",
        "errorCode",
        "errorClass",
        "parked",
        "createdFrom",
        "createdBefore",
        "priorityMin",
        "priorityMax",
        "ids",
    ];

    /// The jobs that `status` and [`Query::OF_JOBS`] leave.
    pub(super) fn job_filter(&self) -> Result<JobFilter, Problem> {
        let text = |name| self.text(name).map(str::to_owned);
        Ok(JobFilter {
            status: self.status()?,
            user_id: text("userId"),
            model: text("model"),
            more: MoreFilter {
                content_id: text("contentId"),
                error_code: text("errorCode"),
                error_class: self.error_class()?,
                parked: self.read(
                    "parked",
                    |text| text.parse().ok(),
                    || "must be true or false".to_owned(),
                )?,
                created_from: self.moment("createdFrom")?,
                created_before: self.moment("createdBefore")?,
                priority_min: self.priority("priorityMin")?,
                priority_max: self.priority("priorityMax")?,
                ids: self.job_ids("ids")?,
            },
        })
    }

    /// A moment.
    pub(super) fn moment(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.read(name, Timestamp::parse_rfc3339, || {
            "must be a time in RFC 3339, like 2026-11-23T08:00:00Z; write + as %2B".to_owned()
        })
    }

    fn priority(&self, name: &str) -> Result<Option<i32>, Problem> {
        self.read(
            name,
            |text| text.parse().ok(),
            || format!("must be a whole number from {} to {}", i32::MIN, i32::MAX),
        )
    }

    /// Ids with commas between. There is room for some 1700 of them in a request's line.
    fn job_ids(&self, name: &str) -> Result<Option<Vec<JobId>>, Problem> {
        self.read(
            name,
            |text| text.split(',').map(|id| id.parse().ok()).collect(),
            || "must be ids of jobs with commas between".to_owned(),
        )
    }

    fn error_class(&self) -> Result<Option<FailureClass>, Problem> {
        let parse = |text: &str| FailureClass::ALL.into_iter().find(|c| c.name() == text);
        self.read("errorClass", parse, || {
            let names = FailureClass::ALL.map(FailureClass::name);
            format!("must be one of {}", names.join(", "))
        })
    }

    /// `limit`: rows of a page.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let in_range = |text: &str| {
            let limit = text.parse::<usize>().ok()?;
            (1..=PAGE_ROWS_MAX).contains(&limit).then_some(limit)
        };
        let limit = self.read("limit", in_range, || {
            format!("must be a whole number from 1 to {PAGE_ROWS_MAX}")
        })?;
        Ok(limit.unwrap_or(PAGE_ROWS_DEFAULT))
    }

    /// One of some names, each with what it means.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Problem> {
        let parse = |text: &str| {
            let found = choices.iter().find(|(known, _)| *known == text);
            found.map(|(_, choice)| *choice)
        };
        self.read(name, parse, || {
            let names: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
            format!("must be one of {}", names.join(", "))
        })
    }

    /// The id of a job.
    pub(super) fn job_id(&self, name: &str) -> Result<Option<JobId>, Problem> {
        let parse = |text: &str| text.parse().ok();
        self.read(name, parse, || "must be the id of a job".to_owned())
    }

    /// `cursor`: where a page begins.
    pub(super) fn cursor(&self) -> Result<Option<u64>, Problem> {
        self.read(
            "cursor",
            |text| text.parse().ok(),
            || "must be the nextCursor of the page before".to_owned(),
        )
    }

    /// A day of the calendar.
    pub(super) fn day(&self, name: &str) -> Result<Option<Day>, Problem> {
        self.read(name, Day::parse, || {
            "must be a day of the calendar as YYYY-MM-DD".to_owned()
        })
    }

    /// `format`: how the answer is written; JSON, unless said otherwise.
    pub(super) fn format(&self) -> Result<Format, Problem> {
        let parse = |text: &str| match text {
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            _ => None,
        };
        let format = self.read("format", parse, || "must be json or csv".to_owned())?;
        Ok(format.unwrap_or(Format::Json))
    }

    /// `wait`: how long to wait for a job.
    pub(super) fn wait(&self) -> Result<Option<Duration>, Problem> {
        self.read("wait", duration, || {
            format!(
                "must be a duration like 500ms, 30s or 2m, at most {}m",
                limits::WAIT_MS_MAX / 60_000
            )
        })
    }

    fn read<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        right: impl Fn() -> String,
    ) -> Result<Option<T>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| wrong(name, right())),
        }
    }
}

fn wrong(name: &str, problem: impl Into<String>) -> Problem {
    Problem::fault(Kind::InvalidQuery, name, problem)
}

/// `500ms`, `30s`, `2m`, up to the longest wait.
fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (ms <= limits::WAIT_MS_MAX).then(|| Duration::from_millis(ms))
}

/// Percent-decodes a part of a path, where a plus is a plus.
pub(super) fn decode_segment(text: &str) -> Option<String> {
    decode(&text.replace('+', "%2B"))
}

/// Percent-decodes; `None` when an escape is broken or the bytes are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] = &["status", "limit", "cursor", "model", "startDate", "wait"];

    fn refused<T: std::fmt::Debug>(
        raw: &str,
        read: impl Fn(&Query) -> Result<T, Problem>,
        want: &str,
    ) {
        let problem = Query::parse(raw, ALLOWED)
            .and_then(|q| read(&q))
            .unwrap_err();
        let body = serde_json::to_value(problem.body()).unwrap();
        assert_eq!(body["status"], 400);
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(want), "{raw}: {detail}");
    }

    #[test]
    fn good_parameters_are_read() {
        let q = Query::parse(
            "status=failed&limit=1000&cursor=18446744073709551615&model=%E6%99%BA%20a+b&startDate=2026-11-23&wait=2m",
            ALLOWED,
        )
        .unwrap();
        assert_eq!(q.status().unwrap(), Some(JobStatus::Failed));
        assert_eq!(q.limit().unwrap(), 1_000);
        assert_eq!(q.cursor().unwrap(), Some(u64::MAX));
        assert_eq!(q.text("model"), Some("智 a b"));
        assert_eq!(q.day("startDate").unwrap(), Day::parse("2026-11-23"));
        assert_eq!(q.wait().unwrap(), Some(Duration::from_secs(120)));
        let none = Query::parse("", ALLOWED).unwrap();
        assert_eq!(none.limit().unwrap(), PAGE_ROWS_DEFAULT);
        assert_eq!(none.cursor().unwrap(), None);
    }

    #[test]
    fn a_bad_parameter_is_named_with_what_would_be_right() {
        let any = |_: &Query| Ok(());
        refused(
            "limits=5",
            any,
            "limits: is unknown; this route takes status",
        );
        refused("limit=5&limit=6", any, "limit: is given twice");
        refused("limit=", any, "limit: is empty");
        refused("model", any, "model: is empty");
        refused("model=%zz", any, "model: is not percent-encoded UTF-8");
        refused("model=%ff", any, "model: is not percent-encoded UTF-8");
        refused("model=%e", any, "model: is not percent-encoded UTF-8");
        for limit in ["-1", "0", "1001", "ten", "5.0", "99999999999999999999"] {
            refused(&format!("limit={limit}"), Query::limit, "from 1 to 1000");
        }
        refused(
            "status=done",
            Query::status,
            "pending, processing, completed",
        );
        refused("cursor=-1", Query::cursor, "nextCursor");
        for day in ["2026-02-30", "23.11.2026", "2026-1-1", "yesterday"] {
            let read = |q: &Query| q.day("startDate");
            refused(&format!("startDate={day}"), read, "YYYY-MM-DD");
        }
        for wait in [
            "30",
            "6m",
            "301s",
            "-1s",
            "1h",
            "s",
            "1.5s",
            "99999999999999999999s",
        ] {
            refused(
                &format!("wait={wait}"),
                Query::wait,
                "like 500ms, 30s or 2m, at most 5m",
            );
        }
    }

    #[test]
    fn a_route_without_parameters_says_so() {
        let problem = Query::parse("x=1", &[]).unwrap_err();
        assert_eq!(
            problem,
            wrong("x", "is unknown; this route takes no parameters")
        );
    }
}
