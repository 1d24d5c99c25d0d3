use super::*;
use crate::model::{Billing, CallOutcome, Reserve, Usage};
use crate::random::SplitMix64;
use crate::testing::sample;

const MODELS: [&str; 5] = [
    "glm-4.7",
    "glm-5",
    "glm-5.3",
    "glm-5.3-flash",
    "glm-4.5-air",
];
const MINUTE_MS: i64 = 60_000;

fn first() -> Day {
    Day::parse("2026-11-01").unwrap()
}

fn last() -> Day {
    Day::parse("2026-11-29").unwrap()
}

/// An answered call of this many tokens, that began at `at` and took so long.
fn call(model: &str, at: Timestamp, takes_ms: u64, tokens: u64) -> CallRecord {
    CallRecord {
        model: model.to_owned(),
        started_at: at,
        ended_at: at.plus_ms(takes_ms),
        usage: Usage {
            prompt_tokens: tokens / 2,
            completion_tokens: tokens - tokens / 2,
            total_tokens: tokens,
            ..Usage::default()
        },
        ..sample::call(1, 1, CallOutcome::Completed)
    }
}

/// What a provider counts, by the day on which a call began or ended.
#[derive(Default)]
struct Meter {
    by_begin: bool,
    counts: BTreeMap<Place, Sum>,
}

impl Meter {
    fn count(&mut self, model: &str, call: &CallRecord, tokens: u64) {
        let at = match self.by_begin {
            true => call.started_at,
            false => call.ended_at,
        };
        let place = (Calendar::beijing().day(at), model.to_owned());
        self.counts
            .entry(place)
            .or_default()
            .add(Sum { calls: 1, tokens });
    }

    /// For each day of `first` to `last`, as it would be told.
    fn told(&self, with_calls: bool) -> BTreeMap<Day, Vec<Metered>> {
        let mut told: BTreeMap<Day, Vec<Metered>> = (first().0..=last().0)
            .map(|day| (Day(day), Vec::new()))
            .collect();
        for ((day, model), sum) in &self.counts {
            if let Some(rows) = told.get_mut(day) {
                rows.push(Metered {
                    day: *day,
                    model: model.to_uppercase(),
                    calls: with_calls.then_some(sum.calls),
                    tokens: sum.tokens,
                });
            }
        }
        told
    }
}

fn books() -> Books {
    Books::new(Calendar::beijing(), [first(), last()])
}

fn reserve(tokens: u64) -> Option<Reserve> {
    Some(Reserve {
        tokens,
        ..Reserve::default()
    })
}

/// A call of which nobody knows what became of it.
fn in_doubt(call: &CallRecord) -> CallRecord {
    CallRecord {
        outcome: CallOutcome::Interrupted,
        usage: Usage::default(),
        maybe_billed: true,
        reserved: reserve(50_000),
        ..call.clone()
    }
}

fn untold(call: &CallRecord) -> CallRecord {
    CallRecord {
        usage: Usage::default(),
        reserved: reserve(50_000),
        ..call.clone()
    }
}

type Found = (Day, String, Cause, Option<String>);

fn found(reconciliation: &Reconciliation) -> Vec<Found> {
    let named = |one: &Difference| {
        (
            one.date,
            one.model.clone(),
            one.cause,
            one.answered_by.clone(),
        )
    };
    let mut found: Vec<Found> = reconciliation.differences.iter().map(named).collect();
    found.sort();
    found
}

/// A million calls of 29 days and five models, some over midnight, some refused; at fifty days and models, one each, the
/// provider counts something else, for each reason in turn.
#[test]
fn fifty_differences_among_a_million_calls_are_named_and_none_that_is_not() {
    for (by_begin, with_calls) in [(false, true), (true, false)] {
        let calls = if by_begin { 100_000 } else { 1_000_000 };
        let mut numbers = SplitMix64::new(7);
        let mut books = books();
        let mut meter = Meter {
            by_begin,
            ..Meter::default()
        };
        let begin = Calendar::beijing().start_of(first());
        let length = (last().0 - first().0 + 1) as u64 * 86_400_000;
        let mut row = call(MODELS[0], begin, 0, 1);
        for n in 0..calls {
            let model = MODELS[(numbers.draw() % 5) as usize];
            let tokens = 20 + numbers.draw() % 4_000;
            row.model.clear();
            row.model.push_str(model);
            row.started_at = begin.plus_ms(length * n / calls);
            row.ended_at = row.started_at.plus_ms(numbers.draw() % 90_000);
            row.usage.total_tokens = tokens;
            let is_refused = n % 37 == 0;
            row.outcome = match is_refused {
                true => CallOutcome::Failed,
                false => CallOutcome::Completed,
            };
            if is_refused {
                let usage = std::mem::take(&mut row.usage);
                books.add(&row);
                row.usage = usage;
                continue;
            }
            books.add(&row);
            meter.count(model, &row, tokens);
        }
        let planted = plant(&mut books, &mut meter);
        assert_eq!(planted.len(), 50);
        let reconciled = books.reconcile(&meter.told(with_calls));
        assert_eq!(found(&reconciled), planted, "by begin: {by_begin}");
        assert!(reconciled.rows.len() >= 29 * 5);
    }
}

