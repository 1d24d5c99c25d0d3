//! The configuration: a form made from the settings' table, what a change would do before it is made, what is outweighed,
//! and what was changed by whom.

use askama::Template;
use onelane_core::model::setting::{KeyPath, Kind, Setting as _};
use onelane_core::model::{ActedBy, ActedHow, AuditEntry, Timestamp, limits};
use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::asked::{Answered, Asked};
use super::config_form::{self, Setting, plain};
use super::frame::{Frame, Nav, Note};
use super::lists::{Tab, link};
use super::show::When;
use super::terms::Terms;
use super::words::Words;
use crate::api::site::{Kind as Wrong, Problem};
use crate::config::{Config, FieldProblem, LEAVES, Loaded, differences};

/// The endpoint by which settings change, as the audit list has it.
const CHANGES: &str = "PUT /api/admin/glm/config";
const PATH: &str = "/api/admin/glm/config";
/// Changes that are shown.
const HISTORY: usize = 10;
/// Characters of a value in a list of changes.
const VALUE_CHARS: usize = 160;

#[derive(Template)]
#[template(path = "config.html")]
struct Page {
    frame: Frame,
    t: &'static Terms,
    tabs: Vec<Tab>,
    section: String,
    about: String,
    stamp: String,
    problems: Vec<String>,
    settings: Vec<Setting>,
    /// What only a start can change.
    fixed: Vec<FixedRow>,
    /// The masked key, in the section that has it.
    key: Option<String>,
    history: Vec<ChangeRow>,
}

struct FixedRow {
    key: String,
    value: String,
    origin: String,
}

/// Who changed what.
struct ChangeRow {
    when: When,
    who: &'static str,
    changes: Vec<Change>,
}

/// A setting before and after.
struct Change {
    name: String,
    before: String,
    after: String,
}

#[derive(Template)]
#[template(path = "config_diff.html")]
struct Diff {
    frame: Frame,
    t: &'static Terms,
    section: String,
    changes: Vec<Change>,
    shadowed: Vec<String>,
    patch: String,
}

/// `GET /desk/config`.
pub(super) async fn page(asked: Asked) -> Answered {
    let section = section(asked.query("section").as_deref());
    shown(&asked, &section, StatusCode::OK, None).await
}

/// The names of the sections, as the configuration has them.
fn sections() -> Vec<(String, String)> {
    match Config::kind() {
        Kind::Group(group) => group
            .0
            .into_iter()
            .map(|field| (field.name, field.doc.join(" ")))
            .collect(),
        _ => Vec::new(),
    }
}

fn section(asked: Option<&str>) -> String {
    let known = sections().into_iter().map(|(name, _)| name);
    let mut known = known.filter(|name| asked.is_none_or(|asked| asked == name));
    known.next().unwrap_or_else(|| "glm".to_owned())
}

/// A form that was sent with something wrong in it.
struct Again {
    problems: Vec<(String, String)>,
}

async fn shown(asked: &Asked, section: &str, status: StatusCode, again: Option<Again>) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let (loaded, view) = (asked.lane().config(), asked.lane().config_view());
    let mut settings: Vec<Setting> = config_form::of_section(section)
        .map(|(leaf, json)| Setting::of(&loaded, &view, leaf, json, t))
        .collect();
    let mut general = Vec::new();
    if let Some(Again { problems }) = again {
        for setting in &mut settings {
            if let Some((_, typed)) = asked.form.iter().find(|(name, _)| *name == setting.name) {
                setting.value.clone_from(typed);
            }
        }
        for (field, problem) in problems {
            let is_its = |setting: &&mut Setting| is_about(&field, &setting.name);
            match settings.iter_mut().find(is_its) {
                Some(setting) => {
                    let told = setting.problem.get_or_insert_default();
                    if !told.is_empty() {
                        told.push_str("; ");
                    }
                    if field != setting.name {
                        told.push_str(&field);
                        told.push(' ');
                    }
                    told.push_str(&problem);
                }
                None if field.is_empty() => general.push(problem),
                None => general.push(format!("{field} {problem}")),
            }
        }
    }
    let all = sections();
    let tab = |(name, _): &(String, String)| Tab {
        href: link("/desk/config", &[("section", name)]),
        text: name.clone(),
        count: None,
        is_current: name == section,
    };
    let about = all.iter().find(|(name, _)| name == section);
    let mut frame = asked.frame(Nav::Config).await?;
    frame.is_live = false;
    frame.here = link("/desk/config", &[("section", section)]);
    let page = Page {
        frame,
        t,
        tabs: all.iter().map(tab).collect(),
        about: about.map(|(_, doc)| doc.clone()).unwrap_or_default(),
        stamp: stamp(&view),
        problems: general,
        settings,
        fixed: fixed(&loaded, section),
        key: key_of(&view, section),
        history: history(asked, now, w).await?,
        section: section.to_owned(),
    };
    asked.page_as(status, &page)
}

