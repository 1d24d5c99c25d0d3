//! `/api/admin/glm/calls` and `/api/admin/glm/export`: the call log by any of its fields, and everything
//! that the store has, as lines.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use onelane_actors::ports::CallFilter;
use onelane_core::model::CallOutcome;
use serde::Serialize;
use tokio::sync::mpsc;
use warp::Reply as _;
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::admin::excerpts_of;
use super::lane::Lane;
use super::problem::{Kind, Problem};
use super::query::{Format, Query};
use super::views::CallView;
use super::{Api, reply};
use crate::export::{self, Export, What};

/// Where the next page begins, when the answer is a table.
const NEXT_CURSOR: &str = "x-next-cursor";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallsBody<'a> {
    calls: Vec<CallView<'a>>,
    /// As text: it may be larger than what a JavaScript number holds.
    next_cursor: Option<String>,
}

/// `GET calls`: the call log, newest first. A page may be short and have others behind it.
pub(super) async fn calls(api: &Api, query: &str) -> Result<Response, Problem> {
    let allowed = [
        "userId", "model", "outcome", "jobId", "from", "to", "limit", "cursor", "format",
    ];
    let query = Query::parse(query, &allowed)?;
    let text = |name| query.text(name).map(str::to_owned);
    let filter = CallFilter {
        user_id: text("userId"),
        model: text("model"),
        outcome: query.one_of("outcome", &CallOutcome::ALL.map(|o| (o.name(), o)))?,
        job_id: query.job_id("jobId")?,
        from: query.moment("from")?,
        before: query.moment("to")?,
        ..CallFilter::default()
    };
    let format = query.format()?;
    let page = api
        .lane
        .calls(filter, query.cursor()?, query.limit()?)
        .await?;
    let next_cursor = page.cursor.map(|cursor| cursor.to_string());
    if format == Format::Csv {
        let next = next_cursor.as_deref().map(HeaderValue::from_str);
        let write = move || reply::csv(export::calls_to_csv(&page.calls));
        let mut response = reply::written(write).await;
        if let Some(Ok(next)) = next {
            response.headers_mut().insert(NEXT_CURSOR, next);
        }
        return Ok(response);
    }
    let ids = page.calls.iter().map(|call| call.job_id);
    let excerpts = excerpts_of(&*api.lane, ids, api.preview_chars).await;
    let write = move || {
        let calls = page.calls.iter();
        let calls = calls.map(|call| CallView::new(call, excerpts.get(&call.job_id)));
        let body = CallsBody {
            calls: calls.collect(),
            next_cursor,
        };
        reply::json(StatusCode::OK, &body)
    };
    Ok(reply::written(write).await)
}

/// `GET export`: all rows of a kind, read part by part as the client takes them. If the store fails on
/// the way the answer is cut off, which the client sees.
pub(super) async fn export(api: &Api, query: &str) -> Result<Response, Problem> {
    let query = Query::parse(query, &["what", "format"])?;
    let kinds = [
        ("jobs", What::Jobs),
        ("calls", What::Calls),
        ("usage", What::Usage),
    ];
    let what = query.one_of("what", &kinds)?.ok_or_else(|| {
        Problem::fault(
            Kind::InvalidQuery,
            "what",
            "is missing; say jobs, calls or usage",
        )
    })?;
    let formats = [
        ("jsonl", export::Format::JsonLines),
        ("csv", export::Format::Csv),
    ];
    let format = query.one_of("format", &formats)?;
    let format = format.unwrap_or(export::Format::JsonLines);
    let calendar = api.lane.settings().calendar;
    let begun = Export::new(what, format, calendar);
    // What is wrong from the beginning is told as a problem.
    let first = api.lane.export_part(begun).await?;
    let (parts, mut taken) = mpsc::channel(1);
    tokio::spawn(read_parts(Arc::clone(&api.lane), first, parts));
    let lines = stream::poll_fn(move |context| taken.poll_recv(context));
    let mut response = warp::reply::stream(lines).into_response();
    let media = match format {
        export::Format::JsonLines => "application/jsonl",
        export::Format::Csv => "text/csv; charset=utf-8; header=present",
    };
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    Ok(response)
}

/// Reads part after part, each when the one before was taken, until the client goes away.
async fn read_parts(
    lane: Arc<dyn Lane>,
    mut next: Option<(export::Part, Export)>,
    parts: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some((part, export)) = next {
        for error in &part.unreadable {
            tracing::warn!(%error, "a row can't be read and is not exported");
        }
        if !part.lines.is_empty() && parts.send(Ok(part.lines.into())).await.is_err() {
            return;
        }
        next = match lane.export_part(export).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "an export broke off");
                let _ = parts.send(Err(io::Error::other(error.to_string()))).await;
                return;
            }
        };
    }
}
