//! The `etcd-dump-metrics` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(etcdutl::dump::metrics(std::env::args_os().skip(1).collect()))
}
