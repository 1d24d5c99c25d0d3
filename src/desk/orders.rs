//! What forms do: each gives an order of the API, and leads back to where it was sent from.

use serde_json::{Value, json};
use warp::http::Method;

use super::asked::{Answered, Asked};
use super::frame::Note;
use crate::api::site::{Kind, Problem};

/// `POST /desk/pause`.
pub(super) async fn pause(asked: Asked) -> Answered {
    let body = asked
        .field("reason")
        .map(|reason| json!({"reason": reason}));
    asked
        .order(Method::POST, "/api/admin/glm/pause", body.as_ref())
        .await?;
    Ok(asked.back(Note::Pause, None))
}

/// `POST /desk/resume`.
pub(super) async fn resume(asked: Asked) -> Answered {
    asked
        .order(Method::POST, "/api/admin/glm/resume", None)
        .await?;
    Ok(asked.back(Note::Resume, None))
}

/// `POST /desk/release`: ends the hold that the form names.
pub(super) async fn release(asked: Asked) -> Answered {
    let hold = asked.field("hold").unwrap_or_default();
    let path = format!("/api/admin/glm/holds/{hold}");
    asked.order(Method::DELETE, &path, None).await?;
    Ok(asked.back(Note::Release, None))
}

/// `POST /desk/concurrency`: how many calls the default lane may have open.
pub(super) async fn concurrency(asked: Asked) -> Answered {
    let calls: u64 = number(&asked, "calls")?;
    let body = json!({"maxConcurrency": calls});
    asked
        .order(Method::PUT, "/api/admin/glm/config", Some(&body))
        .await?;
    Ok(asked.back(Note::Set, None))
}

/// A field that is a whole number.
pub(super) fn number<T: std::str::FromStr>(asked: &Asked, name: &str) -> Result<T, Problem> {
    let wrong = || Problem::of_field(Kind::InvalidField, name, "must be a whole number");
    asked
        .field(name)
        .and_then(|text| text.parse().ok())
        .ok_or_else(wrong)
}

/// How many an order touched.
pub(super) fn count(answer: &Value) -> Option<u64> {
    answer.get("count").and_then(Value::as_u64)
}
