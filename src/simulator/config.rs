//! The simulator's configuration: its answers, its keys, its faults. The same words in Rust
//! and in a script file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::account::AccountScript;
use super::fault::Fault;

/// How the simulator behaves. The default answers every key and every model at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SimulatorConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The keys that are accepted; none: any.
    pub keys: Vec<String>,
    /// The models that exist; none: any. Another one gets 1211.
    pub models: Vec<String>,
    /// From a request to its answer.
    pub latency_ms: Span,
    /// How long a task of the asynchronous API is worked on.
    pub task_ms: Span,
    /// How long answers are.
    pub lengths: Lengths,
    /// The tokens that answers report.
    pub tokens: Tokens,
    /// Requests in flight for one model, unfinished tasks included; over it 429 with 1302. 0: any number.
    pub limit: u32,
    /// The same for single models.
    pub limits: BTreeMap<String, u32>,
    /// Whether a `request_id` that came before gets 1231. It is counted in any case.
    pub refuse_duplicate_request_ids: bool,
    /// What is told of accounts.
    pub account: AccountScript,
    /// Seed of everything that is drawn: latencies and the chances of rules.
    pub seed: u64,
    /// Played from the front, one step a request for work, whatever the request. Looking at a task
    /// takes none.
    pub script: Vec<Step>,
    /// Asked before the script, in their order: the first that matches a request plays.
    pub rules: Vec<Rule>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keys: Vec::new(),
            models: Vec::new(),
            latency_ms: Span::default(),
            task_ms: Span::default(),
            lengths: Lengths::default(),
            tokens: Tokens::default(),
            limit: 0,
            limits: BTreeMap::new(),
            refuse_duplicate_request_ids: false,
            account: AccountScript::default(),
            seed: 1,
            script: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// A time in milliseconds: `5`, or drawn from `{"min": 5, "max": 9}`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Span {
    /// Always this; 0 sets no timer at all.
    Fixed(u64),
    /// Evenly drawn.
    Between {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}

impl Default for Span {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl<'de> Deserialize<'de> for Span {
    /// By hand: what is wrong with one of two forms is told of the form that was meant.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Between {
            min: u64,
            max: u64,
        }

        struct EitherForm;

        impl<'de> Visitor<'de> for EitherForm {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds such as 5, or {\"min\": 5, \"max\": 9}")
            }

            fn visit_u64<E>(self, ms: u64) -> Result<Span, E> {
                Ok(Span::Fixed(ms))
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Span, E> {
                u64::try_from(ms).map(Span::Fixed).map_err(|_| not_whole())
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Span, E> {
                Err(not_whole())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Span, A::Error> {
                let Between { min, max } =
                    Between::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Span::Between { min, max })
            }
        }

        fn not_whole<E: de::Error>() -> E {
            E::custom("must be whole milliseconds, 0 or more")
        }

        deserializer.deserialize_any(EitherForm)
    }
}

/// How long the texts of answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Lengths {
    /// One sentence.
    #[default]
    Short,
    /// Drawn, as models answer: most are short, a few are very long.
    HeavyTailed {
        /// Half of them have no more tokens than this.
        median: u64,
        /// None has more than this.
        #[serde(default = "longest")]
        max: u64,
    },
}

const fn longest() -> u64 {
    32_768
}

/// The tokens that an answer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Tokens {
    /// Counted from the texts: a Chinese character is one, four other bytes are one.
    #[default]
    Counted,
    /// Always these.
    Fixed {
        /// Of the prompt, cached ones included.
        prompt: u64,
        /// Of the answer.
        completion: u64,
        /// Of the prompt, from the cache.
        #[serde(default)]
        cached: u64,
    },
}

/// A step of the script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The fault.
    pub fault: Fault,
    /// To how many requests in a row.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

impl From<Fault> for Step {
    fn from(fault: Fault) -> Self {
        Self { fault, times: 1 }
    }
}

/// A client's route.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// A chat completion, or a call of another face, at once.
    #[default]
    Chat,
    /// A chat completion, as a task.
    SubmitTask,
    /// How a task stands. It takes no place of the limit and buys nothing.
    FetchTask,
}

/// A fault for the requests that match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The request asks for this; `None`: for work, at once or as a task.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// The prompt holds this text; `None`: any prompt.
    #[serde(default)]
    pub prompt_contains: Option<String>,
    /// The request is for this model; `None`: any model.
    #[serde(default)]
    pub model: Option<String>,
    /// The request comes with another key than this; `None`: whatever its key.
    #[serde(default)]
    pub unless_key: Option<String>,
    /// The chance that a matching request is hit, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// After so many hits the rule is over; `None`: never.
    #[serde(default)]
    pub times: Option<u32>,
    /// So many milliseconds after it was given the rule is over; `None`: never.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// The fault.
    pub fault: Fault,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// `fault` for every request for work.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self {
            operation: None,
            prompt_contains: None,
            model: None,
            unless_key: None,
            probability: 1.0,
            times: None,
            for_ms: None,
            fault,
        }
    }

    /// `fault` for every request whose prompt holds `text`.
    #[must_use]
    pub fn for_prompt(text: &str, fault: Fault) -> Self {
        Self {
            prompt_contains: Some(text.to_owned()),
            ..Self::always(fault)
        }
    }

    /// `fault` for every request for `model`: an overload, say.
    #[must_use]
    pub fn for_model(model: &str, fault: Fault) -> Self {
        Self {
            model: Some(model.to_owned()),
            ..Self::always(fault)
        }
    }

    /// `fault` for every request until its key is `key`: an account without money, say.
    #[must_use]
    pub fn until_key(key: &str, fault: Fault) -> Self {
        Self {
            unless_key: Some(key.to_owned()),
            ..Self::always(fault)
        }
    }

    /// `fault` for every look at a task.
    #[must_use]
    pub fn for_looks(fault: Fault) -> Self {
        Self {
            operation: Some(Operation::FetchTask),
            ..Self::always(fault)
        }
    }

    /// The same, for so many milliseconds from the moment when it is given: a throttle window, say.
    #[must_use]
    pub fn for_ms(self, ms: u64) -> Self {
        Self {
            for_ms: Some(ms),
            ..self
        }
    }

    /// The same, for so many hits.
    #[must_use]
    pub fn times(self, n: u32) -> Self {
        Self {
            times: Some(n),
            ..self
        }
    }
}

/// A change while the simulator runs. `None` leaves a value as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScriptUpdate {
    /// Whether `script` and `rules` replace the rest of the old ones.
    pub replace: bool,
    /// More steps.
    pub script: Vec<Step>,
    /// More rules.
    pub rules: Vec<Rule>,
    /// The keys that are accepted from now on.
    pub keys: Option<Vec<String>>,
    /// The models that exist from now on.
    pub models: Option<Vec<String>>,
    /// The latency from now on.
    pub latency_ms: Option<Span>,
    /// How long tasks that are handed over from now on are worked on.
    pub task_ms: Option<Span>,
    /// How long answers are from now on.
    pub lengths: Option<Lengths>,
    /// The tokens from now on.
    pub tokens: Option<Tokens>,
    /// The limit of each model from now on.
    pub limit: Option<u32>,
    /// The limits of single models from now on.
    pub limits: Option<BTreeMap<String, u32>>,
    /// Whether a repeated `request_id` is refused from now on.
    pub refuse_duplicate_request_ids: Option<bool>,
    /// What is told of accounts from now on.
    pub account: Option<AccountScript>,
}
