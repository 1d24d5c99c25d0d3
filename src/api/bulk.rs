//! `POST retry`, `cancel` and `reprioritise` of many jobs: all that a filter leaves. And `reprioritise` of
//! one, whose body is a part of theirs.

use onelane_actors::ports::{JobFilter, MoreFilter};
use onelane_core::model::limits as bounds;
use onelane_core::model::{FailureClass, JobId, JobStatus};
use serde::Serialize;
use serde_json::value::RawValue;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::Body;
use super::fields::{Fields, Object};
use super::problem::{Fault, Kind, Problem};
use super::{Api, limits, reply};
use crate::orchestrator::Selection;

/// How many jobs were changed, or, in a dry run, would be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    count: u64,
    dry_run: bool,
}

fn changed(count: u64, dry_run: bool) -> Response {
    reply::json(StatusCode::OK, &Changed { count, dry_run })
}

/// `POST retry`.
pub(super) async fn retry(api: &Api, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let mut form = Form::read(&body.json(headers).await?)?;
    let (jobs, dry_run) = form.selection();
    form.finish()?;
    let count = api.lane.retry_all(jobs, dry_run).await?;
    Ok(changed(count, dry_run))
}

/// `POST cancel`.
pub(super) async fn cancel(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut form = Form::read(&body.json(headers).await?)?;
    let (jobs, dry_run) = form.selection();
    form.finish()?;
    let count = api.lane.cancel_all(jobs, dry_run).await?;
    Ok(changed(count, dry_run))
}

/// `POST reprioritise`.
pub(super) async fn reprioritise(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut form = Form::read(&body.json(headers).await?)?;
    let (jobs, dry_run) = form.selection();
    let priority = form.priority();
    form.finish()?;
    let count = api.lane.reprioritise_all(jobs, priority, dry_run).await?;
    Ok(changed(count, dry_run))
}

/// `POST reprioritise/{id}`.
pub(super) async fn reprioritise_one(
    api: &Api,
    id: JobId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut form = Form::read(&body.json(headers).await?)?;
    let priority = form.priority();
    form.finish()?;
    api.lane.reprioritise(id, priority).await?;
    Ok(reply::success())
}

/// The body of such a request. What a fault leaves open counts only after [`Form::finish`], which tells
/// of it.
struct Form(Fields);

impl Form {
    fn read(raw: &RawValue) -> Result<Self, Problem> {
        let object = Object::read(raw)
            .map_err(|problem| Problem::new(Kind::InvalidBody, format!("the body {problem}")))?;
        Ok(Self(Fields::new(String::new(), object)))
    }

    fn finish(self) -> Result<(), Problem> {
        let faults: Result<(), Vec<Fault>> = self.0.finish();
        faults.map_err(|faults| Problem::faults(Kind::InvalidField, faults))
    }

    /// The new priority, which must be there.
    fn priority(&mut self) -> i32 {
        if !self.0.has("priority") {
            self.0.fault("priority", "is missing; say the new priority");
        }
        let priority = self.0.integer("priority", i32::MIN..=i32::MAX);
        priority.unwrap_or_default()
    }

    /// `filter` or `all`, one of them, and `dryRun`.
    fn selection(&mut self) -> (Selection, bool) {
        let filter = self.0.object("filter");
        let all = self.0.boolean("all").unwrap_or(false);
        let dry_run = self.0.boolean("dryRun").unwrap_or(false);
        let selection = match filter {
            Some(_) if all => {
                self.0.fault("all", "can't stand beside a filter; give one");
                Selection::All
            }
            Some(object) => self.filter(object),
            None if all => Selection::All,
            None => {
                if !self.0.has("filter") {
                    let problem = "is missing; to mean every job say {\"all\": true}";
                    self.0.fault("filter", problem);
                }
                Selection::All
            }
        };
        (selection, dry_run)
    }

