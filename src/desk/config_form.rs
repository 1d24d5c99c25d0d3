//! The settings as the fields of a form, made from their table: what each takes, what it says, who said it; and what was
//! typed as a change of the API.

use onelane_core::model::setting::{KeyPath, Kind};
use serde_json::{Map, Value};

use super::terms::Terms;
use super::words::fill;
use crate::config::{LEAVES, Leaf, Loaded, Origin, at};

/// How a setting is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Choice,
    Number,
    Text,
    /// Of several lines: a list, or JSON.
    Lines,
}

/// A setting of the form.
pub(super) struct Setting {
    /// Its path in the API, which is the name of its field.
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) takes: String,
    typed: Typed,
    choices: Vec<String>,
    pub(super) value: String,
    pub(super) origin: String,
    pub(super) default: Option<String>,
    /// A change of it is stored.
    pub(super) is_stored: bool,
    /// What outweighs a change of it.
    pub(super) fixed_by: Option<String>,
    pub(super) problem: Option<String>,
}

/// The settings of a section that may change while the program runs, with their leaves of the table; secrets are no part of
/// a form that shows what it has.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = (&'static Leaf, &'static KeyPath)> {
    let is_in = move |leaf: &&Leaf| leaf.toml.names().next() == Some(section);
    LEAVES
        .iter()
        .filter(is_in)
        .filter(|leaf| !matches!(leaf.field.kind, Kind::Secret(_)))
        .filter_map(|leaf| Some((leaf, leaf.json.as_ref()?)))
}

/// What is in force of a setting, in a view of the configuration.
pub(super) fn value_in(view: &Value, leaf: &Leaf, json: &KeyPath) -> Value {
    let found = at(view, json).cloned().unwrap_or_default();
    match found {
        // Entries that stand beside settings of their group.
        Value::Object(mut all) if leaf.field.is_flat() => {
            all.retain(|name, value| value.is_object() && !is_setting(&json.join(&**name)));
            Value::Object(all)
        }
        found => found,
    }
}

fn is_setting(json: &KeyPath) -> bool {
    let is_it = |known: &KeyPath| known == json || known.is_in(json);
    LEAVES
        .iter()
        .any(|leaf| leaf.json.as_ref().is_some_and(is_it))
}

/// The name of the field: entries that stand beside settings have the group's, marked.
pub(super) fn field_name(leaf: &Leaf, json: &KeyPath) -> String {
    match leaf.field.is_flat() {
        true => format!("{json}.*"),
        false => json.to_string(),
    }
}

/// A value as a field of the form shows it.
pub(super) fn shown(kind: &Kind, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Null) => String::new(),
        (Kind::List(_), Value::Array(items)) => {
            let items = items.iter().map(plain);
            items.collect::<Vec<_>>().join("\n")
        }
        (_, Value::Object(all)) if all.is_empty() => String::new(),
        (_, Value::Array(all)) if all.is_empty() => String::new(),
        (_, Value::Object(_) | Value::Array(_)) => {
            serde_json::to_string_pretty(value).unwrap_or_default()
        }
        (_, value) => plain(value),
    }
}

/// A single value without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// What was typed as a value of the API; what it can't be is refused there. The error is a phrase that follows the name.
fn read(kind: &Kind, typed: &str, before: &Value) -> Result<Value, String> {
    let json = |text: &str| {
        let wrong = |error: serde_json::Error| format!("is no JSON: {error}");
        serde_json::from_str(text).map_err(wrong)
    };
    Ok(match kind {
        Kind::List(_) => typed
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect(),
        Kind::Named { .. } if typed.is_empty() => Value::Object(Map::new()),
        // What was never typed is taken back: file and default say it then.
        _ if typed.is_empty() => Value::Null,
        Kind::Rows { .. } | Kind::Group(_) | Kind::Named { .. } => json(typed)?,
        Kind::Switch | Kind::Whole { .. } | Kind::Number { .. } => {
            json(typed).unwrap_or_else(|_| typed.into())
        }
        Kind::Figure(_) if before.is_number() => json(typed).unwrap_or_else(|_| typed.into()),
        _ => typed.into(),
    })
}

/// What of entries is other: those that are gone are taken back, and so are the settings that are gone from one.
fn changed(before: &Value, after: Value) -> Value {
    let (Value::Object(before), Value::Object(mut after)) = (before, after.clone()) else {
        return after;
    };
    for (name, old) in before {
        match after.get_mut(name) {
            None => {
                after.insert(name.clone(), Value::Null);
            }
            Some(new) if new == old => {
                after.remove(name);
            }
            Some(new) => *new = changed(old, new.take()),
        }
    }
    Value::Object(after)
}

/// The change that a form asks for: a part of the API's configuration, and what is wrong with fields by their names.
pub(super) fn patch(
    section: &str,
    view: &Value,
    typed: impl Fn(&str) -> Option<String>,
) -> (Value, Vec<(String, String)>) {
    let (mut patch, mut problems) = (Map::new(), Vec::new());
    for (leaf, json) in of_section(section) {
        let name = field_name(leaf, json);
        let Some(typed) = typed(&name) else { continue };
        // Browsers end lines so.
        let typed = typed.replace("\r\n", "\n").trim().to_owned();
        let before = value_in(view, leaf, json);
        let kind = &leaf.field.kind;
        if typed == shown(kind, &before).trim() {
            continue;
        }
        match read(kind, &typed, &before) {
            Err(problem) => problems.push((name, problem)),
            Ok(after) if matches!(kind, Kind::Named { .. }) => {
                put(&mut patch, json, changed(&before, after));
            }
            Ok(after) => put(&mut patch, json, after),
        }
    }
    (Value::Object(patch), problems)
}

