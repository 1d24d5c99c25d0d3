//! What `onelane doctor` found, and how that is told.

use serde::Serialize;

use crate::cli::exit::{CliError, Exit};
use crate::cli::table::{cut, width};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    state: State,
    what: &'static str,
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(State::Ok, what, text.into(), None, Exit::Done);
    }

    pub(super) fn warn(&mut self, what: &'static str, text: impl Into<String>, help: &str) {
        self.add(
            State::Warn,
            what,
            text.into(),
            Some(help.to_owned()),
            Exit::Done,
        );
    }

    pub(super) fn fail(&mut self, what: &'static str, error: CliError) {
        self.add(State::Fail, what, error.message, error.help, error.exit);
    }

    fn add(
        &mut self,
        state: State,
        what: &'static str,
        text: String,
        help: Option<String>,
        exit: Exit,
    ) {
        self.0.push(Finding {
            state,
            what,
            text,
            help,
            exit,
        });
    }
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    warnings: usize,
    failures: usize,
}

/// Tells them, and with which code that ends: that of the first failure.
pub(super) fn tell(findings: Findings, json: bool) -> Result<Exit, CliError> {
    let count = |state: State| {
        findings
            .0
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    let report = Report {
        warnings: count(State::Warn),
        failures: count(State::Fail),
        findings: findings.0,
    };
    crate::cli::answer(json, &report, text)?;
    let failed = report
        .findings
        .iter()
        .find(|finding| finding.state == State::Fail);
    Ok(failed.map_or(Exit::Done, |finding| finding.exit))
}

fn text(report: &Report) -> String {
    let width = width();
    let mut lines = Vec::new();
    for Finding {
        state,
        what,
        text,
        help,
        ..
    } in &report.findings
    {
        let state = match state {
            State::Ok => "ok",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        lines.push(cut(&format!("{state:<5} {what:<7} {text}"), width));
        lines.extend(help.iter().map(|help| format!("{:<14}{help}", "")));
    }
    let counted = |count: usize, one: &str, many: &str| match count {
        0 => None,
        count => Some(onelane::words::counted(count as u64, one, many)),
    };
    let sums = [
        counted(report.failures, "failure", "failures"),
        counted(report.warnings, "warning", "warnings"),
    ];
    let sums: Vec<String> = sums.into_iter().flatten().collect();
    lines.push(match sums.is_empty() {
        true => "all well".to_owned(),
        false => sums.join(", "),
    });
    lines.join("\n")
}
