//! The results file: one line for each line that ended, those of earlier runs included.
//!
//! A file that is there already is read first. Lines of this input that have an answer are done; its
//! error lines are taken out, since those lines are tried again; a last line that a kill tore is cut off;
//! lines of other inputs are left alone; and a file that holds anything else is refused, so that
//! a run never appends to other data nor cuts it. Results of lines that are no longer in the input stay.
//! A run that reaches its end gives moved lines their new numbers. Simulated answers give way to real ones, never the other way
//! round. A rewrite goes to a file beside it, which then takes its name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use onelane::results::ResultLine;

use super::batch::Known;
use super::identity::{Digest, Label, LineId, Mode, Name, Source};
use super::written::{self, Written, WrittenLines, rewrite, unusable};
use crate::cli::exit::{CliError, Exit};

/// A result of an earlier run.
#[derive(Debug)]
struct Kept {
    /// Its name in the file.
    label: String,
    /// Its name in the input; `None` until it is seen there.
    now: Option<String>,
}

/// What this run makes of a line that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belonging {
    /// A result of this input.
    Ours,
    /// A real result of this input, in a simulated run: done, and not to be touched.
    Real,
    /// A simulated result of this input, in a real run: worth nothing.
    Fake,
    /// A result of another input.
    Foreign,
}

impl Belonging {
    fn of(written: Source, run: Source) -> Self {
        match (written.is_same_input(run), written.mode, run.mode) {
            (false, _, _) => Self::Foreign,
            (true, Mode::Real, Mode::Simulated) => Self::Real,
            (true, Mode::Simulated, Mode::Real) => Self::Fake,
            (true, _, _) => Self::Ours,
        }
    }
}

enum Sink {
    /// Standard output, a pipe, a device: written, never read.
    Stream(Box<dyn Write + Send>),
    /// Not there yet; made for the first result.
    New,
    /// Open for appending, and locked.
    File(File),
}

/// Where results go.
pub(crate) struct Results {
    path: PathBuf,
    source: Source,
    sink: Sink,
    earlier: Earlier,
    /// The numbers by which the input's lines are called.
    numbers: HashSet<u64>,
}

/// What earlier runs left in the file.
#[derive(Default)]
struct Earlier {
    /// Answers.
    kept: HashMap<Digest, Kept>,
    /// Lines that an earlier run wrote an error for.
    told: HashSet<Digest>,
    /// Lines of a simulated run that have a real answer.
    real: HashSet<Digest>,
    /// Lines that another input has an answer to.
    foreign: HashSet<Digest>,
}

impl Earlier {
    /// Takes in a line, and says whether it stays in the file.
    fn take(&mut self, id: LineId, run: Source, written: &Written<'_>) -> bool {
        let answered = written.is_answer();
        match Belonging::of(id.source, run) {
            Belonging::Ours if answered => {
                let label = written.custom_id.clone().unwrap_or_default();
                self.kept
                    .insert(id.line, Kept { label, now: None })
                    .is_none()
            }
            Belonging::Ours => {
                self.told.insert(id.line);
                false
            }
            Belonging::Fake => false,
            Belonging::Real if answered => {
                self.real.insert(id.line);
                true
            }
            Belonging::Foreign => {
                if answered && id.source.mode == run.mode {
                    self.foreign.insert(id.line);
                }
                true
            }
            Belonging::Real => true,
        }
    }
}

/// Where the results of `input` go without `--out`: `prompts.jsonl` -> `prompts.results.jsonl`,
/// standard input -> standard output.
pub(crate) fn default_path(input: &Path) -> PathBuf {
    if input.as_os_str() == "-" {
        return input.to_owned();
    }
    let mut name = OsString::from(input.file_stem().unwrap_or(input.as_os_str()));
    name.push(".results.jsonl");
    input.with_file_name(name)
}

