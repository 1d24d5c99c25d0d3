//! What differs between two views of the configuration.

use serde_json::{Map, Value, json};

/// What changes with every change.
const STAMP: &str = "updatedAt";

/// The settings in which two views differ, by their paths in the API, each with its value `before` and `after`.
#[must_use]
pub fn differences(before: &Value, after: &Value) -> Value {
    let mut found = Map::new();
    compare(String::new(), before, after, &mut found);
    found.remove(STAMP);
    Value::Object(found)
}

fn compare(path: String, before: &Value, after: &Value, found: &mut Map<String, Value>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        found.insert(path, json!({"before": before, "after": after}));
        return;
    };
    let below = |name: &str| match path.as_str() {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for (name, value) in old {
        compare(
            below(name),
            value,
            new.get(name).unwrap_or(&Value::Null),
            found,
        );
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        compare(below(name), &Value::Null, value, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_views_differ_in_the_settings_that_changed_and_in_nothing_else() {
        let before =
            json!({"model": "a", "lane": {"pace": 1, "old": true}, "list": [1], "updatedAt": 1});
        let after = json!({"model": "a", "lane": {"pace": 2, "new": {"x": 1}}, "list": [1, 2], "updatedAt": 2});
        let want = json!({
            "lane.pace": {"before": 1, "after": 2},
            "lane.old": {"before": true, "after": null},
            "lane.new": {"before": null, "after": {"x": 1}},
            "list": {"before": [1], "after": [1, 2]},
        });
        assert_eq!(differences(&before, &after), want);
        assert_eq!(differences(&before, &before), json!({}));
    }
}
