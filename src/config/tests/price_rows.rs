//! Guards: a price that changes unnoticed, and a tier that is charged a token too early or too late. All
//! that is expected here was worked out from the published pages, not by this program.

use std::collections::BTreeMap;

use onelane_core::model::{Currency, Timestamp, Usage};

use crate::config::prices::{Shipped, ShippedRow, table};

/// What a call costs whose tokens GLM reported as these; `None`: not known.
fn charged(currency: Currency, model: &str, usage: &Usage) -> Option<i64> {
    let (cost, _) = table(currency, &[])
        .unwrap()
        .charge(model, usage, Timestamp::default())?;
    assert_eq!(cost.currency, currency);
    Some(cost.nanos)
}

/// Of `[prompt, cached, completion]` tokens.
fn cost(currency: Currency, model: &str, tokens: [u64; 3]) -> Option<i64> {
    let [prompt_tokens, cached_tokens, completion_tokens] = tokens;
    let usage = Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        cached_tokens,
        reasoning_tokens: 0,
        ..Usage::default()
    };
    charged(currency, model, &usage)
}

/// Currency, model, prompts from..to, answers from, input, cached (-: none published), output, context.
const ROWS: &str = "\
CNY embedding-2 0.. 0 0.5 - 0 -
CNY embedding-3 0.. 0 0.5 - 0 8192
CNY glm-3-turbo 0.. 0 1 - 1 128000
CNY glm-4 0.. 0 100 - 100 128000
CNY glm-4-0520 0.. 0 100 - 100 128000
CNY glm-4-air 0.. 0 0.5 0.25 0.5 128000
CNY glm-4-air-250414 0.. 0 0.5 0.25 0.5 128000
CNY glm-4-airx 0.. 0 10 - 10 8192
CNY glm-4-flash 0.. 0 0 - 0 128000
CNY glm-4-flash-250414 0.. 0 0 - 0 128000
CNY glm-4-flashx 0.. 0 0.1 0.05 0.1 128000
CNY glm-4-flashx-250414 0.. 0 0.1 0.05 0.1 128000
CNY glm-4-long 0.. 0 1 0.5 1 1000000
CNY glm-4-plus 0.. 0 5 2.5 5 128000
CNY glm-4.1v-thinking-flash 0.. 0 0 - 0 65536
CNY glm-4.1v-thinking-flashx 0.. 0 2 - 2 65536
CNY glm-4.5 0..32768 0 2 - 8 131072
CNY glm-4.5-air 0.. 0 0.8 0.16 2 131072
CNY glm-4.5-air 0.. 200 0.8 0.16 6 131072
CNY glm-4.5-air 32768.. 0 1.2 0.24 8 131072
CNY glm-4.5-airx 0..32768 0 4 - 12 131072
CNY glm-4.5-flash 0.. 0 0 0 0 131072
CNY glm-4.5-x 0..32768 0 8 - 16 131072
CNY glm-4.5v 0.. 0 2 0.4 6 65536
CNY glm-4.5v 32768.. 0 4 0.8 12 65536
CNY glm-4.6 0..32768 0 2 0.5 8 200000
CNY glm-4.6v 0.. 0 1 0.2 3 128000
CNY glm-4.6v 32768.. 0 2 0.4 6 128000
CNY glm-4.6v-flash 0.. 0 0 0 0 128000
CNY glm-4.6v-flashx 0.. 0 0.15 0.03 1.5 128000
CNY glm-4.6v-flashx 32768.. 0 0.3 0.03 3 128000
CNY glm-4.7 0.. 0 2 0.4 8 200000
CNY glm-4.7 0.. 200 3 0.6 14 200000
CNY glm-4.7 32768.. 0 4 0.8 16 200000
CNY glm-4.7-flash 0.. 0 0 0 0 200000
CNY glm-4.7-flashx 0.. 0 0.5 0.1 3 200000
CNY glm-5 0.. 0 4 1 18 200000
CNY glm-5 32768.. 0 6 1.5 22 200000
CNY glm-5-turbo 0.. 0 5 1.2 22 200000
CNY glm-5-turbo 32768.. 0 7 1.8 26 200000
CNY glm-5.1 0.. 0 6 1.3 24 200000
CNY glm-5.1 32768.. 0 8 2 28 200000
CNY glm-5.2 0.. 0 8 2 28 1000000
CNY glm-5.3 0.. 0 8 2 28 1000000
CNY glm-5.3-flash 0.. 0 0.8 0.23 2.8 1000000
CNY glm-5.3-flashx 0.. 0 2 0.57 7 1000000
CNY glm-5v-turbo 0.. 0 5 1.2 22 200000
CNY glm-5v-turbo 32768.. 0 7 1.8 26 200000
USD glm-4-32b-0414-128k 0.. 0 0.1 - 0.1 128000
USD glm-4.5 0.. 0 0.6 0.11 2.2 131072
USD glm-4.5-air 0.. 0 0.2 0.03 1.1 131072
USD glm-4.5-airx 0.. 0 1.1 0.22 4.5 131072
USD glm-4.5-flash 0.. 0 0 0 0 131072
USD glm-4.5-x 0.. 0 2.2 0.45 8.9 131072
USD glm-4.5v 0.. 0 0.6 0.11 1.8 64000
USD glm-4.6 0.. 0 0.6 0.11 2.2 200000
USD glm-4.6v 0.. 0 0.3 - 0.9 128000
USD glm-4.7 0.. 0 0.6 0.11 2.2 200000
USD glm-4.7-flash 0.. 0 0 0 0 200000
USD glm-4.7-flashx 0.. 0 0.07 0.01 0.4 200000
USD glm-5 0.. 0 1 0.2 3.2 200000
USD glm-5-code 0.. 0 1.2 0.3 5 200000
USD glm-5-turbo 0.. 0 1.2 0.24 4 200000
USD glm-5.1 0.. 0 1.4 0.26 4.4 200000
USD glm-5.2 0.. 0 1.4 0.26 4.4 1000000
USD glm-5.3 0.. 0 1.4 0.26 4.4 1000000
USD glm-5.3-flash 0.. 0 0.15 0.03 0.5 1048576
USD glm-5.3-flashx 0.. 0 0.37 0.075 1.25 1000000
USD glm-5v-turbo 0.. 0 1.2 0.24 4 200000
POINTS glm-5.3 0.. 0 690 170 2400 -
POINTS glm-5.3-flash 0.. 0 230 56 800 -
";

