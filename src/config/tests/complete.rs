//! Nothing is forgotten: every setting has a name of its own that says its unit, and says what it is.

use std::collections::BTreeSet;
use std::path::Path;

use onelane_core::model::setting::{Field, Kind, Setting};
use onelane_core::model::{BreakerRule, FailureClass, JobRule, LaneRule};

use crate::config::schema::LEAVES;
use crate::config::{Config, Loader};

/// Every setting, those of entries and rows among them.
fn fields() -> Vec<&'static Field> {
    let mut fields = Vec::new();
    for leaf in LEAVES.iter() {
        fields.push(&leaf.field);
        fields.extend(
            leaf.field
                .kind
                .members()
                .into_iter()
                .flat_map(|group| &group.0),
        );
    }
    fields
}

#[test]
fn no_name_stands_twice() {
    let toml: BTreeSet<_> = LEAVES.iter().map(|leaf| &leaf.toml).collect();
    assert_eq!(toml.len(), LEAVES.len());
    let json: Vec<_> = LEAVES
        .iter()
        .filter_map(|leaf| leaf.json.as_ref())
        .collect();
    let distinct: BTreeSet<_> = json.iter().collect();
    assert_eq!(distinct.len(), json.len());
}

#[test]
fn every_setting_says_what_it_is() {
    for field in fields() {
        let doc = field.doc.join(" ");
        assert!(doc.len() > 10, "{}: {doc}", field.name);
        // On its own feet: no sentence begins in the comment before or goes on in the next.
        assert!(!doc.contains("..."), "{}: {doc}", field.name);
        assert!(doc.ends_with('.'), "{}: {doc}", field.name);
    }
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let loaded = Loader::new(|_| None)
        .config_file(Some(path))
        .load()
        .unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_class_and_rule_can_be_said_of_a_code() {
    fn check<T: Setting>(names: &[&str]) {
        let Kind::Word(words) = T::kind() else {
            panic!("{names:?}")
        };
        assert_eq!(words, names);
    }
    check::<FailureClass>(&FailureClass::ALL.map(FailureClass::name));
    check::<JobRule>(&JobRule::ALL.map(JobRule::name));
    check::<LaneRule>(&LaneRule::ALL.map(LaneRule::name));
    check::<BreakerRule>(&BreakerRule::ALL.map(BreakerRule::name));
}

#[test]
fn names_say_their_unit() {
    let durations = [
        "timeout",
        "delay",
        "window",
        "cool_down",
        "deadline",
        "spacing",
        "ageing",
        "probe",
        "trial",
    ];
    for field in fields() {
        let is_duration = durations.iter().any(|word| field.name.contains(word));
        if is_duration && matches!(field.kind, Kind::Whole { .. }) {
            assert!(field.name.ends_with("_ms"), "{}", field.name);
        }
    }
}
