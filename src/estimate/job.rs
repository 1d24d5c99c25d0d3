//! One job and many: what they may come to, at the least and at the most.

use std::collections::BTreeMap;

use onelane_core::model::{
    Currency, Moments, Nanos, Settings, Submission, SubmissionError, UsageRow, amount, model_name,
};
use onelane_core::money::{estimate, forecast};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Estimate, GlmTokenizer};

/// What one job may come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Estimate")]
pub struct JobEstimate {
    /// The model that it would be sent to.
    pub model: String,
    /// Its tokens.
    #[serde(flatten)]
    pub tokens: Estimate,
    /// The completion's, as answers usually are.
    #[serde(rename = "expectedCompletionTokens")]
    pub completion_tokens_expected: u64,
    /// What it may cost; not known for a model without a price.
    pub cost: Option<CostRange>,
    /// What the list in force counts in.
    pub currency: Currency,
    /// What earlier answers of the model tell of it; left out where there were too few.
    #[serde(rename = "learnt", default, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

/// What earlier answers tell of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EstimateLearnt")]
#[serde(rename_all = "camelCase")]
struct Told {
    /// How many there were.
    answers: u64,
    /// How much more than expected it costs if its answer is longer by a standard deviation.
    #[serde(
        rename = "costApart",
        serialize_with = "amount::serialize",
        deserialize_with = "exact"
    )]
    #[schemars(with = "f64")]
    apart: Nanos,
    /// How long its call takes, in milliseconds.
    call_ms: u64,
    /// How far such times lie apart: a standard deviation.
    call_ms_apart: u64,
}

/// An amount as programs are told it.
fn exact<'de, D: Deserializer<'de>>(from: D) -> Result<Nanos, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    let amount = Decimal::from_str_exact(raw.get().trim_matches('"')).ok();
    let nanos = amount.and_then(|amount| amount.checked_mul(Decimal::from(1_000_000_000)));
    nanos
        .and_then(|nanos| nanos.to_i64())
        .ok_or_else(|| D::Error::custom("an amount is no decimal"))
}

/// The least and the most that something may cost, in the currency that stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CostRange {
    /// The prompt wholly from GLM's cache, and nothing answered.
    #[serde(serialize_with = "amount::serialize", deserialize_with = "exact")]
    #[schemars(with = "f64")]
    pub min: Nanos,
    /// The prompt as counted, nothing of it from the cache, and an answer of the usual length.
    #[serde(serialize_with = "amount::serialize", deserialize_with = "exact")]
    #[schemars(with = "f64")]
    pub expected: Nanos,
    /// The longest answer, in the dearest tier that the call could end in, for a prompt that is longer
    /// than counted by the margin.
    #[serde(serialize_with = "amount::serialize", deserialize_with = "exact")]
    #[schemars(with = "f64")]
    pub max: Nanos,
}

/// How long a model's answers were so far, and how long it took to give them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(BTreeMap<String, Answers>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Answers {
    tokens: Moments,
    times: Moments,
}

impl History {
    /// Fewer answers tell nothing.
    const ANSWERS_MIN: u64 = 5;

    /// From the usage of some days.
    #[must_use]
    pub fn of(usage: &[UsageRow]) -> Self {
        let mut models: BTreeMap<String, Answers> = BTreeMap::new();
        for row in usage {
            let answers = models.entry(row.key.model.clone()).or_default();
            answers.tokens.merge(&row.answer_tokens);
            answers.times.merge(&row.answer_times);
        }
        Self(models)
    }

    fn usual(&self, model: &str) -> Option<u64> {
        let tokens = &self.0.get(model)?.tokens;
        tokens.mean().filter(|_| tokens.count >= Self::ANSWERS_MIN)
    }

    /// `None`: there were too few to say how far they lie apart.
    fn told(&self, model: &str, cost_of: impl Fn(u64) -> Option<Nanos>) -> Option<Told> {
        let Answers { tokens, times } = self.0.get(model)?;
        if tokens.count < forecast::LEARNT_FROM_MIN {
            return None;
        }
        let usual = tokens.mean()?;
        let longer = cost_of(usual.saturating_add(tokens.deviation()?))?;
        Some(Told {
            answers: tokens.count,
            apart: longer.saturating_sub(cost_of(usual)?).max(0),
            call_ms: times.mean()?,
            call_ms_apart: times.deviation()?,
        })
    }
}

/// How much longer than counted a prompt may be: a tenth of it, and sixteen tokens for what the
/// template adds. The count is not exact, and one token more may be another tier.
const fn with_margin(prompt_tokens: u64) -> u64 {
    prompt_tokens
        .saturating_add(prompt_tokens.div_ceil(10))
        .saturating_add(16)
}