#[test]
fn the_shipped_rows_are_those_that_were_published() {
    let shipped = Shipped::read().unwrap();
    assert_eq!(shipped.rows.len(), 71);
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = shipped.rows.clone();
    let place = [Currency::Cny, Currency::Usd, Currency::Points];
    rows.sort_by_key(|row| {
        let price = &row.price;
        let place = place.iter().position(|one| Some(*one) == price.currency);
        let model = price.model.clone();
        (place, model, price.prompt_from, price.completion_from)
    });
    let lines = rows.iter().map(|row| {
        let price = &row.price;
        let currency = price.currency.map_or("-", Currency::code);
        let (from, to) = (price.prompt_from, price.prompt_to.map(|to| to.to_string()));
        let (to, answer) = (to.unwrap_or_default(), price.completion_from);
        let cached = dash(price.cached_input.map(|price| price.to_string()));
        let context = dash(row.context.map(|tokens| tokens.to_string()));
        let (model, input, output) = (&price.model, price.input, price.output);
        format!("{currency} {model} {from}..{to} {answer} {input} {cached} {output} {context}\n")
    });
    let lines: Vec<String> = lines.collect();
    for (line, want) in lines.iter().zip(ROWS.lines()) {
        assert_eq!(line.trim_end(), want);
    }
    assert_eq!(lines.concat(), ROWS);
}

