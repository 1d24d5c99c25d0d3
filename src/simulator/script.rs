//! Chooses the fault of a request: the script's position, the rules' hits, and all that can be
//! changed while the simulator runs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onelane_core::random::SplitMix64;

use super::account::AccountScript;
use super::config::{Lengths, Operation, Rule, ScriptUpdate, SimulatorConfig, Span, Step, Tokens};
use super::fault::Fault;

/// A request as the script sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Met<'a> {
    pub(crate) operation: Operation,
    pub(crate) prompt: &'a str,
    pub(crate) model: &'a str,
    pub(crate) key: &'a str,
}

/// A rule and the moment at which it is over.
#[derive(Debug)]
struct GivenRule {
    rule: Rule,
    over_at: Option<Instant>,
}

impl GivenRule {
    fn now(rule: Rule) -> Self {
        // A time that no clock reaches is none.
        let over_at = rule
            .for_ms
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        Self { rule, over_at }
    }

    fn matches(&self, met: &Met<'_>) -> bool {
        let rule = &self.rule;
        let for_it = match rule.operation {
            Some(operation) => operation == met.operation,
            None => met.operation != Operation::FetchTask,
        };
        for_it
            && rule.times != Some(0)
            && self.over_at.is_none_or(|over_at| Instant::now() < over_at)
            && rule
                .prompt_contains
                .as_ref()
                .is_none_or(|text| met.prompt.contains(text))
            && rule.model.as_ref().is_none_or(|model| model == met.model)
            && rule.unless_key.as_ref().is_none_or(|key| key != met.key)
    }
}

/// The simulator's behaviour as it is now.
#[derive(Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    rules: Vec<GivenRule>,
    numbers: SplitMix64,
    /// The rest of the configuration; its script and rules are taken out.
    config: SimulatorConfig,
}

impl Script {
    pub(crate) fn new(mut config: SimulatorConfig) -> Self {
        Self {
            steps: std::mem::take(&mut config.script).into(),
            rules: std::mem::take(&mut config.rules)
                .into_iter()
                .map(GivenRule::now)
                .collect(),
            numbers: SplitMix64::new(config.seed),
            config,
        }
    }

    /// The fault of this request: the first rule that matches, else the next step, else nothing.
    pub(crate) fn next(&mut self, met: &Met<'_>) -> Fault {
        if let Some(fault) = self.rule_for(met) {
            return fault;
        }
        if met.operation == Operation::FetchTask {
            return Fault::none();
        }
        while let Some(step) = self.steps.front_mut() {
            if step.times > 1 {
                step.times -= 1;
                return step.fault.clone();
            }
            let Some(last) = self.steps.pop_front() else {
                break;
            };
            if last.times == 1 {
                return last.fault;
            }
        }
        Fault::none()
    }

    fn rule_for(&mut self, met: &Met<'_>) -> Option<Fault> {
        for at in 0..self.rules.len() {
            let Some(given) = self.rules.get(at) else {
                break;
            };
            let probability = given.rule.probability;
            if !given.matches(met) || (probability < 1.0 && self.numbers.draw_unit() >= probability)
            {
                continue;
            }
            let rule = &mut self.rules.get_mut(at)?.rule;
            rule.times = rule.times.map(|left| left - 1);
            return Some(rule.fault.clone());
        }
        None
    }

    pub(crate) fn steps_left(&self) -> u64 {
        self.steps.iter().map(|step| u64::from(step.times)).sum()
    }

    pub(crate) fn accepts(&self, key: &str) -> bool {
        self.config.keys.is_empty() || self.config.keys.iter().any(|accepted| accepted == key)
    }

    pub(crate) fn knows(&self, model: &str) -> bool {
        self.config.models.is_empty() || self.config.models.iter().any(|known| known == model)
    }

    pub(crate) fn limit_of(&self, model: &str) -> u32 {
        self.config
            .limits
            .get(model)
            .copied()
            .unwrap_or(self.config.limit)
    }

