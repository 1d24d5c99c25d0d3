//! `onelane prices`: the price list in force, with the source of every row.

use onelane::config::{ChosenBy, Prices};
use onelane::model::Cost;

use super::args::PricesArgs;
use super::exit::{CliError, Exit};
use super::{start, table};

/// Shows the price list in force, or the rows of one model.
pub(crate) fn prices(args: &PricesArgs, json: bool) -> Result<Exit, CliError> {
    let mut list = start::look(&args.common)?.prices();
    if let Some(model) = &args.model {
        list.prices.retain(|row| row.model == *model);
        if list.prices.is_empty() {
            return Err(unpriced(model, &list));
        }
    }
    super::answer(json, &list, |list| {
        format!("{}\n\n{}", head(list), rows(list))
    })?;
    Ok(Exit::Done)
}

fn unpriced(model: &str, list: &Prices) -> CliError {
    CliError::usage(format!(
        "{model:?} has no price in {}",
        list.currency.code()
    ))
    .help(
        "models are known by their exact names; `onelane prices` lists them all. Add the price of \
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
        "MODEL", "PROMPT", "ANSWER", "INPUT", "CACHED", "OUTPUT", "AS OF", "NOTE", "SOURCE",
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
