//! Findings for people and for programs.

use super::{Examined, Finding, Member, Severity, State};
use crate::output::Object;

/// Both forms. Lines end with a newline.
pub fn text(seen: &Examined, findings: &[Finding], as_json: bool) -> String {
    if as_json { json(seen, findings) + "\n" } else { lines(seen, findings) }
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn lines(seen: &Examined, findings: &[Finding]) -> String {
    let mut out = head(seen);
    for finding in findings {
        let severity = match finding.severity {
            Severity::Critical => "CRITICAL",
            Severity::Warning => "WARNING ",
            Severity::Note => "NOTE    ",
        };
        let who = if finding.member.is_empty() { String::new() } else { format!("{}: ", finding.member) };
        out += &format!("{severity} {}: {who}{}\n         to do: {}\n", finding.check, finding.found, finding.cure);
    }
    let [critical, warnings, notes] =
        [Severity::Critical, Severity::Warning, Severity::Note].map(|severity| count(findings, severity));
    match findings.is_empty() {
        true => out + "nothing found\n",
        false => out + &format!("{critical} critical, {warnings} warnings, {notes} notes\n"),
    }
}

fn head(seen: &Examined) -> String {
    let mut out = String::new();
    for member in &seen.members {
        out += &match &member.state {
            Ok(state) => format!("{}\n", summary(member, state)),
            Err(_) => format!("{} ({}) does not answer\n", member.shown(), member.endpoint),
        };
    }
    out
}

fn summary(member: &Member, state: &State) -> String {
    let role = match (state.leader == member.id, member.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    let size = |bytes: i64| go::bytes_text(u64::try_from(bytes).unwrap_or(0));
    format!(
        "{} ({}): {role}, version {}, revision {}, raft index {}, {} of {}, {} in use",
        member.shown(),
        member.endpoint,
        state.version,
        state.revision,
        state.index,
        size(state.size),
        size(state.quota),
        size(state.size_in_use),
    )
}

/// `{"members":[…],"findings":[…],"critical":N,"warnings":N,"notes":N}`.
fn json(seen: &Examined, findings: &[Finding]) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    Object::default()
        .raw("members", &list(seen.members.iter().map(of_member).collect()))
        .raw("findings", &list(findings.iter().map(of_finding).collect()))
        .number("critical", count(findings, Severity::Critical))
        .number("warnings", count(findings, Severity::Warning))
        .number("notes", count(findings, Severity::Note))
        .finish()
}

fn of_finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    Object::default()
        .text("severity", severity)
        .text("check", finding.check)
        .text("member", &finding.member)
        .text("found", &finding.found)
        .text("cure", &finding.cure)
        .finish()
}

fn of_member(member: &Member) -> String {
    let mut object = Object::default()
        .text("name", &member.name)
        .text("id", &format!("{:x}", member.id))
        .text("endpoint", &member.endpoint)
        .raw("answers", if member.state.is_ok() { "true" } else { "false" })
        .raw("learner", if member.is_learner { "true" } else { "false" });
    if let Ok(state) = &member.state {
        object = object
            .text("version", &state.version)
            .text("storageVersion", &state.storage_version)
            .text("leader", &format!("{:x}", state.leader))
            .number("raftTerm", state.term)
            .number("raftIndex", state.index)
            .number("raftAppliedIndex", state.applied)
            .number("revision", state.revision)
            .number("dbSize", state.size)
            .number("dbSizeInUse", state.size_in_use)
            .number("dbSizeQuota", state.quota)
            .number("roundTripSeconds", state.round_trip.as_secs_f64());
    }
    if let Some(hash) = member.hash {
        object = object
            .number("hash", hash.hash)
            .number("hashRevision", hash.revision)
            .number("compactRevision", hash.compacted);
    }
    if let Ok(web) = &member.web {
        if let Some(version) = &web.cluster_version {
            object = object.text("clusterVersion", version);
        }
        if let Some(days) = web.certificate_days {
            object = object.number("certificateDays", days);
        }
        for (name, value) in [
            ("clockOffsetSeconds", web.clock_offset),
            ("walFsyncP99Seconds", web.wal_fsync),
            ("backendCommitP99Seconds", web.backend_commit),
            ("peerRoundTripP99Seconds", web.peer_round_trip),
        ] {
            // JSON has no infinity: a value beyond all buckets is left out, and found.
            if let Some(value) = value.filter(|value| value.is_finite()) {
                object = object.number(name, value);
            }
        }
    }
    object.finish()
}
