//! What breaks: processes, machines, links, disks.

use super::node::{Input, Node};
use super::plan::Fault;
use super::world::{Event, World};
use disk::Crash;
use server::Fatal;
use server::member::JobKind;
use std::path::Path;

/// A machine that crashes while it comes up does so at most this often in a row.
const BOOT_CRASHES_MAX: u64 = 3;
/// A clock jumps by less than this, ms.
const JUMP_MS: u64 = 20_000;

/// Files that have checksums, and that of which some pages have.
fn is_checked(path: &Path) -> bool {
    let ends = |ext: &str| path.extension().is_some_and(|e| e == ext);
    ends("wal") || ends("snap") || path.ends_with("db")
}

/// Whether a byte of the page store is in one of its meta pages, which have checksums; others have none.
fn in_meta(at: usize) -> bool {
    const PAGE: usize = 4096;
    const HEADER_AND_META: usize = 16 + 64;
    at < 2 * PAGE && at % PAGE < HEADER_AND_META
}

fn term(node: &Node) -> u64 {
    node.process.as_ref().map_or(0, |process| process.member.raft().basic_status().hard_state.term)
}

impl World {
    /// Something breaks, and the next fault is planned.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.peace || self.plan.faults.is_empty() {
            return Ok(());
        }
        let pause = self.rng.below(2 * self.plan.fault_every_us);
        self.queue.after(pause, Event::Fault);
        let fault = self.plan.faults[self.rng.below(self.plan.faults.len() as u64) as usize];
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let any = ids[self.rng.below(ids.len() as u64) as usize];
        let leader = self.some_leader().filter(|_| self.plan.at_leaders && self.rng.one_in(2));
        let id = leader.unwrap_or(any);
        *self.report.faults.entry(fault).or_default() += 1;
        self.say(|| format!("fault {fault:?} ({id:x})"));
        match fault {
            Fault::Kill => self.crash(id, Crash::Keep),
            Fault::Power => {
                let crash = self.draw_crash();
                self.crash(id, crash);
            }
            Fault::Blackout => {
                let crash = self.draw_crash();
                ids.into_iter().for_each(|id| self.crash(id, crash));
            }
            Fault::Pause => self.pause(id),
            Fault::Split | Fault::Isolate | Fault::OneWay => self.cut(fault, id, &ids),
            Fault::Break => self.break_link(id, &ids),
            Fault::SlowDisk => self.slow_disk(id),
            Fault::BadDisk => self.bad_disk(id),
            Fault::Rot => self.rot(id),
            Fault::Jump => self.jump(id),
        }
        Ok(())
    }

    /// Whether the cluster can do without this member for good. A change of membership counts for who has applied it, as in
    /// etcd's raft: whoever comes back without it wants the votes of those who were members before. So the others must keep
    /// the newest change whatever happens to them (seeds 11617 and 15015 lost a second member before that).
    fn is_dispensable(&self, id: u64) -> bool {
        let members = &self.members.1;
        let keeps = |id: u64| self.nodes.get(&id).is_some_and(|node| node.checkpointed >= self.history.changed_at());
        members.iter().filter(|m| !m.is_learner).count() >= 3 && members.iter().all(|m| m.id == id || keeps(m.id))
    }

    /// Some bytes of one file change, under the running process or while it is down: of files that have checksums, and of
    /// pages that have. One member rots until it is replaced.
    fn rot(&mut self, id: u64) {
        let rotten = self.nodes.values().find(|node| node.rotten).map(|node| node.id);
        let id = rotten.unwrap_or(id);
        let may = rotten.is_some() || self.is_dispensable(id);
        let (a_file, at, xor, bytes) = (self.rng.draw(), self.rng.draw(), self.rng.draw(), 1 + self.rng.below(3));
        let Some(node) = self.nodes.get_mut(&id).filter(|_| may) else { return };
        let files: Vec<_> = node.disk.list().into_iter().filter(|path| is_checked(path)).collect();
        if files.is_empty() {
            return;
        }
        let path = &files[(a_file % files.len() as u64) as usize];
        let content = node.disk.read_whole(path).unwrap_or_default();
        let database = path.ends_with("db");
        let candidates: Vec<usize> =
            (0..content.len()).filter(|at| if database { in_meta(*at) } else { content[*at] != 0 }).collect();
        if candidates.is_empty() {
            return;
        }
        let first = (at % candidates.len() as u64) as usize;
        let xor = 1 + (xor % 255) as u8;
        let spots: Vec<usize> = candidates[first..].iter().take(bytes as usize).copied().collect();
        for at in &spots {
            node.rotten |= node.disk.corrupt(path, *at as u64, xor);
        }
        let kind = if database { 2 } else { usize::from(path.extension().is_some_and(|ext| ext == "snap")) };
        self.report.rotted[kind] += 1;
        self.say(|| format!("{id:x}: bytes {spots:?} of {} are others", path.display()));
    }

    /// Who leads, or believes so.
    fn some_leader(&self) -> Option<u64> {
        let leads = |node: &&Node| node.process.as_ref().is_some_and(|p| p.member.leader() == node.id);
        self.nodes.values().filter(leads).max_by_key(|node| term(node)).map(|node| node.id)
    }

    fn draw_crash(&mut self) -> Crash {
        [Crash::Lose, Crash::Random, Crash::Keep][self.rng.below(3) as usize]
    }

    fn lasts(&mut self) -> u64 {
        1000 + self.rng.below(self.plan.fault_lasts_us)
    }

    fn pause(&mut self, id: u64) {
        let (until, node) = (self.queue.now_us() + self.lasts(), self.nodes.get_mut(&id));
        if let Some(node) = node {
            node.paused_until_us = until;
            let leads = node.process.as_ref().is_some_and(|process| process.member.leader() == id);
            self.report.paused_leaders += u64::from(leads);
        }
    }

    /// Leases seem to have run longer than they did: what follows from that no protocol can know.
    fn jump(&mut self, id: u64) {
        let (now_us, by_ms) = (self.queue.now_us(), 1 + self.rng.below(JUMP_MS));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.jumped_ms += by_ms;
            self.clocks.jumped(now_us, by_ms);
            self.plan_wake(id, now_us);
        }
    }

    fn slow_disk(&mut self, id: u64) {
        let until = self.queue.now_us() + self.lasts();
        let by = 10_000 + self.rng.below(3_000_000);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.slow = (by, until);
        }
    }

    fn bad_disk(&mut self, id: u64) {
        let after = self.rng.below(60);
        let how = self.rng.below(3);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.process.is_some()) else { return };
        node.armed = true;
        match how {
            0 => node.disk.inject(disk::Fault::Sync { after }),
            1 => node.disk.inject(disk::Fault::Write { after }),
            _ => node.disk.crash_after(after),
        }
    }

    fn cut(&mut self, fault: Fault, id: u64, ids: &[u64]) {
        let now_us = self.queue.now_us();
        let side: Vec<bool> =
            ids.iter().map(|other| *other == id || fault == Fault::Split && self.rng.one_in(2)).collect();
        for (a, in_a) in ids.iter().zip(&side) {
            for (b, in_b) in ids.iter().zip(&side) {
                if in_a != in_b && (fault != Fault::OneWay || *in_a) {
                    self.net.cut(*a, *b, now_us);
                }
            }
        }
        let lasts = self.lasts();
        self.queue.after(lasts, Event::Mend);
    }

    fn break_link(&mut self, id: u64, ids: &[u64]) {
        let other = ids[self.rng.below(ids.len() as u64) as usize];
        self.net.broken(id, other, self.queue.now_us());
        self.hear(id, Input::Unreachable(other));
        self.hear(other, Input::Unreachable(id));
    }

    /// The member's storage failed: it must have a reason.
    pub(super) fn died(&mut self, id: u64, e: &Fatal) -> Result<(), String> {
        let node = &self.nodes[&id];
        if !node.armed && !node.rotten && !node.disk.crashed() {
            return Err(format!("{id:x} stopped without a fault: {e}"));
        }
        self.report.rot_refused += u64::from(node.rotten && !node.armed && !node.disk.crashed());
        self.say(|| format!("{id:x}: stopped: {e}"));
        self.report.died += 1;
        let crash = self.draw_crash();
        self.crash(id, crash);
        Ok(())
    }

    /// The process ends; the machine comes back later.
    pub(super) fn crash(&mut self, id: u64, crash: Crash) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.process.is_some()) else { return };
        let job = node.process.take().and_then(|process| process.job_kind);
        self.report.cut_defragmenting += u64::from(job == Some(JobKind::Defragment));
        self.report.cut_installing += u64::from(std::mem::take(&mut node.received));
        node.disk.crash_now();
        self.calls.retain(|_, asked| asked.node != id);
        self.say(|| format!("{id:x}: crashes, {crash:?}"));
        let downtime = self.lasts();
        self.queue.after(downtime, Event::Restart(id, crash));
        self.report.crashes += 1;
    }

    /// The machine is switched on.
    pub(super) fn restart(&mut self, id: u64, crash: Crash) -> Result<(), String> {
        let now_us = self.queue.now_us();
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.process.is_none()) else { return Ok(()) };
        node.disk.reboot(crash);
        node.disk.inject(disk::Fault::Heal);
        node.armed = false;
        let faulty = !self.peace && self.plan.faults.contains(&Fault::BadDisk);
        if faulty && self.rng.below(BOOT_CRASHES_MAX) > 0 {
            node.armed = true;
            node.disk.crash_after(self.rng.below(40));
        }
        match node.boot(now_us, &mut self.rng, &self.plan) {
            Ok(effects) => {
                self.led_since_us = self.queue.now_us();
                self.say(|| format!("{id:x}: comes up"));
                self.report.rot_survived += u64::from(self.nodes[&id].rotten);
                let life = self.nodes[&id].life;
                self.came_up(id)?;
                if self.lives(id, life) { self.over(id, effects) } else { Ok(()) }
            }
            Err(e) if node.disk.crashed() => {
                self.say(|| format!("{id:x}: crashes while coming up: {e}"));
                self.report.crashes += 1;
                let (crash, downtime) = (self.draw_crash(), self.lasts());
                self.queue.after(downtime, Event::Restart(id, crash));
                Ok(())
            }
            Err(e) if node.rotten => {
                self.say(|| format!("{id:x}: refuses what it finds: {e}"));
                self.report.rot_refused += 1;
                self.queue.after(1_000_000, Event::Replace(id));
                Ok(())
            }
            Err(e) => Err(format!("{id:x} does not come back: {e}")),
        }
    }

    /// What was durable is there, and what was applied is what everybody applied.
    fn came_up(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("it came up");
        let found = node.found();
        node.shadow.survives_in(&found).map_err(|e| format!("{id:x}: {e}"))?;
        node.shadow = found;
        self.learn(id, 1)?;
        let applied = self.visible(id)?;
        if let Err(e) = super::checks::state::check(&applied, &mut self.history) {
            return self.unreadable(id, e);
        }
        self.open_streams(id);
        Ok(())
    }
}
