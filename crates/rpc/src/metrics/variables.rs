//! `/debug/vars`, in the layout of Go's expvar: one variable a line, by name.

use super::RaftFigures;
use super::process::Process;
use crate::answers::Body;
use crate::plain::answer;
use http::{HeaderValue, Response, StatusCode};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Answers a request for them.
pub(crate) fn variables(raft: &RaftFigures) -> Response<Body> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let resident = Process::read().resident;
    let variables = [
        ("cmdline", Value::from(words).to_string()),
        ("file_descriptor_limit", descriptors.to_string()),
        // What a program without Go's runtime can say under its names.
        ("memstats", json!({"Alloc": resident, "Sys": resident}).to_string()),
        ("raft.status", status(raft)),
    ];
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    answer(StatusCode::OK, JSON, format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// As etcd's raft writes its `Status`.
fn status(raft: &RaftFigures) -> String {
    let progress = raft.progress.iter().map(|one| {
        format!(r#""{:x}":{{"match":{},"next":{},"state":"{}"}}"#, one.id, one.match_index, one.next, one.state)
    });
    let progress: Vec<_> = progress.collect();
    format!(
        r#"{{"id":"{:x}","term":{},"vote":"{:x}","commit":{},"lead":"{:x}","raftState":"{}","applied":{},"progress":{{{}}},"leadtransferee":"{:x}"}}"#,
        raft.id,
        raft.term,
        raft.vote,
        raft.commit,
        raft.lead,
        raft.state,
        raft.applied,
        progress.join(","),
        raft.transferee
    )
}

#[cfg(test)]
mod tests {
    use super::super::Progress;
    use super::*;

    #[test]
    fn raft_is_shown_as_in_go() {
        let one = Progress { id: 0x2e, match_index: 7, next: 8, state: "StateReplicate" };
        let raft = RaftFigures {
            id: 0x2e,
            term: 2,
            vote: 0x2e,
            commit: 7,
            applied: 7,
            lead: 0x2e,
            state: "StateLeader",
            transferee: 0,
            progress: vec![one],
        };
        let expected = r#"{"id":"2e","term":2,"vote":"2e","commit":7,"lead":"2e","raftState":"StateLeader","applied":7,"progress":{"2e":{"match":7,"next":8,"state":"StateReplicate"}},"leadtransferee":"0"}"#;
        assert_eq!(status(&raft), expected);
    }
}
