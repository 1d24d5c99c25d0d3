//! `/api/admin/glm`: configuration, statistics, the queue and the lane's figures.

use std::collections::BTreeMap;

use onelane_actors::ports::{JobRecord, UsageFilter};
use onelane_core::model::{Day, JobId};
use serde::Serialize;
use serde_json::{Value, json};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::lane::Lane;
use super::problem::{Kind, Problem};
use super::query::{Format, Query};
use super::views::{CallView, Excerpt, JobView, MetricsView, Shown};
use super::{Api, limits, reply};
use crate::config::keep_exact;
use crate::orchestrator::JobDetail;
use crate::statistics::{GroupBy, StatisticsQuery, StatisticsRow, to_csv};

/// `GET config`.
pub(super) fn read_config(api: &Api) -> Response {
    let config = api.lane.config_view();
    reply::json(StatusCode::OK, &json!({ "config": config }))
}

/// `PUT config`: a part of a `GLMConfig`.
pub(super) async fn change_config(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let raw = body.json(headers).await?;
    let mut patch: Value = serde_json::from_str(raw.get())
        .map_err(|error| Problem::new(Kind::MalformedJson, error.to_string()))?;
    if !patch.is_object() {
        return Err(Problem::new(
            Kind::InvalidBody,
            "the body must be a JSON object with the settings to change",
        ));
    }
    keep_exact(raw.get(), &mut patch);
    let config = api.lane.set_config(&patch).await?;
    Ok(reply::json(StatusCode::OK, &json!({ "config": config })))
}

#[derive(Serialize)]
struct StatisticsBody {
    statistics: Vec<StatisticsRow>,
}

/// `GET statistics`.
pub(super) async fn read_statistics(api: &Api, query: &str) -> Result<Response, Problem> {
    let allowed = [
        "startDate",
        "endDate",
        "model",
        "userId",
        "groupBy",
        "format",
    ];
    let query = Query::parse(query, &allowed)?;
    let calendar = api.lane.settings().calendar;
    let today = calendar.day(api.clock.now());
    let (start, end) = days(&query, today)?;
    let group_by = query.text("groupBy").map(GroupBy::parse).transpose();
    let group_by = group_by.map_err(|p| Problem::fault(Kind::InvalidQuery, "groupBy", p))?;
    let format = query.format()?;
    let rows = api
        .lane
        .statistics(StatisticsQuery {
            filter: UsageFilter {
                start,
                end,
                model: query.text("model").map(str::to_owned),
                user_id: query.text("userId").map(str::to_owned),
            },
            group_by: group_by.unwrap_or_default(),
            calendar,
        })
        .await?;
    let write = move || match format {
        Format::Csv => reply::csv(to_csv(&rows)),
        Format::Json => reply::json(StatusCode::OK, &StatisticsBody { statistics: rows }),
    };
    Ok(reply::written(write).await)
}

/// The days asked for: without an end up to today, without a start the month before the end.
fn days(query: &Query, today: Day) -> Result<(Day, Day), Problem> {
    let end = query.day("endDate")?.unwrap_or(today);
    let start = query.day("startDate")?;
    let start = start.unwrap_or(Day(end
        .0
        .saturating_sub(limits::STATISTICS_DAYS_DEFAULT - 1)));
    if start > end {
        return Err(Problem::fault(
            Kind::InvalidQuery,
            "startDate",
            format!("{start} is after the last day, {end}"),
        ));
    }
    if end.0.saturating_sub(start.0) >= limits::STATISTICS_DAYS_MAX {
        return Err(Problem::fault(
            Kind::InvalidQuery,
            "startDate",
            format!(
                "{start} to {end} are more than {} days",
                limits::STATISTICS_DAYS_MAX
            ),
        ));
    }
    Ok((start, end))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueBody<'a> {
    queue: Vec<JobView<'a>>,
    total: u64,
    /// As text: it may be larger than what a JavaScript number holds.
    next_cursor: Option<String>,
}

/// `GET queue`.
pub(super) async fn read_queue(api: &Api, query: &str) -> Result<Response, Problem> {
    let allowed = [&["status", "limit", "cursor"][..], &Query::OF_JOBS].concat();
    let query = Query::parse(query, &allowed)?;
    let page = api
        .lane
        .jobs(query.job_filter()?, query.cursor()?, query.limit()?)
        .await?;
    let chars = api.preview_chars;
    let write = move || {
        let excerpt = |record: &JobRecord| Excerpt::of(record, chars);
        let excerpts: Vec<_> = page.jobs.iter().map(excerpt).collect();
        let jobs = page.jobs.iter().zip(&excerpts);
        let jobs = jobs.map(|(record, excerpt)| JobView::new(record, Shown::Preview(excerpt)));
        let body = QueueBody {
            queue: jobs.collect(),
            total: page.total,
            next_cursor: page.cursor.map(|cursor| cursor.to_string()),
        };
        reply::json(StatusCode::OK, &body)
    };
    Ok(reply::written(write).await)
}

#[derive(Serialize)]
struct JobBody<'a> {
    job: JobView<'a>,
}

