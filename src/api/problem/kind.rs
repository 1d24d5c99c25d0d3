//! The kinds of wrong: status, name, title and GLM's code of each.

use warp::http::StatusCode;

/// The table of kinds: status, name in `type`, title, and the code of GLM's table that says the same; where GLM has none,
/// since it is the lane's own doing, the status stands for it.
macro_rules! kinds {
    ($($name:ident: $status:ident, $slug:literal, $title:literal, $code:literal;)*) => {
        /// The kinds of wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            /// All of them.
            pub(in crate::api) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code where GLM's form is spoken.
            pub(in crate::api) const fn glm_code(self) -> &'static str {
                self.facts().3
            }

            pub(super) const fn facts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $slug, $title, $code),)*
                }
            }
        }
    };
}

kinds! {
    Unreadable: BAD_REQUEST, "unreadable", "no HTTP request", "1222";
    TlsAlone: BAD_REQUEST, "tls-alone", "TLS needed", "1222";
    TargetTooLong: URI_TOO_LONG, "target-too-long", "target too long", "1222";
    HeadersTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "headers too large", "1214";
    HeadersTimeout: REQUEST_TIMEOUT, "headers-timeout", "headers too slow", "1214";
    InvalidTarget: BAD_REQUEST, "invalid-target", "no path", "1222";
    InvalidHost: BAD_REQUEST, "invalid-host", "not one host", "1214";
    UnknownRoute: NOT_FOUND, "unknown-route", "no such route", "1222";
    WrongMethod: METHOD_NOT_ALLOWED, "wrong-method", "wrong method", "1222";
    Unauthorized: UNAUTHORIZED, "unauthorized", "token needed", "1000";
    Forbidden: FORBIDDEN, "forbidden", "not from here", "1220";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "not JSON", "1210";
    MalformedJson: BAD_REQUEST, "malformed-json", "malformed JSON", "1210";
    InvalidBody: BAD_REQUEST, "invalid-body", "wrong body", "1210";
    InvalidField: BAD_REQUEST, "invalid-field", "wrong field", "1214";
    MissingField: BAD_REQUEST, "missing-field", "missing field", "1213";
    InvalidQuery: BAD_REQUEST, "invalid-query", "wrong parameter", "1214";
    InvalidHeader: BAD_REQUEST, "invalid-header", "wrong header", "1214";
    InvalidId: BAD_REQUEST, "invalid-id", "wrong id", "1214";
    BodyTooLarge: PAYLOAD_TOO_LARGE, "body-too-large", "body too large", "1261";
    BodyTimeout: REQUEST_TIMEOUT, "body-timeout", "body too slow", "1210";
    UnknownJob: NOT_FOUND, "unknown-job", "no such job", "1214";
    UnknownModel: NOT_FOUND, "unknown-model", "no such model", "1211";
    UnknownFile: NOT_FOUND, "unknown-file", "no such file", "1214";
    UnknownBatch: NOT_FOUND, "unknown-batch", "no such batch", "1214";
    FileInUse: CONFLICT, "file-in-use", "file in use", "1214";
    FilesFull: PAYLOAD_TOO_LARGE, "files-full", "no room for more files", "1214";
    WrongStatus: CONFLICT, "wrong-status", "not in this status", "1214";
    IdempotencyConflict: CONFLICT, "idempotency-conflict", "key used for another request", "1231";
    NoStream: CONFLICT, "no-stream", "nothing to stream", "1214";
    RequestPruned: CONFLICT, "request-pruned", "request pruned", "1214";
    QueueFull: TOO_MANY_REQUESTS, "queue-full", "queue full", "1302";
    Draining: SERVICE_UNAVAILABLE, "draining", "intake closed", "503";
    OverBudget: TOO_MANY_REQUESTS, "over-budget", "budget used up", "1113";
    BeyondBudget: UNPROCESSABLE_ENTITY, "beyond-budget", "larger than a budget", "1113";
    UnknownDependency: UNPROCESSABLE_ENTITY, "unknown-dependency", "no such job to run after", "1214";
    UnpricedModel: UNPROCESSABLE_ENTITY, "unpriced-model", "model without a price", "1211";
    DependencyEnded: CONFLICT, "dependency-ended", "a job before it has ended", "1214";
    UnknownAttempt: NOT_FOUND, "unknown-attempt", "no such attempt", "1214";
    BillingSettled: CONFLICT, "billing-settled", "not waiting to be settled", "1214";
    AccountNotAsked: CONFLICT, "account-not-asked", "GLM is not asked what it counts", "1214";
    UnknownHold: NOT_FOUND, "unknown-hold", "not held", "1214";
    UnknownDelivery: NOT_FOUND, "unknown-delivery", "no such delivery", "1214";
    UnknownEndpoint: NOT_FOUND, "unknown-endpoint", "no such endpoint", "1214";
    BeyondRights: FORBIDDEN, "beyond-rights", "beyond the rights of the key", "1220";
    RateLimited: TOO_MANY_REQUESTS, "rate-limited", "too many requests a minute", "1302";
    UnknownKey: NOT_FOUND, "unknown-key", "no such client key", "1214";
    DeadKey: CONFLICT, "dead-key", "client key does not open", "1214";
    CallbackRefused: UNPROCESSABLE_ENTITY, "callback-refused", "callback not allowed", "1214";
    JobFailed: BAD_GATEWAY, "job-failed", "job failed", "1200";
    JobCancelled: CONFLICT, "job-cancelled", "job cancelled", "409";
    WaitTimeout: GATEWAY_TIMEOUT, "wait-timeout", "not done yet", "1234";
    WaitsInVain: SERVICE_UNAVAILABLE, "waits-in-vain", "would wait too long", "503";
    WaitsForQuota: TOO_MANY_REQUESTS, "waits-for-quota", "quota or budget used up", "1113";
    Busy: SERVICE_UNAVAILABLE, "busy", "too much at once", "503";
    StoreFailed: SERVICE_UNAVAILABLE, "store-failed", "store failed", "503";
    Stopped: SERVICE_UNAVAILABLE, "stopped", "lane stopped", "503";
    Internal: INTERNAL_SERVER_ERROR, "internal", "internal error", "500";
}

impl Kind {
    /// Its status.
    pub(crate) const fn status(self) -> StatusCode {
        self.facts().0
    }

    /// Its name in `type`.
    pub(in crate::api) const fn name(self) -> &'static str {
        self.facts().1
    }

    /// What it means, in a few words.
    pub(crate) const fn title(self) -> &'static str {
        self.facts().2
    }
}
