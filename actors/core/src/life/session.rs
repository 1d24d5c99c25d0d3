//! The session of a submission: the one that it names, else, where that is wished for, one for its conversation. That
//! is made of what all turns of a conversation have in common: who speaks, and how it began.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::model::{Face, KeyId, Request, Session, SessionId, Sessions, Submission, json};

/// The session that a submission is a call of.
pub(super) fn of(submission: &Submission, sessions: Sessions) -> Option<Session> {
    let named = submission.session.clone();
    named.or_else(|| match sessions {
        Sessions::Off | Sessions::Pass => None,
        Sessions::Derive => {
            let (request, key) = (&submission.request, submission.key_id);
            // The key is in the digest: GLM is told of it as it is.
            derived(request, key, &submission.user_id).map(Session::Glms)
        }
    })
}

/// The session of a request's conversation; `None`: it is none, or does not say how it began.
fn derived(request: &Request, key: Option<KeyId>, user: &str) -> Option<SessionId> {
    let mut digest = Sha256::new();
    digest.update(key.map_or(0, KeyId::number).to_be_bytes());
    part(&mut digest, Part::User, user.as_bytes());
    let is_told = match request {
        Request::Prompt(text) => {
            part(&mut digest, Part::Text, text.as_bytes());
            true
        }
        Request::Body(face, raw) => Beginning::of(raw)?.tell(*face, &mut digest),
    };
    is_told.then(|| SessionId::made(digest))
}

/// What is told to the digest: no two ways to begin make the same bytes.
#[derive(Clone, Copy)]
enum Part {
    User,
    /// What stands before all messages.
    System,
    /// The beginning of a message by a system, or by a user.
    OfSystem,
    OfUser,
    Text,
    /// Something else than text: an image, say.
    Other,
    /// The response that it goes on from.
    Previous,
}

fn part(digest: &mut Sha256, what: Part, bytes: &[u8]) {
    digest.update([what as u8]);
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

/// What bodies have of the beginning of their conversations.
#[derive(Deserialize)]
struct Beginning<'a> {
    #[serde(default, borrow)]
    messages: Option<&'a RawValue>,
    #[serde(default, borrow)]
    system: Option<&'a RawValue>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
    #[serde(default, borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(default, borrow)]
    previous_response_id: Option<&'a RawValue>,
}

impl<'a> Beginning<'a> {
    fn of(body: &'a RawValue) -> Option<Self> {
        serde_json::from_str(body.get()).ok()
    }

    /// Tells a digest what the system and then the first user say. `false`: no user says anything.
    fn tell(&self, face: Face, digest: &mut Sha256) -> bool {
        match face {
            Face::Chat => messages(digest, self.messages),
            Face::Messages => {
                system(digest, self.system);
                messages(digest, self.messages)
            }
            Face::Responses => {
                system(digest, self.instructions);
                // Its beginning is not known, and what it goes on from is the same for nobody else.
                let previous = self.previous_response_id.and_then(json::text);
                if let Some(previous) = previous {
                    part(digest, Part::Previous, previous.as_bytes());
                    return true;
                }
                match self.input.and_then(json::text) {
                    Some(text) => {
                        part(digest, Part::OfUser, b"");
                        part(digest, Part::Text, text.as_bytes());
                        true
                    }
                    None => messages(digest, self.input),
                }
            }
            Face::Embeddings => false,
        }
    }
}

fn system(digest: &mut Sha256, content: Option<&RawValue>) {
    if let Some(said) = content.filter(|said| said.get() != "null") {
        part(digest, Part::System, b"");
        self::content(digest, said);
    }
}

/// The messages up to the first one by a user, those of systems among them alone.
fn messages(digest: &mut Sha256, list: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: &'a RawValue,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let mut has_user = false;
    let _ = list.and_then(|list| {
        json::each(list, |message| {
            let Ok(message) = serde_json::from_str::<Message<'_>>(message.get()) else {
                return true;
            };
            let role = json::text(message.role);
            let of = match role.as_deref() {
                Some("system" | "developer") => Part::OfSystem,
                Some("user") => Part::OfUser,
                _ => return true,
            };
            has_user = matches!(of, Part::OfUser);
            part(digest, of, b"");
            content(digest, message.content);
            !has_user
        })
    });
    has_user
}

/// What a message says. A text is the same whether it stands alone or as the one part of a list.
fn content(digest: &mut Sha256, content: &RawValue) {
    if let Some(text) = json::text(content) {
        return part(digest, Part::Text, text.as_bytes());
    }
    let _ = json::each(content, |piece| {
        #[derive(Deserialize)]
        struct Piece<'a> {
            #[serde(borrow)]
            text: &'a RawValue,
        }
        let piece_text = serde_json::from_str::<Piece<'_>>(piece.get()).ok();
        match piece_text.and_then(|piece| json::text(piece.text)) {
            Some(text) => part(digest, Part::Text, text.as_bytes()),
            None => other(digest, piece),
        }
        true
    });
}

