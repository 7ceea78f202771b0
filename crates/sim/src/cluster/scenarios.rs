//! Worlds in which a known bug of etcd's would show (T1 to T27 of pains-and-traps): a seed's mix, bent until what the bug
//! needs happens, and the figure that says that it did. docs/TESTING.md has those that need other means.

use super::plan::{Fault, Plan};
use super::{Report, run_shaped};

/// One of them.
pub struct Scenario {
    /// `tNN_` and what happens.
    pub name: &'static str,
    /// etcd's bug.
    pub bug: &'static str,
    shape: fn(&mut Plan),
    /// How often what the bug needs happened.
    happened: fn(&Report) -> u64,
}

impl Scenario {
    /// Runs one seed of it; answers how often what the bug needs happened.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn run(&self, seed: u64, verbose: bool) -> Result<u64, String> {
        run_shaped(seed, verbose, self.shape).map(|report| (self.happened)(&report))
    }
}

/// Nothing but what the scenario asks for, and quickly.
fn bare(plan: &mut Plan) {
    plan.faults.clear();
    plan.fault_every_us = 1_000_000;
    plan.fault_lasts_us = 3_000_000;
    plan.ask_every_us = 10_000;
    plan.reconfigure = false;
    plan.move_leader = false;
    plan.quota = 0;
    (plan.auth, plan.downgrade, plan.roam) = (false, false, false);
    plan.members = plan.members.max(3);
    plan.snapshot_count = 10;
    plan.catchup_entries = 5;
    plan.release_entries = 20;
    plan.release_delay_ms = 500;
}

fn with(plan: &mut Plan, faults: &[Fault]) {
    bare(plan);
    plan.faults = faults.to_vec();
}

