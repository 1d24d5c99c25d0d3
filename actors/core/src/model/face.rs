//! The faces of GLM: APIs of their own in front of the same models. A face is a row of facts; whoever handles a call
//! asks the row, and nobody asks which face it is.
#![allow(
    rustdoc::bare_urls,
    reason = "the docs of its settings are the comments of config.toml, too"
)]

use serde::{Deserialize, Serialize};
use url::Url;

use super::setting::{KeyPath, Problem};
use crate::section;

/// One of GLM's APIs.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    /// Chat completions, as GLM and OpenAI have them.
    #[default]
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Embeddings.
    Embeddings,
}

/// The form of a face's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// `{"error": {"code", "message"}}`, GLM's and OpenAI's.
    Glm,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`, Anthropic's.
    Anthropic,
}

/// The header that a face takes its key in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`.
    ApiKey,
}

/// What has to stand in the field that a face asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A list of one thing at least.
    List,
    /// Anything but nothing: a text, a list.
    Something,
    /// It may be missing.
    Nothing,
}

/// Where a face is, seen from GLM's site.
enum Place {
    /// Below the base URL itself, whichever that is.
    BelowBase(&'static str),
    /// At this path of the site, wherever the base URL is one of GLM's.
    OnSite(&'static str),
}

/// All that is known of a face.
struct Row {
    face: Face,
    name: &'static str,
    paths: &'static [&'static str],
    place: Place,
    envelope: Envelope,
    key: KeyHeader,
    /// Headers of the protocol that every call has.
    headers: &'static [(&'static str, &'static str)],
    /// Headers of the protocol that a client's call brings with it.
    passes: &'static [&'static str],
    subject: &'static str,
    needs: Needs,
    texts: &'static [&'static str],
    elsewhere: &'static [&'static str],
    bound: Option<&'static str>,
    echoes: bool,
    streams: bool,
}

/// The table of faces.
const ROWS: [Row; 4] = [
    Row {
        face: Face::Chat,
        name: "chat",
        paths: &[
            "/v1/chat/completions",
            "/api/paas/v4/chat/completions",
            "/api/coding/paas/v4/chat/completions",
        ],
        place: Place::BelowBase("/chat/completions"),
        envelope: Envelope::Glm,
        key: KeyHeader::Bearer,
        headers: &[],
        passes: &[],
        subject: "messages",
        needs: Needs::List,
        texts: &["messages"],
        elsewhere: &[],
        bound: Some("max_tokens"),
        echoes: true,
        streams: true,
    },
    Row {
        face: Face::Responses,
        name: "responses",
        paths: &["/v1/responses"],
        place: Place::OnSite("/api/v1/responses"),
        envelope: Envelope::Glm,
        key: KeyHeader::Bearer,
        headers: &[],
        passes: &[],
        subject: "input",
        needs: Needs::Nothing,
        texts: &["instructions", "input"],
        elsewhere: &["previous_response_id", "conversation", "prompt"],
        bound: Some("max_output_tokens"),
        echoes: false,
        streams: true,
    },
    Row {
        face: Face::Messages,
        name: "messages",
        paths: &["/v1/messages", "/api/anthropic/v1/messages"],
        place: Place::OnSite("/api/anthropic/v1/messages"),
        envelope: Envelope::Anthropic,
        key: KeyHeader::ApiKey,
        headers: &[("anthropic-version", "2023-06-01")],
        passes: &["anthropic-version", "anthropic-beta"],
        subject: "messages",
        needs: Needs::List,
        texts: &["system", "messages"],
        elsewhere: &["container", "mcp_servers"],
        bound: Some("max_tokens"),
        echoes: false,
        streams: true,
    },
    Row {
        face: Face::Embeddings,
        name: "embeddings",
        paths: &["/v1/embeddings", "/api/paas/v4/embeddings"],
        place: Place::OnSite("/api/paas/v4/embeddings"),
        envelope: Envelope::Glm,
        key: KeyHeader::Bearer,
        headers: &[],
        passes: &[],
        subject: "input",
        needs: Needs::Something,
        texts: &["input"],
        elsewhere: &[],
        bound: None,
        echoes: false,
        streams: false,
    },
];

