//! Mistakes that can be switched on, to see that the simulator would notice them.
//!
//! A check that never fired proves little. Each mutant is a mistake that somebody made once, in etcd or here, at the place
//! where it would be made: `if mutant!("name") { … }`. One at a time is on, in this thread; without the cargo feature
//! `mutants` the macro is `false`, and nothing is left of it.

use std::cell::Cell;

/// All mutants, and what is wrong with each.
pub const MUTANTS: &[(&str, &str)] = &[
    ("voteBeforeSync", "a vote leaves before it is durable"),
    ("ackBeforeSync", "entries are acknowledged before they are durable"),
    ("voteTwice", "a member votes for everybody who asks"),
    ("voteForShorterLog", "a candidate need not have what the voter has"),
    ("commitOlderTerms", "a leader commits entries of older terms by counting (Raft paper, figure 8)"),
    ("quorumOneShort", "a majority lacks one"),
    ("readWithoutQuorum", "a leader confirms reads by itself"),
    ("readBeforeFirstCommit", "a leader confirms reads before it has committed anything in its term"),
    ("applyBeforeDurable", "entries are applied that the own log may lose"),
    ("logSyncSkipped", "the log is not synced"),
    ("syncBeforeSnapshotSkipped", "a .snap does not wait for the log it rests on"),
    ("readAtOnce", "a linearizable read does not ask the leader"),
    ("readsReleasedEarly", "a confirmed read does not wait until its index is applied"),
    ("revokeGuardForgotten", "a deposed leader has leases revoked"),
    ("renewalUnconfirmed", "a deposed leader renews leases"),
    ("olderSnapshotRecorded", "a snapshot is recorded behind a newer one of the leader's"),
    ("databaseWaitsForCheckpoint", "a received database and a checkpoint wait for one another"),
    ("commitNotRaised", "what the page store holds does not count as committed"),
    ("proposalDoubled", "a proposal goes into the log twice"),
    ("prevValueStale", "an event has the wrong previous value"),
    ("gapForgotten", "a hub that missed changes does not read them again"),
    ("eventsDoubled", "watchers of a hub that missed changes get the last revision twice"),
    ("leaseExpiresAtElection", "a new leader gives leases no time"),
    ("compactedServed", "what a compaction removed is read as if it had never been"),
    ("leaseNotDetached", "deleted keys stay with their leases"),
    ("permissionForgotten", "previous values of deletions are shown to who may write, but not read"),
    ("permissionOfNestedTxnSkipped", "transactions inside transactions are not looked at for permissions"),
    ("authRevisionIgnored", "what was signed before users and roles changed is good"),
    ("watchPermissionForgotten", "everybody may watch"),
    ("rootCheckForgotten", "what is root's is everybody's"),
    ("forwardedKeysUnchecked", "a lease's keys are shown as the leader knows them, to who may read those known here"),
    ("downgradeJudgedAtOnce", "whether a downgrade is possible is not asked of the leader"),
];

/// Those that only threads in an unlucky order show: for the checker of interleavings, not for the simulator, where one thing
/// happens after another.
pub const INTERLEAVED: &[(&str, &str)] = &[
    ("pagesTakenFromViews", "pages are used again while a view still reads them"),
    ("viewCountedLate", "a view reads which pages it has, and is counted a moment later"),
    ("publishedBeforeDurable", "reads go to a checkpoint's pages before they are written"),
];

thread_local! {
    static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Switches one mutant on in this thread, and all others off.
///
/// # Errors
/// There is none of this name.
pub fn switch_to(name: Option<&str>) -> Result<(), String> {
    let found = name.map(|name| {
        let known = MUTANTS.iter().chain(INTERLEAVED).find(|(known, _)| *known == name);
        known.map(|(known, _)| *known).ok_or(format!("there is no mutant {name}"))
    });
    ON.set(found.transpose()?);
    Ok(())
}

/// Whether the mutant is on.
pub fn is_on(name: &str) -> bool {
    ON.get() == Some(name)
}
