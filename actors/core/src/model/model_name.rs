//! A model is one name: vendors take any case, and so do the tables that are kept by model.

use std::borrow::Cow;

use super::limits;
use super::setting::{Problem, plain};

/// The name that prices, lanes, budgets, fallbacks and statistics know a model by: without blanks around it, and with
/// ASCII letters in lower case. What goes to GLM is spelled as the submitter spelled it.
#[must_use]
pub fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.trim();
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Whether a name, however it is spelled, is that of the model with this canonical name.
#[must_use]
pub fn is_model(name: &str, model: &str) -> bool {
    name.trim().eq_ignore_ascii_case(model)
}

/// The name of a model in a setting, as it is spelled.
pub(super) fn spelled(text: &str) -> Result<String, Problem> {
    let text = plain(text.trim())?;
    if !(1..=limits::MODEL_CHARS_MAX).contains(&text.chars().count()) {
        return Err(format!("must have 1 to {} characters", limits::MODEL_CHARS_MAX).into());
    }
    Ok(text)
}

/// The name of a model in a setting by which something is looked up.
pub fn setting(text: &str) -> Result<String, Problem> {
    spelled(text).map(|text| canonical(&text).into_owned())
}

/// The name of a model, or its beginning and a `*`.
pub(super) fn pattern(text: &str) -> Result<String, Problem> {
    match text.find('*') {
        Some(at) if at + 1 < text.len() => {
            Err("may have a `*` at its end only, as in glm-4.5*".into())
        }
        _ => setting(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_name_in_any_case_and_with_blanks_around_it() {
        for name in ["glm-4.7", "GLM-4.7", "  Glm-4.7\t", "\u{a0}glm-4.7\n"] {
            assert_eq!(canonical(name), "glm-4.7", "{name:?}");
            assert!(is_model(name, "glm-4.7"), "{name:?}");
            assert_eq!(setting(name).as_deref(), Ok("glm-4.7"), "{name:?}");
        }
        // What looks alike is another one.
        for other in ["glm-4.7-flash", "glm 4.7", "glm-4.70", ""] {
            assert!(!is_model(other, "glm-4.7"), "{other:?}");
        }
        assert_eq!(spelled(" Org/GLM-5 ").as_deref(), Ok("Org/GLM-5"));
    }
}
