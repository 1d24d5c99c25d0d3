//! The lines of a file that a batch over HTTP is made of: `custom_id`, `method`, `url` and `body`, each a body of one of
//! GLM's faces as the gateway takes it, and `session` where a line is of another one than its batch. Read one after the other, so that no file is in memory whole.

use std::collections::HashSet;
use std::io::{self, BufRead};

use onelane_core::life::grant::BeyondRights;
use onelane_core::model::limits as bounds;
use onelane_core::model::{
    BatchInput, Face, JobId, LineFault, NewJob, NoSessionId, SessionId, SubmissionError, Timestamp,
};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::terms::Terms;
use super::{gateway, limits};
use crate::error::Error;
use crate::object::Object;
use crate::orchestrator::Submission;

/// The members of a line.
const MEMBERS: [&str; 5] = ["custom_id", "method", "url", "body", "session"];

/// What a look through the lines of a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// How many lines there are, blank ones left out.
    pub(super) lines: u64,
    /// What is wrong, the first of it.
    pub(super) faults: Vec<LineFault>,
}

/// The face of the path that lines are for; else why they can't be for it.
pub(super) fn face_of(endpoint: &str) -> Result<Face, String> {
    let face = Face::of_path(endpoint).filter(|_| endpoint.starts_with('/'));
    face.ok_or_else(|| {
        let ends = Face::ALL.map(|face| format!("/v1{}", face.path_end()));
        format!(
            "must be a path like {}, not {endpoint:?}: other calls have no batches here",
            ends.join(", ")
        )
    })
}

/// Reads lines. A line that is longer than any request may be is passed over and told as a fault.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    /// The number in the file of the line that was read last.
    pub(super) number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(reader: R, number: u64) -> Self {
        Self {
            reader,
            line: Vec::new(),
            number,
        }
    }

    /// Where the reader is: behind the last line that was read.
    pub(super) const fn reader(&self) -> &R {
        &self.reader
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<&str, LineFault>>> {
        loop {
            let Some(is_whole) = self.read_line()? else {
                return Ok(None);
            };
            self.number += 1;
            if !is_whole {
                let max = limits::BATCH_LINE_BYTES_MAX;
                let problem = format!("has more than {max} bytes");
                return Ok(Some(Err(self.fault("line_too_long", problem, None))));
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        if std::str::from_utf8(&self.line).is_err() {
            return Ok(Some(Err(self.fault(
                "invalid_json_line",
                "is not UTF-8",
                None,
            ))));
        }
        let text = std::str::from_utf8(&self.line).unwrap_or_default();
        let first = self.number == 1;
        let text = if first {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        Ok(Some(Ok(text)))
    }

    /// Reads up to the end of a line. `None`: there is none. `false`: it is too long.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let (mut is_whole, mut found) = (true, false);
        loop {
            let piece = self.reader.fill_buf()?;
            if piece.is_empty() {
                return Ok(found.then_some(is_whole));
            }
            found = true;
            let end = piece.iter().position(|byte| *byte == b'\n');
            let content = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
            is_whole &= self.line.len() + content.len() <= limits::BATCH_LINE_BYTES_MAX;
            if is_whole {
                self.line.extend_from_slice(content);
            }
            let used = content.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(is_whole));
            }
        }
    }

    /// What is wrong with the line that was read last.
    pub(super) fn fault(
        &self,
        code: &str,
        problem: impl Into<String>,
        param: Option<&str>,
    ) -> LineFault {
        LineFault {
            line: Some(self.number),
            code: code.to_owned(),
            // It is kept, and quotes what the line says.
            message: problem
                .into()
                .chars()
                .take(limits::LINE_FAULT_CHARS_MAX)
                .collect(),
            param: param.map(str::to_owned),
        }
    }
}

/// What is wrong with a line, without its number.
struct Wrong(&'static str, String, Option<&'static str>);

/// A line as it is asked for.
pub(super) struct Line {
    pub(super) custom_id: String,
    submission: Submission,
}

