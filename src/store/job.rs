//! The rows of jobs. What every job has stands at the head of its row, in a fixed order and without names; the
//! others follow under their names where a job has any: `[1,[1,0,0,0,0,3,1796046312847,1282,1064,4096],"user","model",{...}]`.
//! Its id is the row's key. So a job that waits takes a hundred bytes and not three hundred.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
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
    user: Cow<'r, str>,
    #[serde(borrow)]
    model: Cow<'r, str>,
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
    let id = JobId::from_bytes(*id).to_string();
    // Read by the same words as everywhere: what a job is stands once.
    let known = [
        ("id", Known::Text(&id)),
        ("seq", Known::Count(head.seq)),
        ("userId", Known::Text(&user)),
        ("model", Known::Text(&model)),
        ("priority", Known::Number(head.priority.into())),
        ("status", Known::Text(status.name())),
        ("attemptCount", Known::Count(head.attempts.into())),
        ("retryCount", Known::Count(head.retry_count.into())),
        ("maxRetries", Known::Count(head.max_retries.into())),
        ("createdAt", Known::Number(head.created_at)),
        (
            "estimatedTokens",
            Known::Count(head.estimated_tokens.into()),
        ),
        ("worst", Known::Worst(head.prompt, head.completion)),
    ];
    let rest = rest.map_or("{}", RawValue::get);
    serde_json::Deserializer::from_str(rest)
        .deserialize_map(Whole(known))
        .map_err(unreadable)
}

/// What every job has: so many members.
const KNOWN: usize = 12;

/// A member that stands at the head of a row.
#[derive(Clone, Copy)]
enum Known<'r> {
    Count(u64),
    Number(i64),
    Text(&'r str),
    /// The worst that the job may come to, in tokens of the prompt and of the completion.
    Worst(u32, u32),
}

/// Reads the members that have their names in the row as if those that have none stood before them.
struct Whole<'r>([(&'static str, Known<'r>); KNOWN]);

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Job;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what else a job has")
    }

    fn visit_map<A: MapAccess<'de>>(self, rest: A) -> Result<Job, A::Error> {
        Job::deserialize(MapAccessDeserializer::new(Members {
            known: self.0.into_iter(),
            value: None,
            rest,
        }))
    }
}

struct Members<'r, A> {
    known: std::array::IntoIter<(&'static str, Known<'r>), KNOWN>,
    /// That of the name that was told last, if it is one of the known.
    value: Option<Known<'r>>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some((name, value)) = self.known.next() else {
            return self.rest.next_key_seed(seed);
        };
        self.value = Some(value);
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(known) => seed.deserialize(KnownValue(known, PhantomData)),
            None => self.rest.next_value_seed(seed),
        }
    }
}

struct KnownValue<'r, E>(Known<'r>, PhantomData<E>);

impl<'de, E: de::Error> Deserializer<'de> for KnownValue<'_, E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Known::Count(count) => visitor.visit_u64(count),
            Known::Number(number) => visitor.visit_i64(number),
            Known::Text(text) => visitor.visit_str(text),
            Known::Worst(prompt, completion) => {
                let sides = [("prompt", prompt), ("completion", completion)];
                visitor.visit_map(MapDeserializer::new(sides.into_iter()))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.0 {
            Known::Text(text) => text
                .into_deserializer()
                .deserialize_enum(name, names, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}
