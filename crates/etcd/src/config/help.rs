//! `--help`, from the table.

use super::gates;
use super::table::{FLAGS, Flag, Section};
use std::fmt::Write as _;

/// What a wrong flag prints, and the head of `--help`.
pub const USAGE: &str = "Usage:

  etcd [flags]
    Start an etcd server.

  etcd --version
    Show the version of etcd.

  etcd -h | --help
    Show the help information about etcd.

  etcd --config-file
    Path to the server configuration file. With it, other flags and environment variables are ignored.
    Durations in the file are whole nanoseconds (600000000000 for 10m); texts such as \"10m\" are for the command line.
";

/// The flags with defaults and explanations.
pub fn flags_help() -> String {
    let mut out = String::new();
    for (section, heading) in Section::ALL {
        // Writing to a String can't fail.
        let _ = writeln!(out, "\n{heading}:");
        for flag in FLAGS.iter().filter(|f| f.section == *section && !f.name.is_empty()) {
            let _ = writeln!(out, "  --{}{}\n    {}", flag.name, shown_default(flag), flag.help);
            if flag.name == "feature-gates" {
                for line in gates::help_lines() {
                    let _ = writeln!(out, "    {line}");
                }
            }
        }
    }
    out
}

fn shown_default(flag: &Flag) -> String {
    match (flag.is_bool(), flag.default) {
        (true, "false") => String::new(),
        (_, default) => format!(" '{default}'"),
    }
}
