//! Bringing one member up and down: from a checked configuration to threads and sockets, and back.

use super::auth::Auth;
use super::corruption::{self, Checker};
use super::courtesy::Calls;
use super::disk::measured;
use super::first_election::FirstElection;
use super::meter::Meter;
use super::queue::queue;
use super::{Clock, Shared, background, core, door::Door, hub, image, join, net, peers, post, readers::Readers, spawn};
use super::{forward::Forwarder, log::Log, security::Credentials, spans::Collector};
use crate::config::{Config, Url, gates::Gate};
use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rpc::peer::Identity;
use server::member::{Beginning, BootConfig, Choices, Verify};
use server::{Fatal, Member};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, SystemTime};
use store::Published;
use store::watch::Hub;
use tokio::sync::watch;
use tracing::{info, warn};

/// Calls that may wait for the core; beyond it clients are told that there are too many.
const INBOX_MAX: usize = 65_536;
/// Bytes of changes that wait for a checkpoint before one starts; four times as much memory where they are deletions.
const CHECKPOINT_BYTES: usize = 4 << 20;
/// … and how long the oldest waits, ms: the log holds it meanwhile.
const CHECKPOINT_MS: u64 = 5_000;
/// Changes that may wait for a slow disk, or for a defragmentation; beyond it clients are told that there are too many
/// requests. Bytes.
const UNWRITTEN_BYTES: usize = 512 << 20;
/// Page cache budget, bytes. Pages that it lacks are mostly in the kernel's, a microsecond away.
const PAGE_CACHE_BYTES: usize = 16 << 20;
const READER_THREADS: usize = 2;

/// Runs the member until SIGINT or SIGTERM. Answers the signal's number.
///
/// # Errors
/// Anything that keeps it from starting or stopping cleanly; what `verify` asks for and does not hold.
pub fn run(config: &Config, verify: Verify) -> Result<i32, Fatal> {
    let clock = Clock::start();
    if config.memory_mlock {
        super::memory::lock()?;
    }
    tell_of_sockets(config);
    let connections = net::connections_allowed()?;
    let credentials = Credentials::open(config)?;
    let connector = &credentials.connector;
    let listeners = net::bind_all(config, &credentials)?;
    let had_log = crate::config::has_log(config);
    let reserved = net::reserve_peers(config)?;
    let (beginning, remotes) = match join::start(config, connector) {
        Ok(start) => (Ok(start.beginning), start.remotes),
        Err(why) => (Err(why), Vec::new()),
    };
    let peer_listeners = net::listen_to_peers(reserved)?;
    let collector = Collector::of(config)?;
    super::summary::log(config, had_log);
    let boot = boot_config(config, beginning, clock)?;
    let (mut member, log, warnings) = Member::boot(boot)?;
    for warning in warnings {
        warn!("{warning}");
    }
    if verify.any() {
        member.verify(verify)?;
        info!("verification of the state and of its files successful at the start");
    }
    let identity = member.identity();
    info!(
        "local-member-id" = format!("{:x}", identity.0),
        "cluster-id" = format!("{:x}", identity.1),
        "current-rev" = member.applied().revision(),
        "local-server-version" = api::version::SERVER,
        "starting etcd server"
    );
    let timeout = Duration::from_secs(5) + 2 * Duration::from_millis(config.election_timeout);
    let checker = Checker::new(identity, connector.clone(), timeout)?;
    if config.enabled(Gate::InitialCorruptCheck) && had_log {
        checker.check_before_start(member.applied())?;
    }
    let mut early = Vec::new();
    member.take_outputs(&mut early);

    let max_request_bytes = usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX);
    let snap_dir = config.data_path().join("member/snap");
    let shared = Arc::new(Shared {
        applied: Published::new(member.applied().clone()),
        leader: watch::Sender::new(member.leader() != 0),
        leader_id: AtomicU64::new(member.leader()),
        learner: AtomicBool::new(member.is_learner()),
        healthy: watch::Sender::new(true),
        serving: AtomicBool::new(false),
        calls: Calls::default(),
        auth: Auth::new(config, clock, timeout)?,
        images: image::Room::in_folder(snap_dir.clone()),
        credentials: credentials.clone(),
        standing: Mutex::default(),
        features: config.feature_gates.all().collect(),
        quota: config.quota_bytes(),
        slow_apply: config.warning_apply_duration,
        max_request_bytes,
        progress_interval_ms: millis(config.progress_interval()),
    });
    let (inbox, messages) = queue(INBOX_MAX);
    let (jobs, job_queue) = bounded(2);
    let (feed, streams, hub_queue) = hub::channel();
    let readers =
        Readers::start(READER_THREADS, &shared).map_err(|e| Fatal::new(format!("cannot start a thread: {e}")))?;
    let hub_config = store::watch::Config {
        member_id: identity.0,
        cluster_id: identity.1,
        revision: member.applied().revision(),
        term: member.applied().term(),
        max_request_bytes,
        progress_interval_ms: shared.progress_interval_ms,
    };
    let runner = hub::Runner::new(
        Hub::new(hub_config),
        hub_queue,
        readers.clone(),
        feed.clone(),
        inbox.clone(),
        shared.clone(),
        clock,
    );
    spawn("watch-hub", move || runner.run())?;
    let (done, seen) = (inbox.clone(), shared.clone());
    background("checkpointer".into(), move || core::checkpointer(&job_queue, &done, seen))
        .map_err(|e| Fatal::new(format!("cannot start a thread: {e}")))?;
    let (post, deliveries) = post::channels(net::threads());
    let peer_identity =
        Identity { member: identity.0, cluster: identity.1, urls: peers::texts(&config.initial_advertise_peer_urls) };
    let (peer_door, mut peers) =
        peers::channel(inbox.clone(), shared.clone(), readers.clone(), peer_identity, snap_dir);
    let transport = net::serve_peers(config, &credentials, peer_listeners, Arc::new(peer_door))?;
    for remote in remotes.iter().filter(|m| m.id != identity.0) {
        transport.add_remote(remote.id, &remote.peer_urls).map_err(Fatal::new)?;
    }
    peers.attach(transport.clone(), member.applied());
    let mut log = Log::new(log);
    if member.has_peers() {
        log.part(&inbox)?;
    }
    corruption::start(config, checker, &shared, &inbox)?;
    let core = core::Core {
        member,
        log,
        peers,
        forwarder: Forwarder::start(shared.clone(), connector.clone(), timeout)?,
        own: inbox.clone(),
        inbox: messages,
        shared: shared.clone(),
        readers: readers.clone(),
        post,
        hub: feed,
        checkpointer: jobs,
        clock,
        meter: Meter::default(),
        ill_while_defragmenting: config.enabled(Gate::StopGRPCServiceOnDefrag),
        first_election: FirstElection::new(config.initial_election_tick_advance, clock.now_ms()),
        hand_over_ms: config.election_timeout,
        verify,
    };
    let core = spawn("core", move || core.run(early))?;

    let door = |home| Door {
        inbox: inbox.clone(),
        streams: streams.clone(),
        readers: readers.clone(),
        shared: shared.clone(),
        transport: transport.clone(),
        identity,
        home,
    };
    let spans = collector.as_ref().map(Collector::spans);
    let signal = net::serve(config, listeners, connections, door, (deliveries, spans))?;
    drop(collector);
    // The core may be gone already; then there is nothing left to stop.
    drop(inbox.send(core::Message::Stop));
    core.join().map_err(|_| Fatal::new("the core's thread panicked"))?;
    let sockets = config.listen_peer_urls.iter().filter_map(Url::socket_path);
    sockets.for_each(|path| net::remove_socket(path.as_ref()));
    Ok(signal)
}

