//! What to say of a name that no setting has.

use super::schema::{KEYS, Naming};

/// Sections that hold only settings which are fixed while the program runs.
const FIXED_SECTIONS: &[&str] = &["store", "server", "webhooks", "log"];

/// The nearest setting inside the group `prefix`, one of the same name elsewhere, or all that would
/// be right here.
pub(crate) fn unknown(naming: Naming, prefix: &str, name: &str) -> String {
    let siblings = siblings(naming, prefix);
    if let Some(near) = nearest(&siblings, name) {
        return format!("unknown key; did you mean `{near}`?");
    }
    let mut paths = KEYS.iter().filter_map(|key| naming.path(key));
    if let Some(path) = paths.find(|path| path.rsplit('.').next() == Some(name)) {
        return format!("unknown key; did you mean `{path}`?");
    }
    if naming == Naming::Json && prefix.is_empty() && FIXED_SECTIONS.contains(&name) {
        return "can't change while the program runs; set it in config.toml".to_owned();
    }
    let place = match (naming, prefix) {
        (Naming::Toml, "") => "config.toml",
        (Naming::Json, "") => "the configuration",
        (_, prefix) => prefix,
    };
    format!("unknown key; {place} has {}", quoted(&siblings))
}

/// The nearest of `names`, or all of them as what `place` has.
pub(crate) fn unknown_among(names: &[&str], name: &str, place: &str) -> String {
    match nearest(names, name) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; {place} has {}", quoted(names)),
    }
}

/// Names in backticks, with commas between.
pub(crate) fn quoted(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// The names that a group has, in the order of the table.
fn siblings(naming: Naming, prefix: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for path in KEYS.iter().filter_map(|key| naming.path(key)) {
        let rest = match prefix {
            "" => Some(path),
            prefix => path.strip_prefix(prefix).and_then(|p| p.strip_prefix('.')),
        };
        let name = rest.and_then(|rest| rest.split('.').next());
        if let Some(name) = name.filter(|name| !names.contains(name)) {
            names.push(name);
        }
    }
    names
}

/// The name that was probably meant: a slip or two away, or the same in another spelling.
fn nearest<'a>(names: &[&'a str], name: &str) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = plain(name);
    let slips_max = 1 + wanted.chars().count() / 5;
    let (near, slips) = names
        .iter()
        .map(|candidate| (*candidate, distance(&plain(candidate), &wanted)))
        .min_by_key(|(_, slips)| *slips)?;
    (slips <= slips_max && slips < wanted.chars().count()).then_some(near)
}

/// Edit distance (Levenshtein), in characters.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, in_a) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (in_b, above) in b.chars().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(in_a != in_b);
            left = replaced.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edit_distance_counts_slips() {
        for (a, b, slips) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
            assert_eq!(distance(b, a), slips, "{b} {a}");
        }
    }

    #[test]
    fn an_unknown_key_gets_the_best_hint_there_is() {
        let check = |naming, prefix, name, expected: &str| {
            let problem = unknown(naming, prefix, name);
            assert!(problem.contains(expected), "{prefix}.{name}: {problem}");
        };
        check(
            Naming::Toml,
            "lane",
            "max_concurency",
            "did you mean `max_concurrency`?",
        );
        check(
            Naming::Toml,
            "lane",
            "maxConcurrency",
            "did you mean `max_concurrency`?",
        );
        check(
            Naming::Toml,
            "glm",
            "max_retries",
            "did you mean `retry.max_retries`?",
        );
        check(Naming::Toml, "", "lans", "did you mean `lane`?");
        check(
            Naming::Toml,
            "",
            "plugins",
            "config.toml has `glm`, `lane`, `lanes`, `retry`",
        );
        check(
            Naming::Toml,
            "store",
            "zzz",
            "store has `path`, `cache_bytes`, `quick_repair`",
        );
        check(Naming::Json, "", "max_tokens", "did you mean `maxTokens`?");
        check(
            Naming::Json,
            "",
            "baseDelay",
            "did you mean `retry.baseDelay`?",
        );
        check(
            Naming::Json,
            "",
            "server",
            "can't change while the program runs",
        );
    }
}
