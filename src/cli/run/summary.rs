//! The end of a run, for a person and for a program.

use std::collections::BTreeMap;

use onelane::forecast;
use onelane::model::{Batch, BatchId, Cost, Moments};
use onelane::words::counted;
use serde::Serialize;

use super::left::HeldUp;
use super::progress::span;
use crate::cli::exit::Exit;

/// How many lines ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    /// Lines read that were not blank.
    pub(crate) lines: u64,
    /// Of these, answered by an earlier run and in the results already.
    pub(crate) done_before: u64,
    /// Answered and written in this run.
    pub(crate) completed: u64,
    /// Failed or cancelled, each with an error line.
    pub(crate) failed: u64,
    /// Not fit to be sent, each with an error line.
    pub(crate) bad: u64,
}

impl Tally {
    /// Lines read that have neither an answer nor an error yet.
    pub(crate) fn unfinished(&self) -> u64 {
        self.lines - self.done_before - self.ended()
    }

    /// Lines that ended in this run.
    pub(crate) fn ended(&self) -> u64 {
        self.completed + self.failed + self.bad
    }
}

/// What lines failed for, the most frequent reason first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Failures(BTreeMap<String, (u64, String)>);

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    count: u64,
    message: &'a str,
}

impl Failures {
    /// Codes that are told to a person.
    const TOLD_MAX: usize = 5;

    /// Counts a failure; the first message of a code stands for all.
    pub(crate) fn note(&mut self, code: &str, message: &str) {
        let of_code = self.0.entry(code.to_owned());
        of_code.or_insert_with(|| (0, message.to_owned())).0 += 1;
    }

    fn reasons(&self) -> Vec<Reason<'_>> {
        let reasons = self.0.iter().map(|(code, (count, message))| Reason {
            code,
            count: *count,
            message,
        });
        let mut reasons: Vec<_> = reasons.collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        reasons
    }

    fn lines(&self) -> Vec<String> {
        let reasons = self.reasons();
        let told = reasons.iter().take(Self::TOLD_MAX);
        let mut lines: Vec<String> = told
            .map(
                |Reason {
                     code,
                     count,
                     message,
                 }| format!("{count} failed with {code}: {message}"),
            )
            .collect();
        match reasons.len().saturating_sub(Self::TOLD_MAX) {
            0 => {}
            more => {
                let reasons = counted(more as u64, "more reason", "more reasons");
                lines.push(format!("and others for {reasons}"));
            }
        }
        lines
    }
}

impl Serialize for Failures {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.reasons().serialize(serializer)
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "end", rename_all = "camelCase")]
pub(crate) enum End {
    /// Every line of the input ended.
    Complete,
    /// A signal, or standard output was closed.
    Interrupted,
    /// The lane waits for an operator.
    Held(HeldUp),
}

/// What a run's own jobs came to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spent {
    /// Known costs, by currency.
    #[serde(rename = "spent")]
    pub(crate) costs: Vec<Cost>,
    /// Calls whose cost is not known: not nothing.
    pub(crate) unpriced_calls: u64,
    /// What each call of the batch cost, those of earlier runs too.
    #[serde(skip)]
    pub(crate) learnt: Moments,
}

impl Spent {
    /// What the run will have come to when so many lines more have ended: between which bounds, in four of five cases.
    /// `None`: too little is known.
    pub(crate) fn in_all(&self, left: u64) -> Option<[Cost; 2]> {
        let [spent] = self.costs.as_slice() else {
            return None;
        };
        let rest = forecast::rest(&self.learnt, left).filter(|_| self.unpriced_calls == 0)?;
        let with = |more: u64| Cost {
            nanos: spent.nanos.saturating_add_unsigned(more),
            ..*spent
        };
        Some([with(rest.low), with(rest.high)])
    }

