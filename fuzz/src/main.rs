//! Runs targets for as long as one likes, and prints what was done.

use oxetcd_fuzz::{Budget, Meter, TARGETS, Tally, Target, count_panics, fuzz};
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static METER: Meter = Meter;

const USAGE: &str =
    "usage: oxetcd-fuzz [--target NAME|all] [--seed N] [--rounds N | --seconds N, shared by the targets]";

struct Asked {
    targets: Vec<&'static Target>,
    seed: u64,
    budget: Budget,
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    match run(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn asked() -> Result<Asked, String> {
    let (mut name, mut seed, mut budget) = ("all".to_owned(), 1, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (word.as_str(), number) {
            ("--target", _) => name = value,
            ("--seed", Ok(n)) => seed = n,
            ("--rounds", Ok(n)) => budget = Some(Budget::Rounds(n)),
            ("--seconds", Ok(n)) => budget = Some(Budget::Time(Duration::from_secs(n))),
            _ => return Err(USAGE.into()),
        }
    }
    let targets: Vec<_> = TARGETS.iter().filter(|t| name == "all" || t.name == name).collect();
    if targets.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        return Err(format!("no target {name}; there are {}", names.join(", ")));
    }
    let budget = match budget.unwrap_or(Budget::Rounds(100_000)) {
        Budget::Time(all) => Budget::Time(all / u32::try_from(targets.len()).unwrap_or(1)),
        rounds => rounds,
    };
    Ok(Asked { targets, seed, budget })
}

/// What tools print goes nowhere: only what is said here is news.
fn run(asked: &Asked) -> std::io::Result<()> {
    let mut told = File::from(rustix::io::dup(std::io::stdout())?);
    let nowhere = File::options().write(true).open("/dev/null")?;
    let panics = std::env::temp_dir().join(format!("oxetcd-fuzz-{}.panics", std::process::id()));
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    count_panics(File::create(&panics)?);
    writeln!(told, "what panics and hangs say is in {}", panics.display())?;
    writeln!(told, "{:<20} {:>10} {:>11} {:>10} {:>9}", "target", "runs", "understood", "most KiB", "longest")?;
    let mut failed = 0;
    for target in &asked.targets {
        match fuzz(target, asked.seed, asked.budget) {
            Ok(tally) => row(&mut told, target, &tally)?,
            Err(why) => {
                failed += 1;
                writeln!(told, "{why}")?;
            }
        }
    }
    match failed {
        0 => std::fs::remove_file(panics),
        _ => {
            writeln!(told, "{failed} targets failed")?;
            Err(std::io::ErrorKind::Other.into())
        }
    }
}

fn row(told: &mut File, target: &Target, tally: &Tally) -> std::io::Result<()> {
    let share = 100 * tally.understood / tally.rounds.max(1);
    let (kib, ms) = (tally.bytes >> 10, tally.longest.as_millis());
    writeln!(told, "{:<20} {:>10} {share:>10}% {kib:>10} {ms:>6} ms", target.name, tally.rounds)
}
