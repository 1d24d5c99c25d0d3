//! Our books beside the provider's meter, by day and model: where they differ, and why.
//!
//! What is sure of our calls is compared to the token. What is not sure, because nobody knows what became of a call or
//! what its answer used, may come to anything up to what was reserved for it: so much of a difference it explains, and
//! no more. What nothing explains is not ours, or was not metered.

mod cell;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use cell::{Cell, Sum};

use crate::model::{Calendar, CallRecord, Day, Metered, Timestamp, model_name};

/// Why the provider counted something else than we did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Calls of which nobody knows here whether they were billed.
    InDoubt,
    /// Another model answered than the one that was called, and the provider counts it by that.
    ModelSwitched,
    /// Answers that came without their tokens, or with counts that contradict each other.
    UsageMissing,
    /// The provider counted what we did not call: another program has the key, or another store of ours.
    NotOurs,
    /// The provider did not count what it answered us.
    NotMetered,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::InDoubt,
        Self::ModelSwitched,
        Self::UsageMissing,
        Self::NotOurs,
        Self::NotMetered,
    ];

    /// The name used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InDoubt => "inDoubt",
            Self::ModelSwitched => "modelSwitched",
            Self::UsageMissing => "usageMissing",
            Self::NotOurs => "notOurs",
            Self::NotMetered => "notMetered",
        }
    }
}

/// A difference, with its cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The provider's day.
    #[serde(serialize_with = "text")]
    #[schemars(with = "String")]
    pub date: Day,
    /// The model that our books have it under.
    pub model: String,
    /// Why.
    pub cause: Cause,
    /// So many calls of ours it may come from; `None`: of none, or it is not known.
    pub calls: Option<u64>,
    /// So many tokens more the provider counted, below 0: fewer. Of a switched model: so many it counted elsewhere.
    pub tokens: i64,
    /// The model that answered, where it was another one.
    pub answered_by: Option<String>,
}

/// A day and a model, as we booked it and as the provider metered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// The provider's day.
    #[serde(serialize_with = "text")]
    #[schemars(with = "String")]
    pub date: Day,
    /// The model that was called.
    pub model: String,
    /// Calls that our books have as billed.
    pub our_calls: u64,
    /// Their tokens.
    pub our_tokens: u64,
    /// Calls that the provider counted; `None`: it tells none by model.
    pub metered_calls: Option<u64>,
    /// The tokens that it counted.
    pub metered_tokens: u64,
}

/// Both books side by side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reconciliation {
    /// Every day and model that either has, in their order.
    pub rows: Vec<Compared>,
    /// Where they differ.
    pub differences: Vec<Difference>,
}

/// The day on which a call began, and the model that answered where it was another one.
type Origin = (Day, Option<String>);
/// A day and a model.
type Place = (Day, String);

/// Our books by the provider's days, summed from the call log. As large as there are days and models.
#[derive(Debug, Clone)]
pub struct Books {
    zone: Calendar,
    days: [Day; 2],
    /// By the day on which calls ended and the model that was called.
    rows: BTreeMap<Day, BTreeMap<String, BTreeMap<Origin, Cell>>>,
    /// The day of the last moment that was asked for, with its first moment and that of the next: calls come in order.
    latest: (Day, [Timestamp; 2]),
}

impl Books {
    /// Empty books for these days, the last one included, that begin when `zone` says.
    #[must_use]
    pub const fn new(zone: Calendar, days: [Day; 2]) -> Self {
        Self {
            zone,
            days,
            rows: BTreeMap::new(),
            latest: (Day(0), [Timestamp::from_millis(0); 2]),
        }
    }

    fn day(&mut self, at: Timestamp) -> Day {
        let (day, [first, next]) = self.latest;
        if first <= at && at < next {
            return day;
        }
        let day = self.zone.day(at);
        let next = Day(day.0.saturating_add(1));
        self.latest = (day, [day, next].map(|day| self.zone.start_of(day)));
        day
    }

    /// Adds a call of the log.
    pub fn add(&mut self, call: &CallRecord) {
        let [first, last] = self.days;
        let (begin, end) = (self.day(call.started_at), self.day(call.ended_at));
        if end < first || begin > last {
            return;
        }
        let Some(cell) = Cell::of(call) else { return };
        let model = model_name::canonical(&call.model);
        let other = call.answered_by.as_deref().map(model_name::canonical);
        let other = other.filter(|other| *other != model);
        let models = self.rows.entry(end).or_default();
        // No copy of the name for each of a million calls.
        let cells = match models.get_mut(&*model) {
            Some(cells) => cells,
            None => models.entry(model.into_owned()).or_default(),
        };
        let origin = (begin, other.map(Cow::into_owned));
        cells.entry(origin).or_default().add(&cell);
    }

