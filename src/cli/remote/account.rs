//! What GLM itself counts of the account: the quota in a line, and our books beside its meter.

use onelane::model::{Quota, Timestamp, WHOLE_E4};
use onelane::words::counted;
use serde::Deserialize;

use super::client::{Daemon, Query};
use super::money::{Cost, money};
use super::words::{grouped, until};
use crate::cli::args::remote::ReconcileArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// As many days as the daemon asks GLM for take their time.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(120);

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AccountAnswer {
    pub(super) account: Account,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Account {
    pub(super) enabled: bool,
    quota: Option<Quota>,
    balance: Option<Balance>,
    problems: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Balance {
    available: Cost,
}

impl Account {
    /// The windows of the quota, each with how much of it is used.
    pub(super) fn windows(&self, now: Timestamp) -> impl Iterator<Item = (u64, String)> {
        let windows = self.quota.iter().flat_map(|quota| &quota.windows);
        windows.map(move |window| {
            let used = window.used_e4.map_or_else(
                || "not told".to_owned(),
                |share| format!("{}% used", share * 100 / WHOLE_E4),
            );
            let anew = match window.resets_at {
                Some(at) => format!(", anew {}", until(at, now)),
                None => String::new(),
            };
            let told = format!("{window:<12} {used}{anew}");
            (window.used_e4.unwrap_or(0), told)
        })
    }

    /// What is left of the money.
    pub(super) fn balance(&self) -> Option<String> {
        let Balance { available } = self.balance.as_ref()?;
        Some(format!(
            "{} left",
            money(available.cost.0, available.currency)
        ))
    }

    /// Why something is not told.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reconciled {
    start_date: String,
    end_date: String,
    zone: String,
    rows: Vec<Row>,
    differences: Vec<Difference>,
    days_not_told: Vec<String>,
    problem: Option<String>,
    calls_not_in_log: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    date: String,
    model: String,
    our_calls: u64,
    our_tokens: u64,
    metered_tokens: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    date: String,
    model: String,
    cause: String,
    calls: Option<u64>,
    tokens: i64,
    answered_by: Option<String>,
}

/// `onelane usage reconcile`. Ends with 1 where something differs.
pub(super) async fn reconcile(
    args: &ReconcileArgs,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    let query = Query::default()
        .maybe("startDate", args.start.as_ref())
        .maybe("endDate", args.end.as_ref());
    let path = format!("/api/admin/glm/account/reconciliation{}", query.text());
    let answer = daemon.get_slowly(&path, WITHIN).await?;
    let found: Reconciled = answer.read()?;
    answer.tell(json, |found: Reconciled| text(&found))?;
    match found.differences.is_empty() && found.days_not_told.is_empty() {
        true => Ok(Exit::Done),
        false => Ok(Exit::JobsFailed),
    }
}

fn text(found: &Reconciled) -> String {
    let mut out = Vec::new();
    if !found.rows.is_empty() {
        let rows: Vec<[String; 6]> = found.rows.iter().map(|row| cells(row, found)).collect();
        let head = ["DAY", "MODEL", "CALLS", "OURS", "GLM'S", "DIFFERENCE"];
        out.push(fitting(head, &rows));
    }
    for one in &found.differences {
        out.push(told(one));
    }
    let of = format!(
        "{} to {}, days of {}",
        found.start_date, found.end_date, found.zone
    );
    let days = counted(found.days_not_told.len() as u64, "day", "days");
    let last = match (found.differences.len(), found.days_not_told.is_empty()) {
        (0, true) => format!("the books agree: {of}"),
        (n, true) => format!("{}: {of}", counted(n as u64, "difference", "differences")),
        (_, false) => format!(
            "{days} of {of} not compared: {}",
            found.problem.as_deref().unwrap_or("GLM did not tell")
        ),
    };
    out.push(last);
    if found.calls_not_in_log > 0 {
        let calls = counted(found.calls_not_in_log, "call is", "calls are");
        out.push(format!(
            "{calls} in the log no more: what they used seems not to be ours"
        ));
    }
    out.join("\n")
}

fn cells(row: &Row, found: &Reconciled) -> [String; 6] {
    let difference = i128::from(row.metered_tokens) - i128::from(row.our_tokens);
    let is_it = |one: &&Difference| {
        let of_model = one.model == row.model || one.answered_by.as_ref() == Some(&row.model);
        one.date == row.date && of_model
    };
    let causes = found.differences.iter().filter(is_it);
    let causes: Vec<&str> = causes.map(|one| name(&one.cause)).collect();
    let difference = match difference {
        0 => "-".to_owned(),
        more if more > 0 => format!("+{more} {}", causes.join(", ")),
        fewer => format!("{fewer} {}", causes.join(", ")),
    };
    [
        row.date.clone(),
        row.model.clone(),
        row.our_calls.to_string(),
        row.our_tokens.to_string(),
        row.metered_tokens.to_string(),
        difference.trim_end().to_owned(),
    ]
}

fn name(cause: &str) -> &str {
    match cause {
        "inDoubt" => "in doubt",
        "modelSwitched" => "model switched",
        "usageMissing" => "usage missing",
        "notOurs" => "not ours",
        "notMetered" => "not metered",
        other => other,
    }
}

/// A difference in a line.
fn told(one: &Difference) -> String {
    let Difference { date, model, .. } = one;
    let tokens = grouped(one.tokens.unsigned_abs());
    let calls = one.calls.map_or_else(
        || "calls".to_owned(),
        |calls| counted(calls, "call", "calls"),
    );
    let what = match one.cause.as_str() {
        "inDoubt" => format!("{tokens} tokens of {calls} in doubt here"),
        "modelSwitched" => {
            let other = one.answered_by.as_deref().unwrap_or("another model");
            format!("{tokens} tokens of {calls} counted as {other}'s")
        }
        "usageMissing" => format!("{tokens} tokens of {calls} whose answers did not tell them"),
        "notOurs" => format!("{tokens} tokens that are not ours"),
        "notMetered" => format!("{tokens} tokens of ours that GLM did not count"),
        other => format!("{tokens} tokens: {other}"),
    };
    format!("{date} {model}: {what}")
}
