//! `onelane db`: a look into a store that no lane runs on, and work on its file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use onelane::export::{Export, Format, What};
use onelane::model::{JobStatus, Timestamp};
use onelane::ports::{Clock as _, StoreError};
use onelane::store::{Findings, StoreFigures};
use onelane::system::SystemClock;
use serde_json::json;

use super::args::{CheckArgs, DbVerb, ExportArgs, ExportFormat, ExportWhat, StoreArgs};
use super::exit::{CliError, Exit};
use super::offline::{self, Offline};
use super::table::table;

/// Findings that are listed.
const FINDINGS_SHOWN_MAX: usize = 100;

/// Does what was asked.
pub(crate) fn db(verb: &DbVerb, json: bool) -> Result<Exit, CliError> {
    match verb {
        DbVerb::Stats(args) => stats(args, json),
        DbVerb::Check(args) => check(args, json),
        DbVerb::Export(args) => export_rows(args, json),
        DbVerb::Compact(args) => compact(args, json),
    }
}

fn stats(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(args)?;
    let retention = offline.settings()?.retention;
    let figures = offline.store.figures(&retention, SystemClock.now())?;
    if json {
        super::say(&figures_as_json(&offline, &figures).to_string())?;
    } else {
        super::say(&figures_as_text(&offline, &figures))?;
    }
    Ok(Exit::Done)
}

fn figures_as_json(offline: &Offline, figures: &StoreFigures) -> serde_json::Value {
    let tables = figures.tables.iter();
    let span = |span: Option<(Timestamp, Timestamp)>| {
        span.map(|(oldest, newest)| {
            json!({"oldest": oldest.to_rfc3339(), "newest": newest.to_rfc3339()})
        })
    };
    let counts = JobStatus::ALL.map(|status| (status.name().to_owned(), figures.counts.of(status)));
    json!({
        "path": offline.path,
        "version": figures.version,
        "fileBytes": offline.file_bytes(),
        "tables": tables
            .map(|t| json!({"name": t.name, "rows": t.rows, "bytes": t.bytes}))
            .collect::<Vec<_>>(),
        "jobs": counts.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "jobsAccepted": span(figures.jobs),
        "callsEnded": span(figures.calls),
        "prunable": figures.prunable.map(|p| {
            json!({"jobs": p.jobs, "bodies": p.bodies, "calls": p.calls})
        }),
    })
}

fn figures_as_text(offline: &Offline, figures: &StoreFigures) -> String {
    let rows: Vec<_> = figures
        .tables
        .iter()
        .map(|t| [t.name.clone(), t.rows.to_string(), t.bytes.to_string()])
        .collect();
    let counts = JobStatus::ALL.map(|s| format!("{} {}", figures.counts.of(s), s.name()));
    let span = |span: Option<(Timestamp, Timestamp)>| match span {
        Some((oldest, newest)) => format!("{oldest} to {newest}"),
        None => "none".to_owned(),
    };
    let prunable = match figures.prunable {
        None => "keeps all for ever".to_owned(),
        Some(p) => format!(
            "would remove {} jobs, requests and responses of {} more, {} calls",
            p.jobs, p.bodies, p.calls
        ),
    };
    format!(
        "{}: version {}, {} bytes\n\n{}\n\njobs       {}\naccepted   {}\ncalls      {}\nretention  {prunable}",
        offline.path,
        figures.version,
        offline.file_bytes(),
        table(["TABLE", "ROWS", "BYTES"], &rows),
        counts.join(", "),
        span(figures.jobs),
        span(figures.calls),
    )
}

/// What a check found.
struct Checked {
    /// Pages that don't have their checksum: `None` when there are none, or what is wrong with them.
    pages: Option<String>,
    mended: bool,
    findings: Findings,
}

impl Checked {
    const fn is_in_order(&self) -> bool {
        self.pages.is_none() && !self.mended && self.findings.total == 0
    }
}

fn check(args: &CheckArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = if args.repair {
        offline::open(&args.store)?
    } else {
        offline::look(&args.store)?
    };
    let checked = if args.repair {
        let mended = !offline.store.check_pages()?;
        Checked {
            pages: None,
            mended,
            findings: offline.store.check(FINDINGS_SHOWN_MAX)?,
        }
    } else {
        // The rows first, as they are: damaged pages are no reason to say nothing of the others.
        let mut findings = Findings::default();
        match offline.store.check(FINDINGS_SHOWN_MAX) {
            Ok(found) => findings = found,
            Err(StoreError::Damaged { message, .. }) => findings.note("file", message),
            Err(error) => return Err(error.into()),
        }
        let pages = match offline.store.check_pages() {
            Ok(true) => None,
            Ok(false) => Some("they can be mended".to_owned()),
            Err(StoreError::Damaged { message, .. }) => Some(message),
            Err(error) => return Err(error.into()),
        };
        Checked {
            pages,
            mended: false,
            findings,
        }
    };
    super::say(&if json {
        let first = checked.findings.first.iter();
        let answer = json!({
            "path": offline.path,
            "ok": checked.is_in_order(),
            "damagedPages": checked.pages,
            "mended": checked.mended,
            "findings": first
                .map(|f| json!({"table": f.table, "problem": f.problem}))
                .collect::<Vec<_>>(),
            "findingsTotal": checked.findings.total,
        });
        answer.to_string()
    } else {
        checked.as_text(&offline.path)
    })?;
    Ok(if checked.is_in_order() {
        Exit::Done
    } else {
        Exit::Store
    })
}