/// Estimates one job, unless it would be refused. Counting takes the processor for as long as the prompt
/// is, and the first count for some time unpacks the vocabulary: not for an async worker.
pub fn of(
    submission: &Submission,
    settings: &Settings,
    history: &History,
) -> Result<JobEstimate, SubmissionError> {
    submission.validate(settings)?;
    let model = model_name::canonical(&submission.model_in(settings)).into_owned();
    let tokens = estimate::of(
        &submission.request,
        &model,
        settings.glm.max_tokens,
        &GlmTokenizer,
    );
    let usual = history
        .usual(&model)
        .unwrap_or_else(|| estimate::usual_answer(&model));
    let usual = usual.min(tokens.completion_tokens_max);
    let prices = &settings.prices;
    let cost_of = |answer: u64| {
        let answer = answer.min(tokens.completion_tokens_max);
        let cost = prices.worst_case(&model, tokens.prompt_tokens, answer);
        cost.map(|cost| cost.nanos)
    };
    let expected = cost_of(usual);
    let longest = with_margin(tokens.prompt_tokens);
    let min = prices.best_case(&model, tokens.prompt_tokens);
    // Where the list ends before the longest prompt does, nobody knows the most.
    let max = prices
        .best_case(&model, longest)
        .and_then(|_| prices.worst_case(&model, longest, tokens.completion_tokens_max));
    Ok(JobEstimate {
        cost: min.zip(max).map(|(min, max)| CostRange {
            min: min.nanos,
            expected: expected.unwrap_or(max.nanos),
            max: max.nanos,
        }),
        completion_tokens_expected: usual,
        currency: prices.currency(),
        told: history.told(&model, cost_of),
        model,
        tokens,
    })
}

/// What several jobs may come to together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "EstimateTotal")]
#[serde(rename_all = "camelCase")]
pub struct Total {
    /// How many.
    pub jobs: u64,
    /// Those of them whose cost is not known and not in the sum.
    pub unpriced_jobs: u64,
    /// Sums of the tokens.
    #[serde(flatten)]
    pub tokens: Estimate,
    /// Sum of the completions, as answers usually are.
    #[serde(rename = "expectedCompletionTokens")]
    pub completion_tokens_expected: u64,
    /// What those with a price may cost; not known when there are jobs and none has one.
    pub cost: Option<CostRange>,
    /// What the costs are counted in.
    pub currency: Currency,
    /// What earlier answers of these models tell; not known where one of them has given too few.
    pub forecast: Option<TotalForecast>,
    #[serde(skip)]
    told: ToldInAll,
}

/// What earlier answers tell of jobs that are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "EstimateForecast")]
#[serde(rename_all = "camelCase")]
pub struct TotalForecast {
    /// In one of ten cases the jobs with a price cost less.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub cost_low: Nanos,
    /// In one of ten cases they cost more.
    #[serde(serialize_with = "amount::serialize")]
    #[schemars(with = "f64")]
    pub cost_high: Nanos,
    /// How long all calls take one after the other, in milliseconds, without anything between them: one of ten
    /// times less.
    pub calls_ms_low: u64,
    /// The mean.
    pub calls_ms: u64,
    /// One of ten times more.
    pub calls_ms_high: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ToldInAll {
    jobs: u64,
    costs: forecast::Sum,
    times: forecast::Sum,
}

impl ToldInAll {
    fn add(&mut self, job: &JobEstimate) {
        let Some(told) = job.told else { return };
        self.jobs += 1;
        if let Some(cost) = job.cost {
            let [expected, apart] = [cost.expected, told.apart].map(i64::unsigned_abs);
            self.costs.add(expected, apart, told.answers);
        }
        self.times
            .add(told.call_ms, told.call_ms_apart, told.answers);
    }

    /// Within what the jobs may cost at all.
    fn forecast(&self, jobs: u64, cost: Option<CostRange>) -> Option<TotalForecast> {
        let bounds = cost.filter(|_| self.jobs == jobs && jobs > 0)?;
        let (costs, times) = (self.costs.range(), self.times.range());
        let nanos = |value: u64| i64::try_from(value).unwrap_or(Nanos::MAX);
        let within = |value: u64| nanos(value).clamp(bounds.min, bounds.max);
        Some(TotalForecast {
            cost_low: within(costs.low),
            cost_high: within(costs.high),
            calls_ms_low: times.low,
            calls_ms: times.expected,
            calls_ms_high: times.high,
        })
    }
}

impl Total {
    /// Of no jobs.
    #[must_use]
    pub fn new(currency: Currency) -> Self {
        Self {
            forecast: None,
            told: ToldInAll::default(),
            jobs: 0,
            unpriced_jobs: 0,
            tokens: Estimate {
                prompt_tokens: 0,
                completion_tokens_max: 0,
            },
            completion_tokens_expected: 0,
            cost: Some(CostRange {
                min: 0,
                expected: 0,
                max: 0,
            }),
            currency,
        }
    }

