//! What is drawn for a world: its settings, and the changes that an operator makes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onelane_actors::testing::Dice;
use onelane_core::model::{
    Amount, AutoSettings, BreakerRule, BreakerSettings, Budget, BudgetRules, BudgetScope,
    CoolDownSettings, Currency, LaneRule, LaneRules, NamedLane, Nanos, OnInterrupted,
    OrderSettings, PaceSettings, PolicyOverride, PriceRow, PriceTable, RetryPolicy, RetrySettings,
    Secret, Settings, SlotReserve, Timeouts,
};

use crate::script::{SETTINGS, dice_of};

/// The models of every world. The last one has no price.
pub(crate) const MODELS: [&str; 4] = ["glm-5", "glm-4.7", "glm-4.5-air", "glm-4.5-flash"];

/// Gives the lane the account of this number.
pub(crate) fn set_account(settings: &mut Settings, key: u32) {
    "http://glm".clone_into(&mut settings.glm.base_url);
    settings.glm.api_key = Some(Secret::new(&format!("key-{key}")));
}

/// The settings that a world begins with. Each part of them is an event, which may be left out.
pub(crate) fn settings(seed: u64, mut has: impl FnMut(u32, String) -> bool) -> Settings {
    let mut settings = Settings {
        prices: prices(),
        ..Settings::default()
    };
    set_account(&mut settings, 0);
    settings.glm.model = MODELS[0].to_owned();
    for (field, name) in (0..).zip(FIELDS) {
        let mut drawn = settings.clone();
        let number = SETTINGS + field;
        redraw(&mut drawn, field.into(), &mut dice_of(seed, number));
        drawn.glm.is_active = true;
        if has(number, format!("{name}: {}", difference(&settings, &drawn))) {
            settings = drawn;
        }
    }
    assert_eq!(settings.check(), [], "drawn settings are valid");
    settings
}

/// An operator changes a setting or two.
pub(crate) fn change(settings: &Settings, dice: &mut Dice) -> Settings {
    let mut changed = settings.clone();
    for _ in 0..dice.between(1, 2) {
        let field = dice.below(FIELDS.len() as u64);
        redraw(&mut changed, field, dice);
    }
    // Those of the client keys belong to their keys.
    let keys = Arc::clone(&changed.keys);
    let changed = changed.with_keys(keys);
    assert_eq!(changed.check(), [], "drawn settings are valid");
    changed
}

/// What is drawn of the settings.
const FIELDS: [&str; 14] = [
    "the rules of the lane",
    "named lanes",
    "retries",
    "a throttled lane",
    "an overloaded model",
    "the breaker",
    "interrupted calls",
    "the policy",
    "fallbacks",
    "tasks",
    "pauses and probes",
    "room in the queue",
    "budgets",
    "timeouts",
];

fn redraw(settings: &mut Settings, field: u64, dice: &mut Dice) {
    match field {
        0 => settings.lane.rules = rules(dice),
        1 => settings.lanes = lanes(dice),
        2 => {
            settings.retry = RetrySettings {
                max_retries: dice.between(0, 6) as u32,
                delays: RetryPolicy {
                    base_delay_ms: dice.between(100, 2_000),
                    max_delay_ms: dice.between(2_000, 20_000),
                    ..RetryPolicy::default()
                },
                max_throttles: dice.between(3, 200) as u32,
                ..RetrySettings::default()
            };
        }
        3 => settings.retry.throttle = cool_down(dice, 1_000),
        4 => settings.retry.overload = cool_down(dice, 8_000),
        5 => {
            settings.breaker = BreakerSettings {
                consecutive_failures: dice.between(2, 8) as u32,
                min_calls: dice.between(4, 20) as u32,
                cool_down_ms: dice.between(1_000, 15_000),
                cool_down_max_ms: 60_000,
                ..BreakerSettings::default()
            };
        }
        6 => {
            let of = [
                OnInterrupted::Retry,
                OnInterrupted::Retry,
                OnInterrupted::Park,
                OnInterrupted::Fail,
            ];
            settings.lane.on_interrupted = *dice.pick(&of);
            settings.lane.quarantine_after = dice.between(1, 5) as u32;
        }
        7 => settings.policy = policy(dice),
        8 => {
            let chain = |models: &[&str]| models.iter().map(|m| (*m).to_owned()).collect();
            settings.glm.fallbacks = match dice.below(4) {
                0 => BTreeMap::new(),
                1 => BTreeMap::from([(MODELS[0].to_owned(), chain(&MODELS[1..2]))]),
                _ => BTreeMap::from([
                    (MODELS[0].to_owned(), chain(&MODELS[2..4])),
                    (MODELS[1].to_owned(), chain(&MODELS[2..3])),
                    (MODELS[2].to_owned(), chain(&MODELS[..2])),
                    (MODELS[3].to_owned(), chain(&MODELS[..2])),
                ]),
            };
        }
        9 => {
            settings.glm.async_models = match dice.below(3) {
                0 => vec![MODELS[1].to_owned(), MODELS[2].to_owned()],
                1 => vec![MODELS[0].to_owned()],
                _ => Vec::new(),
            };
            settings.glm.async_poll_ms = dice.between(200, 3_000);
        }
        10 => {
            settings.lane.pause_after_timeout_ms = some(dice, 2, 1_000, 20_000);
            settings.lane.operator_probe_ms = some(dice, 3, 5_000, 60_000);
            settings.glm.max_tokens = Some(dice.between(16, 1_024) as u32);
        }
        11 => {
            settings.glm.is_active = !dice.one_in(4);
            settings.lane.max_queue_jobs = if dice.one_in(4) { 12 } else { 1_000 };
        }
        12 => settings.budgets = budgets(dice),
        _ => {
            let total_ms = dice.between(15_000, 90_000);
            settings.glm.timeouts = Timeouts {
                first_byte_ms: dice.between(10_000, 90_000),
                total_ms,
                ..Timeouts::default()
            };
        }
    }
}

