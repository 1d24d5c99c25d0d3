//! A browser without scripts: it keeps its cookie, sends the token of its page, and follows no redirect.

use onelane::config::ServerSection;
use onelane::model::Secret;
use onelane::orchestrator::Orchestrator;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder};

use crate::support::api::{Api, Reply};
use crate::support::http::{HttpLane, PATIENCE};

pub(super) const ADMIN: &str = "an-admin-token-of-this-test";
pub(super) const VIEWER: &str = "a-viewer-token-of-this-test";

pub(super) fn with_tokens() -> ServerSection {
    ServerSection {
        admin_token: Some(Secret::new(ADMIN)),
        viewer_token: Some(Secret::new(VIEWER)),
        ..ServerSection::default()
    }
}

/// A lane with its desk.
pub(super) async fn desk(config: ServerSection) -> (HttpLane, Orchestrator, Api) {
    let world = HttpLane::new();
    let lane = world.start().await;
    let config = ServerSection {
        listen: "127.0.0.1:0".to_owned(),
        ..config
    };
    let api = Api::serve_desk(&lane, config).await;
    (world, lane, api)
}

/// The same, where no token is set.
pub(super) async fn open_desk() -> (HttpLane, Orchestrator, Api) {
    desk(ServerSection::default()).await
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub(super) struct Browser {
    address: std::net::SocketAddr,
    client: reqwest::Client,
    pub(super) cookie: Option<String>,
    /// What its forms say.
    pub(super) token: Option<String>,
}

impl Browser {
    pub(super) fn of(api: &Api) -> Self {
        let client = onelane::tls::client()
            .unwrap()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        Self {
            address: api.address,
            client,
            cookie: None,
            token: None,
        }
    }

    /// With a session.
    pub(super) async fn logged_in(api: &Api, secret: &str) -> Self {
        let mut browser = Self::of(api);
        let taken = browser.post("/desk/login", &[("secret", secret)]).await;
        assert_eq!(taken.status, 303, "{taken:?}");
        browser.keep(&taken);
        browser.token = Some(browser.get("/").await.form_token());
        browser
    }

    /// Keeps the cookie of an answer.
    pub(super) fn keep(&mut self, reply: &Reply) {
        let cookie = reply.header("set-cookie");
        self.cookie = cookie.split(';').next().map(str::to_owned);
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        let request = self.client.request(method, url);
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        Api::send(self.request(Method::GET, path)).await
    }

    /// Sends a form as a page of the desk does.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let token = self.token.as_deref().map(|token| ("token", token));
        let fields: Vec<(&str, &str)> = token.into_iter().chain(fields.iter().copied()).collect();
        let pair = |(name, value): &(&str, &str)| format!("{}={}", encoded(name), encoded(value));
        let form: Vec<String> = fields.iter().map(pair).collect();
        let request = self.request(Method::POST, path);
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        Api::send(request.body(form.join("&"))).await
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// Every value of an attribute.
    pub(super) fn attributes(&self, name: &str) -> Vec<&str> {
        let start = format!(" {name}=\"");
        let values = self.text.split(start.as_str()).skip(1);
        values.filter_map(|rest| rest.split('"').next()).collect()
    }

    /// Where its forms go.
    pub(super) fn actions(&self) -> Vec<&str> {
        self.attributes("action")
    }

    /// What its forms say.
    #[track_caller]
    pub(super) fn form_token(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("name=\"token\" value=\"")
            .expect("a form");
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}
