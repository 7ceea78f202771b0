//! Linearizable reads: never stale, whatever is lost, repeated or removed.

use crate::lab::*;
use api::raft::{ConfChange, ConfChangeKind, Entry, Message, MessageType};
use raft::{RawNode, ReadOnlyOption, ReadState};

/// Leads three voters and has committed its first entry, at 1.
fn leader() -> RawNode {
    let mut raw = voters(&[1, 2, 3]).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    raw
}

fn confirmed(raw: &mut RawNode) -> Vec<ReadState> {
    let mut states = Vec::new();
    while raw.has_ready() {
        let ready = raw.ready();
        states.extend(ready.read_states);
        let responses = ready.messages.into_iter().flat_map(|m| m.responses).collect();
        deliver(raw, responses);
    }
    states
}

fn state(index: u64, context: &'static str) -> ReadState {
    ReadState { index, request_ctx: context.into() }
}

/// Asks, and answers the heartbeat to follower 2 that the read caused.
fn ask(raw: &mut RawNode, context: &'static str) -> Message {
    raw.read_index(context.into());
    let beats = only(&work(raw), MessageType::MsgHeartbeat);
    beats.into_iter().find(|m| m.to == 2).expect("a heartbeat to follower 2")
}

#[test]
fn a_read_is_confirmed_by_a_quorum_that_answers_a_heartbeat_sent_after_it() {
    let mut raw = leader();
    let sent = ask(&mut raw, "a");
    assert_eq!(sent.context.len(), 8, "an internal number, not the caller's context");
    let plain = beat(&raw, 3);
    raw.step(plain).expect("not refused");
    assert_eq!(confirmed(&mut raw), [], "an answer to an older heartbeat");
    let answer = Message { context: sent.context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(1, "a")]);
}

#[test]
fn a_repeated_context_is_not_confirmed_by_an_old_answer() {
    let mut raw = leader();
    let first = ask(&mut raw, "same");
    let old = Message { context: first.context, ..beat(&raw, 2) };
    raw.step(old.clone()).expect("not refused");
    assert_eq!(confirmed(&mut raw).len(), 1);
    let second = ask(&mut raw, "same");
    raw.step(old).expect("not refused");
    assert_eq!(confirmed(&mut raw), [], "the answer is from before the read (etcd #20418)");
    let answer = Message { context: second.context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(1, "same")]);
}

#[test]
fn one_answer_confirms_all_reads_before_it_and_none_after() {
    let mut raw = leader();
    ask(&mut raw, "a");
    let second = ask(&mut raw, "b");
    ask(&mut raw, "c");
    let answer = Message { context: second.context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(1, "a"), state(1, "b")]);
    raw.tick();
    let again = only(&work(&mut raw), MessageType::MsgHeartbeat).remove(0);
    let answer = Message { context: again.context, ..beat(&raw, 3) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(1, "c")], "a lost heartbeat is made good by the next one");
}

#[test]
fn numbers_that_were_never_given_out_confirm_nothing() {
    let mut raw = leader();
    ask(&mut raw, "a");
    for context in [vec![0xff; 8], vec![1; 3], vec![], vec![0; 8]] {
        let answer = Message { context: context.into(), ..beat(&raw, 2) };
        raw.step(answer).expect("not refused");
        assert_eq!(confirmed(&mut raw), []);
    }
}

#[test]
fn a_read_before_the_first_commit_of_the_term_waits_for_it() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).leading();
    raw.read_index("early".into());
    assert_eq!(only(&work(&mut raw), MessageType::MsgHeartbeat), []);
    let acked = ack(&raw, 2, 2);
    let sent = only(&step(&mut raw, acked), MessageType::MsgHeartbeat).remove(0);
    let answer = Message { context: sent.context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(2, "early")]);
}

