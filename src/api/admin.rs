//! Configuration, statistics, the queue and the lane's figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use onelane_actors::ports::{JobFilter, UsageFilter};
use onelane_core::model::{Alert, AlertRules, CallRecord, Day, JobId, SessionId, model_name};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Json, Large, Success, Table};
use super::connections::ServerFigures;
use super::input::{Input, Need, Nothing, Payload};
use super::listed::Listed;
use super::pages::{NextCursor, Page};
use super::problem::{Kind, Problem};
use super::{Api, limits};
use crate::bounded;
use crate::config::{PolicyRow, Prices, keep_exact};
use crate::orchestrator::{JobDetail, Metrics};
use crate::statistics::{self, GroupBy, Statistics, StatisticsQuery, StatisticsRow, to_csv};
use crate::views::{Audience, CallView, Excerpt, JobView};

/// `GLMConfig`: its fields are the settings.
struct GlmConfig;

impl JsonSchema for GlmConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GLMConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "The settings in force, the key masked. Settings that were never given have no \
                            value; what else a lane has to configure stands beside these.",
            "properties": {
                "id": {"type": "string"},
                "apiKey": {"type": ["string", "null"], "description": "Masked."},
                "baseUrl": {"type": "string"},
                "model": {"type": "string"},
                "maxTokens": {"type": ["integer", "null"]},
                "temperature": {"type": ["number", "null"]},
                "timeout": {"type": "integer", "description": "In milliseconds."},
                "maxRetries": {"type": "integer"},
                "isActive": {"type": "boolean"},
                "createdAt": {"type": ["string", "null"], "format": "date-time"},
                "updatedAt": {"type": ["string", "null"], "format": "date-time"},
            },
            "additionalProperties": true,
        })
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ConfigAnswer {
    /// That a change of this request is stored and not in force, since a flag or the environment outweighs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    #[schemars(with = "GlmConfig")]
    config: Value,
}

/// `GET config`.
pub(super) async fn read_config(api: Arc<Api>, _: Input) -> Result<Json<ConfigAnswer>, Problem> {
    let config = api.lane.config_view();
    Ok(Json(ConfigAnswer {
        warning: None,
        config,
    }))
}

/// A part of a `GLMConfig`. Which settings there are and what they may be, the configuration says.
pub(super) struct ConfigPatch(Value);

impl Payload for ConfigPatch {
    const NEED: Need = Need::Required;
    type Reader = ();

    fn reader() {}

    fn schema() -> Value {
        let mut schema = super::input::schema_of::<GlmConfig>();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("title".to_owned(), "The settings to change".into());
        }
        schema
    }

    fn read((): &(), body: Option<&RawValue>) -> Result<Self, Problem> {
        let raw = body.unwrap_or(RawValue::NULL);
        if !raw.get().starts_with('{') {
            return Err(Problem::new(
                Kind::InvalidBody,
                "the body must be a JSON object with the settings to change",
            ));
        }
        let mut patch = bounded::whole(raw.get())
            .map_err(|error| Problem::new(Kind::MalformedJson, error.to_string()))?;
        keep_exact(raw.get(), &mut patch);
        Ok(Self(patch))
    }
}

/// That a change is stored and not in force.
fn shadow(config: &Value) -> Option<String> {
    let fields = config.get("shadowed")?.as_array()?.iter();
    let each = fields.filter_map(|shadowed| {
        let field = shadowed.get("field")?.as_str()?;
        let origin = shadowed.get("origin")?;
        let origin = origin
            .as_str()
            .map_or_else(|| origin.to_string(), str::to_owned);
        Some(format!("{field} is fixed by {origin}"))
    });
    let each: Vec<String> = each.collect();
    Some(format!(
        "stored, and not in force until a start without it: {}",
        each.join(", ")
    ))
}

