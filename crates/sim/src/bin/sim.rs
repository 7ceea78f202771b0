//! Runs seeds, or sweeps one of them; see [`USAGE`].

use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: sim --seeds FROM..TO [--steps N] [--seconds S] [--at-least N] [--verbose] [--keep-going]
       sim --cluster --seeds FROM..TO [--seconds S] [--at-least N] [--verbose] [--keep-going] [--shorten S]
       sim --story 'SEED LIFE BEND…' [--verbose]
       sim --scenarios [--seeds FROM..TO] [--only NAME] [--verbose]
       sim --mutants [--seeds FROM..TO] [--only NAME] [--shorten S]      (needs the cargo feature mutants)
       sim --sweep SEED|FROM..TO [--steps N] [--stride N] [--seconds S] [--at-least N]
       sim --crash-at OPERATION:lose|random|keep --seeds SEED..SEED+1 [--steps N] [--verbose]

  --seeds FROM..TO   lives with random faults, each run twice: equal seeds must give equal traces
  --cluster          whole clusters instead of one member; one seed in 20 is run twice
  --mutants          each known mistake on its own, in clusters, until a seed notices it; fails when none does
  --scenarios        clusters in which known bugs of etcd would show: each passes, and what it is about happens
  --shorten S        look for so many seconds for the shortest story that fails as a seed did (60; 0 for mutants), and
                     print it with its last events
  --story STORY      such a story again
  --only NAME        this mutant or scenario alone
  --sweep SEED       one short life without random faults, then the same life crashed at each of its disk
                     operations, in each mode of losing what was not synced
  --crash-at OP:MODE one life of a sweep, for replaying it
  --steps N          steps of a life (400; 60 in a sweep)
  --stride N         in a sweep: only each N-th disk operation
  --seconds S        stop after so long
  --at-least N       fail when fewer seeds than N passed or were swept
  --verbose          every event of the first run
  --keep-going       do not stop at the first seed that fails";

/// Runs of scenarios that a mutant may survive.
#[cfg(feature = "mutants")]
const SCENARIO_RUNS: usize = 1000;
/// How long a shorter story is looked for.
const SHORTEN: Duration = Duration::from_secs(60);
/// Events of it that are shown.
const LAST: usize = 60;
/// Of so many cluster seeds one is run twice.
const TWICE: u64 = 20;

