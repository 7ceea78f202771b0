//! The `etcd` program.

use etcd::arch;
use etcd::commands;
use etcd::config::{self, Asked, Config, Failure, Loaded};
use etcd::logging::{self, Level, Note, Settings};
use rustix::process::Signal;
use server::member::Verify;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MISUSE: u8 = 2;
/// How Go's runtime ends on SIGQUIT.
const QUIT: i32 = 2;
/// What kills a process by default but not a Go program: its runtime takes these and does nothing.
const UNHEEDED: [Signal; 9] = [
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::POWER,
    Signal::XCPU,
    Signal::XFSZ,
];
/// … and these. The three below them are the C library's.
const REAL_TIME: std::ops::RangeInclusive<i32> = 35..=64;

fn main() -> ExitCode {
    let words: Vec<String> = match std::env::args_os().map(std::ffi::OsString::into_string).collect() {
        Ok(words) => words,
        Err(word) => return misuse(&format!("argument {word:?} is not UTF-8")),
    };
    if let Err(e) = take_signals() {
        eprintln!("etcd: cannot set signal handlers: {e}");
        return ExitCode::FAILURE;
    }
    // A variable that is not text can't be one of ours.
    let mut env: Vec<(String, String)> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let told = match check_arch(&mut env) {
        Ok(told) => told,
        Err(refused) => {
            logging::start(&Settings::default()).expect("stderr needs no opening");
            refused.log();
            return ExitCode::FAILURE;
        }
    };
    let args = words.get(1..).unwrap_or_default();
    if let Some("gateway" | "grpc-proxy") = args.first().map(String::as_str) {
        return ExitCode::from(cobra::run(&commands::PROGRAM, args.iter().map(Into::into).collect()));
    }
    #[cfg(feature = "failpoints")]
    if let Err(e) = failpoint::start() {
        println!("{e}");
        return ExitCode::FAILURE;
    }
    let verify = take_verify(&mut env);
    match config::load(args, &env) {
        Asked::Version => {
            print!("{}", version());
            ExitCode::SUCCESS
        }
        Asked::Help => {
            eprintln!("{}", config::USAGE);
            print!("{}", config::flags_help());
            ExitCode::SUCCESS
        }
        Asked::Misuse(text) => misuse(&text),
        Asked::Run(mut loaded) => {
            loaded.notes.splice(0..0, told);
            run(*loaded, &words, verify)
        }
    }
}

/// `ETCD_UNSUPPORTED_ARCH` is no setting: where it means something it is gone from `env` afterwards.
fn check_arch(env: &mut Vec<(String, String)>) -> Result<Option<Note>, Note> {
    let given = env.iter().position(|(name, _)| name == "ETCD_UNSUPPORTED_ARCH");
    let told = arch::check(arch::here(), given.map(|at| env[at].1.as_str()))?;
    if let (Some(_), Some(at)) = (&told, given) {
        env.remove(at);
    }
    Ok(told)
}

/// `ETCD_VERIFY` is no setting either. A value that means nothing stays, and is told of as an unknown variable.
fn take_verify(env: &mut Vec<(String, String)>) -> Verify {
    let found = env.iter().enumerate().filter(|(_, (name, _))| name == Verify::VARIABLE);
    match found.into_iter().find_map(|(at, (_, value))| Some((at, Verify::parse(value)?))) {
        Some((at, verify)) => {
            env.remove(at);
            verify
        }
        None => Verify::default(),
    }
}

/// Signals as a Go program takes them; those that stop a member are the driver's.
fn take_signals() -> std::io::Result<()> {
    for signal in UNHEEDED.into_iter().map(Signal::as_raw).chain(REAL_TIME) {
        // A handler that sets what nobody reads.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    signal_hook::flag::register_conditional_shutdown(Signal::QUIT.as_raw(), QUIT, Arc::new(AtomicBool::new(true)))?;
    Ok(())
}

fn misuse(text: &str) -> ExitCode {
    eprintln!("{text}\n{}", config::USAGE);
    ExitCode::from(MISUSE)
}

/// etcd's four lines, then ours.
fn version() -> String {
    let (os, arch) = (std::env::consts::OS, arch::here());
    format!(
        "etcd Version: {}\nGit SHA: {}\nGo Version: {}\nGo OS/Arch: {os}/{arch}\noxetcd {}\n",
        api::version::SERVER,
        "Not provided (this is oxetcd)",
        "none (this is oxetcd, in Rust)",
        env!("CARGO_PKG_VERSION")
    )
}

fn run(loaded: Loaded, words: &[String], verify: Verify) -> ExitCode {
    let Loaded { config, mut notes, mut failure } = loaded;
    if failure.is_none() {
        failure = start_log(&config).err();
    }
    match failure {
        Some(Failure::Misuse(text)) => return misuse(&text),
        // What is refused before there is a log, or because of it, is told on stderr.
        Some(_) => logging::start(&Settings::default()).expect("stderr needs no opening"),
        None => failure = config::validate(&config, &mut notes).err().map(Failure::Verify),
    }
    notes.into_iter().for_each(|note| note.log());
    if let Some(failure) = failure {
        return refuse(failure);
    }
    Note::new(Level::Info, "Running: ").with("args", words.to_vec()).log();
    match etcd::driver::run(&config, verify) {
        Ok(signal) => leave(signal),
        Err(why) => {
            Note::new(Level::Fatal, "failed to start etcd").text("error", &why.to_string()).log();
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) -> Result<(), Failure> {
    logging::start(&config::log_settings(config)?).map_err(Failure::Verify)
}

fn refuse(failure: Failure) -> ExitCode {
    match failure {
        Failure::Verify(text) => Note::new(Level::Warn, "failed to verify flags").text("error", &text).log(),
        Failure::Conflict { variable } => {
            Note::new(Level::Fatal, Failure::CONFLICT).text("environment-variable", &variable).log();
        }
        Failure::Print(text) | Failure::Misuse(text) => eprintln!("{text}"),
    }
    ExitCode::FAILURE
}

/// A shell, or a supervisor, shall see which signal ended the member; the first process of a container just ends.
fn leave(signal: i32) -> ExitCode {
    if std::process::id() != 1
        && let Err(e) = signal_hook::low_level::emulate_default_handler(signal)
    {
        eprintln!("etcd: cannot end by signal {signal}: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