/// 0 in all but one of `n` worlds.
fn some(dice: &mut Dice, n: u64, low: u64, high: u64) -> u64 {
    let drawn = dice.between(low, high);
    if dice.one_in(n) { drawn } else { 0 }
}

fn cool_down(dice: &mut Dice, base_ms: u64) -> CoolDownSettings {
    CoolDownSettings {
        base_ms: dice.between(base_ms / 2, base_ms * 2),
        max_ms: dice.between(16_000, 60_000),
    }
}

fn rules(dice: &mut Dice) -> LaneRules {
    let max_concurrency = *dice.pick(&[1, 1, 2, 3, 5]);
    let auto = match dice.one_in(3) {
        true => AutoSettings {
            on: true,
            min: dice.between(1, u64::from(max_concurrency)) as u16,
            trial_ms: dice.between(2_000, 60_000),
        },
        false => AutoSettings::default(),
    };
    LaneRules {
        max_concurrency,
        auto,
        pace: PaceSettings {
            requests_per_minute: some(dice, 5, 6, 90) as u32,
            tokens_per_minute: some(dice, 5, 2_000, 20_000),
            min_spacing_ms: some(dice, 8, 100, 3_000),
        },
        order: order(dice, max_concurrency),
        reserve: match max_concurrency {
            1 => Vec::new(),
            _ => vec![SlotReserve {
                priority: 5,
                slots: 1,
            }],
        },
    }
}

fn order(dice: &mut Dice, max_concurrency: u16) -> OrderSettings {
    let order = OrderSettings {
        fair_quantum_tokens: some(dice, 3, 200, 3_000) as u32,
        ageing_ms: some(dice, 2, 2_000, 60_000),
        affinity: 0,
    };
    // Of what was drawn already: no world becomes another one for it.
    let drawn = u64::from(order.fair_quantum_tokens) + order.ageing_ms + u64::from(max_concurrency);
    OrderSettings {
        affinity: (drawn % 4) as u32,
        ..order
    }
}

fn lanes(dice: &mut Dice) -> BTreeMap<String, NamedLane> {
    let mut lanes = BTreeMap::new();
    let of: [(&str, &str); 3] = [
        ("air", "glm-4.5*"),
        ("five", MODELS[0]),
        ("flash", MODELS[3]),
    ];
    for (name, pattern) in of {
        if dice.one_in(3) {
            let lane = NamedLane {
                models: vec![pattern.to_owned()],
                rules: rules(dice),
            };
            lanes.insert(name.to_owned(), lane);
        }
    }
    lanes
}

/// A budget of the day for all together, for each user, or none.
fn budgets(dice: &mut Dice) -> Vec<Budget> {
    let users = match dice.below(5) {
        0 => BudgetScope::All,
        1 => BudgetScope::Each,
        _ => return Vec::new(),
    };
    vec![Budget {
        key: None,
        name: "day".to_owned(),
        users,
        models: BudgetScope::All,
        limit: Amount::Tokens(dice.between(1_000, 8_000)),
        rules: BudgetRules::default(),
    }]
}

fn policy(dice: &mut Dice) -> BTreeMap<String, PolicyOverride> {
    let mut policy = BTreeMap::new();
    if dice.one_in(2) {
        let word = PolicyOverride {
            lane: Some(LaneRule::HoldModelForOperator),
            ..PolicyOverride::default()
        };
        policy.insert("1311".to_owned(), word);
    }
    if dice.one_in(4) {
        let word = PolicyOverride {
            breaker: Some(BreakerRule::Open),
            ..PolicyOverride::default()
        };
        policy.insert("http_503".to_owned(), word);
    }
    if dice.one_in(6) {
        let word = PolicyOverride {
            lane: Some(LaneRule::CoolDown),
            ..PolicyOverride::default()
        };
        policy.insert("1305".to_owned(), word);
    }
    policy
}

fn prices() -> Arc<PriceTable> {
    let mut table = PriceTable::new(Currency::Cny);
    for (n, model) in (1..).zip(&MODELS[..3]) {
        let row = PriceRow {
            prompt_from: 0,
            completion_from: 0,
            prompt_to: None,
            input: n as Nanos * 1_000_000_001,
            cached_input: n as Nanos * 300_000_007,
            output: n as Nanos * 4_000_000_013,
            ..PriceRow::default()
        };
        table.add(model, row);
    }
    Arc::new(table)
}

/// What an operator changed, in words.
pub(crate) fn difference(before: &Settings, after: &Settings) -> String {
    if before == after {
        return "as they were".to_owned();
    }
    let [before, after] = [before, after].map(|settings| format!("{settings:#?}"));
    let [before, after] = [&before, &after].map(|text| without_prices(text));
    let old: BTreeSet<&str> = before.lines().map(str::trim).collect();
    let new = after.lines().map(str::trim);
    let new: Vec<&str> = new.filter(|line| !old.contains(line)).collect();
    if new.is_empty() {
        "another key, or something less".to_owned()
    } else {
        new.join(" ")
    }
}

/// Settings as they print themselves, without the prices at their end.
pub(crate) fn without_prices(settings: &str) -> String {
    let end = settings.find("    prices:").unwrap_or(settings.len());
    settings[..end].to_owned()
}