    /// Compares them with what the provider metered on the days that it told of; other days are left out.
    ///
    /// A provider counts a call on the day on which it began or on which it ended, and by the model that was called or
    /// by the one that answered, and does not say which: it is believed to do what leaves the fewest differences.
    #[must_use]
    pub fn reconcile(&self, told: &BTreeMap<Day, Vec<Metered>>) -> Reconciliation {
        let sheets = Reading::ALL.map(|reading| Sheet::of(self, told, reading));
        let best = sheets.into_iter().min_by_key(Sheet::unexplained);
        best.map(|sheet| sheet.told(self)).unwrap_or_default()
    }
}

/// How the provider counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    by_begin: bool,
    by_answer: bool,
}

impl Reading {
    /// Of two that explain as much, the one before.
    const ALL: [Self; 4] = [
        Self::of(false, false),
        Self::of(false, true),
        Self::of(true, false),
        Self::of(true, true),
    ];

    const fn of(by_begin: bool, by_answer: bool) -> Self {
        Self {
            by_begin,
            by_answer,
        }
    }

    const fn day(self, end: Day, begin: Day) -> Day {
        match self.by_begin {
            true => begin,
            false => end,
        }
    }
}

/// What is compared of a day and a model.
#[derive(Debug, Default)]
struct Line {
    /// As it is compared.
    ours: Cell,
    /// As our books have it: by the model that was called.
    booked: Sum,
    metered: u64,
    metered_calls: Option<u64>,
}

impl Line {
    /// So much more the provider has.
    fn gap(&self) -> i128 {
        i128::from(self.metered) - i128::from(self.ours.booked().tokens)
    }

    /// So much of that nothing explains that is not sure.
    fn unexplained(&self) -> i128 {
        let gap = self.gap();
        let after = gap - self.ours.untold.within(gap);
        after - self.ours.doubt.within(after)
    }

    /// What calls of which it is not sure what they came to explain: by answers without their tokens, and by calls in
    /// doubt.
    fn explained(&self) -> [i128; 2] {
        let gap = self.gap();
        let Cell { doubt, untold, .. } = &self.ours;
        // What was answered was counted for certain, what is in doubt perhaps. Where the provider tells more calls than
        // our books have, those in doubt are among them.
        let booked = i128::from(self.ours.booked().calls);
        let has_more = self.metered_calls.map(|calls| i128::from(calls) > booked);
        if doubt.calls > 0 && has_more == Some(true) {
            let of_doubt = doubt.within(gap);
            return [untold.within(gap - of_doubt), of_doubt];
        }
        let of_untold = untold.within(gap);
        [of_untold, doubt.within(gap - of_untold)]
    }
}

/// All that is compared, read in one way.
struct Sheet {
    reading: Reading,
    lines: BTreeMap<Place, Line>,
}

impl Sheet {
    fn of(books: &Books, told: &BTreeMap<Day, Vec<Metered>>, reading: Reading) -> Self {
        let [first, last] = books.days;
        let is_told = |day: &Day| (first..=last).contains(day) && told.contains_key(day);
        let mut lines: BTreeMap<Place, Line> = BTreeMap::new();
        for (end, models) in &books.rows {
            for (model, cells) in models {
                for ((begin, other), cell) in cells {
                    let day = reading.day(*end, *begin);
                    if !is_told(&day) {
                        continue;
                    }
                    let as_called = lines.entry((day, model.clone())).or_default();
                    as_called.booked.add(cell.booked());
                    let counted = other.as_ref().filter(|_| reading.by_answer);
                    let counted = counted.unwrap_or(model).clone();
                    lines.entry((day, counted)).or_default().ours.add(cell);
                }
            }
        }
        for (day, metered) in told.iter().filter(|(day, _)| is_told(day)) {
            for of_model in metered {
                let model = model_name::canonical(&of_model.model).into_owned();
                let line = lines.entry((*day, model)).or_default();
                line.metered = line.metered.saturating_add(of_model.tokens);
                let calls = of_model.calls;
                let before = line.metered_calls.unwrap_or(0);
                line.metered_calls = calls.map(|calls| calls.saturating_add(before));
            }
        }
        Self { reading, lines }
    }

