//! A script that somebody wrote: read with the place of every fault, and refused where it says what can't be played.

use std::fmt;

use onelane_core::model::{Balance, Currency, Day};
use onelane_core::words::counted;

use super::account::AccountScript;
use super::config::{Lengths, Rule, ScriptUpdate, Span, Tokens};
use super::fault::{AnswerWith, ErrorFault, Fault, ResetWording};
use crate::glm::ErrorTable;

/// A day: no test waits longer.
const MS_MAX: u64 = 86_400_000;
/// Tokens of a text that is really written.
const TOKENS_MAX: u64 = 1_000_000;
/// Pieces of a body.
const PIECES_MAX: u32 = 100_000;
/// Problems that are told one by one.
const TOLD_MAX: usize = 10;

/// What is wrong with a script, each with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadScript(Vec<String>);

impl fmt::Display for BadScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<&str> = self.0.iter().take(TOLD_MAX).map(String::as_str).collect();
        f.write_str(&told.join("; "))?;
        match self.0.len().saturating_sub(TOLD_MAX) {
            0 => Ok(()),
            more => write!(
                f,
                "; and {}",
                counted(more as u64, "more problem", "more problems")
            ),
        }
    }
}

impl std::error::Error for BadScript {}

impl ScriptUpdate {
    /// Reads a script from its JSON. The error names the place of each problem.
    pub fn read(json: &str) -> Result<Self, BadScript> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = serde_path_to_error::deserialize(&mut deserializer);
        let update: Self = read.map_err(|error| {
            let place = match error.path().to_string().as_str() {
                "." | "?" => String::new(),
                path => format!("{path}: "),
            };
            BadScript(vec![format!("{place}{}", error.into_inner())])
        })?;
        deserializer
            .end()
            .map_err(|error| BadScript(vec![error.to_string()]))?;
        update.check().map(|()| update)
    }

    /// Refuses what can't be played, or would play nothing.
    pub fn check(&self) -> Result<(), BadScript> {
        let mut faults = Faults(Vec::new());
        self.look(&mut faults);
        if faults.0.is_empty() {
            Ok(())
        } else {
            Err(BadScript(faults.0))
        }
    }

    fn look(&self, faults: &mut Faults) {
        for (at, step) in self.script.iter().enumerate() {
            let place = format!("script[{at}]");
            faults.unless(
                step.times > 0,
                &place,
                "times",
                "must be at least 1; leave the step out",
            );
            fault(&step.fault, &format!("{place}.fault"), faults);
        }
        for (at, one) in self.rules.iter().enumerate() {
            rule(one, &format!("rules[{at}]"), faults);
        }
        for (name, list) in [("keys", &self.keys), ("models", &self.models)] {
            for (at, one) in list.iter().flatten().enumerate() {
                let is_some = !one.trim().is_empty();
                faults.unless(
                    is_some,
                    "",
                    &format!("{name}[{at}]"),
                    "is empty; an empty list accepts any",
                );
            }
        }
        for name in self.limits.iter().flatten().map(|(name, _)| name) {
            faults.unless(
                !name.trim().is_empty(),
                "",
                "limits",
                "names no model; limit is for every model",
            );
        }
        if let Some(account) = &self.account {
            account_script(account, faults);
        }
        for (name, span) in [("latencyMs", self.latency_ms), ("taskMs", self.task_ms)] {
            match span {
                Some(Span::Between { min, max }) => {
                    faults.unless(min <= max, "", name, "min is above max");
                    time(max, "", name, faults);
                }
                Some(Span::Fixed(ms)) => time(ms, "", name, faults),
                None => {}
            }
        }
        if let Some(Lengths::HeavyTailed { median, max }) = self.lengths {
            let fits = (1..=max).contains(&median) && max <= TOKENS_MAX;
            let problem =
                format!("median must be 1 or more and max no less than it, at most {TOKENS_MAX}");
            faults.unless(fits, "lengths", "heavyTailed", &problem);
        }
        if let Some(of) = self.tokens {
            tokens(of, "tokens", faults);
        }
    }
}

/// What was found, each with its place.
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, fits: bool, at: &str, name: &str, problem: &str) {
        if !fits {
            let dot = if at.is_empty() || name.is_empty() {
                ""
            } else {
                "."
            };
            self.0.push(format!("{at}{dot}{name}: {problem}"));
        }
    }
}