fn tell_of_sockets(config: &Config) {
    if config.socket_reuse_address || config.socket_reuse_port {
        info!(
            "reuse-address" = config.socket_reuse_address,
            "reuse-port" = config.socket_reuse_port,
            "configuring socket options"
        );
    }
}

fn boot_config(config: &Config, initial: Result<Beginning, String>, clock: Clock) -> Result<BootConfig, Fatal> {
    let data_dir = config.data_path();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let wall_ms = millis(wall.map_err(|e| Fatal::new(format!("the system's clock is before 1970: {e}")))?);
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| Fatal::new(format!("the system gives no random numbers: {e}")))?;
    Ok(BootConfig {
        disk: measured(!config.unsafe_no_fsync),
        data_dir,
        wal_dir: config.wal_path(),
        wal: wal::WalOptions::default(),
        store: store::Options {
            cache_bytes: PAGE_CACHE_BYTES,
            // As bbolt: the operating system's, so that pages and file system blocks agree.
            page_size: u32::try_from(rustix::param::page_size()).ok(),
            quota_bytes: config.quota_bytes(),
            min_lease_ttl: config.min_lease_ttl(),
            max_learners: usize::try_from(config.max_learners).unwrap_or(0),
            lease_checkpoint_persist: config.enabled(Gate::LeaseCheckpointPersist),
        },
        member: server::member::Config {
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.iter().map(ToString::to_string).collect(),
            tick_ms: config.heartbeat_interval,
            election_ticks: config.election_timeout / config.heartbeat_interval,
            pre_vote: config.pre_vote,
            seed: u64::from_le_bytes(seed),
            snapshot_count: config.snapshot_count,
            catchup_entries: config.snapshot_catchup_entries,
            release_entries: server::member::RELEASE_ENTRIES,
            release_delay_ms: server::member::RELEASE_DELAY_MS,
            max_snapshots: size(config.max_snapshots),
            max_wals: size(config.max_wals),
            max_request_bytes: size(config.max_request_bytes),
            max_txn_ops: size(config.max_txn_ops),
            quota_bytes: config.quota_bytes(),
            auto_compaction: config.auto_compaction().map_err(Fatal::new)?,
            compaction_batch: config.compaction_batch(),
            compaction_sleep_ms: millis(config.compaction_sleep()),
            alone: false,
            strict_reconfig_check: config.strict_reconfig_check,
            lease_checkpoint: config.enabled(Gate::LeaseCheckpoint),
            choices: choices(config),
            checkpoint_bytes: CHECKPOINT_BYTES,
            checkpoint_ms: checkpoint_ms(config),
            unwritten_bytes: UNWRITTEN_BYTES,
        },
        initial,
        force_new_cluster: config.force_new_cluster.then(|| peers::texts(&config.initial_advertise_peer_urls)),
        now_ms: clock.now_ms(),
        wall_ms,
    })
}

