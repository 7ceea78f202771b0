//! `/metrics`: every metric of reference/metrics.md, by etcd's names, types, labels and buckets.
//!
//! Three kinds: what is counted as it happens ([`mod@table`], [`calls`]); what is looked up when somebody asks
//! ([`Figures`], from the member); and what the operating system knows ([`process`]). The names of Go's runtime are there,
//! since dashboards and etcd's own tests ask for them; what has no meaning here is 0.

pub(crate) mod calls;
mod figures;
mod go;
mod instrument;
mod process;
mod shards;
mod table;
mod variables;

pub use calls::Passing;
pub use figures::{Figures, Progress, RaftFigures, TlsFigures};
pub use instrument::{Counter, Gauge, Histogram, Labelled};
pub(crate) use process::reads_proc;
pub use table::*;
pub(crate) use variables::variables;

use crate::answers::Body;
use crate::backend::Member;
use crate::plain::error;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use instrument::{Instrument, counted, gauged};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};
use std::convert::Infallible;
use std::io::Write as _;

/// As of now, all calls are measured (`--metrics=extensive`).
pub(crate) fn measure_latencies() {
    calls::measure_latencies();
}

const CONTENT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

/// Scrapes that are being answered, and those that were.
static IN_FLIGHT: Gauge = Gauge::new();
static SCRAPES: Counter = Counter::new();
static SCRAPES_FAILED: Counter = Counter::new();

/// Metrics of one scrape, in the making.
#[derive(Default)]
pub(crate) struct Families(Vec<MetricFamily>);

impl Families {
    pub fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // One without metrics is not shown, as in Go.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn instrument(&mut self, name: &str, help: &str, instrument: &impl Instrument) {
        let (kind, metrics) = instrument.metrics();
        self.add(name, help, kind, metrics);
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, MetricType::GAUGE, vec![gauged(&[], value)]);
    }

    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, MetricType::COUNTER, vec![counted(&[], value)]);
    }
}

/// Answers a scrape.
pub(crate) fn scrape<M: Member>(member: &M, extensive: bool, headers: &HeaderMap) -> Response<Body> {
    answered(headers, |families| {
        calls::gather(families, extensive);
        figures::gather(families, &member.figures());
    })
}

/// Answers a scrape of a proxy: what it counted, without a member's levels.
pub fn scrape_proxy(headers: &HeaderMap) -> Response<impl http_body::Body<Data = Bytes, Error = Infallible> + use<>> {
    answered(headers, |families| calls::gather(families, false))
}

fn answered(headers: &HeaderMap, gather: impl FnOnce(&mut Families)) -> Response<Body> {
    IN_FLIGHT.add(1);
    let answer = text(gather).and_then(|text| packed(text, headers));
    IN_FLIGHT.add(-1);
    match answer {
        Ok(response) => {
            SCRAPES.inc();
            response
        }
        Err(why) => {
            SCRAPES_FAILED.inc();
            error(StatusCode::INTERNAL_SERVER_ERROR, format!("An error has occurred while serving metrics:\n\n{why}"))
        }
    }
}

fn text(gather: impl FnOnce(&mut Families)) -> Result<Vec<u8>, String> {
    let mut families = Families::default();
    table::gather(&mut families);
    gather(&mut families);
    process::gather(&mut families);
    go::gather(&mut families);
    families.gauge(
        "promhttp_metric_handler_requests_in_flight",
        "Scrapes that are being answered.",
        IN_FLIGHT.read() as f64,
    );
    let scrapes = [("200", &SCRAPES), ("500", &SCRAPES_FAILED), ("503", &Counter::new())];
    let scrapes = scrapes.iter().map(|(code, count)| counted(&[("code", *code)], count.read() as f64));
    let help = "Scrapes by HTTP status.";
    families.add("promhttp_metric_handler_requests_total", help, MetricType::COUNTER, scrapes.collect());
    families.0.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.0, &mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

fn packed(text: Vec<u8>, headers: &HeaderMap) -> Result<Response<Body>, String> {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let gzip = accepted.split(',').any(|given| given.split(';').next().is_some_and(|name| name.trim() == "gzip"));
    let body = match gzip {
        true => {
            let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
            zip.write_all(&text).and_then(|()| zip.finish()).map_err(|e| e.to_string())?
        }
        false => text,
    };
    let mut response = Response::new(Body::Text(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
