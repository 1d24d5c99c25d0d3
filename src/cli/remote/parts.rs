//! An answer of a daemon that comes part by part: rows of an export, events as they happen.

use reqwest::Method;
use serde_json::json;

use super::client::{Daemon, Query};
use super::fault;
use crate::cli::exit::{CliError, Exit};

/// Bytes of an event that are kept until its end comes: more than the lane ever sends in one.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An answer that comes part by part.
pub(crate) struct Parts<'a> {
    daemon: &'a Daemon,
    response: reqwest::Response,
    /// What has come and is no whole event yet.
    text: Vec<u8>,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    /// JSON, as it came.
    pub(crate) data: String,
}

impl Event {
    /// What a block of lines says; `None`: a comment.
    fn of(block: &str) -> Option<Self> {
        let mut event = Self::default();
        for line in block.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut event.kind),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
        (!event.data.is_empty() || !event.kind.is_empty()).then_some(event)
    }

    /// For a program: one object.
    pub(crate) fn line(&self) -> String {
        let data = match serde_json::value::RawValue::from_string(self.data.clone()) {
            Ok(_) => self.data.clone(),
            Err(_) => json!(self.data).to_string(),
        };
        let (id, kind) = (json!(self.id), json!(self.kind));
        format!("{{\"id\":{id},\"event\":{kind},\"data\":{data}}}")
    }
}

impl Daemon {
    /// A chat that is streamed, for this user; `None`: it was refused, or failed.
    pub(crate) async fn chat(&self, body: &str, user: &str) -> Result<Option<Parts<'_>>, CliError> {
        let request = self
            .request(Method::POST, "/v1/chat/completions")
            .header("content-type", "application/json")
            .header("x-onelane-user", user)
            .body(body.to_owned());
        let response = request.send().await;
        let response = response.map_err(|error| fault::unreachable(self, &error))?;
        let is_refused = matches!(response.status().as_u16(), 401 | 403);
        if is_refused {
            let status = response.status().as_u16();
            let text = response.text().await.unwrap_or_default();
            let asked = "POST /v1/chat/completions";
            return Err(fault::problem(self, status, &text, asked));
        }
        let daemon = self;
        Ok(response
            .status()
            .is_success()
            .then(|| Parts::of(daemon, response)))
    }

    /// Reads an answer of any length, part by part.
    pub(crate) async fn stream(&self, path: &str, query: &Query) -> Result<Parts<'_>, CliError> {
        let path = format!("{path}{}", query.text());
        self.parts(Method::GET, &path).await
    }

    /// An order whose answer comes part by part.
    pub(crate) async fn order_parts(&self, path: &str) -> Result<Parts<'_>, CliError> {
        self.parts(Method::POST, path).await
    }

    async fn parts(&self, method: Method, path: &str) -> Result<Parts<'_>, CliError> {
        let asked = format!("{method} {path}");
        let response = self.send(method, path, None, None).await?;
        let status = response.status().as_u16();
        if status < 300 {
            let daemon = self;
            return Ok(Parts::of(daemon, response));
        }
        let text = response
            .text()
            .await
            .map_err(|error| fault::broken(self, &error))?;
        Err(fault::problem(self, status, &text, &asked))
    }
}

impl<'a> Parts<'a> {
    const fn of(daemon: &'a Daemon, response: reqwest::Response) -> Self {
        Self {
            daemon,
            response,
            text: Vec::new(),
        }
    }

    /// The next part of an answer of any kind.
    pub(crate) async fn part(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let part = self.response.chunk().await;
        let part = part.map_err(|error| fault::broken(self.daemon, &error))?;
        Ok(part.map(|part| part.to_vec()))
    }

    /// The next event; `None` at the end.
    pub(crate) async fn event(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            let end = self.text.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let rest = self.text.split_off(end.saturating_add(2));
                let block = std::mem::replace(&mut self.text, rest);
                if let Some(event) = Event::of(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.text.len() > EVENT_BYTES_MAX {
                let problem = format!("{} sends an event without an end", self.daemon.url());
                return Err(CliError::new(Exit::NoDaemon, problem));
            }
            match self.part().await? {
                Some(part) => self.text.extend(part),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_with_its_number_and_its_data_as_it_came() {
        let event = Event::of("id: 7-1\nevent: job.completed\ndata: {\"cost\": 1.50}\n").unwrap();
        assert_eq!(
            event.line(),
            r#"{"id":"7-1","event":"job.completed","data":{"cost": 1.50}}"#
        );
        assert_eq!(Event::of(": keep-alive\n"), None);
    }
}
