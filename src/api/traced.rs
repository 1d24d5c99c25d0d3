//! The span of the client that a request is made for, as W3C Trace Context has it in headers.

use onelane_core::model::{TRACEPARENT, TRACESTATE, TraceContext, TraceOrigin};
use warp::http::HeaderMap;

use super::Api;
use super::endpoint::Endpoint;

impl Api {
    /// The span that headers name, where the lane exports traces. One that is malformed counts as none, as one of two
    /// does.
    pub(super) fn span_of(&self, headers: &HeaderMap) -> Option<Box<TraceContext>> {
        if !self.lane.exports_traces() {
            return None;
        }
        read(headers).map(Box::new)
    }

    /// The same, of a job that is a part of its trace.
    pub(super) fn parent_in(&self, headers: &HeaderMap) -> Option<Box<TraceOrigin>> {
        let span = self.span_of(headers)?;
        Some(Box::new(TraceOrigin::Parent(*span)))
    }
}

fn read(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (parent, None) = (parents.next()?.to_str().ok()?, parents.next()) else {
        return None;
    };
    let lines = headers.get_all(TRACESTATE).iter();
    // One line that can't be read spoils the list.
    let state: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
    let state = state.filter(|lines| !lines.is_empty());
    TraceContext::read(parent, state.map(|lines| lines.join(",")).as_deref())
}

/// The row of what takes a span of its client.
pub(super) fn tracing(row: Endpoint) -> Endpoint {
    row.header(
        TRACEPARENT,
        "The span that it is done for, where traces are exported (`[otlp]`); malformed, it is ignored.",
    )
    .header(TRACESTATE, "What goes with it.")
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_span_is_read_of_its_one_header_and_the_lines_of_its_state_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), None);
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(read(&headers), None);
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        let span = read(&headers).unwrap();
        assert_eq!(
            (span.to_string().as_str(), span.state()),
            (PARENT, Some("a=1,b=2"))
        );
        headers.append(TRACESTATE, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(read(&headers).unwrap().state(), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(read(&headers), None, "there are two");
    }
}
