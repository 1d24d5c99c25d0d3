//! What lists share: by what they are narrowed, and where their numbers and their next pages lead.

use super::asked::Asked;
use super::show::encoded;

/// Names with what is asked of them.
pub(super) type Pairs = Vec<(String, String)>;

/// What of the query, or of a form, is one of these names and says something.
pub(super) fn narrowed(given: Pairs, names: &[&str]) -> Pairs {
    let says = |(name, value): &(String, String)| {
        names.contains(&name.as_str()) && !value.trim().is_empty()
    };
    given.into_iter().filter(says).collect()
}

/// What is asked of a name; empty without it.
pub(super) fn of(pairs: &Pairs, name: &str) -> String {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map_or_else(String::new, |(_, value)| value.clone())
}

/// The same with another value of a name; `None`: without it.
pub(super) fn with(pairs: &Pairs, name: &str, value: Option<&str>) -> Pairs {
    let others = pairs.iter().filter(|(known, _)| known != name).cloned();
    let new = value.map(|value| (name.to_owned(), value.to_owned()));
    others.chain(new).collect()
}

/// A place with its query.
pub(super) fn link<N: AsRef<str>, V: AsRef<str>>(path: &str, pairs: &[(N, V)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name.as_ref()), encoded(value.as_ref())));
    let query = pairs.collect::<Vec<_>>().join("&");
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{query}"),
    }
}

/// A way to look at the same list otherwise.
pub(super) struct Tab {
    pub(super) href: String,
    pub(super) text: String,
    pub(super) count: Option<String>,
    pub(super) is_current: bool,
}

/// A field by which a list is narrowed.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) value: String,
    pub(super) kind: &'static str,
    /// How it is written.
    pub(super) hint: Option<&'static str>,
}

impl Field {
    /// Of text.
    pub(super) fn text(name: &'static str, text: &'static str, pairs: &Pairs) -> Self {
        Self {
            name,
            text,
            value: of(pairs, name),
            kind: "text",
            hint: None,
        }
    }

    /// Of a day.
    pub(super) fn date(name: &'static str, text: &'static str, value: String) -> Self {
        Self {
            name,
            text,
            value,
            kind: "date",
            hint: None,
        }
    }

    /// Of a moment.
    pub(super) fn moment(name: &'static str, text: &'static str, pairs: &Pairs) -> Self {
        Self {
            hint: Some("2026-11-23T08:00:00Z"),
            ..Self::text(name, text, pairs)
        }
    }
}

/// Where a page of a list begins.
pub(super) fn cursor(asked: &Asked) -> Option<u64> {
    asked.query("cursor").and_then(|cursor| cursor.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_its_list_is_narrowed_by_and_nothing_else() {
        let given = [("model", "glm 5&x"), ("note", "done"), ("userId", " ")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs = narrowed(given.into(), &["model", "userId"]);
        assert_eq!(link("/desk/calls", &pairs), "/desk/calls?model=glm%205%26x");
        let other = with(&pairs, "model", Some("b"));
        assert_eq!(of(&other, "model"), "b");
        assert_eq!(
            link("/desk/calls", &with(&pairs, "model", None)),
            "/desk/calls"
        );
    }
}
