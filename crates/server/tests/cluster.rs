//! Several members over simulated disks, their messages carried by hand: what a cluster of the actors alone does.

use api::pb::etcdserverpb as pb;
use api::raft::{Message, MessageType};
use disk::{Fault, SimDisk, SimOptions};
use server::access::{self, Client, User};
use server::member::{
    Beginning, BootConfig, CheckpointJob, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES,
};
use server::{LogTask, LogWriter, Member, Output, Request, Response, Who};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

type Ticket = u32;
type Outcome = Result<Response, api::Error>;

const TICK_MS: u64 = 100;
const ELECTION_TICKS: u64 = 10;

struct Node {
    disk: SimDisk,
    member: Member<Ticket>,
    log: LogWriter,
    jobs: VecDeque<CheckpointJob>,
    /// What its log was told while its disk stood still.
    held: Vec<LogTask>,
    removed: bool,
}

/// A cluster, and what its clients were told.
struct World {
    nodes: BTreeMap<u64, Node>,
    /// Who can't be reached, and reaches nobody.
    cut: BTreeSet<u64>,
    /// Whose disk stands still.
    stuck: BTreeSet<u64>,
    now_ms: u64,
    /// Entries that logs in memory keep for followers.
    catchup_entries: u64,
    next_ticket: Ticket,
    answers: BTreeMap<Ticket, Outcome>,
    reads: BTreeMap<Ticket, i64>,
    /// Whose requests are the leader's to answer.
    forwarded: BTreeSet<Ticket>,
    /// Kinds of messages that were carried.
    carried: BTreeSet<i32>,
    /// Database snapshots on their way, and how many there were.
    images: Vec<(Message, std::sync::Arc<store::Applied>)>,
    snapshots: usize,
    /// Of those who are made next.
    choices: Choices,
    /// How often somebody wanted to know the others' versions.
    versions_asked: usize,
}

fn url(id: u64) -> Vec<String> {
    vec![format!("http://10.0.0.{id}:2380")]
}

fn config(id: u64, catchup_entries: u64, choices: Choices) -> Config {
    Config {
        name: format!("m{id}"),
        client_urls: vec![format!("http://10.0.0.{id}:2379")],
        tick_ms: TICK_MS,
        election_ticks: ELECTION_TICKS,
        pre_vote: true,
        seed: id,
        snapshot_count: 1000,
        catchup_entries,
        release_entries: RELEASE_ENTRIES,
        release_delay_ms: RELEASE_DELAY_MS,
        max_snapshots: 2,
        max_wals: 2,
        max_request_bytes: 1 << 20,
        max_txn_ops: 128,
        quota_bytes: 0,
        auto_compaction: None,
        compaction_batch: 100,
        compaction_sleep_ms: 10,
        alone: false,
        strict_reconfig_check: true,
        lease_checkpoint: false,
        choices,
        checkpoint_bytes: 1 << 20,
        checkpoint_ms: 5000,
        unwritten_bytes: usize::MAX,
    }
}

fn boot(
    disk: &SimDisk,
    id: u64,
    founders: &[u64],
    now_ms: u64,
    catchup_entries: u64,
) -> Result<(Member<Ticket>, LogWriter), server::Fatal> {
    boot_with(disk, id, founders, now_ms, catchup_entries, Choices::default())
}

fn boot_with(
    disk: &SimDisk,
    id: u64,
    founders: &[u64],
    now_ms: u64,
    catchup_entries: u64,
    choices: Choices,
) -> Result<(Member<Ticket>, LogWriter), server::Fatal> {
    let founders: Vec<_> =
        founders.iter().map(|id| Founder { id: *id, name: format!("m{id}"), peer_urls: url(*id) }).collect();
    let boot = BootConfig {
        disk: disk.shared(),
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions { segment_bytes: 64 << 10, ..wal::WalOptions::default() },
        store: store::Options { max_learners: 1, ..store::Options::default() },
        member: config(id, catchup_entries, choices),
        initial: Ok(Beginning { cluster_id: 7, id, founders }),
        force_new_cluster: None,
        now_ms,
        wall_ms: 1_700_000_000_000 + now_ms,
    };
    let (member, log, _) = Member::boot(boot)?;
    Ok((member, log))
}

impl World {
    fn new(ids: &[u64]) -> World {
        World::keeping(1000, ids)
    }

    fn keeping(catchup_entries: u64, ids: &[u64]) -> World {
        World::choosing(Choices::default(), catchup_entries, ids)
    }

