//! One request to a daemon and its answer, over TCP, TLS or a Unix socket.

use std::time::Duration;

use onelane::model::Secret;
use onelane::tls::Trust;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fault;
use super::target::Place;
use super::url::{Way, segment, way};
use crate::cli::args::remote::Target;
use crate::cli::exit::{CliError, Exit};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take that nobody waits for a job for.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A daemon that can be asked.
pub(crate) struct Daemon {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    pub(super) place: Place,
}

/// An answer that is none of a problem: its JSON, to the byte.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// What it was an answer to, for errors.
    asked: String,
}

impl Answer {
    /// Read into a type, which may leave fields out.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        serde_json::from_str(&self.text).map_err(|error| {
            CliError::new(
                Exit::NoDaemon,
                format!(
                    "the answer to {} is not what this version knows: {error}",
                    self.asked
                ),
            )
            .help("use the onelane of the daemon's version; `onelane doctor` tells both")
        })
    }

    /// Prints it, for a program as it came, or as text for a person.
    pub(crate) fn tell<T: DeserializeOwned>(
        &self,
        json: bool,
        text: impl FnOnce(T) -> String,
    ) -> Result<(), CliError> {
        match json {
            true => crate::cli::say(self.text.trim_end()),
            false => crate::cli::say(&text(self.read()?)),
        }
    }
}

/// Parameters of a query: those that are given.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.push((name, value.to_string()));
        self
    }

    pub(crate) fn maybe(self, name: &'static str, value: Option<&impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value.to_string()),
            None => self,
        }
    }

    pub(super) fn text(&self) -> String {
        let pairs = self.0.iter();
        let pairs = pairs.map(|(name, value)| format!("{name}={}", segment(value)));
        let pairs: Vec<String> = pairs.collect();
        match pairs.is_empty() {
            true => String::new(),
            false => format!("?{}", pairs.join("&")),
        }
    }
}

fn unbuilt(error: &dyn std::error::Error) -> CliError {
    CliError::usage(format!("the HTTP client can't be built: {error}"))
}

impl Daemon {
    /// The daemon that flags, environment and contexts name. Nothing is sent yet.
    pub(crate) fn of(target: &Target) -> Result<Self, CliError> {
        Self::at(target.place()?)
    }

    /// The daemon at a place.
    pub(crate) fn at(place: Place) -> Result<Self, CliError> {
        // A redirect would carry the token to who knows whom.
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("onelane/", env!("CARGO_PKG_VERSION")));
        let base = match way(&place.url)? {
            Way::Tcp(url) => {
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                let is_here = host == "localhost"
                    || host
                        .parse()
                        .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
                if is_here {
                    http = http.no_proxy();
                }
                url.as_str().trim_end_matches('/').to_owned()
            }
            #[cfg(unix)]
            Way::Socket(path) => {
                http = http.no_proxy().unix_socket(path);
                "http://localhost".to_owned()
            }
            #[cfg(not(unix))]
            Way::Socket(_) => {
                return Err(super::url::wrong_url(
                    &place.url,
                    "is a Unix socket, which this system has not",
                ));
            }
        };
        let trust = if let Some(file) = &place.ca_file {
            Trust::of_file(file).map_err(|problem| {
                CliError::usage(problem).help(
                    "give a PEM file with the authority of the daemon's certificate by --ca-file",
                )
            })?
        } else {
            Trust::of_system().map_err(|error| unbuilt(&error))?
        };
        let http = trust.on(http).build().map_err(|error| unbuilt(&error))?;
        Ok(Self { http, base, place })
    }

    /// Where it is, as whoever named it wrote it.
    pub(crate) fn url(&self) -> &str {
        &self.place.url
    }

    /// The token, where one is known.
    pub(super) fn token(&self) -> Option<&Secret> {
        Some(&self.place.token.as_ref()?.0)
    }

    pub(crate) async fn get(&self, path: &str, query: &Query) -> Result<Answer, CliError> {
        let path = format!("{path}{}", query.text());
        self.ask(Method::GET, &path, None, ANSWER_WITHIN).await
    }

    /// A GET that waits on the daemon's side for so long at most.
    pub(crate) async fn get_slowly(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Answer, CliError> {
        self.ask(
            Method::GET,
            path,
            None,
            within.saturating_add(ANSWER_WITHIN),
        )
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.post_text(path, body.to_string()).await
    }

    /// A POST of JSON as it is written.
    pub(crate) async fn post_text(&self, path: &str, body: String) -> Result<Answer, CliError> {
        self.ask(Method::POST, path, Some(body), ANSWER_WITHIN)
            .await
    }

    /// A POST of a list, of which each element may be refused by itself: when all were, the status is the first's, and
    /// the answer is the list all the same.
    pub(crate) async fn post_list(&self, path: &str, body: String) -> Result<Answer, CliError> {
        let sent = self.send(Method::POST, path, Some(body), Some(ANSWER_WITHIN));
        self.list_of(path, sent.await?).await
    }

    /// The answer to a list.
    pub(super) async fn list_of(
        &self,
        path: &str,
        response: reqwest::Response,
    ) -> Result<Answer, CliError> {
        let asked = format!("POST {path}");
        let status = response.status().as_u16();
        let text = response.text().await;
        let text = text.map_err(|error| fault::broken(self, &error))?;
        if status < 300 || text.starts_with("{\"jobs\":") {
            return Ok(Answer { text, asked });
        }
        Err(fault::problem(self, status, &text, &asked))
    }

    pub(crate) async fn order(&self, path: &str) -> Result<Answer, CliError> {
        self.ask(Method::POST, path, None, ANSWER_WITHIN).await
    }

    pub(crate) async fn put_text(&self, path: &str, body: String) -> Result<Answer, CliError> {
        self.ask(Method::PUT, path, Some(body), ANSWER_WITHIN).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer, CliError> {
        self.ask(Method::DELETE, path, None, ANSWER_WITHIN).await
    }

    /// Which onelane it is, and the store that it has.
    pub(crate) async fn about(&self) -> Result<Answer, CliError> {
        self.get("/api/admin/glm/about", &Query::default()).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        within: Duration,
    ) -> Result<Answer, CliError> {
        let asked = format!("{method} {path}");
        let response = self.send(method, path, body, Some(within)).await?;
        let status = response.status().as_u16();
        let text = response
            .text()
            .await
            .map_err(|error| fault::broken(self, &error))?;
        if status < 300 {
            return Ok(Answer { text, asked });
        }
        Err(fault::problem(self, status, &text, &asked))
    }

    /// A request with the token, if there is one.
    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match self.token() {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        within: Option<Duration>,
    ) -> Result<reqwest::Response, CliError> {
        let mut request = self.request(method, path);
        if let Some(within) = within {
            request = request.timeout(within);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        request
            .send()
            .await
            .map_err(|error| fault::unreachable(self, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_what_is_given_percent_encoded() {
        let query = Query::default()
            .with("userId", "a b&c")
            .maybe("model", None::<&String>);
        assert_eq!(query.text(), "?userId=a%20b%26c");
        assert_eq!(segment("glm-4.7/x"), "glm-4.7%2Fx");
    }
}
