//! A store's content as lines: for analyses elsewhere, and to keep what retention will remove. Rows are
//! read part by part, newest first (the usage oldest first), so that a store of any size is exported with
//! little memory, also while the lane works on it. What a damaged store can't tell is left out and named.

use std::borrow::Cow;

use onelane_actors::ports::{JobRecord, Store, StoreError, UsageFilter};
use onelane_core::model::{
    Calendar, CallRecord, Cost, Day, Period, Request, SessionId, Substitution, Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::csv;
use crate::statistics::{GroupBy, StatisticsQuery, csv_head, csv_row, summarise};
use crate::views::{CallView, JobView};

/// Jobs that are in memory at once: each may be some megabytes.
const JOBS_PAGE: usize = 32;
const CALLS_PAGE: usize = 1_000;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Jobs whole, with requests and responses.
    Jobs,
    /// The call log.
    Calls,
    /// The usage: a row for each day, model and user.
    Usage,
}

impl What {
    /// The table whose rows it gives.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Calls => "calls",
            Self::Usage => "usage",
        }
    }
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ExportFormat")]
pub enum Format {
    /// A JSON object a line, as the admin API shows it.
    #[serde(rename = "jsonl")]
    #[cfg_attr(feature = "cli", value(name = "jsonl"))]
    JsonLines,
    /// RFC 4180 with a header. What has a shape of its own (a chat, an answer) is JSON in its field.
    Csv,
}

/// An export under way. What is written holds prompts and answers, but no key: a store holds none in them.
#[derive(Debug, Clone)]
pub struct Export {
    what: What,
    format: Format,
    calendar: Calendar,
    /// The clock by which delays are told.
    now: Timestamp,
    at: At,
}

/// How far an export has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Beginning,
    Place(u64),
    Day(Day),
    End,
}

/// A part of an export.
#[derive(Debug, Default)]
pub struct Part {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// How many rows they are; a header is none.
    pub rows: u64,
    /// What is wrong with the rows that were left out.
    pub unreadable: Vec<StoreError>,
}

impl Export {
    /// An export that has not begun; the usage is told by days of this calendar, and what waits for its retry by a clock
    /// that says `now`, as everywhere else.
    #[must_use]
    pub const fn new(what: What, format: Format, calendar: Calendar, now: Timestamp) -> Self {
        Self {
            what,
            format,
            calendar,
            now,
            at: At::Beginning,
        }
    }

    /// The next part; `None` after the last.
    pub fn next(&mut self, store: &dyn Store) -> Result<Option<Part>, StoreError> {
        if self.at == At::End {
            return Ok(None);
        }
        let mut part = Part::default();
        if self.at == At::Beginning && self.format == Format::Csv {
            let head = match self.what {
                What::Jobs => head_of(JOB_COLUMNS),
                What::Calls => head_of(CALL_COLUMNS),
                What::Usage => csv_head(),
            };
            part.lines.extend_from_slice(head.as_bytes());
        }
        match self.what {
            What::Jobs => self.jobs(store, &mut part)?,
            What::Calls => self.calls(store, &mut part)?,
            What::Usage => self.usage(store, &mut part)?,
        }
        Ok(Some(part))
    }

    fn jobs(&mut self, store: &dyn Store, part: &mut Part) -> Result<(), StoreError> {
        let found = store.salvage_jobs(self.cursor(), JOBS_PAGE)?;
        for record in found.rows {
            let record = JobRecord {
                job: record.job.as_told(self.now),
                ..record
            };
            match self.format {
                Format::JsonLines => part.json(&JobView::whole(record)),
                Format::Csv => part.csv(&line_of(JOB_COLUMNS, &record)),
            }
        }
        part.unreadable.extend(found.unreadable);
        self.at = found.cursor.map_or(At::End, At::Place);
        Ok(())
    }

