//! Peace: everything is mended, and the cluster must converge, serve, and have lost nothing.

use super::Report;
use super::checks::state;
use super::clients::What;
use super::world::World;
use api::pb::etcdserverpb as pb;
use disk::Crash;
use server::Request;

const SECOND_US: u64 = 1_000_000;
/// Within this the cluster must be itself again.
const PATIENCE_US: u64 = 90 * SECOND_US;
/// Longest chaos; the clients may have had enough before.
const CHAOS_US: u64 = 120 * SECOND_US;

impl World {
    /// The whole life: chaos, peace, a last blackout, peace again.
    pub(super) fn live(mut self) -> Result<Report, String> {
        let asks = self.plan.asks;
        while self.report.asked < asks && self.queue.now_us() < CHAOS_US {
            let next = self.queue.now_us() + SECOND_US / 2;
            self.run_until(next)?;
        }
        self.settle()?;
        let (ids, told): (Vec<u64>, u64) = (self.nodes.keys().copied().collect(), self.told);
        ids.into_iter().for_each(|id| self.crash(id, Crash::Lose));
        self.settle()?;
        if self.history.last_index() < told {
            return Err("what clients were told is gone".into());
        }
        self.sum_up();
        Ok(self.report)
    }

    fn sum_up(&mut self) {
        let streams = self.nodes.values().filter_map(|node| node.streams.as_ref());
        (self.report.watched, self.report.gaps) =
            streams.clone().fold((0, 0), |(events, gaps), s| (events + s.delivered, gaps + s.gaps));
        self.report.forbidden_watches = streams.map(|s| s.forbidden).sum();
        self.report.members = self.nodes.len() as u64;
        self.report.simulated_us = self.queue.now_us();
        self.report.entries = self.history.last_index();
        self.report.leaders = self.terms.leaders();
        self.history.sum_up(&mut self.report);
        self.report.expired = self.clocks.expired;
        self.report.trace = self.trace.hash.0;
    }

    fn settle(&mut self) -> Result<(), String> {
        let now_us = self.queue.now_us();
        self.peace = true;
        self.say(|| "peace".into());
        self.net.heal(now_us);
        for node in self.nodes.values_mut() {
            node.disk.inject(disk::Fault::Heal);
            (node.paused_until_us, node.slow) = (0, (0, 0));
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.iter().for_each(|id| self.plan_wake(*id, now_us));
        self.converge(now_us + PATIENCE_US)?;
        self.check_all()
    }

    /// Until every member has answered a write and a read, and all are at the same entry.
    fn converge(&mut self, until_us: u64) -> Result<(), String> {
        let begin_us = self.queue.now_us();
        loop {
            let next = self.queue.now_us() + SECOND_US;
            self.run_until(next)?;
            self.reconcile()?;
            let probed = self.calls.is_empty() && self.probe_all()?;
            // Leases that ran out meanwhile are gone, too.
            let long = self.queue.now_us() > begin_us + 20 * SECOND_US;
            if long && probed && self.is_level() && self.drain_streams()? {
                return Ok(());
            }
            if self.queue.now_us() > until_us {
                return Err(self.unrest());
            }
        }
    }

    /// Asks every member for a write and a read; true when those of before were all answered.
    fn probe_all(&mut self) -> Result<bool, String> {
        let (acknowledged, reads) = self.probed;
        let members = self.members.1.iter().filter(|m| !m.is_learner).count() as u64;
        let done = self.report.acknowledged >= acknowledged + members && self.report.reads >= reads + members;
        if done {
            return Ok(true);
        }
        self.probed = (self.report.acknowledged, self.report.reads);
        let voters: Vec<u64> = self.members.1.iter().filter(|m| !m.is_learner).map(|m| m.id).collect();
        for id in voters {
            let running = self.nodes.get(&id).is_some_and(|node| node.process.is_some());
            if running {
                self.probe(id)?;
            }
        }
        Ok(false)
    }

    fn probe(&mut self, id: u64) -> Result<(), String> {
        // A deletion of nothing: it goes through the log whatever alarm stands.
        let request = pb::DeleteRangeRequest { key: "probe".into(), ..Default::default() };
        let op = crate::ops::Op::Delete(request);
        self.call(id, What::Write(op.clone()), op.request())?;
        let request = pb::RangeRequest { key: "probe".into(), ..Default::default() };
        self.call(id, What::Read { linearizable: true }, Request::Range(request))
    }

    fn is_level(&self) -> bool {
        let last = self.history.last_index();
        let up = |id: u64| {
            let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
            process.is_some_and(|process| process.visible.index() == last)
        };
        self.calls.is_empty() && !self.members.1.is_empty() && self.members.1.iter().all(|m| up(m.id))
    }

    fn unrest(&self) -> String {
        let state = |node: &super::node::Node| match &node.process {
            None => format!("{:x} is down", node.id),
            Some(process) => format!(
                "{:x} is at {}, leader {:x}, {} inputs",
                node.id,
                process.visible.index(),
                process.member.leader(),
                process.inbox.len()
            ),
        };
        let states: Vec<String> = self.nodes.values().map(state).collect();
        let waiting: Vec<_> = self.calls.values().take(2).collect();
        let members = &self.members;
        format!(
            "there is no peace: {states:?}; last entry {}; waiting: {waiting:?}; members {members:?}",
            self.history.last_index()
        )
    }

    /// Watchers get what they are owed. True when all is quiet.
    fn drain_streams(&mut self) -> Result<bool, String> {
        let (now_us, model) = (self.queue.now_us(), self.history.newest().clone());
        let mut quiet = true;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.read_history(id)?;
            let permit = self.permit(id)?;
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let now_ms = node.clock_ms(now_us);
            if let Some(streams) = &mut node.streams {
                quiet &= streams.drain(&model, now_ms, &permit).map_err(|e| format!("{id:x}: {e}"))?;
            }
            self.capture_prev(id);
        }
        Ok(quiet)
    }

    fn check_all(&mut self) -> Result<(), String> {
        let (now_us, model) = (self.queue.now_us(), self.history.newest().clone());
        for node in self.nodes.values() {
            let visible = self.visible(node.id)?;
            state::check(&visible, &mut self.history).map_err(|e| format!("{:x}: {e}", node.id))?;
            state::check_hash(&visible, &self.history).map_err(|e| format!("{:x}: {e}", node.id))?;
            if let Some(streams) = &node.streams {
                streams.check_nothing_owed(&model).map_err(|e| format!("{:x}: {e}", node.id))?;
            }
        }
        // A member may come up, and lead, long after peace began: what leases have left counts anew then.
        let quiet_us = self.led_since_us.max(now_us - 15 * SECOND_US);
        match self.clocks.overdue(quiet_us, now_us) {
            Some(id) => Err(format!("lease {id} lives on")),
            None => Ok(()),
        }
    }
}
