//! From a line that was read to a job that can be submitted.

use onelane::api::dialect::Asked;
use onelane::model::BatchId;
use onelane::orchestrator::Submission;

use super::identity::{LineId, Name, Source};

/// Values for lines that leave them out.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// Whose jobs they are.
    pub(crate) user_id: String,
    /// How urgent they are.
    pub(crate) priority: i32,
    /// The model that the lane gives them.
    pub(crate) model: String,
    /// Whether they name it, since the lane would give them another one.
    pub(crate) names_model: bool,
    /// The batch that they belong to.
    pub(crate) batch: Option<BatchId>,
}

/// A line that is about to be submitted.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Its digest and label.
    pub(crate) name: Name,
    /// Its job.
    pub(crate) submission: Submission,
}

impl Defaults {
    /// A line that is to be submitted, of this input.
    pub(crate) fn ready(&self, source: Source, name: Name, asked: Asked) -> Ready {
        let names_model = asked.model.is_some() || asked.request.model().is_some();
        let default_model = (!names_model).then_some(self.model.as_str());
        let line = name.digest;
        let key = LineId { source, line }.idempotency_key(default_model);
        let mut submission = self.submission(Some(key), asked);
        // So that logs and lists name the line.
        let label = || name.label.to_string();
        submission.content_id.get_or_insert_with(label);
        Ready { name, submission }
    }

    /// The job of a line.
    pub(crate) fn submission(&self, idempotency_key: Option<String>, asked: Asked) -> Submission {
        let by_default = || self.names_model && asked.request.model().is_none();
        let model = match asked.model {
            None if by_default() => Some(self.model.clone()),
            model => model,
        };
        Submission {
            idempotency_key,
            request: asked.request,
            model,
            user_id: asked.user_id.unwrap_or_else(|| self.user_id.clone()),
            content_id: asked.content_id,
            session: asked.session.map(Into::into),
            batch_id: self.batch,
            priority: Some(asked.priority.unwrap_or(self.priority)),
            max_retries: asked.max_retries,
            run_at: None,
            deadline: asked.deadline.map(Into::into),
            bound_to: None,
            headers: Default::default(),
            trace: None,
            timeout_ms: asked.timeout_ms,
            after: Vec::new(),
            on_interrupted: asked.on_interrupted,
            metadata: asked.metadata,
            key_id: None,
            over_rate: None,
            callback_url: asked.callback_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Label;
    use onelane::api::dialect::Dialect;

    use super::*;

    fn submission(line: &str) -> Submission {
        let defaults = Defaults {
            user_id: "nightly".to_owned(),
            priority: -5,
            model: "glm-4.7".to_owned(),
            names_model: false,
            batch: None,
        };
        let id = LineId::parse("run-00000000-00000000000000000000000000000001").unwrap();
        let name = Name {
            digest: id.line,
            label: Label::Number(1),
        };
        let asked = Dialect::new().line(line).asked.unwrap();
        defaults.ready(id.source, name, asked).submission
    }

    #[test]
    fn a_line_that_says_nothing_takes_the_defaults() {
        let job = submission(r#"{"prompt":"hi"}"#);
        assert_eq!((job.user_id.as_str(), job.priority), ("nightly", Some(-5)));
        assert_eq!(job.model, None, "the lane gives it its own");
        assert!(job.idempotency_key.unwrap().ends_with("-glm-4.7"));
    }

    #[test]
    fn what_a_line_says_counts() {
        let job = submission(r#"{"prompt":"hi","userId":"u","priority":3,"model":"glm-5"}"#);
        assert_eq!((job.user_id.as_str(), job.priority), ("u", Some(3)));
        assert_eq!(job.model.as_deref(), Some("glm-5"));
        assert!(
            job.idempotency_key.unwrap().ends_with("0001"),
            "the default plays no part"
        );
    }

    #[test]
    fn a_callback_of_a_line_is_the_jobs() {
        let job = submission(r#"{"prompt":"hi","callbackUrl":"https://example.com/"}"#);
        assert_eq!(job.callback_url.as_deref(), Some("https://example.com/"));
    }

    #[test]
    fn a_model_in_the_body_is_the_lines_own() {
        let job = submission(r#"{"messages":[{"role":"user","content":"hi"}],"model":"glm-5"}"#);
        assert!(job.idempotency_key.unwrap().ends_with("0001"));
    }
}
