//! Who may stand for election, who may be voted for, and when a leader goes.

use crate::lab::*;
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, Message, MessageType};
use raft::Role;

fn role(raw: &raft::RawNode) -> Role {
    raw.basic_status().role
}

/// A vote request by a node with a longer log.
fn request(kind: MessageType, peer: u64, term: u64) -> Message {
    Message { index: 100, log_term: term - 1, ..from(peer, kind, term) }
}

#[test]
fn a_higher_term_vote_is_ignored_within_the_leaders_lease_unless_the_leader_transfers() {
    for kind in [MessageType::MsgVote, MessageType::MsgPreVote] {
        let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
        step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
        assert_eq!(step(&mut raw, request(kind, 3, 5)), [], "{kind:?}");
        assert_eq!((term(&raw), raw.leader()), (1, 2));
    }
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
    step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
    let transfer = Message { context: "CampaignTransfer".into(), ..request(MessageType::MsgVote, 3, 2) };
    let answers = step(&mut raw, transfer);
    assert!(answers.len() == 1 && !answers[0].reject && answers[0].term == 2);
}

#[test]
fn a_vote_is_heard_again_after_an_election_timeout_of_silence() {
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
    step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
    raw.set_election_timeout(2 * ELECTION_TICK);
    ticks(&mut raw, ELECTION_TICK);
    let answers = step(&mut raw, request(MessageType::MsgVote, 3, 2));
    assert!(!answers[0].reject);
}

#[test]
fn an_old_leader_gets_an_empty_acknowledgement_that_makes_it_step_down() {
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgApp] {
        let mut raw = voters(&[1, 2, 3]).guarded().terms(&[3]).build();
        let answers = step(&mut raw, from(2, kind, 2));
        let expected = Message { to: 2, ..ack(&raw, 1, 0) };
        assert_eq!(answers, [expected]);
        let mut raw = voters(&[1, 2, 3]).terms(&[3]).build();
        assert_eq!(step(&mut raw, from(2, kind, 2)), [], "nobody can be stuck without the guards");
    }
    let mut leader = voters(&[1, 2, 3]).guarded().leading();
    step(&mut leader, from(2, MessageType::MsgAppResp, 9));
    assert_eq!((role(&leader), term(&leader)), (Role::Follower, 9));
}

#[test]
fn a_pre_vote_of_an_old_term_is_rejected_at_our_term() {
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[4]).build();
    let answers = step(&mut raw, request(MessageType::MsgPreVote, 2, 3));
    assert!(answers[0].reject && answers[0].term == 4 && answers[0].kind == MessageType::MsgPreVoteResp);
}

#[test]
fn a_pre_vote_changes_neither_term_nor_vote_nor_timer_and_is_granted_at_the_candidates_term() {
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
    raw.set_election_timeout(5);
    ticks(&mut raw, 4);
    let answers = step(&mut raw, request(MessageType::MsgPreVote, 2, 2));
    assert!(!answers[0].reject && answers[0].term == 2, "granted at the candidate's term");
    let state = raw.basic_status().hard_state;
    assert_eq!((state.term, state.vote), (1, 0));
    raw.tick();
    assert_eq!(role(&raw), Role::PreCandidate, "the timer went on");

    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1, 1]).build();
    let shorter = Message { index: 1, log_term: 1, ..from(2, MessageType::MsgPreVote, 2) };
    let answers = step(&mut raw, shorter);
    assert!(answers[0].reject && answers[0].term == 1, "rejected at our own");
}

#[test]
fn a_pre_candidate_begins_no_term_until_a_quorum_would_vote_for_it() {
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
    raw.campaign();
    let asked = work(&mut raw);
    assert!(asked.len() == 2 && asked.iter().all(|m| m.kind == MessageType::MsgPreVote && m.term == 2));
    assert_eq!(term(&raw), 1);
    let asked = step(&mut raw, from(2, MessageType::MsgPreVoteResp, 2));
    assert!(asked.len() == 2 && asked.iter().all(|m| m.kind == MessageType::MsgVote && m.term == 2));
    assert_eq!((term(&raw), role(&raw)), (2, Role::Candidate));
}