    fn filter(&mut self, object: Object) -> Selection {
        let mut inner = Fields::new("filter.".to_owned(), object);
        let statuses = JobStatus::ALL.map(|status| (status.name(), status));
        let classes = FailureClass::ALL.map(|class| (class.name(), class));
        let any = i32::MIN..=i32::MAX;
        let filter = JobFilter {
            status: inner.choice("status", &statuses),
            user_id: inner.text("userId", bounds::USER_ID_CHARS_MAX),
            model: inner.text("model", bounds::MODEL_CHARS_MAX),
            more: MoreFilter {
                ids: inner.job_ids("ids", limits::NAMED_JOBS_MAX),
                content_id: inner.text("contentId", bounds::CONTENT_ID_CHARS_MAX),
                error_code: inner.text("errorCode", limits::ERROR_CODE_CHARS_MAX),
                error_class: inner.choice("errorClass", &classes),
                parked: inner.boolean("parked"),
                created_from: inner.moment("createdFrom"),
                created_before: inner.moment("createdBefore"),
                priority_min: inner.integer("priorityMin", any.clone()),
                priority_max: inner.integer("priorityMax", any),
            },
        };
        match inner.finish() {
            Err(faults) => self.0.extend(faults),
            Ok(()) if filter == JobFilter::default() => {
                let problem = "is empty; to mean every job say {\"all\": true}";
                self.0.fault("filter", problem);
            }
            Ok(()) => {}
        }
        Selection::Matching(filter)
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::Timestamp;

    use super::*;
    use crate::api::tests::sample;

    fn parse(json: &str) -> Result<(Selection, bool), Problem> {
        let mut form = Form::read(serde_json::from_str(json).unwrap())?;
        let read = form.selection();
        form.finish().map(|()| read)
    }

    #[test]
    fn every_part_of_a_filter_arrives() {
        let json = format!(
            r#"{{"filter":{{"status":"failed","userId":"u","model":"m","ids":["{}"],
            "contentId":"c","errorCode":"1234","errorClass":"server_transient","parked":false,
            "createdFrom":"2026-11-23T08:00:00Z","createdBefore":"2026-11-24T00:00:00+08:00",
            "priorityMin":-5,"priorityMax":5}},"dryRun":true}}"#,
            sample::id(1)
        );
        let (selection, dry_run) = parse(&json).unwrap();
        assert!(dry_run);
        let want = JobFilter {
            status: Some(JobStatus::Failed),
            user_id: Some("u".to_owned()),
            model: Some("m".to_owned()),
            more: MoreFilter {
                ids: Some(vec![sample::id(1)]),
                content_id: Some("c".to_owned()),
                error_code: Some("1234".to_owned()),
                error_class: Some(FailureClass::ServerTransient),
                parked: Some(false),
                created_from: Some(sample::NOW),
                created_before: Timestamp::parse_rfc3339("2026-11-23T16:00:00Z"),
                priority_min: Some(-5),
                priority_max: Some(5),
            },
        };
        assert_eq!(selection, Selection::Matching(want));
    }

    #[test]
    fn nobody_means_every_job_by_mistake() {
        assert_eq!(parse(r#"{"all":true}"#).unwrap(), (Selection::All, false));
        let check = |json: &str, want: &str| {
            let problem = parse(json).unwrap_err();
            let body = serde_json::to_value(problem.body()).unwrap();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.starts_with(want), "{json}: {detail}");
        };
        check("{}", "filter: is missing; to mean every job say");
        check(r#"{"all":false}"#, "filter: is missing");
        check(r#"{"filter":null}"#, "filter: is missing");
        check(r#"{"filter":{}}"#, "filter: is empty; to mean every job");
        check(
            r#"{"filter":{"userId":null}}"#,
            "filter: is empty; to mean every job",
        );
        check(
            r#"{"filter":{"userId":"u"},"all":true}"#,
            "all: can't stand beside a filter",
        );
        check(r#"{"filter":[]}"#, "filter: must be a JSON object");
        check(
            r#"{"filter":{"user":"u"}}"#,
            "filter.user: is unknown; the fields are status, userId",
        );
        check(
            r#"{"filter":{"status":"dead"}}"#,
            "filter.status: must be one of pending, processing",
        );
        check(
            r#"{"filter":{"ids":["1"]}}"#,
            "filter.ids: 1 is not a job id",
        );
        check(
            r#"{"all":true,"dryRun":"no"}"#,
            "dryRun: must be true or false",
        );
        check(
            r#"{"all":true,"priority":1}"#,
            "priority: is unknown; the fields are filter, all, dryRun",
        );
    }
}
