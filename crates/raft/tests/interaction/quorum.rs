//! Replays the scripts on majorities.

use crate::script::{Command, Driven};
use raft::quorum::{JointConfig, MajorityConfig, VoteResult};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Majorities remember nothing between commands.
pub struct Quorums;

impl Driven for Quorums {
    fn run(&mut self, c: &Command) -> String {
        let incoming: MajorityConfig = c.numbers("cfg").into_iter().collect();
        let joint = c.has("cfgj");
        let outgoing: MajorityConfig = match c.value("cfgj") {
            None | Some("zero") => MajorityConfig::default(),
            Some(_) => c.numbers("cfgj").into_iter().collect(),
        };
        let config = JointConfig { incoming, outgoing };
        let voters = config.ids();
        match c.name.as_str() {
            "committed" => committed(&config, joint, &acks(&mentioned(c, &voters), c.values("idx"))),
            "vote" => vote(&config, &votes(&mentioned(c, &voters), c.values("votes"))),
            other => panic!("unknown command {other}"),
        }
    }
}

/// Values are given to voters in the order in which a script first names them.
fn mentioned(c: &Command, voters: &[u64]) -> Vec<u64> {
    let named = c.values("cfg").iter().chain(c.values("cfgj")).filter_map(|id| id.parse().ok());
    let mut order: Vec<u64> = Vec::new();
    named.for_each(|id| {
        if !order.contains(&id) {
            order.push(id);
        }
    });
    assert_eq!(order.len(), voters.len());
    order
}

fn acks(voters: &[u64], values: &[String]) -> BTreeMap<u64, u64> {
    assert_eq!(voters.len(), values.len(), "one index a voter");
    voters.iter().zip(values).filter_map(|(id, v)| Some((*id, v.parse().ok()?))).collect()
}

fn votes(voters: &[u64], values: &[String]) -> BTreeMap<u64, bool> {
    assert_eq!(voters.len(), values.len(), "one vote a voter");
    voters.iter().zip(values).filter(|(_, v)| *v != "_").map(|(id, v)| (*id, v == "y")).collect()
}

fn committed(config: &JointConfig, joint: bool, acked: &BTreeMap<u64, u64>) -> String {
    let ack = |id| acked.get(&id).copied();
    let index = config.committed_index(ack);
    if !joint {
        assert_eq!(config.incoming.committed_index(ack), index, "half of a joint quorum is itself");
    }
    let swapped = JointConfig { incoming: config.outgoing.clone(), outgoing: config.incoming.clone() };
    assert_eq!(swapped.committed_index(ack), index, "the halves are equal in rights");
    assert_eq!(index, slow_committed(config, acked), "found by counting");
    format!("{}{}\n", table(&config.ids(), acked), if index == u64::MAX { "∞".into() } else { index.to_string() })
}

/// The highest of all acknowledged indexes that both halves have a majority for.
fn slow_committed(config: &JointConfig, acked: &BTreeMap<u64, u64>) -> u64 {
    if config.ids().is_empty() {
        return u64::MAX;
    }
    let enough = |half: &MajorityConfig, index: u64| {
        let count = half.iter().filter(|id| acked.get(id).is_some_and(|a| *a >= index)).count();
        half.is_empty() || count > half.len() / 2
    };
    let both = |index: &u64| enough(&config.incoming, *index) && enough(&config.outgoing, *index);
    acked.values().copied().filter(both).max().unwrap_or(0)
}

/// A bar for each voter, as long as there are voters behind it.
fn table(voters: &[u64], acked: &BTreeMap<u64, u64>) -> String {
    let n = voters.len();
    if n == 0 {
        return "<empty majority quorum>".into();
    }
    let index = |id: &u64| acked.get(id).copied().unwrap_or(0);
    let mut text = format!("{:n$}    idx\n", "");
    for id in voters {
        let behind = voters.iter().filter(|other| index(other) < index(id)).count();
        let bar = match acked.contains_key(id) {
            true => format!("{}>{}", "x".repeat(behind), " ".repeat(n - behind)),
            false => format!("?{}", " ".repeat(n)),
        };
        let _ = writeln!(text, "{bar} {:>5}    (id={id})", index(id));
    }
    text
}

fn vote(config: &JointConfig, votes: &BTreeMap<u64, bool>) -> String {
    let result = config.vote_result(|id| votes.get(&id).copied());
    match result {
        VoteResult::Pending => "VotePending".into(),
        VoteResult::Lost => "VoteLost".into(),
        VoteResult::Won => "VoteWon".into(),
    }
}