    /// What a batch came to since it was as `before`.
    pub(crate) fn since(before: &Batch, now: &Batch) -> Self {
        let spent = |cost: &Cost| {
            let known = before.costs.iter().find(|c| c.currency == cost.currency);
            let nanos = cost
                .nanos
                .saturating_sub(known.map_or(0, |known| known.nanos));
            Cost { nanos, ..*cost }
        };
        Self {
            costs: now.costs.iter().map(spent).collect(),
            unpriced_calls: now.unpriced_calls.saturating_sub(before.unpriced_calls),
            learnt: now.learnt.costs,
        }
    }

    /// The figures that are not zero; `each` puts an amount into words.
    pub(crate) fn parts(&self, each: impl Fn(&Cost) -> String) -> Vec<String> {
        let known = self.costs.iter().filter(|cost| cost.nanos != 0).map(each);
        let unknown = match self.unpriced_calls {
            0 => None,
            calls => Some(counted(
                calls,
                "call at an unknown cost",
                "calls at an unknown cost",
            )),
        };
        known.chain(unknown).collect()
    }
}

/// The end of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// The input's name.
    pub(crate) input: String,
    /// Where results went.
    pub(crate) results: String,
    /// How many lines ended how.
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// What lines failed for.
    pub(crate) failures: Failures,
    /// How long it took.
    pub(crate) elapsed_ms: u64,
    /// The batch that it sent.
    pub(crate) batch_id: BatchId,
    /// Jobs that were cancelled since their lines are gone from the input.
    pub(crate) gone: u64,
    /// Jobs of others that still wait in the store.
    pub(crate) other_jobs: u64,
    /// The command that lists them.
    #[serde(skip)]
    pub(crate) list: String,
    /// What its batch came to in this run.
    #[serde(flatten)]
    pub(crate) spent: Spent,
    /// Whether the simulator answered: then nothing was billed.
    pub(crate) simulated: bool,
    /// Why it ended.
    #[serde(flatten)]
    pub(crate) end: End,
}

/// The summary with figures that follow from it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    unfinished: u64,
    exit_code: u8,
}

impl Summary {
    /// The code to exit with.
    pub(crate) fn exit(&self) -> Exit {
        match &self.end {
            End::Held(_) => Exit::Held,
            End::Interrupted => Exit::JobsFailed,
            End::Complete if self.tally.failed + self.tally.bad > 0 => Exit::JobsFailed,
            End::Complete => Exit::Done,
        }
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        let t = &self.tally;
        let mut out = format!(
            "{}: {} of {} done",
            self.input,
            t.completed + t.done_before,
            counted(t.lines, "line", "lines")
        );
        for (count, what) in [
            (t.done_before, "before"),
            (t.failed, "failed"),
            (t.bad, "bad"),
            (t.unfinished(), "not done"),
            (self.gone, "gone from the input and cancelled"),
        ] {
            if count > 0 {
                out.push_str(&format!(", {count} {what}"));
            }
        }
        let spent = self.spent.parts(|cost| {
            if self.simulated {
                format!("{cost} at list price, not billed")
            } else {
                format!("{cost} spent")
            }
        });
        for part in spent {
            out.push_str(&format!(", {part}"));
        }
        out.push_str(&format!(", in {}", span(self.elapsed_ms)));
        if self.results != "-" && t.done_before + t.ended() > 0 {
            out.push_str(&format!("; results in {}", self.results));
        }
        for line in self.failures.lines() {
            out.push_str(&format!("\n{line}"));
        }
        if self.other_jobs > 0 {
            out.push_str(&format!(
                "\n{}; see `{}`",
                counted(self.other_jobs, "other job waits", "other jobs wait"),
                self.list
            ));
        }
        match &self.end {
            End::Complete if t.failed > 0 => {
                out.push_str("\nrun the same command again to retry what failed");
            }
            End::Complete if t.bad > 0 => {
                out.push_str("\nmend the bad lines and run the same command again to send them");
            }
            End::Complete => {}
            End::Interrupted => {
                out.push_str("\ninterrupted; run the same command again to continue")
            }
            End::Held(HeldUp { reason, help }) => {
                out.push_str(&format!("\nheld: {reason}\nhelp: {help}"));
            }
        }
        out
    }

