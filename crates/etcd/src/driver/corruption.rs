//! Checks that members hold the same data: before this one serves again, and from time to time while it leads. What is
//! compared is `server::corruption`'s; here peers are asked. A thread of its own, since hashes take long.

use super::core::Message;
use super::courtesy::Courtesy;
use super::{Inbox, Shared, Ticket, background};
use crate::config::{Config, gates::Gate};
use api::pb::etcdserverpb as pb;
use rpc::peer::{self, Asker, Connector, Unanswered, Url};
use server::corruption::{PeerHash, Verdict, compare_compaction, differing, suspect};
use server::{Fatal, Request, Who};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Applied, KvHash};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

/// Asks peers for their hashes.
pub struct Checker {
    own: u64,
    cluster: u64,
    asker: Asker,
    runtime: Runtime,
}

/// Answers by member; `None` of one that gave none.
type Answers = BTreeMap<u64, Option<PeerHash>>;

impl Checker {
    /// `limit`: how long a peer may take (etcd `ReqTimeout`).
    ///
    /// # Errors
    /// The system refused what a runtime needs.
    pub fn new((own, cluster): (u64, u64), connector: Arc<dyn Connector>, limit: Duration) -> Result<Checker, Fatal> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Fatal::new(format!("cannot check members' data: {e}")))?;
        let asker = Asker { connector, dial_timeout: limit, timeout: limit };
        Ok(Checker { own, cluster, asker, runtime })
    }

    /// Compares a member that has not begun to serve with its peers.
    ///
    /// # Errors
    /// It differs from some of them.
    pub fn check_before_start(&self, applied: &Applied) -> Result<(), Fatal> {
        info!("local-member-id" = hex(self.own), "starting initial corruption check");
        let own = hash(applied, &|_| ())?;
        let answers = self.runtime.block_on(self.ask_all(applied, own.revision));
        let answered = answers.into_iter().filter_map(|(id, answer)| Some((id, answer?))).collect();
        let differing = differing(own, &answered);
        for id in &differing {
            warn!(
                "local-member-revision" = own.revision,
                "local-member-hash" = own.hash,
                "remote-peer-id" = hex(*id),
                "remote-peer-hash" = answered[id].hash,
                "found different hash values from remote peer"
            );
        }
        if !differing.is_empty() {
            let ids: Vec<String> = differing.into_iter().map(hex).collect();
            return Err(Fatal::new(format!(
                "{} found data inconsistency with peers (at revision {}, with {}): find out which is right; then remove the \
                 other, clear its data directory and add it again",
                hex(self.own),
                own.revision,
                ids.join(", ")
            )));
        }
        info!("local-member-id" = hex(self.own), "initial corruption checking passed; no corruption");
        Ok(())
    }

    async fn ask_all(&self, applied: &Applied, revision: i64) -> Answers {
        let mut answers = Answers::new();
        for member in applied.members().into_iter().filter(|m| m.id != self.own && !m.peer_ur_ls.is_empty()) {
            answers.insert(member.id, self.ask(&member.peer_ur_ls, revision).await);
        }
        answers
    }

    async fn ask(&self, urls: &[String], revision: i64) -> Option<PeerHash> {
        for url in Url::parse_list(urls.iter().map(String::as_str)).unwrap_or_default() {
            match peer::hash_kv(&self.asker, &url, self.cluster, revision).await {
                Ok(found) => {
                    let peer::HashKv { hash, compact_revision, revision, .. } = found;
                    return Some(PeerHash { hash, compact_revision, revision });
                }
                Err(e) => note_failure(&url, revision, &e),
            }
        }
        None
    }
}

fn note_failure(url: &Url, revision: i64, e: &Unanswered) {
    let what = match e {
        Unanswered::Refused(api::Error::FutureRev) => "cannot fetch hash from slow remote peer",
        Unanswered::Refused(api::Error::Compacted) => "cannot fetch hash from remote peer; local member is behind",
        Unanswered::Refused(api::Error::ClusterIDMismatch) => "cluster ID mismatch",
        _ => "failed hash kv request",
    };
    warn!("requested-revision" = revision, "remote-peer-endpoint" = %url, error = %e, "{what}");
}