    fn choosing(choices: Choices, catchup_entries: u64, ids: &[u64]) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            stuck: BTreeSet::new(),
            now_ms: 0,
            catchup_entries,
            next_ticket: 0,
            answers: BTreeMap::new(),
            reads: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            carried: BTreeSet::new(),
            images: Vec::new(),
            snapshots: 0,
            choices,
            versions_asked: 0,
        };
        ids.iter().for_each(|id| world.add(*id, ids));
        world
    }

    fn add(&mut self, id: u64, founders: &[u64]) {
        let disk = SimDisk::new(SimOptions { seed: id, capacity: u64::MAX });
        let choices = self.choices.clone();
        let (member, log) = boot_with(&disk, id, founders, self.now_ms, self.catchup_entries, choices).unwrap();
        self.nodes.insert(id, Node { disk, member, log, jobs: VecDeque::new(), held: Vec::new(), removed: false });
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Everybody works until nobody has anything to say.
    fn settle(&mut self) {
        let mut messages = VecDeque::new();
        for _ in 0..1000 {
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for id in ids {
                messages.extend(self.work(id));
            }
            if messages.is_empty() {
                return;
            }
            while let Some(message) = messages.pop_front() {
                self.carry(message);
            }
        }
        panic!("they never stop talking");
    }

    fn work(&mut self, id: u64) -> Vec<Message> {
        let stuck = self.stuck.contains(&id);
        let Node { member, log, jobs, held, removed, .. } = self.nodes.get_mut(&id).unwrap();
        let mut messages = Vec::new();
        // A leader's messages leave before its own log is synced.
        loop {
            member.turn().unwrap();
            messages.extend(member.take_messages());
            held.extend(member.take_log_tasks());
            if held.is_empty() || stuck {
                break;
            }
            for task in held.drain(..) {
                log.take(task).unwrap();
            }
            member.logged(log.sync().unwrap());
        }
        let mut outputs = Vec::new();
        member.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Reply { ticket, result } => drop(self.answers.insert(ticket, result)),
                Output::Read { ticket, .. } => drop(self.reads.insert(ticket, member.applied().revision())),
                Output::Forward { ticket, .. } => drop(self.forwarded.insert(ticket)),
                Output::Checkpoint(job) => jobs.push_back(*job),
                Output::Removed => *removed = true,
                Output::AskVersions => self.versions_asked += 1,
                Output::SendSnapshot { message, applied } => self.images.push((message, applied)),
                _ => {}
            }
        }
        messages
    }

    fn carry(&mut self, message: Message) {
        if self.cut.contains(&message.from) || self.cut.contains(&message.to) {
            return;
        }
        self.carried.insert(message.kind as i32);
        // As a peer would read it.
        let message = Message::decode(message.encode().into()).unwrap();
        if let Some(node) = self.nodes.get_mut(&message.to) {
            node.member.receive(message);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now_ms += TICK_MS;
            let now = self.now_ms;
            self.nodes.values_mut().for_each(|node| node.member.tick(now).unwrap());
            self.settle();
        }
    }

    fn leader(&mut self) -> u64 {
        for _ in 0..100 {
            self.pass(TICK_MS);
            let cut = self.cut.clone();
            let leads = |(id, node): (&u64, &Node)| (node.member.leader() == *id && !cut.contains(id)).then_some(*id);
            if let Some(leader) = self.nodes.iter().find_map(leads) {
                return leader;
            }
        }
        panic!("nobody leads");
    }

    fn ask(&mut self, id: u64, request: Request) -> Ticket {
        self.ask_as(id, &Who::Member, request)
    }

    fn ask_as(&mut self, id: u64, who: &Who, request: Request) -> Ticket {
        self.next_ticket += 1;
        let (ticket, now) = (self.next_ticket, self.now_ms);
        self.node(id).member.call_as(now, ticket, who, request);
        self.settle();
        ticket
    }

    fn answer(&mut self, id: u64, request: Request) -> Outcome {
        let ticket = self.ask(id, request);
        self.answers.remove(&ticket).unwrap_or_else(|| panic!("{ticket} is not answered"))
    }

    /// Checkpoints run and come back, and images reach whom they are for.
    fn run_jobs(&mut self) {
        let now_ms = self.now_ms;
        for node in self.nodes.values_mut() {
            while let Some(job) = node.jobs.pop_front() {
                node.member.checkpointed(now_ms, job.run(&|_| ()).unwrap()).unwrap();
            }
        }
        self.settle();
        for (message, applied) in std::mem::take(&mut self.images) {
            self.snapshots += 1;
            let (from, to) = (message.from, message.to);
            receive(&self.node(to).disk, &message, &applied);
            self.carry(message);
            self.node(from).member.report_snapshot(to, true);
        }
        self.settle();
    }

    fn put(&mut self, id: u64, key: &str) -> i64 {
        match self.answer(id, put(key)) {
            Ok(Response::Put(r)) => r.header.unwrap().revision,
            other => panic!("{other:?}"),
        }
    }

    /// A crash: what was not synced is gone.
    fn restart(&mut self, id: u64) {
        let now_ms = self.now_ms;
        let Node { disk, .. } = self.nodes.remove(&id).unwrap();
        disk.crash_now();
        disk.reboot(disk::Crash::Lose);
        let (member, log) = boot(&disk, id, &[], now_ms, self.catchup_entries).unwrap();
        self.nodes.insert(id, Node { disk, member, log, jobs: VecDeque::new(), held: Vec::new(), removed: false });
        self.settle();
    }

    fn connect_all(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for node in self.nodes.values_mut() {
            node.member.set_active(ids.iter().map(|id| (*id, 0)).collect());
        }
    }

    fn hashes(&mut self) -> BTreeSet<u32> {
        self.nodes.values().map(|node| node.member.applied().hash_kv(0, &|_| ()).unwrap().hash).collect()
    }
}

