//! `onelane db check`: whether a store is in order, and of one that is not, what is left and what to do.

use std::time::Duration;

use onelane::export::{Export, Format, What};
use onelane::model::{Calendar, Retention};
use onelane::ports::{Clock as _, StoreError};
use onelane::store::{Findings, RedbStore};
use onelane::system::SystemClock;
use onelane::words::counted;
use serde::{Deserialize, Serialize};

use super::args::CheckArgs;
use super::exit::{CliError, Exit};
use super::offline;
use super::remote::Daemon;

/// Findings that are listed.
const FINDINGS_SHOWN_MAX: usize = 100;

/// The result of a check.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    path: &'a str,
    /// Whether all is in order.
    ok: bool,
    /// The problem with pages that can't be read.
    damaged_pages: Option<String>,
    /// Whether `--repair` would make a whole file of it.
    mendable: bool,
    mended: bool,
    /// What can still be read, where pages can't; the rest is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
    #[serde(flatten)]
    findings: Findings,
}

/// `onelane db check`.
pub(crate) fn check(args: &CheckArgs, json: bool) -> Result<Exit, CliError> {
    let mut offline = if args.repair {
        offline::open(&args.store)?
    } else {
        offline::look_for_damage(&args.store)?
    };
    let mut findings = Findings::default();
    let (mut damaged_pages, mut mended, mut mendable, mut left) = (None, false, false, None);
    if args.repair {
        mended = !offline.store.check_pages()?;
        findings = offline.store.check(FINDINGS_SHOWN_MAX)?;
    } else {
        // The rows first, as they are: damaged pages are no reason to say nothing of the others. Where some can't be
        // reached, that their relations don't hold says nothing more.
        let is_remains = offline.store.is_remains();
        let found = match is_remains {
            true => Ok(Findings::default()),
            false => offline.store.check(FINDINGS_SHOWN_MAX),
        };
        match found {
            Ok(found) => findings = found,
            Err(StoreError::Damaged { message, .. }) => damaged_pages = Some(message),
            Err(error) => return Err(error.into()),
        }
        if is_remains || damaged_pages.is_some() {
            left = Some(Left::of(&offline.store));
        }
        match offline.store.check_pages() {
            Ok(true) => {}
            Ok(false) => {
                mendable = true;
                damaged_pages.get_or_insert_with(|| "some are not as they were written".to_owned());
            }
            Err(StoreError::Damaged { message, .. }) => damaged_pages = Some(message),
            Err(error) => return Err(error.into()),
        }
    }
    let checked = Checked {
        path: &offline.path,
        ok: damaged_pages.is_none() && !mended && findings.total == 0,
        damaged_pages,
        mendable,
        mended,
        left,
        findings,
    };
    super::answer(json, &checked, Checked::text)?;
    Ok(if checked.ok { Exit::Done } else { Exit::Store })
}

/// What a daemon says of the store that it has open.
#[derive(Deserialize)]
struct CheckedByDaemon {
    path: String,
    ok: bool,
    #[serde(flatten)]
    findings: Findings,
}

/// `onelane db check`, asked of the daemon that has the store open: its tables, not the pages of its file.
pub(crate) async fn check_by(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let within = Duration::from_secs(600);
    let path = "/api/admin/glm/store/check";
    let answer = daemon.get_slowly(path, within).await?;
    let checked: CheckedByDaemon = answer.read()?;
    answer.tell(json, |checked: CheckedByDaemon| {
        let CheckedByDaemon { path, ok, findings } = checked;
        if ok {
            return format!("{path}: the tables are in order");
        }
        let mut lines = told(&findings);
        lines.push(format!(
            "{path} is not in order: {}; export what it holds with `onelane db export`, stop the daemon, and restore a \
             backup",
            counted(findings.total, "finding", "findings")
        ));
        lines.join("\n")
    })?;
    if !json {
        super::note("note: pages are checked when nobody has it open; stop the daemon for that");
    }
    Ok(if checked.ok { Exit::Done } else { Exit::Store })
}

/// The findings that are listed, and how many more there are.
fn told(findings: &Findings) -> Vec<String> {
    let Findings { total, first } = findings;
    let each = first.iter();
    let mut lines: Vec<String> = each
        .map(|f| format!("table {}: {}", f.table, f.problem))
        .collect();
    let listed = first.len() as u64;
    if *total > listed {
        lines.push(format!("and {} more", total - listed));
    }
    lines
}

/// What of a damaged file can still be read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    jobs: Kept,
    calls: Kept,
    /// Rows of the usage: one for each day, model and user.
    usage: Kept,
    /// The tables that are not whole.
    damaged_tables: Vec<String>,
}

/// The rows of a kind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Those that can be read whole.
    readable: u64,
    /// How many there should be, if that can be read.
    should_be: Option<u64>,
}

impl Left {
    fn of(store: &RedbStore) -> Self {
        let now = SystemClock.now();
        let tables = store.figures(&Retention::default(), now);
        let tables = tables.map(|figures| figures.tables).unwrap_or_default();
        let kept = |what: What| {
            let mut export = Export::new(what, Format::JsonLines, Calendar::default(), now);
            let mut readable = 0;
            while let Ok(Some(part)) = export.next(store) {
                readable += part.rows;
            }
            let table = tables.iter().find(|known| known.name == what.table());
            Kept {
                readable,
                should_be: table.map(|table| table.rows),
            }
        };
        Self {
            jobs: kept(What::Jobs),
            calls: kept(What::Calls),
            usage: kept(What::Usage),
            damaged_tables: tables
                .iter()
                .filter(|table| table.bytes.is_none())
                .map(|table| table.name.clone())
                .collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let line = |kept: &Kept, what: &str| {
            let Kept {
                readable,
                should_be,
            } = kept;
            match should_be {
                None => {
                    format!("  {what}: {readable} can still be read; how many there were can't")
                }
                Some(all) if readable >= all => format!("  {what}: all {all} can still be read"),
                Some(all) => {
                    let missing = all - readable;
                    format!(
                        "  {what}: {readable} of {all} can still be read, {missing} are missing"
                    )
                }
            }
        };
        let mut lines = vec![
            line(&self.jobs, "jobs"),
            line(&self.calls, "calls"),
            line(&self.usage, "rows of usage"),
        ];
        if !self.damaged_tables.is_empty() {
            lines.push(format!(
                "  damaged tables: {}",
                self.damaged_tables.join(", ")
            ));
        }
        lines
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
        match &self.damaged_pages {
            Some(problem) if self.mendable => lines.push(format!(
                "{path} has damaged pages ({problem}); make a copy, then `onelane db check --repair` mends what can be mended"
            )),
            Some(problem) => lines.push(format!("{path} is damaged beyond mending: {problem}")),
            None => {}
        }
        lines.extend(self.left.iter().flat_map(Left::lines));
        lines.extend(told(&self.findings));
        let total = self.findings.total;
        if total > 0 {
            lines.push(format!(
                "{path} is not in order: {}; restore it from a backup, or export what it holds with `onelane db export`",
                counted(total, "finding", "findings")
            ));
        } else if self.damaged_pages.is_some() && !self.mendable {
            lines.push(format!(
                "restore it from a backup; or save what can be read (`onelane db export --store {path} --what jobs`, then calls and usage), \
                 move the file away and begin a new one"
            ));
        }
        lines.join("\n")
    }
}
