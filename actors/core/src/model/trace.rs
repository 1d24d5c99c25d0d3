//! Where a request stands in a distributed trace: W3C Trace Context, as its headers `traceparent` and `tracestate`
//! carry it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits;

/// The header that names a trace and the span in it.
pub const TRACEPARENT: &str = "traceparent";
/// The header in which tracing systems keep what is their own.
pub const TRACESTATE: &str = "tracestate";

/// The flag that says that a trace is recorded.
const SAMPLED: u8 = 0x01;
/// The flag that says that the end of the trace's id is random.
const RANDOM: u8 = 0x02;

/// A trace and the span in it that something is done for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Headers", into = "Headers")]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<String>,
}

/// The form in which rows keep it: that of the headers.
#[derive(Serialize, Deserialize)]
struct Headers {
    traceparent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

/// The span of its submitter that a job is done for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TraceOrigin {
    /// The job is a part of this trace: its spans are children of this one.
    Parent(TraceContext),
    /// The job is one of many that this span began: it has a trace of its own, which is linked to it.
    Link(TraceContext),
}

impl TraceOrigin {
    /// The span.
    #[must_use]
    pub const fn span(&self) -> &TraceContext {
        match self {
            Self::Parent(span) | Self::Link(span) => span,
        }
    }
}

impl TraceContext {
    /// This span of this trace, recorded or not.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Self {
        Self {
            trace_id,
            span_id,
            flags: if is_sampled { SAMPLED } else { 0 },
            state: None,
        }
    }

    /// Reads the values of the two headers. As the specification wants it, a `traceparent` that is not well formed
    /// counts as none, and a `tracestate` that is not as no state.
    #[must_use]
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim_matches([' ', '\t']).split('-');
        let [version] = hex(parts.next()?)?;
        let trace_id = hex(parts.next()?)?;
        let span_id = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        // A later version may have more parts.
        let is_known = version != u8::MAX && (version != 0 || parts.next().is_none());
        let read = is_known.then(|| Self {
            trace_id,
            span_id,
            flags: flags & (SAMPLED | RANDOM),
            state: tracestate.and_then(state),
        });
        read.filter(Self::names_a_span)
    }

    /// Whether it names a span at all. Where no span is open, tracing libraries tell of one whose ids are zeros; the
    /// specification takes that for none, and so does a submission.
    #[must_use]
    pub fn names_a_span(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn at(&self, span_id: [u8; 8], is_sampled: bool) -> Self {
        Self {
            span_id,
            flags: self.flags & !SAMPLED | u8::from(is_sampled),
            ..self.clone()
        }
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span.
    #[must_use]
    pub const fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether whoever made the span records it.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of the header `tracestate`.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// The value of the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id
            .iter()
            .try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl From<TraceContext> for Headers {
    fn from(context: TraceContext) -> Self {
        Self {
            traceparent: context.to_string(),
            tracestate: context.state,
        }
    }
}

impl TryFrom<Headers> for TraceContext {
    type Error = &'static str;

    fn try_from(headers: Headers) -> Result<Self, Self::Error> {
        let read = Self::read(&headers.traceparent, headers.tracestate.as_deref());
        read.ok_or("no traceparent of W3C Trace Context")
    }
}

/// So many bytes in hexadecimal digits, which the specification wants in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A `tracestate` of bounded length, if it is a list of members.
fn state(text: &str) -> Option<String> {
    let members: Vec<&str> = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let is_member = |member: &&str| {
        let (key, value) = member.split_once('=').unwrap_or_default();
        let is_printable = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
        !key.is_empty()
            && !value.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_graphic())
            && value.bytes().all(is_printable)
    };
    let text = members.join(",");
    let fits = (1..=limits::TRACESTATE_MEMBERS_MAX).contains(&members.len())
        && text.len() <= limits::TRACESTATE_BYTES_MAX;
    (fits && members.iter().all(is_member)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_the_specification_has_it() {
        let read = TraceContext::read(PARENT, Some("vendor=1, other=a:b")).unwrap();
        assert_eq!(read.to_string(), PARENT);
        assert_eq!(read.state(), Some("vendor=1,other=a:b"));
        assert!(read.is_sampled());
        let other = read.at([7; 8], false);
        assert_eq!(
            other.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-00"
        );
        assert_eq!(other.state(), read.state());
        // What later versions add is not ours to pass on.
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more";
        let later = TraceContext::read(later, None).unwrap().to_string();
        assert_eq!(
            later,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"
        );
    }

    #[test]
    fn a_malformed_traceparent_counts_as_none() {
        for odd in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::read(odd, None), None, "{odd}");
        }
    }

    #[test]
    fn a_tracestate_that_is_malformed_or_too_long_is_left_out() {
        let long = format!("a={}", "x".repeat(limits::TRACESTATE_BYTES_MAX));
        let many = vec!["a=1"; limits::TRACESTATE_MEMBERS_MAX + 1].join(",");
        for odd in ["", " ", "a", "=1", "a=", "a=\u{e9}", &long, &many] {
            let read = TraceContext::read(PARENT, Some(odd)).unwrap();
            assert_eq!(read.state(), None, "{odd}");
        }
    }

    #[test]
    fn a_row_keeps_it_as_its_headers_have_it() {
        let context = TraceContext::read(PARENT, Some("a=1")).unwrap();
        let row = serde_json::to_string(&context).unwrap();
        assert_eq!(
            row,
            format!(r#"{{"traceparent":"{PARENT}","tracestate":"a=1"}}"#)
        );
        let back: TraceContext = serde_json::from_str(&row).unwrap();
        assert_eq!(back, context);
        assert!(serde_json::from_str::<TraceContext>(r#"{"traceparent":"x"}"#).is_err());
    }
}