fn put(key: &str) -> Request {
    Request::Put(pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() })
}

fn range(key: &str, serializable: bool) -> Request {
    Request::Range(pb::RangeRequest { key: key.to_owned().into(), serializable, ..Default::default() })
}

#[test]
fn founders_elect_a_leader_and_hold_the_same() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    for (n, id) in [leader, others[0], others[1]].into_iter().cycle().take(30).enumerate() {
        world.put(id, &format!("k{n}"));
    }
    world.pass(200);
    assert_eq!(world.hashes().len(), 1);
    for node in world.nodes.values() {
        assert_eq!(node.member.applied().revision(), 31);
        let members = node.member.applied().members();
        assert_eq!(
            members.iter().map(|m| (m.id, m.name.as_str())).collect::<Vec<_>>(),
            [(1, "m1"), (2, "m2"), (3, "m3")]
        );
        assert!(members.iter().all(|m| m.client_ur_ls.len() == 1), "all have published themselves: {members:?}");
    }
}

#[test]
fn reads_at_followers_see_what_was_acknowledged_before() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let revision = world.put(leader, "k");
    let ticket = world.ask(follower, range("k", false));
    assert!(world.reads.remove(&ticket).is_some_and(|seen| seen >= revision), "{:?}", world.answers);
    // A follower that is cut off answers only who asks for no more than it has.
    world.cut.insert(follower);
    let newer = world.put(leader, "k");
    let ticket = world.ask(follower, range("k", true));
    assert!(world.reads.remove(&ticket).is_some_and(|seen| seen < newer));
    let ticket = world.ask(follower, range("k", false));
    assert!(!world.reads.contains_key(&ticket));
    world.pass(400);
    world.cut.clear();
    // The round was lost; it is asked again.
    world.pass(700);
    assert!(world.reads.remove(&ticket).is_some_and(|seen| seen >= newer), "{:?}", world.answers.get(&ticket));
}

#[test]
fn a_new_leader_has_all_that_was_acknowledged() {
    let mut world = World::new(&[1, 2, 3]);
    let mut revision = 0;
    for n in 0..5 {
        let leader = world.leader();
        revision = world.put(leader, &format!("k{n}"));
        world.cut = BTreeSet::from([leader]);
        let next = world.leader();
        assert_ne!(leader, next);
        assert!(world.node(next).member.applied().revision() >= revision);
        world.restart(leader);
        world.cut.clear();
        world.pass(500);
    }
    world.pass(500);
    assert_eq!(world.hashes().len(), 1);
    assert!(world.nodes.values().all(|node| node.member.applied().revision() == revision));
}

#[test]
fn a_leader_does_not_wait_for_its_own_disk_nor_answer_without_a_quorum() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.cut = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let ticket = world.ask(leader, put("k"));
    assert!(!world.answers.contains_key(&ticket), "one of three is no quorum");
    world.cut.clear();
    world.pass(300);
    assert!(world.answers[&ticket].is_ok());
}

#[test]
fn who_has_no_leader_for_an_election_timeout_says_so_at_once() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.cut = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let early = world.ask(leader, put("early"));
    world.pass(4 * TICK_MS * ELECTION_TICKS);
    assert!(world.node(leader).member.is_leaderless());
    assert_eq!(world.answer(leader, put("k")).unwrap_err(), api::Error::NoLeader);
    assert_eq!(world.answer(leader, range("k", false)).unwrap_err(), api::Error::NoLeader);
    assert!(!world.answers.contains_key(&early), "it may still be committed");
    world.cut.clear();
    world.leader();
    world.pass(8000);
    // It was committed, or another log won and its time was over.
    assert!(
        matches!(world.answers[&early], Ok(_) | Err(api::Error::TimeoutDueToConnectionLost)),
        "{:?}",
        world.answers[&early]
    );
}

