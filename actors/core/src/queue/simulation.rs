//! What the orders do to those who wait: ten light users behind one that floods the lane. The table in
//! `docs/fairness.md` is what this prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::Queue;
use crate::model::{
    DEFAULT_LANE, JobEntry, JobId, LaneRules, OrderSettings, Seq, Settings, Timestamp, WaitingJobs,
};

const CALL_MS: u64 = 2_000;
const TOKENS: u32 = 1_000;
const LIGHT_USERS: u64 = 10;
const SUBMITTING_MS: u64 = 30 * 60_000;
const FLOOD: &str = "flood";

/// A submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at_ms: u64,
    /// `None`: the one that floods.
    light_user: Option<u64>,
    priority: i32,
}

/// Ten users for half an hour, each with a job every two minutes on average, from 0 to 4 apart: always
/// the same ones.
fn light() -> Vec<Arrival> {
    let mut drawn: u64 = 7;
    let mut arrivals = Vec::new();
    for user in 0..LIGHT_USERS {
        let mut at_ms = 0;
        loop {
            // Knuth's generator; its high bits are the good ones.
            drawn = drawn
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            at_ms += (drawn >> 33) % 240_000;
            if at_ms > SUBMITTING_MS {
                break;
            }
            arrivals.push(Arrival {
                at_ms,
                light_user: Some(user),
                priority: 0,
            });
        }
    }
    arrivals
}

/// A thousand jobs at once, before anybody else's.
fn at_once() -> Vec<Arrival> {
    let flood = (0..1_000).map(|_| Arrival {
        at_ms: 0,
        light_user: None,
        priority: 0,
    });
    flood.chain(light()).collect()
}

/// A more urgent job for every call that the lane can make, for half an hour.
fn more_urgent() -> Vec<Arrival> {
    let flood = (0..SUBMITTING_MS / CALL_MS).map(|n| Arrival {
        at_ms: n * CALL_MS,
        light_user: None,
        priority: 1,
    });
    flood.chain(light()).collect()
}

/// How long jobs waited until their call began, in milliseconds, shortest first.
#[derive(Debug, Default)]
struct Waits {
    light: Vec<u64>,
    flood: Vec<u64>,
}

/// A lane of one slot whose every call takes as long.
fn simulate(mut arrivals: Vec<Arrival>, order: OrderSettings) -> Waits {
    arrivals.sort_unstable();
    let settings = Settings {
        lane: LaneRules {
            order,
            ..LaneRules::default()
        }
        .into(),
        ..Settings::default()
    };
    // Ageing looks at the wall clock: begin at a moment that is no multiple of any interval.
    let start = Timestamp::from_millis(1_700_000_001_000);
    let mut line = Queue::from_entries(WaitingJobs::new(), &settings, start);
    let models = BTreeSet::from([Arc::from("glm")]);
    let mut arrivals = (0_u64..).zip(arrivals).peekable();
    let mut waits = Waits::default();
    let mut clock_ms = 0;
    loop {
        let now = start.plus_ms(clock_ms);
        while let Some((n, arrival)) = arrivals.next_if(|(_, next)| next.at_ms <= clock_ms) {
            line.insert(entry(n, arrival, start), now);
        }
        line.wake(now);
        if let Some((_, job)) = line.pop(DEFAULT_LANE, &models) {
            let waited = now.since(job.since);
            if &*job.user_id == FLOOD {
                waits.flood.push(waited);
            } else {
                waits.light.push(waited);
            }
            clock_ms += CALL_MS;
        } else if let Some((_, next)) = arrivals.peek() {
            clock_ms = next.at_ms;
        } else {
            break;
        }
    }
    waits.light.sort_unstable();
    waits.flood.sort_unstable();
    waits
}

fn entry(n: u64, arrival: Arrival, start: Timestamp) -> JobEntry {
    JobEntry {
        key: None,
        session: None,
        capped: false,
        id: JobId::from_bytes(u128::from(n).to_be_bytes()),
        seq: Seq(n),
        priority: arrival.priority,
        due: None,
        deadline: None,
        since: start.plus_ms(arrival.at_ms),
        model: "glm".into(),
        user_id: (arrival.light_user).map_or(FLOOD.into(), |n| format!("light {n}").into()),
        tokens: TOKENS,

        worst: crate::model::WorstCase::default(),
        batch_id: None,
        dormant: false,
        out_of_scope: false,
        bound_to: None,
        parked: false,
    }
}

/// The value below which so many per cent of the sorted values are, in whole seconds.
fn percentile_s(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1] / 1_000
}

const ORDERS: [(&str, u32, u64); 5] = [
    ("strict (the default)", 0, 0),
    ("turns", 2_000, 0),
    ("ageing by the minute", 0, 60_000),
    ("turns, ageing by the minute", 2_000, 60_000),
    ("turns, ageing by the hour", 2_000, 3_600_000),
];

fn table(arrivals: &[Arrival]) -> String {
    let mut table = String::from(
        "| order | light p50 | light p95 | flood p50 | flood p95 |\n|---|---:|---:|---:|---:|\n",
    );
    for (name, fair_quantum_tokens, ageing_ms) in ORDERS {
        let order = OrderSettings {
            fair_quantum_tokens,
            ageing_ms,
            affinity: 0,
        };
        let waits = simulate(arrivals.to_vec(), order);
        assert_eq!(waits.light.len() + waits.flood.len(), arrivals.len());
        let [a, b] = [50, 95].map(|percent| percentile_s(&waits.light, percent));
        let [c, d] = [50, 95].map(|percent| percentile_s(&waits.flood, percent));
        writeln!(table, "| {name} | {a} s | {b} s | {c} s | {d} s |").unwrap();
    }
    table
}

#[test]
fn the_table_in_the_papers_is_what_the_orders_do() {
    let at_once = table(&at_once());
    let more_urgent = table(&more_urgent());
    println!(
        "A thousand jobs at once:\n\n{at_once}\nMore urgent jobs without end:\n\n{more_urgent}"
    );
    let paper = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fairness.md");
    let paper = std::fs::read_to_string(paper).unwrap();
    for table in [at_once, more_urgent] {
        assert!(paper.contains(&table), "docs/fairness.md lacks:\n{table}");
    }
}
