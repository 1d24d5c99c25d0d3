//! What calls fail of that GLM did not say: connections, clocks and the reading of what came.

use std::error::Error;
use std::io;

use onelane_core::model::{Failure, FailureClass, code, limits};

use super::connect::ConnectTimedOut;
use super::exchange::{Timeout, causes, is_end_of_connection};
use crate::tls::NoTrust;

/// The HTTP client can't be built: no TLS roots, for one.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be built: {0}")]
pub struct HttpGlmError(String);

impl From<reqwest::Error> for HttpGlmError {
    fn from(error: reqwest::Error) -> Self {
        Self(words(&error))
    }
}

impl From<NoTrust> for HttpGlmError {
    fn from(error: NoTrust) -> Self {
        Self(error.to_string())
    }
}

pub(super) fn transient(code: &str, message: String, maybe_billed: bool) -> Failure {
    Failure {
        maybe_billed,
        ..Failure::new(FailureClass::ServerTransient, code, message)
    }
}

/// Reading a response broke off: a fault of its reader.
pub(super) fn not_read(status: u16) -> Failure {
    Failure {
        status_code: Some(status),
        ..transient(
            code::BODY_INVALID,
            "the response could not be read".to_owned(),
            true,
        )
    }
}

pub(super) fn operator(code: &str, message: &str) -> Failure {
    Failure::new(FailureClass::OperatorFatal, code, message)
}

/// `reused`: the connection had stood before the call.
pub(super) fn no_response(error: &reqwest::Error, reused: bool, connect_ms: u64) -> Failure {
    if causes(error).any(|cause| cause.is::<ConnectTimedOut>()) {
        let message = format!("no connection within {connect_ms} ms");
        return Failure::new(FailureClass::Unreachable, code::TIMEOUT_CONNECT, message);
    }
    if error.is_connect() {
        // Nothing left.
        let (class, code) = match is_distrust(error) {
            true => (FailureClass::OperatorFatal, code::TLS_UNTRUSTED),
            false => (FailureClass::Unreachable, code::UNREACHABLE),
        };
        return Failure::new(class, code, words(error));
    }
    if reused && causes(error).any(is_end_of_connection) {
        // The server let go of the connection while the request was on its way.
        let message = format!(
            "a kept connection ended before an answer began: {}",
            words(error)
        );
        return transient(code::CONNECTION_ENDED, message, true);
    }
    // The whole request may have left.
    transient(code::CONNECTION, words(error), true)
}

/// `connect_ms`: the bound of connecting alone.
pub(super) fn timed_out(timeout: Timeout, connect_ms: u64) -> Failure {
    if !timeout.maybe_sent {
        // The time of the whole call was over before a connection stood.
        let Timeout { code, limit_ms, .. } = timeout;
        let (class, code) = match limit_ms >= connect_ms.min(limits::CONNECT_TELLS_MS) {
            true => (FailureClass::Unreachable, code::TIMEOUT_CONNECT),
            false => (FailureClass::ServerTransient, code),
        };
        let message = format!("no connection within {limit_ms} ms, all the time that the call had");
        return Failure::new(class, code, message);
    }
    let what = match timeout.code {
        code::TIMEOUT_FIRST_BYTE => "no response headers",
        code::TIMEOUT_IDLE => "no further piece of the response",
        _ => "no complete response",
    };
    transient(
        timeout.code,
        format!("{what} within {} ms", timeout.limit_ms),
        timeout.maybe_sent,
    )
}

/// The error below this one. An I/O error hides the one that it was made of: its source is the next below that.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(made_of) => Some(made_of),
        None => error.source(),
    }
}

/// Whether a proxy refused to make a way for TLS to somebody that it does not know.
pub(super) fn wants_credentials(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.to_string().contains("proxy authorization required"))
}

/// Whether the server's certificate was looked at and not believed.
fn is_distrust(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |cause| below(*cause)).any(|cause| {
        matches!(
            cause.downcast_ref::<rustls::Error>(),
            Some(
                rustls::Error::InvalidCertificate(_)
                    | rustls::Error::InvalidCertRevocationList(_)
                    | rustls::Error::NoCertificatesPresented
            )
        )
    })
}

/// The causes of an error in one line. The first is reqwest's frame, which holds the URL and no news.
pub(super) fn words(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = causes(error).skip(1).map(ToString::to_string).collect();
    // Some causes repeat the one below them.
    parts.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    if parts.is_empty() {
        return "the request failed in the HTTP client".to_owned();
    }
    parts.join(": ")
}
