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

/// What had come of an answer when its connection ended.
#[derive(Debug)]
pub struct Pieces {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// All of it has.
    pub whole: bool,
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
            client: onelane::tls::client()
                .unwrap()
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
        self.send(Self::with_headers(request, headers))
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

    /// Posts, and reads as far as the answer comes.
    pub fn read_post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Pieces, reqwest::Error> {
        self.read(Self::with_body(self.client.post(url), body), headers)
    }

    /// The same of a GET.
    pub fn read_get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Pieces, reqwest::Error> {
        self.read(self.client.get(url), headers)
    }

    fn read(
        &self,
        request: reqwest::RequestBuilder,
        headers: &[(&str, &str)],
    ) -> Result<Pieces, reqwest::Error> {
        let request = self.authorised(Self::with_headers(request, headers));
        self.runtime.block_on(async {
            let mut response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let mut bytes = Vec::new();
            let whole = loop {
                match response.chunk().await {
                    Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            Ok(Pieces {
                status,
                headers,
                text: String::from_utf8_lossy(&bytes).into_owned(),
                whole,
            })
        })
    }

    fn with_headers(
        request: reqwest::RequestBuilder,
        headers: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        headers.iter().fold(request, add)
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn with_body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
        request
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = self.authorised(request);
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