#[test]
fn a_leader_whose_disk_stands_still_hands_over_and_loses_nothing() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.connect_all();
    world.stuck.insert(leader);
    let waiting = world.ask(leader, put("k"));
    world.pass(TICK_MS * (ELECTION_TICKS - 2));
    assert_eq!(world.node(leader).member.leader(), leader, "a hiccup is no reason");
    world.pass(5 * TICK_MS);
    let next = world.node(leader).member.leader();
    assert!(next != leader && next != 0, "{next}");
    assert!(!world.answers.contains_key(&waiting), "nothing is applied, and so answered, before it is in the own log");
    let revision = world.put(next, "later");
    world.stuck.clear();
    world.pass(300);
    assert!(world.answers[&waiting].is_ok());
    assert_eq!((world.hashes().len(), world.node(leader).member.applied().revision()), (1, revision));
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_serves_deletes() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.connect_all();
    world.node(leader).disk.inject(Fault::Full(0));
    // The segment that is there still takes some: puts until the last quarter of it is begun.
    let filled = (0..200).find(|n| {
        let big = pb::PutRequest { key: format!("k{n}").into(), value: vec![7; 2000].into(), ..Default::default() };
        world.answer(leader, Request::Put(big)) == Err(api::Error::NoSpace)
    });
    assert!(filled.is_some_and(|n| n > 5), "refused at {filled:?}");
    assert_eq!(world.node(leader).member.leader(), leader, "who refuses puts still leads");
    let delete = pb::DeleteRangeRequest { key: "k0".into(), ..Default::default() };
    assert!(world.answer(leader, Request::DeleteRange(delete)).is_ok());
    world.pass(2 * TICK_MS);
    let next = world.node(leader).member.leader();
    assert!(next != leader && next != 0, "{next}");
    let revision = world.put(next, "later");
    world.node(leader).disk.inject(Fault::Heal);
    world.pass(300);
    assert!(world.put(leader, "through the one that was full") > revision);
    assert_eq!(world.hashes().len(), 1);
}

#[test]
fn where_all_disks_are_full_leadership_does_not_go_round_at_every_tick() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.connect_all();
    world.nodes.values().for_each(|node| node.disk.inject(Fault::Full(0)));
    let big = || Request::Put(pb::PutRequest { key: "k".into(), value: vec![7; 2000].into(), ..Default::default() });
    let refused = (0..200).any(|_| world.answer(leader, big()) == Err(api::Error::NoSpace));
    assert!(refused, "all logs are nearly full");
    let term = world.node(leader).member.applied().term();
    world.pass(8 * TICK_MS * ELECTION_TICKS);
    let now = world.leader();
    let later = world.node(now).member.applied().term();
    assert!((1..=3).contains(&(later - term)), "each hands over once at most: {term} to {later}");
}

#[test]
fn a_follower_whose_disk_stands_still_disturbs_nobody() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.connect_all();
    let term = world.node(leader).member.applied().term();
    let follower = if leader == 1 { 2 } else { 1 };
    world.stuck.insert(follower);
    for n in 0..5 {
        world.put(leader, &format!("k{n}"));
        world.pass(TICK_MS * ELECTION_TICKS);
    }
    world.stuck.clear();
    world.pass(300);
    let led: BTreeSet<u64> = world.nodes.values().map(|node| node.member.leader()).collect();
    assert_eq!((led, world.node(follower).member.applied().term()), (BTreeSet::from([leader]), term));
    assert_eq!(world.hashes().len(), 1);
}

#[test]
fn members_are_added_promoted_and_removed() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.pass(6000);
    world.connect_all();
    let add = |is_learner: bool, n: u64| Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls: url(n), is_learner });
    let follower = if leader == 1 { 2 } else { 1 };
    let learner = match world.answer(follower, add(true, 4)) {
        Ok(Response::MemberAdd(r)) => {
            assert_eq!(r.members.len(), 4);
            r.member.unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert!(learner.is_learner && learner.name.is_empty());
    // Ids are made of URLs and seconds.
    world.pass(1000);
    assert_eq!(world.answer(leader, add(true, 5)).unwrap_err(), api::Error::TooManyLearners);
    assert_eq!(world.answer(leader, add(false, 4)).unwrap_err(), api::Error::PeerURLExist);
    let promote = Request::MemberPromote(pb::MemberPromoteRequest { id: learner.id });
    assert_eq!(world.answer(leader, promote.clone()).unwrap_err(), api::Error::LearnerNotReady);
    let disk = SimDisk::new(SimOptions { seed: 4, capacity: u64::MAX });
    let (member, log) = boot(&disk, learner.id, &[], world.now_ms, world.catchup_entries).unwrap();
    world.nodes.insert(learner.id, Node { disk, member, log, jobs: VecDeque::new(), held: Vec::new(), removed: false });
    world.pass(1000);
    assert_eq!(world.hashes().len(), 1);
    match world.answer(leader, promote) {
        Ok(Response::MemberPromote(r)) => assert!(r.members.iter().all(|m| !m.is_learner)),
        other => panic!("{other:?}"),
    }
    world.pass(500);
    world.connect_all();
    let remove = Request::MemberRemove(pb::MemberRemoveRequest { id: follower });
    assert!(matches!(world.answer(leader, remove.clone()), Ok(Response::MemberRemove(r)) if r.members.len() == 3));
    world.pass(500);
    assert_eq!(world.answer(leader, remove).unwrap_err(), api::Error::MemberNotFound);
    assert!(world.node(follower).removed, "it learns that it was removed");
    world.put(leader, "after");
    assert!(world.carried.contains(&(MessageType::MsgApp as i32)));
}

#[test]
fn what_could_cost_the_quorum_is_refused() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    world.pass(6000);
    // Nobody told it of any connection.
    let add = Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls: url(4), is_learner: false });
    assert_eq!(world.answer(leader, add).unwrap_err(), api::Error::Unhealthy);
    let own = Request::MemberRemove(pb::MemberRemoveRequest { id: leader });
    assert_eq!(world.answer(leader, own).unwrap_err(), api::Error::Unhealthy);
    let promote = Request::MemberPromote(pb::MemberPromoteRequest { id: 99 });
    assert_eq!(world.answer(leader, promote).unwrap_err(), api::Error::MemberNotFound);
}

