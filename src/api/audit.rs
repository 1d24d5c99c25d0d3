//! What operators did, on record: each order is there before it is carried out, so that none is carried out unseen, and
//! what became of it after that. An order that dies with the process stays as one that was begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use onelane_core::model::{
    ActedBy, ActedFrom, ActedHow, AuditEntry, AuditId, limits as lane_limits,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use warp::http::Method;
use warp::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::answer::{Json, Reply};
use super::body::Body;
use super::endpoint::{Endpoint, Incoming, properties};
use super::input::{Input, Nothing};
use super::principal::{Access, Principal};
use super::problem::{Kind, Problem};
use super::{Api, limits};
use crate::config::differences;

/// Answers a request for an endpoint, and puts it on record where it is an order. What was begun goes on to its end also when
/// the client waits for it no longer.
pub(super) async fn answer(
    api: &Arc<Api>,
    endpoint: &Endpoint,
    mut incoming: Incoming,
    from: ActedFrom,
) -> Result<Reply, Problem> {
    let is_order = match from {
        ActedFrom::Api => endpoint.access == Access::Operate,
        // By a page what programs do for themselves is an operator's order, too: to give a batch up, to take its results.
        ActedFrom::Page => matches!(endpoint.access, Access::Operate | Access::Submit),
    };
    let by = match &incoming.principal {
        Principal::Admin if is_order => ActedBy::Admin,
        Principal::Local if is_order => ActedBy::Local,
        _ => return endpoint.answer(Arc::clone(api), incoming).await,
    };
    let said = if endpoint.method == Method::GET {
        Vec::new()
    } else {
        let body = incoming.body.at_most(limits::ORDER_BYTES_MAX);
        let said = body.whole(&incoming.headers).await?;
        incoming.headers.remove(CONTENT_ENCODING);
        incoming.headers.remove(CONTENT_LENGTH);
        let again = stream::iter([Ok::<_, warp::Error>(Bytes::from(said.clone()))]);
        incoming.body = Body::new(again, &incoming.headers, api.reading.clone());
        said
    };
    if serde_json::from_slice(&said).is_ok_and(|Trial { dry_run }| dry_run) {
        return endpoint.answer(Arc::clone(api), incoming).await;
    }
    let what = format!("{} {}", endpoint.method, endpoint.path);
    let mut entry = api.lane.given(by, from, what);
    let on: Vec<&str> = incoming
        .captures
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    entry.on = (!on.is_empty()).then(|| on.join(" "));
    let before = endpoint.changes_settings.then(|| api.lane.config_view());
    if before.is_none() {
        entry.detail = known(&said, &endpoint.body_schema).and_then(|known| detail(&known));
    }
    let (api, method, path) = (Arc::clone(api), endpoint.method.clone(), endpoint.path);
    let task = tokio::spawn(async move {
        put(&api, &entry).await;
        let (endpoint, _) = api.router.find(&method, path)?;
        let answered = endpoint.answer(Arc::clone(&api), incoming).await;
        match &answered {
            Ok(reply) => {
                entry.outcome = ActedHow::Done;
                entry.count = reply.counted();
            }
            Err(problem) => {
                entry.outcome = ActedHow::Refused;
                entry.problem = Some(problem.detail().to_owned());
            }
        }
        if let (Some(before), Ok(_)) = (before, &answered) {
            let changed = differences(&before, &api.lane.config_view());
            let changed = with_given(changed, &said);
            entry.detail = detail(changed.to_string().as_bytes());
        }
        put(&api, &entry).await;
        answered
    });
    let broken = |_| Problem::new(Kind::Internal, "the order broke down");
    task.await.map_err(broken)?
}

/// Nobody is kept from pausing a lane by a disk that is full.
async fn put(api: &Api, entry: &AuditEntry) {
    if let Err(error) = api.lane.put_on_record(entry).await {
        let what = &entry.what;
        tracing::warn!(%error, what, "an order could not be put on record");
    }
}

/// Whether an order changes nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trial {
    #[serde(default)]
    dry_run: bool,
}

