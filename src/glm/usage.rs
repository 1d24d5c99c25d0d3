//! Reads what an answer says that it used. Money follows from it, so that what is not said in full is
//! not filled up with zeros: either the rest follows from the total, or the cost is not known.

mod counts;

use onelane_core::model::Usage;
use serde_json::Value;
use serde_json::value::RawValue;

use self::counts::{Counts, PATHS, Told};

/// What a face calls the counts of its `usage`: the name of a member, or that of one in an object, behind `/`.
pub(super) struct Names {
    prompt: &'static str,
    /// Empty: there is no completion.
    completion: &'static str,
    cached: &'static str,
    reasoning: &'static str,
    /// Parts of the prompt that are told beside it; empty: there is none.
    beside: [&'static str; 2],
}

pub(super) const CHAT: Names = Names {
    prompt: "prompt_tokens",
    completion: "completion_tokens",
    cached: "prompt_tokens_details/cached_tokens",
    reasoning: "completion_tokens_details/reasoning_tokens",
    beside: ["", ""],
};

pub(super) const RESPONSES: Names = Names {
    prompt: "input_tokens",
    completion: "output_tokens",
    cached: "input_tokens_details/cached_tokens",
    reasoning: "output_tokens_details/reasoning_tokens",
    beside: ["", ""],
};

pub(super) const MESSAGES: Names = Names {
    prompt: "input_tokens",
    completion: "output_tokens",
    cached: "cache_read_input_tokens",
    reasoning: "output_tokens_details/thinking_tokens",
    beside: ["cache_read_input_tokens", "cache_creation_input_tokens"],
};

pub(super) const EMBEDDINGS: Names = Names {
    completion: "",
    ..CHAT
};

impl Names {
    /// Where its counts stand.
    const fn paths(&self) -> [&'static str; PATHS] {
        let [read, made] = self.beside;
        [
            self.prompt,
            self.completion,
            "total_tokens",
            self.cached,
            self.reasoning,
            read,
            made,
        ]
    }
}

/// The tokens that a whole response states, whatever else it holds.
pub(super) fn of(response: &Value, names: &Names) -> Usage {
    let usage = response.get("usage");
    let usage = usage.map(|usage| of_counts(&counts::read(usage, names), names));
    usage.unwrap_or_default()
}

/// The tokens of a `usage` object that was not looked into: an odd count in it does not make the answer an odd one.
pub(super) fn read(usage: &RawValue, names: &Names) -> Usage {
    of_counts(&counts::read(usage, names), names)
}

/// The tokens of a `usage` object.
///
/// A side that is left out or no count follows from the total and the other one. When it does not, what
/// is known is given as a total alone: there is something billed, and its price can't be known. Where the counts
/// contradict each other, the larger reading counts. A count that is none, such as a negative one, contradicts itself.
fn of_counts(counts: &Counts, names: &Names) -> Usage {
    let usage = believed(counts, names);
    let has_no_count = || {
        counts
            .iter()
            .any(|told| told.is_number && told.count.is_none())
    };
    Usage {
        contradictory: usage.contradictory || (usage.is_reported() && has_no_count()),
        ..usage
    }
}

fn believed(counts: &Counts, names: &Names) -> Usage {
    let [prompt, completion, total, cached, reasoning, beside @ ..] =
        counts.map(|told: Told| told.count);
    let beside: u64 = beside.into_iter().flatten().sum();
    let prompt = prompt.map(|prompt| prompt.saturating_add(beside));
    let completion = match names.completion {
        "" => Some(0),
        _ => completion,
    };
    // Where nothing is told nothing was used.
    let completion = completion.filter(|_| prompt.is_some() || !names.completion.is_empty());
    let rest = |known: u64| total?.checked_sub(known);
    let sides = match (prompt, completion) {
        (Some(prompt), Some(completion)) => Some((prompt, completion)),
        (Some(prompt), None) => rest(prompt).map(|completion| (prompt, completion)),
        (None, Some(completion)) => rest(completion).map(|prompt| (prompt, completion)),
        (None, None) => None,
    };
    let Some((prompt_tokens, completion_tokens)) = sides else {
        let known = prompt.or(completion);
        let contradictory = total.zip(known).is_some_and(|(total, known)| known > total);
        return Usage {
            total_tokens: known.max(total).unwrap_or(0),
            contradictory,
            estimated: false,
            ..Usage::default()
        };
    };
    let (cached, reasoning) = (cached.unwrap_or(0), reasoning.unwrap_or(0));
    let stated = prompt_tokens.saturating_add(completion_tokens);
    let contradictory = total.is_some_and(|total| total != stated)
        || cached > prompt_tokens
        || reasoning > completion_tokens;
    // Some relays tell a part beside its whole.
    let prompt_tokens = whole_of(prompt_tokens, cached);
    let completion_tokens = whole_of(completion_tokens, reasoning);
    // What only the total holds is output, as far as anybody can tell: that is the dearer side.
    let beyond_prompt = total.unwrap_or(0).saturating_sub(prompt_tokens);
    let completion_tokens = completion_tokens.max(beyond_prompt);
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens.saturating_add(completion_tokens),
        cached_tokens: cached,
        reasoning_tokens: reasoning,
        contradictory,
        estimated: false,
    }
}

