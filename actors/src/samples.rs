//! How far estimates of prompts are off. The prompt of a call that ended is counted as an estimate counts
//! it and compared with what GLM counted: on a thread of its own that works at most a part of the time,
//! behind a short line. The thread never holds up the lane: it skips calls that it has no time for, and says how many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ractor::ActorRef;
use schemars::JsonSchema;
use serde::Serialize;

use crate::protocol::{CostMsg, Sample};
use onelane_core::model::limits;
use onelane_core::money::estimate::{self, CountTokens};

/// How far estimated prompts are from what GLM counted, over the calls that have both figures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimateError {
    /// The calls.
    pub calls: u64,
    /// Tokens of their prompts as estimated.
    pub estimated_tokens: u64,
    /// Tokens of their prompts as GLM counted them.
    pub counted_tokens: u64,
    /// The mean of |estimated - counted| / counted: 0.1 is ten per cent off, either way. There is none without
    /// calls.
    pub mean_relative_error: Option<f64>,
    /// Sum of the relative errors, in millionths.
    #[serde(skip)]
    pub relative_error_ppm: u64,
}

impl EstimateError {
    fn add(&mut self, estimated: u64, counted: u64) {
        let error = u128::from(estimated.abs_diff(counted)) * 1_000_000;
        // Without a count there is nothing to compare with.
        let Some(ppm) = error.checked_div(u128::from(counted)) else {
            return;
        };
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.calls, 1);
        sum(&mut self.estimated_tokens, estimated);
        sum(&mut self.counted_tokens, counted);
        sum(
            &mut self.relative_error_ppm,
            u64::try_from(ppm).unwrap_or(u64::MAX),
        );
        let mean = self.relative_error_ppm as f64 / 1e6 / self.calls as f64;
        self.mean_relative_error = Some(mean);
    }
}

/// The errors of all estimates since the start of the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(rename = "PromptEstimates")]
#[serde(rename_all = "camelCase")]
pub struct Estimates {
    /// Of all models together.
    #[serde(flatten)]
    pub total: EstimateError,
    /// Calls that were not counted again: too many at once, too long a prompt, or too many models. The lane
    /// goes on without waiting for that.
    pub skipped_calls: u64,
    /// By model.
    pub models: BTreeMap<String, EstimateError>,
}

impl Estimates {
    pub(crate) fn add(&mut self, model: String, estimated: u64, counted: u64) {
        let full = self.models.len() >= limits::SAMPLED_MODELS_MAX;
        if full && !self.models.contains_key(&model) {
            self.skipped_calls += 1;
            return;
        }
        self.total.add(estimated, counted);
        let of_model = self.models.entry(model).or_default();
        of_model.add(estimated, counted);
    }
}

/// The thread that counts. It ends when this is dropped.
pub(crate) struct Sampler(SyncSender<Sample>);

impl Sampler {
    /// Starts it; what it has counted goes to `cost`. Without a thread there are no figures, and the lane
    /// works all the same.
    pub(crate) fn start(tokens: Arc<dyn CountTokens>, cost: ActorRef<CostMsg>) -> Option<Self> {
        let (sender, samples) = sync_channel(limits::SAMPLES_WAITING_MAX);
        let thread = std::thread::Builder::new().name("estimates".to_owned());
        let started = thread.spawn(move || count(&samples, &*tokens, &cost));
        if let Err(error) = started {
            tracing::warn!(%error, "the error of estimates is not measured: no thread for it");
            return None;
        }
        Some(Self(sender))
    }

    /// Has a prompt counted; `false` when there is no room for it.
    pub(crate) fn offer(&self, sample: Sample) -> bool {
        sample.request.len() <= limits::SAMPLE_BYTES_MAX && self.0.try_send(sample).is_ok()
    }
}

/// So many times as long as it has worked the thread rests, so that the lane has the processor.
const REST: u32 = 4;
/// The shortest rest: to wake the thread for each call would cost a fast lane more than counting its prompt.
const REST_MIN: Duration = Duration::from_millis(10);
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long it works without a rest, but for a prompt that takes longer.
const WORK: Duration = Duration::from_millis(2);

fn count(samples: &Receiver<Sample>, tokens: &dyn CountTokens, cost: &ActorRef<CostMsg>) {
    while let Ok(mut sample) = samples.recv() {
        let begun = Instant::now();
        loop {
            let estimate = estimate::of(&sample.request, &sample.model, None, tokens);
            let counted = CostMsg::Counted {
                model: sample.model,
                estimated_tokens: estimate.prompt_tokens,
                counted_tokens: sample.counted_tokens,
            };
            if cost.cast(counted).is_err() {
                return;
            }
            if begun.elapsed() >= WORK {
                break;
            }
            sample = match samples.try_recv() {
                Ok(next) => next,
                Err(_) => break,
            };
        }
        std::thread::sleep((begun.elapsed() * REST).clamp(REST_MIN, REST_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_estimates_is_the_mean_of_every_calls_own() {
        let mut error = EstimateError::default();
        assert_eq!(error.mean_relative_error, None);
        error.add(110, 100);
        error.add(500, 1_000);
        error.add(7, 0);
        assert_eq!(error.calls, 2);
        assert_eq!((error.estimated_tokens, error.counted_tokens), (610, 1_100));
        assert_eq!(error.mean_relative_error, Some(0.3));
        error.add(u64::MAX, 1);
        assert_eq!(error.relative_error_ppm, u64::MAX);
    }

    #[test]
    fn errors_are_kept_by_model_and_of_a_bounded_number_of_them() {
        let mut estimates = Estimates::default();
        estimates.add("a".to_owned(), 90, 100);
        estimates.add("b".to_owned(), 80, 100);
        estimates.add("a".to_owned(), 110, 100);
        assert_eq!(estimates.models["a"].mean_relative_error, Some(0.1));
        assert_eq!(estimates.models["b"].mean_relative_error, Some(0.2));
        assert_eq!(estimates.total.calls, 3);
        for n in 0..1_000 {
            estimates.add(format!("made up {n}"), 1, 1);
        }
        assert_eq!(estimates.models.len(), limits::SAMPLED_MODELS_MAX);
        let calls = estimates.total.calls + estimates.skipped_calls;
        assert_eq!(calls, 1_003);
        estimates.add("a".to_owned(), 1, 1);
        assert_eq!(estimates.models["a"].calls, 3);
    }
}
