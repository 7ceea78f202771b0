//! Whether members hold the same data: what is compared, and who is told to be corrupt (semantics.md 10.11; etcd
//! `corrupt.go`). Who asks whom, and when, is the driver's.
//!
//! A member is blamed only for a hash of the same revision with the same compact revision: before both agree, two sound
//! members may hash different records.

use std::collections::BTreeMap;
use store::KvHash;

/// What a peer answered to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHash {
    pub hash: u32,
    pub compact_revision: i64,
    /// Its newest revision.
    pub revision: i64,
}

/// What a comparison of compaction hashes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All peers have the same.
    Same,
    /// Some did not answer, or have not compacted as far: an older revision may be known to all.
    Unknown,
    /// These members differ from the majority; 0 alone when there is no majority.
    Corrupt(Vec<u64>),
}

/// Before a member serves again: the peers it differs from.
pub fn differing(own: KvHash, peers: &BTreeMap<u64, PeerHash>) -> Vec<u64> {
    let differs = |peer: &PeerHash| peer.hash != own.hash && peer.compact_revision == own.compact_revision;
    peers.iter().filter(|(_, peer)| differs(peer)).map(|(id, _)| *id).collect()
}

/// A leader's look at all members: the first that can't be sound. `before` and `after`: the leader's own hash when the
/// peers were asked, and after a linearizable read, when it had everything that they could have; `newest`: its revision
/// then.
pub fn suspect(
    own: u64,
    before: KvHash,
    (after, newest): (KvHash, i64),
    peers: &BTreeMap<u64, PeerHash>,
) -> Option<(u64, &'static str)> {
    let same_place = |a: KvHash, b: KvHash| (a.revision, a.compact_revision) == (b.revision, b.compact_revision);
    if same_place(before, after) && before.hash != after.hash {
        return Some((own, "found hash mismatch"));
    }
    peers.iter().find_map(|(id, peer)| {
        let why = if peer.revision > newest {
            "revision from follower must be less than or equal to leader's"
        } else if peer.compact_revision > after.compact_revision {
            "compact revision from follower must be less than or equal to leader's"
        } else if peer.compact_revision == before.compact_revision && peer.hash != before.hash {
            "same compact revision then hashes must match"
        } else {
            return None;
        };
        Some((*id, why))
    })
}

/// The hashes of one compaction. `peers`: all others; `None` of one that gave no answer.
pub fn compare_compaction(own: u64, hash: KvHash, peers: &BTreeMap<u64, Option<PeerHash>>) -> Verdict {
    let answered = |peer: &Option<PeerHash>| peer.filter(|peer| peer.compact_revision == hash.compact_revision);
    let known: Vec<(u64, u32)> = peers.iter().filter_map(|(id, peer)| Some((*id, answered(peer)?.hash))).collect();
    let mut by_hash = BTreeMap::from([(hash.hash, vec![own])]);
    for (id, hash) in &known {
        by_hash.entry(*hash).or_default().push(*id);
    }
    if by_hash.len() == 1 {
        return if known.len() == peers.len() { Verdict::Same } else { Verdict::Unknown };
    }
    let members = peers.len() + 1;
    let quorum = members / 2 + 1;
    let majority = by_hash.iter().find(|(_, members)| members.len() >= quorum).map(|(hash, _)| *hash);
    let others = by_hash.into_iter().filter(|(hash, _)| Some(*hash) != majority).flat_map(|(_, members)| members);
    match majority {
        Some(_) => Verdict::Corrupt(others.collect()),
        None => Verdict::Corrupt(vec![0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1;

    fn own(hash: u32, revision: i64, compact_revision: i64) -> KvHash {
        KvHash { hash, revision, compact_revision }
    }

    fn peer(hash: u32, revision: i64, compact_revision: i64) -> PeerHash {
        PeerHash { hash, compact_revision, revision }
    }

    #[test]
    fn a_start_is_refused_for_another_hash_at_the_same_compaction_only() {
        let peers = [(2, peer(7, 9, 3)), (3, peer(8, 9, 3)), (4, peer(8, 9, 4))].into();
        assert_eq!(differing(own(7, 9, 3), &peers), [3]);
        assert_eq!(differing(own(8, 9, 4), &peers), [] as [u64; 0]);
    }

    #[test]
    fn a_leader_suspects_what_is_ahead_of_it_or_differs() {
        let sound = peer(7, 9, 3);
        let find = |after: KvHash, newest, second: PeerHash| {
            suspect(OWN, own(7, 9, 3), (after, newest), &[(2, sound), (3, second)].into()).map(|(id, _)| id)
        };
        let after = own(7, 9, 3);
        assert_eq!(find(after, 9, sound), None);
        assert_eq!(find(own(6, 9, 3), 9, sound), Some(OWN), "itself, at the same place");
        assert_eq!(find(own(6, 10, 3), 10, sound), None, "it went on");
        assert_eq!(find(after, 9, peer(7, 10, 3)), Some(3), "ahead of the leader");
        assert_eq!(find(after, 9, peer(1, 9, 4)), Some(3), "compacted what the leader has not");
        assert_eq!(find(own(5, 9, 4), 9, peer(1, 9, 4)), None, "compacted meanwhile");
        assert_eq!(find(after, 9, peer(8, 9, 3)), Some(3), "another hash");
        assert_eq!(find(after, 9, peer(8, 9, 2)), None, "compacted less");
    }

    #[test]
    fn the_minority_of_a_compaction_is_corrupt() {
        let hash = own(7, 9, 3);
        let verdict =
            |peers: &[(u64, Option<PeerHash>)]| compare_compaction(OWN, hash, &peers.iter().copied().collect());
        let (same, other, third) = (Some(peer(7, 20, 3)), Some(peer(8, 20, 3)), Some(peer(9, 20, 3)));
        let elsewhere = Some(peer(8, 20, 4));
        assert_eq!(verdict(&[]), Verdict::Same);
        assert_eq!(verdict(&[(2, same), (3, same)]), Verdict::Same);
        assert_eq!(verdict(&[(2, same), (3, None)]), Verdict::Unknown);
        assert_eq!(verdict(&[(2, same), (3, elsewhere)]), Verdict::Unknown);
        assert_eq!(verdict(&[(2, same), (3, other)]), Verdict::Corrupt(vec![3]));
        assert_eq!(verdict(&[(2, other), (3, other)]), Verdict::Corrupt(vec![OWN]), "the leader itself");
        assert_eq!(verdict(&[(2, third), (3, other)]), Verdict::Corrupt(vec![0]));
        assert_eq!(verdict(&[(2, other), (3, None)]), Verdict::Corrupt(vec![0]), "one each, of three");
        assert_eq!(verdict(&[(2, other)]), Verdict::Corrupt(vec![0]));
    }
}
