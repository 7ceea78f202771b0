//! The `oxetcd-bench` program.

use std::process::ExitCode;

// As our server: what the tool itself costs must stay small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    match words {
        Ok(words) => bench::commands::run(&words),
        Err(word) => {
            eprintln!("Error: argument {word:?} is not UTF-8");
            ExitCode::from(255)
        }
    }
}
