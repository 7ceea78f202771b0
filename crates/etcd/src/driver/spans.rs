//! Spans of calls for an OpenTelemetry collector, over OTLP/gRPC without TLS, as Go's etcd sends them
//! (`--enable-distributed-tracing`): sampled by the trace that a call is a part of, else by `--distributed-tracing-sampling-rate`.
//!
//! ```text
//! call ends ─► queue of 2048, past which spans are lost ─► a thread of the SDK's, every 5 s or 512 spans ─► collector
//! ```
//!
//! Spans carry no key, no value and nobody's credentials.

use crate::config::Config;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{self as sdk, Sampler, SdkTracer, SdkTracerProvider, SpanData};
use rpc::{Origin, Span, Spans};
use server::Fatal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::Code;
use tracing::{debug, info, warn};

/// Of how many spans the rate says how many are collected.
const MILLION: f64 = 1_000_000.0;
/// How long a stop waits for the collector to take the last spans.
const LAST: Duration = Duration::from_secs(2);

/// The way to the collector; what is left goes there when it is dropped.
pub struct Collector {
    provider: SdkTracerProvider,
    tracer: Arc<Recorder>,
    /// Ends the connection's thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// The one that the flags name, if they do. It is connected to when there is something to be sent.
    ///
    /// # Errors
    /// Its address is none, or there is no thread.
    pub fn of(config: &Config) -> Result<Option<Collector>, Fatal> {
        if !config.enable_distributed_tracing {
            return Ok(None);
        }
        let address = &config.distributed_tracing_address;
        let failed = |why: String| Fatal::new(format!("--distributed-tracing-address={address}: {why}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| failed(e.to_string()))?;
        let exporter = {
            let _entered = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(format!("http://{address}")).build()
        };
        let exporter = Telling { inner: exporter.map_err(|e| failed(e.to_string()))?, failing: AtomicBool::new(false) };
        let (end, ended) = oneshot::channel::<()>();
        // A sender that is gone ends it, too.
        let thread = super::spawn("spans", move || runtime.block_on(async { drop(ended.await) }))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(sampler(config.distributed_tracing_sampling_rate))))
            .with_resource(resource(config))
            .build();
        let tracer = provider.tracer("oxetcd");
        debug!(
            address,
            "service-name" = config.distributed_tracing_service_name,
            "service-instance-id" = config.distributed_tracing_instance_id,
            "sampling-rate" = config.distributed_tracing_sampling_rate,
            "distributed tracing enabled"
        );
        info!("distributed tracing setup enabled");
        let tracer = Arc::new(Recorder { tracer, propagator: TraceContextPropagator::new() });
        Ok(Some(Collector { provider, tracer, end: Some(end), thread: Some(thread) }))
    }

    /// Who makes the spans.
    pub fn spans(&self) -> Arc<dyn Spans> {
        self.tracer.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Err(e) = self.provider.shutdown_with_timeout(LAST) {
            warn!(error = %e, "the last spans did not reach the collector");
        }
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread of the collector's connection panicked");
        }
    }
}

/// As in Go: a rate of 0 collects what others' traces ask for, and nothing else.
fn sampler(rate: i64) -> Sampler {
    match rate {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(rate as f64 / MILLION),
    }
}

fn resource(config: &Config) -> Resource {
    let name = KeyValue::new("service.name", config.distributed_tracing_service_name.clone());
    let id = &config.distributed_tracing_instance_id;
    let id = (!id.is_empty()).then(|| KeyValue::new("service.instance.id", id.clone()));
    Resource::builder_empty().with_attributes([name].into_iter().chain(id)).build()
}

/// Makes spans.
#[derive(Debug)]
struct Recorder {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Spans for Recorder {
    fn begin(&self, service: &'static str, method: &'static str, origin: &Origin<'_>) -> Option<Box<dyn Span>> {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(origin));
        let name = format!("{service}/{method}");
        let server = origin.server.map(|server| {
            let (host, port) = (server.ip().to_string(), i64::from(server.port()));
            [KeyValue::new("server.address", host), KeyValue::new("server.port", port)]
        });
        let call = [KeyValue::new("rpc.method", name.clone()), KeyValue::new("rpc.system.name", "grpc")];
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_attributes(call.into_iter().chain(server.into_iter().flatten()));
        let span = self.tracer.build_with_context(builder, &parent);
        span.is_recording().then(|| Box::new(Going(span)) as Box<dyn Span>)
    }
}

/// A call's headers of W3C's trace context.
struct Headers<'a>(&'a Origin<'a>);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.traceparent,
            "tracestate" => self.0.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// A span whose call goes on.
#[derive(Debug)]
struct Going(sdk::Span);

impl Span for Going {
    fn end(mut self: Box<Self>, code: Code) {
        self.0.set_attribute(KeyValue::new("rpc.response.status_code", name(code)));
        // Whose fault it is: the others are the client's.
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

/// gRPC's name of a code.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Tells the log when the collector can't be reached, and when it can again.
#[derive(Debug)]
struct Telling {
    inner: SpanExporter,
    failing: AtomicBool,
}

impl sdk::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.inner.export(batch).await;
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(e) if !failed_before => warn!(error = %e, spans, "the collector takes no spans; they are lost"),
            Ok(()) if failed_before => info!("the collector takes spans again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_who_is_meant_and_how_many_are_collected() {
        assert!(Collector::of(&Config::default()).unwrap().is_none());
        let config = Config {
            distributed_tracing_service_name: "etcd-a".into(),
            distributed_tracing_instance_id: "m1".into(),
            ..Config::default()
        };
        let shown = |config: &Config| {
            let mut all: Vec<_> = resource(config).iter().map(|(key, value)| format!("{key}={value}")).collect();
            all.sort();
            all
        };
        assert_eq!(shown(&config), ["service.instance.id=m1", "service.name=etcd-a"]);
        assert_eq!(shown(&Config::default()), ["service.name=etcd"]);
        assert!(matches!(sampler(0), Sampler::AlwaysOff));
        assert!(matches!(sampler(250_000), Sampler::TraceIdRatioBased(part) if (part - 0.25).abs() < 1e-9));
        let bad =
            Config { enable_distributed_tracing: true, distributed_tracing_address: "a b".into(), ..Config::default() };
        let why = Collector::of(&bad).err().unwrap().to_string();
        assert!(why.contains("--distributed-tracing-address=a b: "), "{why}");
    }
}
