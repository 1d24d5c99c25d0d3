//! What a receiver reads: `{type, timestamp, data}`, the data in the words of the API.

use std::sync::Arc;

use bytes::Bytes;
use onelane_core::model::{
    Alert, AlertKey, ClearedAlert, Delivery, Failure, Job, JobId, JobStatus, Notice, ScopedHold,
    Timestamp,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Body<T> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: String,
    data: T,
}

/// How notices become bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bodies {
    /// Whether the end of a job is told with GLM's answer.
    pub(crate) include_result: bool,
}

impl Bodies {
    /// The job whose answer is a part of the body. One that failed has none of its own: what it has by
    /// now is that of a later retry, and told with its end.
    pub(crate) fn result_of(self, delivery: &Delivery) -> Option<JobId> {
        match &delivery.notice {
            Notice::JobEnded(job) if self.include_result && job.status == JobStatus::Completed => {
                Some(job.id)
            }
            _ => None,
        }
    }

    /// The body: the same for every try, since GLM's answer is kept until the last.
    pub(crate) fn write(self, delivery: &Delivery, result: Option<Arc<RawValue>>) -> Bytes {
        let notice = &delivery.notice;
        let (event, at) = (notice.event(), delivery.created_at.to_rfc3339());
        match notice {
            Notice::JobEnded(job) => write(event, at, JobData::new(job, result.as_deref())),
            Notice::AlertRaised(alert) => write(event, at, AlertView::active(alert)),
            Notice::AlertCleared(past) => write(event, at, AlertView::past(past)),
            Notice::Test => write(event, at, serde_json::json!({})),
        }
    }
}

fn write(event: &'static str, timestamp: String, data: impl Serialize) -> Bytes {
    let body = Body {
        event,
        timestamp,
        data,
    };
    // Plain data: writing it can't fail.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobData<'a> {
    id: JobId,
    status: JobStatus,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    served_by: Option<&'a str>,
    attempt_count: u32,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    processed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
}

impl<'a> JobData<'a> {
    fn new(job: &'a Job, result: Option<&'a RawValue>) -> Self {
        Self {
            id: job.id,
            status: job.status,
            user_id: &job.user_id,
            content_id: job.content_id.as_deref(),
            model: &job.model,
            served_by: job.served_by.as_deref(),
            attempt_count: job.attempts.0,
            created_at: job.created_at,
            processed_at: job.processed_at,
            metadata: job.metadata.as_deref(),
            error: job.error.as_ref(),
            result,
        }
    }
}

/// An alert as clients and receivers see it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
#[serde(rename_all = "camelCase")]
pub(crate) struct AlertView {
    rule: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    message: String,
    #[schemars(with = "f64")]
    level: Box<RawValue>,
    #[schemars(with = "f64")]
    threshold: Box<RawValue>,
    unit: String,
    /// The hold that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<ScopedHold>,
    raised_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cleared_at: Option<Timestamp>,
}

/// The hold that an alert is about, as it was when the alert was raised.
fn held(alert: &Alert) -> Option<ScopedHold> {
    match (&alert.key, &alert.hold) {
        (AlertKey::Hold(key), Some(hold)) => Some((key.scope.clone(), hold).into()),
        _ => None,
    }
}

impl AlertView {
    /// One that is active.
    pub(crate) fn active(alert: &Alert) -> Self {
        let number = |level| {
            let decimal = alert.key.decimal(level);
            // An exact decimal is a JSON number.
            RawValue::from_string(decimal).unwrap_or_else(|_| RawValue::NULL.to_owned())
        };
        Self {
            rule: alert.key.rule(),
            subject: alert.key.subject().map(str::to_owned),
            message: alert.to_string(),
            level: number(alert.level),
            threshold: number(alert.threshold),
            unit: alert.key.unit(),
            hold: held(alert),
            raised_at: alert.raised_at,
            cleared_at: None,
        }
    }

    /// One that is over.
    pub(crate) fn past(past: &ClearedAlert) -> Self {
        Self {
            cleared_at: Some(past.cleared_at),
            ..Self::active(&past.alert)
        }
    }
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{Currency, DeliveryId, HeldKey, Hold, HoldKind, HoldScope, Target};
    use onelane_core::notify::delivery::made;
    use onelane_core::testing::sample::{self, START};
    use serde_json::{Value, json};

