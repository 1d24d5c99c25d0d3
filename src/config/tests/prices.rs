//! The shipped lists are complete and exact; every expected cost here was worked out by hand.

use onelane_core::model::setting::Setting as _;
use onelane_core::model::{Currency, Timestamp, Usage};
use serde_json::{Value, json};

use super::Place;
use crate::config::Price;
use crate::config::prices::table;

fn usage([prompt_tokens, cached_tokens, completion_tokens]: [u64; 3]) -> Usage {
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        cached_tokens,
        reasoning_tokens: 0,
        ..Usage::default()
    }
}

/// Cost in nano-units of `[prompt, cached, completion]` tokens.
fn cost(currency: Currency, model: &str, tokens: [u64; 3]) -> Option<i64> {
    let usage = usage(tokens);
    let (cost, price) =
        table(currency, &[])
            .unwrap()
            .charge(model, &usage, Timestamp::default())?;
    assert_eq!(cost.currency, currency);
    assert_eq!(&*price.table, "2026-11-28");
    Some(cost.nanos)
}

#[test]
fn cached_tokens_count_for_the_tier_and_cost_their_own_price() {
    let check = |model, tokens, nanos| assert_eq!(cost(Currency::Cny, model, tokens), Some(nanos));
    // The whole prompt picks the tier, however much of it was cached.
    check("glm-5", [32_768, 32_767, 0], 6_000 + 32_767 * 1_500);
    check("glm-5", [32_767, 32_767, 0], 32_767 * 1_000);
    // No more is cached than there is.
    check("glm-5", [10, 32_768, 0], 10 * 1_000);
    check("glm-4.7", [10, 11, 200], 10 * 600 + 200 * 14_000);
}

#[test]
fn a_coding_plan_spends_points_by_the_formula_of_its_page() {
    let check = |model, [prompt, cached, completion]: [u64; 3], [a, b, c]: [u64; 3]| {
        // (input x a + cached x b + output x c) / 10000, with factors in hundredths: in nano-points.
        let points = (prompt - cached) * a + cached * b + completion * c;
        let want = i64::try_from(points * 1_000).unwrap();
        let got = cost(Currency::Points, model, [prompt, cached, completion]);
        assert_eq!(got, Some(want), "{model}");
    };
    check("glm-5.3", [10_000, 0, 0], [690, 170, 2_400]);
    check("glm-5.3", [40_000, 12_345, 678], [690, 170, 2_400]);
    check("glm-5.3-flash", [7, 3, 11], [230, 56, 800]);
    // 6.9 points for ten thousand tokens.
    let points = |model| cost(Currency::Points, model, [10_000, 0, 0]);
    assert_eq!(points("glm-5.3"), Some(6_900_000_000));
    assert_eq!(points("glm-4.7"), None);
}

#[test]
fn costs_in_dollars_have_no_tiers() {
    let check = |model: &str, tokens: [u64; 3], nanos: i64| {
        let got = cost(Currency::Usd, model, tokens);
        assert_eq!(got, Some(nanos), "{model} {tokens:?}");
    };
    check("glm-4.7", [1_000, 0, 199], 600_000 + 437_800);
    check("glm-4.7", [32_768, 768, 200], 19_200_000 + 84_480 + 440_000);
    check("glm-4.5-x", [3, 1, 1], 4_400 + 450 + 8_900);
    check("glm-4.6v", [10, 10, 10], 3_000 + 9_000);
    check("glm-4-32b-0414-128k", [10, 0, 10], 2_000);
    check("glm-4.5-flash", [10, 0, 10], 0);
}

#[test]
fn an_unknown_model_has_no_price_and_without_tokens_there_is_no_cost() {
    assert_eq!(cost(Currency::Cny, "glm-9", [1, 0, 1]), None);
    assert_eq!(cost(Currency::Usd, "glm-4-plus", [1, 0, 1]), None);
    assert!(
        cost(Currency::Cny, "GLM-5", [1, 0, 1]).is_some(),
        "case makes no other model"
    );
    assert_eq!(cost(Currency::Cny, "glm-5-20260211", [1, 0, 1]), None);
    assert_eq!(cost(Currency::Cny, "glm-5", [0, 0, 0]), None);
}

#[test]
fn the_shipped_rows_are_whole() {
    for (currency, models) in [
        (Currency::Cny, 37),
        (Currency::Usd, 21),
        (Currency::Points, 2),
    ] {
        let table = table(currency, &[]).unwrap();
        for model in table.models() {
            let (version, rows) = table.rows(model).unwrap();
            assert_eq!(version, "2026-11-28");
            let base = rows.first().unwrap();
            assert_eq!((base.prompt_from, base.completion_from), (0, 0), "{model}");
            assert!(rows.iter().all(|r| r.cached_input <= r.input), "{model}");
        }
        assert_eq!(table.models().count(), models);
    }
}

