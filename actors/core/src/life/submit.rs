//! The way from a submission to a job: every default is filled in, and what the job may come to is known.

use super::session;
use crate::model::{
    Admission, Job, JobId, NewJob, RequestId, Session, Settings, Submission, SubmissionError,
    Timestamp, model_name,
};
use crate::money::{estimate, worst};

impl NewJob {
    /// The job, if [`Submission::validate`] has nothing against it.
    pub fn of(
        submission: Submission,
        settings: &Settings,
        id: JobId,
        now: Timestamp,
    ) -> Result<Self, SubmissionError> {
        submission.validate(settings)?;
        let spelled = submission.model_in(settings);
        let model = model_name::canonical(&spelled).into_owned();
        let unpriced = !settings.prices.is_priced(&model);
        let estimated_tokens = estimate::tokens(&submission.request, settings.glm.max_tokens);
        let worst = worst::of(&submission.request);
        let session = session::of(&submission, settings.gateway.sessions);
        let told_session = session
            .as_ref()
            .and_then(|session| session.told_as(submission.key_id));
        let mut after = submission.after;
        after.sort_unstable();
        after.dedup();
        let fingerprint = submission
            .idempotency_key
            .as_ref()
            .map(|_| submission.request.fingerprint(&model));
        let job = Job {
            face: submission.request.face(),
            content_id: submission.content_id,
            session: session.map(Session::into_id),
            told_session,
            batch_id: submission.batch_id,
            priority: submission.priority.unwrap_or(0),
            max_retries: submission.max_retries.unwrap_or(settings.retry.max_retries),
            run_at: submission.run_at,
            deadline: submission.deadline.map(|by| by.moment(now)),
            timeout_ms: submission.timeout_ms,
            idempotency_key: submission.idempotency_key,
            // As from a row, which says nothing more of it.
            metadata: submission.metadata.filter(|json| json.get() != "null"),
            // The store keeps those that are not completed.
            waits_for: after.clone(),
            after,
            on_interrupted: submission.on_interrupted,
            bound_to: submission.bound_to,
            key_id: submission.key_id,
            headers: submission.headers,
            trace: submission
                .trace
                .filter(|origin| origin.span().names_a_span()),
            callback_url: submission.callback_url,
            request_id: submission
                .request
                .request_id()
                .as_deref()
                .and_then(RequestId::chosen),
            estimated_tokens,
            worst,
            unpriced,
            spelled: (spelled != model).then_some(spelled),
            ..Job::new(id, submission.user_id, model, now)
        };
        Ok(Self {
            job,
            request: submission.request,
            fingerprint,
            admission: Admission::Open {
                max_queue_jobs: settings.lane.max_queue_jobs,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Currency, PriceRow, PriceTable, SessionId, TraceContext, Unpriced};

    fn submitted(job: Submission, settings: &Settings) -> Result<Job, String> {
        let id = JobId::from_bytes([1; 16]);
        let new = NewJob::of(job, settings, id, Timestamp::default());
        new.map(|new| new.job).map_err(|error| error.to_string())
    }

    fn refused(change: impl FnOnce(&mut Submission)) -> String {
        let mut submission = Submission::prompt("hi").unwrap();
        change(&mut submission);
        submitted(submission, &Settings::default()).unwrap_err()
    }

    #[test]
    fn what_names_nothing_is_left_out_as_a_row_would_leave_it_out() {
        let job = |trace_id, span_id, metadata: &serde_json::Value| {
            let submission = Submission::prompt("hi").unwrap();
            let span = TraceContext::new(trace_id, span_id, true);
            let submission = submission.trace(span).metadata(metadata).unwrap();
            submitted(submission, &Settings::default()).unwrap()
        };
        let null = serde_json::Value::Null;
        for (trace_id, span_id) in [([0; 16], [0; 8]), ([1; 16], [0; 8]), ([0; 16], [2; 8])] {
            let job = job(trace_id, span_id, &null);
            assert!(job.trace.is_none() && job.metadata.is_none());
        }
        let job = job([1; 16], [2; 8], &serde_json::json!([null]));
        assert!(job.trace.is_some());
        assert_eq!(job.metadata.unwrap().get(), "[null]");
    }

    #[test]
    fn a_bad_field_is_named_with_what_would_be_right() {
        let length = "must have 1 to 128 characters";
        let user = refused(|s| s.user_id = String::new());
        assert_eq!(user, format!("userId: {length}"));
        let model = refused(|s| s.model = Some("m".repeat(129)));
        assert_eq!(model, format!("model: {length}"));
        let retries = refused(|s| s.max_retries = Some(101));
        assert_eq!(retries, "maxRetries: must be 0 to 100");
        let timeout = refused(|s| s.timeout_ms = Some(0));
        assert_eq!(
            timeout,
            "timeout: must be 1 to 86400000 milliseconds (a day)"
        );
    }

    #[test]
    fn a_model_without_a_price_is_taken_and_flagged_or_refused_as_configured() {
        let mut prices = PriceTable::new(Currency::Usd);
        let free = PriceRow {
            prompt_from: 0,
            completion_from: 0,
            prompt_to: None,
            input: 0,
            cached_input: 0,
            output: 0,
            ..PriceRow::default()
        };
        prices.add("glm-4.7-flash", free);
        let mut settings = Settings {
            prices: Arc::new(prices),
            ..Settings::default()
        };
        let submit = |settings: &Settings, model: &str| {
            submitted(Submission::prompt("hi").unwrap().model(model), settings)
        };
        assert!(submit(&settings, "glm-9").unwrap().unpriced);
        assert!(!submit(&settings, "glm-4.7-flash").unwrap().unpriced);
        settings.unpriced = Unpriced::Refuse;
        let free = submit(&settings, "glm-4.7-flash").unwrap();
        assert!(!free.unpriced, "free is a price");
        let refused = submit(&settings, "glm-9").unwrap_err();
        let why = "model glm-9 has no price in USD, ";
        assert!(refused.starts_with(why), "{refused}");
        let help = "add its price to money.prices";
        assert!(refused.contains(help), "{refused}");
    }

    #[test]
    fn a_job_is_of_the_session_and_told_of_to_the_place_that_its_submission_names() {
        let session = "s".parse::<SessionId>().unwrap();
        let place = "https://example.com/done".to_owned();
        let mut submission = Submission::prompt("hi").unwrap();
        submission.session = Some(session.clone().into());
        submission.callback_url = Some(place.clone());
        let mut settings = Settings::default();
        settings.callbacks.allowed_hosts = vec!["example.com".to_owned()];
        let job = submitted(submission, &settings).unwrap();
        assert_eq!(
            (job.session, job.callback_url),
            (Some(session), Some(place))
        );
    }

    #[test]
    fn the_model_is_the_submissions_then_the_bodys_then_the_configured() {
        let defaults = Settings::default();
        let model = |job: Submission| submitted(job, &defaults).unwrap().model;
        let body = r#"{"model":"glm-5","messages":[{"role":"user","content":"hi"}]}"#;
        let chat = Submission::chat(body).unwrap();
        assert_eq!(model(chat.clone()), "glm-5");
        assert_eq!(model(chat.model("glm-4.6")), "glm-4.6");
        assert_eq!(model(Submission::prompt("hi").unwrap()), defaults.glm.model);
    }
}