#[test]
fn a_candidate_rejected_by_a_quorum_or_hearing_a_leader_follows_again() {
    let reject = |peer| Message { reject: true, ..from(peer, MessageType::MsgVoteResp, 1) };
    let mut raw = voters(&[1, 2, 3]).build();
    raw.campaign();
    work(&mut raw);
    step(&mut raw, reject(2));
    assert_eq!(role(&raw), Role::Candidate);
    step(&mut raw, reject(3));
    assert_eq!((role(&raw), raw.leader()), (Role::Follower, 0));

    let mut raw = voters(&[1, 2, 3]).build();
    raw.campaign();
    work(&mut raw);
    step(&mut raw, from(3, MessageType::MsgHeartbeat, 1));
    assert_eq!((role(&raw), raw.leader()), (Role::Follower, 3));
}

#[test]
fn a_node_votes_once_a_term_and_only_for_a_log_that_holds_all_of_its_own() {
    // Our log: terms 1, 2, 2. (index, term) of the candidate's last entry, and whether it may have our vote.
    for (index, log_term, granted) in [(3, 2, true), (4, 2, true), (1, 3, true), (2, 2, false), (9, 1, false)] {
        let mut raw = voters(&[1, 2, 3]).terms(&[1, 2, 2]).build();
        let request = Message { index, log_term, ..from(2, MessageType::MsgVote, 3) };
        assert_eq!(!step(&mut raw, request.clone())[0].reject, granted, "{log_term}/{index}");
        let other = Message { from: 3, index: 9, log_term: 2, ..request.clone() };
        assert_eq!(!step(&mut raw, other)[0].reject, !granted, "the other one gets what is left");
        let again = step(&mut raw, request);
        assert_eq!(!again[0].reject, granted, "a repeated question gets the same answer");
    }
}

#[test]
fn a_vote_leaves_only_with_the_append_that_makes_it_durable() {
    let mut raw = voters(&[1, 2, 3]).build();
    raw.step(request(MessageType::MsgVote, 2, 1)).expect("not refused");
    let ready = raw.ready();
    let [append] = &ready.messages[..] else { panic!("one message, to storage: {ready:?}") };
    assert_eq!((append.kind, append.term, append.vote), (MessageType::MsgStorageAppend, 1, 2));
    assert!(ready.must_sync);
    assert_eq!((append.responses[0].kind, append.responses[0].to), (MessageType::MsgVoteResp, 2));
}

#[test]
fn a_candidate_leads_only_once_its_own_vote_is_durable_even_if_the_others_are_a_quorum() {
    let mut raw = voters(&[1, 2, 3]).build();
    raw.campaign();
    let messages = raw.ready().messages;
    for peer in [2, 3] {
        raw.step(from(peer, MessageType::MsgVoteResp, 1)).expect("not refused");
    }
    assert_eq!(role(&raw), Role::Candidate, "a crash now, and it could win term 1 again with another log");
    deliver(&mut raw, messages.into_iter().flat_map(|m| m.responses).collect());
    assert_eq!(role(&raw), Role::Leader);
}

#[test]
fn a_candidate_asks_for_votes_only_with_a_log_that_is_durable() {
    let mut raw = voters(&[1, 2, 3]).build();
    let entries = vec![entry(1, 1)];
    raw.step(Message { entries, ..from(2, MessageType::MsgApp, 1) }).expect("not refused");
    let under_way = raw.ready().messages.remove(0);
    raw.campaign();
    let ready = raw.ready();
    assert_eq!(only(&ready.messages, MessageType::MsgVote), [], "a crash now, and it has no entry 1");
    deliver(&mut raw, under_way.responses);
    let asked = deliver(&mut raw, ready.messages.into_iter().flat_map(|m| m.responses).collect());
    assert_eq!(asked.iter().map(|m| (m.kind, m.index)).collect::<Vec<_>>(), [(MessageType::MsgVote, 1); 2]);
}

#[test]
fn a_leader_without_a_quorum_of_active_followers_steps_down() {
    let mut raw = voters(&[1, 2, 3]).guarded().leading();
    ticks(&mut raw, ELECTION_TICK);
    assert_eq!(role(&raw), Role::Follower, "nobody was heard of in its first election timeout");

    let mut raw = voters(&[1, 2, 3]).guarded().leading();
    for _ in 0..3 {
        let active = beat(&raw, 3);
        step(&mut raw, active);
        ticks(&mut raw, ELECTION_TICK);
        assert_eq!(role(&raw), Role::Leader, "one of two others makes a quorum");
    }
    ticks(&mut raw, ELECTION_TICK);
    assert_eq!((role(&raw), raw.leader()), (Role::Follower, 0));
}

