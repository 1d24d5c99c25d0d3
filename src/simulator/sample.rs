//! A value that a schema allows: the arguments of a tool, the content of JSON mode.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// Deeper a value is not nested unless its schema requires it.
const DEPTH_MAX: u8 = 8;
/// Elements and characters of one value: no schema makes the simulator write more.
const SIZE_MAX: u64 = 1_000;
/// Values inside of one another, in all.
const VALUES_MAX: u32 = 2_000;

/// A value that a schema allows, as far as the simulator reads it: `const`, `enum`, `default`, `anyOf`, `oneOf`,
/// `allOf`, `$ref` inside of it, the bounds of numbers, texts and lists, simple patterns and formats, and what an object
/// requires.
pub(crate) fn sample(schema: &Value) -> Value {
    let left = Cell::new(VALUES_MAX);
    let root = schema;
    Sampler { root, left }.of(schema, 0)
}

struct Sampler<'a> {
    root: &'a Value,
    /// Values that may still be made: a schema that branches into itself would take all memory.
    left: Cell<u32>,
}

impl Sampler<'_> {
    fn of(&self, schema: &Value, depth: u8) -> Value {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Value::Null,
        }
        let schema = &self.whole(schema, 0);
        if let Some(only) = schema.get("const") {
            return only.clone();
        }
        if let Some(first) = schema.get("enum").and_then(|names| names.get(0)) {
            return first.clone();
        }
        if let Some(default) = schema
            .get("default")
            .filter(|value| is_of_type(schema, value))
        {
            return default.clone();
        }
        match type_of(schema) {
            "string" => Value::from(text(schema)),
            "integer" => number(schema, true),
            "number" => number(schema, false),
            "boolean" => json!(true),
            "null" => Value::Null,
            "array" => self.list(schema, depth),
            _ => self.object(schema, depth),
        }
    }

    /// A schema with what it refers to, chooses from and puts together.
    fn whole(&self, schema: &Value, depth: u8) -> Value {
        let Some(fields) = schema.as_object().filter(|_| depth < DEPTH_MAX) else {
            return schema.clone();
        };
        let mut whole = fields.clone();
        let referred = whole.remove("$ref");
        let referred = referred.as_ref().and_then(Value::as_str);
        let referred = referred.and_then(|at| self.root.pointer(at.strip_prefix('#')?));
        let chosen = ["anyOf", "oneOf"]
            .iter()
            .filter_map(|name| whole.remove(*name));
        let chosen: Vec<Value> = chosen
            .filter_map(|options| options.get(0).cloned())
            .collect();
        let all = whole.remove("allOf");
        let all = all
            .as_ref()
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for part in referred.cloned().into_iter().chain(chosen).chain(all) {
            if let Value::Object(part) = self.whole(&part, depth + 1) {
                merge(&mut whole, part);
            }
        }
        Value::Object(whole)
    }

    fn list(&self, schema: &Value, depth: u8) -> Value {
        let least = count(schema, "minItems").unwrap_or(0);
        let usual = u64::from(depth < DEPTH_MAX && schema.get("items").is_some());
        let most = count(schema, "maxItems").unwrap_or(SIZE_MAX);
        let wanted = usual.max(least).min(most.max(least)).min(SIZE_MAX);
        let first = schema.get("prefixItems").and_then(Value::as_array);
        let first = first.map_or(&[][..], Vec::as_slice);
        let any = json!({"type": "string"});
        let rest = schema.get("items").unwrap_or(&any);
        let differ = schema.get("uniqueItems") == Some(&json!(true));
        let wanted = wanted.max(first.len() as u64).min(most);
        let mut items: Vec<Value> = Vec::new();
        for at in 0..wanted {
            let schema = usize::try_from(at).ok().and_then(|at| first.get(at));
            let schema = schema.unwrap_or(rest);
            let mut item = self.of(schema, depth + 1);
            if differ && items.contains(&item) {
                let whole = self.whole(schema, 0);
                item = another(&whole, item, &items);
            }
            items.push(item);
        }
        Value::Array(items)
    }

    fn object(&self, schema: &Value, depth: u8) -> Value {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let known = known.unwrap_or(&none);
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut object = Map::new();
        for (name, schema) in known {
            if required.contains(&name.as_str()) || depth < DEPTH_MAX {
                // A schema that requires itself for ever allows no value.
                let value = if depth < 2 * DEPTH_MAX {
                    self.of(schema, depth + 1)
                } else {
                    Value::Null
                };
                object.insert(name.clone(), value);
            }
        }
        for name in required {
            let any = schema
                .get("additionalProperties")
                .filter(|any| any.is_object());
            let value = || any.map_or_else(|| json!("text"), |any| self.of(any, depth + 1));
            if !object.contains_key(name) {
                object.insert(name.to_owned(), value());
            }
        }
        Value::Object(object)
    }
}