    fn calls(&mut self, store: &dyn Store, part: &mut Part) -> Result<(), StoreError> {
        let found = store.salvage_calls(self.cursor(), CALLS_PAGE)?;
        for call in found.rows {
            match self.format {
                Format::JsonLines => part.json(&CallView::new(call, None)),
                Format::Csv => part.csv(&line_of(CALL_COLUMNS, &call)),
            }
        }
        part.unreadable.extend(found.unreadable);
        self.at = found.cursor.map_or(At::End, At::Place);
        Ok(())
    }

    fn usage(&mut self, store: &dyn Store, part: &mut Part) -> Result<(), StoreError> {
        let mut filter = UsageFilter::default();
        if let At::Day(day) = self.at {
            filter.start = day;
        }
        let query = StatisticsQuery {
            filter,
            session: None,
            group_by: GroupBy {
                period: Some(Period::Day),
                model: true,
                user: true,
                key: true,
                session: false,
            },
            calendar: self.calendar,
        };
        let found = store.usage_day(&query.filter)?;
        for row in &summarise(&found.rows, &query) {
            match self.format {
                Format::JsonLines => part.json(row),
                Format::Csv => part.csv(&csv_row(row)),
            }
        }
        part.unreadable.extend(found.unreadable);
        self.at = found.next.map_or(At::End, At::Day);
        Ok(())
    }

    const fn cursor(&self) -> Option<u64> {
        match self.at {
            At::Place(cursor) => Some(cursor),
            At::Beginning | At::Day(_) | At::End => None,
        }
    }
}

impl Part {
    /// Line ends that GLM put between its JSON's tokens are made blank: inside a JSON string they are
    /// escaped.
    fn json(&mut self, row: &impl Serialize) {
        let begins = self.lines.len();
        if let Err(error) = serde_json::to_writer(&mut self.lines, row) {
            self.lines.truncate(begins);
            self.unreadable.push(StoreError::Io {
                path: "a row".to_owned(),
                message: error.to_string(),
            });
            return;
        }
        for byte in self.lines.iter_mut().skip(begins) {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.lines.push(b'\n');
        self.rows += 1;
    }

    fn csv(&mut self, line: &str) {
        self.lines.extend_from_slice(line.as_bytes());
        self.rows += 1;
    }
}

/// A page of the call log as a table.
#[cfg(feature = "api")]
pub(crate) fn calls_to_csv(calls: &[CallRecord]) -> String {
    let mut text = head_of(CALL_COLUMNS);
    for call in calls {
        text.push_str(&line_of(CALL_COLUMNS, call));
    }
    text
}

/// A column of a table: its name, and its field of a row.
type Column<T> = (&'static str, fn(&T) -> Cow<'_, str>);

fn head_of<T>(columns: &[Column<T>]) -> String {
    csv::line(columns.iter().map(|(name, _)| Cow::Borrowed(*name)))
}

fn line_of<T>(columns: &[Column<T>], row: &T) -> String {
    csv::line(columns.iter().map(|(_, field)| field(row)))
}

fn shown<T: ToString>(value: T) -> Cow<'static, str> {
    Cow::Owned(value.to_string())
}

fn shown_or_empty<T: ToString>(value: Option<T>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed(""), shown)
}

fn text(value: Option<&str>) -> Cow<'_, str> {
    csv::text(value.unwrap_or_default())
}

/// JSON is no formula, whatever its strings say; a negative number stays one.
fn json(value: Option<&RawValue>) -> Cow<'_, str> {
    Cow::Borrowed(value.map_or("", RawValue::get))
}

fn moment(at: Option<Timestamp>) -> Cow<'static, str> {
    shown_or_empty(at)
}

