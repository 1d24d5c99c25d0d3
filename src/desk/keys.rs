//! Client keys: made, with the secret shown this once, replaced, taken back.

use askama::Template;
use onelane_core::model::{
    Amount, ClientKey, Face, KeyBudget, KeyId, KeyRole, KeyState, NoKeyBudget, Period, Timestamp,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use warp::http::{Method, StatusCode};

use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav, Note};
use super::lists::link;
use super::orders::number as whole;
use super::show::{When, encoded, money, number};
use super::terms::Terms;
use super::words::{Words, fill};
use crate::api::site::{Kind, Problem};

/// Keys of a page.
const ROWS: usize = 100;
const HOUR_MS: u64 = 3_600_000;

#[derive(Template)]
#[template(path = "keys.html")]
struct Keys {
    frame: Frame,
    t: &'static Terms,
    made: Option<Made>,
    rows: Vec<Row>,
    faces: Vec<&'static str>,
    next: Option<String>,
    is_first: bool,
}

/// A key that was just made.
struct Made {
    name: String,
    secret: String,
}

struct Row {
    id: String,
    name: String,
    jobs: String,
    role: &'static str,
    tone: &'static str,
    state: &'static str,
    at: Option<When>,
    user: Option<String>,
    usage: String,
    rights: Vec<String>,
    budget: Option<String>,
    made: When,
    rotated: Option<When>,
    is_live: bool,
}

/// `GET /desk/keys`.
pub(super) async fn list(asked: Asked) -> Answered {
    shown(&asked, StatusCode::OK, None).await
}

async fn shown(asked: &Asked, status: StatusCode, made: Option<Made>) -> Answered {
    let (now, w) = (asked.visit.now(), asked.words());
    let t = Terms::of(asked.look.lang);
    let known = asked.lane().client_keys();
    let mut keys: Vec<_> = known.iter().collect();
    // Those that open first, then the newest.
    keys.sort_by_key(|key| {
        let is_live = matches!(key.state(now), KeyState::Live);
        std::cmp::Reverse((is_live, key.created_at, key.id))
    });
    let skipped = asked.query("from").and_then(|from| from.parse().ok());
    let skipped: usize = skipped.unwrap_or(0);
    let next = skipped.saturating_add(ROWS);
    let mut frame = asked.frame(Nav::Keys).await?;
    // What is shown this once stays until somebody leaves.
    frame.is_live = false;
    frame.here = "/desk/keys".to_owned();
    let page = Keys {
        frame,
        t,
        made,
        next: (keys.len() > next).then(|| link("/desk/keys", &[("from", next.to_string())])),
        is_first: skipped == 0,
        rows: keys
            .into_iter()
            .skip(skipped)
            .take(ROWS)
            .map(|key| Row::of(key, now, w, t))
            .collect(),
        faces: Face::ALL.iter().map(|face| face.name()).collect(),
    };
    asked.page_as(status, &page)
}

impl Row {
    fn of(key: &ClientKey, now: Timestamp, w: &Words, t: &'static Terms) -> Self {
        let state = key.state(now);
        let (tone, word, at) = match state {
            KeyState::Live => ("ok", t.key_live, key.expires_at),
            KeyState::Expired(at) => ("warn", t.key_expired, Some(at)),
            KeyState::Revoked(at) => ("bad", t.key_revoked, Some(at)),
        };
        let rights = &key.rights;
        let bound = |text: &str, n: Option<u64>| n.map(|n| fill(text, &[&number(n)]));
        let listed = |names: Vec<String>| (!names.is_empty()).then(|| names.join(", "));
        let told = [
            bound(t.at_once, rights.calls_in_flight.map(u64::from)),
            bound(t.a_minute, rights.requests_per_minute.map(u64::from)),
            rights
                .max_priority
                .map(|max| format!("{} ≤ {max}", w.priority)),
            listed(rights.models.clone()),
            listed(
                rights
                    .faces
                    .iter()
                    .map(|face| face.name().to_owned())
                    .collect(),
            ),
            key.jwt.then(|| "JWT".to_owned()),
        ];
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            jobs: link("/desk/jobs", &[("keyId", key.id.to_string())]),
            role: match key.role {
                KeyRole::Client => t.role_client,
                KeyRole::Viewer => w.viewer,
            },
            tone,
            state: word,
            at: at.map(|at| When::of(at, now, w)),
            usage: link(
                "/desk/usage",
                &[("userId", rights.user_id.clone().unwrap_or_default())],
            ),
            user: rights.user_id.clone(),
            rights: told.into_iter().flatten().collect(),
            budget: rights.budget.map(|budget| budget_words(budget, t)),
            made: When::of(key.created_at, now, w),
            rotated: key.rotated_at.map(|at| When::of(at, now, w)),
            is_live: matches!(state, KeyState::Live),
        }
    }
}