fn account_script(account: &AccountScript, faults: &mut Faults) {
    let kinds = ["TOKENS_LIMIT", "CREDIT_LIMIT", "TIME_LIMIT"];
    for (n, window) in account.quota.iter().enumerate() {
        let at = format!("account.quota[{n}]");
        let is_known = kinds.contains(&window.kind.as_str());
        let problem = format!("must be one of {}", kinds.join(", "));
        faults.unless(is_known, &at, "type", &problem);
    }
    if let Some(balance) = &account.balance {
        let at = "account.balance";
        let is_known = ["CNY", "USD"].contains(&balance.currency.as_str());
        faults.unless(is_known, at, "currency", "must be CNY or USD");
        let read = Balance::parse(&balance.available, Currency::Cny);
        faults.unless(read.is_some(), at, "available", "must be a decimal");
    }
    for (n, planted) in account.planted.iter().enumerate() {
        let at = format!("account.planted[{n}]");
        let is_named = !planted.model.trim().is_empty();
        faults.unless(is_named, &at, "model", "names no model");
        let is_day = planted
            .day
            .as_deref()
            .is_none_or(|day| Day::parse(day).is_some());
        faults.unless(is_day, &at, "day", "must be a day such as \"2026-11-23\"");
        let is_any = planted.tokens != 0 || planted.calls != 0;
        faults.unless(is_any, &at, "tokens", "is 0; leave it out");
    }
}

fn time(ms: u64, at: &str, name: &str, faults: &mut Faults) {
    let problem = format!("must be at most {MS_MAX} ms, a day");
    faults.unless(ms <= MS_MAX, at, name, &problem);
}

fn tokens(tokens: Tokens, at: &str, faults: &mut Faults) {
    if let Tokens::Fixed { prompt, cached, .. } = tokens {
        let problem =
            "cached is a part of prompt and can't be more; a custom body may contradict itself";
        faults.unless(cached <= prompt, at, "fixed", problem);
    }
}

fn rule(rule: &Rule, at: &str, faults: &mut Faults) {
    let texts = [
        ("promptContains", &rule.prompt_contains),
        ("model", &rule.model),
        ("unlessKey", &rule.unless_key),
    ];
    for (name, text) in texts {
        let fits = text.as_ref().is_none_or(|text| !text.is_empty());
        faults.unless(fits, at, name, "is empty; leave it out for any");
    }
    let fits = (0.0..=1.0).contains(&rule.probability);
    faults.unless(fits, at, "probability", "must be 0 to 1");
    faults.unless(
        rule.times != Some(0),
        at,
        "times",
        "must be at least 1; leave the rule out",
    );
    faults.unless(
        rule.for_ms != Some(0),
        at,
        "forMs",
        "must be at least 1; leave the rule out",
    );
    fault(&rule.fault, &format!("{at}.fault"), faults);
}

fn fault(fault: &Fault, at: &str, faults: &mut Faults) {
    match fault {
        Fault::Answer(with) => answer(with, &format!("{at}.answer"), faults),
        Fault::Error(with) => error(with, &format!("{at}.error"), faults),
        Fault::FailTask { error: Some(with) } => {
            error(with, &format!("{at}.failTask.error"), faults)
        }
        Fault::SlowHeaders { delay_ms } => {
            time(*delay_ms, &format!("{at}.slowHeaders"), "delayMs", faults)
        }
        Fault::SlowBody { pieces, delay_ms } => {
            let at = format!("{at}.slowBody");
            let problem = format!("must be 1 to {PIECES_MAX}");
            faults.unless((1..=PIECES_MAX).contains(pieces), &at, "pieces", &problem);
            time(*delay_ms, &at, "delayMs", faults);
        }
        Fault::HtmlPage { status: code } => status(*code, &format!("{at}.htmlPage"), faults),
        Fault::EmptyBody { status: code } => status(*code, &format!("{at}.emptyBody"), faults),
        Fault::NotJson { status: code } => status(*code, &format!("{at}.notJson"), faults),
        Fault::Custom {
            status: code,
            headers,
            ..
        } => {
            let at = format!("{at}.custom");
            status(*code, &at, faults);
            for (name, value) in headers {
                header(name, value, &format!("{at}.headers"), faults);
            }
        }
        Fault::FailTask { error: None }
        | Fault::StallBody
        | Fault::CutBody
        | Fault::Reset
        | Fault::Hang => {}
    }
}

fn status(code: u16, at: &str, faults: &mut Faults) {
    let problem = "must be 200 to 599: what is below is no whole answer";
    faults.unless((200..=599).contains(&code), at, "status", problem);
}