/// Of the newest revision.
fn hash(applied: &Applied, pace: &dyn Fn(usize)) -> Result<KvHash, Fatal> {
    applied.hash_kv(0, pace).map_err(|e| Fatal::new(format!("cannot hash the member's data: {e}")))
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// The checks that a leader repeats.
struct Watchman {
    checker: Checker,
    shared: Arc<Shared>,
    core: Inbox,
    courtesy: Courtesy,
    /// Compactions up to this revision were the same everywhere.
    checked: i64,
}

/// Starts the thread, if the configuration asks for a check.
///
/// # Errors
/// The operating system gave no thread.
pub fn start(config: &Config, checker: Checker, shared: &Arc<Shared>, core: &Inbox) -> Result<(), Fatal> {
    let data = Some(config.corrupt_check_time).filter(|every| !every.is_zero());
    let every = u64::try_from(config.compact_hash_check_time).unwrap_or(0);
    let compactions = Some(Duration::from_nanos(every)).filter(|_| config.enabled(Gate::CompactHashCheck));
    if data.is_none() && compactions.is_none() {
        return Ok(());
    }
    let (shared, core) = (shared.clone(), core.clone());
    let watch = move || {
        let courtesy = Courtesy::new(shared.clone());
        Watchman { checker, shared, core, courtesy, checked: 0 }.watch(data, compactions);
    };
    // It ends with the process.
    background("corruption".into(), watch).map(drop).map_err(|e| Fatal::new(format!("cannot start a thread: {e}")))
}

impl Watchman {
    /// `data` and `compactions`: how often each is compared, if at all.
    fn watch(mut self, data: Option<Duration>, compactions: Option<Duration>) {
        let from_now = |every: Option<Duration>| every.map(|every| Instant::now() + every);
        let (mut data_at, mut compactions_at) = (from_now(data), from_now(compactions));
        while let Some(next) = data_at.into_iter().chain(compactions_at).min() {
            self.checker.runtime.block_on(async { sleep_until(next).await });
            if Some(next) == data_at {
                self.lead_only(Watchman::check_data);
                data_at = from_now(data);
            } else {
                self.lead_only(Watchman::check_compactions);
                compactions_at = from_now(compactions);
            }
        }
    }

    fn lead_only(&mut self, check: fn(&mut Watchman) -> Result<(), Fatal>) {
        if self.shared.leader_id.load(Ordering::Relaxed) != self.checker.own {
            return;
        }
        if let Err(e) = check(self) {
            warn!(error = %e, "failed to check hash KV");
        }
    }

    fn hash(&self, applied: &Applied) -> Result<KvHash, Fatal> {
        self.courtesy.begin();
        hash(applied, &|bytes| self.courtesy.step(bytes))
    }

    fn check_data(&mut self) -> Result<(), Fatal> {
        let applied = self.shared.applied.load_full();
        let before = self.hash(&applied)?;
        let answers = self.checker.runtime.block_on(self.checker.ask_all(&applied, before.revision));
        self.catch_up()?;
        let applied = self.shared.applied.load_full();
        let after = (self.hash(&applied)?, applied.revision());
        let answered: BTreeMap<u64, PeerHash> = answers.into_iter().filter_map(|(id, a)| Some((id, a?))).collect();
        if let Some((id, why)) = suspect(self.checker.own, before, after, &answered) {
            warn!("member-id" = hex(id), "leader-revision" = after.1, "{why}");
            self.alarm(id);
        }
        info!("number-of-peers-checked" = answered.len(), "finished peer corruption check");
        Ok(())
    }

    /// Waits until this member has applied all that anybody had when it was asked.
    fn catch_up(&self) -> Result<(), Fatal> {
        let (out, done) = oneshot::channel();
        let ticket = Ticket::then(move |outcome| drop(out.send(outcome.map(drop))));
        let request = Request::MemberList(pb::MemberListRequest { linearizable: true });
        let failed = |e: String| Fatal::new(format!("cannot read: {e}"));
        self.core.send(Message::Call { ticket, who: Who::Member, request }).map_err(|e| failed(e.to_string()))?;
        let outcome = self.checker.runtime.block_on(done).map_err(|e| failed(e.to_string()))?;
        outcome.map_err(|e| failed(e.to_string()))
    }

    /// Compares the hashes of finished compactions, the newest that all members have.
    fn check_compactions(&mut self) -> Result<(), Fatal> {
        let applied = self.shared.applied.load_full();
        let mut hashes: Vec<KvHash> =
            applied.compaction_hashes().iter().copied().filter(|hash| hash.revision > self.checked).collect();
        hashes.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.revision));
        for hash in hashes {
            let answers = self.checker.runtime.block_on(self.checker.ask_all(&applied, hash.revision));
            match compare_compaction(self.checker.own, hash, &answers) {
                Verdict::Unknown => {}
                Verdict::Same => {
                    self.checked = hash.revision;
                    break;
                }
                Verdict::Corrupt(members) => {
                    let ids: Vec<String> = members.iter().copied().map(hex).collect();
                    error!(
                        "revision" = hash.revision,
                        "member-ids" = ids.join(","),
                        "Detected compaction hash mismatch"
                    );
                    members.into_iter().for_each(|id| self.alarm(id));
                    break;
                }
            }
        }
        info!("finished compaction hash check");
        Ok(())
    }

    /// The core is gone only when the process ends.
    fn alarm(&self, member: u64) {
        drop(self.core.send(Message::Corrupt(member)));
    }
}
