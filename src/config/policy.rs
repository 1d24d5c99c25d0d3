//! The table of failures in force: the shipped one, and over it the operator's own words.

use std::collections::BTreeMap;

use onelane_core::model::{BreakerRule, FailureClass, JobRule, LaneRule, PolicyOverride};
use serde::Serialize;

use super::loaded::Loaded;
use super::path::{inside, join};
use crate::glm::{ErrorRow, ErrorTable, RowClass, class_of_status};

/// The row for all server errors that have none of their own.
const ANY_SERVER_ERROR: &str = "http_5xx";

/// One row of the table in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// GLM's code, `http_NNN`, or a code of our own.
    pub code: String,
    /// The HTTP status it comes with, where one is documented.
    pub http_status: Option<u16>,
    /// What it means; `None` for a code that only the operator knows.
    pub meaning: Option<String>,
    /// Its class.
    pub class: PolicyClass,
    /// What happens to the job; `None` where that is up to a class that is not known before.
    pub job: Option<JobRule>,
    /// What happens to the lane; `None` as above.
    pub lane: Option<LaneRule>,
    /// What the breaker hears; `None` as above.
    pub breaker: Option<BreakerRule>,
    /// Whether the operator said anything of it.
    pub overridden: bool,
    /// Where that was said.
    pub origin: Option<String>,
}

/// The class of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyClass {
    /// That of the code inside the body: a 200 that carries an error.
    MapByInnerCode,
    /// That of the HTTP status: a code that the shipped table does not know.
    ByHttpStatus,
    /// This one.
    #[serde(untagged)]
    Is(FailureClass),
}

impl PolicyClass {
    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MapByInnerCode => "map_by_inner_code",
            Self::ByHttpStatus => "by_http_status",
            Self::Is(class) => class.name(),
        }
    }
}

/// What the lane is told: what the shipped table has beyond classes, and the operator's own words over
/// it. Who changes a code's class means that class as a whole: what is shipped for the code counts no
/// more.
pub(crate) fn in_force(own: &BTreeMap<String, PolicyOverride>) -> BTreeMap<String, PolicyOverride> {
    let table = ErrorTable::shipped();
    let shipped = table.rows().map(|row| (row.code.clone(), row.exception()));
    let mut words: BTreeMap<String, PolicyOverride> = shipped
        .filter(|(_, exception)| *exception != PolicyOverride::default())
        .collect();
    if let Some(word) = own.get(ANY_SERVER_ERROR) {
        let codes = (500..=599).map(|status| format!("http_{status}"));
        words.extend(
            codes
                .filter(|code| has_no_row(code))
                .map(|code| (code, *word)),
        );
    }
    for (code, word) in own {
        let keeps_class = word.class.is_none() || word.class == table.class(code);
        let below = words.get(code).filter(|_| keeps_class);
        let word = word.or(below.copied().unwrap_or_default());
        words.insert(code.clone(), word);
    }
    words
}

/// Refuses words by which a job would stay in its place while its lane goes on: it would be called again at
/// once, and again, without a bound. `words` are those in force. The error is the code and what is wrong.
pub(crate) fn refuse_endless(
    own: &BTreeMap<String, PolicyOverride>,
    words: &BTreeMap<String, PolicyOverride>,
) -> Result<(), (String, String)> {
    let endless = |word: &PolicyOverride, class: FailureClass| {
        let rule = word.over(class.rule());
        rule.job == JobRule::Keep && rule.lane == LaneRule::GoOn
    };
    for (code, word) in words {
        let may_be = match class_in_force(code, *word) {
            PolicyClass::Is(class) => endless(word, class),
            _ => FailureClass::ALL.iter().any(|class| endless(word, *class)),
        };
        if may_be {
            let said_as = match own.contains_key(code) {
                true => code,
                false => ANY_SERVER_ERROR,
            };
            let problem = "keeps the job in its place (`job = \"keep\"`) while the lane goes on \
                 (`lane = \"go_on\"`), so that GLM would be called again and again without a bound; \
                 name a `lane` rule that waits, such as \"cool_down\", or another `job` rule, such as \
                 \"backoff\"";
            return Err((said_as.to_owned(), problem.to_owned()));
        }
    }
    Ok(())
}