/// The ends of GLM's own base URLs, the longer ones first.
const GLM_BASES: [&str; 2] = ["/api/coding/paas/v4", "/api/paas/v4"];

impl Face {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Chat,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
    ];

    const fn row(self) -> &'static Row {
        let [chat, responses, messages, embeddings] = &ROWS;
        match self {
            Self::Chat => chat,
            Self::Responses => responses,
            Self::Messages => messages,
            Self::Embeddings => embeddings,
        }
    }

    /// Its name in rows, settings and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The face of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let row = ROWS.iter().find(|row| row.name == name);
        row.map(|row| row.face)
    }

    /// Where it is asked for at our door.
    #[must_use]
    pub const fn paths(self) -> &'static [&'static str] {
        self.row().paths
    }

    /// What its paths end in, wherever they begin.
    #[must_use]
    pub fn path_end(self) -> &'static str {
        let first = self.paths().first().copied().unwrap_or_default();
        first.strip_prefix("/v1").unwrap_or(first)
    }

    /// The face of a path, whatever it begins with: `/v1`, `/v4`, or nothing.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|face| path.ends_with(face.path_end()))
    }

    /// The form of its errors.
    #[must_use]
    pub const fn envelope(self) -> Envelope {
        self.row().envelope
    }

    /// Where it takes the key.
    #[must_use]
    pub const fn key_header(self) -> KeyHeader {
        self.row().key
    }

    /// Headers that each of its calls has, beside key and type.
    #[must_use]
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        self.row().headers
    }

    /// Headers of a client that GLM gets, in lower case; they count before its own.
    #[must_use]
    pub const fn passes(self) -> &'static [&'static str] {
        self.row().passes
    }

    /// The field that says what is asked.
    #[must_use]
    pub const fn subject(self) -> &'static str {
        self.row().subject
    }

    /// What has to stand in its subject.
    #[must_use]
    pub const fn needs(self) -> Needs {
        self.row().needs
    }

    /// The fields whose texts make the prompt.
    #[must_use]
    pub const fn texts(self) -> &'static [&'static str] {
        self.row().texts
    }

    /// Fields by which GLM puts into the prompt what the body does not hold.
    #[must_use]
    pub const fn elsewhere(self) -> &'static [&'static str] {
        self.row().elsewhere
    }

    /// The field that bounds the answer; `None`: an answer has no tokens.
    #[must_use]
    pub const fn bound(self) -> Option<&'static str> {
        self.row().bound
    }

    /// Whether it takes a `request_id` and names it in its answer.
    #[must_use]
    pub const fn echoes(self) -> bool {
        self.row().echoes
    }

    /// Whether it can answer in pieces.
    #[must_use]
    pub const fn streams(self) -> bool {
        self.row().streams
    }

    /// Whether it is what a job is for that says nothing else.
    #[must_use]
    pub const fn is_chat(&self) -> bool {
        matches!(self, Self::Chat)
    }

    /// Whether it can be handed over as a task of GLM's asynchronous API.
    #[must_use]
    pub const fn has_tasks(self) -> bool {
        matches!(self, Self::Chat)
    }

    /// Where it is, for calls below this base URL: as the settings say, else by GLM's own layout.
    pub fn upstream(self, base_url: &str, faces: &FaceSettings) -> Result<String, NoUpstream> {
        let told = match self {
            Self::Chat => None,
            Self::Responses => faces.responses.as_ref(),
            Self::Messages => faces.messages.as_ref(),
            Self::Embeddings => faces.embeddings.as_ref(),
        };
        if let Some(url) = told {
            return Ok(url.clone());
        }
        match self.row().place {
            Place::BelowBase(end) => Ok(format!("{base_url}{end}")),
            Place::OnSite(path) => {
                let site = GLM_BASES.iter().find_map(|end| base_url.strip_suffix(end));
                site.map(|site| format!("{site}{path}"))
                    .ok_or_else(|| NoUpstream {
                        face: self,
                        base_url: base_url.to_owned(),
                    })
            }
        }
    }
}