impl Line {
    fn read(text: &str, endpoint: &str) -> Result<Self, Wrong> {
        let wrong = |code, problem: String, param| Wrong(code, problem, param);
        let members = Object::read(text)
            .map_err(|error| wrong("invalid_json_line", not_json(&error), None))?;
        let unknown = members.iter().find(|(name, _)| !MEMBERS.contains(name));
        if let Some((name, _)) = unknown {
            let problem = format!(
                "{name:?} is no member of a line; it has {}",
                MEMBERS.join(", ")
            );
            return Err(wrong("unknown_parameter", problem, None));
        }
        let missing = |name: &'static str| {
            let problem = format!("{name} is missing");
            wrong("missing_required_parameter", problem, Some(name))
        };
        let text_of = |name: &'static str| {
            let raw = members.get(name).ok_or_else(|| missing(name))?;
            serde_json::from_str::<String>(raw.get()).map_err(|_| {
                let problem = format!("{name} must be a string");
                wrong("invalid_type", problem, Some(name))
            })
        };
        let custom_id = text_of("custom_id")?;
        let max = bounds::CONTENT_ID_CHARS_MAX;
        if !(1..=max).contains(&custom_id.chars().count()) {
            let problem = format!("custom_id must have 1 to {max} characters");
            return Err(wrong("invalid_custom_id", problem, Some("custom_id")));
        }
        let method = text_of("method")?;
        if method != "POST" {
            let problem = format!("method must be POST, not {method:?}");
            return Err(wrong("invalid_method", problem, Some("method")));
        }
        let url = text_of("url")?;
        if url != endpoint {
            let problem =
                format!("url must be {endpoint:?} as the batch's endpoint is, not {url:?}");
            return Err(wrong("mismatched_endpoint", problem, Some("url")));
        }
        let body = members.get("body").ok_or_else(|| missing("body"))?;
        let of_body = |problem: &Problem| {
            let problem = format!("body: {}", problem.detail());
            wrong("invalid_request", problem, Some("body"))
        };
        let face = face_of(endpoint).map_err(|problem| {
            wrong("mismatched_endpoint", format!("url {problem}"), Some("url"))
        })?;
        let submission = gateway::read(face, body).map_err(|problem| of_body(&problem))?;
        if submission.request.streams() {
            let problem = "body.stream: answers of a batch are not streamed; leave it out";
            return Err(wrong("invalid_request", problem.to_owned(), Some("body")));
        }
        let session = match members.get("session").filter(|raw| raw.get() != "null") {
            None => None,
            Some(_) => {
                let named: SessionId = text_of("session")?.parse().map_err(|no: NoSessionId| {
                    let problem = format!("session {no}");
                    wrong("invalid_session", problem, Some("session"))
                })?;
                Some(named.into())
            }
        };
        Ok(Self {
            custom_id,
            submission: Submission {
                session,
                ..submission
            },
        })
    }

    /// The job of a batch that it is, the `nth` of them. The same line is the same job.
    pub(super) fn job(self, input: &BatchInput, nth: u64) -> Submission {
        Submission {
            content_id: Some(self.custom_id),
            batch_id: Some(input.id),
            deadline: Some(input.deadline.into()),
            idempotency_key: Some(format!("{}/{nth}", input.id)),
            ..self.submission
        }
    }
}

impl<R: BufRead> Lines<R> {
    /// The next line, read. `None`: there is none.
    pub(super) fn next_line(
        &mut self,
        endpoint: &str,
    ) -> io::Result<Option<Result<Line, LineFault>>> {
        let read = match self.next()? {
            None => return Ok(None),
            Some(Err(fault)) => return Ok(Some(Err(fault))),
            Some(Ok(text)) => Line::read(text, endpoint),
        };
        Ok(Some(read.map_err(|Wrong(code, problem, param)| {
            self.fault(code, problem, param)
        })))
    }

    /// The line that was read last asks for more than its key may.
    pub(super) fn beyond(&self, beyond: &BeyondRights) -> LineFault {
        let member = match beyond {
            BeyondRights::Session => "session",
            _ => "body",
        };
        self.fault("beyond_rights", format!("{member}: {beyond}"), Some(member))
    }
}

/// Looks through all lines before any becomes a job. `goes_on`: whether what a job goes on from is there.
pub(super) fn look_through(
    reader: impl BufRead,
    input: &BatchInput,
    lines_max: u64,
    terms: &Terms,
    now: Timestamp,
    goes_on: impl Fn(&Submission) -> Result<(), Error>,
) -> io::Result<Looked> {
    let mut lines = Lines::new(reader, 0);
    let mut looked = Looked::default();
    let mut names: HashSet<[u8; 16]> = HashSet::new();
    while looked.faults.len() < limits::ERRORS_SHOWN_MAX {
        let read = match lines.next_line(&input.endpoint)? {
            None => break,
            Some(read) => read,
        };
        looked.lines += 1;
        if looked.lines > lines_max {
            let problem = format!("the file has more than {lines_max} lines, which is the limit");
            looked
                .faults
                .push(lines.fault("too_many_lines", problem, None));
            break;
        }
        let fault = match read {
            Err(fault) => Some(fault),
            Ok(line) if !names.insert(digest(&line.custom_id)) => {
                let problem = format!("custom_id {:?} stands in a line before", line.custom_id);
                Some(lines.fault("duplicate_custom_id", problem, Some("custom_id")))
            }
            Ok(line) => match terms.grant(line.job(input, looked.lines)) {
                Err(beyond) => Some(lines.beyond(&beyond)),
                Ok(job) => {
                    let of_body =
                        |code, problem| lines.fault(code, format!("body: {problem}"), Some("body"));
                    let id = JobId::from_bytes([0; 16]);
                    match goes_on(&job).map_err(|error| error.to_string()) {
                        Err(problem) => Some(of_body("invalid_request", problem)),
                        Ok(()) => {
                            let made = NewJob::of(job, &terms.settings, id, now);
                            made.err().map(|error| {
                                let code = match error {
                                    SubmissionError::Unpriced(_) => "unpriced_model",
                                    SubmissionError::Field { .. } => "invalid_request",
                                };
                                of_body(code, error.to_string())
                            })
                        }
                    }
                }
            },
        };
        looked.faults.extend(fault);
    }
    if looked.lines == 0 {
        looked.faults.push(LineFault {
            line: None,
            code: "empty_file".to_owned(),
            message: "the file has no line".to_owned(),
            param: None,
        });
    }
    Ok(looked)
}

