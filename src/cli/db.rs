//! `onelane db`: a look into a store, by the daemon that has it open or by opening it, and work on its file.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum as _;
use onelane::export::{Export, What};
use onelane::model::{JobStatus, Retention};
use onelane::ports::{Clock as _, StoreError};
use onelane::store::{StoreFigures, TimeSpan};
use onelane::system::SystemClock;
use onelane::words::counted;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::remote::Target;
use super::args::{DbVerb, ExportArgs, StoreArgs};
use super::backup;
use super::exit::{CliError, Exit};
use super::new_file::NewFile;
use super::offline::{self, Offline};
use super::remote::{self, Daemon};
use super::table::table;

/// Places of an export that can't be read and are told one by one.
const FAULTS_TOLD_MAX: u32 = 20;

/// Dispatches to the verb.
pub(crate) async fn db(verb: &DbVerb, target: &Target, json: bool) -> Result<Exit, CliError> {
    match verb {
        DbVerb::Stats(args) => match super::beside(args, target).await? {
            Some(daemon) => stats_by(&daemon, json).await,
            None => stats(args, json),
        },
        DbVerb::Check(args) => match super::beside(&args.store, target).await? {
            Some(daemon) if args.repair => Err(alone(&daemon, "mended", "check --repair")),
            Some(daemon) => super::check::check_by(&daemon, json).await,
            None => super::check::check(args, json),
        },
        DbVerb::Export(args) => {
            let daemon = super::beside(&args.store, target).await?;
            match (args.what, daemon) {
                (None, daemon) => backup::export(args, daemon.as_ref(), json).await,
                (Some(what), Some(daemon)) => export_by(&daemon, args, what, json).await,
                (Some(what), None) => export_rows(args, what, json),
            }
        }
        DbVerb::Backup(args) => {
            let daemon = super::beside(&args.store, target).await?;
            backup::backup(args, daemon.as_ref(), json).await
        }
        DbVerb::Restore(args) => match backup::owner(&args.store, target).await? {
            Some(daemon) => Err(alone(&daemon, "replaced", "restore")),
            None => backup::restore(args, json),
        },
        DbVerb::Import(args) => match backup::owner(&args.store, target).await? {
            Some(daemon) => Err(alone(&daemon, "replaced", "import")),
            None => backup::import(args, json),
        },
        DbVerb::Compact(args) => match super::beside(args, target).await? {
            Some(daemon) => Err(alone(&daemon, "made smaller", "compact")),
            None => compact(args, json),
        },
    }
}

/// What nobody does to a file that another process has open.
fn alone(daemon: &Daemon, done: &str, verb: &str) -> CliError {
    let problem = format!(
        "the daemon at {} has the store open, and its file can only be {done} while nobody has",
        daemon.url()
    );
    let why = match verb {
        "compact" => "; space that is freed in the file is used again without it",
        _ => "",
    };
    CliError::new(Exit::Store, problem).help(format!(
        "stop the daemon, run `onelane db {verb}`, and start it again{why}"
    ))
}

/// The figures of the store that a daemon has open.
async fn stats_by(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let within = Duration::from_secs(600);
    let answer = daemon.get_slowly("/api/admin/glm/store", within).await?;
    let stats: Stats = answer.read()?;
    answer.tell(json, |stats: Stats| stats.text())?;
    Ok(stats.exit())
}

fn stats(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(args)?;
    let retention = offline.settings().retention;
    let figures = offline.store.figures(&retention, SystemClock.now())?;
    let stats = Stats {
        path: offline.path.clone(),
        file_bytes: offline.file_bytes(),
        figures,
    };
    super::answer(json, &stats, Stats::text)?;
    Ok(stats.exit())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    path: String,
    file_bytes: u64,
    #[serde(flatten)]
    figures: StoreFigures,
}

impl Stats {
    /// Names what can't be read.
    fn exit(&self) -> Exit {
        let left_out = &self.figures.unreadable;
        if left_out.is_empty() {
            return Exit::Done;
        }
        super::note(&format!(
            "error: these can't be read: {}; `onelane db check` says what is missing",
            left_out.join(", ")
        ));
        Exit::Store
    }

    fn text(&self) -> String {
        let figures = &self.figures;
        let rows: Vec<_> = figures
            .tables
            .iter()
            .map(|t| {
                let bytes = t.bytes.map_or_else(|| "?".to_owned(), |b| b.to_string());
                [t.name.clone(), t.rows.to_string(), bytes]
            })
            .collect();
        let counts = figures.jobs.as_ref().map(|jobs| {
            let each = JobStatus::ALL.map(|s| format!("{} {}", jobs.of(s), s.name()));
            each.join(", ")
        });
        let span = |span: Option<TimeSpan>| match span {
            Some(TimeSpan { oldest, newest }) => format!("{oldest} to {newest}"),
            None => "none".to_owned(),
        };
        let prunable = match figures.prunable {
            None => "keeps all for ever".to_owned(),
            Some(p) => format!(
                "would remove {}, requests and responses of {} more, {}",
                counted(p.jobs, "job", "jobs"),
                p.bodies,
                counted(p.calls, "call", "calls")
            ),
        };
        format!(
            "{}: version {}, {} bytes\n\n{}\n\njobs       {}\naccepted   {}\ncalls      {}\nretention  {prunable}",
            self.path,
            figures.version,
            self.file_bytes,
            table(["TABLE", "ROWS", "BYTES"], &rows),
            counts.as_deref().unwrap_or("?"),
            span(figures.jobs_accepted),
            span(figures.calls_ended),
        )
    }
}

