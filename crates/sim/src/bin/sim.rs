//! Runs seeds: `sim --seeds FROM..TO [--steps N] [--seconds S] [--verbose]`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Args {
    from: u64,
    to: u64,
    steps: u64,
    seconds: Option<u64>,
    verbose: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(e) => {
            eprintln!("sim: {e}\nusage: sim --seeds FROM..TO [--steps N] [--seconds S] [--verbose]");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let (mut done, mut acknowledged, mut crashes, mut reads) = (0, 0, 0, 0);
    for seed in args.from..args.to {
        if args.seconds.is_some_and(|s| started.elapsed() > Duration::from_secs(s)) {
            break;
        }
        let first = sim::world::run(seed, args.steps, args.verbose);
        let second = sim::world::run(seed, args.steps, false);
        match (first, second) {
            (Ok(a), Ok(b)) if a == b => {
                done += 1;
                acknowledged += a.acknowledged;
                crashes += a.crashes;
                reads += a.reads;
            }
            (Ok(a), Ok(b)) => return fail(seed, args.steps, &format!("runs differ: {a:?} and {b:?}")),
            (Err(e), _) | (_, Err(e)) => return fail(seed, args.steps, &e),
        }
    }
    println!("{done} seeds: {acknowledged} operations acknowledged, {reads} reads, {crashes} crashes, each run twice");
    println!("{done} passed, 0 failed");
    ExitCode::SUCCESS
}

fn fail(seed: u64, steps: u64, why: &str) -> ExitCode {
    eprintln!("seed {seed} failed: {why}");
    eprintln!("replay: cargo run -p sim --bin sim -- --seeds {seed}..{} --steps {steps} --verbose", seed + 1);
    ExitCode::FAILURE
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args { from: 0, to: 100, steps: 400, seconds: None, verbose: false };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds takes FROM..TO")?;
                parsed.from = number(from)?;
                parsed.to = number(to)?;
            }
            "--steps" => parsed.steps = number(&value()?)?,
            "--seconds" => parsed.seconds = Some(number(&value()?)?),
            "--verbose" => parsed.verbose = true,
            other => return Err(format!("unknown flag {other}")),
        }
    }
    Ok(parsed)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}