/// Adds a part to a schema: the narrower bound counts, and properties and required names add up.
fn merge(whole: &mut Map<String, Value>, part: Map<String, Value>) {
    for (name, value) in part {
        let known = whole.get(&name).cloned();
        let merged = match (name.as_str(), known, value) {
            (_, None, value) => value,
            ("properties", Some(Value::Object(mut known)), Value::Object(more)) => {
                for (name, schema) in more {
                    match (known.get_mut(&name), schema) {
                        (Some(Value::Object(known)), Value::Object(schema)) => merge(known, schema),
                        (Some(_), _) => {}
                        (None, schema) => _ = known.insert(name, schema),
                    }
                }
                Value::Object(known)
            }
            ("required", Some(Value::Array(mut known)), Value::Array(more)) => {
                known.extend(more);
                Value::Array(known)
            }
            ("minimum" | "exclusiveMinimum" | "minLength" | "minItems", Some(known), value) => {
                if known.as_f64() < value.as_f64() {
                    value
                } else {
                    known
                }
            }
            ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems", Some(known), value) => {
                if known.as_f64() > value.as_f64() {
                    value
                } else {
                    known
                }
            }
            (_, Some(known), _) => known,
        };
        whole.insert(name, merged);
    }
}

fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        // Of several the first that is something.
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str);
            names.clone().find(|name| *name != "null").unwrap_or("null")
        }
        _ => {
            let has = |names: &[&str]| names.iter().any(|name| schema.get(name).is_some());
            match () {
                () if has(&["properties", "required", "additionalProperties"]) => "object",
                () if has(&["items", "minItems", "maxItems", "prefixItems"]) => "array",
                () if has(&["pattern", "minLength", "maxLength", "format"]) => "string",
                () if has(&[
                    "minimum",
                    "maximum",
                    "exclusiveMinimum",
                    "exclusiveMaximum",
                    "multipleOf",
                ]) =>
                {
                    "number"
                }
                () => "object",
            }
        }
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

fn count(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

/// The whole number, or else the number, nearest to 1 that the bounds allow.
fn number(schema: &Value, whole: bool) -> Value {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    let (above, below) = (bound("exclusiveMinimum"), bound("exclusiveMaximum"));
    let mut least = bound("minimum").unwrap_or(f64::NEG_INFINITY);
    let mut most = bound("maximum").unwrap_or(f64::INFINITY);
    // Older schemas say that the bound itself is out.
    let strict = |name: &str| schema.get(name) == Some(&json!(true));
    let above = above.or_else(|| strict("exclusiveMinimum").then_some(least));
    let below = below.or_else(|| strict("exclusiveMaximum").then_some(most));
    let grid = step.or_else(|| whole.then_some(1.0));
    let between = |low: f64, high: f64| {
        if (high - low).is_finite() {
            (high - low) / 2.0
        } else {
            1.0
        }
    };
    if let Some(above) = above.filter(|above| *above >= least) {
        let next = grid.unwrap_or_else(|| between(above, below.unwrap_or(f64::INFINITY).min(most)));
        least = above + next.min(grid.map_or(next, |step| step - (above % step + step) % step));
    }
    if let Some(below) = below.filter(|below| *below <= most) {
        let next = grid.unwrap_or_else(|| between(least.max(below - 2.0), below));
        most = below
            - grid.map_or(next, |step| match (below % step + step) % step {
                0.0 => step,
                over => over,
            });
    }
    let mut value = 1.0_f64.max(least).min(most);
    if let Some(step) = grid {
        let up = (value / step).ceil() * step;
        value = if up <= most {
            up
        } else {
            (value / step).floor() * step
        };
    }
    // Numbers beyond these have no neighbour that is whole.
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return json!(value as i64);
    }
    json!(value)
}

/// A text with as many characters as the bounds allow, of the form that is asked for.
fn text(schema: &Value) -> String {
    let asked = |name: &str| schema.get(name).and_then(Value::as_str);
    let least = count(schema, "minLength").unwrap_or(0);
    let most = count(schema, "maxLength").unwrap_or(SIZE_MAX);
    let fits = |text: &String| (least..=most).contains(&(text.chars().count() as u64));
    let made = asked("pattern").and_then(|pattern| pattern_text(pattern, least, most));
    let formed = || asked("format").and_then(format_text).map(str::to_owned);
    if let Some(text) = made.or_else(formed).filter(fits) {
        return text;
    }
    let length = 4.max(least).min(most.max(least)).min(SIZE_MAX);
    let length = usize::try_from(length).unwrap_or(4);
    "text".chars().cycle().take(length).collect()
}

fn format_text(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2026-01-02T03:04:05Z",
        "date" => "2026-01-02",
        "time" => "03:04:05Z",
        "duration" => "P1D",
        "email" => "somebody@example.com",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" => "https://example.com/",
        "uuid" => "01a20742-4fae-77e5-b6dd-2cced7d66c60",
        _ => return None,
    })
}

