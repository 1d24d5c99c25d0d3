//! What is bad and who was told of it: alerts, endpoints, and every delivery, to be tried and sent again.

use askama::Template;
use onelane_core::model::{
    Alert, Delivery, DeliveryFilter, DeliveryStatus, HookEndpoint, Target, Timestamp,
};
use serde_json::{Value, json};
use warp::http::Method;

use super::alarm;
use super::asked::{Answered, Asked};
use super::frame::{Frame, Nav, Note};
use super::lists::{Tab, cursor, link, narrowed, with};
use super::orders::count;
use super::show::{When, duration, encoded, number, short};
use super::terms::Terms;
use super::words::{Lang, Words};

/// By what deliveries are narrowed: names of the API.
const NAMES: [&str; 4] = ["status", "event", "jobId", "endpoint"];
/// Deliveries of a page.
const ROWS: usize = 50;
/// Alerts that are over, of a page.
const OVER: usize = 20;

#[derive(Template)]
#[template(path = "alerts.html")]
struct Alerts {
    frame: Frame,
    t: &'static Terms,
    active: Vec<AlertRow>,
    over: Vec<AlertRow>,
    endpoints: Vec<EndpointRow>,
    tabs: Vec<Tab>,
    deliveries: Vec<DeliveryRow>,
    failed: Option<String>,
    next: Option<String>,
    first: String,
    is_first: bool,
}

struct AlertRow {
    rule: String,
    message: String,
    since: When,
    lasted: Option<String>,
    /// Where what it is about stands.
    href: &'static str,
}

struct EndpointRow {
    name: String,
    site: String,
    events: String,
    tone: &'static str,
    state: &'static str,
    since: Option<When>,
    is_told: bool,
}

struct JobLink {
    id: String,
    short: String,
}

struct DeliveryRow {
    id: String,
    when: When,
    event: String,
    job: Option<JobLink>,
    to: String,
    tone: &'static str,
    status: &'static str,
    tries: u32,
    said: Option<String>,
    next: Option<When>,
}

/// `GET /desk/alerts`.
pub(super) async fn page(asked: Asked) -> Answered {
    let (lane, now, w) = (asked.lane(), asked.visit.now(), asked.words());
    let lang = asked.look.lang;
    let t = Terms::of(lang);
    let given = narrowed(asked.queries(), &NAMES);
    let filter: DeliveryFilter = asked.visit.read(&given)?;
    let (chosen, cursor) = (filter.status, cursor(&asked));
    let found = lane.deliveries(filter, cursor, ROWS).await?;
    let counts = lane.metrics().await?.deliveries;
    let book = lane.alerts();
    let of = |status: DeliveryStatus| match status {
        DeliveryStatus::Pending => counts.pending,
        DeliveryStatus::Delivered => counts.delivered,
        DeliveryStatus::Failed => counts.failed,
    };
    let tab = |status: Option<DeliveryStatus>| Tab {
        href: link(
            "/desk/alerts",
            &with(&given, "status", status.map(DeliveryStatus::name)),
        ),
        text: status
            .map_or(w.st_all, |status| status_word(status, t).1)
            .to_owned(),
        count: status.map(|status| number(of(status))),
        is_current: status == chosen,
    };
    let page = Alerts {
        frame: asked.frame(Nav::Alerts).await?,
        t,
        active: book
            .active
            .iter()
            .map(|alert| AlertRow::of(alert, None, now, (lang, w)))
            .collect(),
        over: book
            .recent
            .iter()
            .take(OVER)
            .map(|over| AlertRow::of(&over.alert, Some(over.cleared_at), now, (lang, w)))
            .collect(),
        endpoints: lane
            .webhook_endpoints()
            .await?
            .iter()
            .map(|endpoint| EndpointRow::of(endpoint, now, w, t))
            .collect(),
        tabs: std::iter::once(None)
            .chain(DeliveryStatus::ALL.map(Some))
            .map(tab)
            .collect(),
        deliveries: found
            .deliveries
            .iter()
            .map(|delivery| DeliveryRow::of(delivery, now, w, t))
            .collect(),
        failed: (counts.failed > 0).then(|| number(counts.failed)),
        next: found.cursor.map(|cursor| {
            let cursor = cursor.to_string();
            link("/desk/alerts", &with(&given, "cursor", Some(&cursor)))
        }),
        first: link("/desk/alerts", &given),
        is_first: cursor.is_none(),
    };
    asked.page(&page)
}

