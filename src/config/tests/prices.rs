//! The shipped lists are complete and exact; every expected cost here was worked out by hand.

use onelane_actors::model::{Currency, Usage};
use serde_json::{Value, json};

use super::Place;
use crate::config::Price;
use crate::config::prices::table;

/// Cost in nano-units of `[prompt, cached, completion]` tokens.
fn cost(currency: Currency, model: &str, [prompt, cached, completion]: [u64; 3]) -> Option<i64> {
    let usage = Usage {
        prompt_tokens: prompt,
        cached_tokens: cached,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        reasoning_tokens: 0,
    };
    let cost = table(currency, &[]).unwrap().cost(model, &usage)?;
    assert_eq!(cost.currency, currency);
    Some(cost.nanos)
}

#[test]
fn costs_in_yuan_are_those_of_the_list_to_the_last_digit() {
    let check = |model: &str, tokens: [u64; 3], nanos: i64| {
        assert_eq!(
            cost(Currency::Cny, model, tokens),
            Some(nanos),
            "{model} {tokens:?}"
        );
    };
    // glm-4.7: 2/0.4/8 below 32768 in and 200 out; 3/0.6/14 from 200 out; 4/0.8/16 from 32768 in.
    check("glm-4.7", [1_000, 0, 199], 2_000_000 + 1_592_000);
    check("glm-4.7", [1_000, 0, 200], 3_000_000 + 2_800_000);
    check("glm-4.7", [32_767, 0, 199], 65_534_000 + 1_592_000);
    check("glm-4.7", [32_767, 0, 200], 98_301_000 + 2_800_000);
    check("glm-4.7", [32_768, 0, 199], 131_072_000 + 3_184_000);
    check("glm-4.7", [32_768, 0, 200], 131_072_000 + 3_200_000);
    check("glm-4.7", [32_768, 32_768, 1], 26_214_400 + 16_000);
    check("glm-4.7", [1_000, 400, 100], 1_200_000 + 160_000 + 800_000);
    // glm-4.5-air: 0.8/0.16/2, 0.8/0.16/6 from 200 out, 1.2/0.24/8 from 32768 in.
    check("glm-4.5-air", [1_000, 0, 199], 800_000 + 398_000);
    check("glm-4.5-air", [1_000, 0, 200], 800_000 + 1_200_000);
    check(
        "glm-4.5-air",
        [32_768, 768, 10],
        38_400_000 + 184_320 + 80_000,
    );
    // Two tiers by prompt: below and from 32768.
    check("glm-5.1", [32_767, 0, 1], 196_602_000 + 24_000);
    check("glm-5.1", [32_768, 0, 1], 262_144_000 + 28_000);
    check(
        "glm-5.1",
        [32_768, 10_000, 1],
        182_144_000 + 20_000_000 + 28_000,
    );
    check("glm-5-turbo", [32_767, 0, 1], 163_835_000 + 22_000);
    check("glm-5-turbo", [32_768, 0, 1], 229_376_000 + 26_000);
    check("glm-5", [32_767, 0, 1], 131_068_000 + 18_000);
    check("glm-5", [32_768, 0, 1], 196_608_000 + 22_000);
    check("glm-5v-turbo", [32_768, 1, 1], 229_369_000 + 1_800 + 26_000);
    check("glm-4.6v", [32_767, 0, 1], 32_767_000 + 3_000);
    check("glm-4.6v", [32_768, 0, 1], 65_536_000 + 6_000);
    check("glm-4.6v-flashx", [32_767, 1, 1], 4_914_900 + 30 + 1_500);
    check("glm-4.6v-flashx", [32_768, 1, 1], 9_830_100 + 30 + 3_000);
    check("glm-4.5v", [32_767, 0, 1], 65_534_000 + 6_000);
    check("glm-4.5v", [32_768, 0, 1], 131_072_000 + 12_000);
    // Flat, however long.
    check(
        "glm-5.3",
        [1_000_000, 250_000, 1_000_000],
        6_000_000_000 + 500_000_000 + 28_000_000_000,
    );
    check("glm-5.3-flash", [1, 1, 1], 230 + 2_800);
    // No discount for cached tokens.
    check("glm-4-airx", [10, 10, 0], 100_000);
    check("glm-4.5-x", [10, 4, 0], 80_000);
    // Dated names.
    check(
        "glm-4-air-250414",
        [1_000, 500, 1_000],
        250_000 + 125_000 + 500_000,
    );
    check("glm-4-flashx-250414", [1, 1, 1], 50 + 100);
    for free in [
        "glm-4.7-flash",
        "glm-4.5-flash",
        "glm-4.6v-flash",
        "glm-4-flash",
        "glm-4-flash-250414",
    ] {
        check(free, [100_000, 5, 100_000], 0);
    }
    check("embedding-3", [8, 0, 0], 4_000);
}