fn choices(config: &Config) -> Choices {
    let megabytes = config.bootstrap_defrag_threshold_megabytes;
    Choices {
        priority_request: config.enabled(Gate::PriorityRequest),
        fast_lease_keep_alive: config.asked(Gate::FastLeaseKeepAlive),
        downgrade_check_ms: millis(config.downgrade_check_time),
        checkpoint_entries: u64::try_from(config.backend_batch_limit).ok().filter(|entries| *entries > 0),
        defragment_from: (megabytes > 0).then(|| megabytes.saturating_mul(1 << 20)),
    }
}

/// How long changes wait at most. Who asks for a shorter time than a millisecond gets that.
fn checkpoint_ms(config: &Config) -> u64 {
    match config.backend_batch_interval {
        Duration::ZERO => CHECKPOINT_MS,
        interval => millis(interval).max(1),
    }
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(text: &str) -> BootConfig {
        let mut config = Config::default();
        crate::config::read_file(text, &mut config).unwrap();
        boot_config(&config, Err("nobody".into()), Clock::start()).unwrap()
    }

    #[test]
    fn a_member_is_what_the_settings_say() {
        let default = booted("");
        assert_eq!(default.member.choices, Choices::default());
        assert_eq!((default.member.checkpoint_ms, default.wal_dir), (CHECKPOINT_MS, None));
        let boot = booted(
            "name: m1\ndata-dir: data\nwal-dir: log\nsnapshot-count: 11\nsnapshot-catchup-entries: 12\nmax-snapshots: 13\n\
             max-wals: 14\nmax-request-bytes: 15\nmax-txn-ops: 16\nquota-backend-bytes: 17\nheartbeat-interval: 18\n\
             election-timeout: 190\npre-vote: false\ncompaction-batch-limit: 20\ncompaction-sleep-interval: 21000000\n\
             strict-reconfig-check: false\nmax-learners: 22\nbackend-batch-limit: 23\nbackend-batch-interval: 24000000\n\
             downgrade-check-time: 25000000\nbootstrap-defrag-threshold-megabytes: 26\nforce-new-cluster: true\n\
             auto-compaction-mode: revision\nauto-compaction-retention: '27'\nadvertise-client-urls: http://a:1\n\
             feature-gates: FastLeaseKeepAlive=true,PriorityRequest=true,LeaseCheckpoint=true,LeaseCheckpointPersist=true\n",
        );
        let member = boot.member;
        assert_eq!(
            (member.name.as_str(), boot.data_dir.to_str(), boot.wal_dir),
            ("m1", Some("data"), Some("log".into()))
        );
        assert_eq!((member.snapshot_count, member.catchup_entries), (11, 12));
        assert_eq!((member.max_snapshots, member.max_wals), (13, 14));
        assert_eq!((member.max_request_bytes, member.max_txn_ops, member.quota_bytes), (15, 16, 17));
        assert_eq!((member.tick_ms, member.election_ticks, member.pre_vote), (18, 10, false));
        assert_eq!((member.compaction_batch, member.compaction_sleep_ms), (20, 21));
        assert_eq!((member.strict_reconfig_check, boot.store.max_learners), (false, 22));
        assert_eq!((boot.store.quota_bytes, boot.store.lease_checkpoint_persist), (17, true));
        assert_eq!((member.lease_checkpoint, member.checkpoint_ms), (true, 24));
        assert_eq!(member.auto_compaction, Some(server::Policy::Revision { retention: 27 }));
        assert_eq!(member.client_urls, ["http://a:1"]);
        assert!(boot.force_new_cluster.is_some() && default.force_new_cluster.is_none());
        let choices = Choices {
            priority_request: true,
            fast_lease_keep_alive: true,
            downgrade_check_ms: 25,
            checkpoint_entries: Some(23),
            defragment_from: Some(26 << 20),
        };
        assert_eq!(member.choices, choices);
    }
}
