//! Sub-commands of `etcd`, read by cobra's rules: the server itself has Go's `flag`.

use cobra::{Command, Program, Repeats};

/// What runs where the first word is one of its commands.
pub static PROGRAM: Program = Program {
    root: Command {
        usage: "etcd",
        short: "etcd server",
        commands: &[crate::gateway::COMMAND, crate::proxy::COMMAND],
        ..Command::EMPTY
    },
    groups: &[],
    pointer: "",
    repeats_errors: Repeats::Bare,
};