/// Puts a value at its place; entries go beside what is there.
fn put(patch: &mut Map<String, Value>, path: &KeyPath, value: Value) {
    let mut names: Vec<&str> = path.names().collect();
    let Some(last) = names.pop() else { return };
    let mut group = patch;
    for name in names {
        let inner = group
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = inner else { return };
        group = inner;
    }
    match (group.get_mut(last), value) {
        (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
        (_, value) => {
            group.insert(last.to_owned(), value);
        }
    }
}

/// A word that a setting takes.
pub(super) struct Choice<'a> {
    pub(super) text: &'a str,
    pub(super) is_chosen: bool,
}

impl Setting {
    pub(super) fn is_choice(&self) -> bool {
        self.typed == Typed::Choice
    }

    pub(super) fn is_lines(&self) -> bool {
        self.typed == Typed::Lines
    }

    pub(super) fn is_number(&self) -> bool {
        self.typed == Typed::Number
    }

    /// Lines of its field.
    pub(super) fn lines(&self) -> usize {
        self.value.lines().count().clamp(1, 15) + 1
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = Choice<'_>> {
        self.choices.iter().map(|text| Choice {
            text,
            is_chosen: *text == self.value,
        })
    }

    /// As it is in force.
    pub(super) fn of(
        loaded: &Loaded,
        view: &Value,
        leaf: &Leaf,
        json: &KeyPath,
        t: &Terms,
    ) -> Self {
        let kind = &leaf.field.kind;
        let origin = loaded.origin_of(&leaf.toml);
        let stored = loaded.sources.stored.as_ref();
        let choices = match kind {
            Kind::Switch => vec!["true".to_owned(), "false".to_owned()],
            Kind::Word(words) => words.clone(),
            _ => Vec::new(),
        };
        let default = shown(kind, &leaf.field.default);
        Self {
            name: field_name(leaf, json),
            doc: leaf.field.doc.join(" "),
            takes: kind.in_words(),
            typed: match kind {
                Kind::Switch | Kind::Word(_) => Typed::Choice,
                Kind::Whole { .. } => Typed::Number,
                Kind::List(_) | Kind::Rows { .. } | Kind::Group(_) | Kind::Named { .. } => {
                    Typed::Lines
                }
                _ => Typed::Text,
            },
            choices,
            value: shown(kind, &value_in(view, leaf, json)),
            default: (!default.is_empty())
                .then(|| fill(t.default_is, &[&default.replace('\n', ", ")])),
            is_stored: stored.is_some_and(|stored| stored.contains(&leaf.toml)),
            fixed_by: matches!(origin, Origin::Flag(_) | Origin::Env(_))
                .then(|| fill(t.fixed_by, &[&origin.to_string()])),
            origin: origin.to_string(),
            problem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::words::Lang;
    use super::*;
    use crate::config::Config;

    fn loaded() -> (Loaded, Value) {
        let loaded = Loaded::from_config(&Config::default()).unwrap();
        let view = serde_json::to_value(loaded.view()).unwrap();
        (loaded, view)
    }

    /// The form of a section, some of its fields typed anew.
    fn sent(section: &str, typed: &[(&str, &str)]) -> (Value, Vec<(String, String)>) {
        let (loaded, view) = loaded();
        let t = Terms::of(Lang::En);
        let form: Vec<(String, String)> = of_section(section)
            .map(|(leaf, json)| Setting::of(&loaded, &view, leaf, json, t))
            .map(|setting| (setting.name, setting.value))
            .collect();
        patch(section, &view, |name| {
            let anew = typed.iter().find(|(known, _)| *known == name);
            let as_shown = || form.iter().find(|(known, _)| known == name);
            anew.map(|(_, value)| (*value).to_owned())
                .or_else(|| Some(as_shown()?.1.clone()))
        })
    }

    #[test]
    fn a_form_that_is_sent_as_it_was_shown_changes_nothing() {
        for section in [
            "glm", "lane", "lanes", "retry", "breaker", "policy", "money", "gateway", "alerts",
        ] {
            assert!(of_section(section).next().is_some(), "{section}");
            assert_eq!(sent(section, &[]), (json!({}), Vec::new()), "{section}");
        }
    }

    #[test]
    fn what_was_typed_is_a_change_of_its_type_and_blank_takes_back() {
        let (change, problems) = sent("retry", &[("maxRetries", "5"), ("retry.jitter", "0.5")]);
        let name = of_section("retry").map(|(leaf, json)| field_name(leaf, json));
        let names: Vec<String> = name.collect();
        assert!(problems.is_empty(), "{problems:?}");
        assert!(change.to_string().contains('5'), "{change} of {names:?}");
        let (change, _) = sent("glm", &[("model", "")]);
        assert_eq!(change, json!({"model": null}));
        let (change, _) = sent("glm", &[("model", "glm-5"), ("isActive", "false")]);
        assert_eq!(change, json!({"model": "glm-5", "isActive": false}));
        let (_, problems) = sent("lanes", &[("lanes", "{")]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn entries_that_are_gone_are_taken_back() {
        let before = json!({"a": {"x": 1, "y": 2}, "b": {"x": 1}, "c": {"x": 1}});
        let after = json!({"a": {"x": 3}, "c": {"x": 1}, "d": {"x": 4}});
        let want = json!({"a": {"x": 3, "y": null}, "b": null, "d": {"x": 4}});
        assert_eq!(changed(&before, after), want);
    }

    #[test]
    fn no_secret_is_a_field_of_a_form() {
        let secrets = LEAVES
            .iter()
            .filter(|leaf| matches!(leaf.field.kind, Kind::Secret(_)));
        for leaf in secrets {
            let section = leaf.toml.names().next().unwrap();
            assert!(of_section(section).all(|(of, _)| of.toml != leaf.toml));
        }
    }
}
