//! `onelane estimate`: what a file of prompts may cost, line by line counted and summed by model.
//! Nothing is sent or stored.

use std::collections::BTreeMap;
use std::path::Path;

use onelane::config::Loaded;
use onelane::estimate::{self, History, Total};
use onelane::model::{Cost, Currency, DEFAULT_USER, Settings};
use onelane::ports::{Store as _, UsageFilter};
use onelane::store::{RedbStore, StoreOptions};
use onelane::words::{counted, verb};
use serde::{Serialize, Serializer};

use super::args::EstimateArgs;
use super::exit::{CliError, Exit};
use super::run::{self, Defaults, Line};
use super::{start, table};

/// Estimates a file of prompts.
pub(crate) async fn estimate(args: &EstimateArgs, json: bool) -> Result<Exit, CliError> {
    let input = run::open(&args.input)?;
    let loaded = start::look(&args.common)?;
    let history = history(&loaded);
    let settings = loaded.settings;
    // As a run takes them.
    let defaults = Defaults {
        user_id: DEFAULT_USER.to_owned(),
        priority: 0,
        model: settings.glm.model.clone(),
        batch: None,
    };
    let mut chunks = run::read(input.reader(&args.input)?)?;
    let mut sums = Sums::new(settings.prices.currency());
    while let Some(chunk) = chunks.recv().await {
        let lines = chunk.map_err(|e| {
            let input = run::name(&args.input);
            CliError::new(Exit::Usage, format!("{input} can't be read: {e}"))
        })?;
        for line in lines {
            sums.add(line, &defaults, &settings, &history);
        }
    }
    if !json {
        for bad in &sums.bad_lines {
            super::note(&format!("line {}: {}", bad.line, bad.problem));
        }
    }
    super::answer(json, &sums, Sums::text)?;
    Ok(if sums.bad == 0 {
        Exit::Done
    } else {
        Exit::JobsFailed
    })
}

/// How long answers were so far, as far as a store is there that tells it.
fn history(loaded: &Loaded) -> History {
    let path = Path::new(&loaded.config.store.path);
    if !path.exists() {
        return History::default();
    }
    let store = RedbStore::open_to_look(path, StoreOptions::default());
    let usage = store.and_then(|store| store.usage(&UsageFilter::default()));
    usage.map_or_else(|_| History::default(), |usage| History::of(&usage))
}

/// Bad lines that are told one by one: a file of another kind has nothing else.
const BAD_LINES_TOLD_MAX: usize = 100;

/// The lines read so far.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    #[serde(serialize_with = "as_list")]
    models: BTreeMap<String, Total>,
    total: Total,
    /// The first of them.
    bad_lines: Vec<BadLine>,
    bad: u64,
}

fn as_list<S: Serializer>(models: &BTreeMap<String, Total>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct OfModel<'a> {
        model: &'a str,
        #[serde(flatten)]
        total: &'a Total,
    }
    to.collect_seq(models.iter().map(|(model, total)| OfModel { model, total }))
}

/// A line that is no job, or one that would be refused.
#[derive(Serialize)]
struct BadLine {
    line: u64,
    problem: String,
}

impl Sums {
    fn new(currency: Currency) -> Self {
        Self {
            models: BTreeMap::new(),
            total: Total::new(currency),
            bad_lines: Vec::new(),
            bad: 0,
        }
    }

    fn add(&mut self, line: Line, defaults: &Defaults, settings: &Settings, history: &History) {
        let number = line.number;
        let estimated = line.asked.and_then(|asked| {
            let submission = defaults.submission(None, asked);
            estimate::of(&submission, settings, history).map_err(|refused| refused.to_string())
        });
        let job = match estimated {
            Ok(job) => job,
            Err(problem) => {
                self.bad += 1;
                if self.bad_lines.len() < BAD_LINES_TOLD_MAX {
                    self.bad_lines.push(BadLine {
                        line: number,
                        problem,
                    });
                }
                return;
            }
        };
        self.total.add(&job);
        let currency = self.total.currency;
        let of_model = self.models.entry(job.model.clone());
        of_model.or_insert(Total::new(currency)).add(&job);
    }

    /// For a person.
    fn text(&self) -> String {
        let currency = self.total.currency;
        let decimal = |nanos| Cost { nanos, currency }.decimal();
        let row = |name: &str, total: &Total| {
            let costs = match total.cost {
                Some(cost) => [cost.min, cost.expected, cost.max].map(decimal),
                None => ["unknown"; 3].map(str::to_owned),
            };
            let [min, expected, max] = costs;
            [
                name.to_owned(),
                total.jobs.to_string(),
                total.tokens.prompt_tokens.to_string(),
                total.completion_tokens_expected.to_string(),
                total.tokens.completion_tokens_max.to_string(),
                min,
                expected,
                max,
            ]
        };
        let currency = currency.code();
        let [least, expected, most] =
            ["LEAST", "EXPECTED", "MOST"].map(|word| format!("{word} {currency}"));
        let head = [
            "MODEL",
            "JOBS",
            "PROMPT",
            "ANSWER",
            "ANSWER UP TO",
            &least,
            &expected,
            &most,
        ];
        let models = self.models.iter().map(|(name, total)| row(name, total));
        let total = std::iter::once(row("total", &self.total));
        let lines: Vec<_> = models.chain(total).collect();
        let mut text = table::table(head, &lines);
        if let Some(forecast) = self.total.forecast {
            let [low, high] = [forecast.cost_low, forecast.cost_high].map(decimal);
            let [least, mean, most] = [
                forecast.calls_ms_low,
                forecast.calls_ms,
                forecast.calls_ms_high,
            ]
            .map(run::span);
            text.push_str(&format!(
                "\n\nBy earlier answers of these models, in four of five cases: {low} to {high} {}, and {least} to \
                 {most} of calls one after the other, {mean} on average",
                self.total.currency.code()
            ));
        }
        if self.total.unpriced_jobs > 0 {
            text.push_str(&format!(
                "\n\n{} of {} {} no price; what they cost is not in the sums. Add their models \
                 to money.prices",
                self.total.unpriced_jobs,
                counted(self.total.jobs, "job", "jobs"),
                verb(self.total.unpriced_jobs, "has", "have")
            ));
        }
        if self.bad > 0 {
            text.push_str(&format!(
                "\n\n{}",
                counted(self.bad, "line is no job", "lines are no jobs")
            ));
        }
        text
    }
}