    /// For a program.
    pub(crate) fn json(&self) -> String {
        let json = Json {
            summary: self,
            unfinished: self.tally.unfinished(),
            exit_code: self.exit().code(),
        };
        serde_json::to_string(&json).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onelane::model::Currency;

    fn summary(end: End, failed: u64) -> Summary {
        Summary {
            input: "prompts.jsonl".to_owned(),
            results: "prompts.results.jsonl".to_owned(),
            tally: Tally {
                lines: 10,
                done_before: 2,
                completed: 4,
                failed,
                bad: 0,
            },
            failures: Failures::default(),
            elapsed_ms: 65_000,
            batch_id: BatchId::new(1),
            gone: 0,
            other_jobs: 0,
            list: "onelane batch ls".to_owned(),
            spent: Spent {
                costs: vec![Cost {
                    nanos: 28_000,
                    currency: Currency::Cny,
                }],
                unpriced_calls: 0,
                learnt: Moments::default(),
            },
            simulated: false,
            end,
        }
    }

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let held = End::Held(HeldUp {
            reason: "1113".to_owned(),
            help: "pay".to_owned(),
        });
        assert_eq!(summary(End::Complete, 0).exit(), Exit::Done);
        assert_eq!(summary(End::Complete, 1).exit(), Exit::JobsFailed);
        assert_eq!(summary(End::Interrupted, 0).exit(), Exit::JobsFailed);
        assert_eq!(summary(held, 1).exit(), Exit::Held);
    }

    #[test]
    fn a_person_reads_what_matters_and_no_zeros() {
        assert_eq!(
            summary(End::Complete, 4).text(),
            "prompts.jsonl: 6 of 10 lines done, 2 before, 4 failed, 0.000028 CNY spent, in 1 min 5 s; results in prompts.results.jsonl\n\
             run the same command again to retry what failed"
        );
        assert!(summary(End::Interrupted, 1).text().contains("3 not done"));
    }

    #[test]
    fn calls_at_an_unknown_cost_are_not_nothing() {
        let mut summary = summary(End::Complete, 0);
        summary.spent.unpriced_calls = 3;
        let text = summary.text();
        assert!(
            text.contains("0.000028 CNY spent, 3 calls at an unknown cost, in 1 min 5 s; results"),
            "{text}"
        );
        assert!(summary.json().contains(r#""unpricedCalls":3"#));
        summary.spent.costs.clear();
        summary.spent.unpriced_calls = 1;
        let text = summary.text();
        assert!(text.contains(", 1 call at an unknown cost"), "{text}");
    }

    #[test]
    fn failures_are_told_by_their_reason_the_most_frequent_first() {
        let mut failed = summary(End::Complete, 3);
        failed.failures.note("1214", "bad parameter");
        failed.failures.note("1301", "sensitive");
        failed.failures.note("1301", "sensitive too");
        let text = failed.text();
        assert!(
            text.contains("\n2 failed with 1301: sensitive\n1 failed with 1214: bad"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&failed.json()).unwrap();
        assert_eq!(json["failures"][0]["code"], "1301");
        assert_eq!(json["elapsedMs"], 65_000);
    }

    #[test]
    fn what_the_simulator_did_was_not_spent() {
        let mut simulated = summary(End::Complete, 0);
        simulated.simulated = true;
        let text = simulated.text();
        assert!(
            text.contains("0.000028 CNY at list price, not billed"),
            "{text}"
        );
        assert!(!text.contains("spent"), "{text}");
    }

    #[test]
    fn a_program_reads_exact_money_and_the_exit_code() {
        let held = End::Held(HeldUp {
            reason: "1113 no balance".to_owned(),
            help: "pay".to_owned(),
        });
        let text = summary(held, 1).json();
        assert!(
            text.contains(r#""spent":[{"cost":0.000028,"currency":"CNY"}]"#),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["end"], "held");
        assert_eq!(json["exitCode"], 4);
        assert_eq!(json["doneBefore"], 2);
        assert_eq!(json["unfinished"], 3);
    }
}