fn header(name: &str, value: &str, at: &str, faults: &mut Faults) {
    let is_name = name.parse::<hyper::header::HeaderName>().is_ok();
    faults.unless(is_name, at, name, "is no name of a header");
    let is_value = hyper::header::HeaderValue::from_str(value).is_ok();
    faults.unless(is_value, at, name, "has a value that no header can have");
    let framing = ["content-length", "transfer-encoding", "connection"];
    let is_own = framing.iter().any(|own| name.eq_ignore_ascii_case(own));
    faults.unless(
        !is_own,
        at,
        name,
        "is the server's own; cutBody, stallBody and reset break a connection",
    );
}

fn answer(with: &AnswerWith, at: &str, faults: &mut Faults) {
    let fits = with
        .finish_reason
        .as_ref()
        .is_none_or(|reason| !reason.is_empty());
    faults.unless(
        fits,
        at,
        "finishReason",
        "is empty; leave it out for the usual one",
    );
    let says =
        with.reasoning.is_some() || with.tool_calls.is_some() || with.finish_reason.is_some();
    let is_empty = with.content.as_deref() == Some("") && !says;
    let problem =
        "is empty; leave it out for the usual text, or give emptyBody for no answer at all";
    faults.unless(!is_empty, at, "content", problem);
    for (n, call) in with.tool_calls.iter().flatten().enumerate() {
        let at = format!("{at}.toolCalls[{n}]");
        faults.unless(
            !call.name.is_empty(),
            &at,
            "name",
            "is empty; name a function",
        );
        faults.unless(
            call.arguments.is_object(),
            &at,
            "arguments",
            "must be an object",
        );
    }
    let is_named = with
        .served_by
        .as_ref()
        .is_none_or(|model| !model.trim().is_empty());
    faults.unless(is_named, at, "servedBy", "names no model");
    if let Some(ms) = with.latency_ms {
        time(ms, at, "latencyMs", faults);
    }
    if let Some(of) = with.tokens {
        tokens(of, &format!("{at}.tokens"), faults);
    }
}