#[test]
fn own_prices_replace_all_rows_of_their_model() {
    let place = Place::with_config(
        "[[money.prices]]\nmodel = 'glm-4.7'\ninput = '1.5'\noutput = 3\n\
         [[money.prices]]\nmodel = 'house-model'\ninput = '0.000000001'\ncached_input = '0'\n\
         output = '0'",
    );
    let prices = place.load().settings.prices;
    let nanos = |model: &str, tokens| {
        prices
            .charge(model, &usage(tokens), Timestamp::default())
            .unwrap()
            .0
            .nanos
    };
    assert_eq!(nanos("glm-4.7", [40_000, 1, 500]), 60_000_000 + 1_500_000);
    assert_eq!(nanos("house-model", [1_000_000, 0, 0]), 1);
    assert_eq!(nanos("house-model", [1_000_000, 1_000_000, 0]), 0);
    assert_eq!(nanos("glm-5", [1_000, 0, 0]), 4_000_000);
    let table = |model| prices.rows(model).unwrap().0.to_owned();
    assert_eq!(table("glm-4.7"), "own");
    assert_eq!(table("glm-5"), "2026-11-28");
}

#[test]
fn own_prices_may_have_tiers_and_a_currency() {
    let config = "[[money.prices]]\nmodel = 'm'\ninput = 1\noutput = 2\ncurrency = 'CNY'\n\
                  [[money.prices]]\nmodel = 'm'\ninput = 3\noutput = 4\ncurrency = 'CNY'\n\
                  prompt_from = 100\ncompletion_from = 10\n\
                  [[money.prices]]\nmodel = 'm'\ninput = 5\noutput = 6\ncurrency = 'USD'\n";
    let nanos = |list: &str, tokens| {
        let config = format!("money.price_list = '{list}'\n{config}");
        let prices = Place::with_config(&config).load().settings.prices;
        let charge = prices.charge("m", &usage(tokens), Timestamp::default());
        charge.map(|(cost, _)| (cost.nanos, cost.currency))
    };
    assert_eq!(nanos("cny", [99, 0, 10]), Some((119_000, Currency::Cny)));
    assert_eq!(nanos("cny", [100, 0, 9]), Some((118_000, Currency::Cny)));
    assert_eq!(nanos("cny", [100, 0, 10]), Some((340_000, Currency::Cny)));
    assert_eq!(nanos("usd", [100, 0, 10]), Some((560_000, Currency::Usd)));
    assert_eq!(nanos("points", [100, 0, 10]), None);
}

#[test]
fn the_list_in_force_says_since_when_and_who_says_so() {
    let place = Place::with_config(
        "[money]\nunpriced = 'refuse'\n\
         [[money.prices]]\nmodel = 'glm-4.7'\ninput = '1.5'\noutput = 3\n\
         [[money.prices]]\nmodel = 'glm-5'\ninput = 1\noutput = 1\ncurrency = 'USD'",
    );
    let mut list = serde_json::to_value(place.load().prices()).unwrap();
    for row in list["prices"].as_array_mut().unwrap() {
        // Where the test's own file is, is no matter.
        if row["table"] == "own" {
            let source = row["source"].as_str().unwrap();
            assert!(source.starts_with("file ") && source.ends_with("config.toml"));
            row["source"] = json!("file config.toml");
        }
    }
    assert_eq!(list["version"], "2026-11-28");
    assert_eq!(list["currency"], "CNY");
    assert_eq!(list["chosenBy"], "baseUrl");
    assert_eq!(list["unpriced"], "refuse");
    let rows = list["prices"].as_array().unwrap();
    let of = |model: &str| -> Vec<&Value> {
        let rows = rows.iter().filter(|row| row["model"] == model);
        rows.collect()
    };
    let own = json!({"model": "glm-4.7", "promptFrom": 0, "completionFrom": 0, "promptTo": null,
        "input": 1.5, "cachedInput": null, "output": 3, "when": null, "context": null, "table": "own", "asOf": null,
        "source": "file config.toml", "note": null});
    assert_eq!(of("glm-4.7"), [&own]);
    let shipped = of("glm-5");
    assert_eq!(shipped.len(), 2, "the one in dollars does not count here");
    assert_eq!(
        *shipped[1],
        json!({"model": "glm-5", "promptFrom": 32_768, "completionFrom": 0,
            "promptTo": null, "input": 6, "cachedInput": 1.5, "output": 22, "when": null, "context": 200_000,
            "table": "2026-11-28", "asOf": "2026-10-09",
            "source": "docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel \
                       catalog.ts@012a314; cross-check public-code id 71505269461)",
            "note": null})
    );
    let lowest = of("glm-4.5")[0];
    assert_eq!(lowest["promptTo"], 32_768);
    assert_eq!(lowest["cachedInput"], json!(null), "none is published");
    let notes = lowest["note"].as_str().unwrap();
    assert!(notes.starts_with("lowest tier only"), "{notes}");
    for (url, chosen_by) in [
        ("https://open.bigmodel.cn/v4", "baseUrl"),
        ("https://proxy.example/api/coding/paas/v4", "baseUrl"),
        ("https://proxy.example/v4", "assumed"),
        ("https://notbigmodel.cn/v4", "assumed"),
    ] {
        let loaded = Place::with_config(&format!("glm.base_url = '{url}'")).load();
        let list = serde_json::to_value(loaded.prices()).unwrap();
        assert_eq!(list["chosenBy"], chosen_by, "{url}");
    }
    let named = Place::with_config("money.price_list = 'points'").load();
    let named = serde_json::to_value(named.prices()).unwrap();
    assert_eq!(named["chosenBy"], "priceList");
    assert_eq!(named["currency"], "POINTS");
}

