use super::*;
use crate::model::BatchId;
use crate::random::SplitMix64;
use crate::testing::sample::START;

/// A deviate of the normal distribution, by the method of Box and Muller.
fn normal(random: &mut SplitMix64) -> f64 {
    let radius = (-2.0 * (1.0 - random.draw_unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.draw_unit()).cos()
}

const LINES: u64 = 20_000;
/// After a twentieth of the lines.
const KNOWN: u64 = LINES / 20;

/// How far from the truth we are, how far one who knows that the logarithms are normal, and in how many of 200 batches
/// the truth was within our bounds.
fn two_hundred_batches(sigma: f64) -> (f64, f64, u32) {
    let mut random = SplitMix64::new(20_261_129);
    let (mut ours, mut theirs, mut within) = (0.0, 0.0, 0);
    for _ in 0..200 {
        let (mut known, mut logs, mut squares, mut truth) = (Moments::default(), 0.0, 0.0, 0);
        for line in 0..LINES {
            let log = 13.0 + sigma * normal(&mut random);
            let value = log.exp() as u64;
            if line < KNOWN {
                known.record(value);
                logs += log;
                squares += log * log;
            } else {
                truth += value;
            }
        }
        let left = LINES - KNOWN;
        let said = rest(&known, left).unwrap();
        within += u32::from((said.low..=said.high).contains(&truth));
        let mean = logs / KNOWN as f64;
        let variance = squares / KNOWN as f64 - mean * mean;
        let fitted = left as f64 * (mean + variance / 2.0).exp();
        let error = |said: f64| (said / truth as f64 - 1.0).powi(2);
        ours += error(said.expected as f64);
        theirs += error(fitted);
    }
    ((ours / 200.0).sqrt(), (theirs / 200.0).sqrt(), within)
}

#[test]
fn a_twentieth_of_a_batch_tells_its_rest_as_well_as_one_who_knows_the_shape() {
    for sigma in [0.3, 0.6, 0.9, 1.2] {
        let (ours, theirs, within) = two_hundred_batches(sigma);
        assert!(ours <= 1.3 * theirs, "{sigma}: {ours} beside {theirs}");
        assert!(
            (140..=180).contains(&within),
            "{sigma}: within bounds {within} of 200 times"
        );
    }
}

#[test]
fn too_few_values_forecast_nothing_and_equal_ones_leave_no_doubt() {
    let mut known = Moments::default();
    for _ in 1..LEARNT_FROM_MIN {
        known.record(5);
    }
    assert_eq!(rest(&known, 10), None);
    known.record(5);
    let sure = Range {
        low: 50,
        expected: 50,
        high: 50,
    };
    assert_eq!(rest(&known, 10), Some(sure));
    known.record(u64::MAX);
    assert!(rest(&known, u64::MAX).is_some(), "nothing overflows");
}

#[test]
fn a_sum_of_several_kinds_is_as_uncertain_as_their_values_and_their_means() {
    let mut sum = Sum::default();
    for _ in 0..400 {
        sum.add(1_000, 100, 100);
    }
    // Apart 100 * 20, together 10 * 400, and the root of both squares is 4,472.
    let away = 4_472 * 12_816 / 10_000;
    let want = Range {
        low: 400_000 - away,
        expected: 400_000,
        high: 400_000 + away,
    };
    assert_eq!(sum.range(), want);
}

fn batch(ended: u64, left: u64) -> Batch {
    let mut batch = Batch::new(BatchId::new(1), "b", START);
    (batch.counts.completed, batch.counts.pending) = (ended, left);
    for n in 0..ended {
        batch.learnt.costs.record(1_000 + n % 2 * 200);
        batch.learnt.times.record(2_000);
        batch.spent(Some(Cost {
            nanos: 1_000 + (n % 2) as i64 * 200,
            currency: Currency::Cny,
        }));
    }
    batch
}

#[test]
fn a_batch_says_what_it_comes_to_and_when_it_ends() {
    let now = START.plus_ms(60_000);
    let said = Forecast::of(&batch(100, 300), 2, now).unwrap();
    assert_eq!(said.learnt_from, 100);
    let end = now.plus_ms(300_000);
    assert_eq!(
        (said.end.low, said.end.expected, said.end.high),
        (end, end, end)
    );
    let cost = said.cost.unwrap();
    assert_eq!(cost.expected, 110_000 + 330_000);
    assert!(cost.low < cost.expected && cost.expected < cost.high);
    assert!(cost.high - cost.low < 10_000, "{cost:?}");
    assert_eq!(Forecast::of(&batch(100, 0), 1, now), None, "it has ended");
    assert_eq!(Forecast::of(&batch(19, 1), 1, now), None);
    assert!(Forecast::of(&batch(20, 1), 1, now).is_some());
    let mut few = batch(25, 1);
    few.counts.completed = 19;
    assert_eq!(Forecast::of(&few, 1, now), None, "calls are not jobs");
    let mut unpriced = batch(100, 300);
    unpriced.unpriced_calls = 1;
    assert_eq!(Forecast::of(&unpriced, 1, now).unwrap().cost, None);
}