    /// Adds a job, estimated by the list that the total is of.
    pub fn add(&mut self, job: &JobEstimate) {
        let sum = |total: &mut u64, tokens: u64| *total = total.saturating_add(tokens);
        self.jobs += 1;
        sum(&mut self.tokens.prompt_tokens, job.tokens.prompt_tokens);
        sum(
            &mut self.tokens.completion_tokens_max,
            job.tokens.completion_tokens_max,
        );
        sum(
            &mut self.completion_tokens_expected,
            job.completion_tokens_expected,
        );
        match job.cost {
            Some(cost) => {
                let sum = self.cost.get_or_insert_default();
                sum.min = sum.min.saturating_add(cost.min);
                sum.expected = sum.expected.saturating_add(cost.expected);
                sum.max = sum.max.saturating_add(cost.max);
            }
            None => self.unpriced_jobs += 1,
        }
        if self.unpriced_jobs == self.jobs {
            self.cost = None;
        }
        self.told.add(job);
        self.forecast = self.told.forecast(self.jobs, self.cost);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onelane_core::model::{PriceRow, PriceTable, Unpriced};

    use super::*;

    fn settings() -> Settings {
        let mut prices = PriceTable::new(Currency::Cny);
        let row = |completion_from, units: [i64; 3]| {
            let [input, cached_input, output] = units.map(|units| units * 1_000_000_000);
            PriceRow {
                prompt_from: 0,
                completion_from,
                prompt_to: None,
                input,
                cached_input,
                output,
                ..PriceRow::default()
            }
        };
        prices.add("glm-4.7", row(0, [2, 1, 8]));
        prices.add("glm-4.7", row(200, [3, 2, 14]));
        let mut settings = Settings {
            prices: Arc::new(prices),
            ..Settings::default()
        };
        settings.glm.max_tokens = Some(1_000);
        settings
    }

    #[test]
    fn what_is_expected_is_the_usual_answer_or_what_history_tells() {
        let (prompt, settings) = (Submission::prompt("hello world").unwrap(), settings());
        let expected = |history: &History| {
            let job = of(&prompt, &settings, history).unwrap();
            (job.completion_tokens_expected, job.cost.unwrap().expected)
        };
        let price = |tokens: u32| (u64::from(tokens), 8 * 3_000 + i64::from(tokens) * 14_000);
        // As long as GLM's usually are, and no longer than it may be.
        assert_eq!(expected(&History::default()), price(1_000));
        let row = |answers: u64, tokens: u64| {
            let key = onelane_core::model::UsageKey {
                day: onelane_core::model::Day(1),
                model: "glm-4.7".to_owned(),
                user_id: "u".to_owned(),
                key_id: None,
            };
            let mut row = UsageRow::empty(key);
            (0..answers).for_each(|_| row.answer_tokens.record(tokens / answers));
            row
        };
        assert_eq!(
            expected(&History::of(&[row(6, 600), row(4, 1_400)])),
            price(200)
        );
        assert_eq!(
            expected(&History::of(&[row(2, 10)])),
            price(1_000),
            "two tell nothing"
        );
    }

    #[test]
    fn a_total_says_what_earlier_answers_tell_of_its_cost_and_its_time() {
        let key = onelane_core::model::UsageKey {
            day: onelane_core::model::Day(1),
            model: "glm-4.7".to_owned(),
            user_id: "u".to_owned(),
            key_id: None,
        };
        let mut row = UsageRow::empty(key);
        for n in 0..100 {
            row.answer_tokens.record(100 + 100 * (n % 2));
            row.answer_times.record(2_000);
        }
        let history = History::of(&[row]);
        let total = |model: &str, jobs| {
            let (mut total, settings) = (Total::new(Currency::Cny), settings());
            for _ in 0..jobs {
                let prompt = Submission::prompt("hello world").unwrap().model(model);
                total.add(&of(&prompt, &settings, &history).unwrap());
            }
            total
        };
        let many = total("glm-4.7", 400);
        let (said, cost) = (many.forecast.unwrap(), many.cost.unwrap());
        assert_eq!(cost.expected, 400 * (8 * 2_000 + 150 * 8_000));
        assert!(cost.min < said.cost_low && said.cost_low < cost.expected);
        assert!(cost.expected < said.cost_high && said.cost_high < cost.max);
        assert_eq!(
            (said.calls_ms_low, said.calls_ms, said.calls_ms_high),
            (800_000, 800_000, 800_000)
        );
        // Of one answer less is certain than of the mean of many.
        let one = total("glm-4.7", 1);
        let width = |total: Total| {
            let said = total.forecast.unwrap();
            (said.cost_high - said.cost_low) / i64::try_from(total.jobs).unwrap()
        };
        assert!(width(one) > 5 * width(many));
        assert_eq!(
            total("glm-5", 3).forecast,
            None,
            "nobody has seen its answers"
        );
    }

    #[test]
    fn a_job_costs_between_a_cached_prompt_and_the_longest_answer() {
        let job = of(
            &Submission::prompt("hello world").unwrap(),
            &settings(),
            &History::default(),
        )
        .unwrap();
        assert_eq!(job.model, "glm-4.7");
        // Two of text, three of the message, three of the template.
        assert_eq!(job.tokens.prompt_tokens, 8);
        assert_eq!(job.tokens.completion_tokens_max, 1_000);
        let cost = job.cost.unwrap();
        assert_eq!(cost.min, 8 * 1_000);
        assert_eq!(cost.max, (8 + 1 + 16) * 3_000 + 1_000 * 14_000);
        assert_eq!(job.currency, Currency::Cny);
    }

    /// Of a prompt of a thousand tokens and some, with a tier that begins at 1100 and a list that ends
    /// at 2000.
    fn near_a_bound(words: usize) -> Option<CostRange> {
        let mut prices = PriceTable::new(Currency::Cny);
        let row = |prompt_from, input| PriceRow {
            prompt_from,
            completion_from: 0,
            prompt_to: Some(2_000),
            input,
            cached_input: 0,
            output: 0,
            ..PriceRow::default()
        };
        prices.add("glm-5", row(0, 1_000_000));
        prices.add("glm-5", row(1_100, 2_000_000));
        let settings = Settings {
            prices: Arc::new(prices),
            ..Settings::default()
        };
        let prompt = Submission::prompt("word ".repeat(words)).unwrap();
        let job = of(&prompt.model("glm-5"), &settings, &History::default()).unwrap();
        assert_eq!(job.tokens.prompt_tokens, words as u64 + 7);
        job.cost
    }

    #[test]
    fn a_prompt_counted_just_below_a_tier_is_priced_in_it() {
        // 980 + 98 + 16 stays below; 990 + 99 + 16 does not.
        assert_eq!(near_a_bound(973).unwrap().max, 1_094);
        assert_eq!(near_a_bound(983).unwrap().max, 2 * 1_105);
        assert!(near_a_bound(1_700).is_some());
        assert_eq!(near_a_bound(1_900), None, "nobody knows the most");
    }

    #[test]
    fn what_would_be_refused_has_no_estimate() {
        let mut settings = settings();
        let refused = |change: &dyn Fn(&mut Submission), settings: &Settings| {
            let mut submission = Submission::prompt("hi").unwrap().model("glm-9");
            change(&mut submission);
            of(&submission, settings, &History::default())
                .unwrap_err()
                .to_string()
        };
        let check = |got: String, want: &str| assert!(got.contains(want), "{got}");
        check(
            refused(&|s| s.model = Some(String::new()), &settings),
            "model",
        );
        check(refused(&|s| s.user_id.clear(), &settings), "userId");
        check(
            refused(&|s| s.max_retries = Some(100_000), &settings),
            "maxRetries",
        );
        settings.unpriced = Unpriced::Refuse;
        check(refused(&|_| (), &settings), "glm-9 has no price in CNY");
    }

    #[test]
    fn a_total_says_how_many_jobs_are_not_in_its_cost() {
        let settings = settings();
        let job = |model: &str| {
            let submission = Submission::prompt("hi").unwrap().model(model);
            of(&submission, &settings, &History::default()).unwrap()
        };
        let mut total = Total::new(Currency::Cny);
        assert_eq!(total.cost.unwrap().max, 0);
        total.add(&job("glm-9"));
        assert_eq!(total.cost, None, "unknown is not nothing");
        total.add(&job("glm-4.7"));
        total.add(&job("glm-4.7"));
        assert_eq!((total.jobs, total.unpriced_jobs), (3, 1));
        assert_eq!(total.tokens.completion_tokens_max, 3_000);
        let one = job("glm-4.7").cost.unwrap().max;
        assert_eq!(total.cost.unwrap().max, 2 * one);
    }
}
