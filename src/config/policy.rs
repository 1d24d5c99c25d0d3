//! The rules for failures: the shipped ones, and over them the operator's own words.

use std::collections::BTreeMap;

use onelane_core::model::{FailureClass, JobRule, LaneRule, PolicyOverride};
use serde::Serialize;

use crate::glm::{ErrorTable, RowClass, class_of_status};

/// The row for all server errors that have none of their own.
pub(crate) const ANY_SERVER_ERROR: &str = "http_5xx";

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
    let rows = table.rows().chain(table.own_rows());
    let shipped = rows.map(|row| (row.code.clone(), row.exception()));
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
pub(crate) fn class_in_force(code: &str, word: PolicyOverride) -> PolicyClass {
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

pub(crate) fn has_no_row(code: &str) -> bool {
    ErrorTable::shipped().row(code).is_none()
}

/// The status of `http_NNN`.
pub(crate) fn status_of(code: &str) -> Option<u16> {
    let digits = code.strip_prefix("http_").filter(|n| n.len() == 3)?;
    digits.parse().ok()
}
