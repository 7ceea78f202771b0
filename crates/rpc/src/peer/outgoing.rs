//! Which messages leave at all, before their way is chosen (etcdserver `processMessages`, reference/peer-protocol.md 3.4
//! and 11).

use api::raft::{EntryKind, Message, MessageType};

/// What of a batch is sent, in its order: no local messages, nothing without an addressee, and of several
/// acknowledgements of one term to one member only the last, which says what the others say.
///
/// etcd keeps the last MsgAppResp of a batch whatever the others are. We keep a rejection: it asks for something else.
pub(crate) fn select(messages: Vec<Message>) -> Vec<Message> {
    let mut later: Vec<(u64, u64, u64)> = Vec::new();
    let mut kept: Vec<Message> = messages
        .into_iter()
        .rev()
        .filter(|m| {
            let covered = is_acknowledgement(m) && covers(&later, m);
            if is_acknowledgement(m) && !covered {
                later.push((m.to, m.term, m.index));
            }
            leaves(m) && !covered
        })
        .collect();
    kept.reverse();
    kept
}

fn is_acknowledgement(m: &Message) -> bool {
    m.kind == MessageType::MsgAppResp && !m.reject
}

fn covers(later: &[(u64, u64, u64)], m: &Message) -> bool {
    later.iter().any(|(to, term, index)| *to == m.to && *term == m.term && *index >= m.index)
}

/// Whether a peer may see it.
fn leaves(m: &Message) -> bool {
    if m.to == 0 || is_local(m.kind) {
        return false;
    }
    // A Go member panics when it applies one.
    let deadly = m.entries.iter().any(|e| e.kind == EntryKind::ConfChangeV2);
    if deadly {
        tracing::error!(message_type = ?m.kind, "a message with a ConfChangeV2 is not sent: etcd members would panic");
    }
    !deadly
}

/// Kinds that never leave the member.
fn is_local(kind: MessageType) -> bool {
    use MessageType as T;
    matches!(
        kind,
        T::MsgHup
            | T::MsgBeat
            | T::MsgUnreachable
            | T::MsgSnapStatus
            | T::MsgCheckQuorum
            | T::MsgStorageAppend
            | T::MsgStorageAppendResp
            | T::MsgStorageApply
            | T::MsgStorageApplyResp
            | T::MsgForgetLeader
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageType as T;
    use api::raft::Entry;

    fn message(kind: T, to: u64, term: u64, index: u64) -> Message {
        Message { kind, to, term, index, ..Message::default() }
    }

    #[test]
    fn only_the_last_acknowledgement_of_a_term_leaves() {
        let ack = |to, term, index| message(T::MsgAppResp, to, term, index);
        let reject = Message { reject: true, ..ack(2, 5, 9) };
        let beat = message(T::MsgHeartbeatResp, 2, 5, 0);
        let batch =
            vec![ack(2, 5, 1), reject.clone(), ack(2, 4, 7), beat.clone(), ack(2, 5, 3), ack(3, 5, 1), ack(2, 5, 4)];
        let expected = vec![reject, ack(2, 4, 7), beat, ack(3, 5, 1), ack(2, 5, 4)];
        assert_eq!(select(batch), expected);
        // A later one that says less, as after a rejection, replaces nothing.
        assert_eq!(select(vec![ack(2, 5, 4), ack(2, 5, 3)]).len(), 2);
    }

    #[test]
    fn what_is_local_or_deadly_stays() {
        let v2 = Entry { kind: EntryKind::ConfChangeV2, ..Entry::default() };
        let deadly = Message { entries: vec![v2], ..message(T::MsgApp, 2, 1, 1) };
        let batch = vec![message(T::MsgHup, 2, 0, 0), message(T::MsgStorageAppend, 2, 1, 0), deadly];
        assert_eq!(select(batch), vec![]);
        assert_eq!(select(vec![message(T::MsgApp, 0, 1, 1)]), vec![]);
        for kind in [T::MsgApp, T::MsgProp, T::MsgTimeoutNow, T::MsgTransferLeader, T::MsgReadIndex, T::MsgSnap] {
            assert_eq!(select(vec![message(kind, 2, 1, 1)]).len(), 1, "{kind:?}");
        }
    }
}
