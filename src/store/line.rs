//! The rows of the table of places in line: what the lane keeps of a waiting job in memory, and what lists are
//! filtered by. A restart reads one for each job that waits before it makes its first call, so they are no JSON: what
//! most jobs have is of fixed width and in one place, and what few have takes no room in the others.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the version of the row |
//! | 2 | which of the members below are there, and what is true of the job |
//! | 16 | the job's id |
//! | 4, 8, 12 or 16 each | members that are there, in the order of [`Has`] |
//! | 2, and as many as these say | the user |
//! | the rest | the model |
//!
//! Numbers are little-endian.

use std::num::NonZeroU32;

use super::error::{FileError, Result};
use super::schema::{ROW_VERSION, newer_row};
use crate::model::{
    BatchId, Due, Job, JobEntry, JobId, KeyId, Seq, SessionTag, Timestamp, Wait, WorstCase,
};
use crate::ports::MoreFilter;

const TABLE: &str = "line";

/// A job in its place. What only the lane asks for is left out once the job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineRow<'a> {
    pub(super) id: JobId,
    pub(super) user: &'a str,
    pub(super) model: &'a str,
    priority: i32,
    due: Option<Due>,
    deadline: Option<Timestamp>,
    /// Whether an attempt is on record that has not ended.
    pub(super) open: bool,
    since: Timestamp,
    tokens: u32,
    worst: WorstCase,
    dormant: bool,
    parked: bool,
    pub(super) batch: Option<BatchId>,
    bound: Option<u64>,
    key: Option<KeyId>,
    session: Option<SessionTag>,
}

/// The bits of a row's second and third byte.
struct Has;

impl Has {
    const OPEN: u16 = 1;
    const DORMANT: u16 = 1 << 1;
    const PARKED: u16 = 1 << 2;
    const PRIORITY: u16 = 1 << 3;
    const DUE_AT: u16 = 1 << 4;
    const DUE_AFTER: u16 = 1 << 5;
    const DEADLINE: u16 = 1 << 6;
    const SINCE: u16 = 1 << 7;
    const TOKENS: u16 = 1 << 8;
    const BATCH: u16 = 1 << 9;
    const BOUND: u16 = 1 << 10;
    const KEY: u16 = 1 << 11;
    const SESSION: u16 = 1 << 12;
    const ALL: u16 = (1 << 13) - 1;
}

/// Such bits.
struct Flags(u16);

impl Flags {
    const fn is(&mut self, is: bool, bit: u16) {
        if is {
            self.0 |= bit;
        }
    }
}

impl<'a> LineRow<'a> {
    pub(super) fn of(job: &'a Job) -> Self {
        let row = Self {
            id: job.id,
            user: &job.user_id,
            model: &job.model,
            priority: job.priority,
            due: None,
            deadline: None,
            open: false,
            since: Timestamp::default(),
            tokens: 0,
            worst: WorstCase::default(),
            dormant: false,
            parked: false,
            batch: job.batch_id,
            bound: None,
            key: job.key_id,
            session: None,
        };
        if job.status.is_terminal() {
            return row;
        }
        Self {
            due: job.due(),
            deadline: job.deadline,
            open: job.open.is_some(),
            since: job.available_since(),
            tokens: job.estimated_tokens,
            worst: job.worst,
            dormant: job.is_dormant(),
            parked: job.parked.is_some(),
            bound: job.bound_to,
            session: job.session_tag(),
            ..row
        }
    }