/// How many rows are whose word.
const SOURCES: &str = "\
2 RarogCmex/pi-bigmodel README, catalog.ts
2 docs.bigmodel.cn Coding Plan overview, points formula, via public-code id 71505269461 (autumn 2026)
2 docs.bigmodel.cn pricing (glm-4-air-250414), public-code id 71505269461
1 docs.bigmodel.cn pricing via desirecore/config-center compute/providers/zhipu-embedding.json@b8f8f0a (refreshed 2026-07-07)
1 docs.bigmodel.cn pricing via desirecore/config-center compute/providers/zhipu.json@b8f8f0a (refreshed 2026-07-07)
1 docs.bigmodel.cn pricing via public-code ids 71424127352, 71505269461 (autumn 2026)
1 docs.bigmodel.cn pricing, public-code id 71505269461
1 docs.bigmodel.cn pricing, public-code ids 71505269461, 54934318115
3 docs.bigmodel.cn/cn/guide/start/pricing checked 2026-10-27, via litellm 1.109.1 bigmodel/*
22 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461)
2 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461) (glm-4-flash-250414)
2 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461) (glm-4-flashx-250414)
3 docs.bigmodel.cn/cn/guide/start/pricing read 2026-10-09 (RarogCmex/pi-bigmodel catalog.ts@012a314; cross-check public-code id 71505269461); docs.bigmodel.cn pricing via desirecore/config-center compute/providers/zhipu.json@b8f8f0a (refreshed 2026-07-07)
6 docs.z.ai pricing via anomalyco/models.dev@f3fc692 (2026-07-02)
11 docs.z.ai/guides/overview/pricing via litellm 1.109.1 (PyPI, read 2026-11-23)
2 docs.z.ai/guides/overview/pricing via litellm 1.109.1 (PyPI, read 2026-11-23); cached: docs.z.ai pricing as copied in Roo-Code-style model tables (public-code ids 43653833768, 9048406988)
1 docs.z.ai/guides/overview/pricing via litellm 1.109.1 (PyPI, read 2026-11-23); cached: vercel.com/ai-gateway/models/glm-4.5v
3 public-code id 70834181528 (CNY model table, 2026)
4 songquanpeng/one-api relay/billing/ratio/model.go@8df4a26 (2025-02-21)
1 vercel.com/ai-gateway/models/glm-5.3-flashx.md (input, output), public-code id 68488969807 (cached)
";

/// How many rows are of which time.
const DATES: &str = "\
4 2025-02-21
3 2026
6 2026-07-02
2 2026-07-07
29 2026-10-09
3 2026-10-27
14 2026-11-23
3 2026-11-28
7 autumn 2026
";

#[test]
fn every_row_names_who_said_so_and_when() {
    let rows = Shipped::read().unwrap().rows;
    let check = |by: fn(&ShippedRow) -> &str, said: &str| {
        let lines = said.lines().map(|line| line.split_once(' ').unwrap());
        let want = lines.map(|(count, what)| (what, count.parse().unwrap()));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *counts.entry(by(row)).or_default() += 1;
        }
        assert_eq!(counts, want.collect());
    };
    check(|row| &row.source, SOURCES);
    check(|row| &row.as_of, DATES);
}

/// On both sides of each bound, without and with cached tokens: `[prompt, cached, completion]`.
const AROUND: [[u64; 3]; 8] = [
    [32_767, 0, 199],
    [32_767, 10_000, 199],
    [32_767, 0, 200],
    [32_767, 10_000, 200],
    [32_768, 0, 199],
    [32_768, 10_000, 199],
    [32_768, 0, 200],
    [32_768, 10_000, 200],
];

/// Models whose price depends on the length, and what each of [`AROUND`] costs in nano-yuan.
const TIERED: [(&str, [i64; 8]); 9] = [
    (
        "glm-4.5-air",
        [
            26_611_600, 20_211_600, 27_413_600, 21_013_600, 40_913_600, 31_313_600, 40_921_600,
            31_321_600,
        ],
    ),
    (
        "glm-4.5v",
        [
            66_728_000,
            50_728_000,
            66_734_000,
            50_734_000,
            133_460_000,
            101_460_000,
            133_472_000,
            101_472_000,
        ],
    ),
    (
        "glm-4.6v",
        [
            33_364_000, 25_364_000, 33_367_000, 25_367_000, 66_730_000, 50_730_000, 66_736_000,
            50_736_000,
        ],
    ),
    (
        "glm-4.6v-flashx",
        [
            5_213_550, 4_013_550, 5_215_050, 4_015_050, 10_427_400, 7_727_400, 10_430_400,
            7_730_400,
        ],
    ),
    (
        "glm-4.7",
        [
            67_126_000,
            51_126_000,
            101_101_000,
            77_101_000,
            134_256_000,
            102_256_000,
            134_272_000,
            102_272_000,
        ],
    ),
    (
        "glm-5",
        [
            134_650_000,
            104_650_000,
            134_668_000,
            104_668_000,
            200_986_000,
            155_986_000,
            201_008_000,
            156_008_000,
        ],
    ),
    (
        "glm-5-turbo",
        [
            168_213_000,
            130_213_000,
            168_235_000,
            130_235_000,
            234_550_000,
            182_550_000,
            234_576_000,
            182_576_000,
        ],
    ),
    (
        "glm-5.1",
        [
            201_378_000,
            154_378_000,
            201_402_000,
            154_402_000,
            267_716_000,
            207_716_000,
            267_744_000,
            207_744_000,
        ],
    ),
    (
        "glm-5v-turbo",
        [
            168_213_000,
            130_213_000,
            168_235_000,
            130_235_000,
            234_550_000,
            182_550_000,
            234_576_000,
            182_576_000,
        ],
    ),
];

#[test]
fn every_tiered_model_costs_what_its_page_says_on_both_sides_of_its_bounds() {
    for (model, costs) in TIERED {
        for (tokens, nanos) in AROUND.into_iter().zip(costs) {
            let got = cost(Currency::Cny, model, tokens);
            assert_eq!(got, Some(nanos), "{model} {tokens:?}");
        }
    }
    let table = table(Currency::Cny, &[]).unwrap();
    let tiered = |model: &&str| table.rows(model).is_some_and(|(_, rows)| rows.len() > 1);
    assert_eq!(table.models().filter(tiered).count(), TIERED.len());
}

#[test]
fn every_flat_model_costs_what_its_page_says() {
    let check = |currency: Currency, costs: &[(&str, i64)]| {
        for (model, nanos) in costs {
            let got = cost(currency, model, [10_000, 4_000, 1_000]);
            assert_eq!(got, Some(*nanos), "{model} in {currency}");
        }
        let table = table(currency, &[]).unwrap();
        let flat = |model: &&str| table.rows(model).is_some_and(|(_, rows)| rows.len() == 1);
        assert_eq!(table.models().filter(flat).count(), costs.len());
    };
    let in_yuan = [
        ("embedding-2", 5_000_000),
        ("embedding-3", 5_000_000),
        ("glm-3-turbo", 11_000_000),
        ("glm-4", 1_100_000_000),
        ("glm-4-0520", 1_100_000_000),
        ("glm-4.1v-thinking-flash", 0),
        ("glm-4.1v-thinking-flashx", 22_000_000),
        ("glm-4-air", 4_500_000),
        ("glm-4-air-250414", 4_500_000),
        ("glm-4-airx", 110_000_000),
        ("glm-4-flash", 0),
        ("glm-4-flash-250414", 0),
        ("glm-4-flashx", 900_000),
        ("glm-4-flashx-250414", 900_000),
        ("glm-4-long", 9_000_000),
        ("glm-4-plus", 45_000_000),
        ("glm-4.5", 28_000_000),
        ("glm-4.5-airx", 52_000_000),
        ("glm-4.5-flash", 0),
        ("glm-4.5-x", 96_000_000),
        ("glm-4.6", 22_000_000),
        ("glm-4.6v-flash", 0),
        ("glm-4.7-flash", 0),
        ("glm-4.7-flashx", 6_400_000),
        ("glm-5.2", 84_000_000),
        ("glm-5.3", 84_000_000),
        ("glm-5.3-flash", 8_520_000),
        ("glm-5.3-flashx", 21_280_000),
    ];
    check(Currency::Cny, &in_yuan);
    let in_dollars = [
        ("glm-5.3-flashx", 3_770_000),
        ("glm-4-32b-0414-128k", 1_100_000),
        ("glm-4.5", 6_240_000),
        ("glm-4.5-air", 2_420_000),
        ("glm-4.5-airx", 11_980_000),
        ("glm-4.5-flash", 0),
        ("glm-4.5-x", 23_900_000),
        ("glm-4.5v", 5_840_000),
        ("glm-4.6", 6_240_000),
        ("glm-4.6v", 3_900_000),
        ("glm-4.7", 6_240_000),
        ("glm-4.7-flash", 0),
        ("glm-4.7-flashx", 860_000),
        ("glm-5", 10_000_000),
        ("glm-5-code", 13_400_000),
        ("glm-5-turbo", 12_160_000),
        ("glm-5.1", 13_840_000),
        ("glm-5.2", 13_840_000),
        ("glm-5.3", 13_840_000),
        ("glm-5.3-flash", 1_520_000),
        ("glm-5v-turbo", 12_160_000),
    ];
    check(Currency::Usd, &in_dollars);
    let in_points = [("glm-5.3", 7_220_000_000), ("glm-5.3-flash", 2_404_000_000)];
    check(Currency::Points, &in_points);
}

const FREE: &str = "glm-4.7-flash glm-4.5-flash glm-4.6v-flash glm-4-flash glm-4-flash-250414";

#[test]
fn usage_that_is_missing_or_partial_costs_nothing_of_free_models_and_an_unknown_sum_of_others() {
    let total_only = Usage {
        total_tokens: 10_000,
        ..Usage::default()
    };
    for usage in [Usage::default(), total_only] {
        let check = |currency, model, nanos| {
            assert_eq!(charged(currency, model, &usage), nanos, "{model} {usage:?}");
        };
        for free in FREE.split(' ') {
            check(Currency::Cny, free, Some(0));
        }
        check(Currency::Usd, "glm-4.7-flash", Some(0));
        check(Currency::Usd, "glm-4.5-flash", Some(0));
        check(Currency::Cny, "glm-4.7", None);
        check(Currency::Usd, "glm-5", None);
        check(Currency::Points, "glm-5.3", None);
        check(Currency::Cny, "embedding-3", None);
    }
}