/// A piece that is no text. Marks of what is to be cached move on from turn to turn.
fn other(digest: &mut Sha256, piece: &RawValue) {
    part(digest, Part::Other, b"");
    let _ = json::each_member(piece, |name, value| {
        if name != "cache_control" {
            part(digest, Part::Other, name.as_bytes());
            // What nests too deep is told as far as it was read.
            let _ = json::meaning(value.get(), digest);
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The session of a body of a key and a user.
    fn session(face: Face, body: &str, key: u64, user: &str) -> Option<String> {
        let request = Request::body(face, body).unwrap();
        let key = (key > 0).then(|| KeyId::new(key));
        derived(&request, key, user).map(|id| id.to_string())
    }

    fn chat(messages: &str) -> String {
        let body = format!(r#"{{"model":"glm-5","messages":[{messages}]}}"#);
        session(Face::Chat, &body, 1, "ada").unwrap()
    }

    const SYSTEM: &str = r#"{"role":"system","content":"Be brief."}"#;
    const FIRST: &str = r#"{"role":"user","content":"Name a river."}"#;

    #[test]
    fn every_turn_of_a_chat_is_of_one_session_and_another_beginning_is_of_another() {
        let first = chat(&format!("{SYSTEM},{FIRST}"));
        let later =
            r#"{"role":"assistant","content":"Rhine"},{"role":"user","content":"Another."}"#;
        assert_eq!(chat(&format!("{SYSTEM},{FIRST},{later}")), first);
        let others = [
            chat(FIRST),
            chat(&format!("{FIRST},{SYSTEM}")),
            chat(&format!("{SYSTEM},{}", FIRST.replace("river", "lake"))),
            chat(&format!("{},{FIRST}", SYSTEM.replace("brief", "long"))),
            chat(&format!("{},{FIRST}", SYSTEM.replace("system", "user"))),
        ];
        for other in &others {
            assert_ne!(*other, first);
        }
    }

    #[test]
    fn how_a_beginning_is_written_does_not_matter() {
        let written = [
            r#"{"role":"user","content":"Name a river."}"#,
            r#"{ "content" : "Name a \u0072iver.", "role": "user" }"#,
            r#"{"role":"user","content":[{"type":"text","text":"Name a river."}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"Name a river.","cache_control":{"type":"ephemeral"}}]}"#,
        ];
        let sessions = written.map(chat);
        assert!(
            sessions.iter().all(|one| *one == sessions[0]),
            "{sessions:?}"
        );
        let image = |more: &str| {
            chat(&format!(
                r#"{{"role":"user","content":[{{"type":"image","source":{{"data":"aa"}}{more}}}]}}"#
            ))
        };
        assert_eq!(image(r#","cache_control":{"type":"ephemeral"}"#), image(""));
        assert_ne!(image(r#","detail":"low""#), image(""));
    }

    #[test]
    fn keys_and_users_have_sessions_of_their_own_and_none_shows_what_was_said() {
        let body = format!(r#"{{"messages":[{FIRST}]}}"#);
        let of = |key, user| session(Face::Chat, &body, key, user).unwrap();
        let all = [of(0, "ada"), of(1, "ada"), of(2, "ada"), of(1, "bob")];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        for id in all {
            let digits = id.strip_prefix("auto-").unwrap();
            assert_eq!(digits.len(), 24);
            assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
    }

    #[test]
    fn messages_and_responses_have_sessions_by_their_own_fields() {
        let of = |face, body: &str| session(face, body, 1, "ada");
        let messages = |system: &str, more: &str| {
            let body = format!(r#"{{"system":{system},"messages":[{FIRST}{more}]}}"#);
            of(Face::Messages, &body).unwrap()
        };
        let first = messages("\"Be brief.\"", "");
        let block = r#"[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}]"#;
        assert_eq!(
            messages(block, r#",{"role":"assistant","content":"Rhine"}"#),
            first
        );
        assert_ne!(messages("\"Be long.\"", ""), first);
        let responses = |body: &str| of(Face::Responses, body).unwrap();
        let text = responses(r#"{"instructions":"Be brief.","input":"Name a river."}"#);
        let list =
            format!(r#"{{"instructions":"Be brief.","input":[{FIRST},{{"type":"reasoning"}}]}}"#);
        assert_eq!(responses(&list), text);
        assert_ne!(responses(r#"{"input":"Name a river."}"#), text);
        let next = |id: &str| {
            responses(&format!(
                r#"{{"previous_response_id":"{id}","input":"Another."}}"#
            ))
        };
        assert_eq!(next("resp-1"), next("resp-1"));
        assert_ne!(next("resp-1"), next("resp-2"));
    }

    #[test]
    fn what_is_no_conversation_has_no_session() {
        let of = |face, body: &str| session(face, body, 0, "ada");
        assert_eq!(of(Face::Embeddings, r#"{"input":"a"}"#), None);
        assert_eq!(
            of(Face::Chat, &format!(r#"{{"messages":[{SYSTEM}]}}"#)),
            None
        );
        assert_eq!(
            of(Face::Chat, r#"{"messages":[{},7,{"role":"user"}]}"#),
            None
        );
        let prompt = |text: &str| derived(&Request::prompt(text).unwrap(), None, "ada");
        assert_eq!(prompt("hi"), prompt("hi"));
        assert_ne!(prompt("hi"), prompt("ho"));
    }

    #[test]
    fn a_session_is_made_only_where_it_is_wished_for_and_nobody_names_one() {
        let plain = Submission::prompt("hi").unwrap();
        assert_eq!(of(&plain, Sessions::Off), None);
        assert_eq!(of(&plain, Sessions::Pass), None);
        assert!(of(&plain, Sessions::Derive).is_some());
        let named = plain.session("chat".parse::<SessionId>().unwrap());
        for sessions in [Sessions::Off, Sessions::Pass, Sessions::Derive] {
            let session = of(&named, sessions).unwrap();
            assert_eq!(session.id().as_str(), "chat");
        }
    }
}
