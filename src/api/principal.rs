//! For whom a request speaks, and what that lets it do: an operator by the admin token, somebody who may
//! look by the viewer token or a viewer's key, a client by its key, or, where there is no token, a program on this
//! machine and no web page.

use std::sync::Arc;

use onelane_core::model::{ClientKey, KeyId, OnDisconnect};

use super::problem::{Kind, Problem};
use crate::views::Audience;

/// Where whoever watches the daemon asks whether it answers.
pub(super) const HEALTH: &str = "/healthz";

/// For whom a request speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Who runs the lane, by the admin token.
    Admin,
    /// Somebody who may look at everything but whole prompts and answers, and change nothing.
    Viewer,
    /// A program by its client key: it hands work in and looks at its own.
    Client(Arc<ClientKey>),
    /// A program on this machine, where no token is set: it may do what an operator may.
    Local,
}

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a token.
    Anybody,
    /// Whoever may look: admin, viewer, local.
    Look,
    /// Whoever hands work in: admin, client, local.
    Submit,
    /// Whoever follows what happens: admin, local, and a client what happens to its own.
    Follow,
    /// Who runs the lane: admin, local.
    Operate,
}

impl Access {
    /// Whether it is open to this one.
    pub(crate) const fn admits(self, principal: &Principal) -> bool {
        match principal {
            Principal::Admin | Principal::Local => true,
            Principal::Viewer => matches!(self, Self::Anybody | Self::Look),
            Principal::Client(_) => matches!(self, Self::Anybody | Self::Submit | Self::Follow),
        }
    }

    /// Lets this one in, or says why not.
    pub(crate) fn admit(self, principal: &Principal) -> Result<(), Problem> {
        if self.admits(principal) {
            return Ok(());
        }
        let problem = match principal {
            Principal::Client(_) => {
                "a client key hands work in and looks at its own; send the admin token"
            }
            _ => "a viewer may look, and change nothing; send the admin token",
        };
        Err(Problem::new(Kind::Forbidden, problem))
    }

    /// Who that is, in words.
    pub(super) const fn whom(self) -> &'static str {
        match self {
            Self::Anybody => "anybody, without a token",
            Self::Look => "admin, viewer",
            Self::Submit | Self::Follow => "admin, client",
            Self::Operate => "admin",
        }
    }
}

impl Principal {
    /// What becomes of its call when it is gone: as its key says, else as configured.
    pub(super) fn on_disconnect(&self, configured: OnDisconnect) -> OnDisconnect {
        match self {
            Self::Client(key) => key.rights.on_disconnect.unwrap_or(configured),
            Self::Admin | Self::Viewer | Self::Local => configured,
        }
    }

    /// Whether whole prompts and answers, and what submitters keep to themselves, are for its eyes.
    pub(crate) const fn audience(&self) -> Audience {
        match self {
            // What a client sees is its own.
            Self::Admin | Self::Client(_) | Self::Local => Audience::Owner,
            Self::Viewer => Audience::Viewer,
        }
    }

    /// The client key by which it speaks.
    pub(super) fn key(&self) -> Option<&ClientKey> {
        match self {
            Self::Client(key) => Some(key),
            Self::Admin | Self::Viewer | Self::Local => None,
        }
    }

    /// The id of that key.
    pub(super) fn key_id(&self) -> Option<KeyId> {
        self.key().map(|key| key.id)
    }

    /// Whether it sees what was handed in by this key, or by an operator: a client key sees its own alone.
    pub(super) fn sees(&self, owner: Option<KeyId>) -> bool {
        self.key_id().is_none_or(|own| owner == Some(own))
    }
}