const JOB_COLUMNS: &[Column<JobRecord>] = &[
    ("id", |r| shown(r.job.id)),
    ("userId", |r| text(Some(&r.job.user_id))),
    ("contentId", |r| text(r.job.content_id.as_deref())),
    ("session", |r| {
        text(r.job.session.as_ref().map(SessionId::as_str))
    }),
    ("model", |r| text(Some(&r.job.model))),
    ("servedBy", |r| text(r.job.served_by.as_deref())),
    ("answeredBy", |r| text(r.job.answered_by.as_deref())),
    ("priority", |r| shown(r.job.priority)),
    ("status", |r| text(Some(r.job.status.name()))),
    ("retryCount", |r| shown(r.job.retry_count)),
    ("maxRetries", |r| shown(r.job.max_retries)),
    ("attemptCount", |r| shown(r.job.attempts)),
    ("createdAt", |r| shown(r.job.created_at)),
    ("processedAt", |r| moment(r.job.processed_at)),
    ("nextRetryAt", |r| {
        moment(r.job.next_retry_at.map(|wait| wait.until))
    }),
    ("runAt", |r| moment(r.job.run_at)),
    ("deadline", |r| moment(r.job.deadline)),
    ("errorClass", |r| {
        shown_or_empty(r.job.error.as_ref().map(|e| e.class))
    }),
    ("errorCode", |r| {
        text(r.job.error.as_ref().map(|e| e.code.as_str()))
    }),
    ("errorMessage", |r| {
        text(r.job.error.as_ref().map(|e| e.message.as_str()))
    }),
    ("idempotencyKey", |r| text(r.job.idempotency_key.as_deref())),
    ("metadata", |r| json(r.job.metadata.as_deref())),
    ("bodiesPruned", |r| shown(r.job.bodies_pruned)),
    ("prompt", |r| match r.request.as_deref() {
        Some(Request::Prompt(prompt)) => text(Some(prompt)),
        _ => Cow::Borrowed(""),
    }),
    ("request", |r| match r.request.as_deref() {
        Some(Request::Body(_, body)) => json(Some(body)),
        _ => Cow::Borrowed(""),
    }),
    ("result", |r| json(r.response.as_deref())),
];

const CALL_COLUMNS: &[Column<CallRecord>] = &[
    ("id", |c| text(Some(c.request_id.as_str()))),
    ("requestId", |c| shown(c.job_id)),
    ("attempt", |c| shown(c.attempt)),
    ("userId", |c| text(Some(&c.user_id))),
    ("session", |c| {
        text(c.session.as_ref().map(SessionId::as_str))
    }),
    ("endpoint", |c| text(Some(&c.endpoint))),
    ("model", |c| text(Some(&c.model))),
    ("answeredBy", |c| text(c.answered_by.as_deref())),
    ("substitution", |c| {
        shown_or_empty(c.substitution.map(Substitution::name))
    }),
    ("outcome", |c| text(Some(c.outcome.name()))),
    ("statusCode", |c| shown_or_empty(c.status_code)),
    ("responseTime", |c| shown(c.response_time_ms)),
    ("promptTokens", |c| shown(c.usage.prompt_tokens)),
    ("completionTokens", |c| shown(c.usage.completion_tokens)),
    ("totalTokens", |c| shown(c.usage.total_tokens)),
    ("cachedTokens", |c| shown(c.usage.cached_tokens)),
    ("reasoningTokens", |c| shown(c.usage.reasoning_tokens)),
    ("cost", |c| shown_or_empty(c.cost.map(Cost::decimal))),
    ("currency", |c| {
        shown_or_empty(c.cost.map(|cost| cost.currency))
    }),
    ("retryCount", |c| shown(c.retry_count)),
    ("timestamp", |c| shown(c.started_at)),
    ("endedAt", |c| shown(c.ended_at)),
    ("errorClass", |c| {
        shown_or_empty(c.failure.as_ref().map(|f| f.class))
    }),
    ("errorCode", |c| {
        text(c.failure.as_ref().map(|f| f.code.as_str()))
    }),
    ("errorMessage", |c| {
        text(c.failure.as_ref().map(|f| f.message.as_str()))
    }),
    ("maybeBilled", |c| shown(c.maybe_billed)),
    ("billed", |c| {
        shown_or_empty(c.billing.as_ref().map(|billing| billing.billed))
    }),
    ("staged", |c| shown_or_empty(c.parts.staged_ms)),
    ("commit", |c| shown_or_empty(c.parts.commit_ms)),
    ("connect", |c| shown_or_empty(c.parts.connect_ms)),
    ("firstByte", |c| shown_or_empty(c.parts.first_byte_ms)),
    ("firstToken", |c| shown_or_empty(c.parts.first_token_ms)),
    ("decode", |c| shown_or_empty(c.decode_ms())),
];