    pub(super) fn entry(&self, seq: Seq) -> JobEntry<&'a str> {
        JobEntry {
            id: self.id,
            seq,
            priority: self.priority,
            due: self.due,
            deadline: self.deadline,
            since: self.since,
            model: self.model,
            user_id: self.user,
            tokens: self.tokens,
            worst: self.worst,
            batch_id: self.batch,
            dormant: self.dormant,
            parked: self.parked,
            out_of_scope: false,
            capped: false,
            bound_to: self.bound,
            key: self.key,
            session: self.session,
        }
    }

    /// Whether the job's own row has to be looked at for what else a list is narrowed by: `false`
    /// when what is known here rules it out.
    pub(super) fn may_match(&self, more: &MoreFilter) -> bool {
        more.priority_min.is_none_or(|min| self.priority >= min)
            && more.priority_max.is_none_or(|max| self.priority <= max)
            && (self.parked || more.parked != Some(true))
            && more.batch_id.is_none_or(|id| self.batch == Some(id))
            && more.key_id.is_none_or(|id| self.key == Some(id))
    }

    /// Writes it as a row.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        // There is one version, and it is small.
        out.extend_from_slice(&[ROW_VERSION as u8, 0, 0]);
        out.extend_from_slice(self.id.as_bytes());
        let mut has = Flags(0);
        has.is(self.open, Has::OPEN);
        has.is(self.dormant, Has::DORMANT);
        has.is(self.parked, Has::PARKED);
        let mut put = |bit: u16, bytes: &[u8]| {
            has.is(true, bit);
            out.extend_from_slice(bytes);
        };
        if self.priority != 0 {
            put(Has::PRIORITY, &self.priority.to_le_bytes());
        }
        match self.due {
            None => {}
            Some(Due::At(at)) => put(Has::DUE_AT, &moment(at)),
            Some(Due::After(wait)) => {
                put(Has::DUE_AFTER, &moment(wait.until));
                put(Has::DUE_AFTER, &wait.length_ms.to_le_bytes());
            }
        }
        if let Some(deadline) = self.deadline {
            put(Has::DEADLINE, &moment(deadline));
        }
        if self.since != Timestamp::default() {
            put(Has::SINCE, &moment(self.since));
        }
        let WorstCase { prompt, completion } = self.worst;
        let tokens = [self.tokens, prompt, completion];
        if tokens != [0; 3] {
            for tokens in tokens {
                put(Has::TOKENS, &tokens.to_le_bytes());
            }
        }
        let numbers = [
            (Has::BATCH, self.batch.map(BatchId::number)),
            (Has::BOUND, self.bound),
            (Has::KEY, self.key.map(KeyId::number)),
        ];
        for (bit, number) in numbers {
            if let Some(number) = number {
                put(bit, &number.to_le_bytes());
            }
        }
        if let Some(session) = self.session {
            put(Has::SESSION, &session.number().get().to_le_bytes());
        }
        // Names are far shorter: the door refuses longer ones.
        let user = self.user.as_bytes();
        let len = u16::try_from(user.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend(user.iter().take(usize::from(len)));
        out.extend_from_slice(self.model.as_bytes());
        if let Some(flags) = out.get_mut(1..3) {
            flags.copy_from_slice(&has.0.to_le_bytes());
        }
    }

    /// Reads a row.
    pub(super) fn decode(row: &'a [u8]) -> Result<Self> {
        match row.first() {
            Some(version) if u64::from(*version) > ROW_VERSION => {
                Err(newer_row(u64::from(*version)))
            }
            Some(version) if u64::from(*version) < ROW_VERSION => {
                Err(FileError::damaged(TABLE, "a row has no version"))
            }
            _ => Self::read(row)
                .ok_or_else(|| FileError::damaged(TABLE, "a row is not what it should be")),
        }
    }

    fn read(row: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(row.split_first()?.1);
        let has = u16::from_le_bytes(*rest.take()?);
        let is = |bit: u16| has & bit != 0;
        if has & !Has::ALL != 0 || (is(Has::DUE_AT) && is(Has::DUE_AFTER)) {
            return None;
        }
        let id = JobId::from_bytes(*rest.take()?);
        let priority = match is(Has::PRIORITY) {
            true => i32::from_le_bytes(*rest.take()?),
            false => 0,
        };
        let due = match (rest.moment(is(Has::DUE_AT))?, is(Has::DUE_AFTER)) {
            (Some(at), _) => Some(Due::At(at)),
            (None, false) => None,
            (None, true) => Some(Due::After(Wait {
                until: rest.moment(true)??,
                length_ms: rest.number(true)??,
            })),
        };
        let deadline = rest.moment(is(Has::DEADLINE))?;
        let since = rest.moment(is(Has::SINCE))?.unwrap_or_default();
        let mut tokens = [0; 3];
        if is(Has::TOKENS) {
            for tokens in &mut tokens {
                *tokens = u32::from_le_bytes(*rest.take()?);
            }
        }
        let [tokens, prompt, completion] = tokens;
        let batch = rest.number(is(Has::BATCH))?.map(BatchId::new);
        let bound = rest.number(is(Has::BOUND))?;
        let key = rest.number(is(Has::KEY))?.map(KeyId::new);
        let session = match is(Has::SESSION) {
            true => Some(SessionTag::new(NonZeroU32::new(u32::from_le_bytes(
                *rest.take()?,
            ))?)),
            false => None,
        };
        let len = u16::from_le_bytes(*rest.take()?);
        let (user, model) = rest.0.split_at_checked(usize::from(len))?;
        Some(Self {
            id,
            user: str::from_utf8(user).ok()?,
            model: str::from_utf8(model).ok()?,
            priority,
            due,
            deadline,
            open: is(Has::OPEN),
            since,
            tokens,
            worst: WorstCase { prompt, completion },
            dormant: is(Has::DORMANT),
            parked: is(Has::PARKED),
            batch,
            bound,
            key,
            session,
        })
    }
}