/// What of an order's body its endpoint knows: anything else is nobody's order, and may be a secret that was sent to the
/// wrong place.
fn known(said: &[u8], schema: &Value) -> Option<Vec<u8>> {
    let mut said: BTreeMap<String, &RawValue> = serde_json::from_slice(said).ok()?;
    said.retain(|name, _| properties(schema).any(|(known, _)| known == name));
    serde_json::to_vec(&said).ok()
}

/// The settings that changed, with those that an order named and that look alike before and after: secrets are masked.
fn with_given(changed: Value, said: &[u8]) -> Value {
    let (Value::Object(mut changed), Ok(Value::Object(said))) =
        (changed, serde_json::from_slice(said))
    else {
        return Value::Null;
    };
    for name in said.keys() {
        let is_told = |path: &String| path.split('.').next() == Some(name.as_str());
        if !changed.keys().any(is_told) {
            changed.insert(name.clone(), Value::from("given"));
        }
    }
    Value::Object(changed)
}

/// What an order said, or the beginning of it.
fn detail(said: &[u8]) -> Option<Box<RawValue>> {
    let said: &RawValue = serde_json::from_slice(said).ok()?;
    let said = said.get();
    if said.len() <= lane_limits::AUDIT_DETAIL_BYTES_MAX {
        return RawValue::from_string(said.to_owned()).ok();
    }
    let mut end = lane_limits::AUDIT_DETAIL_BYTES_MAX;
    while !said.is_char_boundary(end) {
        end -= 1;
    }
    to_raw_value(said.get(..end)?).ok()
}

/// Which part of the list is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Rows of a page; 50 without it.
    #[schemars(range(min = 1, max = lane_limits::PAGE_ROWS_MAX))]
    limit: Option<usize>,
    /// The `nextCursor` of the page before.
    #[schemars(with = "Option<uuid::Uuid>")]
    cursor: Option<AuditId>,
}

/// Orders of operators, newest first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditAnswer {
    audit: Vec<AuditEntry>,
    next_cursor: Option<AuditId>,
}

/// `GET audit`.
pub(super) async fn list(
    api: Arc<Api>,
    input: Input<Nothing, AuditQuery>,
) -> Result<Json<AuditAnswer>, Problem> {
    let AuditQuery { limit, cursor } = input.query;
    let limit = limit.unwrap_or(lane_limits::PAGE_ROWS_DEFAULT);
    let audit = api.lane.audit(cursor, limit).await?;
    let last = audit.last().map(|entry| entry.id);
    Ok(Json(AuditAnswer {
        next_cursor: last.filter(|_| audit.len() == limit),
        audit,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_does_not_know_is_no_part_of_an_order() {
        let schema = serde_json::json!({"properties": {"reason": {}, "priority": {}}});
        let kept = |said: &str| known(said.as_bytes(), &schema).map(String::from_utf8);
        let said = r#"{"reason":"lunch","apiKey":"a secret","priority": 1.50}"#;
        let want = r#"{"priority":1.50,"reason":"lunch"}"#;
        assert_eq!(kept(said), Some(Ok(want.to_owned())));
        assert_eq!(kept("[1]"), None);
    }

    #[test]
    fn a_setting_that_looks_alike_since_it_is_masked_is_named_all_the_same() {
        let changed = serde_json::json!({"lane.pace": {"before": 1, "after": 2}});
        let said = br#"{"lane": {"pace": 2}, "apiKey": "s3cret"}"#;
        let want = serde_json::json!({"lane.pace": {"before": 1, "after": 2}, "apiKey": "given"});
        assert_eq!(with_given(changed, said), want);
    }

    #[test]
    fn of_a_long_order_the_beginning_is_kept_and_of_what_is_no_json_nothing() {
        let kept = |said: &str| detail(said.as_bytes()).map(|kept| kept.get().to_owned());
        assert_eq!(
            kept(r#"{"cost": 0.0125}"#).as_deref(),
            Some(r#"{"cost": 0.0125}"#)
        );
        assert_eq!(kept("{"), None);
        assert_eq!(kept(""), None);
        let long = serde_json::json!({"reason": "谷".repeat(2_000)}).to_string();
        let cut = kept(&long).unwrap();
        assert!(cut.len() < lane_limits::AUDIT_DETAIL_BYTES_MAX + 100);
        let cut: String = serde_json::from_str(&cut).unwrap();
        assert!(long.starts_with(&cut));
    }
}
