//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(etcdctl::run(std::env::args_os().skip(1).collect()))
}
