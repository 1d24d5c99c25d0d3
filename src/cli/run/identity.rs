//! The identity of a line: when it is the same line in the next run.
//!
//! The rule, on which "the same command again continues" rests:
//!
//! * A line is known by **its input's file name, its id, and what it asks** (model, if it names one,
//!   and prompt or chat body; the order of JSON keys and spaces do not matter). A line without an id is
//!   known by what it asks and by how many equal lines came before it. So lines may be inserted,
//!   moved and re-prioritised without being sent again, and a changed line is a new one.
//! * That digest is the `id` in the results file: a line with a result there is done.
//! * The idempotency key of its job is that digest, and for a line that names no model also the model
//!   it falls to. So a line that was submitted before finds its job in the store, finished or not,
//!   even when the results file was moved or deleted; and an answer of one model is never taken for
//!   one of another.
//! * The file's directory plays no part: a project may be moved. A file that was renamed takes its jobs along
//!   (`elsewhere`). A copy of the input under another name, and a batch that was named, are inputs of their own:
//!   what another one has of their lines is not paid for again without the user's word.
//! * A simulated answer is never taken for a real one: under `--simulate` the same line is another line.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use onelane::model::Fingerprint;
use sha2::{Digest as _, Sha256};

/// GLM, or the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// GLM.
    Real,
    /// The simulator.
    Simulated,
}

/// Which input: a short digest of its file name, and whether GLM answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    /// GLM, or the simulator.
    pub(crate) mode: Mode,
    name: [u8; 4],
}

/// Which line of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 16]);

/// A line of some input, as the `id` in the results file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineId {
    /// Which input.
    pub(crate) source: Source,
    /// Which line of it.
    pub(crate) line: Digest,
}

/// What the results file calls a line: its own id, or its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// The line's `custom_id` or `id`.
    Id(Box<str>),
    /// Its number in the input, from 1.
    Number(u64),
}

/// A line of the input as the run follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// What it is known by.
    pub(crate) digest: Digest,
    /// What the results call it.
    pub(crate) label: Label,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Number(number) => write!(f, "line-{number}"),
        }
    }
}

impl Mode {
    /// What ids of lines begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Real => "run",
            Self::Simulated => "sim",
        }
    }
}

impl Source {
    /// The input with this path; `-` is standard input.
    pub(crate) fn of(input: &Path, mode: Mode) -> Self {
        let name = input.file_name().unwrap_or(input.as_os_str());
        let mut hash = Sha256::new();
        hash.update(b"onelane run source\0");
        hash.update(name.as_encoded_bytes());
        Self {
            mode,
            name: first(&hash.finalize()),
        }
    }

    /// The input of the batch that was named so, whichever file its lines come from.
    pub(crate) fn named(batch: &str, mode: Mode) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"onelane run batch\0");
        hash.update(batch.as_bytes());
        Self {
            mode,
            name: first(&hash.finalize()),
        }
    }

    /// Whether it is the same input, simulated or not.
    pub(crate) fn is_same_input(self, other: Self) -> bool {
        self.name == other.name
    }
}

impl Digest {
    /// Its bytes.
    pub(crate) const fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl LineId {
    /// Its length as text.
    const CHARS: usize = 45;

    /// Reads the form that `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once('-')?;
        let mode = [Mode::Real, Mode::Simulated]
            .into_iter()
            .find(|mode| mode.prefix() == prefix)?;
        let (name, line) = rest.split_once('-')?;
        Some(Self {
            source: Source {
                mode,
                name: unhex(name)?,
            },
            line: Digest(unhex(line)?),
        })
    }

    /// Reads what [`LineId::idempotency_key`] writes: the line, and the model that it falls to (empty: it names one).
    pub(crate) fn of_key(key: &str) -> Option<(Self, &str)> {
        let (id, rest) = (key.get(..Self::CHARS)?, key.get(Self::CHARS..)?);
        let model = match rest {
            "" => "",
            rest => rest.strip_prefix('-')?,
        };
        Some((Self::parse(id)?, model))
    }

    /// The key of a job of this line in another input.
    pub(crate) fn rekeyed(self, source: Source, key: &str) -> String {
        let rest = key.get(Self::CHARS..).unwrap_or_default();
        format!("{}{rest}", Self { source, ..self })
    }