fn digest(name: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    *digest.first_chunk().unwrap_or(&[0; 16])
}

/// The parser counts lines within its text, which is one line: only its column tells anything.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    match error.column() {
        0 => format!("is not a JSON object: {what}"),
        column => format!("is not a JSON object: {what} at column {column}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onelane_core::model::{BatchId, FileId};

    use super::*;

    const ENDPOINT: &str = "/v1/chat/completions";
    const GOOD: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"glm-4.7","messages":[{"role":"user","content":"hi"}]}}"#;

    fn look(text: &[u8], lines_max: u64) -> Looked {
        let now = Timestamp::from_millis(1_000);
        let file = FileId::from_bytes([1; 16]);
        let input = BatchInput::new(BatchId::new(1), file, ENDPOINT, now, now.plus_ms(1_000));
        let terms = Terms::of(&input, Arc::default(), 0, now).unwrap();
        look_through(text, &input, lines_max, &terms, now, |_| Ok(())).unwrap()
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_what_is_wrong() {
        let with = |from: &str, to: &str| GOOD.replace(from, to);
        let named = |id: &str| with(r#""a""#, &format!("{id:?}"));
        let check = |line: &str, code: &str, words: &str| {
            let text = format!("\u{feff}{}\n\n{line}\n{}", named("first"), named("last"));
            let looked = look(text.as_bytes(), 10);
            let faults = &looked.faults;
            assert_eq!(faults.len(), 1, "{line}: {faults:?}");
            assert_eq!(
                (faults[0].line, &*faults[0].code),
                (Some(3), code),
                "{line}"
            );
            assert!(faults[0].message.contains(words), "{faults:?}");
        };
        check("not json", "invalid_json_line", "column");
        check("[]", "invalid_json_line", "JSON object");
        check(&GOOD.replace("}}", "}"), "invalid_json_line", "EOF");
        check(
            &with(r#""custom_id":"a","#, ""),
            "missing_required_parameter",
            "custom_id",
        );
        check(&with(r#""a""#, "7"), "invalid_type", "string");
        check(&named(""), "invalid_custom_id", "1 to 256");
        check(&named("first"), "duplicate_custom_id", "first");
        check(&with("POST", "GET"), "invalid_method", "POST");
        check(
            &with(ENDPOINT, "/v1/embeddings"),
            "mismatched_endpoint",
            ENDPOINT,
        );
        check(
            &with(r#""body""#, r#""priority":1,"body""#),
            "unknown_parameter",
            "priority",
        );
        let named_session = r#""session":"a b","body""#;
        check(
            &with(r#""body""#, named_session),
            "invalid_session",
            "without spaces",
        );
        check(
            &with(r#"{"role":"user","content":"hi"}"#, ""),
            "invalid_request",
            "messages",
        );
        check(
            &with(r#""model""#, r#""stream":true,"model""#),
            "invalid_request",
            "stream",
        );
        let long = "x".repeat(limits::BATCH_LINE_BYTES_MAX);
        check(&with("hi", &long), "line_too_long", "bytes");
        assert_eq!(look(b"\xff\n", 1).faults[0].code, "invalid_json_line");
    }

    #[test]
    fn a_file_has_lines_and_no_more_than_may_be() {
        let lines: Vec<String> = (0..5)
            .map(|n| GOOD.replace(r#""a""#, &format!("\"line {n}\"")))
            .collect();
        let text = lines.join("\n");
        assert_eq!(
            look(text.as_bytes(), 5),
            Looked {
                lines: 5,
                faults: Vec::new()
            }
        );
        let fault = &look(text.as_bytes(), 4).faults[0];
        assert_eq!((fault.line, &*fault.code), (Some(5), "too_many_lines"));
        let fault = &look(b" \n\n", 4).faults[0];
        assert_eq!((fault.line, &*fault.code), (None, "empty_file"));
    }

    #[test]
    fn faults_are_listed_up_to_a_bound() {
        let text = "x\n".repeat(1_000);
        assert_eq!(
            look(text.as_bytes(), 5_000).faults.len(),
            limits::ERRORS_SHOWN_MAX
        );
    }
}