#[test]
fn leadership_moves_to_the_voter_that_was_named() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let next = if leader == 3 { 1 } else { 3 };
    let to = |target_id: u64| Request::MoveLeader(pb::MoveLeaderRequest { target_id });
    assert_eq!(world.answer(next, to(next)).unwrap_err(), api::Error::NotLeader);
    assert_eq!(world.answer(leader, to(99)).unwrap_err(), api::Error::BadLeaderTransferee);
    assert!(matches!(world.answer(leader, to(next)), Ok(Response::MoveLeader(_))));
    assert!(world.nodes.values().all(|node| node.member.leader() == next));
    world.put(leader, "k");
}

#[test]
fn what_is_proposed_while_leadership_moves_reaches_the_next_leader() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let [next, third] = match leader {
        1 => [2, 3],
        2 => [3, 1],
        _ => [1, 2],
    };
    let now = world.now_ms;
    let to_next = Request::MoveLeader(pb::MoveLeaderRequest { target_id: next });
    // All of it before anybody hears of the move; two of the proposals go to who leads no longer.
    world.node(leader).member.call(now, 101, to_next);
    for (ticket, id) in [(102, leader), (103, next), (104, third)] {
        world.node(id).member.call(now, ticket, put(&format!("through{id}")));
    }
    world.settle();
    world.pass(300);
    assert!((101..=104).all(|ticket| matches!(world.answers.get(&ticket), Some(Ok(_)))), "{:?}", world.answers);
    assert!(world.nodes.values().all(|node| node.member.leader() == next));
}

#[test]
fn what_is_proposed_while_leadership_does_not_move_is_the_old_leaders() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let [next, third] = if leader == 1 { [2, 3] } else { [1, if leader == 2 { 3 } else { 2 }] };
    // Whom it goes to can't be reached, until the attempt is given up.
    world.cut.insert(next);
    let waiting = world.ask(leader, Request::MoveLeader(pb::MoveLeaderRequest { target_id: next }));
    let puts = [world.ask(leader, put("own")), world.ask(third, put("third's"))];
    assert!(puts.iter().all(|ticket| !world.answers.contains_key(ticket)), "{:?}", world.answers);
    world.pass(2 * TICK_MS * ELECTION_TICKS);
    assert!(puts.iter().all(|ticket| matches!(world.answers.get(ticket), Some(Ok(_)))), "{:?}", world.answers);
    assert_eq!(world.node(leader).member.leader(), leader);
    assert!(!matches!(world.answers.get(&waiting), Some(Ok(_))));
}

/// The transport's part: the image under the name that the member looks for.
fn receive(disk: &SimDisk, message: &Message, applied: &store::Applied) {
    let index = message.snapshot.as_ref().unwrap().metadata.index;
    let image = applied.image();
    let mut bytes = vec![0; usize::try_from(image.len()).unwrap()];
    image.read_at(&mut bytes, 0).unwrap();
    let (disk, dir) = (disk.shared(), std::path::Path::new("/data/member/snap"));
    let file = disk.open(&dir.join(server::member::image_name(index)), disk::OpenOptions::create()).unwrap();
    file.write_at(&bytes, 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(dir).unwrap();
}

#[test]
fn a_follower_too_far_behind_gets_the_leaders_database() {
    for killed in [None, Some("before it is in place"), Some("after it is in place")] {
        let mut world = World::new(&[1, 2, 3]);
        let leader = world.leader();
        let late = if leader == 1 { 2 } else { 1 };
        world.put(leader, "before");
        world.cut.insert(late);
        for n in 0..3000 {
            world.put(leader, &format!("k{}", n % 50));
        }
        world.pass(6000);
        world.run_jobs();
        world.pass(6000);
        world.run_jobs();
        world.cut.clear();
        world.pass(2000);
        world.run_jobs();
        world.pass(500);
        assert!(world.snapshots > 0, "the log still has what it needs");
        assert!(!world.node(late).jobs.is_empty(), "the database is a job, and everything else goes on");
        if killed != Some("before it is in place") {
            let puts = world.node(late).member.figures().counts.puts;
            world.run_jobs();
            assert!(puts > 0 && world.node(late).member.figures().counts.puts >= puts, "metrics never go back");
        }
        if killed.is_some() {
            world.restart(late);
        }
        let revision = world.put(leader, "after");
        world.pass(1500);
        assert_eq!(world.hashes().len(), 1);
        assert_eq!(world.node(late).member.applied().revision(), revision);
        world.restart(late);
        world.pass(1500);
        assert_eq!(world.node(late).member.applied().revision(), revision);
    }
}

/// A commit index alone is not synced. What the page store holds is committed all the same: else a `.snap` of it would be past
/// what the log says. (Seed 671 of the first cluster seeds.)
#[test]
fn what_the_page_store_holds_is_committed_whatever_the_log_says() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let late = if leader == 1 { 2 } else { 1 };
    for n in 0..50 {
        world.put(leader, &format!("k{n}"));
    }
    world.pass(6000);
    let now_ms = world.now_ms;
    let job = world.node(late).jobs.pop_front().expect("a checkpoint is due");
    let done = job.run(&|_| ()).unwrap();
    world.node(late).member.checkpointed(now_ms, done).unwrap();
    world.cut.insert(late);
    world.restart(late);
    let Ok(Response::Status(status)) = world.answer(late, Request::Status(pb::StatusRequest {})) else { panic!() };
    assert!(status.raft_applied_index > 50 && status.raft_index >= status.raft_applied_index, "{status:?}");
}

