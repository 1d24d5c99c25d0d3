//! GLM's own tokenizer, from the vocabularies that the crate `tiktoken` carries.

use onelane_core::money::estimate::CountTokens;
use tiktoken::{CoreBpe, encoding};

use super::vocabulary::Vocabulary;

static GLM4: Vocabulary<CoreBpe> = Vocabulary::new(encoding::glm4);
static GLM5: Vocabulary<CoreBpe> = Vocabulary::new(encoding::glm5);

/// Counts with the vocabulary of the model's generation: that of GLM-4.5 to 4.7 for `glm-4*` and older,
/// that of GLM-5 for all others. Models of before 4.5 had another one, close to it. A vocabulary is in memory while
/// somebody counts with it, and some minutes longer.
#[derive(Debug, Clone, Copy, Default)]
pub struct GlmTokenizer;

/// How the models of the older generation begin.
const OLDER: [&str; 3] = ["glm-4", "glm-3", "embedding-"];

fn vocabulary(model: &str) -> &'static Vocabulary<CoreBpe> {
    let older = OLDER.iter().any(|beginning| {
        let head = model.get(..beginning.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(beginning))
    });
    if older { &GLM4 } else { &GLM5 }
}

impl CountTokens for GlmTokenizer {
    fn count(&self, model: &str, text: &str) -> u64 {
        vocabulary(model).get().count(text) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_counted_by_the_vocabulary_of_its_generation() {
        let check = |model, want| assert!(std::ptr::eq(vocabulary(model), want), "{model}");
        for model in "glm-4.7 glm-4.5-air GLM-4.6 glm-4-flash glm-3-turbo".split(' ') {
            check(model, &GLM4);
        }
        for model in "glm-5 glm-5.3-flash GLM-5v-Turbo glm-6 x glm".split(' ') {
            check(model, &GLM5);
        }
    }

    #[test]
    fn both_vocabularies_are_built_in() {
        for model in ["glm-4.7", "glm-5.3"] {
            let count = |text| GlmTokenizer.count(model, text);
            assert_eq!(count(""), 0);
            assert_eq!(count("hello world"), 2);
            // Two words and a comma; by bytes it would be fifteen.
            assert_eq!(count("\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}"), 3);
            // What looks like a mark of the template is text.
            assert!(count("<|user|>") > 1);
        }
    }

    #[test]
    fn a_text_of_one_letter_is_counted_in_time_that_grows_with_its_length_only() {
        // A word of 200 kB: merged pair by pair from scratch it would take minutes.
        let tokens = GlmTokenizer.count("glm-5", &"a".repeat(200_000));
        assert!((1..=200_000).contains(&tokens));
    }
}
