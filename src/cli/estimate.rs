//! `onelane estimate`: what a file of prompts may cost, line by line counted and summed by model.
//! Nothing is sent or stored. The daemon that has the store open is
//! asked: it knows the store's answers, and the settings that were changed while it runs.

use std::collections::BTreeMap;
use std::path::Path;

use onelane::config::Loaded;
use onelane::estimate::{self, History, JobEstimate, Total};
use onelane::model::{Cost, Currency, DEFAULT_USER, Settings};
use onelane::ports::{Store as _, UsageFilter};
use onelane::store::{RedbStore, StoreOptions};
use onelane::words::{counted, verb};
use serde::{Serialize, Serializer};

use super::args::EstimateArgs;
use super::exit::{CliError, Exit};
use super::remote::Daemon;
use super::run::{self, Defaults, Line};
use super::{start, table};

/// Who estimates.
enum By<'a> {
    /// This process, by the configuration and what the store tells.
    Here(Box<Settings>, History),
    /// The daemon that has the store open, by the settings that it runs with.
    Daemon(&'a Daemon),
}

/// Estimates a file of prompts.
pub(crate) async fn estimate(
    args: &EstimateArgs,
    daemon: Option<&Daemon>,
    json: bool,
) -> Result<Exit, CliError> {
    let input = run::open(&args.input)?;
    let (by, currency) = match daemon {
        Some(daemon) => {
            let currency = daemon.currency().await?;
            (By::Daemon(daemon), currency)
        }
        None => {
            let loaded = start::look(&args.common)?;
            let history = history(&loaded);
            let currency = loaded.settings.prices.currency();
            (By::Here(Box::new(loaded.settings), history), currency)
        }
    };
    // As a run takes them.
    let defaults = Defaults {
        user_id: DEFAULT_USER.to_owned(),
        priority: 0,
        model: args.common.model.clone().unwrap_or_default(),
        names_model: daemon.is_some() && args.common.model.is_some(),
        batch: None,
    };
    let mut chunks = run::read(input.reader(&args.input)?)?;
    let mut sums = Sums::new(currency);
    while let Some(chunk) = chunks.recv().await {
        let lines = chunk.map_err(|e| {
            let input = run::name(&args.input);
            CliError::new(Exit::Usage, format!("{input} can't be read: {e}"))
        })?;
        for (line, estimated) in by.estimate(lines, &defaults).await? {
            sums.add(line, estimated);
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

impl By<'_> {
    /// Each line's estimate, by its number.
    async fn estimate(
        &self,
        lines: Vec<Line>,
        defaults: &Defaults,
    ) -> Result<Vec<(u64, Estimated)>, CliError> {
        let daemon = match self {
            Self::Here(settings, history) => {
                let each = lines.into_iter().map(|line| {
                    let estimated = line.asked.and_then(|asked| {
                        let submission = defaults.submission(None, asked);
                        let estimated = estimate::of(&submission, settings, history);
                        estimated.map_err(|refused| refused.to_string())
                    });
                    (line.number, estimated)
                });
                return Ok(each.collect());
            }
            Self::Daemon(daemon) => daemon,
        };
        let mut all = Vec::with_capacity(lines.len());
        let mut jobs = Vec::with_capacity(lines.len());
        for line in lines {
            match line.asked {
                Ok(asked) => {
                    jobs.push((line.number, defaults.submission(None, asked)));
                }
                Err(problem) => all.push((line.number, Err(problem))),
            }
        }
        let (numbers, jobs): (Vec<u64>, Vec<_>) = jobs.into_iter().unzip();
        if !jobs.is_empty() {
            all.extend(numbers.into_iter().zip(daemon.estimate(&jobs).await?));
        }
        all.sort_by_key(|(number, _)| *number);
        Ok(all)
    }
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

/// A line's estimate, or why it is no job.
type Estimated = Result<JobEstimate, String>;

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

    fn add(&mut self, number: u64, estimated: Estimated) {
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