/// Entries enough that a `.snap` is due, at a member that then falls so far behind that it gets the leader's database.
fn fall_behind(world: &mut World, leader: u64, late: u64) {
    for n in 0..1100 {
        world.put(leader, &format!("k{}", n % 50));
    }
    world.pass(6000);
    assert!(
        world.node(late).jobs.is_empty() == world.stuck.contains(&late),
        "a checkpoint is made when its log is synced"
    );
    world.cut.insert(late);
    for n in 0..3000 {
        world.put(leader, &format!("k{}", n % 50));
    }
    world.pass(6000);
}

/// Checkpoints of all but one run, and the database gets to that one.
fn bring_the_database(world: &mut World, late: u64) {
    let kept = std::mem::take(&mut world.node(late).jobs);
    world.run_jobs();
    world.cut.clear();
    world.pass(2000);
    world.node(late).jobs.clear();
    world.run_jobs();
    world.node(late).jobs = kept;
    world.pass(500);
    assert!(world.snapshots > 0, "the log still has what it needs");
}

/// A checkpoint that waits for the log, and a leader's database that waits for that checkpoint, reach the log's writer in one
/// go: neither is to wait for the other. (Seed 77 of the first cluster seeds.)
#[test]
fn a_database_that_waits_for_a_checkpoint_does_not_keep_it_from_what_it_waits_for() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let late = if leader == 1 { 2 } else { 1 };
    for n in 0..1100 {
        world.put(leader, &format!("k{}", n % 50));
    }
    world.stuck.insert(late);
    fall_behind(&mut world, leader, late);
    bring_the_database(&mut world, late);
    world.stuck.clear();
    for _ in ["the checkpoint", "the database"] {
        world.pass(2000);
        world.run_jobs();
    }
    world.pass(2000);
    let revision = world.put(leader, "after");
    world.pass(1500);
    assert_eq!(world.node(late).member.applied().revision(), revision);
}

/// A `.snap` of the member's own that was being written when the leader's database came is recorded behind the leader's
/// snapshot: the log is not to be replayed from there, where its entries end in a gap. (Seed 7 of the first cluster seeds.)
#[test]
fn a_snapshot_that_a_leaders_has_overtaken_is_not_where_the_log_begins() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let late = if leader == 1 { 2 } else { 1 };
    fall_behind(&mut world, leader, late);
    bring_the_database(&mut world, late);
    assert!(!world.node(late).jobs.is_empty(), "its own is still being written");
    world.run_jobs();
    assert!(!world.node(late).jobs.is_empty(), "the database takes its place after that");
    world.run_jobs();
    let revision = world.put(leader, "after");
    world.pass(1500);
    assert_eq!(world.node(late).member.applied().revision(), revision);
    world.restart(late);
    world.pass(1500);
    assert_eq!(world.node(late).member.applied().revision(), revision);
}

