//! The `etcd-dump-logs` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(etcdutl::dump::logs(std::env::args_os().skip(1).collect()))
}
