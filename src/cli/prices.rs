//! `onelane prices`: the price list in force, with the source of every row.

use onelane::config::{ChosenBy, PlanOnly, Prices};
use onelane::model::{Cost, model_name};

use super::args::PricesArgs;
use super::exit::{CliError, Exit};
use super::{start, table};

/// Shows the price list in force, or the rows of one model.
pub(crate) fn prices(args: &PricesArgs, json: bool) -> Result<Exit, CliError> {
    let mut list = start::look(&args.common)?.prices();
    if let Some(model) = &args.model {
        list.prices
            .retain(|row| model_name::is_model(model, &row.model));
        list.plan_only
            .retain(|known| model_name::is_model(model, &known.model));
        if list.prices.is_empty() {
            return Err(unpriced(model, &list));
        }
    }
    super::answer(json, &list, |list| {
        format!("{}\n\n{}{}", head(list), rows(list), plan_only(list))
    })?;
    Ok(Exit::Done)
}

/// Models that are known and have no price.
fn plan_only(list: &Prices) -> String {
    let lines = list.plan_only.iter().map(|known| {
        let PlanOnly {
            model,
            note,
            as_of,
            source,
            ..
        } = known;
        format!("\n\n{model} has no price: {note} ({as_of}, {source})")
    });
    lines.collect()
}

fn unpriced(model: &str, list: &Prices) -> CliError {
    let known = list.plan_only.first();
    let note = known.map_or_else(String::new, |known| format!(": {}", known.note));
    CliError::usage(format!(
        "{model:?} has no price in {}{note}",
        list.currency.code()
    ))
    .help(
        "models are known by their names, in any case; `onelane prices` lists them all. Add the price of \
         another one under [[money.prices]] in the configuration",
    )
}

fn head(list: &Prices) -> String {
    let chosen_by = match list.chosen_by {
        ChosenBy::BaseUrl => "chosen by the base URL",
        ChosenBy::Assumed => {
            "assumed, since the base URL is of neither site (money.price_list says which)"
        }
        ChosenBy::PriceList => "chosen by money.price_list",
    };
    format!(
        "{} per million tokens, {chosen_by}; list of {}",
        list.currency.code(),
        list.version
    )
}

fn rows(list: &Prices) -> String {
    let head = [
        "MODEL", "PROMPT", "ANSWER", "WHEN", "INPUT", "CACHED", "OUTPUT", "AS OF", "NOTE", "SOURCE",
    ];
    let span = |from: u64, to: Option<u64>| match (from, to) {
        (0, None) => "any".to_owned(),
        (from, None) => format!("from {from}"),
        (0, Some(to)) => format!("below {to}"),
        (from, Some(to)) => format!("{from} to {}", to.saturating_sub(1)),
    };
    let currency = list.currency;
    let decimal = |nanos| Cost { nanos, currency }.decimal();
    let lines = list.prices.iter().map(|row| {
        [
            row.model.clone(),
            span(row.prompt_from, row.prompt_to),
            span(row.completion_from, None),
            row.when.clone().unwrap_or_else(|| "any".to_owned()),
            decimal(row.input),
            // Without a price of their own they cost as much as others.
            row.cached_input.map_or_else(|| "-".to_owned(), decimal),
            decimal(row.output),
            row.as_of.clone().unwrap_or_else(|| "own".to_owned()),
            row.note.clone().unwrap_or_default(),
            row.source.clone(),
        ]
    });
    let lines: Vec<_> = lines.collect();
    table::table(head, &lines)
}
