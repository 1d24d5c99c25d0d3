//! The rows of jobs. What every job has stands at the head of its row, in a fixed order and without names; the
//! others follow under their names where a job has any: `[1,[1,0,0,0,0,3,1796046312847,1282,1064,4096],"user","model",{...}]`.
//! Its id is the row's key. So a job that waits takes a hundred bytes and not three hundred.

use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{FileError, Result};
use super::row;
use super::schema::{inner, other_version, status_byte};
use crate::model::{Job, JobId, JobStatus};

const TABLE: &str = "jobs";

/// The numbers at the head of a row.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    status: u8,
    priority: i32,
    attempts: u32,
    retry_count: u32,
    max_retries: u32,
    created_at: i64,
    estimated_tokens: u32,
    prompt: u32,
    completion: u32,
}

/// A row, version and all.
#[derive(Deserialize)]
struct Row<'r> {
    #[expect(dead_code, reason = "looked at before")]
    version: u64,
    head: Head,
    #[serde(borrow)]
    user: &'r RawValue,
    #[serde(borrow)]
    model: &'r RawValue,
    #[serde(borrow, default)]
    rest: Option<&'r RawValue>,
}

/// Writes the row of a job, over what `out` held.
pub(super) fn encode(out: &mut Vec<u8>, job: &Job) -> Result<()> {
    out.clear();
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "[1,[{},{},{},{},{},{},{},{},{},{}],",
        job.seq.0,
        status_byte(job.status),
        job.priority,
        job.attempts.0,
        job.retry_count,
        job.max_retries,
        job.created_at.as_millis(),
        job.estimated_tokens,
        job.worst.prompt,
        job.worst.completion,
    );
    let unwritable = |e: serde_json::Error| FileError::unwritable(&e);
    serde_json::to_writer(&mut *out, &job.user_id).map_err(unwritable)?;
    out.push(b',');
    serde_json::to_writer(&mut *out, &job.model).map_err(unwritable)?;
    let before = out.len();
    out.push(b',');
    row::write(out, job).map_err(unwritable)?;
    if out.get(before..) == Some(b",{}") {
        out.truncate(before);
    }
    out.push(b']');
    Ok(())
}

/// Reads such a row, which has this key.
pub(super) fn decode(id: &[u8; 16], row: &[u8]) -> Result<Job> {
    let unreadable = |e: serde_json::Error| FileError::unreadable(TABLE, &e);
    if inner(row).is_none() {
        return Err(other_version(TABLE, row));
    }
    let Row {
        head,
        user,
        model,
        rest,
        ..
    } = serde_json::from_slice(row).map_err(unreadable)?;
    let status = JobStatus::ALL
        .into_iter()
        .find(|status| status_byte(*status) == head.status)
        .ok_or_else(|| FileError::damaged(TABLE, "a status is not known"))?;
    // Read by the same words as everywhere: what a job is stands once.
    let mut json = Vec::with_capacity(row.len() + 256);
    let _ = write!(
        json,
        r#"{{"id":"{}","seq":{},"userId":{user},"model":{model},"priority":{},"status":"{}","attemptCount":{},"retryCount":{},"maxRetries":{},"createdAt":{},"estimatedTokens":{},"worst":{{"prompt":{},"completion":{}}}"#,
        JobId::from_bytes(*id),
        head.seq,
        head.priority,
        status.name(),
        head.attempts,
        head.retry_count,
        head.max_retries,
        head.created_at,
        head.estimated_tokens,
        head.prompt,
        head.completion,
    );
    let rest = match rest {
        None => "",
        Some(rest) => rest
            .get()
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .ok_or_else(|| FileError::damaged(TABLE, "a row is not what it should be"))?,
    };
    if !rest.trim_ascii().is_empty() {
        json.push(b',');
        json.extend_from_slice(rest.as_bytes());
    }
    json.push(b'}');
    serde_json::from_slice(&json).map_err(unreadable)
}
