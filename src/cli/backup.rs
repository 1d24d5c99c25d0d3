//! `onelane db backup`, `restore`, `import`, and `export` of a whole store: a store goes from file to file as lines, read
//! by the daemon that has it open or by opening it, and is in its place when all of it is there and was checked.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use onelane::export::Format;
use onelane::model::{Findings, JobStatus, Pause};
use onelane::ports::{Clock as _, Store as _, StoreError};
use onelane::store::{
    BuildError, Existing, LineProblem, LineReader, NewStore, Placed, RedbStore, Rigour,
    StoreOptions, WholeStore,
};
use onelane::system::SystemClock;
use onelane::words::counted;
use serde::Serialize;

use super::args::remote::Target;
use super::args::{BackupArgs, ExportArgs, ImportArgs, RestoreArgs, StoreArgs};
use super::exit::{CliError, Exit};
use super::new_file::NewFile;
use super::offline;
use super::remote::{Daemon, Parts};

/// Where a daemon tells all of its store.
const BACKUP: &str = "/api/admin/glm/store/backup";
/// Bytes of a file of lines that are read at once.
const PIECE_BYTES: usize = 256 * 1024;
const TEMPLATE: &str = "{bar:24.cyan/dim} {human_pos}/{human_len} rows  {msg}";

/// The daemon that has the store open which is to be made.
pub(crate) async fn owner(store: &StoreArgs, target: &Target) -> Result<Option<Daemon>, CliError> {
    if target.is_named() {
        return Daemon::of(target).map(Some);
    }
    super::of_store(&offline::path_to_make(store)?, target).await
}

/// `onelane db backup`.
pub(crate) async fn backup(
    args: &BackupArgs,
    daemon: Option<&Daemon>,
    json: bool,
) -> Result<Exit, CliError> {
    let began = Instant::now();
    let existing = free(&args.to, args.force.then_some(Existing::Replaced))?;
    let begin = || NewStore::begin(&args.to, existing, Rigour::AsTheyAre).map_err(unwritten);
    let failed = |error| match error {
        BuildError::Line(problem) => not_whole(daemon, &problem),
        BuildError::Store(error) => unwritten(error),
    };
    let bar = Bar::new("copied", json);
    let mut source = Source::of(daemon, &args.store).await?;
    let mut copy = begin()?;
    while let Some(part) = source.part().await? {
        copy.take(&part).map_err(failed)?;
        bar.show(copy.reader());
    }
    bar.says("checking");
    let copy = copy.finish().map_err(failed)?;
    let made = Made::of(&args.to, copy.reader());
    let findings = copy.findings().clone();
    let placed = copy.place().map_err(unwritten)?;
    drop(bar);
    let made = made.placed(&placed, began.elapsed());
    super::answer(json, &made, |made| {
        format!(
            "{}\nIt holds prompts, answers and secrets, and its owner alone may read it. Of\nwhat is done from now on it \
             knows nothing: restored, it would do that again.",
            made.line()
        )
    })?;
    Ok(told(&findings, "the copy has it as it is"))
}

/// `onelane db restore`.
pub(crate) fn restore(args: &RestoreArgs, json: bool) -> Result<Exit, CliError> {
    let began = Instant::now();
    let path = offline::path_to_make(&args.store)?;
    let to = Path::new(&path);
    let from = args.from.display().to_string();
    let existing = free(to, args.force.then_some(Existing::KeptAside))?;
    let mut backup =
        RedbStore::open_to_look(&args.from, StoreOptions::default()).map_err(of_backup)?;
    match backup.check_pages() {
        Ok(true) => {}
        Ok(false) => return Err(damaged(&from, "some pages are not as they were written")),
        Err(error) => return Err(of_backup(error)),
    }
    let bar = Bar::new("restored", json);
    let mut store = NewStore::begin(to, existing, Rigour::AsTheyAre)?;
    for part in backup.lines().map_err(of_backup)? {
        store
            .take(&part.map_err(of_backup)?)
            .map_err(|error| of_lines(error, &from))?;
        bar.show(store.reader());
    }
    bar.says("checking");
    let store = store.finish().map_err(|error| of_lines(error, &from))?;
    in_order(&store, &from)?;
    let counts = backup.counts().map_err(of_backup)?;
    let open = counts.of(JobStatus::Pending) + counts.of(JobStatus::Processing);
    if !args.no_pause {
        store.pause(Pause {
            since: SystemClock.now(),
            reason: Some(format!("restored from {from}")),
        })?;
    }
    let paused = store.is_paused()?;
    let made = Made::of(to, store.reader());
    let placed = store.place()?;
    drop(bar);
    let restored = Restored {
        made: made.placed(&placed, began.elapsed()),
        kept: placed.kept.as_ref().map(|kept| kept.display().to_string()),
        from,
        open,
        paused,
    };
    super::answer(json, &restored, Restored::text)?;
    Ok(Exit::Done)
}

