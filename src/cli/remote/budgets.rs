//! `onelane budget`: how budgets stand, and set while the lane runs.

use onelane::model::{Amount, KeyBudget, model_name};
use serde_json::{Map, Value, json};

use super::client::{Daemon, Query};
use super::config::change;
use super::nouns::{Budget, Budgets};
use super::words::{now, until};
use crate::cli::args::OverArg;
use crate::cli::args::remote::{BudgetVerb, SetBudgetArgs};
use crate::cli::exit::{CliError, Exit};
use crate::cli::table::fitting;

/// Instead of a limit: a stored change is taken back.
const UNSET: &str = "unset";

/// Dispatches to the verb.
pub(super) async fn budget(
    verb: BudgetVerb,
    daemon: &Daemon,
    json: bool,
) -> Result<Exit, CliError> {
    match verb {
        BudgetVerb::Ls => list(daemon, json).await,
        BudgetVerb::Set(args) => set(&args, daemon, json).await,
    }
}

async fn list(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let answer = daemon
        .get("/api/admin/glm/budgets", &Query::default())
        .await?;
    answer.tell(json, |Budgets { budgets, left_out }| {
        text(&budgets, left_out)
    })?;
    Ok(Exit::Done)
}

fn text(budgets: &[Budget], left_out: u64) -> String {
    if budgets.is_empty() {
        return "no budget is set, or none was used yet\n`onelane budget set NAME \"50 CNY/day\"` sets one".to_owned();
    }
    let now = now();
    let row = |budget: &Budget| {
        let of = [&budget.user_id, &budget.key_id, &budget.model];
        let of: Vec<&str> = of.into_iter().flatten().map(String::as_str).collect();
        let mut spent = budget.spent.text();
        for (amount, what) in [(budget.reserved, "reserved"), (budget.in_doubt, "in doubt")] {
            if !amount.is_zero() {
                spent.push_str(&format!(" + {} {what}", amount.text()));
            }
        }
        [
            budget.budget.clone(),
            match of.is_empty() {
                true => "all".to_owned(),
                false => of.join(" "),
            },
            spent,
            format!("{} a {}", budget.limit.text(), budget.period),
            budget.left.text(),
            match budget.short {
                true => format!("{}, used up", budget.over),
                false => budget.over.clone(),
            },
            until(budget.until, now),
        ]
    };
    let rows: Vec<_> = budgets.iter().map(row).collect();
    let head = ["BUDGET", "OF", "SPENT", "LIMIT", "LEFT", "BEYOND", "ENDS"];
    let more = match left_out {
        0 => String::new(),
        more => format!("; and {more} more, farther from their limits"),
    };
    format!("{}\n{} in all{more}", fitting(head, &rows), rows.len())
}

async fn set(args: &SetBudgetArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let name = &args.name;
    if args.limit == UNSET {
        let patch = json!({"budgets": {name: null}});
        return change(
            &patch.to_string(),
            &format!("budget {name}: the stored change is taken back"),
            daemon,
            json,
        )
        .await;
    }
    let limit: KeyBudget = args.limit.parse().map_err(|problem| {
        CliError::usage(format!("{:?} {problem}", args.limit))
            .help("give a limit like \"50 CNY/day\", \"3 USD/month\" or \"1000000 tokens/day\"")
    })?;
    let config = daemon
        .get("/api/admin/glm/config", &Query::default())
        .await?;
    let config: Value = config.read()?;
    let known = config
        .pointer("/config/budgets")
        .and_then(|budgets| budgets.get(name));
    let mut budget = Map::new();
    let mut add = |field: &str, value: Value| {
        budget.insert(field.to_owned(), value);
    };
    add("period", json!(limit.period.name()));
    // A budget is of one kind: what it had of the other goes.
    let (kept, others): (Vec<(&str, Value)>, &[&str]) = match limit.limit {
        Amount::Tokens(tokens) => (vec![("tokens", json!(tokens))], &["amount", "currency"]),
        Amount::Money(cost) => {
            let amount = json!(cost.decimal());
            let currency = json!(cost.currency.code());
            (
                vec![("amount", amount), ("currency", currency)],
                &["tokens"],
            )
        }
    };
    for (field, value) in kept {
        add(field, value);
    }
    for other in others {
        let had = known.and_then(|known| known.get(other));
        if had.is_some_and(|value| !value.is_null()) {
            add(other, Value::Null);
        }
    }
    if let Some(user) = &args.user {
        add("user", json!(user));
    }
    if let Some(model) = &args.model {
        add("model", json!(model_name::canonical(model)));
    }
    if let Some(over) = args.over {
        let over = match over {
            OverArg::Wait => "wait",
            OverArg::Refuse => "refuse",
            OverArg::Warn => "warn",
        };
        add("over", json!(over));
    }
    let patch = json!({"budgets": {name: budget}});
    let told = format!("budget {name}: {} a {}", limit.limit, limit.period.name());
    change(&patch.to_string(), &told, daemon, json).await
}
