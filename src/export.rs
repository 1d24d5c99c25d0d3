//! A store's content as lines: for analyses elsewhere, and to keep what retention will remove. Rows are
//! read page by page, newest first, so that a store of any size is exported with little memory.

use std::borrow::Cow;
use std::io::{self, Write};

use onelane_actors::model::{CallRecord, Cost, Day, Request, Timestamp};
use onelane_actors::ports::{CallFilter, JobFilter, JobRecord, Store, StoreError, UsageFilter};
use serde::Serialize;

use crate::api::views::{CallView, JobView, Shown};
use crate::csv;
use crate::statistics::{GroupBy, Period, StatisticsQuery, summarise, to_csv};

/// Jobs that are in memory at once: each may be some megabytes.
const JOBS_PAGE: usize = 32;
const CALLS_PAGE: usize = 1_000;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Jobs whole, with requests and responses.
    Jobs,
    /// The call log.
    Calls,
    /// The usage: a row for each day, model and user.
    Usage,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line, as the admin API shows it.
    JsonLines,
    /// RFC 4180 with a header. What has a shape of its own (a chat, an answer) is JSON in its field.
    Csv,
}

/// Why an export did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes all rows of a kind; answers how many. What is written holds prompts and answers, but no key:
/// a store holds none in them.
pub fn export(
    store: &dyn Store,
    what: What,
    format: Format,
    out: &mut dyn Write,
) -> Result<u64, ExportError> {
    match what {
        What::Jobs => jobs(store, format, out),
        What::Calls => calls(store, format, out),
        What::Usage => usage(store, format, out),
    }
}

fn jobs(store: &dyn Store, format: Format, out: &mut dyn Write) -> Result<u64, ExportError> {
    if format == Format::Csv {
        write_head(out, JOB_COLUMNS)?;
    }
    let (mut rows, mut cursor) = (0, None);
    loop {
        let page = store.jobs(&JobFilter::default(), cursor, JOBS_PAGE)?;
        for record in &page.jobs {
            match format {
                Format::JsonLines => write_json(out, &JobView::new(record, Shown::Whole))?,
                Format::Csv => write_fields(out, JOB_COLUMNS, record)?,
            }
            rows += 1;
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn calls(store: &dyn Store, format: Format, out: &mut dyn Write) -> Result<u64, ExportError> {
    if format == Format::Csv {
        write_head(out, CALL_COLUMNS)?;
    }
    let (mut rows, mut cursor) = (0, None);
    loop {
        let page = store.calls(&CallFilter::default(), cursor, CALLS_PAGE)?;
        for call in &page.calls {
            match format {
                Format::JsonLines => write_json(out, &CallView::new(call, None))?,
                Format::Csv => write_fields(out, CALL_COLUMNS, call)?,
            }
            rows += 1;
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn usage(store: &dyn Store, format: Format, out: &mut dyn Write) -> Result<u64, ExportError> {
    let query = StatisticsQuery {
        filter: UsageFilter {
            start: Day(i32::MIN),
            end: Day(i32::MAX),
            model: None,
            user_id: None,
        },
        group_by: GroupBy {
            period: Some(Period::Day),
            model: true,
            user: true,
        },
    };
    let rows = summarise(&store.usage(&query.filter)?, &query);
    match format {
        Format::JsonLines => rows.iter().try_for_each(|row| write_json(out, row))?,
        Format::Csv => out.write_all(to_csv(&rows).as_bytes())?,
    }
    Ok(rows.len() as u64)
}

/// Line ends that GLM put between its JSON's tokens are made blank: inside a JSON string they are escaped.
fn write_json(out: &mut dyn Write, row: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    out.write_all(&line)
}

/// A column of a table: its name, and its field of a row.
type Column<T> = (&'static str, fn(&T) -> Cow<'_, str>);

fn write_head<T>(out: &mut dyn Write, columns: &[Column<T>]) -> io::Result<()> {
    let names = columns.iter().map(|(name, _)| Cow::Borrowed(*name));
    out.write_all(csv::line(names).as_bytes())
}

fn write_fields<T>(out: &mut dyn Write, columns: &[Column<T>], row: &T) -> io::Result<()> {
    let fields = columns.iter().map(|(_, field)| field(row));
    out.write_all(csv::line(fields).as_bytes())
}

fn shown<T: ToString>(value: T) -> Cow<'static, str> {
    Cow::Owned(value.to_string())
}

fn shown_or_empty<T: ToString>(value: Option<T>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed(""), shown)
}

fn text(value: Option<&str>) -> Cow<'_, str> {
    Cow::Borrowed(value.unwrap_or_default())
}

fn moment(at: Option<Timestamp>) -> Cow<'static, str> {
    shown_or_empty(at)
}

const JOB_COLUMNS: &[Column<JobRecord>] = &[
    ("id", |r| shown(r.job.id)),
    ("userId", |r| text(Some(&r.job.user_id))),
    ("contentId", |r| text(r.job.content_id.as_deref())),
    ("model", |r| text(Some(&r.job.model))),
    ("servedBy", |r| text(r.job.served_by.as_deref())),
    ("priority", |r| shown(r.job.priority)),
    ("status", |r| text(Some(r.job.status.name()))),
    ("retryCount", |r| shown(r.job.retry_count)),
    ("maxRetries", |r| shown(r.job.max_retries)),
    ("attemptCount", |r| shown(r.job.attempts)),
    ("createdAt", |r| shown(r.job.created_at)),
    ("processedAt", |r| moment(r.job.processed_at)),
    ("nextRetryAt", |r| moment(r.job.next_retry_at)),
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
    ("metadata", |r| {
        text(r.job.metadata.as_deref().map(|m| m.get()))
    }),
    ("bodiesPruned", |r| shown(r.job.bodies_pruned)),
    ("prompt", |r| match r.request.as_deref() {
        Some(Request::Prompt(prompt)) => Cow::Borrowed(prompt),
        _ => Cow::Borrowed(""),
    }),
    ("request", |r| match r.request.as_deref() {
        Some(Request::Chat(body)) => Cow::Borrowed(body.get()),
        _ => Cow::Borrowed(""),
    }),
    ("result", |r| {
        text(r.response.as_deref().map(|body| body.get()))
    }),
];

const CALL_COLUMNS: &[Column<CallRecord>] = &[
    ("id", |c| text(Some(c.request_id.as_str()))),
    ("requestId", |c| shown(c.job_id)),
    ("attempt", |c| shown(c.attempt)),
    ("userId", |c| text(Some(&c.user_id))),
    ("endpoint", |c| text(Some(&c.endpoint))),
    ("model", |c| text(Some(&c.model))),
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
];

#[cfg(test)]
mod tests {
    use onelane_actors::testing::{MemoryStore, sample};

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
        let mut out = Vec::new();
        let rows = export(&store, what, format, &mut out).unwrap();
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
        assert!(table[0].starts_with("id,userId,contentId,model,"));
        assert!(table[2].contains(",completed,"));
        assert!(
            table[2].contains(r#"""content"":""answer 40"""#),
            "{}",
            table[2]
        );
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
        assert!(table[1].starts_with("2026-11-23,glm-4.7,ada,41,40,1,"));
    }
}
