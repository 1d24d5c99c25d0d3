//! The budgets: what is spent, reserved and in doubt of each, and what happens beyond it.

use askama::Template;
use onelane_core::model::{BudgetStatus, BudgetStatuses, OverBudget, Period, Timestamp};

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav};
use super::lists::link;
use super::overview::BudgetRow;
use super::show::number;
use super::terms::Terms;
use super::words::{Words, fill};
use crate::error::Error;

/// Rows of a page, those that are nearest to their limits.
const ROWS: usize = 100;

#[derive(Template)]
#[template(path = "budgets.html")]
struct Budgets {
    frame: Frame,
    t: &'static Terms,
    rows: Vec<Row>,
    left_out: Option<String>,
}

struct Row {
    row: BudgetRow,
    usage_href: String,
    period: &'static str,
    reserved: String,
    in_doubt: Option<String>,
    left: String,
    over: &'static str,
    state: &'static str,
}

/// `GET /desk/budgets`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let calendar = asked.lane().settings().calendar;
    let Nearest {
        rows: all,
        left_out,
    } = Nearest::of(&asked, ROWS).await?;
    let rows = all.iter().map(|status| {
        let first = status.period.first_day(calendar.day(now)).to_string();
        Row::of(status, &first, now, (w, t))
    });
    let page = Budgets {
        frame: asked.frame(Nav::Budgets).await?,
        t,
        rows: rows.collect(),
        left_out: (left_out > 0).then(|| fill(t.more_budgets, &[&number(left_out)])),
    };
    asked.page(&page)
}

/// The accounts of everybody, then those that are nearest to their limits; the nearest first.
pub(super) struct Nearest {
    pub(super) rows: Vec<BudgetStatus>,
    pub(super) left_out: u64,
}

impl Nearest {
    /// So many at most.
    pub(super) async fn of(asked: &Asked, most: usize) -> Result<Self, Error> {
        let found = asked.lane().nearest_budgets(most).await?;
        let BudgetStatuses {
            mut budgets,
            left_out,
        } = found;
        let of_one = |status: &BudgetStatus| !status.account.is_everybodys();
        budgets.sort_by_key(|status| (of_one(status), std::cmp::Reverse(per_mille(status))));
        Ok(Self {
            rows: budgets,
            left_out,
        })
    }
}

fn per_mille(status: &BudgetStatus) -> u128 {
    u128::from(status.gone()) * 1_000 / u128::from(status.limit.number().max(1))
}

impl Row {
    fn of(
        status: &BudgetStatus,
        first_day: &str,
        now: Timestamp,
        (w, t): (&Words, &'static Terms),
    ) -> Self {
        let account = &status.account;
        let usage = [
            ("startDate", Some(first_day)),
            ("userId", account.user.as_deref()),
            ("model", account.model.as_deref()),
        ];
        let usage: Vec<_> = usage
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Self {
            row: BudgetRow::of(status, now, w),
            usage_href: link("/desk/usage", &usage),
            period: match status.period {
                Period::Day => t.a_day,
                Period::Month => t.a_month,
            },
            reserved: status.reserved.to_string(),
            in_doubt: (status.in_doubt.number() > 0).then(|| status.in_doubt.to_string()),
            left: status.left.to_string(),
            over: match status.over {
                OverBudget::Wait => t.over_wait,
                OverBudget::Refuse => t.over_refuse,
                OverBudget::Warn => t.over_warn,
            },
            state: match (status.short, status.warned) {
                (true, _) => t.budget_short,
                (false, true) => t.budget_warned,
                (false, false) => t.budget_fine,
            },
        }
    }
}
