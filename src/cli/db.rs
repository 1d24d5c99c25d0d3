//! `onelane db`: a look into a store that no lane runs on, and work on its file.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use onelane::export::{ExportError, Format, What, export};
use onelane::model::{JobStatus, Timestamp};
use onelane::ports::Clock as _;
use onelane::store::{Findings, StoreFigures};
use onelane::system::SystemClock;
use serde_json::json;

use super::args::{DbVerb, ExportArgs, ExportFormat, ExportWhat, StoreArgs};
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
    let offline = offline::open(args)?;
    let retention = offline.settings()?.retention;
    let figures = offline.store.figures(&retention, SystemClock.now())?;
    if json {
        super::say(&figures_as_json(&offline, &figures).to_string());
    } else {
        super::say(&figures_as_text(&offline, &figures));
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

fn check(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = offline::open(args)?;
    let mended = !offline.store.check_pages()?;
    let findings = offline.store.check(FINDINGS_SHOWN_MAX)?;
    let in_order = !mended && findings.total == 0;
    if json {
        let first = findings.first.iter();
        let answer = json!({
            "path": offline.path,
            "ok": in_order,
            "mended": mended,
            "findings": first
                .map(|f| json!({"table": f.table, "problem": f.problem}))
                .collect::<Vec<_>>(),
            "findingsTotal": findings.total,
        });
        super::say(&answer.to_string());
    } else {
        super::say(&findings_as_text(&offline.path, mended, &findings));
    }
    Ok(if in_order { Exit::Done } else { Exit::Store })
}

fn findings_as_text(path: &str, mended: bool, findings: &Findings) -> String {
    if !mended && findings.total == 0 {
        return format!("{path} is in order");
    }
    let mut lines = Vec::new();
    if mended {
        lines.push(format!(
            "{path} had damaged pages and was mended from those that are whole; make a copy and check again"
        ));
    }
    let first = findings.first.iter();
    lines.extend(first.map(|f| format!("table {}: {}", f.table, f.problem)));
    let listed = findings.first.len() as u64;
    if findings.total > listed {
        lines.push(format!("and {} more", findings.total - listed));
    }
    if findings.total > 0 {
        lines.push(format!(
            "{path} is not in order: {} findings; restore it from a backup, or export what it holds with `onelane db export`",
            findings.total
        ));
    }
    lines.join("\n")
}

fn export_rows(args: &ExportArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::open(&args.store)?;
    let what = match args.what {
        ExportWhat::Jobs => What::Jobs,
        ExportWhat::Calls => What::Calls,
        ExportWhat::Usage => What::Usage,
    };
    let format = match args.format {
        ExportFormat::Jsonl => Format::JsonLines,
        ExportFormat::Csv => Format::Csv,
    };
    let to_stdout = args.out == Path::new("-");
    let written = if to_stdout {
        let mut out = BufWriter::new(io::stdout().lock());
        export(&offline.store, what, format, &mut out)
            .and_then(|rows| out.flush().map(|()| rows).map_err(ExportError::Io))
    } else {
        to_file(&args.out, &offline, what, format)
    };
    let rows = match written {
        Ok(rows) => rows,
        Err(ExportError::Store(error)) => return Err(error.into()),
        // A reader that went away is no news.
        Err(ExportError::Io(error)) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(Exit::Done);
        }
        Err(ExportError::Io(error)) => {
            let out = args.out.display();
            return Err(CliError::usage(format!("{out} can't be written: {error}"))
                .help("name another place with --out, or - for standard output"));
        }
    };
    if !to_stdout {
        let out = args.out.display().to_string();
        super::say(&if json {
            json!({"rows": rows, "out": out}).to_string()
        } else {
            format!("{rows} rows written to {out}")
        });
    }
    Ok(Exit::Done)
}

/// A new file, readable by its owner alone: it holds prompts. One that is there is not overwritten.
fn to_file(path: &Path, offline: &Offline, what: What, format: Format) -> Result<u64, ExportError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = BufWriter::new(options.open(path)?);
    let rows = export(&offline.store, what, format, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(rows)
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
    });
    Ok(Exit::Done)
}