/// `onelane db import`.
pub(crate) fn import(args: &ImportArgs, json: bool) -> Result<Exit, CliError> {
    let began = Instant::now();
    let path = offline::path_to_make(&args.store)?;
    let to = Path::new(&path);
    let existing = free(to, None)?;
    let from = args.from.display().to_string();
    let unread = |error: io::Error| {
        CliError::usage(format!("{from} can't be read: {error}"))
            .help("name a file that `onelane db export` wrote, or - for standard input")
    };
    let mut lines: Box<dyn Read> = match from.as_str() {
        "-" => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(&args.from).map_err(unread)?),
    };
    let bar = Bar::new("imported", json);
    let mut store = NewStore::begin(to, existing, Rigour::Readable)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match lines.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        let piece = piece.get(..read).unwrap_or_default();
        store.take(piece).map_err(|error| of_lines(error, &from))?;
        bar.show(store.reader());
    }
    bar.says("checking");
    let store = store.finish().map_err(|error| of_lines(error, &from))?;
    in_order(&store, &from)?;
    let made = Made::of(to, store.reader());
    let placed = store.place()?;
    drop(bar);
    let made = made.placed(&placed, began.elapsed());
    super::answer(json, &made, |made| {
        format!(
            "{}\nOf two lanes that run on copies of one store each does the work of both: start\none on it when none runs \
             on the store that was exported.",
            made.line()
        )
    })?;
    Ok(Exit::Done)
}

/// `onelane db export` of all of a store.
pub(crate) async fn export(
    args: &ExportArgs,
    daemon: Option<&Daemon>,
    json: bool,
) -> Result<Exit, CliError> {
    if args.format == Format::Csv {
        let problem = "all of a store is written as JSON lines alone";
        return Err(CliError::usage(problem).help("name the rows that are to be CSV with --what"));
    }
    let source = Source::of(daemon, &args.store);
    if args.out == Path::new("-") {
        // Not locked: whoever writes waits for the daemon between two parts.
        if let Err(error) = copy_lines(source.await?, &mut io::stdout()).await? {
            super::unsaid(&error)?;
        }
        return Ok(Exit::Done);
    }
    let file = NewFile::begin(&args.out)?;
    let mut out = BufWriter::new(&file.out);
    let written = match source.await {
        Ok(source) => copy_lines(source, &mut out).await,
        Err(error) => Err(error),
    };
    drop(out);
    let rows = file.end(written)?;
    let out = args.out.display().to_string();
    let answer = serde_json::json!({"rows": rows, "unreadable": 0, "out": out});
    super::answer(json, &answer, |_| {
        format!(
            "{} written to {out}: prompts, answers and secrets,\nfor its owner alone; `onelane db import {out}` makes a store of it",
            counted(rows, "row", "rows")
        )
    })?;
    Ok(Exit::Done)
}

/// Writes the lines of a store, and sees that they are whole; the inner error is that of `out`.
async fn copy_lines(
    mut source: Source<'_>,
    out: &mut dyn Write,
) -> Result<io::Result<u64>, CliError> {
    let mut reader = LineReader::default();
    let daemon = source.daemon();
    while let Some(part) = source.part().await? {
        reader
            .take(&part)
            .map_err(|problem| not_whole(daemon, &problem))?;
        if let Err(error) = out.write_all(&part) {
            return Ok(Err(error));
        }
    }
    reader
        .finish()
        .map_err(|problem| not_whole(daemon, &problem))?;
    Ok(out.flush().map(|()| reader.rows()))
}

/// Where the lines of a store come from.
enum Source<'d> {
    /// The daemon that has it open.
    Daemon(&'d Daemon, Parts<'d>),
    /// Its file, which is kept open as long.
    File(
        onelane::store::Lines,
        #[expect(dead_code, reason = "keeps the file locked")] Box<RedbStore>,
    ),
}

impl<'d> Source<'d> {
    async fn of(daemon: Option<&'d Daemon>, args: &StoreArgs) -> Result<Self, CliError> {
        if let Some(daemon) = daemon {
            return Ok(Self::Daemon(daemon, daemon.order_parts(BACKUP).await?));
        }
        let offline = offline::look(args)?;
        let lines = offline.store.lines().map_err(|error| match error {
            StoreError::Damaged { .. } => CliError::new(Exit::Store, error.to_string()).help(
                "a copy would lack rows: `onelane db check` says what can still be read, and `onelane db export --what` saves that",
            ),
            error => error.into(),
        })?;
        Ok(Self::File(lines, Box::new(offline.store)))
    }

    const fn daemon(&self) -> Option<&'d Daemon> {
        match self {
            Self::Daemon(daemon, _) => Some(daemon),
            Self::File(..) => None,
        }
    }

    async fn part(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        match self {
            Self::Daemon(_, parts) => parts.part().await,
            Self::File(lines, _) => Ok(lines.next().transpose()?),
        }
    }
}

/// That a file may be made in a place, as the user wants it.
fn free(path: &Path, forced: Option<Existing>) -> Result<Existing, CliError> {
    let shown = path.display();
    let Ok(found) = path.symlink_metadata() else {
        return Ok(forced.unwrap_or(Existing::Refused));
    };
    if found.is_dir() {
        return Err(CliError::usage(format!("{shown} is a directory")).help("name a file in it"));
    }
    forced.ok_or_else(|| {
        CliError::usage(format!("{shown} is there already"))
            .help("name another file; `backup` and `restore` replace one with --force")
    })
}