/// A member died before it had synced that a leader's database is to take its own's place, and reads that record when it comes
/// up. What is read may be gone after the next crash: it is made durable first. (Seed 20198.)
#[test]
fn a_database_takes_its_place_when_the_log_that_says_so_is_durable() {
    for operations in 0.. {
        let mut world = World::keeping(10, &[1, 2, 3]);
        let leader = world.leader();
        let late = if leader == 1 { 2 } else { 1 };
        world.cut.insert(late);
        for n in 0..300 {
            world.put(leader, &format!("k{}", n % 5));
        }
        world.pass(6000);
        world.run_jobs();
        world.cut.clear();
        world.pass(2000);
        world.stuck.insert(late);
        world.run_jobs();
        assert!(world.snapshots > 0, "the log still has what it needs");
        let Node { disk, mut log, held, .. } = world.nodes.remove(&late).unwrap();
        held.into_iter().for_each(|task| log.take(task).unwrap());
        // Written, not synced.
        disk.inject(disk::Fault::Sync { after: 0 });
        assert!(log.sync().is_err());
        drop(log);
        disk.crash_now();
        disk.reboot(disk::Crash::Keep);
        disk.inject(disk::Fault::Heal);
        disk.crash_after(operations);
        let first = boot(&disk, late, &[], world.now_ms, 10);
        let crashed = disk.crashed();
        drop(first);
        disk.crash_now();
        disk.reboot(disk::Crash::Lose);
        if let Err(e) = boot(&disk, late, &[], world.now_ms, 10) {
            panic!("crashed after {operations} operations: {e}");
        }
        if !crashed {
            assert!(operations > 10, "coming up takes some operations");
            return;
        }
    }
}

/// A deposed leader that stood still learns of its successor in the moment in which its leases seem to have run out: it must
/// not have them revoked by the successor. (Seed 98.)
#[test]
fn a_leader_that_was_paused_does_not_have_leases_revoked_by_its_successor() {
    let mut world = World::new(&[1, 2, 3]);
    let old = world.leader();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 5, id: 7 });
    assert!(world.answer(old, grant).is_ok());
    world.pass(3000);
    // It stands still: no ticks, and what comes is kept.
    let paused = world.nodes.remove(&old).unwrap();
    let new = world.leader();
    let renew = || Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 7 });
    for _ in 0..4 {
        world.pass(1000);
        assert!(matches!(world.answer(new, renew()), Ok(Response::LeaseKeepAlive(r)) if r.ttl == 5));
    }
    world.nodes.insert(old, paused);
    let now_ms = world.now_ms;
    // The new leader's heartbeat, then the clock.
    world.node(new).member.tick(now_ms + TICK_MS).unwrap();
    for message in world.work(new) {
        world.carry(message);
    }
    world.node(old).member.tick(now_ms + TICK_MS).unwrap();
    world.settle();
    world.pass(1000);
    assert!(world.node(new).member.applied().lease(7).is_some(), "it was renewed a second ago");
}

/// Whoever renews a lease that has just run out waits for its revocation. A leader that is deposed meanwhile does not revoke
/// it, and its successor gives it time anew: the successor is to be asked. (Scenario t19, seed 1.)
#[test]
fn a_renewal_that_waits_for_a_revocation_goes_to_the_next_leader() {
    let mut world = World::new(&[1, 2, 3]);
    let old = world.leader();
    assert!(world.answer(old, Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 5, id: 7 })).is_ok());
    let renewal = || Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 7 });
    // It has run out, and what ran out has not been looked at yet: at some time in the half second between two looks.
    let waits = (0..10)
        .find_map(|n| {
            world.pass(5000 + n * TICK_MS);
            let ticket = world.ask(old, renewal());
            match world.answers.remove(&ticket) {
                Some(Ok(Response::LeaseKeepAlive(r))) if r.ttl == 0 => {
                    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 5, id: 7 });
                    assert!(world.answer(old, grant).is_ok());
                    None
                }
                Some(other) => panic!("{other:?}"),
                None => Some(ticket),
            }
        })
        .expect("one of them was asked in time");
    world.cut.insert(old);
    let new = world.leader();
    world.cut.clear();
    world.pass(1000);
    assert_ne!(old, new);
    assert!(world.node(new).member.applied().lease(7).is_some(), "the next leader gave it time anew");
    assert!(world.forwarded.contains(&waits));
}

/// It promises no TTL that its successor knows nothing of. (Go: `ensureLeadership`.)
#[test]
fn a_leader_without_followers_renews_no_lease() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 60, id: 7 });
    assert!(world.answer(leader, grant).is_ok());
    world.cut.insert(leader);
    let ticket = world.ask(leader, Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 7 }));
    assert!(!world.answers.contains_key(&ticket), "{:?}", world.answers[&ticket]);
    world.pass(4000);
    assert_eq!(world.answers.remove(&ticket), Some(Err(api::Error::NoLeader)));
}

#[test]
fn the_end_of_a_downgrade_is_looked_for_as_often_as_the_settings_say() {
    let asked_in_20_seconds = |downgrade_check_ms| {
        let mut world = World::choosing(Choices { downgrade_check_ms, ..Choices::default() }, 1000, &[1, 2]);
        let leader = world.leader();
        let versions = BTreeMap::from([(3 - leader, Some("3.7.1".to_owned()))]);
        world.node(leader).member.peer_versions(&versions);
        world.settle();
        let enable = pb::DowngradeRequest {
            action: pb::downgrade_request::DowngradeAction::Enable as i32,
            version: "3.6".into(),
        };
        assert!(matches!(world.answer(leader, Request::Downgrade(enable)), Ok(Response::Downgrade(_))));
        world.versions_asked = 0;
        world.pass(20_000);
        world.versions_asked
    };
    // For the cluster's version it is asked every four seconds.
    let for_the_cluster = asked_in_20_seconds(0);
    assert_eq!(for_the_cluster, 5);
    assert_eq!(asked_in_20_seconds(5000) - for_the_cluster, 4);
    assert_eq!(asked_in_20_seconds(500) - for_the_cluster, 40);
}