    /// How many lines differ for no reason that is known, and by how many tokens.
    fn unexplained(&self) -> (usize, u128) {
        let off = self.lines.values().map(Line::unexplained);
        off.filter(|off| *off != 0)
            .fold((0, 0), |(lines, tokens), off| {
                (lines + 1, tokens.saturating_add(off.unsigned_abs()))
            })
    }

    fn told(&self, books: &Books) -> Reconciliation {
        let mut differences = self.switched(books);
        let mut unexplained: BTreeMap<Day, Vec<(&str, i128)>> = BTreeMap::new();
        for ((day, model), line) in &self.lines {
            let [of_untold, of_doubt] = line.explained();
            let Cell { doubt, untold, .. } = line.ours;
            for (cause, calls, tokens) in [
                (Cause::UsageMissing, untold.calls, of_untold),
                (Cause::InDoubt, doubt.calls, of_doubt),
            ] {
                if tokens != 0 {
                    differences.push(Difference {
                        calls: Some(calls),
                        ..Difference::of(*day, model, cause, tokens)
                    });
                }
            }
            let rest = line.gap() - of_untold - of_doubt;
            if rest != 0 {
                unexplained.entry(*day).or_default().push((model, rest));
            }
        }
        for (day, rests) in unexplained {
            differences.extend(named(day, rests));
        }
        differences.sort_by(|a, b| {
            let order = |one: &Difference| (one.date, one.cause);
            (order(a), &a.model).cmp(&(order(b), &b.model))
        });
        Reconciliation {
            rows: self.compared(),
            differences,
        }
    }

    /// The calls that another model answered, where the provider counts them by that.
    fn switched(&self, books: &Books) -> Vec<Difference> {
        let mut switched: BTreeMap<(Place, &str), Sum> = BTreeMap::new();
        for (end, models) in books.rows.iter().filter(|_| self.reading.by_answer) {
            for (model, cells) in models {
                for ((begin, other), cell) in cells {
                    let place = (self.reading.day(*end, *begin), model.clone());
                    let sum = cell.booked();
                    if let Some(other) = other.as_deref()
                        && self.lines.contains_key(&place)
                        && sum.tokens > 0
                    {
                        switched.entry((place, other)).or_default().add(sum);
                    }
                }
            }
        }
        let switched = switched.into_iter().map(|(((day, model), other), sum)| {
            let tokens = -i128::from(sum.tokens);
            Difference {
                calls: Some(sum.calls),
                answered_by: Some(other.to_owned()),
                ..Difference::of(day, &model, Cause::ModelSwitched, tokens)
            }
        });
        switched.collect()
    }

    fn compared(&self) -> Vec<Compared> {
        let lines = self.lines.iter();
        let any = lines.filter(|(_, line)| line.booked != Sum::default() || line.metered > 0);
        any.map(|((day, model), line)| Compared {
            date: *day,
            model: model.clone(),
            our_calls: line.booked.calls,
            our_tokens: line.booked.tokens,
            metered_calls: line.metered_calls,
            metered_tokens: line.metered,
        })
        .collect()
    }
}

/// The names of what nothing in our books explains, on one day. What one model has too little of and another one too
/// much, to the token, was a call that the provider gave to the other one without saying so.
fn named(date: Day, mut rests: Vec<(&str, i128)>) -> Vec<Difference> {
    let mut found = Vec::new();
    while let Some((model, rest)) = rests.pop() {
        let other = rests.iter().position(|(_, other)| *other == -rest);
        let Some(other) = other else {
            let cause = match rest > 0 {
                true => Cause::NotOurs,
                false => Cause::NotMetered,
            };
            found.push(Difference::of(date, model, cause, rest));
            continue;
        };
        let (other, _) = rests.swap_remove(other);
        let (from, to) = match rest > 0 {
            true => (other, model),
            false => (model, other),
        };
        found.push(Difference {
            answered_by: Some(to.to_owned()),
            ..Difference::of(date, from, Cause::ModelSwitched, -rest.abs())
        });
    }
    found
}

impl Difference {
    fn of(date: Day, model: &str, cause: Cause, tokens: i128) -> Self {
        let most = match tokens < 0 {
            true => i64::MIN,
            false => i64::MAX,
        };
        Self {
            date,
            model: model.to_owned(),
            cause,
            calls: None,
            tokens: i64::try_from(tokens).unwrap_or(most),
            answered_by: None,
        }
    }
}

fn text<S: Serializer>(day: &Day, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(day)
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
