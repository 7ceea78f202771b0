//! What no correct peer sends is refused or ignored: it never panics, and never costs what is committed.

use crate::lab::*;
use crate::network::Random;
use api::raft::{ConfState, Entry, EntryKind, Message, MessageType, Snapshot, SnapshotMetadata};
use raft::{Error, RawNode};

#[test]
fn kinds_that_a_node_only_sends_itself_are_refused_from_peers() {
    use MessageType as T;
    let mut raw = voters(&[1, 2, 3]).leading();
    for kind in [
        T::MsgHup,
        T::MsgBeat,
        T::MsgUnreachable,
        T::MsgSnapStatus,
        T::MsgCheckQuorum,
        T::MsgForgetLeader,
        T::MsgStorageAppend,
        T::MsgStorageAppendResp,
        T::MsgStorageApply,
        T::MsgStorageApplyResp,
    ] {
        assert_eq!(raw.step(from(2, kind, 1)), Err(Error::LocalMessage), "{kind:?}");
    }
}

#[test]
fn entries_with_gaps_or_falling_terms_are_refused() {
    for entries in
        [vec![entry(1, 3)], vec![entry(1, 2), entry(1, 2)], vec![entry(1, 2), entry(9, 3)], vec![entry(0, 2)]]
    {
        let mut raw = voters(&[1, 2, 3]).terms(&[1]).build();
        let append = Message { index: 1, log_term: 1, entries, ..from(2, MessageType::MsgApp, 2) };
        assert_eq!(raw.step(append), Err(Error::Malformed));
        assert_eq!((raw.last_index(), term(&raw)), (1, 1));
    }
}

#[test]
fn a_commit_index_past_the_log_is_ignored() {
    let mut raw = voters(&[1, 2, 3]).terms(&[1]).build();
    let answers = step(&mut raw, Message { commit: 99, ..from(2, MessageType::MsgHeartbeat, 1) });
    assert_eq!((answers[0].kind, commit(&raw)), (MessageType::MsgHeartbeatResp, 0));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_ignored() {
    let mut raw = voters(&[1, 2, 3]).leading();
    let lie = ack(&raw, 2, 99);
    step(&mut raw, lie);
    assert_eq!((progress(&raw, 2).match_index, commit(&raw)), (0, 0));
}

#[test]
fn a_message_for_somebody_else_or_from_oneself_is_refused() {
    let mut raw = voters(&[1, 2, 3]).build();
    for message in [
        Message { to: 3, ..from(2, MessageType::MsgHeartbeat, 1) },
        from(1, MessageType::MsgHeartbeat, 1),
        from(0, MessageType::MsgHeartbeat, 1),
        from(2, MessageType::MsgHeartbeat, 0),
        from(2, MessageType::MsgVote, u64::MAX),
        from(u64::MAX, MessageType::MsgVote, 1),
        from(2, MessageType::MsgSnap, 1),
        from(2, MessageType::MsgProp, 0),
    ] {
        assert_eq!(raw.step(message.clone()), Err(Error::Malformed), "{message:?}");
    }
}

/// Numbers that are often right and sometimes absurd.
fn number(random: &mut Random, near: u64) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(),
        _ => (near + random.below(6)).saturating_sub(3),
    }
}

fn message(random: &mut Random, raw: &RawNode) -> Message {
    let kind = MessageType::try_from(random.below(24) as i32).unwrap_or(MessageType::MsgApp);
    let (term, last) = (term(raw), raw.last_index());
    let log_term = number(random, term);
    let index = number(random, last);
    let mut entries = Vec::new();
    for at in 0..random.below(4) {
        let index = if random.below(8) == 0 { number(random, last) } else { index.wrapping_add(1 + at) };
        let kind = match random.below(8) {
            0 => EntryKind::ConfChange,
            1 => EntryKind::ConfChangeV2,
            _ => EntryKind::Normal,
        };
        // Half of the conf changes are garbage, the others change nothing.
        let data = if random.below(2) == 0 { vec![0x7f, random.next() as u8] } else { vec![] };
        entries.push(Entry { term: number(random, term), index, kind, data: data.into() });
    }
    let conf_state = ConfState { voters: (0..random.below(5)).collect(), ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: number(random, last), term: number(random, term) };
    Message {
        kind,
        from: random.below(5),
        to: random.below(3).min(1),
        term: number(random, term),
        log_term,
        index,
        entries,
        commit: number(random, last),
        vote: 0,
        snapshot: (random.below(3) == 0).then(|| Snapshot { metadata, ..Snapshot::default() }),
        reject: random.below(3) == 0,
        reject_hint: number(random, last),
        context: vec![random.below(3) as u8; [0, 3, 8][random.below(3) as usize]].into(),
        responses: vec![],
    }
}

#[test]
fn no_message_makes_the_core_panic() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let setup = voters(&[1, 2, 3]).learners(&[4]).terms(&[1, 1, 2]).commit(1);
        let setup = setup.with(|c| (c.seed, c.max_inflight_msgs) = (seed, 3));
        let mut raw = if seed % 2 == 0 { setup.guarded().build() } else { setup.leading() };
        for _ in 0..300 {
            let (before, applied) = (commit(&raw), raw.basic_status().applied);
            match random.below(12) {
                0 => raw.tick(),
                1 => raw.campaign(),
                2 => {
                    let _dropped = raw.propose("x".into());
                }
                3 => raw.read_index("r".into()),
                4 | 5 => store(&mut raw, &mut random),
                _ => {
                    let message = message(&mut random, &raw);
                    let _refused = raw.step(message);
                }
            }
            assert!(commit(&raw) >= before && raw.basic_status().applied >= applied, "seed {seed}");
        }
    }
}

/// Does the storage work. What a forged entry asks to be applied is left unread, as a state machine may.
fn store(raw: &mut RawNode, random: &mut Random) {
    while raw.has_ready() {
        for m in raw.ready().messages.into_iter().filter(|m| !m.responses.is_empty()) {
            if random.below(10) > 0 {
                deliver(raw, m.responses);
            }
        }
    }
}