impl Results {
    /// Opens the results of an input. `-` is standard output. A file that is not there is made with the
    /// first result.
    pub(crate) fn open(path: &Path, source: Source) -> Result<Self, CliError> {
        let mut results = Self {
            path: path.to_owned(),
            source,
            sink: Sink::New,
            earlier: Earlier::default(),
            numbers: HashSet::new(),
        };
        if path.as_os_str() == "-" {
            results.sink = Sink::Stream(Box::new(io::stdout()));
            return Ok(results);
        }
        let found = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(|e| unusable(path, &e))?),
        };
        match found {
            None => {}
            Some(found) if found.is_file() => results.take_over()?,
            Some(_) => {
                let stream = OpenOptions::new().write(true).open(path);
                results.sink = Sink::Stream(Box::new(stream.map_err(|e| unusable(path, &e))?));
            }
        }
        Ok(results)
    }

    /// Whether results go to standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// Where results go.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an earlier run wrote the line's answer. Remembers that the line is still in the input,
    /// and what it is called there.
    pub(crate) fn is_done(&mut self, name: &Name) -> bool {
        if let Label::Number(number) = name.label {
            self.numbers.insert(number);
        }
        match self.earlier.kept.get_mut(&name.digest) {
            Some(kept) => {
                kept.now = Some(name.label.to_string());
                true
            }
            None => self.earlier.real.contains(&name.digest),
        }
    }

    /// What the file has of a line.
    pub(crate) fn known(&self, line: Digest) -> Known {
        let Earlier {
            kept,
            real,
            foreign,
            ..
        } = &self.earlier;
        if kept.contains_key(&line) || real.contains(&line) {
            Known::Done
        } else if foreign.contains(&line) {
            Known::WrittenElsewhere
        } else {
            Known::Unsent
        }
    }

    /// Makes answers of other inputs this one's: of those whose jobs it took over (`None`: of all) and to these
    /// lines.
    pub(crate) fn take_over_of(
        &mut self,
        inputs: Option<&HashSet<Source>>,
        lines: &HashSet<Digest>,
    ) -> Result<(), CliError> {
        let source = self.source;
        let taken = |id: LineId| {
            let other = !id.source.is_same_input(source) && id.source.mode == source.mode;
            let asked = lines.contains(&id.line);
            other && asked && inputs.is_none_or(|inputs| inputs.contains(&id.source))
        };
        if self.earlier.foreign.is_empty() || !matches!(self.sink, Sink::File(_)) {
            return Ok(());
        }
        let mut earlier = Earlier::default();
        let mut ours: HashSet<Digest> = self.earlier.kept.keys().copied().collect();
        let file = rewrite(&self.path, |mut id, written| {
            let answered = written.is_answer();
            if taken(id) && (!answered || ours.insert(id.line)) {
                id = LineId { source, ..id };
                written.id = id.to_string();
            }
            earlier.take(id, source, written)
        })?;
        self.sink = Sink::File(file);
        let told = std::mem::take(&mut self.earlier.told);
        self.earlier = earlier;
        self.earlier.told.extend(told);
        Ok(())
    }

    /// Whether an earlier run wrote an error for the line.
    pub(crate) fn was_told(&self, line: Digest) -> bool {
        self.earlier.told.contains(&line)
    }

    /// Writes a result, whole or, after a kill, as a torn line that the next run cuts off.
    pub(crate) fn write(&mut self, line: &ResultLine<'_>) -> Result<(), CliError> {
        let path = &self.path;
        let failed = |e: io::Error| {
            CliError::new(
                Exit::JobsFailed,
                format!("results can't be written to {}: {e}", path.display()),
            )
            .help("the answers are in the store; mend it and run the same command again")
        };
        let bytes = line.to_bytes().map_err(|e| failed(e.into()))?;
        if matches!(self.sink, Sink::New) {
            self.sink = Sink::File(written::open(path)?);
        }
        match &mut self.sink {
            Sink::Stream(stream) => stream.write_all(&bytes).and_then(|()| stream.flush()),
            Sink::File(file) => file.write_all(&bytes),
            Sink::New => Ok(()),
        }
        .map_err(failed)
    }

    /// Ends a run in which every line of the input was seen and ended: gives moved lines their new numbers.
    /// Lines that are no longer there keep their results, under a name that no other line has.
    pub(crate) fn finish(&mut self) -> Result<(), CliError> {
        let Sink::File(file) = &self.sink else {
            return Ok(());
        };
        let numbers = &self.numbers;
        let gone = |kept: &Kept| {
            let number = kept.label.strip_prefix("line-")?.parse().ok()?;
            let is_taken = kept.now.is_none() && numbers.contains(&number);
            is_taken.then(|| format!("gone-line-{number}"))
        };
        let stays = |kept: &Kept| match &kept.now {
            Some(now) => *now == kept.label,
            None => gone(kept).is_none(),
        };
        if self.earlier.kept.values().all(stays) {
            return file.sync_data().map_err(|e| unusable(&self.path, &e));
        }
        let (source, kept) = (self.source, &self.earlier.kept);
        let file = rewrite(&self.path, |id, written| {
            let ours = Belonging::of(id.source, source) == Belonging::Ours;
            match kept.get(&id.line).filter(|_| ours) {
                // Another's, or written just now.
                None => {}
                Some(kept) => {
                    let name = kept.now.clone().or_else(|| gone(kept));
                    written.custom_id = name.or_else(|| written.custom_id.take());
                }
            }
            true
        })?;
        self.sink = Sink::File(file);
        Ok(())
    }

    /// Reads what is there and leaves in it what stays.
    fn take_over(&mut self) -> Result<(), CliError> {
        let file = written::open(&self.path)?;
        let mut lines = WrittenLines::of(&file, &self.path);
        let source = self.source;
        let mut all_stay = true;
        while let Some(line) = lines.next()? {
            let written = line.written()?;
            all_stay &= self.earlier.take(line.id(&written)?, source, &written);
        }
        if lines.torn {
            file.set_len(lines.whole_bytes)
                .map_err(|e| unusable(&self.path, &e))?;
        }
        self.sink = Sink::File(file);
        if !all_stay {
            let mut again = Earlier::default();
            let file = rewrite(&self.path, |id, written| again.take(id, source, written))?;
            self.sink = Sink::File(file);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identities;
    use super::*;
    use onelane::model::Request;
    use onelane::results::{LineError, Response};
    use serde_json::value::RawValue;

    /// A results file in a directory of its own.
    struct Bench {
        dir: tempfile::TempDir,
        source: Source,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                source: Source::of(Path::new("prompts.jsonl"), Mode::Real),
            }
        }

        fn mode(&mut self, mode: Mode) {
            self.source.mode = mode;
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("prompts.results.jsonl")
        }

        fn open(&self) -> Results {
            Results::open(&self.path(), self.source).unwrap()
        }

        fn id(&self, text: &str) -> LineId {
            let asks = Request::prompt(text).unwrap().fingerprint("");
            LineId {
                source: self.source,
                line: Identities::default().identify(1, None, asks).unwrap(),
            }
        }

        fn name(&self, text: &str, label: Label) -> Name {
            Name {
                digest: self.id(text).line,
                label,
            }
        }

        fn answer(&self, results: &mut Results, text: &str, label: &str) {
            let body = RawValue::from_string(r#"{"choices":[]}"#.to_owned()).unwrap();
            let response = Some(Response {
                status_code: 200,
                request_id: "r".to_owned(),
                body: &body,
            });
            self.write(results, text, label, response, None);
        }

        fn error(&self, results: &mut Results, text: &str, label: &str) {
            let error = LineError {
                code: "1214".to_owned(),
                message: "bad parameter".to_owned(),
                status_code: Some(400),
                maybe_billed: false,
            };
            self.write(results, text, label, None, Some(error));
        }

        fn write(
            &self,
            results: &mut Results,
            text: &str,
            label: &str,
            response: Option<Response<'_>>,
            error: Option<LineError>,
        ) {
            let id = self.id(text).to_string();
            let custom_id = label.to_owned();
            let line = ResultLine {
                id,
                custom_id,
                response,
                error,
            };
            results.write(&line).unwrap();
        }

        /// The labels in the file, in order.
        fn labels(&self) -> Vec<String> {
            let text = fs::read_to_string(self.path()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            text.lines()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["custom_id"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect()
        }
    }

    fn number(n: u64) -> Label {
        Label::Number(n)
    }

    #[test]
    fn results_stand_next_to_their_input() {
        let of = |path: &str| default_path(Path::new(path));
        assert_eq!(of("prompts.jsonl"), Path::new("prompts.results.jsonl"));
        assert_eq!(
            of("a/b.c/prompts"),
            Path::new("a/b.c/prompts.results.jsonl")
        );
        assert_eq!(of("-"), Path::new("-"));
    }

    #[test]
    fn a_file_that_nothing_was_written_to_is_not_made() {
        let bench = Bench::new();
        bench.open().finish().unwrap();
        assert!(!bench.path().exists());
    }

    #[test]
    fn an_answered_line_is_done_in_the_next_run_and_a_failed_one_is_not() {
        let bench = Bench::new();
        let mut first = bench.open();
        bench.answer(&mut first, "a", "line-1");
        bench.error(&mut first, "b", "line-2");
        drop(first);

        let mut second = bench.open();
        assert!(second.is_done(&bench.name("a", number(1))));
        assert!(!second.is_done(&bench.name("b", number(2))));
        assert!(second.was_told(bench.id("b").line) && !second.was_told(bench.id("a").line));
        assert_eq!(bench.labels(), ["line-1"]);
        bench.answer(&mut second, "b", "line-2");
        second.finish().unwrap();
        assert_eq!(bench.labels(), ["line-1", "line-2"]);
    }

    #[test]
    fn a_line_that_was_refused_is_not_done_in_the_next_run() {
        let bench = Bench::new();
        let mut first = bench.open();
        let body = RawValue::from_string(r#"{"error":{"code":"1210"}}"#.to_owned()).unwrap();
        for (text, status_code) in [("a", 400), ("b", 200)] {
            let response = Response {
                status_code,
                request_id: "r".to_owned(),
                body: &body,
            };
            let error = (status_code == 200).then(|| LineError::new("1210", "bad parameter"));
            bench.write(&mut first, text, text, Some(response), error);
        }
        drop(first);

        let mut second = bench.open();
        for text in ["a", "b"] {
            assert!(!second.is_done(&bench.name(text, number(1))));
            assert!(second.was_told(bench.id(text).line));
        }
        assert_eq!(bench.labels(), [""; 0]);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_wherever_the_kill_struck() {
        let bench = Bench::new();
        let mut first = bench.open();
        bench.answer(&mut first, "a", "line-1");
        bench.answer(&mut first, "b", "line-2");
        drop(first);
        let whole = fs::read(bench.path()).unwrap();
        let line_ends = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in line_ends..whole.len() {
            fs::write(bench.path(), &whole[..cut]).unwrap();
            let mut again = bench.open();
            assert!(again.is_done(&bench.name("a", number(1))));
            assert!(!again.is_done(&bench.name("b", number(2))), "cut at {cut}");
            bench.answer(&mut again, "b", "line-2");
            drop(again);
            assert_eq!(fs::read(bench.path()).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_as_it_is() {
        let bench = Bench::new();
        for foreign in [
            "notes\n",
            "notes without an end",
            "{\"id\":\"a\",\"prompt\":\"x\"}\n",
            "\n",
            "{\"id\":\"batch_req_1\",\"custom_id\":\"a\",\"response\":null,\"error\":null}\n",
        ] {
            fs::write(bench.path(), foreign).unwrap();
            let Err(error) = Results::open(&bench.path(), bench.source) else {
                panic!("{foreign:?} was taken over")
            };
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.message.contains("line 1"), "{error}");
            assert_eq!(fs::read_to_string(bench.path()).unwrap(), foreign);
        }
    }

    #[test]
    fn results_of_another_input_are_left_alone() {
        let bench = Bench::new();
        let mut other = Bench::new();
        other.source = Source::of(Path::new("other.jsonl"), Mode::Real);
        let mut results = Results::open(&bench.path(), other.source).unwrap();
        other.answer(&mut results, "a", "theirs");
        other.error(&mut results, "b", "theirs-too");
        drop(results);

        let mut results = bench.open();
        assert!(!results.is_done(&bench.name("a", number(1))));
        bench.answer(&mut results, "a", "ours");
        results.finish().unwrap();
        drop(results);
        bench.open().finish().unwrap();
        assert_eq!(
            bench.labels(),
            ["theirs", "theirs-too", "ours"],
            "a result stays when its line has left the input"
        );
    }

    #[test]
    fn lines_that_left_the_input_keep_their_results_and_moved_ones_get_their_number() {
        let bench = Bench::new();
        let mut first = bench.open();
        bench.answer(&mut first, "gone", "line-1");
        bench.answer(&mut first, "stays", "line-2");
        drop(first);

        let mut second = bench.open();
        assert!(second.is_done(&bench.name("stays", number(1))));
        assert!(!second.is_done(&bench.name("new", number(2))));
        bench.answer(&mut second, "new", "line-2");
        assert_eq!(
            bench.labels(),
            ["line-1", "line-2", "line-2"],
            "nothing changes before the end"
        );
        second.finish().unwrap();
        assert_eq!(bench.labels(), ["gone-line-1", "line-1", "line-2"]);
    }

    #[test]
    fn a_simulated_answer_gives_way_to_a_real_one() {
        let mut bench = Bench::new();
        bench.mode(Mode::Simulated);
        let mut simulated = bench.open();
        bench.answer(&mut simulated, "a", "fake");
        drop(simulated);

        bench.mode(Mode::Real);
        let mut real = bench.open();
        assert!(!real.is_done(&bench.name("a", number(1))));
        assert_eq!(bench.labels(), [""; 0]);
        bench.answer(&mut real, "a", "line-1");
        drop(real);

        bench.mode(Mode::Simulated);
        let mut simulated = bench.open();
        assert!(
            simulated.is_done(&bench.name("a", number(1))),
            "nothing to simulate"
        );
        assert!(!simulated.is_done(&bench.name("b", number(2))));
        bench.answer(&mut simulated, "b", "fake");
        simulated.finish().unwrap();
        assert_eq!(bench.labels(), ["line-1", "fake"]);
    }

    #[test]
    fn two_runs_do_not_share_a_results_file() {
        let bench = Bench::new();
        let mut first = bench.open();
        bench.answer(&mut first, "a", "line-1");
        let Err(error) = Results::open(&bench.path(), bench.source) else {
            panic!("the file is locked")
        };
        assert!(error.message.contains("in use"), "{error}");
    }

    #[test]
    fn a_device_is_written_and_never_read() {
        let bench = Bench::new();
        let mut results = Results::open(Path::new("/dev/null"), bench.source).unwrap();
        bench.answer(&mut results, "a", "line-1");
        results.finish().unwrap();
        assert!(
            Results::open(bench.dir.path(), bench.source).is_err(),
            "a directory is no file"
        );
    }
}