fn budget_words(budget: KeyBudget, t: &Terms) -> String {
    let limit = match budget.limit {
        Amount::Money(cost) => money(cost),
        tokens @ Amount::Tokens(_) => tokens.to_string(),
    };
    let period = match budget.period {
        Period::Day => t.a_day,
        Period::Month => t.a_month,
    };
    format!("{limit} {period}")
}

/// `POST /desk/keys`. It is no redirect: what is shown is shown this once.
pub(super) async fn create(asked: Asked) -> Answered {
    let broken = |error: serde_json::Error| Problem::new(Kind::Internal, error.to_string());
    let body = serde_json::to_string(&NewKey::of(&asked)?).map_err(broken)?;
    let (path, by) = ("/api/admin/glm/keys", asked.principal());
    let made = asked.visit.order_of_text(&by, Method::POST, path, body);
    let made = made.await?;
    told(&asked, &made).await
}

/// A form as the API has a new key.
#[derive(Serialize)]
struct NewKey {
    #[serde(flatten)]
    plain: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<KeyBudget>,
}

impl NewKey {
    fn of(asked: &Asked) -> Result<Self, Problem> {
        let mut plain = Map::new();
        for name in ["name", "role", "userId"] {
            if let Some(text) = asked.field(name) {
                plain.insert(name.to_owned(), text.into());
            }
        }
        for name in ["maxPriority", "callsInFlight", "requestsPerMinute"] {
            if asked.field(name).is_some() {
                let number: i64 = whole(asked, name)?;
                plain.insert(name.to_owned(), number.into());
            }
        }
        if let Some(models) = asked.field("models") {
            let models = models.split(',').map(str::trim);
            let models = models.filter(|model| !model.is_empty());
            plain.insert("models".to_owned(), models.collect());
        }
        let faces = asked.form.iter().filter(|(name, _)| name == "faces");
        let faces: Vec<Value> = faces.map(|(_, face)| face.as_str().into()).collect();
        if !faces.is_empty() {
            plain.insert("faces".to_owned(), faces.into());
        }
        if asked.field("expiresInHours").is_some() {
            let hours: u64 = whole(asked, "expiresInHours")?;
            let at = asked.visit.now().plus_ms(hours.saturating_mul(HOUR_MS));
            plain.insert("expiresAt".to_owned(), at.to_rfc3339().into());
        }
        let wrong =
            |error: NoKeyBudget| Problem::of_field(Kind::InvalidField, "budget", error.to_string());
        let budget = asked.field("budget").map(str::parse::<KeyBudget>);
        let budget = budget.transpose().map_err(wrong)?;
        Ok(Self { plain, budget })
    }
}

async fn told(asked: &Asked, made: &Value) -> Answered {
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    let made = Made {
        name: text("name").to_owned(),
        secret: text("key").to_owned(),
    };
    shown(asked, StatusCode::CREATED, Some(made)).await
}

fn path(asked: &Asked, what: &str) -> Result<String, Problem> {
    let wrong = |_| Problem::of_field(Kind::InvalidId, "id", "must be the id of a key");
    let id: KeyId = serde_json::from_value(json!(asked.part("id"))).map_err(wrong)?;
    let id = encoded(&id.to_string());
    Ok(format!("/api/admin/glm/keys/{id}/{what}"))
}

/// `POST /desk/keys/{id}/rotate`: another secret, shown this once.
pub(super) async fn rotate(asked: Asked) -> Answered {
    let hours: u64 = match asked.field("overlapHours") {
        Some(_) => whole(&asked, "overlapHours")?,
        None => 0,
    };
    let body = json!({"overlapMs": hours.saturating_mul(HOUR_MS)});
    let path = path(&asked, "rotate")?;
    let made = asked.order(Method::POST, &path, Some(&body)).await?;
    told(&asked, &made).await
}

/// `POST /desk/keys/{id}/revoke`.
pub(super) async fn revoke(asked: Asked) -> Answered {
    let path = path(&asked, "revoke")?;
    asked.order(Method::POST, &path, None).await?;
    Ok(asked.back(Note::Revoked, None))
}
