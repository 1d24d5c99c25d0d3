//! Which of some names was probably meant by one that is none of them.

/// The nearest of these names: a slip or two away, the same in another spelling, or with some words more or less.
pub(crate) fn nearest<'a, S: AsRef<str>>(names: &'a [S], name: &str) -> Option<&'a str> {
    let names = names.iter().map(AsRef::as_ref);
    by_letters(names.clone(), name).or_else(|| by_words(names, name))
}

fn by_letters<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let plain = |text: &str| words(text).concat();
    let wanted = plain(name);
    let length = wanted.chars().count();
    let near = names.map(|known| {
        let slips = strsim::damerau_levenshtein(&plain(known), &wanted);
        (slips, known)
    });
    let (slips, known) = near.min_by_key(|(slips, _)| *slips)?;
    (slips <= 1 + length / 5 && slips < length).then_some(known)
}

fn by_words<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let wanted = words(name);
    let near = names.filter_map(|known| Some((known, apart(&words(known), &wanted)?)));
    let (known, _) = near.min_by_key(|(_, apart)| *apart)?;
    Some(known)
}

/// How many words one of two names has more than the other, where it has all of the other's; `None`: they have nothing
/// to do with each other.
fn apart(known: &[String], wanted: &[String]) -> Option<usize> {
    let has_all = |of: &[String], words: &[String]| words.iter().all(|word| of.contains(word));
    let is_short = |word: &String| match wanted {
        [short] => short.chars().count() >= 3 && word.starts_with(short.as_str()),
        _ => false,
    };
    let is_meant = match known {
        [] => false,
        // One word says little, unless it is the first.
        [only] => wanted.first() == Some(only) || is_short(only),
        [first, ..] => has_all(wanted, known) || is_short(first),
    };
    let is_part = !wanted.is_empty() && has_all(known, wanted);
    (is_meant || is_part).then(|| known.len().abs_diff(wanted.len()))
}

/// The words of a name, in small letters and in the singular, however it is written.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for letter in name.chars() {
        let parts = matches!(letter, '_' | '-');
        let begins = parts || (letter.is_uppercase() && was_small);
        if begins {
            words.push(String::new());
        }
        was_small = !letter.is_uppercase();
        if let Some(word) = words.last_mut()
            && !parts
        {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    let singular = |word: String| match word.strip_suffix("ies") {
        Some(stem) if !stem.is_empty() => format!("{stem}y"),
        _ => match word.strip_suffix('s') {
            Some(stem) if !stem.is_empty() => stem.to_owned(),
            _ => word,
        },
    };
    words.into_iter().map(singular).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = [
        "contentId",
        "idempotencyKey",
        "maxRetries",
        "max_tokens",
        "model",
        "priority",
        "stop",
        "tools",
        "userId",
    ];

    #[test]
    fn a_name_that_is_nearly_one_is_taken_for_it() {
        let check = |name: &str, want: &str| {
            assert_eq!(nearest(&NAMES, name), Some(want), "{name}");
        };
        check("modle", "model");
        check("max-tokens", "max_tokens");
        check("maxRetry", "maxRetries");
        check("maxretry", "maxRetries");
        check("MAX_RETRY", "maxRetries");
        check("retries", "maxRetries");
        check("retry", "maxRetries");
        check("max_completion_tokens", "max_tokens");
        check("idempotency", "idempotencyKey");
        check("prio", "priority");
        check("user", "userId");
        check("modelName", "model");
        check("stop_sequences", "stop");
    }

    #[test]
    fn a_name_that_has_nothing_to_do_with_any_is_taken_for_none() {
        for name in [
            "",
            "n",
            "_",
            "presence_penalty",
            "parallel_tool_calls",
            "glm.model",
            "绿",
        ] {
            assert_eq!(nearest(&NAMES, name), None, "{name}");
        }
        assert_eq!(nearest::<&str>(&[], "model"), None);
    }
}
