//! What is written about settings, from their table: the reference, the sample of a config file, the manual page.
//! `cargo run -p xtask -- docs` writes them; a test sees to it that they are as fresh as the table.

use super::gates;
use super::gates::GATES;
use super::table::{FLAGS, Flag, Section, Slot};
use super::variable_of;
use std::fmt::Write as _;

/// Path in the repository, and what belongs there.
pub type Document = (&'static str, fn() -> String);

/// All documents.
pub const DOCUMENTS: [Document; 3] =
    [("docs/configuration.md", reference), ("docs/etcd.conf.yml.sample", sample), ("docs/man/etcd.1", manual)];

/// Writing to a String can't fail.
macro_rules! put {
    ($out:ident, $($text:tt)*) => { let _ = writeln!($out, $($text)*); };
}

fn of(section: Section) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |flag| flag.section == section)
}

fn cell(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
}

/// `docs/configuration.md`.
fn reference() -> String {
    let mut out = String::new();
    put!(out, "# Configuration\n");
    put!(
        out,
        "Generated from `crates/etcd/src/config/table.rs` by `cargo run -p xtask -- docs`: change the table, not this page.\n"
    );
    put!(out, "Every setting is a flag, a variable and a key of the config file (`--config-file`, YAML or JSON).\n");
    put!(
        out,
        "* A config file alone decides: other flags and variables are ignored, but for the two raft timeouts, which a file can't hold."
    );
    put!(out, "* Otherwise a flag or its variable; both together are refused. An empty variable counts as not given.");
    put!(out, "* Durations are Go's on the command line (`300ms`, `1h2m`), whole nanoseconds in the file.");
    put!(out, "* Keys are taken in any case, unknown ones ignored; of repeated ones the last counts.");
    put!(
        out,
        "* `ETCD_UNSUPPORTED_ARCH=ARCH` has to be set where etcd is not supported: other processors than amd64, arm64, ppc64le and s390x."
    );
    put!(
        out,
        "* `ETCD_VERIFY=all` has invariants checked at the start and at the end that production does not pay for: `storage_wal` the files alone, `assert` the state alone."
    );
    put!(out, "* What is wrong is told before anything is touched: code 2 for the command line, 1 for all else.\n");
    put!(out, "Which test sees the effect of which setting stands in `tests/testdata/configuration/settings.txt`.");
    for (section, heading) in Section::ALL {
        put!(out, "\n## {heading}\n");
        put!(out, "| flag | default | variable | key of the file | |");
        put!(out, "|---|---|---|---|---|");
        for flag in of(*section) {
            let (name, variable) = match flag.name {
                "" => (String::new(), String::new()),
                name => (cell(&format!("--{name}")), cell(&variable_of(name))),
            };
            let help = flag.help.replace('|', "\\|").replace('<', "&lt;");
            put!(out, "| {name} | {} | {variable} | {} | {help} |", cell(flag.default), cell(flag.key));
        }
    }
    put!(out, "\n## Feature gates\n");
    put!(
        out,
        "`--feature-gates=Name=true,Other=false`. `AllAlpha` and `AllBeta` are for all of a stage; what is said of a gate itself wins.\n"
    );
    put!(out, "| gate | default | stage |\n|---|---|---|");
    for (_, name, stage, default) in GATES {
        put!(out, "| `{name}` | {default} | {} |", stage.name().to_lowercase());
    }
    out
}

/// A default as the file has it.
fn in_file(flag: &Flag) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match flag.slot {
        Slot::Bool(_) | Slot::Uint(_) | Slot::Uint32(_) | Slot::Int(_) => flag.default.to_owned(),
        Slot::Duration(_) | Slot::Nanoseconds(_) => {
            go::parse_duration(flag.default).expect("a test sets every default of the table").to_string()
        }
        Slot::List(_) => "[]".into(),
        Slot::Set(_) if flag.key == "log-outputs" => format!("[{}]", flag.default),
        _ => quoted(flag.default),
    }
}

/// Settings that a file may hold, in the table's order, but what belongs to a group stands where its first one does: of
/// two groups of a name only the last would count.
fn grouped(section: Section) -> Vec<&'static Flag> {
    let flags: Vec<&Flag> = of(section).filter(|flag| !flag.key.is_empty()).collect();
    let first =
        |prefix: &str| flags.iter().position(|flag| flag.key == prefix || flag.key.starts_with(&format!("{prefix}.")));
    let place = |flag: &&Flag| -> Vec<Option<usize>> {
        let ends = flag.key.match_indices('.').map(|(at, _)| at).chain([flag.key.len()]);
        ends.map(|end| first(&flag.key[..end])).collect()
    };
    let mut sorted = flags.clone();
    sorted.sort_by_key(place);
    sorted
}

/// `docs/etcd.conf.yml.sample`: all defaults, so that a copy of it changes nothing.
fn sample() -> String {
    let mut out = String::new();
    put!(out, "# A config file for etcd --config-file=PATH: every key with its default.");
    put!(out, "# With it, flags and ETCD_* variables are ignored. Durations are whole nanoseconds.");
    put!(out, "# Generated by cargo run -p xtask -- docs.");
    for (section, heading) in Section::ALL {
        put!(out, "\n# ---- {heading}");
        let mut groups: Vec<&str> = Vec::new();
        for flag in grouped(*section) {
            let keys: Vec<&str> = flag.key.split('.').collect();
            let (key, above) = keys.split_last().expect("a key has a part");
            for (depth, group) in above.iter().enumerate() {
                if groups.get(depth) != Some(group) {
                    groups.truncate(depth);
                    groups.push(group);
                    put!(out, "\n{}{group}:", "  ".repeat(depth));
                }
            }
            if groups.len() > above.len() {
                groups.truncate(above.len());
            }
            let indent = "  ".repeat(above.len());
            let deprecated = if flag.help.contains("Deprecated") { "# " } else { "" };
            let blank = if above.is_empty() { "\n" } else { "" };
            put!(out, "{blank}{indent}# {}", flag.help);
            put!(out, "{indent}{deprecated}{key}: {}", in_file(flag));
        }
    }
    out
}