/// The class of a code where these are the operator's words.
fn class_in_force(code: &str, word: PolicyOverride) -> PolicyClass {
    let table = ErrorTable::shipped();
    let shipped = table.row(code).or_else(|| table.own_row(code));
    match (word.class, shipped.map(|row| row.class)) {
        (Some(class), _) | (None, Some(RowClass::Is(class))) => PolicyClass::Is(class),
        (None, Some(RowClass::MapByInnerCode)) => PolicyClass::MapByInnerCode,
        (None, None) => status_of(code).map_or(PolicyClass::ByHttpStatus, |status| {
            PolicyClass::Is(class_of_status(status))
        }),
    }
}

fn has_no_row(code: &str) -> bool {
    ErrorTable::shipped().row(code).is_none()
}

/// The status of `http_NNN`.
fn status_of(code: &str) -> Option<u16> {
    let digits = code.strip_prefix("http_").filter(|n| n.len() == 3)?;
    digits.parse().ok()
}

impl Loaded {
    /// The table in force, ordered by code: GLM's and HTTP's, our own, and those that only the
    /// operator knows.
    #[must_use]
    pub fn policy(&self) -> Vec<PolicyRow> {
        let table = ErrorTable::shipped();
        let known = table.rows().chain(table.own_rows());
        let known = known.map(|row| self.row(&row.code, Some(row)));
        let is_known = |code: &str| table.row(code).is_some() || table.own_row(code).is_some();
        let added = self.config.policy.keys().filter(|code| !is_known(code));
        known
            .chain(added.map(|code| self.row(code, None)))
            .collect()
    }

    /// One row of the table in force; an HTTP status has one even where the table says nothing of it.
    #[must_use]
    pub fn policy_of(&self, code: &str) -> Option<PolicyRow> {
        let found = self.policy().into_iter().find(|row| row.code == code);
        let is_status = status_of(code).is_some_and(|status| (100..=599).contains(&status));
        found.or_else(|| is_status.then(|| self.row(code, None)))
    }

    fn row(&self, code: &str, shipped: Option<&ErrorRow>) -> PolicyRow {
        let word = self.settings.policy.get(code).copied().unwrap_or_default();
        let class = class_in_force(code, word);
        let rule = match class {
            PolicyClass::Is(class) => Some(word.over(class.rule())),
            _ => None,
        };
        let origin = self.said_of(code);
        PolicyRow {
            code: code.to_owned(),
            http_status: shipped.map_or_else(|| status_of(code), |row| row.http_status),
            meaning: shipped.map(|row| row.meaning.clone()),
            class,
            job: rule.map_or(word.job, |rule| Some(rule.job)),
            lane: rule.map_or(word.lane, |rule| Some(rule.lane)),
            breaker: rule.map_or(word.breaker, |rule| Some(rule.breaker)),
            overridden: origin.is_some(),
            origin,
        }
    }

    /// Who said something of a code.
    fn said_of(&self, code: &str) -> Option<String> {
        let of_code = |code: &str| {
            let group = join("policy", code);
            let paths = self.merged.paths().filter(|p| inside(&group, p).is_some());
            let mut origins: Vec<_> = paths.map(|path| self.origin(path).to_string()).collect();
            origins.dedup();
            (!origins.is_empty()).then(|| origins.join(", "))
        };
        let as_any = || {
            let status = status_of(code).filter(|_| has_no_row(code))?;
            (500..=599)
                .contains(&status)
                .then(|| of_code(ANY_SERVER_ERROR))?
        };
        of_code(code).or_else(as_any)
    }
}