    pub(crate) fn refuses_duplicates(&self) -> bool {
        self.config.refuse_duplicate_request_ids
    }

    pub(crate) fn account(&self) -> AccountScript {
        self.config.account.clone()
    }

    pub(crate) fn tokens(&self) -> Tokens {
        self.config.tokens
    }

    /// The latency of the next answer.
    pub(crate) fn latency_ms(&mut self) -> u64 {
        self.drawn_from(self.config.latency_ms)
    }

    /// How long the next task is worked on.
    pub(crate) fn task_ms(&mut self) -> u64 {
        self.drawn_from(self.config.task_ms)
    }

    /// How many tokens the next answer has, where that is drawn: by a law of which half lies below the median and
    /// of which one in a hundred is fifty times as long.
    pub(crate) fn length(&mut self) -> Option<u64> {
        const TAIL: f64 = 1.0;
        match self.config.lengths {
            Lengths::Short => None,
            Lengths::HeavyTailed { median, max } => {
                let least = median as f64 / 2_f64.powf(1.0 / TAIL);
                let above = (1.0 - self.numbers.draw_unit()).max(f64::EPSILON);
                let drawn = least / above.powf(1.0 / TAIL);
                Some((drawn.min(max as f64) as u64).clamp(1, max.max(1)))
            }
        }
    }

    fn drawn_from(&mut self, span: Span) -> u64 {
        match span {
            Span::Fixed(ms) => ms,
            Span::Between { min, max } => {
                let width = max.saturating_sub(min).saturating_add(1);
                min + self.numbers.draw() % width
            }
        }
    }

    pub(crate) fn set_limit(&mut self, model: Option<&str>, limit: u32) {
        match model {
            Some(model) => {
                self.config.limits.insert(model.to_owned(), limit);
            }
            None => self.config.limit = limit,
        }
    }