/// A text of a simple pattern: characters, classes, `.`, `\d`, `\w`, `\s`, each with `?`, `*`, `+` or `{n,m}`, between
/// `^` and `$` or not. `None`: it has more to it.
fn pattern_text(pattern: &str, least: u64, most: u64) -> Option<String> {
    let mut pieces: Vec<(char, u64, u64)> = Vec::new();
    let mut rest = pattern
        .strip_prefix('^')
        .unwrap_or(pattern)
        .chars()
        .peekable();
    while let Some(next) = rest.next() {
        let piece = match next {
            '$' if rest.peek().is_none() => break,
            '(' | ')' | '|' | '*' | '+' | '?' | '{' | '^' | '$' => return None,
            '.' => 'x',
            '\\' => match rest.next()? {
                'd' => '1',
                'w' => 'w',
                's' => ' ',
                c if c.is_ascii_alphanumeric() => return None,
                c => c,
            },
            '[' => class(&mut rest)?,
            c => c,
        };
        let (from, to) = match rest.peek() {
            Some('?') => (0, 1),
            Some('*') => (0, SIZE_MAX),
            Some('+') => (1, SIZE_MAX),
            Some('{') => {
                rest.next();
                let inside: String = rest.by_ref().take_while(|c| *c != '}').collect();
                let (from, to) = inside.split_once(',').unwrap_or((&inside, &inside));
                let from = from.trim().parse().ok()?;
                let to = if to.trim().is_empty() {
                    SIZE_MAX
                } else {
                    to.trim().parse().ok()?
                };
                pieces.push((piece, from, to));
                continue;
            }
            _ => {
                pieces.push((piece, 1, 1));
                continue;
            }
        };
        rest.next();
        pieces.push((piece, from, to));
    }
    let shortest: u64 = pieces.iter().map(|(_, from, _)| from).sum();
    if shortest > SIZE_MAX || shortest > most {
        return None;
    }
    // What may be repeated fills up what is missing.
    let mut missing = least.saturating_sub(shortest);
    let mut text = String::new();
    for (c, from, to) in pieces {
        let more = missing.min(to.saturating_sub(from)).min(SIZE_MAX);
        missing -= more;
        text.extend((0..from + more).map(|_| c));
    }
    (missing == 0).then_some(text)
}

/// A character of a class whose `[` was read.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let mut inside = String::new();
    loop {
        match rest.next()? {
            ']' if !inside.is_empty() => break,
            '\\' => match rest.next()? {
                'd' => inside.push('1'),
                'w' => inside.push('w'),
                's' => inside.push(' '),
                c if c.is_ascii_alphanumeric() => return None,
                c => inside.push(c),
            },
            c => inside.push(c),
        }
    }
    match inside.strip_prefix('^') {
        None => inside.chars().next(),
        // One that is in no range of it.
        Some(not) => {
            let not: Vec<char> = not.chars().collect();
            let in_range = |c: char| {
                let ranges = not.windows(3).filter(|range| range.get(1) == Some(&'-'));
                let mut ranges = ranges.filter_map(|range| range.first().zip(range.get(2)));
                ranges.any(|(from, to)| (*from..=*to).contains(&c))
            };
            "x1-_ Xé"
                .chars()
                .find(|c| !not.contains(c) && !in_range(*c))
        }
    }
}

/// A value of the schema that is not there yet, where one is easily found.
fn another(schema: &Value, value: Value, taken: &[Value]) -> Value {
    let names = schema.get("enum").and_then(Value::as_array);
    if let Some(other) = names.and_then(|names| names.iter().find(|name| !taken.contains(name))) {
        return other.clone();
    }
    if value.is_boolean() && !taken.contains(&json!(false)) {
        return json!(false);
    }
    let nth = taken.len() as u64;
    match &value {
        Value::String(_) if schema.get("pattern").is_none() => {
            let least = count(schema, "minLength").unwrap_or(0);
            Value::from(format!(
                "{nth:0>width$}",
                width = usize::try_from(least.min(SIZE_MAX)).unwrap_or(1)
            ))
        }
        Value::Number(number) => {
            let step = schema
                .get("multipleOf")
                .and_then(Value::as_f64)
                .unwrap_or(1.0);
            let moved = number.as_f64().unwrap_or(0.0) + step * nth as f64;
            let most = schema
                .get("maximum")
                .and_then(Value::as_f64)
                .unwrap_or(f64::INFINITY);
            let moved = if moved <= most {
                moved
            } else {
                number.as_f64().unwrap_or(0.0) - step * nth as f64
            };
            if moved.fract() == 0.0 {
                json!(moved as i64)
            } else {
                json!(moved)
            }
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests;