#[test]
fn costs_in_dollars_have_no_tiers() {
    let check = |model: &str, tokens: [u64; 3], nanos: i64| {
        assert_eq!(
            cost(Currency::Usd, model, tokens),
            Some(nanos),
            "{model} {tokens:?}"
        );
    };
    check("glm-4.7", [1_000, 0, 199], 600_000 + 437_800);
    check("glm-4.7", [32_768, 768, 200], 19_200_000 + 84_480 + 440_000);
    check("glm-4.5-x", [3, 1, 1], 4_400 + 450 + 8_900);
    check("glm-4.6v", [10, 10, 10], 3_000 + 9_000);
    check("glm-4-32b-0414-128k", [10, 0, 10], 2_000);
    check("glm-4.5-flash", [10, 0, 10], 0);
}

#[test]
fn an_unknown_model_has_no_price_and_no_tokens_cost_nothing() {
    assert_eq!(cost(Currency::Cny, "glm-9", [1, 0, 1]), None);
    assert_eq!(cost(Currency::Usd, "glm-4-plus", [1, 0, 1]), None);
    assert_eq!(cost(Currency::Cny, "glm-5", [0, 0, 0]), Some(0));
}

#[test]
fn the_shipped_rows_are_whole() {
    let shipped: Value = serde_json::from_str(include_str!("../prices.json")).unwrap();
    let rows = shipped["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 66);
    for row in rows {
        assert!(
            row["source"].as_str().is_some_and(|s| s.contains("20")),
            "{row}"
        );
    }
    for currency in [Currency::Cny, Currency::Usd] {
        let table = table(currency, &[]).unwrap();
        for model in table.models() {
            let base = table.row(model, &Usage::default()).unwrap();
            assert_eq!((base.prompt_from, base.completion_from), (0, 0), "{model}");
            assert!(base.cached_input <= base.input, "{model}");
        }
        assert_eq!(
            table.models().count(),
            if currency == Currency::Cny { 35 } else { 20 }
        );
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
    let nanos = |model: &str, [prompt, cached, completion]: [u64; 3]| {
        let usage = Usage {
            prompt_tokens: prompt,
            cached_tokens: cached,
            completion_tokens: completion,
            ..Usage::default()
        };
        prices.cost(model, &usage).unwrap().nanos
    };
    assert_eq!(nanos("glm-4.7", [40_000, 1, 500]), 60_000_000 + 1_500_000);
    assert_eq!(nanos("house-model", [1_000_000, 0, 0]), 1);
    assert_eq!(nanos("house-model", [1_000_000, 1_000_000, 0]), 0);
    assert_eq!(nanos("glm-5", [1_000, 0, 0]), 4_000_000);
}

#[test]
fn the_list_follows_the_base_url_unless_it_is_named() {
    let check = |config: &str, currency: Currency| {
        let settings = Place::with_config(config).load().settings;
        assert_eq!(settings.prices.currency(), currency, "{config}");
    };
    check("", Currency::Cny);
    check(
        "glm.base_url = 'https://api.z.ai/api/coding/paas/v4'",
        Currency::Usd,
    );
    check("glm.base_url = 'https://notz.ai/v4'", Currency::Cny);
    check(
        "glm.base_url = 'https://proxy.example/api.z.ai'",
        Currency::Cny,
    );
    check("money.price_list = 'usd'", Currency::Usd);
    check(
        "money.price_list = 'cny'\nglm.base_url = 'https://api.z.ai/v4'",
        Currency::Cny,
    );
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
    for bad in [
        "",
        "x",
        "1e3",
        "0.0000000001",
        "-1",
        "1000000.1",
        "1,5",
        "NaN",
        "1 ",
    ] {
        assert!(bad.parse::<Price>().is_err(), "{bad}");
    }
    for (bad, good) in [(json!(0.6), json!("0.6")), (json!(-1), json!(1))] {
        assert!(serde_json::from_value::<Price>(bad).is_err());
        assert!(serde_json::from_value::<Price>(good).is_ok());
    }
}