    pub(crate) fn update(&mut self, update: ScriptUpdate) {
        if update.replace {
            self.steps.clear();
            self.rules.clear();
        }
        self.steps.extend(update.script);
        let rules = update.rules.into_iter().map(GivenRule::now);
        self.rules.extend(rules);
        set(&mut self.config.keys, update.keys);
        set(&mut self.config.models, update.models);
        set(&mut self.config.latency_ms, update.latency_ms);
        set(&mut self.config.task_ms, update.task_ms);
        set(&mut self.config.lengths, update.lengths);
        set(&mut self.config.tokens, update.tokens);
        set(&mut self.config.account, update.account);
        set(&mut self.config.limit, update.limit);
        set(&mut self.config.limits, update.limits);
        set(
            &mut self.config.refuse_duplicate_request_ids,
            update.refuse_duplicate_request_ids,
        );
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(json: &str) -> Script {
        Script::new(serde_json::from_str(json).unwrap())
    }

    fn met<'a>(prompt: &'a str, model: &'a str) -> Met<'a> {
        Met {
            operation: Operation::Chat,
            prompt,
            model,
            key: "good.key",
        }
    }

    fn next(script: &mut Script, prompt: &str, model: &str) -> Fault {
        script.next(&met(prompt, model))
    }

    #[test]
    fn steps_play_in_order_and_then_everything_is_answered() {
        let mut script = script(
            r#"{"script": [
                {"fault": {"error": {"code": "1302"}}, "times": 2},
                {"fault": {"answer": {}}, "times": 0},
                {"fault": "hang"}
            ]}"#,
        );
        assert_eq!(script.steps_left(), 3);
        let played: Vec<Fault> = (0..4).map(|_| next(&mut script, "p", "m")).collect();
        assert_eq!(
            played,
            [
                Fault::error("1302"),
                Fault::error("1302"),
                Fault::Hang,
                Fault::none()
            ]
        );
    }

    #[test]
    fn a_rule_hits_what_it_matches_as_often_as_it_says_and_leaves_the_script_alone() {
        let mut script = script(
            r#"{"script": [{"fault": "hang"}],
                "rules": [
                    {"promptContains": "bad", "fault": "reset", "times": 1},
                    {"model": "glm-5", "fault": "cutBody"}
                ]}"#,
        );
        assert_eq!(next(&mut script, "a bad one", "glm-4.7"), Fault::Reset);
        assert_eq!(next(&mut script, "good", "glm-5"), Fault::CutBody);
        assert_eq!(next(&mut script, "a bad one", "glm-4.7"), Fault::Hang);
        assert_eq!(next(&mut script, "a bad one", "glm-4.7"), Fault::none());
    }

    #[test]
    fn a_rule_of_an_operation_or_until_a_key_leaves_the_others_alone() {
        let mut script = script(
            r#"{"script": [{"fault": "reset"}],
                "rules": [
                    {"operation": "fetchTask", "fault": "cutBody", "times": 1},
                    {"operation": "submitTask", "fault": "stallBody"},
                    {"unlessKey": "rich.key", "fault": "hang"}
                ]}"#,
        );
        let mut of = |operation, key| {
            script.next(&Met {
                operation,
                key,
                ..met("p", "m")
            })
        };
        assert_eq!(of(Operation::FetchTask, "k"), Fault::CutBody);
        // Looking takes no step, and a rule for work is none for it.
        assert_eq!(of(Operation::FetchTask, "k"), Fault::none());
        assert_eq!(of(Operation::SubmitTask, "rich.key"), Fault::StallBody);
        assert_eq!(of(Operation::Chat, "k"), Fault::Hang);
        assert_eq!(of(Operation::Chat, "rich.key"), Fault::Reset);
        assert_eq!(of(Operation::Chat, "rich.key"), Fault::none());
    }

    #[test]
    fn a_rule_with_a_time_is_over_after_it() {
        let mut script = script(
            r#"{"rules": [
                {"model": "glm-5", "fault": "hang", "forMs": 0},
                {"model": "glm-5", "fault": "reset", "forMs": 3600000},
                {"fault": "cutBody", "forMs": 18446744073709551615}
            ]}"#,
        );
        assert_eq!(next(&mut script, "p", "glm-5"), Fault::Reset);
        assert_eq!(next(&mut script, "p", "glm-4.7"), Fault::CutBody);
        let rule = Rule::for_model("glm-5", Fault::error("1305")).for_ms(20);
        let update = ScriptUpdate {
            replace: true,
            rules: vec![rule],
            ..ScriptUpdate::default()
        };
        let given = Instant::now();
        script.update(update);
        while next(&mut script, "p", "glm-5") == Fault::error("1305") {
            assert!(given.elapsed() < Duration::from_secs(10), "never over");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(given.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_chance_and_a_latency_are_the_same_for_the_same_seed() {
        let run = |seed: u64| {
            let mut script = Script::new(SimulatorConfig {
                seed,
                latency_ms: Span::Between { min: 3, max: 7 },
                rules: vec![Rule {
                    probability: 0.3,
                    ..Rule::always(Fault::Hang)
                }],
                ..SimulatorConfig::default()
            });
            (0..1_000)
                .map(|_| {
                    (
                        next(&mut script, "p", "m") == Fault::Hang,
                        script.latency_ms(),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let hit = run(1).iter().filter(|(hit, _)| *hit).count();
        assert!((200..400).contains(&hit), "{hit}");
        assert!(run(1).iter().all(|(_, ms)| (3..=7).contains(ms)));
        assert!((3..=7).all(|ms| run(1).iter().any(|(_, drawn)| *drawn == ms)));
    }

    #[test]
    fn lengths_have_a_heavy_tail_and_are_the_same_for_the_same_seed() {
        let run = |seed: u64| {
            let lengths = Lengths::HeavyTailed {
                median: 300,
                max: 20_000,
            };
            let mut script = Script::new(SimulatorConfig {
                seed,
                lengths,
                ..SimulatorConfig::default()
            });
            (0..2_000)
                .filter_map(|_| script.length())
                .collect::<Vec<_>>()
        };
        let drawn = run(1);
        assert_eq!(drawn, run(1));
        assert_ne!(drawn, run(2));
        let longer = |than| drawn.iter().filter(|length| **length > than).count();
        assert!((900..1_100).contains(&longer(300)), "{}", longer(300));
        assert!((5..60).contains(&longer(15_000)), "{}", longer(15_000));
        assert!(longer(20_000) == 0 && drawn.iter().all(|length| *length >= 150));
    }

    #[test]
    fn the_scripts_in_the_docs_are_taken() {
        let docs = include_str!("../../docs/simulator.md");
        let blocks = docs.split("```json").skip(1);
        let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            serde_json::from_str::<ScriptUpdate>(block).unwrap();
        }
        let update = ScriptUpdate {
            lengths: Some(Lengths::Short),
            ..ScriptUpdate::default()
        };
        let known = serde_json::to_value(update).unwrap();
        for name in known.as_object().unwrap().keys() {
            assert!(
                docs.contains(&format!("`{name}`")),
                "{name} is not in the docs"
            );
        }
    }

    #[test]
    fn an_update_appends_or_replaces() {
        let mut script = script(r#"{"script": [{"fault": "hang"}], "keys": ["a"]}"#);
        script.update(serde_json::from_str(r#"{"script": [{"fault": "reset"}]}"#).unwrap());
        assert_eq!(script.steps_left(), 2);
        assert!(script.accepts("a") && !script.accepts("b"));
        let update = r#"{"replace": true, "keys": ["b"], "limits": {"glm-5": 3}, "limit": 1, "latencyMs": {"min": 1, "max": 1}}"#;
        script.update(serde_json::from_str(update).unwrap());
        assert_eq!(script.steps_left(), 0);
        assert!(script.accepts("b") && !script.accepts("a"));
        assert_eq!(script.limit_of("glm-5"), 3);
        assert_eq!(script.limit_of("glm-4.7"), 1);
        assert_eq!(script.latency_ms(), 1);
    }

    #[test]
    fn a_script_with_a_word_that_is_unknown_is_refused() {
        for json in [
            r#"{"latency": 5}"#,
            r#"{"latencyMs": {"min": 1, "max": 2, "mean": 1}}"#,
            r#"{"script": [{"fault": "explode"}]}"#,
            r#"{"script": [{"fault": "hang", "often": 2}]}"#,
            r#"{"script": [{"fault": {"error": {"code": "1302", "colour": 1}}}]}"#,
            r#"{"script": [{"fault": {"slowHeaders": {"delayMs": 1, "x": 1}}}]}"#,
            r#"{"rules": [{"prompt": "x", "fault": "hang"}]}"#,
            r#"{"tokens": {"fixed": {"prompt": 1, "completion": 1, "x": 1}}}"#,
        ] {
            assert!(
                serde_json::from_str::<SimulatorConfig>(json).is_err(),
                "{json}"
            );
        }
    }

    #[test]
    fn a_config_reads_back_as_it_was_written() {
        let config = SimulatorConfig {
            latency_ms: Span::Between { min: 1, max: 2 },
            script: vec![
                Fault::Hang.into(),
                Fault::SlowBody {
                    pieces: 3,
                    delay_ms: 4,
                }
                .into(),
            ],
            rules: vec![
                Rule::for_prompt("x", Fault::error("1308")),
                Rule::until_key("k", Fault::FailTask { error: None }).times(2),
                Rule::for_looks(Fault::Hang).for_ms(5),
            ],
            ..SimulatorConfig::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<SimulatorConfig>(&json).unwrap(),
            config
        );
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<SimulatorConfig>(&toml).unwrap(), config);
    }
}
