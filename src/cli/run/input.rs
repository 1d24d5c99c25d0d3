//! The input as a stream of lines: read on a thread of its own, bounded in memory, each line
//! checked and identified before the lane sees it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};
use std::path::Path;

use onelane::api::dialect::{Asked, Dialect};
use onelane::model::{HalfACharacter, limits};
use tokio::sync::mpsc;

use super::identity::{Identities, Label, Name};
use super::shape::Shape;
use crate::cli::exit::{CliError, Exit};

/// Bytes of one line: a request of the largest size, and its frame.
const LINE_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX + 64 * 1024;
/// Bytes that are read at once. A chunk is what one read gave, so this bounds chunks too.
const READ_BYTES: usize = 256 * 1024;
/// Lines of a chunk: a burst of events that subscribers can still follow.
const CHUNK_LINES_MAX: usize = 512;

/// One line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its number in the input, from 1, blank lines counted.
    pub(crate) number: u64,
    /// Its digest and label.
    pub(crate) name: Name,
    /// Its job, or the problem with it.
    pub(crate) asked: Result<Asked, String>,
}

/// Lines that were read together; the error ends the input.
pub(crate) type Chunk = io::Result<Vec<Line>>;

/// Bytes of the head that a file of another kind is recognised by.
const HEAD_BYTES: usize = 256 * 1024;

/// An input that is open.
pub(crate) enum Input {
    /// Can be read more than once.
    File(File),
    /// A pipe: what was read of it to see what it is, and the rest.
    Stream(Vec<u8>, Box<dyn Read + Send>),
}

impl Input {
    /// The input from its beginning.
    pub(crate) fn reader(self, path: &Path) -> Result<Box<dyn Read + Send>, CliError> {
        match self {
            Self::File(mut file) => {
                file.rewind().map_err(|error| unreadable(path, &error))?;
                Ok(Box::new(file))
            }
            Self::Stream(head, rest) => Ok(Box::new(io::Cursor::new(head).chain(rest))),
        }
    }

    /// Makes a pipe one that can be read twice: waits for its end, and keeps it in a file without a name.
    pub(crate) fn whole(self, path: &Path) -> Result<Self, CliError> {
        match self {
            Self::File(_) => Ok(self),
            stream @ Self::Stream(..) => {
                let mut reader = stream.reader(path)?;
                let kept = nameless().and_then(|mut file| {
                    io::copy(&mut reader, &mut file)?;
                    Ok(Self::File(file))
                });
                kept.map_err(|error| unreadable(path, &error))
            }
        }
    }

