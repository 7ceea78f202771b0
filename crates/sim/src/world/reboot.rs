//! Crashes, downtime, and what must be true when the member is back.

use super::{CLUSTER_ID, COMPACTION_PAUSE_MS, ELECTION_TICKS, MEMBER_ID, TICK_MS, TIMEOUT_MS, World};
use crate::model::MIN_LEASE_TTL;
use crate::streams::Streams;
use crate::verdict::{self, Evidence};
use disk::{Crash, Fault};
use server::member::{Beginning, BootConfig, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES};
use server::{Member, Output};
use store::History as _;

/// Crashes in a row while the member comes up, at most.
const BOOT_CRASHES_MAX: u64 = 4;

impl World {
    /// The first start, on an empty disk.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.disk.crash_now();
        self.reboot(Crash::Keep)
    }

    /// The first start; an armed crash may strike.
    pub(super) fn start_crashing(&mut self) -> Result<(), String> {
        match self.boot() {
            Ok(()) => self.come_back(),
            Err(_) if self.disk.crashed() => {
                self.report.crashes += 1;
                let crash = self.draw_crash();
                self.reboot(crash)
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn crash(&mut self, crash: Crash) -> Result<(), String> {
        self.report.crashes += 1;
        self.say(|| format!("crash {crash:?}"));
        (self.member, self.log) = (None, None);
        (self.job, self.done) = (None, None);
        self.images.clear();
        self.pins.clear();
        self.calls.clear();
        self.disk.crash_now();
        self.now_ms += self.rng.below(self.plan.downtime_ms + 1);
        self.reboot(crash)
    }

    fn reboot(&mut self, mut crash: Crash) -> Result<(), String> {
        let crashes = if self.plan.faults && self.rng.one_in(3) { self.rng.below(BOOT_CRASHES_MAX + 1) } else { 0 };
        for attempt in 0.. {
            if self.crash_at == Some(self.disk.operations()) {
                // This was it.
                self.crash_at = None;
            }
            self.disk.reboot(crash);
            self.disk.inject(Fault::Heal);
            if attempt < crashes {
                self.disk.crash_after(self.rng.below(30));
            }
            self.armed = attempt < crashes || self.arm_sweep();
            self.harmed = self.armed;
            match self.boot() {
                Ok(()) => break,
                Err(e) if self.disk.crashed() => {
                    self.say(|| format!("crash while coming up: {e}"));
                    self.report.crashes += 1;
                    crash = self.draw_crash();
                    self.now_ms += self.rng.below(self.plan.downtime_ms + 1);
                }
                Err(e) => return Err(format!("the member does not come back: {e}")),
            }
        }
        self.come_back()
    }

    /// Arms the sweep's crash if it is still to come.
    pub(super) fn arm_sweep(&mut self) -> bool {
        let left = self.crash_at.and_then(|at| at.checked_sub(self.disk.operations()));
        match left {
            Some(left) => self.disk.crash_after(left),
            None => self.crash_at = None,
        }
        (self.armed, self.harmed) = (left.is_some(), left.is_some());
        self.armed
    }

    fn boot(&mut self) -> Result<(), String> {
        let boot = self.boot_config();
        let (member, log, _warnings) = Member::boot(boot).map_err(|e| e.to_string())?;
        (self.member, self.log) = (Some(member), Some(log));
        Ok(())
    }

    /// The state is everything acknowledged and some prefix of what was on its way; hub and watchers start anew.
    fn come_back(&mut self) -> Result<(), String> {
        let member = self.member.as_mut().ok_or("no member")?;
        let applied = member.applied().clone();
        let mut outputs = Vec::new();
        member.take_outputs(&mut outputs);
        let first = (self.model.revision + 1).max(applied.compact_revision() + 1);
        let changes = match applied.changes(first, applied.revision(), usize::MAX, usize::MAX) {
            Ok((changes, _)) => changes.into_iter().map(|c| (c.revision, c)).collect(),
            // The disk crashed again.
            Err(e) => return self.died(&server::Fatal::new(e.to_string())),
        };
        let evidence = Evidence {
            applied: &applied,
            changes,
            clocks: &self.clocks,
            now_ms: self.now_ms,
            quota: self.plan.quota > 0,
            full: self.full,
            lagging: self.plan.unwritten_bytes < usize::MAX,
            crashed: true,
            member_id: MEMBER_ID,
            timeout_ms: TIMEOUT_MS,
        };
        let asked: Vec<_> = self.asked.drain(..).collect();
        let (model, survived) = match verdict::explain(&self.model, &asked, &evidence) {
            Ok(explained) => explained,
            // The disk crashed again before the state could be looked at.
            Err(e) if self.disk.crashed() => {
                self.asked = asked.into();
                return self.died(&server::Fatal::new(e));
            }
            Err(e) => {
                let (acknowledged, n) = (self.model.revision, asked.len());
                let told = format!("{acknowledged} acknowledged, {n} on their way");
                return Err(format!("after the crash nothing explains the state ({told}): {e}"));
            }
        };
        self.full = false;
        self.model = model;
        self.say(|| format!("{survived} of {} operations on their way survived", asked.len()));
        self.clocks.follow(&self.model, self.now_ms);
        let checkpointed_ms = Some(self.worked_ms).filter(|_| self.plan.lease_checkpoint);
        self.clocks.elected(self.now_ms, TICK_MS * ELECTION_TICKS, checkpointed_ms);
        self.worked_ms = self.now_ms;
        match &mut self.streams {
            Some(streams) => streams.restart(&applied, self.now_ms),
            None => self.streams = Some(Streams::new(&mut self.rng, self.plan.streams, &applied)),
        }
        for output in outputs {
            if !matches!(output, Output::Reply { .. }) {
                self.deliver(output)?;
            }
        }
        self.check_hash(false)?;
        self.now_ms += 1;
        self.work()
    }

    pub(super) fn store_options(&self) -> store::Options {
        store::Options {
            cache_bytes: 256 << 10,
            page_size: Some(4096),
            quota_bytes: self.plan.quota,
            min_lease_ttl: MIN_LEASE_TTL,
            ..store::Options::default()
        }
    }

    fn boot_config(&mut self) -> BootConfig {
        let member = Config {
            name: "m1".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
            tick_ms: TICK_MS,
            election_ticks: ELECTION_TICKS,
            pre_vote: true,
            seed: self.rng.draw(),
            snapshot_count: self.plan.snapshot_count,
            catchup_entries: 10,
            release_entries: RELEASE_ENTRIES,
            release_delay_ms: RELEASE_DELAY_MS,
            max_snapshots: 2,
            max_wals: 2,
            max_request_bytes: 1 << 20,
            max_txn_ops: 128,
            quota_bytes: self.plan.quota,
            auto_compaction: None,
            compaction_batch: self.plan.compaction_batch,
            compaction_sleep_ms: COMPACTION_PAUSE_MS,
            alone: true,
            strict_reconfig_check: true,
            lease_checkpoint: self.plan.lease_checkpoint,
            choices: Choices::default(),
            checkpoint_bytes: self.plan.checkpoint_bytes,
            checkpoint_ms: self.plan.checkpoint_ms,
            unwritten_bytes: self.plan.unwritten_bytes,
        };
        BootConfig {
            disk: self.disk.shared(),
            data_dir: "/data".into(),
            wal_dir: None,
            wal: wal::WalOptions { segment_bytes: 16 << 10, ..wal::WalOptions::default() },
            store: self.store_options(),
            member,
            initial: Ok(Beginning {
                cluster_id: CLUSTER_ID,
                id: MEMBER_ID,
                founders: vec![Founder {
                    id: MEMBER_ID,
                    name: "m1".into(),
                    peer_urls: vec!["http://127.0.0.1:2380".into()],
                }],
            }),
            force_new_cluster: None,
            now_ms: self.now_ms,
            wall_ms: 1_700_000_000_000 + self.now_ms,
        }
    }
}