#[cfg(test)]
mod tests {
    use onelane_actors::testing::{MemoryStore, sample};
    use onelane_core::model::Wait;

    use super::*;

    fn told(what: What, format: Format) -> Vec<String> {
        let store = MemoryStore::new();
        for n in 1..=40 {
            let life = [sample::insert(n), sample::start(n), sample::complete(n, 1)];
            store.commit(&life).unwrap();
        }
        let waits = [
            sample::insert(41),
            sample::start(41),
            sample::retry(41, 1, None),
        ];
        store.commit(&waits).unwrap();
        exported(&store, what, format, sample::START)
    }

    fn exported(store: &MemoryStore, what: What, format: Format, now: Timestamp) -> Vec<String> {
        let mut export = Export::new(what, format, Calendar::default(), now);
        let (mut out, mut rows) = (Vec::new(), 0);
        while let Some(part) = export.next(store).unwrap() {
            assert!(part.unreadable.is_empty());
            out.extend(part.lines);
            rows += part.rows;
        }
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let head = usize::from(format == Format::Csv);
        assert_eq!(lines.len(), usize::try_from(rows).unwrap() + head);
        lines
    }

    #[test]
    fn every_job_is_exported_whole_and_once() {
        let lines = told(What::Jobs, Format::JsonLines);
        assert_eq!(lines.len(), 41, "more than a page");
        let newest: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            (&newest["status"], &newest["prompt"]),
            (&"pending".into(), &"prompt 41".into())
        );
        assert!(lines[1].contains(r#""x":1.50"#), "verbatim: {}", lines[1]);
        let table = told(What::Jobs, Format::Csv);
        assert!(table[0].starts_with("id,userId,contentId,session,model,"));
        assert!(table[2].contains(",completed,"));
        assert!(
            table[2].contains(r#"""content"":""answer 40"""#),
            "{}",
            table[2]
        );
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_retry_later_in_an_export_either() {
        let store = MemoryStore::new();
        let delay = Wait::from(sample::START, 30_000);
        let waits = [
            sample::insert(1),
            sample::start(1),
            sample::retry(1, 1, Some(delay.until)),
        ];
        store.commit(&waits).unwrap();
        let check = |now: Timestamp, want: Timestamp| {
            let line = &exported(&store, What::Jobs, Format::JsonLines, now)[0];
            assert!(
                line.contains(&format!(r#""nextRetryAt":"{want}""#)),
                "{line}"
            );
            let table = exported(&store, What::Jobs, Format::Csv, now);
            assert!(table[1].contains(&format!(",{want},")), "{table:?}");
        };
        check(sample::START.plus_ms(1), delay.until);
        let a_day_back = sample::START.minus_ms(86_400_000);
        check(a_day_back, a_day_back.plus_ms(30_000));
    }

    #[test]
    fn every_call_is_exported_with_its_exact_cost() {
        let lines = told(What::Calls, Format::JsonLines);
        assert_eq!(lines.len(), 41);
        assert!(lines[1].contains(r#""cost":0.000001001,"currency":"CNY""#));
        let table = told(What::Calls, Format::Csv);
        assert!(table[1].contains(",failed,") && table[1].contains(",conn,connection reset,"));
        assert!(table[2].contains(",0.000001001,CNY,"), "{}", table[2]);
    }

    #[test]
    fn the_usage_is_exported_by_day_model_and_user() {
        let lines = told(What::Usage, Format::JsonLines);
        let row: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(row["id"], "2026-11-23:glm-4.7:ada");
        assert_eq!(row["totalCalls"], 41);
        assert_eq!(
            row["failuresByClass"],
            serde_json::json!({"server_transient": 1})
        );
        let table = told(What::Usage, Format::Csv);
        assert!(table[1].starts_with("2026-11-23,glm-4.7,ada,,,41,40,1,"));
    }
}
