//! From what was seen to what it means: pure, so that each rule is tested with values.

use super::Severity::{self, Critical, Note, Warning};
use super::{Examined, Finding, Member, State};
use std::collections::BTreeSet;

/// More voters than this cost writes more than they save (etcd's own advice).
const VOTERS_MAX: usize = 7;
/// Shares of the quota that are warned of.
const QUOTA_WARNING: f64 = 0.8;
const QUOTA_CRITICAL: f64 = 0.95;
/// Free space that a defrag would give back: this share of the file, and at least so many bytes.
const FREE_SHARE: f64 = 0.5;
const FREE_BYTES_MIN: i64 = 100 << 20;
/// Days of a certificate.
const DAYS_WARNING: i64 = 30;
const DAYS_CRITICAL: i64 = 3;
/// Seconds that clocks may differ: certificates and logs suffer, raft and leases do not.
const CLOCK_S: f64 = 1.0;
/// Entries and revisions that a member may be behind while it is asked one after the other.
const LAG: u64 = 1000;
/// Revisions that are kept without any compaction.
const HISTORY_NOTE: i64 = 1000;
const HISTORY_WARNING: i64 = 100_000;
/// Seconds; etcd's advice for 99 of 100 syncs and commits.
const WAL_FSYNC_S: f64 = 0.010;
const BACKEND_COMMIT_S: f64 = 0.025;
/// … and what is more than a heartbeat's interval (100 ms) between members.
const ROUND_TRIP_S: f64 = 0.1;