/// `etcd.1`.
fn manual() -> String {
    let mut out = String::new();
    put!(out, ".\\\" Generated by cargo run -p xtask -- docs.");
    put!(out, ".TH ETCD 1 \"\" \"oxetcd {}\" \"User Commands\"", roff(env!("CARGO_PKG_VERSION")));
    put!(out, ".SH NAME\netcd \\- distributed, reliable key\\-value store");
    put!(out, ".SH SYNOPSIS\n.B etcd\n[\\fIflags\\fR]\n.br\n.B etcd \\-\\-version\n.br\n.B etcd \\-\\-help");
    put!(out, ".SH DESCRIPTION");
    put!(
        out,
        "{}",
        roff(
            "A member of an etcd cluster: it keeps keys and values, agrees with its peers on every change by Raft, and serves clients by gRPC and HTTP."
        )
    );
    put!(
        out,
        "{}",
        roff(
            "Settings come from flags, from variables, or from a config file alone. A flag together with its variable is refused."
        )
    );
    put!(out, ".SH OPTIONS");
    put!(
        out,
        ".TP\n\\fB\\-\\-config\\-file\\fR \\fIPATH\\fR\n{}",
        roff("A config file, YAML or JSON. With it, other flags and variables are ignored.")
    );
    put!(out, ".TP\n\\fB\\-\\-version\\fR\nPrint the version and exit.");
    for (section, heading) in Section::ALL {
        put!(out, ".SS {}", roff(heading));
        for flag in of(*section).filter(|flag| !flag.name.is_empty()) {
            put!(out, ".TP\n\\fB{}\\fR (default \\(aq{}\\(aq)", roff(&format!("--{}", flag.name)), roff(flag.default));
            put!(out, "{}", roff(flag.help));
            if let Slot::Gates(_) = flag.slot {
                gates::help_lines().iter().for_each(|line| {
                    put!(out, ".br\n{}", roff(line));
                });
            }
        }
    }
    put!(out, ".SH ENVIRONMENT");
    put!(
        out,
        "{}",
        roff(
            "Each flag has a variable: ETCD_ and its name in capitals, with _ for -, such as ETCD_LISTEN_CLIENT_URLS. An empty one counts as not given."
        )
    );
    put!(
        out,
        ".TP\n.B ETCD_UNSUPPORTED_ARCH\n{}",
        roff("Names the processor where etcd is not supported; without it etcd refuses to run there.")
    );
    put!(
        out,
        ".TP\n.B ETCD_VERIFY\n{}",
        roff(
            "With all, storage_wal or assert: invariants of files and state are checked at the start and at the end; a member whose data breaks one ends with an error."
        )
    );
    put!(out, ".TP\n.B NOTIFY_SOCKET\n{}", roff("systemd is told there that the member serves."));
    put!(out, ".SH EXIT STATUS");
    put!(
        out,
        ".TP\n0\n{}",
        roff(
            "After --version and --help, when the member was removed from its cluster, and after a signal as the first process of a container."
        )
    );
    put!(out, ".TP\n1\n{}", roff("Settings, files or addresses are no good, or the disk failed."));
    put!(out, ".TP\n2\n{}", roff("The command line can't be read."));
    put!(out, "{}", roff("After SIGINT and SIGTERM a leader hands over, and the process ends by that signal."));
    put!(out, ".SH SEE ALSO\n.BR etcdctl (1),\n.BR etcdutl (1)");
    out
}

/// Text for roff: what it would take for its own is escaped.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, read_file};

    #[test]
    fn the_sample_changes_nothing() {
        let mut config = Config::default();
        assert_eq!(read_file(&sample(), &mut config), Ok(()));
        assert_eq!(config, Config::default());
        let sample = sample();
        let groups: Vec<&str> = sample.lines().filter(|line| line.ends_with(':') && !line.contains('#')).collect();
        let distinct: std::collections::BTreeSet<&&str> = groups.iter().collect();
        assert_eq!(distinct.len(), groups.len(), "{groups:?}");
        for flag in FLAGS.iter().filter(|flag| !flag.key.is_empty()) {
            let key = flag.key.rsplit('.').next().unwrap_or_default();
            assert!(
                sample.lines().any(|line| line.trim_start().trim_start_matches("# ").starts_with(&format!("{key}: "))),
                "{key}"
            );
        }
    }

    #[test]
    fn every_flag_is_in_every_document() {
        for flag in FLAGS.iter().filter(|flag| !flag.name.is_empty()) {
            let name = format!("--{}", flag.name);
            assert!(reference().contains(&format!("| `{name}` |")), "{name}");
            assert!(manual().contains(&format!("\\fB{}\\fR", roff(&name))), "{name}");
        }
    }

    #[test]
    fn the_documents_are_fresh() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (path, fresh) in DOCUMENTS {
            let kept = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(kept == fresh(), "{path} is stale: run `cargo run -p xtask -- docs`");
        }
    }
}