fn moment(at: Timestamp) -> [u8; 8] {
    at.as_millis().to_le_bytes()
}

/// What is not read yet of a row. `None` of each: the row is cut short.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self, is_there: bool) -> Option<Option<u64>> {
        match is_there {
            true => self.take().map(|bytes| Some(u64::from_le_bytes(*bytes))),
            false => Some(None),
        }
    }

    fn moment(&mut self, is_there: bool) -> Option<Option<Timestamp>> {
        let millis = self.number(is_there)?;
        Some(millis.map(|millis| Timestamp::from_millis(millis.cast_signed())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row<'a>(names: &'a (String, String), draw: &[u64; 9], flags: u8) -> LineRow<'a> {
        let is = |bit: u8| flags & (1 << bit) != 0;
        let at = |n: usize| Timestamp::from_millis(draw[n].cast_signed());
        let number = |n: usize| is(n as u8).then_some(draw[n]);
        LineRow {
            id: JobId::from_bytes(u128::from(draw[0]).to_le_bytes()),
            user: &names.0,
            model: &names.1,
            priority: draw[1] as i32,
            due: match draw[2] % 3 {
                0 => None,
                1 => Some(Due::At(at(2))),
                _ => Some(Due::After(Wait {
                    until: at(3),
                    length_ms: draw[2],
                })),
            },
            deadline: number(4).map(|_| at(4)),
            open: is(0),
            since: at(5),
            tokens: draw[6] as u32,
            worst: WorstCase {
                prompt: (draw[6] >> 32) as u32,
                completion: draw[7] as u32,
            },
            dormant: is(1),
            parked: is(2),
            batch: number(5).map(BatchId::new),
            bound: number(6),
            key: number(7).map(KeyId::new),
            session: NonZeroU32::new(draw[8] as u32).map(SessionTag::new),
        }
    }

    proptest! {
        #[test]
        fn a_place_in_line_is_read_as_it_was_written_and_cut_short_not_at_all(
            names in (".{0,40}", "[a-z0-9.-]{1,20}"),
            draw in prop::array::uniform9(prop_oneof![Just(0), any::<u64>()]),
            flags: u8,
        ) {
            let row = row(&names, &draw, flags);
            let mut out = vec![1, 2, 3];
            row.encode(&mut out);
            prop_assert_eq!(LineRow::decode(&out).unwrap(), row);
            let names = 2 + names.0.len() + names.1.len();
            for cut in 0..out.len() - names {
                prop_assert!(LineRow::decode(&out[..cut]).is_err());
            }
            out[0] = 2;
            let is_newer = matches!(LineRow::decode(&out), Err(FileError::NewerRow { found: 2, .. }));
            prop_assert!(is_newer);
        }
    }

    #[test]
    fn a_place_in_line_takes_few_bytes() {
        let names = ("ada".to_owned(), "glm-4.6".to_owned());
        let mut out = Vec::new();
        row(&names, &[1, 0, 0, 0, 0, 9, 9, 9, 0], 0).encode(&mut out);
        assert_eq!(out.len(), 51);
    }
}