/// Nobody knows where a face is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "where {base_url} has its {name} is not known: it does not end like a base URL of GLM's, in /api/paas/v4; set \
     glm.faces.{name} to the whole URL", name = .face.name()
)]
pub struct NoUpstream {
    /// The face.
    pub face: Face,
    /// The base URL, which has not GLM's layout.
    pub base_url: String,
}

/// A URL that the key may be sent to, without a slash at its end.
pub(super) fn glm_url(text: &str) -> Result<String, Problem> {
    let problem = || {
        Problem::from("must be an http or https URL such as https://open.bigmodel.cn/api/paas/v4")
    };
    let url = Url::parse(text).map_err(|_| problem())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem());
    }
    if !url.username().is_empty() || url.password().is_some() {
        let problem = Problem::from("must not hold a user or password; the key belongs in ");
        return Err(problem.setting(KeyPath::from("glm.api_key")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

section! {
    /// `[glm.faces]`: where GLM's other APIs are. Not set, they are found by GLM's own layout where
    /// `glm.base_url` ends in /api/paas/v4 or /api/coding/paas/v4, and are refused elsewhere.
    #[derive(Eq)]
    pub struct FaceSettings {
        /// The whole URL of the Responses API, asked for at /v1/responses.
        responses: Option<String> = None => [
            text(glm_url).sample("\"https://relay.example/v1/responses\"")
        ];
        /// The whole URL of the Messages API, Anthropic's, asked for at /v1/messages.
        messages: Option<String> = None => [
            text(glm_url).sample("\"https://relay.example/v1/messages\"")
        ];
        /// The whole URL of the embeddings.
        embeddings: Option<String> = None => [
            text(glm_url).sample("\"https://relay.example/v1/embeddings\"")
        ];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_its_row_and_no_path_has_two() {
        for face in Face::ALL {
            assert_eq!(face.row().face, face);
            assert_eq!(Face::parse(face.name()), Some(face));
            let written = serde_json::to_value(face).unwrap();
            assert_eq!(written, face.name());
            assert!(face.texts().contains(&face.subject()), "{face:?}");
        }
        for face in Face::ALL {
            for path in face.paths() {
                assert_eq!(Face::of_path(path), Some(face), "{path}");
            }
        }
        assert_eq!(Face::of_path("/v4/embeddings"), Some(Face::Embeddings));
        assert_eq!(Face::of_path("/v1/images/generations"), None);
        let mut paths: Vec<_> = Face::ALL.iter().flat_map(|face| face.paths()).collect();
        let all = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }

    #[test]
    fn a_face_is_found_by_glms_layout_or_by_its_setting_or_refused_in_words() {
        let by_layout = FaceSettings::default();
        let check = |base: &str, face: Face, want: &str| {
            assert_eq!(face.upstream(base, &by_layout).as_deref(), Ok(want));
        };
        let site = "https://api.z.ai";
        for base in ["/api/paas/v4", "/api/coding/paas/v4"] {
            let base = format!("{site}{base}");
            check(&base, Face::Chat, &format!("{base}/chat/completions"));
            check(&base, Face::Responses, "https://api.z.ai/api/v1/responses");
            let messages = "https://api.z.ai/api/anthropic/v1/messages";
            check(&base, Face::Messages, messages);
            let embeddings = "https://api.z.ai/api/paas/v4/embeddings";
            check(&base, Face::Embeddings, embeddings);
        }
        let relay = "http://relay.example/v1";
        check(
            relay,
            Face::Chat,
            "http://relay.example/v1/chat/completions",
        );
        for face in [Face::Responses, Face::Messages, Face::Embeddings] {
            let refused = face.upstream(relay, &by_layout).unwrap_err().to_string();
            let setting = format!("set glm.faces.{}", face.name());
            assert!(refused.contains(&setting), "{refused}");
        }
        let told = FaceSettings {
            messages: Some("http://other.example/m".to_owned()),
            ..FaceSettings::default()
        };
        let found = Face::Messages.upstream(relay, &told);
        assert_eq!(found.as_deref(), Ok("http://other.example/m"));
    }
}