/// All findings, the worst first; of one severity in the order of the members.
pub fn judge(seen: &Examined) -> Vec<Finding> {
    let mut findings = Vec::new();
    quorum(seen, &mut findings);
    alarms(seen, &mut findings);
    for member in &seen.members {
        answers(member, &mut findings);
        if let Ok(state) = &member.state {
            space(member, state, &mut findings);
            follows(seen, member, state, &mut findings);
        }
        page(member, &mut findings);
    }
    agreement(seen, &mut findings);
    shape(seen, &mut findings);
    history(seen, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

impl Member {
    /// Its name, else its endpoint, else its id.
    pub fn shown(&self) -> String {
        match (self.name.is_empty(), self.endpoint.is_empty()) {
            (false, _) => self.name.clone(),
            (true, false) => self.endpoint.clone(),
            (true, true) => format!("{:x}", self.id),
        }
    }

    fn finds(
        &self,
        severity: Severity,
        check: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Finding {
        Finding { severity, check, member: self.shown(), found: found.into(), cure: cure.into() }
    }
}

fn of_cluster(severity: Severity, check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { severity, check, member: String::new(), found: found.into(), cure: cure.into() }
}

fn states(seen: &Examined) -> impl Iterator<Item = (&Member, &State)> {
    seen.members.iter().filter_map(|member| Some((member, member.state.as_ref().ok()?)))
}

fn voters(seen: &Examined) -> impl Iterator<Item = &Member> {
    seen.members.iter().filter(|member| member.is_listed && !member.is_learner)
}

/// Whether writes are possible at all.
fn quorum(seen: &Examined, findings: &mut Vec<Finding>) {
    let (all, up) = (voters(seen).count(), voters(seen).filter(|member| member.state.is_ok()).count());
    let leaders: BTreeSet<u64> = states(seen).map(|(_, state)| state.leader).filter(|leader| *leader != 0).collect();
    if !seen.is_listed && states(seen).next().is_none() {
        let cure = "mend what is found at the endpoints below, or name others with --endpoints";
        findings.push(of_cluster(Critical, "unreachable", "no endpoint answers", cure));
    } else if all > 0 && up < all / 2 + 1 {
        let found = format!("quorum is lost: {up} of {all} voters answer, {} are needed", all / 2 + 1);
        let cure =
            "start the members that are down; if they are gone for good: stop this one, and etcdutl recover --help";
        findings.push(of_cluster(Critical, "quorum", found, cure));
    } else if leaders.is_empty() {
        let cure = "look at the members' logs for elections, and at the network between their peer URLs; ask again";
        findings.push(of_cluster(Critical, "leader", "no member knows a leader", cure));
    } else if leaders.len() > 1 {
        let cure = "ask again; if it stays so, look at the network between the members";
        findings.push(of_cluster(Warning, "leader", "members follow different leaders: an election is going on", cure));
    }
}

fn alarms(seen: &Examined, findings: &mut Vec<Finding>) {
    for (alarm, id) in &seen.alarms {
        let raiser =
            seen.members.iter().find(|member| member.id == *id).map_or_else(|| format!("{id:x}"), Member::shown);
        let revision = states(seen).map(|(_, state)| state.revision).max().unwrap_or(0);
        let cure = match alarm.as_str() {
            "NOSPACE" => format!(
                "delete keys that nobody needs, then type: etcdctl compaction {revision} ; etcdctl defrag --cluster ; \
                 etcdctl alarm disarm"
            ),
            _ => "remove the member that differs, clear its data directory, add it again; then etcdctl alarm disarm"
                .into(),
        };
        let found = format!("alarm {alarm}: all members refuse writes");
        findings.push(Finding { severity: Critical, check: "alarm", member: raiser, found, cure });
    }
}

/// A member that does not answer.
fn answers(member: &Member, findings: &mut Vec<Finding>) {
    let Err(why) = &member.state else { return };
    if member.is_listed && member.name.is_empty() {
        let cure = format!("start it, or remove it: etcdctl member remove {:x}", member.id);
        findings.push(member.finds(
            Critical,
            "unstarted",
            "it was added and never started, and counts for quorum",
            cure,
        ));
        return;
    }
    // A hint has both, with a semicolon between them.
    let (found, cure) = why.split_once("; ").unwrap_or((why, "look at its log"));
    findings.push(member.finds(Critical, "unreachable", format!("{} does not answer: {found}", member.endpoint), cure));
}

fn size(bytes: i64) -> String {
    go::bytes_text(u64::try_from(bytes).unwrap_or(0))
}

fn space(member: &Member, state: &State, findings: &mut Vec<Finding>) {
    let quota = state.quota;
    if quota > 0 && state.size as f64 >= QUOTA_WARNING * quota as f64 {
        let severity = if state.size as f64 >= QUOTA_CRITICAL * quota as f64 { Critical } else { Warning };
        let percent = state.size.saturating_mul(100) / quota;
        let found =
            format!("its database has {} of {}, {percent} % of --quota-backend-bytes", size(state.size), size(quota));
        let cure = format!(
            "delete keys that nobody needs, then type: etcdctl compaction {} ; etcdctl defrag --cluster; or a larger quota \
             on all members",
            state.revision
        );
        findings.push(member.finds(severity, "quota", found, cure));
    }
    let free = state.size - state.size_in_use;
    if free >= FREE_BYTES_MIN && free as f64 >= FREE_SHARE * state.size as f64 {
        let found = format!("{} of its {} are free inside of the file", size(free), size(state.size));
        let cure = format!("etcdctl --endpoints={} defrag gives them back to the disk", member.endpoint);
        findings.push(member.finds(Note, "fragmentation", found, cure));
    }
}

/// Whether a member keeps up with the others.
fn follows(seen: &Examined, member: &Member, state: &State, findings: &mut Vec<Finding>) {
    let newest = |of: fn(&State) -> u64| states(seen).map(|(_, state)| of(state)).max().unwrap_or(0);
    let behind = [
        ("raft index", newest(|state| state.index).saturating_sub(state.index)),
        ("applied index", state.index.saturating_sub(state.applied)),
        ("revision", newest(|state| state.revision.unsigned_abs()).saturating_sub(state.revision.unsigned_abs())),
    ];
    for (what, lag) in behind.into_iter().filter(|(_, lag)| *lag > LAG) {
        let cure = "ask again: if it does not catch up, look at its disk, its processor and its network";
        findings.push(member.finds(Warning, "lag", format!("its {what} is {lag} behind"), cure));
    }
    if member.is_learner {
        let cure = format!("when it has caught up: etcdctl member promote {:x}", member.id);
        findings.push(member.finds(Note, "learner", "it is a learner: it has no vote", cure));
    }
    let own = state.errors.iter().filter(|error| !error.contains("NOSPACE") && !error.contains("CORRUPT"));
    for error in own.filter(|error| !error.contains("no leader")) {
        findings.push(member.finds(Warning, "errors", format!("it says: {error}"), "see docs/errors.md"));
    }
    if state.round_trip.as_secs_f64() > ROUND_TRIP_S {
        let found = format!("its answers take {} from here", go::format_duration(state.round_trip));
        findings.push(member.finds(Warning, "network", found, "look at the network from here to it, and at its load"));
    }
}

/// What the web page and the certificate said.
fn page(member: &Member, findings: &mut Vec<Finding>) {
    let web = match &member.web {
        Ok(web) => web,
        Err(why) => {
            if member.state.is_ok() {
                let found = format!("its metrics and clock can't be read ({why}): disk and network were not looked at");
                let cure = "let this host ask /metrics at its client URL";
                findings.push(member.finds(Note, "metrics", found, cure));
            }
            return;
        }
    };
    if let Some(offset) = web.clock_offset.filter(|offset| offset.abs() > CLOCK_S) {
        let which = if offset > 0.0 { "ahead of" } else { "behind" };
        let found = format!("its clock is {:.0} s {which} this host's", offset.abs());
        findings.push(member.finds(Warning, "clock", found, "synchronize the clocks of all hosts (chrony, ntpd)"));
    }
    if let Some(days) = web.certificate_days.filter(|days| *days < DAYS_WARNING) {
        let severity = if days < DAYS_CRITICAL { Critical } else { Warning };
        let cure = "put a new one in its --cert-file and --key-file: it is taken into use without a restart";
        findings.push(member.finds(severity, "certificate", format!("its certificate ends in {days} days"), cure));
    }
    let disk = "give its data directory a quicker disk, or one that nobody else writes to";
    let ways = "members should be near each other; else raise --heartbeat-interval and --election-timeout on all";
    for (check, what, took, limit, cure) in [
        ("disk", "sync its log", web.wal_fsync, WAL_FSYNC_S, disk),
        ("disk", "commit its database", web.backend_commit, BACKEND_COMMIT_S, disk),
        ("network", "reach its peers and back", web.peer_round_trip, ROUND_TRIP_S, ways),
    ] {
        if let Some(took) = took.filter(|took| *took > limit) {
            let (took, limit) = (milliseconds(took), milliseconds(limit));
            let found = format!("1 time in 100 it takes about {took} to {what} (since its start; {limit} is well)");
            findings.push(member.finds(Warning, check, found, cure));
        }
    }
}

fn milliseconds(seconds: f64) -> String {
    match seconds.is_finite() {
        true => format!("{:.0} ms", seconds * 1000.0),
        false => "more than 8 s".into(),
    }
}

/// What all members should have in common.
fn agreement(seen: &Examined, findings: &mut Vec<Finding>) {
    let distinct =
        |of: fn(&State) -> &String| states(seen).map(|(_, state)| of(state).clone()).collect::<BTreeSet<_>>();
    let shown = |all: BTreeSet<String>| all.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
    let clusters: BTreeSet<u64> = states(seen).map(|(_, state)| state.cluster).collect();
    if clusters.len() > 1 {
        let cure = "name endpoints of one cluster; a member that founded one of its own by mistake starts anew, with an empty \
                    data directory and --initial-cluster-state=existing";
        findings.push(of_cluster(Critical, "cluster", "the endpoints are of different clusters", cure));
    }
    for (check, what, all) in [
        ("version", "versions", distinct(|state| &state.version)),
        ("storage-version", "storage versions", distinct(|state| &state.storage_version)),
    ] {
        if all.len() > 1 {
            let found = format!("members have different {what}: {}", shown(all));
            findings.push(of_cluster(Note, check, found, "finish the upgrade or the downgrade that is going on"));
        }
    }
    if let Some(target) = states(seen).find_map(|(_, state)| state.downgrade.as_ref()) {
        let cure = "exchange the programs one by one, or etcdctl downgrade cancel";
        findings.push(of_cluster(Note, "downgrade", format!("a downgrade to {target} is enabled"), cure));
    }
    let all = seen.members.iter().filter_map(|member| member.hash.map(|hash| (hash.compacted, hash.hash, member)));
    let all: Vec<_> = all.collect();
    // Hashes cover what is behind the compacted revision: those of one are compared.
    for (compacted, hash, member) in &all {
        let Some((_, _, other)) =
            all.iter().find(|(c, h, _)| c == compacted && h != hash).filter(|_| clusters.len() == 1)
        else {
            continue;
        };
        let found = format!("its data is not that of {} (hash {hash:x} at one revision)", other.shown());
        let cure = "find the odd one out with etcdctl endpoint hashkv; remove that member, clear its data directory, add it again";
        findings.push(member.finds(Critical, "hash", found, cure));
    }
    if let Some(why) = &seen.unhashed {
        findings.push(of_cluster(
            Note,
            "hash",
            format!("data was not compared: {why}"),
            "ask again; with users, as root",
        ));
    }
}

/// How many members there are.
fn shape(seen: &Examined, findings: &mut Vec<Finding>) {
    let count = voters(seen).count();
    let add = "etcdctl member add NAME --peer-urls=URL --learner, start it, etcdctl member promote ID";
    if count == 1 {
        findings.push(of_cluster(
            Note,
            "size",
            "there is one voter: with it everything is lost",
            format!("three are usual: {add}"),
        ));
    } else if count > 1 && count.is_multiple_of(2) {
        let found = format!("there are {count} voters: no more may fail than with {}", count - 1);
        findings.push(of_cluster(
            Warning,
            "size",
            found,
            format!("one more, or one less: {add}; or etcdctl member remove ID"),
        ));
    }
    if count > VOTERS_MAX {
        let found = format!("there are {count} voters: each write waits for {}", count / 2 + 1);
        findings.push(of_cluster(Warning, "size", found, format!("{VOTERS_MAX} at most: etcdctl member remove ID")));
    }
}

/// History that nobody compacts.
fn history(seen: &Examined, findings: &mut Vec<Finding>) {
    let compacted = seen.members.iter().filter_map(|member| member.hash).map(|hash| hash.compacted).max();
    let revision = states(seen).map(|(_, state)| state.revision).max().unwrap_or(0);
    let Some(compacted) = compacted.filter(|compacted| *compacted <= 0 && revision >= HISTORY_NOTE) else { return };
    let severity = if revision >= HISTORY_WARNING { Warning } else { Note };
    let found =
        format!("nothing was ever compacted ({}): the whole history of {revision} revisions is kept", compacted.max(0));
    let cure = "start all members with --auto-compaction-retention=1h, or compact from time to time (Kubernetes does)";
    findings.push(of_cluster(severity, "compaction", found, cure));
}

#[cfg(test)]
mod tests {
    use super::super::{Hash, Web};
    use super::*;

    fn member(id: u64) -> Member {
        let state = State {
            cluster: 7,
            version: "3.7.1".into(),
            storage_version: "3.7.0".into(),
            leader: 1,
            index: 5000,
            applied: 5000,
            revision: 500,
            quota: 1 << 31,
            ..State::default()
        };
        Member {
            id,
            name: format!("m{id}"),
            endpoint: format!("http://h{id}:2379"),
            is_listed: true,
            state: Ok(state),
            hash: Some(Hash { hash: 9, revision: 500, compacted: 1 }),
            web: Ok(Web { certificate_days: Some(300), clock_offset: Some(0.0), ..Web::default() }),
            ..Member::default()
        }
    }

    fn cluster(count: u64) -> Examined {
        Examined { members: (1..=count).map(member).collect(), is_listed: true, ..Examined::default() }
    }

    fn found(seen: &Examined) -> Vec<(Severity, &'static str, String)> {
        judge(seen).into_iter().map(|finding| (finding.severity, finding.check, finding.member)).collect()
    }

    fn one(severity: Severity, check: &'static str, member: &str) -> Vec<(Severity, &'static str, String)> {
        vec![(severity, check, member.to_owned())]
    }

    #[test]
    fn a_healthy_cluster_of_three_or_five_has_no_findings() {
        assert_eq!(found(&cluster(3)), []);
        assert_eq!(found(&cluster(5)), []);
    }

    #[test]
    fn each_fault_of_one_member_is_found_at_that_member() {
        type Break = fn(&mut Member);
        fn state(member: &mut Member) -> &mut State {
            member.state.as_mut().unwrap()
        }
        fn web(member: &mut Member) -> &mut Web {
            member.web.as_mut().unwrap()
        }
        let table: [(Severity, &str, Break); 16] = [
            (Critical, "unreachable", |m| m.state = Err("nobody listens; start it".into())),
            (Critical, "quota", |m| state(m).size = 2_100_000_000),
            (Warning, "quota", |m| state(m).size = 1_800_000_000),
            (Note, "fragmentation", |m| (state(m).size, state(m).size_in_use) = (300 << 20, 100 << 20)),
            (Warning, "lag", |m| (state(m).index, state(m).applied) = (3999, 3999)),
            (Warning, "lag", |m| state(m).applied = 3999),
            (Note, "learner", |m| m.is_learner = true),
            (Warning, "errors", |m| state(m).errors.push("something".into())),
            (Warning, "clock", |m| web(m).clock_offset = Some(-3.0)),
            (Critical, "certificate", |m| web(m).certificate_days = Some(2)),
            (Warning, "certificate", |m| web(m).certificate_days = Some(29)),
            (Warning, "disk", |m| web(m).wal_fsync = Some(0.016)),
            (Warning, "disk", |m| web(m).backend_commit = Some(0.032)),
            (Warning, "network", |m| web(m).peer_round_trip = Some(f64::INFINITY)),
            (Warning, "network", |m| state(m).round_trip = std::time::Duration::from_millis(101)),
            (Note, "metrics", |m| m.web = Err("connection refused".into())),
        ];
        for (severity, check, fault) in table {
            let mut seen = cluster(4);
            // Three voters, whichever it is.
            seen.members[3].is_learner = true;
            fault(&mut seen.members[1]);
            let is_here = |all: &[(Severity, &str, String)]| all.contains(&(severity, check, "m2".to_owned()));
            assert!(is_here(&found(&seen)), "{check}: {:?}", found(&seen));
            seen.members[1] = member(2);
            assert!(!is_here(&found(&seen)), "{check}: {:?}", found(&seen));
        }
    }

    #[test]
    fn the_cluster_as_a_whole_is_judged() {
        assert_eq!(found(&cluster(1)), one(Note, "size", ""));
        assert_eq!(found(&cluster(4)), one(Warning, "size", ""));
        assert_eq!(found(&cluster(9)), one(Warning, "size", ""));
        let mut seen = cluster(3);
        seen.alarms = vec![("NOSPACE".into(), 2)];
        assert_eq!(found(&seen), one(Critical, "alarm", "m2"));
        let mut seen = cluster(3);
        for at in [1, 2] {
            seen.members[at].state = Err("nobody listens; start it".into());
        }
        let findings = judge(&seen);
        assert_eq!((findings[0].check, findings[0].severity), ("quorum", Critical));
        assert_eq!(findings[1].found, "http://h2:2379 does not answer: nobody listens");
        assert_eq!(findings[1].cure, "start it");
        let mut seen = cluster(3);
        seen.members.iter_mut().for_each(|member| member.state.as_mut().unwrap().leader = 0);
        assert_eq!(found(&seen), one(Critical, "leader", ""));
        let mut seen = cluster(3);
        seen.members[2].name.clear();
        seen.members[2].state = Err("it never started".into());
        assert_eq!(judge(&seen)[0].check, "unstarted");
        let gone =
            Examined { members: vec![Member { endpoint: "a:1".into(), ..Member::default() }], ..Examined::default() };
        assert_eq!(judge(&gone)[0].check, "unreachable");
    }

    #[test]
    fn members_that_differ_are_told_from_members_that_compact_at_other_times() {
        let mut seen = cluster(3);
        seen.members[1].hash = Some(Hash { hash: 8, revision: 500, compacted: 2 });
        assert_eq!(found(&seen), []);
        seen.members[1].hash = Some(Hash { hash: 8, revision: 500, compacted: 1 });
        let all = found(&seen);
        assert!(
            all.iter().all(|(severity, check, _)| (*severity, *check) == (Critical, "hash")) && all.len() == 3,
            "{all:?}"
        );
        let mut seen = cluster(3);
        seen.members[0].state.as_mut().unwrap().version = "3.6.0".into();
        assert_eq!(found(&seen), one(Note, "version", ""));
        seen.members[0].state.as_mut().unwrap().cluster = 8;
        assert_eq!(found(&seen)[0].1, "cluster");
    }

    #[test]
    fn history_that_nobody_compacts_is_noticed_when_there_is_much() {
        let mut seen = cluster(3);
        let mut with = |revision: i64, compacted: i64| {
            for member in &mut seen.members {
                member.state.as_mut().unwrap().revision = revision;
                member.hash = Some(Hash { hash: 9, revision, compacted });
            }
            found(&seen)
        };
        assert_eq!(with(999, -1), []);
        assert_eq!(with(1000, -1), one(Note, "compaction", ""));
        assert_eq!(with(100_000, 0), one(Warning, "compaction", ""));
        assert_eq!(with(100_000, 5), []);
    }
}