/// A whole that is stated with a part of it. A part above the whole is not inside it: of the two readings the larger
/// one counts.
const fn whole_of(stated: u64, part: u64) -> u64 {
    if part > stated {
        return stated.saturating_add(part);
    }
    stated
}

/// The tokens of an answer. A text that took no tokens, or no prompt, contradicts itself: then the cost is not known.
pub(super) fn of_answer(usage: Usage, has_content: bool) -> Usage {
    let contradicts = has_content && (usage.completion_tokens == 0 || usage.prompt_tokens == 0);
    if contradicts && usage.is_chargeable() {
        return Usage {
            total_tokens: usage.total_tokens,
            contradictory: true,
            ..Usage::default()
        };
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(usage: &str, want: [u64; 5]) {
        let got = read(serde_json::from_str(usage).unwrap(), &CHAT);
        let got = [
            got.prompt_tokens,
            got.completion_tokens,
            got.total_tokens,
            got.cached_tokens,
            got.reasoning_tokens,
        ];
        assert_eq!(got, want, "{usage}");
    }

    /// A line each: prompt, completion, total, cached and reasoning tokens, and what they are read of.
    fn check_all(lines: &str) {
        for line in lines.trim().lines() {
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            let want = std::array::from_fn(|n| words[n].parse().unwrap());
            check(words[5], want);
        }
    }

    #[test]
    fn usage_is_read_in_every_notation() {
        check_all(
            r#"
3 6 9 0 0 {"prompt_tokens":3,"completion_tokens":4,"total_tokens":9}
3 4 7 0 0 {"prompt_tokens":"3","completion_tokens":" 4.0 ","total_tokens":"7"}
3 100 103 0 0 {"prompt_tokens":3.0,"completion_tokens":1e2}
3 4 7 0 0 {"prompt_tokens":3,"completion_tokens":4,"total_tokens":null,"prompt_tokens_details":null,"completion_tokens_details":{}}
3 4 7 0 0 {"prompt_tokens":3,"completion_tokens":4,"total_tokens":"x","prompt_tokens_details":7}
"#,
        );
    }

    #[test]
    fn each_face_calls_its_counts_by_its_own_names() {
        let check = |names: &Names, usage: &str, want: [u64; 5]| {
            let got = read(serde_json::from_str(usage).unwrap(), names);
            let told = [
                got.prompt_tokens,
                got.completion_tokens,
                got.total_tokens,
                got.cached_tokens,
                got.reasoning_tokens,
            ];
            assert_eq!(told, want, "{usage}");
            assert!(!got.contradictory, "{usage}");
        };
        check(
            &RESPONSES,
            r#"{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,
                "output_tokens_details":{"reasoning_tokens":3},"total_tokens":15}"#,
            [10, 5, 15, 4, 3],
        );
        // What was read of the cache, and written to it, is told beside the prompt.
        check(
            &MESSAGES,
            r#"{"input_tokens":10,"cache_read_input_tokens":100,"cache_creation_input_tokens":7,"output_tokens":5,
                "server_tool_use":{"web_search_requests":0}}"#,
            [117, 5, 122, 100, 0],
        );
        check(
            &MESSAGES,
            r#"{"input_tokens":10,"output_tokens":5}"#,
            [10, 5, 15, 0, 0],
        );
        check(
            &EMBEDDINGS,
            r#"{"prompt_tokens":10,"total_tokens":10}"#,
            [10, 0, 10, 0, 0],
        );
        check(&EMBEDDINGS, r#"{"prompt_tokens":10}"#, [10, 0, 10, 0, 0]);
        check(&EMBEDDINGS, "{}", [0; 5]);
    }

    #[test]
    fn counts_are_found_wherever_they_stand_and_nowhere_else() {
        check_all(
            r#"
3 4 7 2 0 {"total_tokens":7,"prompt_tokens_details":{"audio_tokens":[9],"cached_tokens":2},"x":{"prompt_tokens":5},"completion_tokens":4,"prompt_tokens":3}
3 4 7 0 0 {"prompt_tokens":9,"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2},"prompt_tokens_details":{}}
3 4 7 0 0 {"prompt_tokens":3,"completion_tokens":4,"cached_tokens":2,"prompt_tokens_details/cached_tokens":2,"":9,"prompt_tokens_details":[{"cached_tokens":2}]}
3 4 7 2 0 {"prompt_t\u006fkens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2,"deeper":{"cached_tokens":8}}}
0 0 0 0 0 [{"prompt_tokens":3}]
"#,
        );
        let json = r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        let whole = of(&serde_json::from_str(json).unwrap(), &CHAT);
        assert_eq!((whole.prompt_tokens, whole.completion_tokens), (3, 4));
        assert_eq!(of(&Value::Null, &CHAT), Usage::default());
    }

    #[test]
    fn a_side_that_is_missing_follows_from_the_total() {
        // As of an embedding.
        check_all(
            r#"
10 100 110 0 0 {"prompt_tokens":10,"total_tokens":110}
10 100 110 0 0 {"completion_tokens":100,"total_tokens":110}
10 100 110 4 0 {"prompt_tokens":-1,"completion_tokens":100,"total_tokens":110,"prompt_tokens_details":{"cached_tokens":4}}
10 0 10 0 0 {"prompt_tokens":10,"total_tokens":10}
"#,
        );
    }

    #[test]
    fn a_side_that_follows_from_nothing_leaves_the_cost_unknown() {
        for (usage, known) in [
            (r#"{"prompt_tokens":10}"#, 10),
            (r#"{"completion_tokens":10}"#, 10),
            (r#"{"total_tokens":10}"#, 10),
            (r#"{"prompt_tokens":10,"completion_tokens":-4}"#, 10),
            (r#"{"prompt_tokens":10,"completion_tokens":"many"}"#, 10),
            (r#"{"prompt_tokens":10,"completion_tokens":0.5}"#, 10),
            (r#"{"prompt_tokens":10,"total_tokens":9}"#, 10),
            (r#"{"prompt_tokens":[],"total_tokens":9}"#, 9),
        ] {
            check(usage, [0, 0, known, 0, 0]);
            let usage = read(serde_json::from_str(usage).unwrap(), &CHAT);
            assert!(usage.is_reported() && !usage.is_chargeable());
        }
        for usage in ["null", "{}", "7", r#""free""#, r#"{"prompt_tokens":"x"}"#] {
            check(usage, [0; 5]);
        }
    }

    #[test]
    fn more_tokens_than_any_call_can_have_are_not_reported() {
        for absurd in [
            "1e300",
            "-1e300",
            "18446744073709551615",
            "1000000001",
            r#""1e300""#,
            r#""inf""#,
            r#""NaN""#,
        ] {
            check(
                &format!(r#"{{"prompt_tokens":{absurd},"completion_tokens":4,"total_tokens":9}}"#),
                [5, 4, 9, 0, 0],
            );
            check(
                &format!(r#"{{"prompt_tokens":3,"completion_tokens":4,"total_tokens":{absurd}}}"#),
                [3, 4, 7, 0, 0],
            );
            check(
                &format!(r#"{{"prompt_tokens":{absurd},"completion_tokens":4}}"#),
                [0, 0, 4, 0, 0],
            );
        }
        check(
            r#"{"prompt_tokens":1000000000,"completion_tokens":0}"#,
            [1_000_000_000, 0, 1_000_000_000, 0, 0],
        );
    }

    #[test]
    fn of_counts_that_contradict_each_other_the_larger_reading_counts() {
        // Reasoning is told beside the completion, and only the total holds it.
        check(
            r#"{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1900,
                "completion_tokens_details":{"reasoning_tokens":800}}"#,
            [1000, 900, 1900, 0, 800],
        );
        // The total is less than its parts.
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":9}"#,
            [10, 5, 15, 0, 0],
        );
        // Parts above their wholes.
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":11},
                "completion_tokens_details":{"reasoning_tokens":6}}"#,
            [21, 11, 32, 11, 6],
        );
        // The cached part is told beside the prompt, and the total knows it.
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,
                "prompt_tokens_details":{"cached_tokens":100}}"#,
            [110, 5, 115, 100, 0],
        );
    }

    #[test]
    fn counts_that_contradict_each_other_are_flagged_and_others_are_not() {
        let is_flagged =
            |usage: &str| read(serde_json::from_str(usage).unwrap(), &CHAT).contradictory;
        for usage in [
            r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":9}"#,
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":9}"#,
            r#"{"prompt_tokens":10,"total_tokens":9}"#,
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":11}}"#,
            r#"{"prompt_tokens":1,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}"#,
            r#"{"prompt_tokens":10,"completion_tokens":-4,"total_tokens":15}"#,
            r#"{"prompt_tokens":10,"completion_tokens":100.5,"total_tokens":15}"#,
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-1}}"#,
            r#"{"prompt_tokens":1e300,"completion_tokens":4}"#,
        ] {
            assert!(is_flagged(usage), "{usage}");
        }
        for usage in [
            "null",
            "{}",
            r#"{"prompt_tokens":3}"#,
            r#"{"prompt_tokens":3,"total_tokens":9}"#,
            r#"{"prompt_tokens":3,"completion_tokens":4}"#,
            r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}"#,
        ] {
            assert!(!is_flagged(usage), "{usage}");
        }
    }

    #[test]
    fn a_text_without_tokens_leaves_the_cost_unknown() {
        let told = |prompt_tokens, completion_tokens, has_content| {
            let usage = Usage {
                prompt_tokens,
                completion_tokens,
                total_tokens: prompt_tokens + completion_tokens,
                ..Usage::default()
            };
            of_answer(usage, has_content)
        };
        for usage in [told(10, 0, true), told(0, 10, true)] {
            assert_eq!(usage.total_tokens, 10);
            assert!(!usage.is_chargeable() && usage.contradictory);
        }
        assert!(told(10, 0, false).is_chargeable(), "it said nothing");
        assert!(told(10, 5, true).is_chargeable());
        assert_eq!(told(0, 0, true), Usage::default());
    }
}