/// Whether a problem of this field is about a setting of the form, or about what is inside it.
fn is_about(field: &str, name: &str) -> bool {
    let name = name.trim_end_matches(".*");
    let inside = field.strip_prefix(name);
    inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What tells one state of the stored changes from another.
fn stamp(view: &Value) -> String {
    view.get("updatedAt").map(plain).unwrap_or_default()
}

fn key_of(view: &Value, section: &str) -> Option<String> {
    let key = view.get("apiKey").filter(|key| !key.is_null());
    (section == "glm").then(|| key.map(plain).unwrap_or_default())
}

/// The settings of a section that only a start can change, secrets masked.
fn fixed(loaded: &Loaded, section: &str) -> Vec<FixedRow> {
    let is_fixed = |key: &str| {
        let path = KeyPath::from(key);
        let mut leaves = LEAVES.iter();
        let leaf = leaves.find(|leaf| path == leaf.toml || path.is_in(&leaf.toml));
        path.names().next() == Some(section) && leaf.is_some_and(|leaf| leaf.json.is_none())
    };
    let all = loaded.explain().into_iter();
    let row = |setting: crate::config::Setting| FixedRow {
        value: match &setting.value {
            Value::Null => String::new(),
            value => plain(value),
        },
        origin: setting.origin.to_string(),
        key: setting.key,
    };
    all.filter(|setting| is_fixed(&setting.key))
        .map(row)
        .collect()
}

/// What was changed by whom, the latest first.
async fn history(asked: &Asked, now: Timestamp, w: &Words) -> Result<Vec<ChangeRow>, Problem> {
    let all = asked.lane().audit(None, limits::PAGE_ROWS_MAX).await?;
    let changed = |entry: &&AuditEntry| entry.what == CHANGES && entry.outcome == ActedHow::Done;
    let row = |entry: &AuditEntry| ChangeRow {
        when: When::of(entry.at, now, w),
        who: match entry.by {
            ActedBy::Admin => w.admin,
            ActedBy::Local => w.local,
        },
        changes: changes(entry.detail.as_ref().map_or("", |detail| detail.get())),
    };
    Ok(all.iter().filter(changed).take(HISTORY).map(row).collect())
}

fn changes(detail: &str) -> Vec<Change> {
    let detail = serde_json::from_str(detail).unwrap_or_default();
    told(&detail)
}

/// Differences by their settings.
fn told(differences: &Value) -> Vec<Change> {
    let all = differences.as_object().into_iter().flatten();
    let side = |change: &Value, side: &str| {
        let value = change.get(side).filter(|value| !value.is_null());
        let text = value.map_or_else(|| "–".to_owned(), plain);
        match text.char_indices().nth(VALUE_CHARS) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    };
    all.map(|(name, change)| Change {
        name: name.clone(),
        before: side(change, "before"),
        after: side(change, "after"),
    })
    .collect()
}

/// `POST /desk/config`: what a change would do; nothing is changed.
pub(super) async fn ask(asked: Asked) -> Answered {
    let section = section(asked.field("section"));
    let t = Terms::of(asked.look.lang);
    let view = asked.lane().config_view();
    let again = |problems| Some(Again { problems });
    if asked.field("stamp") != Some(&*stamp(&view)) {
        let problems = vec![(String::new(), t.changed_meanwhile.to_owned())];
        return shown(&asked, &section, StatusCode::CONFLICT, again(problems)).await;
    }
    let typed = |name: &str| {
        let found = asked.form.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let (patch, problems) = config_form::patch(&section, &view, typed);
    if !problems.is_empty() {
        return shown(&asked, &section, StatusCode::BAD_REQUEST, again(problems)).await;
    }
    let change = match asked.lane().config().change(&patch, asked.visit.now()) {
        Ok(change) => change,
        Err(error) => {
            let named = |FieldProblem { field, problem }| (field, problem);
            let problems = error.problems.into_iter().map(named).collect();
            return shown(&asked, &section, StatusCode::BAD_REQUEST, again(problems)).await;
        }
    };
    let broken = |error: serde_json::Error| Problem::new(Wrong::Internal, error.to_string());
    let after = serde_json::to_value(change.loaded.view()).map_err(broken)?;
    let mut frame = asked.frame(Nav::Config).await?;
    frame.is_live = false;
    frame.here = link("/desk/config", &[("section", &section)]);
    asked.page(&Diff {
        frame,
        t,
        section,
        changes: told(&differences(&view, &after)),
        shadowed: change
            .shadowed
            .iter()
            .map(|shadowed| format!("{}: {}", shadowed.field, shadowed.origin))
            .collect(),
        patch: patch.to_string(),
    })
}

/// `POST /desk/config/save`.
pub(super) async fn save(asked: Asked) -> Answered {
    let patch = asked.field("patch").unwrap_or_default().to_owned();
    changed(&asked, patch).await
}

/// `POST /desk/config/key`: another key for GLM, in force at once. It is shown nowhere again.
pub(super) async fn replace_key(asked: Asked) -> Answered {
    let Some(key) = asked.field("apiKey") else {
        let problem = "must be the new key";
        return Err(Problem::of_field(Wrong::InvalidField, "apiKey", problem));
    };
    let patch = json!({"apiKey": key}).to_string();
    changed(&asked, patch).await
}

async fn changed(asked: &Asked, patch: String) -> Answered {
    let by = asked.principal();
    let answer = asked
        .visit
        .order_of_text(&by, Method::PUT, PATH, patch)
        .await?;
    let shadowed = answer.pointer("/config/shadowed").and_then(Value::as_array);
    Ok(match shadowed {
        Some(fields) => asked.back(Note::Shadowed, Some(fields.len() as u64)),
        None => asked.back(Note::Saved, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_stands_at_its_setting() {
        assert!(is_about("maxTokens", "maxTokens"));
        assert!(is_about("lanes.big.models[0]", "lanes"));
        assert!(is_about("alerts.old.above", "alerts.*"));
        assert!(!is_about("maxTokensMore", "maxTokens"));
        assert!(!is_about("", "maxTokens"));
    }

    #[test]
    fn a_change_is_told_with_what_was_and_what_is() {
        let change = changes(r#"{"model":{"before":"glm-4.7","after":null}}"#);
        let first = change.first().unwrap();
        assert_eq!(
            (&*first.name, &*first.before, &*first.after),
            ("model", "glm-4.7", "–")
        );
        assert!(changes("\"cut off").is_empty());
        let long = json!({"x": {"before": "谷".repeat(500), "after": 1}});
        assert_eq!(told(&long)[0].before.chars().count(), VALUE_CHARS + 1);
    }

    #[test]
    fn every_section_has_something_to_show() {
        let loaded = Loaded::from_config(&Config::default()).unwrap();
        for (name, about) in sections() {
            let live = config_form::of_section(&name).count();
            assert!(!about.is_empty());
            assert!(live > 0 || !fixed(&loaded, &name).is_empty(), "{name}");
        }
        assert_eq!(section(Some("nonsense")), "glm");
    }
}