fn error(with: &ErrorFault, at: &str, faults: &mut Faults) {
    let ErrorFault {
        code,
        status: given,
        message,
        reset_in_ms,
        wording,
        retry_after,
        delay_ms,
        ..
    } = with;
    let is_known = ErrorTable::shipped().row(code).is_some();
    let problem = match code.is_empty() {
        true => "is empty; give a code of GLM's, such as \"1302\"".to_owned(),
        false => format!(
            "{code} is no code that onelane knows of GLM (`onelane policy` lists them); give a status and a message \
             too if it is to be sent all the same"
        ),
    };
    let is_whole = given.is_some() && message.is_some();
    faults.unless(
        !code.is_empty() && (is_known || is_whole),
        at,
        "code",
        &problem,
    );
    if let Some(given) = given {
        status(*given, at, faults);
    }
    let has_reset = reset_in_ms.is_some() || *wording == ResetWording::default();
    faults.unless(
        has_reset,
        at,
        "wording",
        "is how resetInMs is worded; give that too",
    );
    if let Some(value) = retry_after {
        let fits = hyper::header::HeaderValue::from_str(value).is_ok();
        faults.unless(
            fits,
            at,
            "retryAfter",
            "has a value that no header can have",
        );
    }
    time(*delay_ms, at, "delayMs", faults);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_makes_no_sense_is_refused_with_the_place_and_what_to_do() {
        for (json, told) in [
            (
                r#"{"latencyMs": -5}"#,
                "latencyMs: must be whole milliseconds, 0 or more",
            ),
            (
                r#"{"latencyMs": 1.5}"#,
                "latencyMs: must be whole milliseconds, 0 or more",
            ),
            (r#"{"latencyMs": "5"}"#, "latencyMs: "),
            (
                r#"{"latencyMs": {"min": 9, "max": 5}}"#,
                "latencyMs: min is above max",
            ),
            (
                r#"{"latencyMs": {"min": 1, "max": 2, "mean": 1}}"#,
                "latencyMs.mean: unknown field",
            ),
            (r#"{"taskMs": 999999999999}"#, "taskMs: must be at most"),
            (
                r#"{"lengths": {"heavyTailed": {"median": 0}}}"#,
                "lengths.heavyTailed: median must be",
            ),
            (
                r#"{"lengths": {"heavyTailed": {"median": 9, "max": 5}}}"#,
                "lengths.heavyTailed: ",
            ),
            (
                r#"{"tokens": {"fixed": {"prompt": 1, "completion": 1, "cached": 2}}}"#,
                "tokens.fixed: cached is",
            ),
            (r#"{"limit": -1}"#, "limit: "),
            (r#"{"limits": {"": 1}}"#, "limits: names no model"),
            (r#"{"keys": [""]}"#, "keys[0]: is empty"),
            (
                r#"{"script": [{"fault": "hang", "times": 0}]}"#,
                "script[0].times: must be at least 1",
            ),
            (
                r#"{"script": [{"fault": "hang"}, {"fault": "explode"}]}"#,
                "script[1].fault",
            ),
            (
                r#"{"script": [{"fault": {"error": {"code": "4711"}}}]}"#,
                "script[0].fault.error.code: 4711 is no code",
            ),
            (
                r#"{"script": [{"fault": {"error": {"code": ""}}}]}"#,
                "code: is empty",
            ),
            (
                r#"{"script": [{"fault": {"error": {"code": "1302", "status": 99}}}]}"#,
                "script[0].fault.error.status: must be 200 to 599",
            ),
            (
                r#"{"script": [{"fault": {"error": {"code": "1308", "wording": "english"}}}]}"#,
                "wording: is how resetInMs",
            ),
            (
                r#"{"script": [{"fault": {"error": {"code": "1302", "retryAfter": "1\n2"}}}]}"#,
                "retryAfter: has a value",
            ),
            (
                r#"{"script": [{"fault": {"htmlPage": {"status": 700}}}]}"#,
                "script[0].fault.htmlPage.status: ",
            ),
            (
                r#"{"script": [{"fault": {"emptyBody": {"status": 0}}}]}"#,
                "emptyBody.status: ",
            ),
            (
                r#"{"script": [{"fault": {"slowBody": {"pieces": 0, "delayMs": 1}}}]}"#,
                "slowBody.pieces: must be 1 to",
            ),
            (
                r#"{"script": [{"fault": {"custom": {"status": 200, "headers": {"a b": "x"}, "body": ""}}}]}"#,
                "custom.headers.a b: is no name",
            ),
            (
                r#"{"script": [{"fault": {"custom": {"status": 200, "headers": {"Content-Length": "1"}, "body": ""}}}]}"#,
                "is the server's own",
            ),
            (
                r#"{"script": [{"fault": {"answer": {"content": ""}}}]}"#,
                "answer.content: is empty",
            ),
            (
                r#"{"script": [{"fault": {"answer": {"finishReason": ""}}}]}"#,
                "finishReason: is empty",
            ),
            (
                r#"{"script": [{"fault": {"answer": {"toolCalls": [{"name": "", "arguments": 1}]}}}]}"#,
                "toolCalls[0].arguments: must be an object",
            ),
            (
                r#"{"script": [{"fault": {"answer": {}, "error": {"code": "1302"}}}]}"#,
                "script[0].fault",
            ),
            (
                r#"{"rules": [{"fault": "hang", "probability": 1.5}]}"#,
                "rules[0].probability: must be 0 to 1",
            ),
            (
                r#"{"rules": [{"fault": "hang", "promptContains": ""}]}"#,
                "rules[0].promptContains: is empty",
            ),
            (
                r#"{"rules": [{"fault": "hang", "times": 0, "forMs": 0}]}"#,
                "rules[0].forMs: must be",
            ),
            (
                r#"{"rules": [{"fault": "hang", "operation": "dance"}]}"#,
                "rules[0].operation: unknown variant",
            ),
            ("{} {}", "trailing"),
            ("{\n  \"script\": [,]\n}", "line 2"),
        ] {
            let refused = ScriptUpdate::read(json).unwrap_err().to_string();
            assert!(refused.contains(told), "{json}: {refused}");
        }
        for json in [
            "{}",
            r#"{"latencyMs": 0, "taskMs": {"min": 0, "max": 0}, "limit": 0}"#,
            r#"{"script": [{"fault": {"error": {"code": "4711", "status": 400, "message": "new"}}}]}"#,
            r#"{"script": [{"fault": {"error": {"code": "1302", "status": 200}}}]}"#,
            r#"{"script": [{"fault": {"answer": {"content": "", "finishReason": "length"}}}]}"#,
            r#"{"script": [{"fault": {"answer": {"toolCalls": [{"name": "f"}]}}}]}"#,
            r#"{"rules": [{"fault": "hang", "probability": 0, "times": 1}]}"#,
        ] {
            ScriptUpdate::read(json).unwrap();
        }
    }

    #[test]
    fn a_script_of_many_problems_tells_some_and_counts_the_rest() {
        let step = r#"{"fault": "hang", "times": 0}"#;
        let json = format!(r#"{{"script": [{}]}}"#, [step; 11].join(","));
        let told = ScriptUpdate::read(&json).unwrap_err().to_string();
        assert!(
            told.contains("script[9].times") && told.ends_with("and 1 more problem"),
            "{told}"
        );
    }
}
