//! What to say of a name that no setting has.

use onelane_core::model::setting::{KeyPath, Problem, Step, quoted};

use super::schema::{LEAVES, Leaf, Naming};
use crate::meant::nearest;

/// The nearest setting inside the group `at`, one of the same name elsewhere, or all that would be right
/// here.
pub(crate) fn unknown(naming: Naming, at: &KeyPath, name: &str) -> Problem {
    let siblings = siblings(naming, at);
    if let Some(near) = nearest(&siblings, name) {
        return format!("unknown key; did you mean `{}`?", at.join(near)).into();
    }
    let mut paths = LEAVES.iter().filter_map(|leaf| naming.path(leaf));
    if let Some(path) = paths.find(|path| path.name() == name) {
        return format!("unknown key; did you mean `{path}`?").into();
    }
    let is_top = at.steps().is_empty();
    if naming == Naming::Json && is_top && is_fixed_section(name) {
        return "can't change while the program runs; set it in config.toml".into();
    }
    let place = match naming {
        _ if !is_top => at.to_string(),
        Naming::Toml => "config.toml".to_owned(),
        Naming::Json => "the configuration".to_owned(),
    };
    format!("unknown key; {place} has {}", quoted(&siblings)).into()
}

/// The nearest of `names`, or all of them as what `place` has.
pub(crate) fn unknown_among(names: &[String], name: &str, place: &str) -> Problem {
    match nearest(names, name) {
        Some(near) => format!("unknown key; did you mean `{near}`?").into(),
        None => format!("unknown key; {place} has {}", quoted(names)).into(),
    }
}

/// Whether no setting of a section of `config.toml` may change while the program runs; groups inside it have
/// a word of their own.
fn is_fixed_section(name: &str) -> bool {
    let section = KeyPath::default().join(name);
    let is_own = |leaf: &&Leaf| leaf.toml.parent().as_ref() == Some(&section);
    let mut own = LEAVES.iter().filter(is_own).peekable();
    own.peek().is_some() && own.all(|leaf| leaf.json.is_none())
}

/// The names that a group has, in the order of the table.
fn siblings(naming: Naming, group: &KeyPath) -> Vec<String> {
    let mut names = Vec::new();
    for path in LEAVES.iter().filter_map(|leaf| naming.path(leaf)) {
        if let Some([Step::Name(name), ..]) = path.behind(group)
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_gets_the_best_hint_there_is() {
        let check = |naming, at: &str, name, hint: &str| {
            let problem = unknown(naming, &KeyPath::from(at), name).to_string();
            assert!(problem.contains(hint), "{at}.{name}: {problem}");
        };
        let toml = Naming::Toml;
        let meant = "did you mean `lane.max_concurrency`?";
        check(toml, "lane", "max_concurency", meant);
        check(toml, "lane", "maxConcurrency", meant);
        check(toml, "glm", "modl", "did you mean `glm.model`?");
        check(toml, "glm", "max_retries", "mean `retry.max_retries`?");
        check(toml, "", "lans", "did you mean `lane`?");
        let all = "config.toml has `glm`, `lane`, `lanes`, `retry`";
        check(toml, "", "plugins", all);
        let all = "store has `path`, `cache_bytes`, `retention`";
        check(toml, "store", "zzz", all);
        let json = Naming::Json;
        check(json, "", "max_tokens", "did you mean `maxTokens`?");
        check(json, "", "baseDelay", "did you mean `retry.baseDelay`?");
        check(json, "", "server", "can't change while the program runs");
    }
}
