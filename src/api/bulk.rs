//! `POST retry`, `cancel` and `reprioritise` of many jobs: all that a filter leaves. And `reprioritise` of
//! one.

use std::sync::Arc;

use onelane_actors::ports::JobFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::admin::JobPath;
use super::answer::{Json, Success};
use super::input::{Given, Ignored, Input, Nothing};
use super::problem::{Kind, Problem};
use crate::orchestrator::Selection;

/// How many were changed, or, in a dry run, would be.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    pub(super) count: u64,
    pub(super) dry_run: bool,
}

/// Which of many are meant, `filter` or `all`, one of them, and what they get.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct Many<F, W = Ignored> {
    /// Those that it leaves; it must narrow something.
    filter: Option<F>,
    /// `true`: every one. Has to be said.
    all: Option<bool>,
    /// Changes nothing, and answers how many it would be.
    dry_run: Option<bool>,
    #[serde(flatten)]
    what: W,
}

/// Which are meant, once that is certain.
pub(super) struct Meant<F, W> {
    /// `None`: every one.
    pub(super) filter: Option<F>,
    pub(super) dry_run: bool,
    pub(super) what: W,
}

impl<F: Default + PartialEq, W> Many<F, W> {
    /// The filter, or nothing where everything is meant: nobody means that by mistake. `every` is how it is
    /// said what is meant.
    pub(super) fn meant(self, every: &str) -> Result<Meant<F, W>, Problem> {
        let wrong = |field, problem| Err(Problem::of_field(Kind::InvalidField, field, problem));
        let say = |what| format!("{what}; to mean {every} say {{\"all\": true}}");
        let filter = match (self.filter, self.all.unwrap_or(false)) {
            (Some(_), true) => {
                return wrong("all", "can't stand beside a filter; give one".to_owned());
            }
            (None, false) => return wrong("filter", say("is missing")),
            (Some(filter), false) if filter == F::default() => {
                return wrong("filter", say("is empty"));
            }
            (filter, _) => filter,
        };
        Ok(Meant {
            filter,
            dry_run: self.dry_run.unwrap_or(false),
            what: self.what,
        })
    }
}

/// What a job gets.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct NewPriority {
    /// The new priority.
    priority: i32,
}

type Jobs<W = Ignored> = Input<Nothing, Nothing, Given<Many<JobFilter, W>>>;

/// The jobs that are meant, whether nothing is to be changed, and what they get.
fn meant<W>(input: Jobs<W>) -> Result<(Selection, bool, W), Problem> {
    let Given(many) = input.body;
    let meant = many.meant("every job")?;
    let jobs = meant.filter.map_or(Selection::All, Selection::Matching);
    Ok((jobs, meant.dry_run, meant.what))
}

/// `POST retry`.
pub(super) async fn retry(api: Arc<Api>, input: Jobs) -> Result<Json<Changed>, Problem> {
    let (jobs, dry_run, _) = meant(input)?;
    let count = api.lane.retry_all(jobs, dry_run).await?;
    Ok(Json(Changed { count, dry_run }))
}

/// `POST cancel`.
pub(super) async fn cancel(api: Arc<Api>, input: Jobs) -> Result<Json<Changed>, Problem> {
    let (jobs, dry_run, _) = meant(input)?;
    let count = api.lane.cancel_all(jobs, dry_run).await?;
    Ok(Json(Changed { count, dry_run }))
}

/// `POST reprioritise`.
pub(super) async fn reprioritise(
    api: Arc<Api>,
    input: Jobs<NewPriority>,
) -> Result<Json<Changed>, Problem> {
    let (jobs, dry_run, NewPriority { priority }) = meant(input)?;
    let count = api.lane.reprioritise_all(jobs, priority, dry_run).await?;
    Ok(Json(Changed { count, dry_run }))
}

/// `POST reprioritise/{id}`.
pub(super) async fn reprioritise_one(
    api: Arc<Api>,
    input: Input<JobPath, Nothing, Given<NewPriority>>,
) -> Result<Json<Success>, Problem> {
    let Given(NewPriority { priority }) = input.body;
    api.lane.reprioritise(input.path.id, priority).await?;
    Ok(Success::done())
}

#[cfg(test)]
mod tests {
    use onelane_actors::ports::MoreFilter;
    use onelane_actors::testing::sample;
    use onelane_core::model::{BatchId, FailureClass, JobStatus, KeyId, Timestamp};

    use super::super::input::Payload as _;
    use super::*;

    fn parse(json: &str) -> Result<(Selection, bool), Problem> {
        let reader = <Given<Many<JobFilter>> as super::super::input::Payload>::reader();
        let body = serde_json::from_str(json).unwrap();
        let Given(many) = Given::<Many<JobFilter>>::read(&reader, Some(body))?;
        let Meant {
            filter, dry_run, ..
        } = many.meant("every job")?;
        let jobs = filter.map_or(Selection::All, Selection::Matching);
        Ok((jobs, dry_run))
    }

    #[test]
    fn every_part_of_a_filter_arrives() {
        let json = format!(
            r#"{{"filter":{{"status":"failed","userId":"u","model":"m","ids":["{}"],
            "contentId":"c","session":"s","batchId":"batch_0000000000000004","keyId":"ol-0000000000000005","errorCode":"1234","errorClass":"server_transient","parked":false,"delayed":true,
            "createdFrom":"2026-11-23T08:00:00Z","createdBefore":"2026-11-24T00:00:00+08:00",
            "priorityMin":-5,"priorityMax":5}},"dryRun":true}}"#,
            sample::job_id(1)
        );
        let (selection, dry_run) = parse(&json).unwrap();
        assert!(dry_run);
        let want = JobFilter {
            status: Some(JobStatus::Failed),
            user_id: Some("u".to_owned()),
            model: Some("m".to_owned()),
            more: MoreFilter {
                ids: Some(vec![sample::job_id(1)]),
                content_id: Some("c".to_owned()),
                session: Some("s".parse().unwrap()),
                batch_id: Some(BatchId::new(4)),
                key_id: Some(KeyId::new(5)),
                error_code: Some("1234".to_owned()),
                error_class: Some(FailureClass::ServerTransient),
                parked: Some(false),
                delayed: Some(true),
                created_from: Timestamp::parse_rfc3339("2026-11-23T08:00:00Z"),
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
            "filter.user: is unknown; did you mean userId?",
        );
        check(
            r#"{"filter":{"status":"dead"}}"#,
            "filter.status: must be one of pending, processing",
        );
        check(
            r#"{"filter":{"ids":["1"]}}"#,
            "filter.ids[0]: must be a UUID",
        );
        check(
            r#"{"all":true,"dryRun":"no"}"#,
            "dryRun: must be true or false",
        );
        check(
            r#"{"all":true,"priority":1}"#,
            "priority: is unknown; there are all, dryRun, filter",
        );
    }
}
