//! The `etcd-dump-db` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cobra::run(&etcdutl::dump::DB, std::env::args_os().skip(1).collect()))
}
