//! `onelane db`: a look into a store that no lane runs on, and work on its file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use onelane::export::{Export, Format, What};
use onelane::model::{Calendar, JobStatus};
use onelane::ports::{Clock as _, Store as _, StoreError};
use onelane::store::{Findings, RedbStore, StoreFigures, TimeSpan};
use onelane::system::SystemClock;
use serde::Serialize;
use serde_json::json;

use super::args::{CheckArgs, DbVerb, ExportArgs, StoreArgs};
use super::exit::{CliError, Exit};
use super::offline::{self, Offline};
use super::table::table;

/// Findings that are listed.
const FINDINGS_SHOWN_MAX: usize = 100;

/// Dispatches to the verb.
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
    let retention = offline.settings().retention;
    let figures = offline.store.figures(&retention, SystemClock.now())?;
    let stats = Stats {
        path: &offline.path,
        file_bytes: offline.file_bytes(),
        figures,
    };
    super::answer(json, &stats, Stats::text)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    path: &'a str,
    file_bytes: u64,
    #[serde(flatten)]
    figures: StoreFigures,
}

impl Stats<'_> {
    fn text(&self) -> String {
        let figures = &self.figures;
        let rows: Vec<_> = figures
            .tables
            .iter()
            .map(|t| [t.name.clone(), t.rows.to_string(), t.bytes.to_string()])
            .collect();
        let counts = JobStatus::ALL.map(|s| format!("{} {}", figures.jobs.of(s), s.name()));
        let span = |span: Option<TimeSpan>| match span {
            Some(TimeSpan { oldest, newest }) => format!("{oldest} to {newest}"),
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
            self.path,
            figures.version,
            self.file_bytes,
            table(["TABLE", "ROWS", "BYTES"], &rows),
            counts.join(", "),
            span(figures.jobs_accepted),
            span(figures.calls_ended),
        )
    }
}

/// The result of a check.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    path: &'a str,
    /// Whether all is in order.
    ok: bool,
    /// The problem with pages that don't have their checksum.
    damaged_pages: Option<String>,
    mended: bool,
    /// What can still be read, where the file is damaged beyond mending; the rest is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
    #[serde(flatten)]
    findings: Findings,
}

fn check(args: &CheckArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = if args.repair {
        offline::open(&args.store)?
    } else {
        offline::look(&args.store)?
    };
    let mut findings = Findings::default();
    let (mut damaged_pages, mut mended) = (None, false);
    if args.repair {
        mended = !offline.store.check_pages()?;
        findings = offline.store.check(FINDINGS_SHOWN_MAX)?;
    } else {
        // The rows first, as they are: damaged pages are no reason to say nothing of the others.
        match offline.store.check(FINDINGS_SHOWN_MAX) {
            Ok(found) => findings = found,
            Err(StoreError::Damaged { message, .. }) => findings.note("file", message),
            Err(error) => return Err(error.into()),
        }
        damaged_pages = match offline.store.check_pages() {
            Ok(true) => None,
            Ok(false) => Some("they can be mended".to_owned()),
            Err(StoreError::Damaged { message, .. }) => Some(message),
            Err(error) => return Err(error.into()),
        };
    }
    let left = offline.store.is_remains().then(|| Left::of(&offline.store));
    let checked = Checked {
        path: &offline.path,
        ok: damaged_pages.is_none() && !mended && findings.total == 0,
        damaged_pages,
        mended,
        left,
        findings,
    };
    super::answer(json, &checked, Checked::text)?;
    Ok(if checked.ok { Exit::Done } else { Exit::Store })
}

/// What of a damaged file can still be read.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    jobs: u64,
    calls: u64,
    /// How many jobs there should be, if that can be read.
    jobs_should_be: Option<u64>,
    /// Rows that are there and can't be read.
    unreadable: u64,
    /// Whether some could not even be reached.
    ends_early: bool,
}

impl Left {
    fn of(store: &RedbStore) -> Self {
        let mut left = Self {
            jobs_should_be: store.counts().ok().map(|counts| counts.total()),
            ..Self::default()
        };
        for what in [What::Jobs, What::Calls] {
            let mut export = Export::new(what, Format::JsonLines, Calendar::default());
            loop {
                match export.next(store) {
                    Ok(Some(part)) => {
                        left.unreadable += part.unreadable.len() as u64;
                        match what {
                            What::Jobs => left.jobs += part.rows,
                            _ => left.calls += part.rows,
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        left.ends_early = true;
                        break;
                    }
                }
            }
        }
        left
    }

    fn text(&self) -> String {
        let Self { jobs, calls, .. } = self;
        let of = match self.jobs_should_be {
            Some(all) => format!("{jobs} of {all} jobs"),
            None => format!("{jobs} jobs"),
        };
        let missing = self
            .jobs_should_be
            .map_or(0, |all| all.saturating_sub(*jobs));
        let mut text = format!("of it {of} and {calls} calls can still be read");
        if missing > 0 {
            text = format!("{text}; {missing} jobs are missing");
        }
        if self.unreadable > 0 {
            text = format!(
                "{text}; {} rows are there and can't be read",
                self.unreadable
            );
        }
        if self.ends_early {
            text = format!("{text}; there may be more that can't be reached");
        }
        text
    }
}

impl Checked<'_> {
    fn text(&self) -> String {
        let path = self.path;
        if self.ok {
            return format!("{path} is in order");
        }
        let mut lines = Vec::new();
        if self.mended {
            lines.push(format!(
                "{path} had damaged pages and was mended from those that are whole; make a copy and check again"
            ));
        }
        if let Some(problem) = &self.damaged_pages {
            lines.push(format!(
                "{path} has damaged pages ({problem}); make a copy, then `onelane db check --repair` mends what can be mended"
            ));
        }
        lines.extend(self.left.as_ref().map(Left::text));
        let Findings { total, first } = &self.findings;
        let listed = first.len() as u64;
        let each = first.iter();
        lines.extend(each.map(|f| format!("table {}: {}", f.table, f.problem)));
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
    let export = Export::new(args.what, args.format, offline.settings().calendar);
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
    let answer = json!({"rows": rows, "unreadable": unreadable, "out": out});
    super::answer(json, &answer, |_| format!("{rows} rows written to {out}"))?;
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
        // A part is of no use; the next export overwrites one that stays.
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
    let answer = json!({"path": path, "bytesBefore": before, "bytesAfter": after});
    super::answer(json, &answer, |_| {
        format!("{path}: {before} bytes before, {after} bytes after")
    })?;
    Ok(Exit::Done)
}
