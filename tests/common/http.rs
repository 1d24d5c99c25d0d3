//! HTTP as a program beside the daemon speaks it.

use serde_json::Value;

use super::PATIENCE;

/// A blocking HTTP client; one connection pool, like a program that uses the API.
pub struct Http {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    token: Option<String>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Http {
    pub fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            token: None,
        }
    }

    /// The same with a bearer token.
    pub fn bearing(token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::new()
        }
    }

    pub fn get(&self, url: &str) -> Result<Answer, reqwest::Error> {
        self.send(self.client.get(url))
    }

    pub fn post(&self, url: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.send(Self::with_body(self.client.post(url), body))
    }

    /// The same with headers.
    pub fn post_with(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, reqwest::Error> {
        let request = Self::with_body(self.client.post(url), body);
        let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        self.send(headers.iter().fold(request, add))
    }

    pub fn put(&self, url: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.send(Self::with_body(self.client.put(url), body))
    }

    pub fn delete(&self, url: &str) -> Result<Answer, reqwest::Error> {
        self.send(self.client.delete(url))
    }

    /// Uploads a file of lines, as a form.
    pub fn upload(&self, url: &str, content: &str) -> Result<Answer, reqwest::Error> {
        const BOUNDARY: &str = "the-boundary";
        let part = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=");
        let form = format!(
            "{part}\"purpose\"\r\n\r\nbatch\r\n{part}\"file\"; filename=\"lines.jsonl\"\r\n\r\n{content}\r\n\
             --{BOUNDARY}--\r\n"
        );
        let media = format!("multipart/form-data; boundary={BOUNDARY}");
        self.send(
            self.client
                .post(url)
                .header("content-type", media)
                .body(form),
        )
    }

    fn with_body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
        request
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            Ok(Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                text: response.text().await?,
            })
        })
    }
}