/// `GET queue/{id}`: the job whole, with its attempts.
pub(super) async fn read_job(api: &Api, id: JobId) -> Result<Response, Problem> {
    let detail = api.lane.job(id).await?;
    let chars = api.preview_chars;
    let write = move || {
        let excerpt = Excerpt::of(&detail.record, chars);
        let job = with_attempts(&detail, &excerpt, Shown::Whole);
        reply::json(StatusCode::OK, &JobBody { job })
    };
    Ok(reply::written(write).await)
}

/// A job with its attempts.
fn with_attempts<'a>(detail: &'a JobDetail, excerpt: &'a Excerpt, shown: Shown<'a>) -> JobView<'a> {
    let JobDetail {
        record,
        attempts,
        waiting_for,
    } = detail;
    let attempts = attempts.iter();
    let attempts = attempts.map(|call| CallView::new(call, Some(excerpt)));
    JobView::new(record, shown)
        .with_attempts(attempts.collect())
        .waiting_for(waiting_for.as_deref())
}

/// `POST retry/{id}`.
pub(super) async fn retry(api: &Api, id: JobId) -> Result<Response, Problem> {
    api.lane.retry(id).await?;
    Ok(reply::success())
}

/// `POST cancel/{id}`, for operators and programs.
pub(super) async fn cancel(api: &Api, id: JobId) -> Result<Response, Problem> {
    api.lane.cancel(id).await?;
    Ok(reply::success())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLettersBody<'a> {
    dead_letters: Vec<JobView<'a>>,
    total: u64,
    next_cursor: Option<String>,
}

/// `GET dead-letters`: the failed jobs, newest first, each with its attempts.
pub(super) async fn dead_letters(api: &Api, query: &str) -> Result<Response, Problem> {
    let allowed = [&["limit", "cursor"][..], &Query::OF_JOBS].concat();
    let query = Query::parse(query, &allowed)?;
    let page = api
        .lane
        .dead_letters(query.job_filter()?, query.cursor()?, query.limit()?)
        .await?;
    let chars = api.preview_chars;
    let write = move || {
        let excerpt = |detail: &JobDetail| Excerpt::of(&detail.record, chars);
        let excerpts: Vec<_> = page.letters.iter().map(excerpt).collect();
        let letters = page.letters.iter().zip(&excerpts);
        let letters = letters
            .map(|(detail, excerpt)| with_attempts(detail, excerpt, Shown::Preview(excerpt)));
        let body = DeadLettersBody {
            dead_letters: letters.collect(),
            total: page.total,
            next_cursor: page.cursor.map(|cursor| cursor.to_string()),
        };
        reply::json(StatusCode::OK, &body)
    };
    Ok(reply::written(write).await)
}

/// `GET metrics`.
pub(super) async fn metrics(api: &Api) -> Result<Response, Problem> {
    let metrics = api.lane.metrics().await?;
    let calls = metrics.recent_calls.iter().take(limits::RECENT_CALLS_SHOWN);
    let ids = calls.clone().map(|call| call.job_id);
    let excerpts = excerpts_of(&*api.lane, ids, api.preview_chars).await;
    let calls = calls
        .map(|call| CallView::new(call, excerpts.get(&call.job_id)))
        .collect();
    let alerts = api.lane.alerts();
    let body = MetricsView::new(&metrics, calls).with_alerts(&alerts);
    Ok(reply::json(StatusCode::OK, &body))
}

/// Of the jobs that are still there. One at a time: they may be large.
pub(super) async fn excerpts_of(
    lane: &dyn Lane,
    ids: impl Iterator<Item = JobId>,
    chars: usize,
) -> BTreeMap<JobId, Excerpt> {
    let mut excerpts = BTreeMap::new();
    for id in ids {
        if excerpts.contains_key(&id) {
            continue;
        }
        let Ok(detail) = lane.job(id).await else {
            continue;
        };
        let making = tokio::task::spawn_blocking(move || Excerpt::of(&detail.record, chars));
        if let Ok(excerpt) = making.await {
            excerpts.insert(id, excerpt);
        }
    }
    excerpts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(query: &str) -> Result<String, u16> {
        let query = Query::parse(query, &["startDate", "endDate"]).unwrap();
        days(&query, Day::parse("2026-11-23").unwrap())
            .map(|(start, end)| format!("{start} {end}"))
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn missing_dates_mean_the_last_thirty_days() {
        assert_eq!(range("").unwrap(), "2026-10-25 2026-11-23");
        assert_eq!(
            range("startDate=2026-11-23").unwrap(),
            "2026-11-23 2026-11-23"
        );
        assert_eq!(
            range("endDate=2026-01-30").unwrap(),
            "2026-01-01 2026-01-30"
        );
    }

    #[test]
    fn a_range_that_is_empty_or_endless_is_refused() {
        assert_eq!(range("startDate=2026-11-24"), Err(400));
        assert_eq!(range("startDate=2026-02-02&endDate=2026-02-01"), Err(400));
        assert_eq!(range("startDate=2000-01-01"), Err(400));
        assert!(range("startDate=2016-11-16").is_ok(), "3660 days");
        assert_eq!(range("startDate=2016-11-15"), Err(400), "3661 days");
    }
}