/// `PUT config`.
pub(super) async fn change_config(
    api: Arc<Api>,
    input: Input<Nothing, Nothing, ConfigPatch>,
) -> Result<Json<ConfigAnswer>, Problem> {
    let config = api.lane.set_config(&input.body.0).await?;
    let warning = shadow(&config);
    Ok(Json(ConfigAnswer { warning, config }))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct PolicyAnswer {
    policy: Vec<PolicyRow>,
}

/// `GET policy`: what each error code means to the job, the lane and the breaker.
pub(super) async fn read_policy(api: Arc<Api>, _: Input) -> Result<Json<PolicyAnswer>, Problem> {
    let policy = api.lane.config().policy();
    Ok(Json(PolicyAnswer { policy }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PricesQuery {
    /// The rows of this model alone.
    model: Option<String>,
}

/// `GET prices`: the price list in force, all of it or the rows of one model.
pub(super) async fn read_prices(
    api: Arc<Api>,
    input: Input<Nothing, PricesQuery>,
) -> Result<Json<Prices>, Problem> {
    let mut list = api.lane.config().prices();
    if let Some(model) = input.query.model {
        list.prices
            .retain(|row| model_name::is_model(&model, &row.model));
    }
    Ok(Json(list))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// The first day, inclusive; without it the 30 days up to the last one, or 7 where sessions are asked for.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    start_date: Option<String>,
    /// The last day, inclusive; today without it.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    end_date: Option<String>,
    /// For this model only.
    model: Option<String>,
    /// Of this user only.
    user_id: Option<String>,
    /// Of this session only.
    session: Option<SessionId>,
    /// What each row is about: some of `day` or `month`, `model`, `user`, `key`, `session`; `none` is one row for all.
    /// Without it `day,model`.
    group_by: Option<GroupBy>,
    /// How the answer is written; JSON without it.
    format: Option<Format>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Csv,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatisticsAnswer {
    statistics: Vec<StatisticsRow>,
    /// Calls of that time that are in no row since the call log has them no more; where sessions were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_not_in_log: Option<u64>,
}

/// `GET statistics`.
pub(super) async fn read_statistics(
    api: Arc<Api>,
    input: Input<Nothing, UsageQuery>,
) -> Result<Table<StatisticsAnswer>, Problem> {
    let format = input.query.format;
    let (summed, _) = summed(&api, input.query).await?;
    let Statistics {
        rows,
        calls_not_in_log,
    } = summed;
    Ok(match format {
        Some(Format::Csv) => Table::Csv {
            write: Box::new(move || to_csv(&rows)),
            next_cursor: None,
        },
        _ => Table::Json(Large::of(move || StatisticsAnswer {
            statistics: rows,
            calls_not_in_log,
        })),
    })
}

/// What is asked for, summed up, with the first and the last day that it is of.
pub(super) async fn summed(
    api: &Api,
    query: UsageQuery,
) -> Result<(Statistics, [Day; 2]), Problem> {
    let calendar = api.lane.settings().calendar;
    let group_by = query.group_by.unwrap_or_default();
    let (start, end) = days(&query, group_by, calendar.day(api.clock.now()))?;
    let query = StatisticsQuery {
        filter: UsageFilter {
            start,
            end,
            model: query.model,
            user_id: query.user_id,
        },
        session: query.session,
        group_by,
        calendar,
    };
    Ok((api.lane.statistics(query).await?, [start, end]))
}

/// The days asked for: without an end up to today, without a start the month before the end, or the week where sessions
/// are asked for.
fn days(query: &UsageQuery, group_by: GroupBy, today: Day) -> Result<(Day, Day), Problem> {
    let day = |text: &Option<String>| text.as_deref().and_then(Day::parse);
    let end = day(&query.end_date).unwrap_or(today);
    let first = statistics::first_day(end, group_by, query.session.as_ref());
    let start = day(&query.start_date).unwrap_or(first);
    let wrong = |problem| Err(Problem::of_field(Kind::InvalidQuery, "startDate", problem));
    if start > end {
        return wrong(format!("{start} is after the last day, {end}"));
    }
    let max = limits::STATISTICS_DAYS_MAX;
    if end.0.saturating_sub(start.0) >= max {
        return wrong(format!("{start} to {end} are more than {max} days"));
    }
    Ok((start, end))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct QueueQuery {
    /// `newest`, or `service`: the jobs that wait, in the order in which they will go, on one page; jobs that
    /// wait for other jobs, for a budget or for an operator have no place in it.
    order: Option<QueueOrder>,
    #[serde(flatten)]
    filter: JobFilter,
    #[serde(flatten)]
    page: Page,
}

/// In which order jobs are listed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum QueueOrder {
    #[default]
    Newest,
    Service,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueAnswer {
    queue: Vec<JobView>,
    /// How many match, not only on this page.
    total: u64,
    next_cursor: NextCursor,
}

/// `GET queue`.
pub(super) async fn read_queue(
    api: Arc<Api>,
    input: Input<Nothing, QueueQuery>,
) -> Result<Large<QueueAnswer>, Problem> {
    let QueueQuery {
        order,
        filter,
        page,
    } = input.query;
    let found = match order.unwrap_or_default() {
        QueueOrder::Newest => api.lane.jobs(filter, page.cursor(), page.limit()).await?,
        QueueOrder::Service if page.cursor().is_some() => {
            let problem = "is for order=newest; the order of service is one page";
            return Err(Problem::of_field(Kind::InvalidQuery, "cursor", problem));
        }
        QueueOrder::Service => api.lane.jobs_in_service_order(filter, page.limit()).await?,
    };
    let (total, next_cursor) = (found.total, found.cursor.into());
    let queue = Listed::of(&api, found, input.principal.audience()).await;
    Ok(Large::of(move || QueueAnswer {
        queue: queue.views(),
        total,
        next_cursor,
    }))
}

/// The job of a path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobPath {
    /// The job's id, as in the answer to its submission.
    pub(super) id: JobId,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct JobAnswer {
    job: JobView,
}

/// `GET queue/{id}`: the job whole, with its attempts.
pub(super) async fn read_job(
    api: Arc<Api>,
    input: Input<JobPath>,
) -> Result<Large<JobAnswer>, Problem> {
    let detail = api.lane.job(input.path.id).await?;
    let (chars, audience) = (api.preview_chars, input.principal.audience());
    let whole = audience == Audience::Owner;
    Ok(Large::of(move || JobAnswer {
        job: with_attempts(detail, chars, whole, audience),
    }))
}

/// A job with its attempts.
fn with_attempts(detail: JobDetail, chars: usize, whole: bool, audience: Audience) -> JobView {
    let excerpt = Excerpt::of(&detail.record, chars);
    let attempts = detail.attempts.into_iter();
    let attempts = attempts.map(|call| CallView::new(call, Some(&excerpt)));
    let attempts = attempts.collect();
    let view = if whole {
        JobView::whole(detail.record)
    } else {
        JobView::preview(detail.record.job, &excerpt, audience)
    };
    view.with_attempts(attempts).with_wait(detail.wait_reason)
}

/// `POST retry/{id}`.
pub(super) async fn retry(api: Arc<Api>, input: Input<JobPath>) -> Result<Json<Success>, Problem> {
    api.lane.retry(input.path.id).await?;
    Ok(Success::done())
}

/// `POST cancel/{id}`, for operators and programs.
pub(super) async fn cancel(api: Arc<Api>, input: Input<JobPath>) -> Result<Json<Success>, Problem> {
    api.check_own(&input.principal, input.path.id).await?;
    api.lane.cancel(input.path.id).await?;
    Ok(Success::done())
}

/// `POST erase/{id}`.
pub(super) async fn erase(api: Arc<Api>, input: Input<JobPath>) -> Result<Json<Success>, Problem> {
    api.lane.forget(input.path.id).await?;
    Ok(Success::done())
}

/// What of failed jobs can be asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false), transform = without_status)]
pub(super) struct LettersQuery {
    #[serde(flatten)]
    filter: JobFilter,
    #[serde(flatten)]
    page: Page,
}

/// They are failed, all of them.
fn without_status(schema: &mut Schema) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    if let Some(properties) = properties {
        properties.remove("status");
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LettersAnswer {
    dead_letters: Vec<JobView>,
    /// How many match, not only on this page.
    total: u64,
    next_cursor: NextCursor,
}

/// `GET dead-letters`: the failed jobs, newest first, each with its attempts.
pub(super) async fn dead_letters(
    api: Arc<Api>,
    input: Input<Nothing, LettersQuery>,
) -> Result<Large<LettersAnswer>, Problem> {
    let LettersQuery { filter, page } = input.query;
    let found = api.lane.dead_letters(filter, page.cursor(), page.limit());
    let found = found.await?;
    let (chars, audience) = (api.preview_chars, input.principal.audience());
    Ok(Large::of(move || {
        let letters = found.letters.into_iter();
        LettersAnswer {
            dead_letters: letters
                .map(|detail| with_attempts(detail, chars, false, audience))
                .collect(),
            total: found.total,
            next_cursor: found.cursor.into(),
        }
    }))
}

/// The lane at this moment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Metrics")]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricsAnswer {
    /// Calls in flight.
    current_concurrency: usize,
    /// Jobs that wait: for their turn, for a retry, or for their time.
    queue_length: u64,
    recent_calls: Vec<CallView>,
    #[serde(flatten)]
    metrics: Metrics,
    active_alerts: Vec<Alert>,
    alerts: AlertCounts,
    server: ServerFigures,
}

/// How many alerts are active, by their rules.
#[derive(Serialize, JsonSchema)]
struct AlertCounts {
    active: BTreeMap<String, usize>,
}

impl MetricsAnswer {
    pub(super) fn new(
        metrics: Metrics,
        recent_calls: Vec<CallView>,
        active_alerts: Vec<Alert>,
        rules: &AlertRules,
        server: ServerFigures,
    ) -> Self {
        let of = |rule: &String| active_alerts.iter().filter(|a| a.key.rule == *rule).count();
        let active = rules.0.keys().map(|rule| (rule.clone(), of(rule)));
        let alerts = AlertCounts {
            active: active.collect(),
        };
        Self {
            current_concurrency: metrics.lane.in_flight,
            queue_length: metrics.jobs.pending,
            recent_calls,
            metrics,
            active_alerts,
            alerts,
            server,
        }
    }
}

/// `GET metrics`.
pub(super) async fn metrics(api: Arc<Api>, _: Input) -> Result<Json<MetricsAnswer>, Problem> {
    let mut metrics = api.lane.metrics().await?;
    let mut calls = std::mem::take(&mut metrics.recent_calls);
    calls.truncate(limits::RECENT_CALLS_SHOWN);
    let excerpts = excerpts_of(&api, &calls).await;
    let calls = shown(calls, &excerpts);
    let rules = api.lane.config().config.alerts.rules;
    let server = api.bounds.figures(api.log.dropped());
    let answer = MetricsAnswer::new(metrics, calls, api.lane.alerts().active, &rules, server);
    Ok(Json(answer))
}

/// What calls show of the jobs that are still there. One at a time: they may be large.
pub(super) async fn excerpts_of(api: &Api, calls: &[CallRecord]) -> BTreeMap<JobId, Excerpt> {
    let (mut excerpts, chars) = (BTreeMap::new(), api.preview_chars);
    for call in calls {
        if excerpts.contains_key(&call.job_id) {
            continue;
        }
        let Ok(detail) = api.lane.job(call.job_id).await else {
            continue;
        };
        let making = tokio::task::spawn_blocking(move || Excerpt::of(&detail.record, chars));
        if let Ok(excerpt) = making.await {
            excerpts.insert(call.job_id, excerpt);
        }
    }
    excerpts
}

/// Calls with what is known of their jobs' bodies.
pub(super) fn shown(calls: Vec<CallRecord>, excerpts: &BTreeMap<JobId, Excerpt>) -> Vec<CallView> {
    let view = |call: CallRecord| {
        let excerpt = excerpts.get(&call.job_id);
        CallView::new(call, excerpt)
    };
    calls.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_not_in_force_says_so_first() {
        let config = serde_json::json!({"model": "glm-5",
            "shadowed": [{"field": "model", "origin": "flag --model"}]});
        let warning = shadow(&config);
        let answer = serde_json::to_string(&ConfigAnswer { warning, config }).unwrap();
        let first = r#"{"warning":"stored, and not in force until a start without it: model is fixed by flag --model","#;
        assert!(answer.starts_with(first), "{answer}");
        assert_eq!(shadow(&serde_json::json!({"model": "glm-5"})), None);
    }

    fn range(start: Option<&str>, end: Option<&str>) -> Result<String, u16> {
        let query = UsageQuery {
            start_date: start.map(str::to_owned),
            end_date: end.map(str::to_owned),
            ..UsageQuery::default()
        };
        let group_by = GroupBy::default();
        days(&query, group_by, Day::parse("2026-11-23").unwrap())
            .map(|(start, end)| format!("{start} {end}"))
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn missing_dates_mean_the_last_thirty_days() {
        let today = Some("2026-11-23");
        assert_eq!(range(None, None).unwrap(), "2026-10-25 2026-11-23");
        assert_eq!(range(today, None).unwrap(), "2026-11-23 2026-11-23");
        assert_eq!(
            range(None, Some("2026-01-30")).unwrap(),
            "2026-01-01 2026-01-30"
        );
    }

    #[test]
    fn a_range_that_is_empty_or_endless_is_refused() {
        assert_eq!(range(Some("2026-11-24"), None), Err(400));
        assert_eq!(range(Some("2026-02-02"), Some("2026-02-01")), Err(400));
        assert_eq!(range(Some("2000-01-01"), None), Err(400));
        assert!(range(Some("2016-11-16"), None).is_ok(), "3660 days");
        assert_eq!(range(Some("2016-11-15"), None), Err(400), "3661 days");
    }
}
