//! Messages, entries and Readys in the words of the transcripts.

use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, HardState, Message, Snapshot};
use raft::confchange::{ConfChangeV2, Single};
use raft::{LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Ready};
use std::fmt::Write as _;

fn node(id: u64) -> String {
    match id {
        0 => "None".into(),
        LOCAL_APPEND_THREAD => "AppendThread".into(),
        LOCAL_APPLY_THREAD => "ApplyThread".into(),
        id => format!("{id:x}"),
    }
}

/// One line, or several if there are several entries, a snapshot or responses.
pub fn message(m: &Message) -> String {
    let (from, to, kind) = (node(m.from), node(m.to), m.kind.as_str_name());
    let mut text = format!("{from}->{to} {kind} Term:{} Log:{}/{}", m.term, m.log_term, m.index);
    if m.reject {
        let _ = write!(text, " Rejected (Hint: {})", m.reject_hint);
    }
    if m.commit != 0 {
        let _ = write!(text, " Commit:{}", m.commit);
    }
    if m.vote != 0 {
        let _ = write!(text, " Vote:{}", m.vote);
    }
    match &m.entries[..] {
        [] => {}
        [one] => {
            let _ = write!(text, " Entries:[{}]", entry(one));
        }
        several => {
            text += " Entries:[";
            several.iter().for_each(|e| text += &format!("\n  {}", entry(e)));
            text += "\n]";
        }
    }
    if let Some(s) = &m.snapshot {
        let _ = write!(text, "\n  Snapshot: {}", snapshot(s));
    }
    if !m.responses.is_empty() {
        text += " Responses:[";
        for response in &m.responses {
            message(response).lines().for_each(|line| text += &format!("\n  {line}"));
        }
        text += "\n]";
    }
    text
}

pub fn entry(e: &Entry) -> String {
    let (kind, data) = match e.kind {
        EntryKind::Normal => ("EntryNormal", format!("{:?}", String::from_utf8_lossy(&e.data))),
        EntryKind::ConfChange => {
            let change = ConfChange::decode(e.data.clone()).expect("a conf change");
            ("EntryConfChange", changes(&ConfChangeV2::from(&change).changes))
        }
        EntryKind::ConfChangeV2 => {
            let change = ConfChangeV2::decode(e.data.clone()).expect("a conf change");
            ("EntryConfChangeV2", changes(&change.changes))
        }
    };
    format!("{}/{} {kind} {data}", e.term, e.index).trim_end().to_owned()
}

/// `v1 l2 r3`
fn changes(changes: &[Single]) -> String {
    let letter = |kind| match kind {
        ConfChangeKind::AddNode => 'v',
        ConfChangeKind::AddLearnerNode => 'l',
        ConfChangeKind::RemoveNode => 'r',
        ConfChangeKind::UpdateNode => 'u',
    };
    changes.iter().map(|c| format!("{}{}", letter(c.kind), c.node_id)).collect::<Vec<_>>().join(" ")
}

/// The inverse of what entries are shown as.
pub fn parse_changes<'a>(words: impl Iterator<Item = &'a str>) -> Vec<Single> {
    let kind = |letter: &str| match letter {
        "v" => ConfChangeKind::AddNode,
        "l" => ConfChangeKind::AddLearnerNode,
        "r" => ConfChangeKind::RemoveNode,
        "u" => ConfChangeKind::UpdateNode,
        other => panic!("unknown change {other}"),
    };
    let parse = |word: &str| Single { kind: kind(&word[..1]), node_id: word[1..].parse().expect("a node's id") };
    words.map(parse).collect()
}

fn snapshot(s: &Snapshot) -> String {
    let list = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let (m, c) = (&s.metadata, &s.metadata.conf_state);
    format!(
        "Index:{} Term:{} ConfState:Voters:[{}] VotersOutgoing:[{}] Learners:[{}] LearnersNext:[{}] AutoLeave:{}",
        m.index,
        m.term,
        list(&c.voters),
        list(&c.voters_outgoing),
        list(&c.learners),
        list(&c.learners_next),
        c.auto_leave
    )
}

fn hard_state(state: &HardState) -> String {
    let vote = if state.vote == 0 { String::new() } else { format!(" Vote:{}", state.vote) };
    format!("Term:{}{vote} Commit:{}", state.term, state.commit)
}

/// A Ready, whether its work stands in it or in its messages.
pub fn ready(ready: &Ready) -> String {
    let to = |id| ready.messages.iter().find(move |m| m.to == id);
    let mut ready = ready.clone();
    if let Some(m) = to(LOCAL_APPEND_THREAD).cloned() {
        ready.hard_state = HardState { term: m.term, vote: m.vote, commit: m.commit };
        (ready.entries, ready.snapshot) = (m.entries, m.snapshot);
    }
    if let Some(m) = ready.messages.iter().find(|m| m.to == LOCAL_APPLY_THREAD) {
        ready.committed_entries = m.entries.clone();
    }
    let mut lines = Vec::new();
    if let Some(soft) = &ready.soft_state {
        lines.push(format!("Lead:{} State:State{:?}", soft.leader, soft.role));
    }
    if !ready.hard_state.is_empty() {
        lines.push(format!("HardState {}", hard_state(&ready.hard_state)));
    }
    part(&mut lines, "Entries:", ready.entries.iter().map(entry));
    lines.extend(ready.snapshot.iter().map(|s| format!("Snapshot {}", snapshot(s))));
    part(&mut lines, "CommittedEntries:", ready.committed_entries.iter().map(entry));
    part(&mut lines, "Messages:", ready.messages.iter().map(message));
    match lines.is_empty() {
        true => "<empty Ready>".into(),
        false => format!("Ready MustSync={}:\n{}", ready.must_sync, lines.join("\n")),
    }
}

fn part(lines: &mut Vec<String>, title: &str, parts: impl ExactSizeIterator<Item = String>) {
    if parts.len() > 0 {
        lines.push(title.to_owned());
        lines.extend(parts);
    }
}
