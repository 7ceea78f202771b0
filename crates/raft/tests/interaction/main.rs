//! Replays etcd raft's scripts (see `../ORIGIN.md`) and compares every line of their output.

mod confchange;
mod describe;
mod env;
mod quorum;
mod script;

use script::Folder;

/// Every transcript, line by line: messages, Readys, log lines, states.
#[test]
fn interaction_transcripts_replay_line_by_line() {
    Folder { path: "tests/testdata", left_out: &[] }.run(env::Env::default);
}

#[test]
fn quorum_scripts_replay() {
    Folder { path: "tests/quorum/testdata", left_out: &[] }.run(|| quorum::Quorums);
}

#[test]
fn configuration_change_scripts_replay() {
    Folder { path: "tests/confchange/testdata", left_out: &[] }.run(confchange::Changes::default);
}