const fn status_word(status: DeliveryStatus, t: &Terms) -> (&'static str, &'static str) {
    match status {
        DeliveryStatus::Pending => ("warn", t.on_its_way),
        DeliveryStatus::Delivered => ("ok", t.delivered),
        DeliveryStatus::Failed => ("bad", t.given_up),
    }
}

impl AlertRow {
    fn of(
        alert: &Alert,
        over: Option<Timestamp>,
        now: Timestamp,
        (lang, w): (Lang, &Words),
    ) -> Self {
        use onelane_core::model::Watched;
        Self {
            rule: alarm::rule(alert, lang),
            message: alarm::says(alert, now, lang),
            since: When::of(over.unwrap_or(alert.raised_at), now, w),
            lasted: over.map(|at| duration(at.since(alert.raised_at), w)),
            href: match alert.on {
                Watched::Spend => "/desk/usage",
                Watched::Budget => "/desk/budgets",
                Watched::Hold | Watched::Breaker | Watched::Unreachable => "/desk/holds",
                Watched::QueueLength | Watched::QueueAge => "/desk/jobs?status=pending",
                Watched::ErrorRate | Watched::ForeignAnswer => "/desk/calls?outcome=failed",
                Watched::ResponseTime => "/desk/models",
                Watched::Quota | Watched::Balance => "/",
            },
        }
    }
}

impl EndpointRow {
    fn of(endpoint: &HookEndpoint, now: Timestamp, w: &Words, t: &'static Terms) -> Self {
        let (tone, state, since) = match (endpoint.off_since, endpoint.missing_since) {
            (_, Some(at)) => ("warn", t.endpoint_missing, Some(at)),
            (Some(at), None) => ("bad", t.endpoint_off, Some(at)),
            (None, None) => ("ok", t.endpoint_on, None),
        };
        Self {
            name: endpoint.name.clone(),
            site: endpoint.site.clone(),
            events: endpoint.events.join(", "),
            tone,
            state,
            since: since.map(|at| When::of(at, now, w)),
            is_told: endpoint.missing_since.is_none(),
        }
    }
}

impl DeliveryRow {
    fn of(delivery: &Delivery, now: Timestamp, w: &Words, t: &'static Terms) -> Self {
        let (tone, status) = status_word(delivery.status, t);
        let last = delivery.last.as_ref();
        let said = last.and_then(|last| {
            let status = last.status_code.map(|code| format!("HTTP {code}"));
            let parts: Vec<String> = status.into_iter().chain(last.error.clone()).collect();
            (!parts.is_empty()).then(|| parts.join(" · "))
        });
        Self {
            id: delivery.id.to_string(),
            when: When::of(delivery.created_at, now, w),
            event: delivery.event.clone(),
            job: delivery.job_id.map(|id| JobLink {
                id: id.to_string(),
                short: short(id),
            }),
            to: match &delivery.target {
                Target::Endpoint(name) => name.clone(),
                Target::Callback(url) => url.host(),
            },
            tone,
            status,
            tries: delivery.tries,
            said,
            next: delivery
                .next_try_at
                .map(|wait| When::of(wait.until, now, w)),
        }
    }
}

/// `POST /desk/alerts/test`: a notice to the endpoint that the form names, or to all.
pub(super) async fn test(asked: Asked) -> Answered {
    let body = asked
        .field("endpoint")
        .map(|endpoint| json!({"endpoint": endpoint}));
    let path = "/api/admin/glm/webhooks/test";
    let answer = asked.order(Method::POST, path, body.as_ref()).await?;
    let sent = answer.get("deliveries").and_then(Value::as_array);
    Ok(asked.back(Note::Tested, sent.map(|sent| sent.len() as u64)))
}

/// `POST /desk/alerts/redeliver/{id}`.
pub(super) async fn redeliver(asked: Asked) -> Answered {
    let id = encoded(asked.part("id")).replace('/', "%2F");
    let path = format!("/api/admin/glm/webhooks/deliveries/{id}/redeliver");
    asked.order(Method::POST, &path, None).await?;
    Ok(asked.back(Note::Redelivered, None))
}

/// `POST /desk/alerts/redeliver`: all that were given up.
pub(super) async fn redeliver_all(asked: Asked) -> Answered {
    let path = "/api/admin/glm/webhooks/redeliver";
    let body = json!({"all": true});
    let answer = asked.order(Method::POST, path, Some(&body)).await?;
    Ok(asked.back(Note::RedeliveredMany, count(&answer)))
}
