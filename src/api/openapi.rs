//! The OpenAPI 3.1 document, made of the table of endpoints.
#![expect(
    clippy::indexing_slicing,
    reason = "members of JSON objects that this file makes: writing one that is missing makes it, reading it gives null"
)]

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::{JSON, Shape, Shapes};
use super::endpoint::{Endpoint, Router, properties};
use super::envelope::AnthropicErrorBody;
use super::input::Need;
use super::principal::Access;
use super::problem::{Dialect, GlmErrorBody, Kind, PROBLEM, Problem, ProblemBody};

/// The document.
pub(super) fn document(router: &Router) -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut generator = settings
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    let mut sections: Vec<Value> = Vec::new();
    for endpoint in &router.endpoints {
        let section = json!({"name": endpoint.section});
        if !sections.contains(&section) {
            sections.push(section);
        }
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        let method = endpoint.method.as_str().to_ascii_lowercase();
        if let Some(path) = path.as_object_mut() {
            path.insert(method, operation(endpoint, &mut generator));
        }
    }
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "onelane",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "One durable lane in front of the GLM API.",
            "description": "JSON is camelCase. Times are RFC 3339 UTC, durations milliseconds, money is a \
                number of at most nine decimals with its currency beside it. A GET endpoint takes HEAD, \
                too; a method that a path does not have is a 405 with `Allow`, a path that does not exist \
                a 404. Each answer names its request in `x-onelane-request`, as its client did in \
                `x-request-id` (one word of up to 128 visible ASCII characters) or by a name of ours; `x-request-id` is \
                the same, unless GLM named the call so: what GLM says passes. Where no token is set programs on this machine need none.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "tags": sections,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "tags": [endpoint.section],
        "summary": endpoint.summary,
        "security": match endpoint.access {
            Access::Anybody => json!([]),
            _ => json!([{"token": []}]),
        },
        "x-access": endpoint.access.whom(),
        "parameters": parameters(endpoint),
        "responses": responses(endpoint, generator),
    });
    if !endpoint.about.is_empty() {
        operation["description"] = endpoint.about.into();
    }
    if endpoint.need != Need::None {
        let mut content = json!({"schema": endpoint.body_schema});
        if let Some(example) = &endpoint.example {
            content["example"] = example.clone();
        }
        let required = endpoint.need == Need::Required;
        operation["requestBody"] =
            json!({"required": required, "content": {endpoint.media: content}});
    }
    operation
}

/// `get_api_admin_glm_queue_id`.
fn operation_id(endpoint: &Endpoint) -> String {
    let method = endpoint.method.as_str().to_ascii_lowercase();
    let path = endpoint.path.replace(['{', '}'], "");
    format!("{method}{}", path.replace(['/', '-', '.'], "_"))
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let required = |schema: &Value, name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    };
    let mut all = Vec::new();
    for (place, schema) in [
        ("path", &endpoint.path_schema),
        ("query", &endpoint.query_schema),
    ] {
        for (name, schema_of_one) in properties(schema) {
            let mut schema_of_one = not_null(schema_of_one);
            let about = schema_of_one
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let mut parameter = json!({
                "name": name,
                "in": place,
                "required": place == "path" || required(schema, name),
                "schema": schema_of_one,
            });
            if let Some(about) = about {
                parameter["description"] = about;
            }
            if schema_of_one["type"] == "array" {
                parameter["style"] = "form".into();
                parameter["explode"] = false.into();
            }
            all.push(parameter);
        }
    }
    let header = |(name, about): &(&str, &str)| {
        json!({"name": name, "in": "header", "description": about, "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 256,
                "pattern": "^[!-~]+$"}})
    };
    all.extend(endpoint.headers.iter().map(header));
    all
}

/// A parameter is there or not: it is never null.
fn not_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.retain(|name, value| name != "default" || !value.is_null());
    }
    let null = |value: &Value| value == "null" || value.get("type").is_some_and(|of| of == "null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|of| of != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema["type"] = one;
        }
    }
    if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
        options.retain(|option| !null(option));
        if let [Value::Object(one)] = options.as_slice() {
            let mut one = one.clone();
            if let Some(about) = schema.get("description") {
                one.insert("description".to_owned(), about.clone());
            }
            return Value::Object(one);
        }
    }
    if let Some(Value::Array(names)) = schema.get_mut("enum") {
        names.retain(|name| !name.is_null());
    }
    schema
}

fn responses(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut shapes = Shapes {
        generator,
        all: Vec::new(),
    };
    (endpoint.describe)(&mut shapes);
    let Shapes { generator, all } = shapes;
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for shape in all {
        add(&mut responses, shape);
    }
    let dialect = Dialect::of(endpoint.path);
    let (media, schema) = match dialect {
        Dialect::Problem => (PROBLEM, generator.subschema_for::<ProblemBody>()),
        Dialect::Glm => (JSON, generator.subschema_for::<GlmErrorBody>()),
        Dialect::Anthropic => (JSON, generator.subschema_for::<AnthropicErrorBody>()),
    };
    for kind in endpoint.kinds() {
        let status = kind.status();
        let response = responses.entry(status.as_str().to_owned());
        let response = response.or_insert_with(|| {
            let about = status.canonical_reason().unwrap_or_default();
            json!({"description": format!("{about}.")})
        });
        let content = &mut response["content"][media];
        if content.get("schema").is_none() {
            content["schema"] = schema.clone().to_value();
        }
        if dialect == Dialect::Problem {
            let example = serde_json::to_value(Problem::new(kind, kind.title()).body());
            content["examples"][kind.name()] = json!({"value": example.unwrap_or_default()});
        }
        for (name, about) in headers(kind) {
            response["headers"][*name] = header(about);
        }
    }
    // Answered before a route is looked for.
    let about = format!(
        "The request's line and headers together have more than {} bytes.",
        super::limits::HEADER_BYTES_MAX
    );
    responses.insert("431".to_owned(), json!({"description": about}));
    json!(responses)
}

/// Adds a form of an answer to those of its status.
fn add(responses: &mut BTreeMap<String, Value>, shape: Shape) {
    let response = responses
        .entry(shape.status.to_owned())
        .or_insert_with(|| json!({"description": shape.about}));
    let content = &mut response["content"][shape.media];
    let schema = match content.get_mut("schema") {
        None => shape.schema,
        Some(one) => match one.get_mut("anyOf").and_then(Value::as_array_mut) {
            Some(some) => {
                some.push(shape.schema);
                json!({"anyOf": some})
            }
            None => json!({"anyOf": [one, shape.schema]}),
        },
    };
    content["schema"] = schema;
    for (name, about) in shape.headers {
        response["headers"][name] = header(about);
    }
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": {"type": "string"}})
}

/// The headers that an error of this kind brings.
const fn headers(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Unauthorized => &[("www-authenticate", "`Bearer`.")],
        Kind::Busy => &[(
            "retry-after",
            "Seconds to wait when too much is asked at once.",
        )],
        Kind::Stopped | Kind::StoreFailed => {
            &[("retry-after", "Seconds until asking again may help.")]
        }
        Kind::QueueFull => &[("retry-after", "Seconds to wait when the queue is full.")],
        _ => &[],
    }
}