#[test]
fn a_list_of_the_lowest_tier_says_nothing_of_long_prompts() {
    for model in ["glm-4.6", "glm-4.5", "glm-4.5-x", "glm-4.5-airx"] {
        assert!(cost(Currency::Cny, model, [32_767, 0, 1]).is_some());
        assert_eq!(cost(Currency::Cny, model, [32_768, 0, 1]), None, "{model}");
        assert!(cost(Currency::Usd, model, [32_768, 0, 1]).is_some());
    }
    let row = "[[money.prices]]\nmodel = 'm'\ninput = 1\noutput = 1\nprompt_to";
    let prices = Place::with_config(&format!("{row} = 10")).load();
    let prices = prices.settings.prices;
    assert!(
        prices
            .charge("m", &usage([9, 0, 1]), Timestamp::default())
            .is_some()
    );
    assert_eq!(
        prices.charge("m", &usage([10, 0, 1]), Timestamp::default()),
        None
    );
    let error = Place::with_config(&format!("{row} = 0")).error();
    let why = "prompt_to must be above prompt_from";
    assert!(error.contains(why), "{error}");
}

#[test]
fn no_answer_is_longer_than_its_models_context() {
    let shipped: Value = serde_json::from_str(include_str!("../prices.json")).unwrap();
    for row in shipped["rows"].as_array().unwrap() {
        let Some(context) = row["context"].as_u64() else {
            continue;
        };
        let cap = crate::estimate::completion_cap(row["model"].as_str().unwrap());
        assert!(cap <= context, "{row}");
    }
}

#[test]
fn a_fallback_without_a_price_is_refused_with_the_jobs() {
    let config = "[glm.fallbacks]\n'glm-4.7' = ['glm-9']\n";
    Place::with_config(config).load();
    let error = Place::with_config(&format!("{config}[money]\nunpriced = 'refuse'")).error();
    let why = "must not name glm-9, which has no price";
    assert!(error.contains(why), "{error}");
}

#[test]
fn the_list_follows_the_base_url_unless_it_is_named() {
    let check = |config: &str, currency: Currency| {
        let settings = Place::with_config(config).load().settings;
        assert_eq!(settings.prices.currency(), currency, "{config}");
    };
    use Currency::{Cny, Points, Usd};
    let url = |url: &str| format!("glm.base_url = 'https://{url}'");
    check("", Cny);
    for (base_url, currency) in [
        ("api.z.ai/api/paas/v4", Usd),
        ("api.z.ai./v4", Usd),
        ("notz.ai/v4", Cny),
        ("proxy.example/api.z.ai", Cny),
        ("proxy.example/api/coding/v4", Cny),
        ("api.z.ai/api/coding/paas/v4/", Points),
        ("open.bigmodel.cn/api/coding/paas/v4/", Points),
        ("proxy.example/api/coding/paas/v4/", Points),
        ("proxy.example/v4/api/coding/paas/v4", Points),
        ("proxy.example/glm//api//coding/paas", Points),
        ("api.z.ai./api/coding/paas/v4", Points),
    ] {
        check(&url(base_url), currency);
    }
    check("money.price_list = 'points'", Points);
    check("money.price_list = 'usd'", Usd);
    let named = |list: &str, base_url| format!("money.price_list = '{list}'\n{}", url(base_url));
    check(&named("usd", "api.z.ai/api/coding/paas/v4"), Usd);
    check(&named("cny", "api.z.ai/v4"), Cny);
}

#[test]
fn a_price_is_read_and_written_exactly() {
    let check = |text: &str, nanos: i64, written: &str| {
        let price: Price = text.parse().unwrap();
        assert_eq!(price.nanos(), nanos, "{text}");
        assert_eq!(price.to_string(), written);
    };
    check("0", 0, "0");
    check("-0", 0, "0");
    check("0.60", 600_000_000, "0.6");
    check("0.000000001", 1, "0.000000001");
    check("0.0000000010", 1, "0.000000001");
    check("1000000", 1_000_000_000_000_000, "1000000");
    for bad in "|x|1e3|0.0000000001|-1|1000000.1|1,5|NaN|1 ".split('|') {
        assert!(bad.parse::<Price>().is_err(), "{bad}");
    }
    // Where the operator writes one, a whole number will do, and no other.
    let kind = Price::kind();
    assert_eq!(kind.accept(&json!(1)), Ok(json!("1")));
    assert_eq!(kind.accept(&json!("0.60")), Ok(json!("0.6")));
    for bad in [json!(0.6), json!(-1), json!(true), json!(null)] {
        assert!(kind.accept(&bad).is_err(), "{bad}");
    }
}