#[test]
fn nobody_stands_for_election_while_a_committed_conf_change_is_unapplied() {
    let change = ConfChange { kind: ConfChangeKind::AddNode, node_id: 4, ..ConfChange::default() };
    let data = change.encode().into();
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).commit(1).build();
    let append = Message {
        index: 1,
        log_term: 1,
        commit: 2,
        entries: vec![Entry { kind: EntryKind::ConfChange, data, ..entry(1, 2) }],
        ..from(2, MessageType::MsgApp, 1)
    };
    raw.step(append).expect("not refused");
    raw.campaign();
    assert_eq!(role(&raw), Role::Follower);
    work(&mut raw);
    raw.campaign();
    assert_eq!(role(&raw), Role::Candidate, "applied by now");
}

#[test]
fn nobody_stands_for_election_while_a_snapshot_is_being_stored() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).build();
    let snap = Message { snapshot: Some(snapshot(1, 9, &[1, 2, 3])), ..from(2, MessageType::MsgSnap, 1) };
    raw.step(snap).expect("not refused");
    let ready = raw.ready();
    raw.campaign();
    assert_eq!(role(&raw), Role::Follower);
    let responses = ready.messages.into_iter().flat_map(|m| m.responses).collect();
    deliver(&mut raw, responses);
    raw.campaign();
    assert_eq!(role(&raw), Role::Candidate);
}

#[test]
fn a_node_told_to_take_over_stands_at_once_without_a_pre_vote() {
    let mut raw = voters(&[1, 2, 3]).guarded().terms(&[1]).build();
    step(&mut raw, from(2, MessageType::MsgHeartbeat, 1));
    let asked = step(&mut raw, from(2, MessageType::MsgTimeoutNow, 1));
    assert_eq!(asked.len(), 2);
    for m in asked {
        assert_eq!((m.kind, m.term, &m.context[..]), (MessageType::MsgVote, 2, &b"CampaignTransfer"[..]));
    }
}

#[test]
fn a_learner_never_stands_for_election_but_votes_when_asked() {
    let mut raw = voters(&[2, 3]).learners(&[1]).terms(&[1]).build();
    ticks(&mut raw, 5 * ELECTION_TICK);
    raw.campaign();
    step(&mut raw, from(2, MessageType::MsgTimeoutNow, 1));
    assert_eq!((role(&raw), term(&raw)), (Role::Follower, 1));
    let answers = step(&mut raw, request(MessageType::MsgVote, 2, 2));
    assert!(!answers[0].reject);
}

#[test]
fn a_transfer_blocks_proposals_and_is_given_up_after_an_election_timeout() {
    let mut raw = voters(&[1, 2, 3]).leading();
    raw.transfer_leader(2);
    assert_eq!(raw.propose("x".into()), Err(raft::Error::ProposalDropped));
    ticks(&mut raw, ELECTION_TICK);
    assert_eq!(raw.basic_status().transferee, 0);
    assert_eq!(raw.propose("x".into()), Ok(()));
}

#[test]
fn a_transferee_takes_over_as_soon_as_its_log_is_complete() {
    let mut raw = voters(&[1, 2, 3]).leading();
    raw.transfer_leader(2);
    assert_eq!(only(&work(&mut raw), MessageType::MsgTimeoutNow), []);
    let done = ack(&raw, 2, raw.last_index());
    let sent = step(&mut raw, done);
    assert_eq!(only(&sent, MessageType::MsgTimeoutNow).len(), 1);
    let mut raw = voters(&[1, 2, 3]).learners(&[4]).leading();
    for (id, why) in [(1, "itself"), (4, "a learner"), (9, "a stranger")] {
        raw.transfer_leader(id);
        assert_eq!(raw.basic_status().transferee, 0, "{why}");
    }
}

#[test]
fn one_voter_elects_itself_once_its_vote_is_durable() {
    let mut raw = voters(&[1]).build();
    raw.campaign();
    let ready = raw.ready();
    assert_eq!(role(&raw), Role::Candidate, "its own vote is not durable yet");
    deliver(&mut raw, ready.messages.into_iter().flat_map(|m| m.responses).collect());
    assert_eq!(role(&raw), Role::Leader);
}

#[test]
fn election_timeouts_differ_and_stay_within_their_range() {
    let fired = |seed| {
        let mut raw = voters(&[1, 2, 3]).with(|c| c.seed = seed).build();
        (1..).find(|_| {
            raw.tick();
            role(&raw) == Role::Candidate
        })
    };
    let all: std::collections::BTreeSet<usize> = (0..200).filter_map(fired).collect();
    assert_eq!(all, (ELECTION_TICK..2 * ELECTION_TICK).collect());
}