/// A copy can't be written.
fn unwritten(error: StoreError) -> CliError {
    let exit = match error {
        StoreError::Full { .. } => Exit::JobsFailed,
        StoreError::Access { .. } => Exit::Usage,
        error => return error.into(),
    };
    CliError::new(exit, error.to_string())
        .help("free some space, or name another place for the copy")
}

/// What came is not all of a store.
fn not_whole(daemon: Option<&Daemon>, problem: &LineProblem) -> CliError {
    match daemon {
        Some(daemon) => CliError::new(
            Exit::NoDaemon,
            format!(
                "what came from {} is not all of its store: {problem}",
                daemon.url()
            ),
        )
        .help("see whether the daemon still runs, and ask again; nothing was kept of it"),
        None => CliError::new(
            Exit::Store,
            format!("the store can't be read whole: {problem}"),
        ),
    }
}

/// An error about the lines of a file.
fn of_lines(error: BuildError, from: &str) -> CliError {
    match error {
        BuildError::Store(error) => error.into(),
        BuildError::Line(problem) => CliError::new(Exit::Store, format!("{from}: {problem}"))
            .help("export the store again, and copy the file whole; no store was made of it"),
    }
}

/// An error about the backup and not about the store.
fn of_backup(error: StoreError) -> CliError {
    let help = match error {
        StoreError::Damaged { .. } => "restore another backup; nothing was changed",
        StoreError::Access { .. } => "name the file that `onelane db backup` wrote",
        error => return error.into(),
    };
    CliError::from(error).help(help)
}

fn damaged(from: &str, problem: &str) -> CliError {
    CliError::new(Exit::Store, format!("{from} is not in order: {problem}")).help(
        "restore another backup; `onelane db check --store FILE` says what is wrong with this one",
    )
}

/// Refuses a store whose tables don't agree.
fn in_order(store: &WholeStore, from: &str) -> Result<(), CliError> {
    let Findings { total, first } = store.findings();
    match first.first() {
        None => Ok(()),
        Some(one) => Err(damaged(
            from,
            &format!(
                "table {}: {} ({} in all)",
                one.table,
                one.problem,
                counted(*total, "finding", "findings")
            ),
        )),
    }
}

/// Says that a store is not in order.
fn told(findings: &Findings, but: &str) -> Exit {
    if findings.total == 0 {
        return Exit::Done;
    }
    super::note(&format!(
        "warning: the store is not in order ({}), and {but}; `onelane db check` lists what is wrong",
        counted(findings.total, "finding", "findings")
    ));
    Exit::Store
}

/// A store that was made.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    path: String,
    bytes: u64,
    jobs: u64,
    /// In all tables.
    rows: u64,
    elapsed_ms: u64,
}

impl Made {
    fn of(path: &Path, reader: &LineReader) -> Self {
        Self {
            path: path.display().to_string(),
            bytes: 0,
            jobs: reader.rows_of("jobs"),
            rows: reader.rows(),
            elapsed_ms: 0,
        }
    }

    fn placed(self, placed: &Placed, elapsed: Duration) -> Self {
        Self {
            bytes: placed.bytes,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            ..self
        }
    }

    fn line(&self) -> String {
        let tenths = self.elapsed_ms / 100;
        format!(
            "{}: {}, {}, {} bytes, in {}.{} s",
            self.path,
            counted(self.jobs, "job", "jobs"),
            counted(self.rows, "row", "rows"),
            self.bytes,
            tenths / 10,
            tenths % 10
        )
    }
}

/// A store that was restored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    #[serde(flatten)]
    made: Made,
    from: String,
    /// Jobs that are not done.
    open: u64,
    /// Whether the lane is paused.
    paused: bool,
    /// Where the store is that was there before.
    kept: Option<String>,
}

impl Restored {
    fn text(&self) -> String {
        let mut lines = vec![self.made.line()];
        if let Some(kept) = &self.kept {
            lines.push(format!("the store that was there is {kept}"));
        }
        lines.push(format!(
            "{} not done when the backup was made. What was done since then would",
            counted(self.open, "job was", "jobs were")
        ));
        lines.push(
            "be done, and paid for, again; calls that were open then are in doubt.".to_owned(),
        );
        lines.push(match self.paused {
            true => "The lane is paused: start it, cancel what was done (`onelane jobs ls`,\n`onelane jobs cancel`), then `onelane lane resume`.".to_owned(),
            false => "The lane goes on with them when it is started.".to_owned(),
        });
        lines.join("\n")
    }
}

/// How many rows are done, on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(doing: &'static str, json: bool) -> Self {
        let target = match json {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Self(bar)
    }

    fn show(&self, reader: &LineReader) {
        self.0.set_length(reader.rows_promised());
        self.0.set_position(reader.rows());
    }

    fn says(&self, doing: &'static str) {
        self.0.set_message(doing);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