/// Members fall so far behind that they get a database, again and again.
fn falling_behind(plan: &mut Plan) {
    with(plan, &[Fault::Isolate, Fault::Split]);
    plan.fault_every_us = 500_000;
    plan.ask_every_us = 3_000;
    plan.catchup_entries = 1;
    plan.release_entries = 5;
    plan.asks = 4000;
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "t01_killed_between_commit_and_apply",
        bug: "3.5.0–2: the consistent index was saved before its entry was applied",
        shape: |plan| {
            with(plan, &[Fault::Kill, Fault::Power]);
            plan.fault_every_us = 300_000;
        },
        happened: |report| report.crashes,
    },
    Scenario {
        name: "t02_crashed_while_a_database_is_installed",
        bug: "the snapshot's consistent index was overwritten by the old one",
        shape: |plan| {
            falling_behind(plan);
            plan.faults = vec![Fault::Isolate, Fault::Kill, Fault::Power];
            plan.fault_lasts_us = 800_000;
            plan.job_delay_us = 3_000_000;
        },
        happened: |report| report.cut_installing,
    },
    Scenario {
        name: "t03_crashed_while_defragmenting",
        bug: "3.5: the commit hook ran against the wrong backend",
        shape: |plan| {
            with(plan, &[Fault::Kill, Fault::Power, Fault::BadDisk]);
            plan.fault_every_us = 300_000;
            plan.defragments = 10;
        },
        happened: |report| report.cut_defragmenting,
    },
    Scenario {
        name: "t04_a_database_comes_while_defragmenting",
        bug: "≤ 3.6.4: the backend was swapped while it was rewritten",
        shape: |plan| {
            falling_behind(plan);
            plan.fault_lasts_us = 1_000_000;
            plan.defragments = 20;
            plan.job_delay_us = 300_000;
        },
        happened: |report| report.installed_after_defragmenting,
    },
    Scenario {
        name: "t05_a_transaction_fails_at_one_of_its_operations",
        bug: "a write transaction was applied in part",
        shape: bare,
        happened: |report| report.failed_txns,
    },
    Scenario {
        name: "t06_a_transaction_reads_a_compacted_revision",
        bug: "< 3.7: members that were not asked skipped the range and its check",
        shape: |plan| {
            with(plan, &[Fault::Kill]);
            plan.asks = 3000;
        },
        happened: |report| report.failed_txns.min(report.compactions),
    },
    Scenario {
        name: "t07_users_change_while_databases_come",
        bug: "auth revisions differed after a snapshot or a restart",
        shape: |plan| {
            falling_behind(plan);
            plan.auth = true;
        },
        happened: |report| report.installed.min(report.auth_changes),
    },
    Scenario {
        name: "t08_permissions_change_while_requests_are_under_way",
        bug: "revocations were checked by some members, not by others",
        shape: |plan| {
            with(plan, &[Fault::Isolate, Fault::Pause, Fault::Kill]);
            (plan.auth, plan.roam, plan.streams) = (true, true, 3);
            plan.asks = 3000;
        },
        happened: |report| report.outdated.min(report.forbidden_at_apply).min(report.forbidden_watches),
    },
    Scenario {
        name: "b01_the_newest_meta_page_rots",
        bug: "bbolt's: the meta page before the newest one is followed into pages that were written over",
        shape: |plan| {
            with(plan, &[Fault::Rot, Fault::Kill, Fault::Power]);
            plan.fault_every_us = 300_000;
            plan.checkpoint_ms = 100;
            plan.checkpoint_bytes = 1 << 10;
            plan.snapshot_count = 1000;
        },
        happened: |report| report.rotted[2],
    },
    Scenario {
        name: "r08_leaders_fail_before_they_commit",
        bug: "the Raft paper's figure 8: entries of older terms are committed by counting",
        shape: |plan| {
            with(plan, &[Fault::Kill, Fault::Isolate, Fault::Isolate]);
            plan.members = 5;
            plan.at_leaders = true;
            plan.fault_every_us = 700_000;
            plan.fault_lasts_us = 4_000_000;
            plan.delay_us = (1_000, 40_000);
            plan.reorder = false;
            plan.sync_us = (1_000, 60_000);
            plan.ask_every_us = 20_000;
            plan.asks = 3000;
            plan.catchup_entries = 30;
        },
        happened: |report| report.leaders,
    },
    Scenario {
        name: "t09_one_member_loses_power",
        bug: "a reply left before the log was synced",
        shape: |plan| {
            with(plan, &[Fault::Power, Fault::BadDisk]);
            plan.members = 1;
            plan.fault_every_us = 300_000;
        },
        happened: |report| report.crashes,
    },
    Scenario {
        name: "t10_all_members_lose_power_at_once",
        bug: "Jepsen: committed writes lost with what was not synced",
        shape: |plan| {
            with(plan, &[Fault::Blackout]);
            plan.members = 5;
        },
        happened: |report| report.faults.get(&Fault::Blackout).copied().unwrap_or(0),
    },
    Scenario {
        name: "t12_killed_while_compacting",
        bug: "the revision went down: the newest ones were tombstones, already deleted",
        shape: |plan| {
            with(plan, &[Fault::Kill, Fault::Power]);
            plan.fault_every_us = 300_000;
            plan.compaction_batch = 1;
        },
        happened: |report| report.crashes.min(report.compactions),
    },
    Scenario {
        name: "t13_compacted_at_a_deletion",
        bug: "the tombstone at the compact revision was dropped: hashes differ, watchers miss it",
        shape: |plan| {
            bare(plan);
            plan.streams = 3;
        },
        happened: |report| report.compacted_deletes.min(report.watched),
    },
    Scenario {
        name: "t14_slow_watchers_across_compactions",
        bug: "starved watchers lost events when a compaction passed them",
        shape: |plan| {
            bare(plan);
            plan.streams = 8;
            plan.compaction_batch = 1;
        },
        happened: |report| report.compactions.min(report.watched),
    },
    Scenario {
        name: "t16_watchers_at_a_member_that_gets_a_database",
        bug: "a restore set watchers back: they saw the past again",
        shape: |plan| {
            falling_behind(plan);
            plan.streams = 4;
        },
        happened: |report| report.installed.min(report.watched),
    },
    Scenario {
        name: "t19_reads_while_leaders_stand_still_and_change",
        bug: "stale linearizable reads: a read-index answer raced a change of leaders",
        shape: |plan| {
            with(plan, &[Fault::Pause, Fault::OneWay]);
            plan.move_leader = true;
            plan.doubled = 50;
            plan.reorder = true;
        },
        happened: |report| report.paused_leaders.min(report.leaders - 1),
    },
    Scenario {
        name: "t20_a_leader_stands_still_longer_than_leases_last",
        bug: "a deposed leader revoked leases that its successor had renewed",
        shape: |plan| {
            with(plan, &[Fault::Pause]);
            plan.fault_lasts_us = 12_000_000;
            plan.fault_every_us = 3_000_000;
            plan.ask_every_us = 40_000;
            plan.ttl = (2, 6);
        },
        happened: |report| report.paused_leaders.min(report.expired),
    },
    Scenario {
        name: "t21_members_come_go_and_crash",
        bug: "promotions were lost by crashes and snapshots; two stores of members differed",
        shape: |plan| {
            with(plan, &[Fault::Kill, Fault::Power, Fault::Isolate]);
            plan.reconfigure = true;
            plan.fault_every_us = 5_000_000;
            plan.fault_lasts_us = 1_000_000;
            plan.ask_every_us = 40_000;
            plan.catchup_entries = 1;
        },
        happened: |report| report.joined.min(report.crashes),
    },
    Scenario {
        name: "t23_two_databases_one_after_the_other",
        bug: "the first one's file was deleted before it was used",
        shape: |plan| {
            falling_behind(plan);
            plan.fault_lasts_us = 600_000;
            plan.fault_every_us = 200_000;
        },
        happened: |report| report.installed_in_a_row,
    },
    Scenario {
        name: "t24_reads_right_after_deletions",
        bug: "deletions were not seen before the next commit of the page store",
        shape: |plan| {
            bare(plan);
            plan.checkpoint_ms = 5_000;
            plan.checkpoint_bytes = 1 << 20;
        },
        happened: |report| report.reads,
    },
    Scenario {
        name: "t25_alarms_and_power_cycles",
        bug: "an alarm kept reads away, and a member from starting",
        shape: |plan| {
            with(plan, &[Fault::Power, Fault::Kill]);
            plan.quota = 150_000;
            plan.big_values = true;
        },
        happened: |report| report.alarms.min(report.crashes),
    },
];
