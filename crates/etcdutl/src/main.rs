//! The `etcdutl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(etcdutl::cobra::run(&etcdutl::PROGRAM, std::env::args_os().skip(1).collect()))
}
