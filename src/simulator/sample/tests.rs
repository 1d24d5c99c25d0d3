use proptest::prelude::*;

use super::*;

/// What is wrong with a value: written apart from the sampler, by what the words of JSON Schema mean.
fn fault(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let wrong = |word: &str| Some(format!("{word}: {value} against {schema}"));
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let list = |name: &str| schema.get(name).and_then(Value::as_array);
    if let Some(at) = schema.get("$ref").and_then(Value::as_str) {
        let referred = root.pointer(at.trim_start_matches('#')).unwrap();
        if let Some(fault) = fault(root, referred, value) {
            return Some(fault);
        }
    }
    let of_type = |name: &str| match name {
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    match schema.get("type") {
        Some(Value::String(name)) if !of_type(name) => return wrong("type"),
        Some(Value::Array(names)) if !names.iter().any(|n| of_type(n.as_str().unwrap())) => {
            return wrong("type");
        }
        _ => {}
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("const");
    }
    if list("enum").is_some_and(|names| !names.contains(value)) {
        return wrong("enum");
    }
    for name in ["anyOf", "oneOf"] {
        if let Some(options) = list(name)
            && options
                .iter()
                .all(|option| fault(root, option, value).is_some())
        {
            return wrong(name);
        }
    }
    if let Some(all) = list("allOf")
        && let Some(fault) = all.iter().find_map(|part| fault(root, part, value))
    {
        return Some(fault);
    }
    match value {
        Value::Number(n) => {
            let n = n.as_f64().unwrap();
            let step = bound("multipleOf");
            if bound("minimum").is_some_and(|least| n < least)
                || bound("maximum").is_some_and(|most| n > most)
                || bound("exclusiveMinimum").is_some_and(|least| n <= least)
                || bound("exclusiveMaximum").is_some_and(|most| n >= most)
                || step.is_some_and(|step| (n / step - (n / step).round()).abs() > 1e-9)
            {
                return wrong("bounds");
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            if bound("minLength").is_some_and(|least| length < least)
                || bound("maxLength").is_some_and(|most| length > most)
            {
                return wrong("length");
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
                let (_, fits) = PATTERNS
                    .iter()
                    .find(|(known, _)| *known == pattern)
                    .unwrap();
                if !fits(text) {
                    return wrong("pattern");
                }
            }
        }
        Value::Array(items) => {
            let length = items.len() as f64;
            if bound("minItems").is_some_and(|least| length < least)
                || bound("maxItems").is_some_and(|most| length > most)
            {
                return wrong("items");
            }
            let differ = schema.get("uniqueItems") == Some(&json!(true));
            if differ
                && items
                    .iter()
                    .enumerate()
                    .any(|(at, item)| items[..at].contains(item))
            {
                return wrong("uniqueItems");
            }
            let of = schema.get("items");
            return items.iter().find_map(|item| fault(root, of?, item));
        }
        Value::Object(fields) => {
            let required = list("required").into_iter().flatten();
            let mut missing = required.filter(|name| !fields.contains_key(name.as_str().unwrap()));
            if missing.next().is_some() {
                return wrong("required");
            }
            let known = schema.get("properties").and_then(Value::as_object);
            let closed = schema.get("additionalProperties") == Some(&json!(false));
            for (name, value) in fields {
                match known.and_then(|known| known.get(name)) {
                    Some(schema) => {
                        if let Some(fault) = fault(root, schema, value) {
                            return Some(fault);
                        }
                    }
                    None if closed => return wrong("additionalProperties"),
                    None => {}
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    None
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text is of a pattern.
type Fits = fn(&str) -> bool;

/// Simple patterns, and what they mean.
const PATTERNS: [(&str, Fits); 7] = [
    (r"^\d{5}$", |text| digits(text, 5..=5)),
    (r"^[A-Z]{2,3}-\d+$", |text| {
        text.split_once('-').is_some_and(|(name, number)| {
            (2..=3).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_uppercase())
                && digits(number, 1..=usize::MAX)
        })
    }),
    (r"^[^a-z]+$", |text| {
        !text.is_empty() && !text.bytes().any(|b| b.is_ascii_lowercase())
    }),
    (r"^a?b*$", |text| {
        text.strip_prefix('a')
            .unwrap_or(text)
            .bytes()
            .all(|b| b == b'b')
    }),
    (r"^\w+\.txt$", |text| {
        text.len() > 4 && text.ends_with(".txt")
    }),
    (r"^.{0,4}$", |text| text.chars().count() <= 4),
    (r"x\+y", |text| text.contains("x+y")),
];

fn leaf() -> impl Strategy<Value = Value> {
    let number = (-50_i32..50, 0_u32..9, any::<bool>(), 0_u8..4).prop_map(
        |(least, width, whole, strict)| {
            let most = f64::from(least) + f64::from(width) + 2.5;
            let mut schema = json!({"type": if whole { "integer" } else { "number" }});
            let low = if strict & 1 == 1 {
                "exclusiveMinimum"
            } else {
                "minimum"
            };
            let high = if strict & 2 == 2 {
                "exclusiveMaximum"
            } else {
                "maximum"
            };
            schema[low] = json!(least);
            schema[high] = json!(most);
            schema
        },
    );
    let one_bound = (-500_i32..500, 0_usize..4).prop_map(|(bound, which)| {
        let name = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"][which];
        let mut schema = json!({"type": "number"});
        schema[name] = json!(f64::from(bound) / 4.0);
        schema
    });
    let steps = (1_u32..20, -100_i32..100)
        .prop_map(|(step, least)| json!({"type": "integer", "multipleOf": step, "minimum": least}));
    let text = (0_u64..30, 0_u64..30).prop_map(
        |(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more}),
    );
    let pattern =
        (0..PATTERNS.len()).prop_map(|at| json!({"type": "string", "pattern": PATTERNS[at].0}));
    prop_oneof![
        number,
        one_bound,
        steps,
        text,
        pattern,
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        Just(json!({"const": {"a": [1]}})),
        Just(json!({"enum": ["C", "F"], "type": "string"})),
        Just(json!({"type": ["null", "string"], "minLength": 2})),
        Just(json!({"type": "string", "default": "given"})),
        Just(json!({"$ref": "#/$defs/unit"})),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 5, |inner| {
        let list = (inner.clone(), 0_u64..4, 0_u64..4).prop_map(
            |(items, least, more)| json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more}),
        );
        let options = prop::collection::vec(inner.clone(), 1..3);
        let choice = (options, any::<bool>()).prop_map(|(options, any)| {
            let mut schema = json!({});
            schema[if any { "anyOf" } else { "oneOf" }] = Value::Array(options);
            schema
        });
        let fields = prop::collection::btree_map("[a-e]", inner, 0..4);
        let object = (fields, any::<bool>(), any::<bool>()).prop_map(|(fields, typed, closed)| {
            let required: Vec<String> = fields.keys().take(2).cloned().collect();
            let mut schema = json!({"properties": fields, "required": required});
            if typed {
                schema["type"] = json!("object");
            }
            if closed {
                schema["additionalProperties"] = json!(false);
            }
            schema
        });
        prop_oneof![list, choice, object.clone(), object.prop_map(|part| json!({"allOf": [part]}))]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn made_values_are_what_their_schema_allows(inner in schema()) {
        let root = json!({
            "type": "object",
            "properties": {"it": inner},
            "required": ["it"],
            "$defs": {"unit": {"type": "integer", "minimum": 7}}
        });
        let made = sample(&root);
        prop_assert_eq!(fault(&root, &root, &made), None);
    }
}

#[test]
fn values_that_tools_are_asked_for_are_made() {
    let check = |schema: Value, want: Value| assert_eq!(sample(&schema), want, "{schema}");
    check(json!({}), json!({}));
    check(json!(true), json!({}));
    check(json!({"type": "integer", "exclusiveMinimum": 4}), json!(5));
    check(
        json!({"type": "integer", "minimum": 4, "exclusiveMinimum": true}),
        json!(5),
    );
    check(json!({"type": "integer", "maximum": -3}), json!(-3));
    check(
        json!({"type": "integer", "multipleOf": 5, "minimum": 11, "maximum": 19}),
        json!(15),
    );
    check(
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        json!(0.75),
    );
    check(json!({"type": "string", "maxLength": 2}), json!("te"));
    check(
        json!({"type": "string", "format": "date"}),
        json!("2026-01-02"),
    );
    check(
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": true}),
        json!([true, false]),
    );
    check(
        json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": true}),
        json!(["a", "b", "c"]),
    );
    check(json!({"required": ["x"]}), json!({"x": "text"}));
    // One that refers to itself ends.
    let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
    assert!(sample(&tree).to_string().len() < 1_000);
    let fields: Map<String, Value> = (0..9)
        .map(|n| (n.to_string(), json!({"$ref": "#"})))
        .collect();
    let bush = json!({"type": "object", "properties": fields, "required": ["1", "2", "3"]});
    assert!(sample(&bush).to_string().len() < 200_000);
    let wide = json!({"type": "array", "items": {"type": "string"}, "minItems": u64::MAX});
    assert_eq!(sample(&wide).as_array().unwrap().len() as u64, SIZE_MAX);
}