impl Checked {
    fn as_text(&self, path: &str) -> String {
        if self.is_in_order() {
            return format!("{path} is in order");
        }
        let mut lines = Vec::new();
        if self.mended {
            lines.push(format!(
                "{path} had damaged pages and was mended from those that are whole; make a copy and check again"
            ));
        }
        if let Some(problem) = &self.pages {
            lines.push(format!(
                "{path} has damaged pages ({problem}); make a copy, then `onelane db check --repair` mends what can be mended"
            ));
        }
        let Findings { total, first } = &self.findings;
        let listed = first.len() as u64;
        let told = first.iter();
        lines.extend(told.map(|f| format!("table {}: {}", f.table, f.problem)));
        if *total > listed {
            lines.push(format!("and {} more", total - listed));
        }
        if *total > 0 {
            lines.push(format!(
                "{path} is not in order: {total} findings; restore it from a backup, or export what it holds with `onelane db export`"
            ));
        }
        lines.join("\n")
    }
}

fn export_rows(args: &ExportArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(&args.store)?;
    let what = match args.what {
        ExportWhat::Jobs => What::Jobs,
        ExportWhat::Calls => What::Calls,
        ExportWhat::Usage => What::Usage,
    };
    let format = match args.format {
        ExportFormat::Jsonl => Format::JsonLines,
        ExportFormat::Csv => Format::Csv,
    };
    let export = Export::new(what, format, offline.settings()?.calendar);
    if args.out == Path::new("-") {
        let mut out = io::stdout().lock();
        let written = match write(export, &offline, &mut out)? {
            Ok(written) => written,
            Err(error) => {
                super::unsaid(&error)?;
                return Ok(Exit::Done);
            }
        };
        return Ok(written.exit());
    }
    let written = to_file(&args.out, export, &offline)?;
    let Written { rows, unreadable } = written;
    let out = args.out.display().to_string();
    super::say(&if json {
        json!({"rows": rows, "unreadable": unreadable, "out": out}).to_string()
    } else {
        format!("{rows} rows written to {out}")
    })?;
    Ok(written.exit())
}

/// What an export came to.
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
            "error: {unreadable} rows can't be read and were left out, {rows} were written"
        ));
        Exit::Store
    }
}

/// Writes part after part; the inner error is that of `out`.
fn write(
    mut export: Export,
    offline: &Offline,
    out: &mut dyn Write,
) -> Result<io::Result<Written>, CliError> {
    let mut written = Written::default();
    while let Some(part) = export.next(&offline.store)? {
        for error in &part.unreadable {
            super::note(&format!("error: {error}"));
        }
        written.rows += part.rows;
        written.unreadable += part.unreadable.len() as u64;
        if let Err(error) = out.write_all(&part.lines) {
            return Ok(Err(error));
        }
    }
    Ok(out.flush().map(|()| written))
}

/// A new file, readable by its owner alone: it holds prompts. One that is there is not overwritten. Until
/// all is written it has another name, so that it is whole or not there, and a failed export is in the
/// way of none after it.
fn to_file(path: &Path, export: Export, offline: &Offline) -> Result<Written, CliError> {
    let shown = path.display();
    let unusable = |error: &io::Error| {
        CliError::usage(format!("{shown} can't be written: {error}"))
            .help("name another place with --out, or - for standard output")
    };
    if path.symlink_metadata().is_ok() {
        return Err(unusable(&io::ErrorKind::AlreadyExists.into()));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = BufWriter::new(options.open(partial).map_err(|e| unusable(&e))?);
    let written = write(export, offline, &mut out).and_then(|written| {
        written
            .and_then(|written| {
                out.get_ref().sync_all()?;
                fs::rename(partial, path)?;
                Ok(written)
            })
            .map_err(|error| {
                let problem = format!("{shown} can't be written: {error}");
                CliError::new(Exit::JobsFailed, problem)
                    .help("free some space, or name another place with --out")
            })
    });
    if written.is_err() {
        // What is left of it is of no use; a rest that stays is overwritten by the next.
        let _ = fs::remove_file(partial);
    }
    written
}

fn compact(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = offline::open(args)?;
    let before = offline.file_bytes();
    offline.store.compact()?;
    let after = offline.file_bytes();
    let path = &offline.path;
    super::say(&if json {
        json!({"path": path, "bytesBefore": before, "bytesAfter": after}).to_string()
    } else {
        format!("{path}: {before} bytes before, {after} bytes after")
    })?;
    Ok(Exit::Done)
}
