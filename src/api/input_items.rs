//! What a response in the background was asked, as OpenAI lists it: the items of its `input`, as they were given.

use std::sync::Arc;

use onelane_core::model::{JobId, Request, json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Api;
use super::answer::Json;
use super::input::Input;
use super::problem::{Kind, Problem};
use super::responses::{ResponsePath, found};
use crate::object::Object;

/// Items of a page, where nobody says how many.
const PAGE: usize = 20;

/// Which of the items, and in which order.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ItemsQuery {
    /// How many at most; 20 without it.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
    /// The latest first without it.
    order: Option<Order>,
    /// Those behind the item with this id.
    after: Option<String>,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// As they were given.
    Asc,
    /// The other way.
    Desc,
}

/// A page of items.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResponseItems")]
pub(super) struct Items {
    /// Always `list`.
    object: &'static str,
    #[schemars(with = "Vec<Map<String, Value>>")]
    data: Vec<Box<RawValue>>,
    first_id: Option<String>,
    last_id: Option<String>,
    /// Whether there are others behind the last.
    has_more: bool,
}

/// `GET /v1/responses/{id}/input_items`.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<ResponsePath, ItemsQuery>,
) -> Result<Json<Items>, Problem> {
    let record = found(&api, &input.principal, &input.path.id).await?;
    let request = record.request.as_deref();
    let items = request.map(|request| items(request, record.job.id));
    Ok(Json(page(items.unwrap_or_default(), &input.query)?))
}

type Item = (String, Box<RawValue>);

fn page(mut items: Vec<Item>, query: &ItemsQuery) -> Result<Items, Problem> {
    if query.order != Some(Order::Asc) {
        items.reverse();
    }
    if let Some(after) = &query.after {
        let at = items.iter().position(|(id, _)| id == after);
        let unknown = || {
            let problem = "is no id of an item of this response";
            Problem::of_field(Kind::InvalidQuery, "after", problem)
        };
        items.drain(..=at.ok_or_else(unknown)?);
    }
    let limit = query.limit.unwrap_or(PAGE);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Item>| item.map(|(id, _)| id.clone());
    Ok(Items {
        object: "list",
        first_id: id(items.first()),
        last_id: id(items.last()),
        has_more,
        data: items.into_iter().map(|(_, item)| item).collect(),
    })
}

/// The items of a request in their order. A text is a message of the user.
fn items(request: &Request, job: JobId) -> Vec<Item> {
    let Request::Body(_, raw) = request else {
        return Vec::new();
    };
    let fields: Object<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
    let Some(input) = fields.get("input") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let mut add = |item: &RawValue| {
        let id = format!("msg_{}_{}", job.to_string().replace('-', ""), all.len());
        all.extend(as_item(item, id));
        true
    };
    match input.get().starts_with('[') {
        true => {
            let _ = json::each(input, add);
        }
        false => {
            add(input);
        }
    }
    all
}

/// An item as it was given, with what every item has: an id, a type, and its content as a list. `None`: it is nothing
/// that could be one.
fn as_item(given: &RawValue, id: String) -> Option<Item> {
    let part =
        |kind: &str, text: &RawValue| format!("[{{\"type\":\"{kind}\",\"text\":{}}}]", text.get());
    if given.get().starts_with('"') {
        let content = part("input_text", given);
        let item = json!({"id": id, "type": "message", "role": "user"}).to_string();
        let item = item.strip_suffix('}')?;
        let item = RawValue::from_string(format!("{item},\"content\":{content}}}")).ok()?;
        return Some((id, item));
    }
    let fields: Object<'_> = serde_json::from_str(given.get()).ok()?;
    let own = fields.get("id").and_then(json::text);
    let id = own.map_or(id, |own| own.into_owned());
    let mut out = Vec::new();
    if fields.get("id").is_none() {
        out.push(format!("\"id\":{}", serde_json::to_string(&id).ok()?));
    }
    let is_message = fields.get("role").is_some();
    if is_message && fields.get("type").is_none() {
        out.push("\"type\":\"message\"".to_owned());
    }
    let is_answer = fields
        .get("role")
        .is_some_and(|role| role.get() == "\"assistant\"");
    for (name, value) in fields.iter() {
        let is_text = name == "content" && value.get().starts_with('"');
        let value = match (is_text, is_answer) {
            (true, true) => part("output_text", value),
            (true, false) => part("input_text", value),
            (false, _) => value.get().to_owned(),
        };
        out.push(format!("{}:{value}", serde_json::to_string(name).ok()?));
    }
    let item = RawValue::from_string(format!("{{{}}}", out.join(","))).ok()?;
    Some((id, item))
}

#[cfg(test)]
mod tests {
    use onelane_core::model::Face;

    use super::*;
    use crate::views::tests::sample;

    fn listed(input: &str) -> Vec<String> {
        let body = format!(r#"{{"input":{input},"model":"glm-5"}}"#);
        let request = Request::body(Face::Responses, &body).unwrap();
        let items = items(&request, sample::id(1)).into_iter();
        let hex = sample::id(1).to_string().replace('-', "");
        items
            .map(|(_, item)| item.get().replace(&hex, "J"))
            .collect()
    }

    #[test]
    fn items_are_listed_as_they_were_given_with_what_every_item_has() {
        let text = r#"{"id":"msg_J_0","role":"user","type":"message","content":[{"type":"input_text","text":"h\u0069"}]}"#;
        assert_eq!(listed(r#""h\u0069""#), [text]);
        let given = r#"[{"role":"assistant","content":"a"},{"type":"function_call","id":"f","x":1.50},{"role":"user","content":[{"type":"input_image"}],"type":"message"}]"#;
        assert_eq!(
            listed(given),
            [
                r#"{"id":"msg_J_0","type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]}"#,
                r#"{"type":"function_call","id":"f","x":1.50}"#,
                r#"{"id":"msg_J_2","role":"user","content":[{"type":"input_image"}],"type":"message"}"#,
            ]
        );
        assert!(listed("null").is_empty());
    }

    #[test]
    fn a_page_of_items_begins_behind_any_of_them_in_either_order() {
        let all = || {
            let item = |n: u8| (n.to_string(), RawValue::from_string(n.to_string()).unwrap());
            (1..=5).map(item).collect::<Vec<_>>()
        };
        let check = |limit, order, after: Option<&str>, want: &[&str], more| {
            let after = after.map(str::to_owned);
            let page = page(
                all(),
                &ItemsQuery {
                    limit,
                    order,
                    after,
                },
            )
            .unwrap();
            let data: Vec<&str> = page.data.iter().map(|item| item.get()).collect();
            assert_eq!((data.as_slice(), page.has_more), (want, more));
            assert_eq!(page.first_id.as_deref(), want.first().copied());
            assert_eq!(page.last_id.as_deref(), want.last().copied());
        };
        check(None, None, None, &["5", "4", "3", "2", "1"], false);
        check(Some(2), Some(Order::Asc), None, &["1", "2"], true);
        check(
            Some(3),
            Some(Order::Asc),
            Some("2"),
            &["3", "4", "5"],
            false,
        );
        check(Some(1), Some(Order::Desc), Some("3"), &["2"], true);
        check(None, None, Some("1"), &[], false);
        let odd = ItemsQuery {
            limit: None,
            order: None,
            after: Some("x".to_owned()),
        };
        assert!(page(all(), &odd).is_err());
    }
}