fn alice() -> Who {
    let user = Ok(User { name: "alice".into(), revision: None });
    Who::Client(Arc::new(Client { user, token: None }))
}

/// Authentication is on, and alice may read and write the key `a`.
fn let_alice_have(world: &mut World, leader: u64, key: &str) {
    let user = |name: &str| {
        Request::UserAdd(pb::AuthUserAddRequest {
            name: name.into(),
            hashed_password: "eA==".into(),
            ..Default::default()
        })
    };
    let grant = |user: &str, role: &str| {
        Request::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
    };
    let perm_type = api::pb::authpb::permission::Type::Readwrite as i32;
    let perm = api::pb::authpb::Permission { perm_type, key: key.to_owned().into(), range_end: Default::default() };
    let requests = [
        user("root"),
        user("alice"),
        grant("root", "root"),
        Request::RoleAdd(pb::AuthRoleAddRequest { name: "some".into() }),
        Request::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: "some".into(), perm: Some(perm) }),
        grant("alice", "some"),
        Request::AuthEnable(pb::AuthEnableRequest {}),
    ];
    for request in requests {
        let outcome = world.answer(leader, request.clone());
        assert!(outcome.is_ok(), "{request:?}: {outcome:?}");
    }
}

/// What the leader alone knows a member asks it in its own name, and lets the client in by what itself knows of the lease's
/// keys: one that was attached meanwhile must not be told to whom it does not concern. (Seed 57 of clusters with users.)
#[test]
fn keys_of_a_lease_that_only_the_leader_knows_of_are_not_told_to_who_may_not_read_them() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let_alice_have(&mut world, leader, "a");
    let attach = |key: &str| {
        Request::Put(pb::PutRequest { key: key.to_owned().into(), value: "v".into(), lease: 7, ..Default::default() })
    };
    assert!(world.answer(leader, Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 60, id: 7 })).is_ok());
    assert!(world.answer(leader, attach("a")).is_ok());
    world.pass(200);
    let question = Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: 7, keys: true });
    let told = |world: &mut World| {
        let ticket = world.ask_as(follower, &alice(), question.clone());
        assert!(world.forwarded.contains(&ticket), "{:?}", world.answers.get(&ticket));
        let before = world.node(follower).member.applied().auth().revision();
        let response = world.answer(leader, question.clone()).unwrap();
        let now = world.node(follower).member.applied().clone();
        let for_alice = access::check_forwarded(&alice(), &question, &response, before, &now);
        assert_eq!(access::check_forwarded(&Who::Member, &question, &response, before, &now), Ok(()), "root may");
        let Response::LeaseTimeToLive(r) = response else { panic!("{response:?}") };
        (r.keys.len(), for_alice)
    };
    assert_eq!(told(&mut world), (1, Ok(())));
    // The follower does not hear of the second key.
    world.cut.insert(follower);
    assert!(world.answer(leader, attach("b")).is_ok());
    assert_eq!(told(&mut world), (2, Err(api::Error::PermissionDenied)));
}

/// Whether a downgrade could begin is asked of the leader, as in Go: who is behind does not know of one that has begun.
/// (Seed 7 of clusters with downgrades.)
#[test]
fn a_member_that_is_behind_does_not_say_that_a_downgrade_could_begin() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let versions = [1, 2, 3].into_iter().filter(|id| *id != leader).map(|id| (id, Some("3.7.1".to_owned())));
    world.node(leader).member.peer_versions(&versions.collect());
    world.pass(200);
    let downgrade = |action: pb::downgrade_request::DowngradeAction| {
        Request::Downgrade(pb::DowngradeRequest { action: action as i32, version: "3.6".into() })
    };
    let validate = || downgrade(pb::downgrade_request::DowngradeAction::Validate);
    assert!(world.answer(follower, validate()).is_ok());
    world.cut.insert(follower);
    assert!(world.answer(leader, downgrade(pb::downgrade_request::DowngradeAction::Enable)).is_ok());
    let ticket = world.ask(follower, validate());
    assert!(!world.answers.contains_key(&ticket), "it is told of {:?}", world.answers[&ticket]);
    world.cut.clear();
    world.pass(1000);
    assert_eq!(world.answers.remove(&ticket), Some(Err(api::Error::DowngradeInProcess)));
    let again = downgrade(pb::downgrade_request::DowngradeAction::Enable);
    assert_eq!(world.answer(follower, again), Err(api::Error::DowngradeInProcess));
}
