//! The names of Go's runtime. Dashboards show them and etcd's own tests ask for them; a program that has no collector of
//! garbage says what it can of its memory, and 0 of the rest.

use super::Families;
use prometheus::proto::{Metric, MetricType, Quantile, Summary};

/// Stands where Go's version stands.
pub(crate) const VERSION: &str = concat!("oxetcd-", env!("CARGO_PKG_VERSION"));

/// Figures that mean nothing here.
const NOTHING: [&str; 21] = [
    "go_gc_gogc_percent",
    "go_memstats_buck_hash_sys_bytes",
    "go_memstats_gc_sys_bytes",
    "go_memstats_heap_alloc_bytes",
    "go_memstats_heap_idle_bytes",
    "go_memstats_heap_inuse_bytes",
    "go_memstats_heap_objects",
    "go_memstats_heap_released_bytes",
    "go_memstats_heap_sys_bytes",
    "go_memstats_last_gc_time_seconds",
    "go_memstats_mcache_inuse_bytes",
    "go_memstats_mcache_sys_bytes",
    "go_memstats_mspan_inuse_bytes",
    "go_memstats_mspan_sys_bytes",
    "go_memstats_next_gc_bytes",
    "go_memstats_other_sys_bytes",
    "go_memstats_stack_inuse_bytes",
    "go_memstats_stack_sys_bytes",
    "go_memstats_alloc_bytes",
    "go_goroutines",
    "go_gc_gomemlimit_bytes",
];
const COUNTED: [&str; 3] = ["go_memstats_alloc_bytes_total", "go_memstats_frees_total", "go_memstats_mallocs_total"];
const QUANTILES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

pub(super) fn gather(families: &mut Families) {
    for name in NOTHING {
        families.gauge(name, "Of Go's runtime: 0 here.", 0.0);
    }
    for name in COUNTED {
        families.counter(name, "Of Go's runtime: 0 here.", 0.0);
    }
    let version = super::gauged(&[("version", VERSION)], 1.0);
    families.add("go_info", "What runs this.", MetricType::GAUGE, vec![version]);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    families.gauge("go_sched_gomaxprocs_threads", "Processors that may be used.", processors as f64);
    let process = super::process::Process::read();
    families.gauge("go_threads", "Threads.", process.threads);
    families.gauge("go_memstats_sys_bytes", "Memory that is resident.", process.resident);
    families.add("go_gc_duration_seconds", "Of Go's runtime: 0 here.", MetricType::SUMMARY, vec![pauses()]);
}

fn pauses() -> Metric {
    let quantile = |at: f64| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(at);
        quantile
    };
    let mut summary = Summary::default();
    summary.set_quantile(QUANTILES.map(quantile).to_vec());
    let mut metric = Metric::default();
    metric.set_summary(summary);
    metric
}