    /// The idempotency key of the line's job. `default_model` is the one it falls to, if it names none.
    pub(crate) fn idempotency_key(self, default_model: Option<&str>) -> String {
        match default_model {
            Some(model) => format!("{self}-{model}"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.source.mode.prefix())?;
        for byte in self.source.name {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.line.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Gives the lines of one input their digests. Keeps some fifty bytes of a line, not its text.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// The line on which an id was used, by the id's digest.
    ids: HashMap<[u8; 16], u64>,
    /// How many lines without an id asked the same.
    equal: HashMap<[u8; 16], u64>,
}

impl Identities {
    /// The digest of a line. The error is the number of the line that has the same id.
    pub(crate) fn identify(
        &mut self,
        number: u64,
        id: Option<&str>,
        asks: Fingerprint,
    ) -> Result<Digest, u64> {
        let mut hash = Sha256::new();
        hash.update(b"onelane run line\0");
        hash.update(asks.0);
        match id {
            Some(id) => {
                let key = first(&Sha256::digest(id.as_bytes()));
                if let Some(before) = self.ids.insert(key, number) {
                    self.ids.insert(key, before);
                    return Err(before);
                }
                hash.update(b"id");
                hash.update(id.as_bytes());
            }
            None => {
                let equal = self.equal.entry(first(&asks.0)).or_insert(0);
                hash.update(b"nth");
                hash.update(equal.to_be_bytes());
                *equal += 1;
            }
        }
        Ok(Digest(first(&hash.finalize())))
    }

    /// The digest of a line that could not be read.
    pub(crate) fn unreadable(number: u64, text: &[u8]) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"onelane run unreadable line\0");
        hash.update(number.to_be_bytes());
        hash.update(text);
        Digest(first(&hash.finalize()))
    }
}

/// The first bytes of a digest.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelane::model::Request;

    fn asks(text: &str) -> Fingerprint {
        Request::prompt(text).unwrap().fingerprint("")
    }

    #[test]
    fn a_line_keeps_its_digest_when_others_are_inserted_before_it() {
        let mut before = Identities::default();
        let hello = before.identify(1, None, asks("hello")).unwrap();
        let mut after = Identities::default();
        after.identify(1, None, asks("new")).unwrap();
        assert_eq!(after.identify(2, None, asks("hello")).unwrap(), hello);
    }

    #[test]
    fn equal_lines_are_told_apart_by_their_order() {
        let mut lines = Identities::default();
        let one = lines.identify(1, None, asks("hello")).unwrap();
        let two = lines.identify(2, None, asks("hello")).unwrap();
        assert_ne!(one, two);
        let mut again = Identities::default();
        assert_eq!(again.identify(1, None, asks("hello")).unwrap(), one);
        assert_eq!(again.identify(2, None, asks("hello")).unwrap(), two);
    }

    #[test]
    fn a_changed_line_is_a_new_one() {
        let digest = |id, text| Identities::default().identify(1, id, asks(text)).unwrap();
        assert_ne!(digest(Some("a"), "hello"), digest(Some("a"), "hallo"));
        assert_ne!(digest(Some("a"), "hello"), digest(Some("b"), "hello"));
        assert_ne!(digest(None, "hello"), digest(None, "hallo"));
        assert_eq!(digest(Some("a"), "hello"), digest(Some("a"), "hello"));
    }

    #[test]
    fn an_id_is_used_once() {
        let mut lines = Identities::default();
        lines.identify(3, Some("a"), asks("x")).unwrap();
        assert_eq!(lines.identify(5, Some("a"), asks("y")), Err(3));
        assert_eq!(lines.identify(7, Some("a"), asks("z")), Err(3));
    }

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = LineId {
            source: Source::of(Path::new("/a/prompts.jsonl"), Mode::Simulated),
            line: Identities::default().identify(1, None, asks("x")).unwrap(),
        };
        assert_eq!(LineId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "run-",
            "run-12-34",
            "batch_req_1",
            "run-0000000g-00000000000000000000000000000000",
        ] {
            assert_eq!(LineId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_directory_plays_no_part_and_a_name_does() {
        let of = |path: &str| Source::of(Path::new(path), Mode::Real);
        assert_eq!(of("/a/prompts.jsonl"), of("b/prompts.jsonl"));
        assert_ne!(of("prompts.jsonl"), of("copy.jsonl"));
        assert_ne!(of("-"), of("prompts.jsonl"));
        let simulated = Source::of(Path::new("prompts.jsonl"), Mode::Simulated);
        assert_ne!(simulated, of("prompts.jsonl"));
        assert!(simulated.is_same_input(of("prompts.jsonl")));
    }

    #[test]
    fn a_key_tells_its_line_and_gets_another_source() {
        let of = |path: &str| Source::of(Path::new(path), Mode::Real);
        let line = Identities::default().identify(1, None, asks("x")).unwrap();
        let id = LineId {
            source: of("a.jsonl"),
            line,
        };
        for (model, told) in [(None, ""), (Some("glm-4.7"), "glm-4.7")] {
            let key = id.idempotency_key(model);
            assert_eq!(LineId::of_key(&key), Some((id, told)));
            let there = LineId {
                source: of("b.jsonl"),
                line,
            };
            assert_eq!(
                id.rekeyed(of("b.jsonl"), &key),
                there.idempotency_key(model)
            );
        }
        for bad in [
            "",
            "key",
            &format!("{id}x"),
            &format!("x{id}"),
            "ключ-ключ-ключ-ключ-ключ-ключ-ключ",
        ] {
            assert_eq!(LineId::of_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_model_a_line_falls_to_is_part_of_its_key() {
        let id = LineId::parse("run-00000000-00000000000000000000000000000001").unwrap();
        assert_ne!(
            id.idempotency_key(Some("glm-4.7")),
            id.idempotency_key(Some("glm-5"))
        );
        assert!(id.idempotency_key(Some(&"m".repeat(128))).len() <= 256);
    }
}
