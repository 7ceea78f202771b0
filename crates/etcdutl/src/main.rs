//! The `etcdutl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cobra::run(&etcdutl::PROGRAM, std::env::args_os().skip(1).collect()))
}
