//! Spans of calls, for whoever collects them (OpenTelemetry; the driver has the collector's client).
//!
//! A span is told what it is of, whose part it is and how it ended. It is never told a key, a value, a password or a token.

use std::fmt::Debug;
use std::net::SocketAddr;
use tonic::Code;

/// Where a call comes from, as far as spans are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The address that the client connected to.
    pub server: Option<SocketAddr>,
    /// W3C's headers of the trace that the call is a part of.
    pub traceparent: Option<&'a str>,
    pub tracestate: Option<&'a str>,
}

/// Who makes spans of calls.
pub trait Spans: Debug + Send + Sync {
    /// A call begins; `None` where nobody looks at it.
    fn begin(&self, service: &'static str, method: &'static str, origin: &Origin<'_>) -> Option<Box<dyn Span>>;
}

/// One that goes on.
pub trait Span: Debug + Send + Sync {
    /// It is over.
    fn end(self: Box<Self>, code: Code);
}