/// Fifty differences, at most one a day and model.
fn plant(books: &mut Books, meter: &mut Meter) -> Vec<Found> {
    let mut planted = Vec::new();
    for n in 0..50 {
        let day = Day(first().0 + n / 2);
        let noon = Calendar::beijing().start_of(day).plus_ms(12 * 3_600_000);
        // Two a day: of the first and the third model, and with what a switch has to do with, of the second and fourth.
        let model = MODELS[(n % 2 * 2) as usize];
        let other = MODELS[(n % 2 * 2 + 1) as usize];
        let tokens = 1_000 + u64::from(n.unsigned_abs()) * 13;
        let row = call(model, noon, 900, tokens);
        let (cause, by) = match n % 6 {
            0 => {
                books.add(&in_doubt(&row));
                meter.count(model, &row, tokens);
                (Cause::InDoubt, None)
            }
            1 => {
                books.add(&CallRecord {
                    answered_by: Some(other.to_owned()),
                    ..row.clone()
                });
                meter.count(other, &row, tokens);
                (Cause::ModelSwitched, Some(other.to_owned()))
            }
            2 => {
                books.add(&untold(&row));
                meter.count(model, &row, tokens);
                (Cause::UsageMissing, None)
            }
            3 => {
                meter.count(model, &row, tokens);
                (Cause::NotOurs, None)
            }
            4 => {
                books.add(&row);
                (Cause::NotMetered, None)
            }
            _ => {
                // The answer did not say so.
                books.add(&row);
                meter.count(other, &row, tokens);
                (Cause::ModelSwitched, Some(other.to_owned()))
            }
        };
        planted.push((day, model.to_owned(), cause, by));
    }
    planted.sort();
    planted
}

fn noon() -> Timestamp {
    Calendar::beijing()
        .start_of(first())
        .plus_ms(12 * 3_600_000)
}

/// The differences after these calls, of which the provider counted those tokens by model.
fn differences(calls: &[CallRecord], metered: &[(&str, u64)]) -> Vec<Difference> {
    let metered = metered
        .iter()
        .map(|(model, tokens)| (*model, None, *tokens));
    differences_with(calls, &metered.collect::<Vec<_>>())
}

/// The same, where it may tell the calls, too.
fn differences_with(calls: &[CallRecord], metered: &[(&str, Option<u64>, u64)]) -> Vec<Difference> {
    let mut books = books();
    calls.iter().for_each(|call| books.add(call));
    let metered = metered.iter().map(|(model, calls, tokens)| Metered {
        day: first(),
        model: (*model).to_owned(),
        calls: *calls,
        tokens: *tokens,
    });
    let told = BTreeMap::from([(first(), metered.collect())]);
    books.reconcile(&told).differences
}

#[test]
fn a_call_in_doubt_explains_first_where_the_provider_tells_more_calls_than_were_answered() {
    let sure = call("glm-5", noon(), 10, 700);
    let calls = [sure.clone(), untold(&sure), in_doubt(&sure)];
    let check = |metered_calls, want: [(Cause, i64); 2]| {
        let metered = [("glm-5", metered_calls, 60_700)];
        let found = differences_with(&calls, &metered);
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.cause, one.calls, one.tokens))
            .collect();
        let want = want.map(|(cause, tokens)| (cause, Some(1), tokens));
        assert_eq!(found, want, "{metered_calls:?}");
    };
    let answered_first = [(Cause::InDoubt, 10_000), (Cause::UsageMissing, 50_000)];
    check(None, answered_first);
    check(Some(2), answered_first);
    check(
        Some(3),
        [(Cause::InDoubt, 50_000), (Cause::UsageMissing, 10_000)],
    );
}

