//! What a receiver reads: `{type, timestamp, data}`, the data in the words of the API.

use std::sync::Arc;

use bytes::Bytes;
use onelane_core::model::{Delivery, EndedJob, JobId, JobStatus, Notice, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Body<T> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: Timestamp,
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
        let (event, at) = (notice.event(), delivery.created_at);
        match notice {
            Notice::JobEnded(job) => {
                let result = result.as_deref();
                write(event, at, JobData { job, result })
            }
            Notice::AlertRaised(alert) => write(event, at, alert),
            Notice::AlertCleared(over) => write(event, at, over),
            Notice::Test => write(event, at, serde_json::json!({})),
        }
    }
}

fn write(event: &'static str, timestamp: Timestamp, data: impl Serialize) -> Bytes {
    let body = Body {
        event,
        timestamp,
        data,
    };
    // Plain data: writing it can't fail.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

/// The end of a job, with GLM's answer.
#[derive(Serialize)]
struct JobData<'a> {
    #[serde(flatten)]
    job: &'a EndedJob,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use onelane_core::model::{
        Alert, AlertKey, ClearedAlert, DeliveryId, Hold, HoldKind, HoldScope, ScopedHold, Target,
        Wait, Watched,
    };
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
        job.session = Some("chat-1".parse().unwrap());
        job.metadata = RawValue::from_string(r#"{"n":1.50}"#.to_owned()).ok();
        let told = body(Notice::JobEnded(Box::new((&job).into())), None);
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
                    "session": "chat-1",
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
        let told = body(
            Notice::JobEnded(Box::new((&done).into())),
            Some(sample::answer(2).into_json()),
        );
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
            let notice = Notice::JobEnded(Box::new((&job).into()));
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
            on: Watched::Spend,
            level: 1_500_000_000,
            unit: "USD/h".to_owned(),
            ..sample::alert(AlertKey::about("spend", "USD"))
        };
        let over = ClearedAlert {
            alert,
            cleared_at: START.plus_ms(1),
        };
        let told = body(Notice::AlertCleared(over), None);
        assert_eq!(told["type"], "alert.cleared");
        assert_eq!(
            told["data"],
            json!({"rule": "spend", "subject": "USD", "on": "spend", "message": "spend USD is bad",
                "level": 1.5, "threshold": 1, "unit": "USD/h",
                "raisedAt": "2026-11-23T00:00:00.000Z", "clearedAt": "2026-11-23T00:00:00.001Z"})
        );
    }

    #[test]
    fn an_alert_about_a_hold_says_what_is_held_and_why() {
        let scope = HoldScope::Model("glm-5".to_owned());
        let hold = Hold {
            kind: HoldKind::Quota,
            code: "1308".to_owned(),
            message: "used up".to_owned(),
            since: START,
            until: Some(Wait::from(START, 1)),
        };
        let alert = Alert {
            hold: Some(ScopedHold { scope, hold }),
            ..sample::alert(AlertKey::about("hold", "quota of model glm-5"))
        };
        let told = body(Notice::AlertRaised(alert), None);
        assert_eq!(
            told["data"]["hold"],
            json!({"scope": "model", "name": "glm-5", "kind": "quota", "code": "1308",
                "message": "used up",
                "since": "2026-11-23T00:00:00.000Z", "until": "2026-11-23T00:00:00.001Z"})
        );
    }
}