    use super::*;

    fn body(notice: Notice, result: Option<Arc<RawValue>>) -> Value {
        let target = Target::Endpoint("ops".to_owned());
        let delivery = made(DeliveryId(1), "a", notice, target, START);
        let bodies = Bodies {
            include_result: true,
        };
        serde_json::from_slice(&bodies.write(&delivery, result)).unwrap()
    }

    #[test]
    fn the_end_of_a_job_is_told_in_the_words_of_the_api() {
        let mut job = sample::new_job(1).job;
        job.status = JobStatus::Failed;
        job.error = Some(sample::failure());
        job.processed_at = Some(START.plus_ms(5));
        job.content_id = Some("page 3".to_owned());
        job.metadata = RawValue::from_string(r#"{"n":1.50}"#.to_owned()).ok();
        let told = body(Notice::JobEnded(Box::new(job)), None);
        assert_eq!(
            told,
            json!({
                "type": "job.failed",
                "timestamp": "2026-11-23T00:00:00.000Z",
                "data": {
                    "id": sample::job_id(1).to_string(),
                    "status": "failed",
                    "userId": "ada",
                    "contentId": "page 3",
                    "model": "glm-4.7",
                    "attemptCount": 0,
                    "createdAt": "2026-11-23T00:00:00.000Z",
                    "processedAt": "2026-11-23T00:00:00.005Z",
                    "metadata": {"n": 1.50},
                    "error": {"class": "server_transient", "code": told["data"]["error"]["code"],
                              "message": "connection reset", "maybeBilled": false},
                },
            })
        );
        let mut done = sample::new_job(2).job;
        done.status = JobStatus::Completed;
        let told = body(Notice::JobEnded(Box::new(done)), Some(sample::answer(2)));
        assert_eq!(told["data"]["result"]["id"], "a2");
    }

    #[test]
    fn the_answer_is_told_with_a_success_alone() {
        let bodies = Bodies {
            include_result: true,
        };
        let result_of = |status| {
            let mut job = sample::new_job(1).job;
            job.status = status;
            let notice = Notice::JobEnded(Box::new(job));
            let target = Target::Endpoint("ops".to_owned());
            bodies.result_of(&made(DeliveryId(1), "a", notice, target, START))
        };
        assert_eq!(result_of(JobStatus::Completed), Some(sample::job_id(1)));
        // It may be retried, and completed, before its failure is told.
        assert_eq!(result_of(JobStatus::Failed), None);
        assert_eq!(result_of(JobStatus::Cancelled), None);
    }

    #[test]
    fn an_alert_is_told_with_exact_numbers() {
        let alert = Alert {
            key: AlertKey::Spend(Currency::Usd),
            raised_at: START,
            level: 1_500_000_000,
            threshold: 1_000_000_000,
            hold: None,
        };
        let past = ClearedAlert {
            alert,
            cleared_at: START.plus_ms(1),
        };
        let told = body(Notice::AlertCleared(past), None);
        assert_eq!(told["type"], "alert.cleared");
        assert_eq!(told["data"]["subject"], "USD");
        assert_eq!(told["data"]["level"], 1.5);
        assert_eq!(told["data"]["clearedAt"], "2026-11-23T00:00:00.001Z");
    }

    #[test]
    fn an_alert_about_a_hold_says_what_is_held_and_why() {
        let (kind, scope) = (HoldKind::Quota, HoldScope::Model("glm-5".to_owned()));
        let alert = Alert {
            hold: Some(Hold {
                kind,
                code: "1308".to_owned(),
                message: "used up".to_owned(),
                since: START,
                until: Some(START.plus_ms(1)),
            }),
            ..sample::alert(AlertKey::Hold(HeldKey { kind, scope }))
        };
        let told = body(Notice::AlertRaised(alert), None);
        assert_eq!(told["data"]["subject"], "quota");
        assert_eq!(
            told["data"]["hold"],
            json!({"scope": "model", "name": "glm-5", "kind": "quota", "code": "1308",
                "message": "used up",
                "since": "2026-11-23T00:00:00.000Z", "until": "2026-11-23T00:00:00.001Z"})
        );
        assert_eq!(
            told["data"]["message"],
            "model glm-5 is held (quota): 1308 used up"
        );
    }
}
