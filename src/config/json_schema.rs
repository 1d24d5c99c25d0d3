//! The JSON schema of the admin API's `GLMConfig`, made from the fields of the settings.

use onelane_core::model::setting::{Field, Group, Kind};
use serde_json::{Map, Value, json};

use super::schema::{LEAVES, Leaf, Naming};

/// The JSON schema of `GLMConfig`, as the admin API shows it; a change is a part of one, in which null takes
/// back what was changed before.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = of_leaves(&LEAVES);
    for (name, doc) in [
        ("id", "Always `default`."),
        ("createdAt", "The first start on this store, RFC 3339."),
        ("updatedAt", "The last change while running, RFC 3339."),
    ] {
        let member = json!({"type": "string", "readOnly": true, "description": doc});
        put(&mut schema, &[name], member);
    }
    schema
}

/// The schema of these settings, by their names in the API.
pub(crate) fn of_leaves(leaves: &[Leaf]) -> Value {
    let mut schema = object(Map::new());
    for leaf in leaves {
        if let Some(json) = &leaf.json {
            let path: Vec<&str> = json.names().collect();
            match (&leaf.field.kind, leaf.field.is_flat()) {
                // Beside settings of the group there may be entries.
                (Kind::Named { entry, .. }, true) => put(&mut schema, &path, kind_schema(entry)),
                _ => put(&mut schema, &path, schema_of(&leaf.field)),
            }
        }
    }
    schema
}

fn put(group: &mut Value, path: &[&str], schema: Value) {
    let Some(Value::Object(properties)) = group.get_mut("properties") else {
        return;
    };
    match path {
        [] => {}
        [name] => match properties.get_mut(*name) {
            Some(group) => group["additionalProperties"] = schema,
            None => {
                properties.insert((*name).to_owned(), schema);
            }
        },
        [name, inner @ ..] => {
            let group = properties.entry(*name);
            put(group.or_insert_with(|| object(Map::new())), inner, schema);
        }
    }
}

fn object(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn schema_of(field: &Field) -> Value {
    let mut schema = kind_schema(&field.kind);
    if let Value::Object(object) = &mut schema {
        if field.default.is_null()
            && let Some(kind) = object.get_mut("type")
        {
            let kinds = match kind.take() {
                Value::Array(kinds) => kinds,
                kind => vec![kind],
            };
            *kind = kinds.into_iter().chain([json!("null")]).collect();
        }
        object.insert("description".to_owned(), field.doc.join(" ").into());
        object.insert("default".to_owned(), field.default.clone());
    }
    schema
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Whole {
            max, or_zero: true, ..
        } => {
            json!({"type": "integer", "minimum": 0, "maximum": max})
        }
        Kind::Whole { min, max, .. } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number { min, max } if *min == f64::MIN && *max == f64::MAX => {
            json!({"type": "number"})
        }
        Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Text(_) | Kind::Decimal(_) | Kind::Secret(_) => json!({"type": "string"}),
        Kind::Figure(_) => json!({"type": ["number", "string"]}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::List(item) => json!({"type": "array", "items": kind_schema(item)}),
        Kind::Rows { group, .. } => json!({"type": "array", "items": group_schema(group)}),
        Kind::Group(group) => group_schema(group),
        Kind::Named { entry, short, .. } => {
            let first = entry.members().and_then(|group| group.0.first());
            let entry = match first.filter(|_| *short) {
                Some(first) => json!({"anyOf": [kind_schema(&first.kind), kind_schema(entry)]}),
                None => kind_schema(entry),
            };
            json!({"type": "object", "additionalProperties": entry})
        }
    }
}

fn group_schema(group: &Group) -> Value {
    let members = group.0.iter();
    let members = members.map(|field| (Naming::Json.name(field), schema_of(field)));
    object(members.collect())
}