#[test]
fn reads_that_waited_for_the_first_commit_are_confirmed_by_one_round_of_heartbeats() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).leading();
    (0..1000).for_each(|_| raw.read_index("early".into()));
    let acked = ack(&raw, 2, 2);
    let mut sent = only(&step(&mut raw, acked), MessageType::MsgHeartbeat);
    assert_eq!(sent.len(), 2, "one to each follower");
    let answer = Message { context: sent.remove(0).context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), vec![state(2, "early"); 1000]);
}

#[test]
fn the_only_voter_too_waits_for_its_first_commit_of_the_term() {
    let mut raw = voters(&[1]).terms(&[1]).build();
    raw.campaign();
    let vote = raw.ready().messages.remove(0);
    deliver(&mut raw, vote.responses);
    raw.read_index("early".into());
    let append = raw.ready();
    assert_eq!(append.read_states, [], "what it knew before the restart may be behind");
    deliver(&mut raw, append.messages.into_iter().flat_map(|m| m.responses).collect());
    assert_eq!(confirmed(&mut raw), [state(2, "early")]);
}

#[test]
fn a_removed_leader_does_not_answer_reads_alone() {
    let mut raw = voters(&[1, 2]).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    let remove = ConfChange { kind: ConfChangeKind::RemoveNode, node_id: 1, ..ConfChange::default() };
    raw.propose_conf_change(&remove).expect("it leads");
    work(&mut raw);
    let acked = ack(&raw, 2, 2);
    step(&mut raw, acked);
    assert_eq!(raw.member_config().voters.ids(), [2]);
    let sent = ask(&mut raw, "a");
    assert_eq!(confirmed(&mut raw), [], "the one voter left is another node");
    let answer = Message { context: sent.context, ..beat(&raw, 2) };
    raw.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut raw), [state(2, "a")]);
}

#[test]
fn a_follower_passes_reads_on_and_gets_the_answer_with_its_own_context() {
    let mut follower = voters(&[1, 2, 3]).terms(&[1]).build();
    follower.read_index("lost".into());
    assert_eq!(work(&mut follower), [], "without a leader it is dropped");
    step(&mut follower, from(2, MessageType::MsgHeartbeat, 1));
    follower.read_index("a".into());
    let request = work(&mut follower).remove(0);
    assert_eq!((request.kind, request.to, request.term), (MessageType::MsgReadIndex, 2, 0));

    let mut leader = leader();
    let request = Message { from: 3, to: 1, ..request };
    let sent = only(&step(&mut leader, request), MessageType::MsgHeartbeat).remove(0);
    let answer = Message { context: sent.context, ..beat(&leader, 2) };
    let answer = only(&step(&mut leader, answer), MessageType::MsgReadIndexResp).remove(0);
    assert_eq!((answer.to, answer.index), (3, 1));

    let answer = Message { to: 1, from: 2, ..answer };
    follower.step(answer).expect("not refused");
    assert_eq!(confirmed(&mut follower), [state(1, "a")]);
}

#[test]
fn reads_of_an_older_leadership_are_forgotten() {
    let mut raw = leader();
    ask(&mut raw, "a");
    let higher = from(2, MessageType::MsgHeartbeat, term(&raw) + 1);
    step(&mut raw, higher);
    assert_eq!(confirmed(&mut raw), []);
    assert_eq!(raw.leader(), 2);
}

#[test]
fn with_leases_a_leader_answers_at_once() {
    let lease = |c: &mut raft::Config| (c.read_only, c.check_quorum) = (ReadOnlyOption::LeaseBased, true);
    let mut raw = voters(&[1, 2, 3]).with(lease).leading();
    let acked = ack(&raw, 2, 1);
    step(&mut raw, acked);
    raw.read_index("a".into());
    assert_eq!(confirmed(&mut raw), [state(1, "a")]);
}

#[test]
fn a_read_without_exactly_one_context_is_refused() {
    let mut raw = leader();
    for entries in [vec![], vec![Entry::default(), Entry::default()]] {
        let request = Message { entries, ..from(2, MessageType::MsgReadIndex, 0) };
        assert_eq!(raw.step(request), Err(raft::Error::Malformed));
    }
}