    /// The same input once more.
    pub(crate) fn again(&self, path: &Path) -> Result<Option<Self>, CliError> {
        match self {
            Self::Stream(..) => Ok(None),
            Self::File(file) => {
                let again = file.try_clone().map_err(|error| unreadable(path, &error))?;
                Ok(Some(Self::File(again)))
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::usage(format!("{} can't be read: {error}", name(path)))
}

/// A file in the directory for such that is gone with this process.
fn nameless() -> io::Result<File> {
    let mut number = 0_u32;
    loop {
        let path = std::env::temp_dir().join(format!("onelane-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1_000 => {
                number += 1
            }
            opened => {
                let file = opened?;
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}

/// Opens the input; `-` is standard input. Errors are the user's to mend: no such file, a directory, a file of
/// another kind than JSON lines.
pub(crate) fn open(path: &Path) -> Result<Input, CliError> {
    let input = open_any(path)?;
    let mut head = Vec::new();
    let (input, whole) = match input {
        Input::File(mut file) => {
            let read = (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head);
            let read = read.map_err(|error| unreadable(path, &error))?;
            (Input::File(file), read < HEAD_BYTES)
        }
        Input::Stream(_, mut rest) => {
            let ended = first_lines(&mut *rest, &mut head);
            let ended = ended.map_err(|error| unreadable(path, &error))?;
            (Input::Stream(head.clone(), rest), ended)
        }
    };
    match Shape::of(&head, whole) {
        None => Ok(input),
        Some(shape) => {
            let problem = format!(
                "{} {}, not JSON lines (one object a line); nothing was sent",
                name(path),
                shape.words()
            );
            Err(CliError::usage(problem).help(shape.help(&path.display().to_string())))
        }
    }
}

/// Reads a pipe until a line of it is there; tells whether that was its end.
fn first_lines(input: &mut dyn Read, head: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = vec![0; HEAD_BYTES];
    while !head.contains(&b'\n') && head.len() < HEAD_BYTES {
        match input.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(read) => head.extend(piece.iter().take(read)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn open_any(path: &Path) -> Result<Input, CliError> {
    if path.as_os_str() == "-" {
        return Ok(Input::Stream(Vec::new(), Box::new(io::stdin())));
    }
    let trouble = |e: io::Error| {
        CliError::usage(format!("{}: {e}", path.display()))
            .help("give a file of prompts, or - for standard input")
    };
    let file = File::open(path).map_err(trouble)?;
    let found = file.metadata().map_err(trouble)?;
    if found.is_dir() {
        return Err(trouble(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok(if found.is_file() {
        Input::File(file)
    } else {
        Input::Stream(Vec::new(), Box::new(file))
    })
}

/// What messages call the input.
pub(crate) fn name(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}

/// Reads the input on a thread of its own. The thread is not joined: one that waits for standard
/// input can't be woken and ends with the process.
pub(crate) fn read(input: Box<dyn Read + Send>) -> Result<mpsc::Receiver<Chunk>, CliError> {
    let (chunks, receiver) = mpsc::channel(1);
    let thread = std::thread::Builder::new().name("input".to_owned());
    let started = thread.spawn(move || {
        let mut lines = Lines::new(input, LINE_BYTES_MAX);
        while let Some(chunk) = lines.chunk().transpose() {
            let failed = chunk.is_err();
            // A receiver that is gone wants no more lines.
            if chunks.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    match started {
        Ok(_) => Ok(receiver),
        Err(error) => {
            let problem = format!("a thread can't be started: {error}");
            Err(CliError::new(Exit::JobsFailed, problem))
        }
    }
}

/// Cuts a byte stream into lines.
struct Lines<R> {
    input: BufReader<R>,
    line_bytes_max: usize,
    number: u64,
    identities: Identities,
    dialect: Dialect,
}

/// Bytes up to the end of a line.
enum Raw {
    Line(Vec<u8>),
    /// With so many bytes; they are not kept.
    TooLong(u64),
}

impl<R: Read> Lines<R> {
    fn new(input: R, line_bytes_max: usize) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BYTES, input),
            line_bytes_max,
            number: 0,
            identities: Identities::default(),
            dialect: Dialect::new(),
        }
    }

    /// The lines that can be had without waiting for the input again; `None` at its end. So lines that
    /// come slowly through a pipe are not held up for the sake of a full chunk.
    fn chunk(&mut self) -> io::Result<Option<Vec<Line>>> {
        let mut lines = Vec::new();
        while let Some(raw) = self.raw()? {
            self.number += 1;
            lines.extend(self.line(&raw));
            let waits = !self.input.buffer().contains(&b'\n');
            if !lines.is_empty() && (waits || lines.len() == CHUNK_LINES_MAX) {
                break;
            }
        }
        Ok(Some(lines).filter(|lines| !lines.is_empty()))
    }

    /// The next line without its end; `None` at the end of the input.
    fn raw(&mut self) -> io::Result<Option<Raw>> {
        let mut line = Vec::new();
        let mut length = 0_u64;
        loop {
            let buffer = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|b| *b == b'\n');
            let at_end = end.is_some() || buffer.is_empty();
            let piece = buffer
                .get(..end.unwrap_or(buffer.len()))
                .unwrap_or_default();
            let room = self.line_bytes_max.saturating_sub(line.len());
            line.extend(piece.iter().take(room));
            length += piece.len() as u64;
            let used = piece.len() + usize::from(end.is_some());
            self.input.consume(used);
            if at_end {
                let fits = length <= self.line_bytes_max as u64;
                return Ok(Some(if fits {
                    Raw::Line(line)
                } else {
                    Raw::TooLong(length)
                }));
            }
        }
    }

    /// Checks and identifies a line; `None` for a blank one.
    fn line(&mut self, raw: &Raw) -> Option<Line> {
        let number = self.number;
        let (bytes, parsed) = match raw {
            Raw::TooLong(bytes) => {
                let problem = format!("has {bytes} bytes, the limit is {}", self.line_bytes_max);
                (&[][..], Err(problem))
            }
            Raw::Line(bytes) => {
                let bytes = bytes
                    .strip_prefix(b"\xef\xbb\xbf")
                    .filter(|_| number == 1)
                    .unwrap_or(bytes);
                if bytes.trim_ascii().is_empty() {
                    return None;
                }
                let text = std::str::from_utf8(bytes).map_err(|e| {
                    match HalfACharacter::in_bytes(bytes, e.valid_up_to()) {
                        Some(half) => half.to_string(),
                        None => format!("is not UTF-8 from byte {} on", e.valid_up_to() + 1),
                    }
                });
                (bytes, text.map(|text| self.dialect.line(text.trim())))
            }
        };
        let (id, asked) = match parsed {
            Ok(parsed) => (parsed.id, parsed.asked),
            Err(problem) => (None, Err(problem)),
        };
        let identified = asked.and_then(|asked| {
            let model = asked.model.clone().or_else(|| asked.request.model());
            let asks = asked
                .request
                .fingerprint(model.as_deref().unwrap_or_default());
            match self.identities.identify(number, id.as_deref(), asks) {
                Ok(digest) => Ok((asked, digest)),
                Err(before) => Err(format!("its id is used by line {before} already")),
            }
        });
        let label = id.map_or(Label::Number(number), |id| Label::Id(id.into()));
        let (digest, asked) = match identified {
            Ok((asked, digest)) => (digest, Ok(asked)),
            Err(problem) => (Identities::unreadable(number, bytes), Err(problem)),
        };
        Some(Line {
            number,
            name: Name { digest, label },
            asked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelane::model::Request;

    fn lines(input: &[u8], line_bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, line_bytes_max);
        let mut all = Vec::new();
        while let Some(chunk) = lines.chunk().unwrap() {
            all.extend(chunk);
        }
        all
    }

    /// Number and prompt, or number and problem.
    fn check(input: &[u8], want: &[(u64, &str)]) {
        let got: Vec<(u64, String)> = lines(input, 1_000)
            .into_iter()
            .map(|line| {
                let text = match line.asked {
                    Ok(Asked {
                        request: Request::Prompt(text),
                        ..
                    }) => text,
                    Ok(other) => format!("{other:?}"),
                    Err(problem) => problem,
                };
                (line.number, text)
            })
            .collect();
        let got: Vec<(u64, &str)> = got.iter().map(|(n, t)| (*n, t.as_str())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn marks_of_other_systems_are_tolerated() {
        check(
            b"\xef\xbb\xbf{\"prompt\":\"a\"}\r\n{\"prompt\":\"b\"}\r\n",
            &[(1, "a"), (2, "b")],
        );
    }

    #[test]
    fn blank_lines_are_skipped_and_counted() {
        check(
            b"\n{\"prompt\":\"a\"}\n\r\n  \n{\"prompt\":\"b\"}",
            &[(2, "a"), (5, "b")],
        );
        check(b"", &[]);
        check(b"\n\n", &[]);
    }

    #[test]
    fn a_bad_line_does_not_hinder_the_others() {
        check(
            b"{\"prompt\":\"a\"}\nnonsense\n\xff\xfe\n{\"prompt\":\"b\"}\n",
            &[
                (1, "a"),
                (2, "not a JSON object: expected ident at column 2"),
                (3, "is not UTF-8 from byte 1 on"),
                (4, "b"),
            ],
        );
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_without_being_kept() {
        let mut input = br#"{"prompt":"a"}"#.to_vec();
        input.push(b'\n');
        input.extend(vec![b'x'; 2_000_000]);
        input.extend(b"\n{\"prompt\":\"b\"}\n");
        check(
            &input,
            &[
                (1, "a"),
                (2, "has 2000000 bytes, the limit is 1000"),
                (3, "b"),
            ],
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_read() {
        let text = br#"{"prompt":"a"}"#;
        assert!(lines(text, text.len())[0].asked.is_ok());
        assert!(lines(text, text.len() - 1)[0].asked.is_err());
    }

    #[test]
    fn an_id_that_is_used_twice_is_an_error_of_the_second_line() {
        let read = lines(
            b"{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}\n",
            1_000,
        );
        assert!(read[0].asked.is_ok());
        assert_eq!(
            read[1].asked.as_ref().unwrap_err(),
            "its id is used by line 1 already"
        );
        assert_eq!(read[1].name.label, Label::Id("a".into()));
    }

    #[test]
    fn a_line_is_known_by_the_model_it_names_wherever_that_stands() {
        let digest = |text: &str| lines(text.as_bytes(), 1_000)[0].name.digest;
        let message = r#""messages":[{"role":"user","content":"hi"}]"#;
        let plain = digest(&format!("{{{message}}}"));
        assert_ne!(plain, digest(&format!(r#"{{"model":"glm-5",{message}}}"#)));
        assert_ne!(
            digest(r#"{"prompt":"a"}"#),
            digest(r#"{"prompt":"a","model":"glm-5"}"#)
        );
        assert_eq!(
            digest(r#"{"prompt":"a"}"#),
            digest(r#"{ "prompt": "a", "priority": 9 }"#)
        );
    }

    /// Gives its pieces one read at a time, as a pipe does.
    struct Pipe(Vec<&'static [u8]>);

    impl Read for Pipe {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            self.0.remove(0).read(to)
        }
    }

    #[test]
    fn a_line_from_a_slow_pipe_is_not_held_up_by_the_next() {
        let pieces: Vec<&'static [u8]> = vec![
            b"{\"prompt\":\"a\"}\n{\"pro",
            b"mpt\":\"b\"}\n{\"prompt\":\"c\"}\n",
            b"{\"prompt\":\"d\"}",
        ];
        let mut lines = Lines::new(Pipe(pieces), 1_000);
        let mut chunks = Vec::new();
        while let Some(chunk) = lines.chunk().unwrap() {
            chunks.push(chunk.len());
        }
        assert_eq!(chunks, [1, 2, 1]);
    }

    #[test]
    fn a_chunk_is_bounded() {
        let input = b"{\"prompt\":\"a\"}\n".repeat(CHUNK_LINES_MAX + 1);
        let mut lines = Lines::new(&input[..], 1_000);
        assert_eq!(lines.chunk().unwrap().unwrap().len(), CHUNK_LINES_MAX);
        assert_eq!(lines.chunk().unwrap().unwrap().len(), 1);
        assert!(lines.chunk().unwrap().is_none());
    }

    #[test]
    fn the_prompts_that_ship_are_all_fit_to_be_sent() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prompts.jsonl");
        let read = lines(&std::fs::read(path).unwrap(), LINE_BYTES_MAX);
        assert!(read.len() >= 100, "{} prompts", read.len());
        for line in &read {
            assert!(line.asked.is_ok(), "line {}: {:?}", line.number, line.asked);
        }
    }

    #[test]
    fn a_missing_file_is_the_users_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        let Err(missing) = open(&dir.path().join("none.jsonl")) else {
            panic!("there is none")
        };
        assert!(missing.message.contains("none.jsonl"), "{missing}");
        assert!(
            open(dir.path()).is_err(),
            "a directory is no file of prompts"
        );
    }
}
