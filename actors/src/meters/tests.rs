//! Guards: what is counted is bounded, and each row of the table can be what it says.

use std::collections::BTreeMap;
use std::sync::Mutex;

use metrics::{Counter, CounterFn, Gauge, Histogram, KeyName, SharedString, Unit};
use onelane_core::model::{AttemptNo, Cost, Currency, Failure, JobId, Usage};

use super::*;
use crate::testing::sample;

/// Remembers which series there are, and how far counters got.
#[derive(Default)]
struct Book {
    described: Mutex<BTreeMap<String, String>>,
    series: Mutex<BTreeMap<String, (String, Arc<Count>)>>,
}

#[derive(Default)]
struct Count(Mutex<u64>);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        *self.0.lock().unwrap() += value;
    }

    fn absolute(&self, value: u64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Book {
    fn know(&self, key: &Key) -> Arc<Count> {
        let mut series = self.series.lock().unwrap();
        let entry = series.entry(key.to_string());
        let (_, count) = entry.or_insert_with(|| (key.name().to_owned(), Arc::default()));
        Arc::clone(count)
    }

    fn note(&self, name: &KeyName, about: &SharedString) {
        let mut described = self.described.lock().unwrap();
        described.insert(name.as_str().to_owned(), about.to_string());
    }

    /// How many series there are, buckets included.
    fn len(&self) -> usize {
        let series = self.series.lock().unwrap();
        let of = |name: &str| {
            let meter = table::ALL.iter().find(|meter| meter.name == name).unwrap();
            match meter.kind {
                Kind::Histogram(bounds) => bounds.len() + 3,
                Kind::Counter | Kind::Gauge => 1,
            }
        };
        series.values().map(|(name, _)| of(name)).sum()
    }

    fn sum_of(&self, name: &str) -> u64 {
        let series = self.series.lock().unwrap();
        let of_name = series.values().filter(|(of, _)| of == name);
        of_name.map(|(_, count)| *count.0.lock().unwrap()).sum()
    }
}

impl Recorder for Book {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, about: SharedString) {
        self.note(&key, &about);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, about: SharedString) {
        self.note(&key, &about);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, about: SharedString) {
        self.note(&key, &about);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.know(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.know(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.know(key);
        Histogram::noop()
    }
}

/// A call of the n-th user to one of a thousand models.
fn call(n: u64) -> (Job, CallRecord) {
    let id = JobId::from_bytes(u128::from(n).to_be_bytes());
    let model = format!("model-{}", n % 1_000);
    let mut job = Job::new(id, format!("user-{n}"), model, sample::START);
    job.priority = i32::try_from(n % 300).unwrap() - 100;
    let (from, to) = (sample::START.plus_ms(1_000), sample::START.plus_ms(3_000));
    let mut call = CallRecord::of(&job, AttemptNo(1), CallOutcome::Completed, from, to);
    call.usage = Usage {
        prompt_tokens: 3,
        ..Usage::default()
    };
    call.parts.first_token_ms = Some(n);
    call.cost = Some(Cost {
        nanos: 7,
        currency: match n % 3 {
            0 => Currency::Cny,
            1 => Currency::Usd,
            _ => Currency::Points,
        },
    });
    if n.is_multiple_of(5) {
        let class = FailureClass::ALL[usize::try_from(n).unwrap() / 5 % 10];
        call.outcome = CallOutcome::Failed;
        call.failure = Some(Failure::new(class, "1", "scripted"));
    }
    (job, call)
}

#[test]
fn a_hundred_thousand_users_and_a_thousand_models_stay_below_the_stated_bound() {
    let book = Arc::new(Book::default());
    let meters = Meters::new(Arc::clone(&book) as AnyRecorder);
    for n in 0..100_000 {
        let (job, call) = call(n);
        meters.submitted(1);
        meters.settled(&call, Some(&job));
    }
    let gauges = table::ALL.iter().filter(|meter| meter.kind == Kind::Gauge);
    for meter in gauges.filter(|meter| meter.labels.len() == 1) {
        if let Values::First { max, .. } = meter.labels[0].values {
            (0..=max).for_each(|n| meters.set(meter, &[&n.to_string()], 1.0));
        }
    }
    let (there, most) = (book.len(), table::series_max());
    assert!(there <= most, "{there} series, {most} are stated");
    assert!(most <= 3_000, "{most} series are many");
    // What is not told by its own name is told all the same.
    assert_eq!(book.sum_of(table::JOBS_SUBMITTED.name), 100_000);
    assert_eq!(book.sum_of(table::TOKENS.name), 300_000);
    assert_eq!(book.sum_of(table::COST.name), 700_000);
    assert_eq!(book.sum_of(table::ATTEMPTS.name), 100_000);
    let models = book.series.lock().unwrap();
    let told = models
        .keys()
        .filter(|key| key.contains(table::UNPRICED.name));
    assert_eq!(told.count(), 51);
}

#[test]
fn every_row_of_the_table_is_named_as_prometheus_wants_it() {
    let book = Arc::new(Book::default());
    let _ = Meters::new(Arc::clone(&book) as AnyRecorder);
    let described = book.described.lock().unwrap();
    assert_eq!(described.len(), table::ALL.len(), "each name stands once");
    for meter in table::ALL {
        let name = meter.name;
        let is_plain = |c: char| c == '_' || c.is_ascii_lowercase();
        assert!(
            name.starts_with("onelane_") && name.chars().all(is_plain),
            "{name}"
        );
        assert_eq!(
            meter.kind == Kind::Counter,
            name.ends_with("_total"),
            "{name}"
        );
        if meter.unit == "seconds" || meter.unit == "bytes" {
            assert!(name.ends_with(&format!("_{}", meter.unit)), "{name}");
        }
        let about = &described[name];
        assert!(
            about.ends_with('.') && !about.contains('\n'),
            "{name}: {about}"
        );
        if let Kind::Histogram(bounds) = meter.kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
        }
    }
}