#[test]
fn of_two_readings_that_leave_as_many_tokens_open_the_one_with_fewer_lines_counts() {
    let mut switched = call("glm-4.7", noon(), 10, 10);
    switched.answered_by = Some("glm-5.3".to_owned());
    let read = |metered: [u64; 2]| {
        let metered = [("glm-4.7", metered[0]), ("glm-5.3", metered[1])];
        let found = differences(std::slice::from_ref(&switched), &metered);
        let found = found.iter().map(|one| (one.cause, one.tokens));
        found.collect::<Vec<_>>()
    };
    // By the model that answered 15 of one are not ours; by the one that was called 5 and 10 of two.
    let want = [(Cause::ModelSwitched, -10), (Cause::NotOurs, 15)];
    assert_eq!(read([15, 10]), want);
    // The other way round: 20 of one, or 10 of each.
    assert_eq!(read([10, 20]), [(Cause::NotOurs, 20)]);
}

#[test]
fn a_model_that_answered_for_another_without_saying_so_is_named_with_it() {
    for (called, answered) in [("glm-4.7", "glm-5.3"), ("glm-5.3", "glm-4.7")] {
        let found = differences(&[call(called, noon(), 10, 300)], &[(answered, 300)]);
        assert_eq!(
            found,
            [Difference {
                answered_by: Some(answered.to_owned()),
                ..Difference::of(first(), called, Cause::ModelSwitched, -300)
            }]
        );
    }
}

#[test]
fn what_nobody_knows_explains_no_more_than_was_reserved_for_it() {
    let sure = call("glm-5", noon(), 10, 700);
    let doubt = in_doubt(&sure);
    let check = |calls: &[CallRecord], metered: u64, want: &[(Cause, i64)]| {
        let found = differences(calls, &[("glm-5", metered)]);
        let found: Vec<(Cause, i64)> = found.iter().map(|one| (one.cause, one.tokens)).collect();
        assert_eq!(found, want, "{metered}");
    };
    // It was not billed: both agree.
    let both = [sure.clone(), doubt.clone()];
    check(&both, 700, &[]);
    check(&both, 50_700, &[(Cause::InDoubt, 50_000)]);
    check(
        &both,
        50_701,
        &[(Cause::InDoubt, 50_000), (Cause::NotOurs, 1)],
    );
    check(&both, 699, &[(Cause::NotMetered, -1)]);
    // An operator said what it was billed: that may be wrong either way.
    let settled = CallRecord {
        billing: Some(Billing {
            billed: true,
            usage: Usage {
                total_tokens: 50_000,
                ..Usage::default()
            },
            cost: None,
            price: None,
            at: noon(),
        }),
        ..doubt
    };
    let both = [sure.clone(), settled];
    check(&both, 50_700, &[]);
    check(&both, 1_000, &[(Cause::InDoubt, -49_700)]);
    // Counted here, when the answer broke off.
    let mut estimated = sure.clone();
    estimated.usage.estimated = true;
    check(&[estimated], 690, &[(Cause::UsageMissing, -10)]);
    check(
        &[sure, untold(&call("glm-5", noon(), 10, 1))],
        900,
        &[(Cause::UsageMissing, 200)],
    );
}

#[test]
fn a_model_is_one_name_in_any_case_and_who_counts_by_the_model_that_was_called_has_switched_none() {
    let mut switched = call("GLM-4.7", noon(), 10, 300);
    switched.answered_by = Some("glm-5.3".to_owned());
    let calls = [switched, call("glm-4.7", noon(), 10, 100)];
    assert_eq!(differences(&calls, &[("Glm-4.7", 400)]), []);
    let found = differences(&calls, &[("glm-4.7", 100), ("GLM-5.3", 300)]);
    assert_eq!(
        found,
        [Difference {
            calls: Some(1),
            answered_by: Some("glm-5.3".to_owned()),
            ..Difference::of(first(), "glm-4.7", Cause::ModelSwitched, -300)
        }]
    );
}

#[test]
fn a_call_over_midnight_is_no_difference_wherever_it_is_counted() {
    let midnight = Calendar::beijing().start_of(Day(first().0 + 3));
    for by_begin in [false, true] {
        let (mut books, mut meter) = (
            books(),
            Meter {
                by_begin,
                ..Meter::default()
            },
        );
        for day in 0..8_i64 {
            let at = Timestamp::from_millis(midnight.as_millis() + (day - 4) * 1_440 * MINUTE_MS);
            let row = call("glm-5", at.minus_ms(500), 1_000, 100 + day.unsigned_abs());
            books.add(&row);
            meter.count("glm-5", &row, row.usage.total_tokens);
        }
        let reconciled = books.reconcile(&meter.told(false));
        assert_eq!(reconciled.differences, [], "by begin: {by_begin}");
        // Days that the provider did not tell of are not compared.
        let told = BTreeMap::from([(last(), Vec::new())]);
        assert_eq!(books.reconcile(&told), Reconciliation::default());
    }
}
