//! The reference page `docs/http.md`, made of the OpenAPI document.
#![expect(
    clippy::indexing_slicing,
    reason = "members of the document that openapi.rs makes: one that is missing reads as null"
)]

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::problem::Kind;

const HEAD: &str = "\
# The HTTP API

This page is made from the table of endpoints in `src/api/endpoints.rs`; `GET /openapi.json` tells the same as
an OpenAPI 3.1 document. A test keeps it up to date: `ONELANE_BLESS=1 cargo test --test papers` writes it anew.

Send the token as `Authorization: Bearer TOKEN`. Where no token is set, programs on this machine need none.
JSON is camelCase; times are RFC 3339 in UTC, durations milliseconds, money is a number of at most nine
decimals with its currency beside it. A GET endpoint takes HEAD, too.

What is wrong with a request is told by kind (see [problems](#problems)). Some kinds come with what an endpoint
takes and are not repeated at each: `unauthorized`, `forbidden`, `unknown-route`, `wrong-method`, `invalid-id`,
`invalid-query`, `invalid-header`, `invalid-body`, `invalid-field`, `malformed-json`, `unsupported-media-type`,
`body-too-large`, `body-timeout`; and `store-failed` and `stopped`, a 503 of any endpoint.
";

/// The kinds that the head tells of.
const EVERYWHERE: [Kind; 15] = [
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::UnknownRoute,
    Kind::WrongMethod,
    Kind::InvalidId,
    Kind::InvalidQuery,
    Kind::InvalidHeader,
    Kind::InvalidBody,
    Kind::InvalidField,
    Kind::MalformedJson,
    Kind::UnsupportedMediaType,
    Kind::BodyTooLarge,
    Kind::BodyTimeout,
    Kind::StoreFailed,
    Kind::Stopped,
];

const PROBLEMS: &str = "
## Problems

What is wrong is an RFC 9457 problem; below `/v1` and `/api/paas` it has GLM's shape of an error.

| status | type | meaning |
|---|---|---|
";

/// The page.
pub(super) fn page(document: &Map<String, Value>) -> String {
    let part = |name: &str| document.get(name).unwrap_or(&Value::Null);
    let mut page = HEAD.to_owned();
    for section in items(part("tags")) {
        let name = text(&section["name"]);
        let _ = write!(page, "\n## {name}\n");
        for (path, methods) in fields(part("paths")) {
            for (method, operation) in fields(methods) {
                if operation["tags"][0] == section["name"] {
                    endpoint(&mut page, path, &method.to_ascii_uppercase(), operation);
                }
            }
        }
    }
    page.push_str(PROBLEMS);
    for kind in Kind::ALL {
        let (status, name, title) = (kind.status().as_u16(), kind.name(), kind.title());
        let _ = writeln!(
            page,
            "| {status} | `urn:onelane:problem:{name}` | {title} |"
        );
    }
    page.push_str("\n## Nouns\n");
    for (name, schema) in fields(&part("components")["schemas"]) {
        noun(&mut page, name, schema);
    }
    page
}

fn endpoint(page: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        page,
        "\n### {method} {path}\n\n{}.",
        text(&operation["summary"])
    );
    let about = text(&operation["description"]);
    if !about.is_empty() {
        let _ = write!(page, " {about}");
    }
    let _ = writeln!(page, " For: {}.", text(&operation["x-access"]));
    let parameters: Vec<&Value> = items(&operation["parameters"]).collect();
    if !parameters.is_empty() {
        page.push_str("\n| parameter | in | type | meaning |\n|---|---|---|---|\n");
    }
    for parameter in parameters {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let of = kind(&parameter["schema"]);
        let need = match parameter["required"] == true && place != "path" {
            true => "Required. ",
            false => "",
        };
        let about = line(&parameter["description"]);
        let _ = writeln!(page, "| `{name}` | {place} | {of} | {need}{about} |");
    }
    let body = &operation["requestBody"];
    let form = body["content"].get("multipart/form-data");
    let content = form.unwrap_or(&body["content"]["application/json"]);
    if content.is_object() {
        let need = match body["required"] == true {
            true => "",
            false => ", which may be missing",
        };
        let schema = &content["schema"];
        let many = items(&schema["oneOf"]).next();
        let list = if many.is_some() {
            ", or a list of such"
        } else {
            ""
        };
        let kind = match form {
            Some(_) => "a form of several parts (`multipart/form-data`)",
            None => "a JSON object",
        };
        let _ = write!(page, "\nBody{need}: {kind}{list}.\n");
        table(page, many.unwrap_or(schema));
        if form.is_none() && content["example"].is_object() {
            let _ = write!(page, "\n```json\n{}\n```\n", content["example"]);
        }
    }
    answers(page, operation);
}

/// The good answers, and the problems that are this endpoint's own.
fn answers(page: &mut String, operation: &Value) {
    page.push_str("\nAnswers:\n\n");
    let mut own: Vec<String> = Vec::new();
    for (status, response) in fields(&operation["responses"]) {
        let about = line(&response["description"]);
        let mut shown: Vec<String> = Vec::new();
        for (media, content) in fields(&response["content"]) {
            let kinds = fields(&content["examples"]).map(|(name, _)| name.as_str());
            let of_own = kinds.filter(|name| !EVERYWHERE.iter().any(|kind| kind.name() == *name));
            own.extend(of_own.map(|name| format!("`{name}` ({status})")));
            let is_error = content["schema"]["$ref"].as_str().is_some_and(|noun| {
                noun.ends_with("/Problem") || noun.ends_with("/GlmErrorAnswer")
            });
            if !is_error || status.ends_with("XX") {
                let media = media.split(';').next().unwrap_or(media);
                shown.push(format!("{} as `{media}`", kind(&content["schema"])));
            }
        }
        if !shown.is_empty() {
            let _ = writeln!(page, "- {status}: {about} {}.", shown.join("; "));
        }
    }
    if !own.is_empty() {
        let _ = writeln!(page, "- problems: {}", own.join(", "));
    }
}

fn noun(page: &mut String, name: &str, schema: &Value) {
    let _ = write!(page, "\n### {name}\n");
    let about = line(&schema["description"]);
    if !about.is_empty() {
        let _ = write!(page, "\n{about}\n");
    }
    let options: Vec<String> = items(&schema["oneOf"])
        .chain(items(&schema["anyOf"]))
        .map(|option| {
            let about = line(&option["description"]);
            let dash = if about.is_empty() { "" } else { ": " };
            format!("- {}{dash}{about}\n", kind(option))
        })
        .collect();
    if !options.is_empty() {
        let _ = write!(page, "\n{}", options.concat());
    }
    table(page, schema);
}

/// The fields of an object.
fn table(page: &mut String, schema: &Value) {
    if fields(&schema["properties"]).next().is_none() {
        return;
    }
    page.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    rows(page, "", schema);
}

fn rows(page: &mut String, at: &str, schema: &Value) {
    for (name, field) in fields(&schema["properties"]) {
        if *field == false {
            continue;
        }
        let about = line(&field["description"]);
        let of = kind(field);
        let _ = writeln!(page, "| `{at}{name}` | {of} | {about} |");
        let inner = items(&field["anyOf"]).find(|option| option.get("properties").is_some());
        let inner = inner.unwrap_or(field);
        if inner.get("properties").is_some() {
            rows(page, &format!("{at}{name}."), inner);
        }
    }
}

/// A type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    if let Some(one) = schema["const"].as_str() {
        return format!("`{one}`");
    }
    let names: Vec<String> = items(&schema["enum"])
        .map(|name| {
            format!(
                "`{}`",
                name.as_str()
                    .map_or_else(|| name.to_string(), str::to_owned)
            )
        })
        .collect();
    if !names.is_empty() {
        return names.join(", ");
    }
    let options = items(&schema["anyOf"]).chain(items(&schema["oneOf"]));
    let options: Vec<String> = options.map(kind).collect();
    if !options.is_empty() {
        return options.join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return "any JSON".to_owned(),
    };
    if types.contains(&"array") {
        return format!("list of {}", kind(&schema["items"]));
    }
    match schema["format"].as_str() {
        Some(format @ ("date-time" | "date" | "uuid")) => {
            types.join(" or ").replace("string", format)
        }
        _ => types.join(" or "),
    }
}

/// On one line, and nothing that ends a table's cell.
fn line(value: &Value) -> String {
    let words: Vec<&str> = text(value).split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
