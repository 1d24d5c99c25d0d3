//! The table of failures in force, for people: every code with its class and rules, and who said so.

use onelane_core::model::setting::KeyPath;
use onelane_core::model::{BreakerRule, Failure, JobRule, LaneRule};
use serde::Serialize;

use super::loaded::Loaded;
use super::policy::{ANY_SERVER_ERROR, PolicyClass, class_in_force, has_no_row, status_of};
use crate::glm::{ErrorRow, ErrorTable};

/// One row of the table in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// GLM's code, `http_NNN`, or a code of our own.
    pub code: String,
    /// The HTTP status it comes with, where one is documented.
    pub status_code: Option<u16>,
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
            PolicyClass::Is(class) => {
                let failure = Failure::new(class, code, "");
                Some(self.settings.decide(&failure).1)
            }
            _ => None,
        };
        let plain = match class {
            PolicyClass::Is(class) => Some(word.over(class.rule()).job),
            _ => None,
        };
        // What only the list of retryable errors makes fail.
        let by_list = (rule.map(|rule| rule.job) != plain).then(|| {
            let name = "retry.retryable_errors";
            let list = self.merged.inside(&KeyPath::from(name));
            let said = list.iter().map(|entry| entry.origin.to_string()).next();
            said.unwrap_or_else(|| name.to_owned())
        });
        let origin = self.said_of(code).or(by_list);
        PolicyRow {
            code: code.to_owned(),
            status_code: shipped.map_or_else(|| status_of(code), |row| row.http_status),
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
            let said = self.merged.inside(&KeyPath::from("policy").join(code));
            let mut origins: Vec<_> = said.iter().map(|entry| entry.origin.to_string()).collect();
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