fn export_rows(args: &ExportArgs, what: What, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(&args.store)?;
    let calendar = offline.settings().calendar;
    let export = Export::new(what, args.format, calendar, SystemClock.now());
    if args.out == Path::new("-") {
        let mut out = io::stdout().lock();
        let written = match write(export, what, &offline, &mut out)? {
            Ok(written) => written,
            Err(error) => {
                super::unsaid(&error)?;
                return Ok(Exit::Done);
            }
        };
        return Ok(written.exit());
    }
    let written = to_file(args, what, export, &offline)?;
    let Written { rows, unreadable } = written;
    let out = args.out.display().to_string();
    let answer = json!({"rows": rows, "unreadable": unreadable, "out": out});
    super::answer(json, &answer, |_| {
        format!("{} written to {out}", counted(rows, "row", "rows"))
    })?;
    Ok(written.exit())
}

/// The rows of an export.
#[derive(Clone, Copy, Default)]
struct Written {
    rows: u64,
    unreadable: u64,
}

impl Written {
    /// Tells of the rows that are missing.
    fn exit(self) -> Exit {
        if self.unreadable == 0 {
            return Exit::Done;
        }
        let (rows, unreadable) = (self.rows, self.unreadable);
        super::note(&format!(
            "error: {}, {} written",
            counted(
                unreadable,
                "place can't be read and was left out with its rows",
                "places can't be read and were left out with their rows"
            ),
            counted(rows, "row was", "rows were")
        ));
        Exit::Store
    }
}

/// Writes part after part; the inner error is that of `out`.
fn write(
    mut export: Export,
    what: What,
    offline: &Offline,
    out: &mut dyn Write,
) -> Result<io::Result<Written>, CliError> {
    let mut written = Written::default();
    let mut told = 0;
    loop {
        let part = match export.next(&offline.store) {
            Ok(Some(part)) => part,
            Ok(None) => break,
            // What was written is worth keeping, and what comes after the damage can't be reached.
            Err(error @ StoreError::Damaged { .. }) if written.rows > 0 => {
                super::note(&format!("error: {error}; the rest can't be reached"));
                written.unreadable += 1;
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for error in &part.unreadable {
            match told {
                0..FAULTS_TOLD_MAX => super::note(&format!("error: {error}")),
                FAULTS_TOLD_MAX => super::note("error: and more of these"),
                _ => {}
            }
            told += 1;
        }
        written.rows += part.rows;
        written.unreadable += part.unreadable.len() as u64;
        if let Err(error) = out.write_all(&part.lines) {
            return Ok(Err(error));
        }
    }
    if offline.store.is_remains() && written.unreadable == 0 {
        written.unreadable = missing(what, offline, written.rows);
    }
    Ok(out.flush().map(|()| written))
}

/// How many rows of a damaged store are missing though each that was found can be read.
fn missing(what: What, offline: &Offline, rows: u64) -> u64 {
    let figures = offline
        .store
        .figures(&Retention::default(), SystemClock.now());
    let tables = figures.map(|figures| figures.tables).unwrap_or_default();
    let known = tables.iter().find(|table| table.name == what.table());
    known.map_or(0, |table| table.rows.saturating_sub(rows))
}

/// The same, by the daemon that has the store open.
async fn export_by(
    daemon: &Daemon,
    args: &ExportArgs,
    what: What,
    json: bool,
) -> Result<Exit, CliError> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    };
    let (what, format) = (
        name(what.to_possible_value()),
        name(args.format.to_possible_value()),
    );
    let (what, format) = (what.as_str(), format.as_str());
    if args.out == Path::new("-") {
        // Not locked: whoever writes waits for the daemon between two parts.
        let mut out = io::stdout();
        if let Err(error) = remote::export(what, format, daemon, &mut out).await? {
            super::unsaid(&error)?;
        }
        return Ok(Exit::Done);
    }
    let file = NewFile::begin(&args.out)?;
    let mut out = BufWriter::new(&file.out);
    let written = remote::export(what, format, daemon, &mut out).await;
    drop(out);
    let mut rows = file.end(written)?;
    if format == "csv" {
        // Its head is no row.
        rows = rows.saturating_sub(1);
    }
    let out = args.out.display().to_string();
    let answer = json!({"rows": rows, "unreadable": 0, "out": out});
    super::answer(json, &answer, |_| {
        format!("{} written to {out}", counted(rows, "row", "rows"))
    })?;
    Ok(Exit::Done)
}

fn to_file(
    args: &ExportArgs,
    what: What,
    export: Export,
    offline: &Offline,
) -> Result<Written, CliError> {
    let file = NewFile::begin(&args.out)?;
    let mut out = BufWriter::new(&file.out);
    let written = write(export, what, offline, &mut out);
    drop(out);
    file.end(written)
}

fn compact(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = offline::open(args)?;
    let before = offline.file_bytes();
    offline.store.compact()?;
    let (path, after) = offline.closed();
    let answer = json!({"path": path, "bytesBefore": before, "bytesAfter": after});
    super::answer(json, &answer, |_| {
        format!("{path}: {before} bytes before, {after} bytes after")
    })?;
    Ok(Exit::Done)
}
