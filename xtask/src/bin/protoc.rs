//! What `prost-build` asks of `protoc`, in Rust: a file descriptor set from proto files. It lets crates whose build
//! scripts call `protoc` be built on a machine without it (`PROTOC=target/debug/protoc`).

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("protoc (protox): {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (mut includes, mut files, mut out) = (Vec::new(), Vec::new(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // prost-build always asks for both, and protox always gives them.
            "--include_imports" | "--include_source_info" | "--experimental_allow_proto3_optional" => {}
            "-I" | "--proto_path" => includes.push(PathBuf::from(words.next().ok_or("-I needs a folder")?)),
            "-o" => out = Some(PathBuf::from(words.next().ok_or("-o needs a file")?)),
            "--version" => {
                println!("libprotoc 29.0");
                return Ok(());
            }
            other if other.starts_with('-') => return Err(format!("{other} is not supported").into()),
            file => files.push(PathBuf::from(file)),
        }
    }
    let out = out.ok_or("-o is missing")?;
    let set = protox::Compiler::new(includes)?
        .include_imports(true)
        .include_source_info(true)
        .open_files(files)?
        .encode_file_descriptor_set();
    std::fs::write(out, set)?;
    Ok(())
}