struct Args {
    seeds: std::ops::Range<u64>,
    sweep: bool,
    cluster: bool,
    mutants: bool,
    scenarios: bool,
    only: Option<String>,
    crash_at: Option<(u64, disk::Crash)>,
    steps: Option<u64>,
    stride: u64,
    limit: Duration,
    at_least: u64,
    verbose: bool,
    keep_going: bool,
    shorten: Option<Duration>,
    story: Option<sim::cluster::Story>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(e) => {
            eprintln!("sim: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let failed = match args {
        Args { crash_at: Some((at, mode)), .. } => replay(&args, at, mode),
        Args { sweep: true, .. } => sweep(&args),
        Args { mutants: true, .. } => mutants(&args),
        Args { scenarios: true, .. } => scenarios(&args),
        Args { story: Some(ref story), .. } => tell(story, args.verbose),
        Args { cluster: true, .. } => clusters(&args),
        _ => seeds(&args),
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(args: &Args) -> u64 {
    let (started, steps) = (Instant::now(), args.steps.unwrap_or(400));
    let mut total = sim::world::Report::default();
    let (mut done, mut failed) = (0, 0);
    for seed in args.seeds.clone().take_while(|_| started.elapsed() < args.limit) {
        let first = sim::world::run(seed, steps, args.verbose);
        let second = sim::world::run(seed, steps, false);
        let why = match (first, second) {
            (Ok(a), Ok(b)) if a == b => {
                done += 1;
                total.add(&a);
                continue;
            }
            (Ok(a), Ok(b)) => format!("runs differ: {a:?} and {b:?}"),
            (Err(a), Err(b)) if a != b => format!("runs differ: {a} and {b}"),
            (Err(e), _) | (_, Err(e)) => e,
        };
        failed += 1;
        eprintln!("seed {seed} failed: {why}");
        eprintln!("replay: cargo run -p sim --bin sim -- --seeds {seed}..{} --steps {steps} --verbose", seed + 1);
        if !args.keep_going {
            break;
        }
    }
    println!("{done} seeds, each run twice: {total}");
    println!("{done} passed, {failed} failed");
    failed + too_few(done, args)
}

#[cfg(not(feature = "mutants"))]
fn mutants(_: &Args) -> u64 {
    eprintln!("sim: this build has no mutants: cargo run -p sim --features mutants --bin sim -- --mutants");
    1
}

/// What no seed notices, a scenario may.
#[cfg(feature = "mutants")]
fn by_scenario(args: &Args) -> Option<(String, String)> {
    let runs = args.seeds.clone().flat_map(|seed| sim::cluster::SCENARIOS.iter().map(move |scenario| (scenario, seed)));
    runs.take(SCENARIO_RUNS).find_map(|(scenario, seed)| {
        Some((format!("`{}`, seed {seed}", scenario.name), scenario.run(seed, args.verbose).err()?))
    })
}

/// How many seeds each mutant lives.
#[cfg(feature = "mutants")]
fn mutants(args: &Args) -> u64 {
    use failpoint::mutant::{MUTANTS, switch_to};
    // They panic as they should; the seeds' errors say so.
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = 0;
    let chosen = MUTANTS.iter().filter(|(name, _)| args.only.as_deref().is_none_or(|only| only == *name));
    for (name, what) in chosen {
        switch_to(Some(name)).expect("it is in the list");
        let by_seed = |seed| {
            let why = sim::cluster::run(seed, args.verbose).err()?;
            let short = shorten(seed, args.shorten.unwrap_or_default());
            let lines = short.map(|s| format!(", {} events, {} in the shortest story", s.lines.0, s.lines.1));
            Some((format!("seed {seed}{}", lines.unwrap_or_default()), why))
        };
        let caught = args.seeds.clone().find_map(by_seed).or_else(|| by_scenario(args));
        switch_to(None).expect("none is always there");
        missed += u64::from(caught.is_none());
        match caught {
            Some((by, why)) => println!("| `{name}` | {what} | {by} | {:.120} |", why.replace('|', "/")),
            None => println!("| `{name}` | {what} | not noticed in {} | |", args.seeds.end - args.seeds.start),
        }
    }
    missed
}

/// Each scenario must pass, and what it is about must happen.
fn scenarios(args: &Args) -> u64 {
    let chosen = sim::cluster::SCENARIOS.iter().filter(|s| args.only.as_deref().is_none_or(|only| only == s.name));
    let mut failed = 0;
    for scenario in chosen {
        let mut happened = 0;
        for seed in args.seeds.clone() {
            match scenario.run(seed, args.verbose) {
                Ok(times) => happened += times,
                Err(why) => {
                    failed += 1;
                    eprintln!("{} failed with seed {seed}: {why}", scenario.name);
                    eprintln!(
                        "replay: cargo run -p sim --bin sim -- --scenarios --only {} --seeds {seed} --verbose",
                        scenario.name
                    );
                }
            }
        }
        println!("| `{}` | {} | {happened} |", scenario.name, scenario.bug);
        if happened == 0 {
            failed += 1;
            eprintln!("{}: what it is about did not happen", scenario.name);
        }
    }
    failed
}

fn clusters(args: &Args) -> u64 {
    let started = Instant::now();
    let mut totals = sim::cluster::Totals::default();
    let mut failed = 0;
    for seed in args.seeds.clone().take_while(|_| started.elapsed() < args.limit) {
        let first = sim::cluster::run(seed, args.verbose);
        // That equal seeds do equal things is a property, too.
        let second = (seed % TWICE == 0).then(|| sim::cluster::run(seed, false));
        let why = match (first, second) {
            (a, Some(b)) if a != b => format!("runs differ: {a:?} and {b:?}"),
            (Err(e), _) => e,
            (Ok(report), _) => {
                totals.add(&report);
                continue;
            }
        };
        failed += 1;
        eprintln!("seed {seed} failed: {why}");
        eprintln!("replay: cargo run -p sim --bin sim -- --cluster --seeds {seed}..{} --verbose", seed + 1);
        eprintln!("commit: {}", commit());
        shorten(seed, args.shorten.unwrap_or(SHORTEN));
        if !args.keep_going {
            break;
        }
    }
    println!("{totals}");
    println!("{} passed, {failed} failed", totals.seeds);
    failed + too_few(totals.seeds, args)
}

/// What this was built from, as far as git knows here.
fn commit() -> String {
    let git = |words: &[&str]| {
        let output = std::process::Command::new("git").args(words).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|status| !status.is_empty());
    let known = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "not known here".into());
    known + if changed { ", changed" } else { "" }
}

/// Looks for the shortest story and prints it.
fn shorten(seed: u64, patience: Duration) -> Option<sim::cluster::Shortened> {
    if patience.is_zero() {
        return None;
    }
    // Its members panic again and again.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let started = Instant::now();
    let short = sim::cluster::shorten(seed, LAST, || started.elapsed() >= patience);
    std::panic::set_hook(hook);
    let short = short?;
    eprintln!("the end of the shortest story that fails like this:");
    short.last.iter().for_each(|line| eprintln!("{line}"));
    let seconds = |us: u64| us as f64 / 1e6;
    eprintln!(
        "{}\n{} events instead of {}, {:.1} simulated seconds instead of {:.1}\nreplay: cargo run -p sim --bin sim -- --story '{}' \
         --verbose",
        short.why,
        short.lines.1,
        short.lines.0,
        seconds(short.us.1),
        seconds(short.us.0),
        short.story
    );
    Some(short)
}

fn tell(story: &sim::cluster::Story, verbose: bool) -> u64 {
    match story.run(verbose) {
        Ok(report) => {
            println!("passed: {report:?}");
            0
        }
        Err(why) => {
            eprintln!("the story ends: {why}");
            1
        }
    }
}

fn sweep(args: &Args) -> u64 {
    let (started, steps) = (Instant::now(), args.steps.unwrap_or(60));
    let (mut lives, mut operations, mut done) = (0, 0, 0);
    for seed in args.seeds.clone().take_while(|_| started.elapsed() < args.limit) {
        match sim::sweep::run(seed, steps, args.stride) {
            Ok(report) => {
                done += 1;
                lives += report.lives;
                operations += report.operations;
            }
            Err(e) => {
                eprintln!("sweep of seed {seed} failed: {e}");
                eprintln!(
                    "replay: cargo run -p sim --bin sim -- --crash-at OP:MODE --seeds {seed}..{} --steps {steps} --verbose",
                    seed + 1
                );
                return 1;
            }
        }
    }
    println!("{done} seeds swept: {operations} disk operations, {lives} lives crashed there");
    too_few(done, args)
}

/// A check that hardly ran has not passed: 1 when fewer seeds ran than were asked for.
fn too_few(done: u64, args: &Args) -> u64 {
    let few = done < args.at_least;
    if few {
        eprintln!("sim: only {done} seeds ran, at least {} were asked for", args.at_least);
    }
    u64::from(few)
}

fn replay(args: &Args, at: u64, mode: disk::Crash) -> u64 {
    let steps = args.steps.unwrap_or(60);
    match sim::world::run_with_crash(args.seeds.start, steps, Some(at), mode, args.verbose) {
        Ok(report) => {
            println!("passed: {report}");
            0
        }
        Err(e) => {
            eprintln!("seed {} failed: {e}", args.seeds.start);
            1
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args {
        seeds: 0..100,
        sweep: false,
        cluster: false,
        mutants: false,
        scenarios: false,
        only: None,
        crash_at: None,
        steps: None,
        stride: 1,
        limit: Duration::MAX,
        at_least: 0,
        verbose: false,
        keep_going: false,
        shorten: None,
        story: None,
    };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--seeds" => parsed.seeds = range(&value()?)?,
            "--mutants" => parsed.mutants = true,
            "--scenarios" => parsed.scenarios = true,
            "--only" => parsed.only = Some(value()?),
            "--cluster" => parsed.cluster = true,
            "--sweep" => (parsed.sweep, parsed.seeds) = (true, range(&value()?)?),
            "--crash-at" => parsed.crash_at = Some(crash(&value()?)?),
            "--steps" => parsed.steps = Some(number(&value()?)?),
            "--stride" => parsed.stride = number(&value()?)?,
            "--seconds" => parsed.limit = Duration::from_secs(number(&value()?)?),
            "--at-least" => parsed.at_least = number(&value()?)?,
            "--verbose" => parsed.verbose = true,
            "--keep-going" => parsed.keep_going = true,
            "--shorten" => parsed.shorten = Some(Duration::from_secs(number(&value()?)?)),
            "--story" => parsed.story = Some(value()?.parse()?),
            other => return Err(format!("unknown flag {other}")),
        }
    }
    Ok(parsed)
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|n| n..n + 1),
    }
}

fn crash(text: &str) -> Result<(u64, disk::Crash), String> {
    let (at, mode) = text.split_once(':').ok_or("--crash-at takes OPERATION:MODE")?;
    let mode = match mode {
        "lose" => disk::Crash::Lose,
        "random" => disk::Crash::Random,
        "keep" => disk::Crash::Keep,
        other => return Err(format!("unknown mode {other}")),
    };
    Ok((number(at)?, mode))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}
