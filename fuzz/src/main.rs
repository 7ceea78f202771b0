//! Runs targets for as long as one likes.

use oxetcd_fuzz::{TARGETS, fuzz};
use std::process::ExitCode;

const USAGE: &str = "usage: oxetcd-fuzz [--target NAME|all] [--seed N] [--rounds N]";

fn main() -> ExitCode {
    let (mut name, mut seed, mut rounds) = ("all".to_owned(), 1, 100_000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (word.as_str(), number) {
            ("--target", _) => name = value,
            ("--seed", Ok(n)) => seed = n,
            ("--rounds", Ok(n)) => rounds = n,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let chosen: Vec<_> = TARGETS.iter().filter(|t| name == "all" || t.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("no target {name}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    for target in chosen {
        fuzz(target, seed, rounds);
        println!("{}: {rounds} inputs from seed {seed}, no panic", target.name);
    }
    ExitCode::SUCCESS
}
