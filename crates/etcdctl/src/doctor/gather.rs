//! Asks. Three rounds, all members of a round at once, each with its share of the time.

use super::{Examined, Hash, Member, State, Web};
use crate::globals::Ctl;
use crate::hints::{self, Asked};
use crate::metrics::Metrics;
use crate::web;
use api::pb::etcdserverpb as pb;
use client::{Address, Client};
use std::time::{Duration, Instant, SystemTime};

/// How often a member's answer is timed.
const ROUND_TRIPS: usize = 3;
/// Observations that a histogram needs to say something.
const OBSERVATIONS_MIN: f64 = 20.0;
/// Endpoints that are asked at most: a cluster has seven members, each with an address or two.
const ENDPOINTS_MAX: usize = 64;

/// Everything, within the command's time.
pub async fn examine(ctl: &Ctl) -> Examined {
    let share = ctl.timeout() / 10;
    let listed = list(ctl, share).await;
    let members = ask_all(ctl, listed.as_deref(), share).await;
    let mut examined = Examined { members, is_listed: listed.is_some(), alarms: Vec::new(), unhashed: None };
    let has_leader = examined.members.iter().any(|m| m.state.as_ref().is_ok_and(|state| state.leader != 0));
    // Alarms are asked for through the log: without a leader nobody answers, and that is found elsewhere.
    let alarms =
        async { if has_leader { active_alarms(&ctl.client.with_timeout(share * 2)).await } else { Vec::new() } };
    (examined.alarms, ()) = tokio::join!(alarms, compare(ctl, &mut examined, share * 2));
    examined
}

/// The members and what they say, without alarms and hashes.
pub async fn members(ctl: &Ctl) -> Vec<Member> {
    let share = ctl.timeout() / 10;
    let listed = list(ctl, share).await;
    ask_all(ctl, listed.as_deref(), share).await
}

async fn list(ctl: &Ctl, share: Duration) -> Option<Vec<pb::Member>> {
    let client = ctl.client.with_timeout(share * 3);
    let asking = client.member_list(pb::MemberListRequest { linearizable: false });
    let mut listed = unless_failed(&ctl.asked, ctl.client.endpoints(), asking).await?.ok()?.members;
    listed.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Some(listed)
}

async fn active_alarms(client: &Client) -> Vec<(String, u64)> {
    let response = client.alarm(pb::AlarmRequest::default()).await.unwrap_or_default();
    response.alarms.iter().map(|alarm| (alarm.alarm().as_str_name().to_owned(), alarm.member_id)).collect()
}

/// The endpoints to ask: each member's first URL, then those that were given and are none of these.
fn plan(listed: Option<&[pb::Member]>, given: &[String]) -> Vec<Member> {
    let mut all: Vec<Member> = Vec::new();
    for member in listed.unwrap_or_default() {
        all.push(Member {
            id: member.id,
            name: member.name.clone(),
            endpoint: member.client_ur_ls.first().cloned().unwrap_or_default(),
            is_listed: true,
            is_learner: member.is_learner,
            ..Member::default()
        });
    }
    let known: Vec<String> =
        listed.unwrap_or_default().iter().flat_map(|member| &member.client_ur_ls).map(|url| place(url)).collect();
    for endpoint in given.iter().filter(|endpoint| !known.contains(&place(endpoint))) {
        all.push(Member { endpoint: endpoint.clone(), ..Member::default() });
    }
    all.truncate(ENDPOINTS_MAX);
    all
}

fn place(endpoint: &str) -> String {
    Address::parse(endpoint).authority().to_owned()
}

/// Asks all at once, for three shares of the time, and explains a failure within two more. An endpoint that turns out to be a listed member's is that member's second address.
async fn ask_all(ctl: &Ctl, listed: Option<&[pb::Member]>, share: Duration) -> Vec<Member> {
    let mut asking = tokio::task::JoinSet::new();
    for (n, member) in plan(listed, ctl.client.endpoints()).into_iter().enumerate() {
        let (client, asked) = (ctl.client.only(&member.endpoint).with_timeout(share * 3), ctl.asked.clone());
        asking.spawn(async move { (n, ask(member, &client, &asked, share).await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(n, _)| *n);
    let mut members: Vec<Member> = Vec::new();
    for (_, member) in answers {
        let twin = members.iter_mut().find(|other| member.id != 0 && other.id == member.id);
        match twin {
            // Its advertised address does not work from here, this one does.
            Some(twin) if twin.state.is_err() && member.state.is_ok() => {
                *twin = Member { name: twin.name.clone(), is_listed: true, is_learner: twin.is_learner, ..member };
            }
            Some(_) => {}
            None => members.push(member),
        }
    }
    members
}

async fn ask(member: Member, client: &Client, asked: &Asked, share: Duration) -> Member {
    if member.endpoint.is_empty() {
        return Member { state: Err("it never started, and has no address".into()), ..member };
    }
    let (time, endpoint) = (share * 3, [member.endpoint.clone()]);
    let page = tokio::time::timeout(time, metrics(&member.endpoint, asked));
    let (state, page) = tokio::join!(unless_failed(asked, &endpoint, status(client)), page);
    let state = state.flatten();
    let web = page.unwrap_or_else(|_| Err(format!("no answer within {}", go::format_duration(time))));
    let Some((id, is_learner, state)) = state else {
        let explained = tokio::time::timeout(share * 2, hints::explain(asked, &member.endpoint)).await;
        let state = Err(explained.unwrap_or_else(|_| "there was no answer in time; look at that process".into()));
        return Member { state, web, ..member };
    };
    Member { id, is_learner, state: Ok(state), web, ..member }
}

/// The answer, unless each of these endpoints has failed: a client goes on until its time is over, but a doctor has seen
/// enough.
async fn unless_failed<T>(asked: &Asked, endpoints: &[String], asking: impl Future<Output = T>) -> Option<T> {
    const LOOK: Duration = Duration::from_millis(20);
    let failures = &asked.config.failures;
    failures.forget(endpoints);
    let failed = async {
        loop {
            let known = failures.list();
            if endpoints.iter().all(|endpoint| known.iter().any(|failure| failure.endpoint == *endpoint)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        answer = asking => Some(answer),
        () = failed => None,
    }
}

/// Who it is, whether it is a learner, and its state.
async fn status(client: &Client) -> Option<(u64, bool, State)> {
    let mut round_trip = Duration::MAX;
    let mut last = client.status(pb::StatusRequest {}).await.ok()?;
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        last = client.status(pb::StatusRequest {}).await.ok()?;
        round_trip = round_trip.min(start.elapsed());
    }
    let header = last.header.unwrap_or_default();
    let downgrade = last.downgrade_info.filter(|info| info.enabled).map(|info| info.target_version);
    let state = State {
        cluster: header.cluster_id,
        version: last.version,
        storage_version: last.storage_version,
        leader: last.leader,
        term: last.raft_term,
        index: last.raft_index,
        applied: last.raft_applied_index,
        revision: header.revision,
        size: last.db_size,
        size_in_use: last.db_size_in_use,
        quota: last.db_size_quota,
        errors: last.errors,
        downgrade,
        round_trip,
    };
    Some((header.member_id, last.is_learner, state))
}

async fn metrics(endpoint: &str, asked: &Asked) -> Result<Web, String> {
    let secure = web::secure(&asked.config, endpoint);
    let before = SystemTime::now();
    let page = web::fetch(endpoint, secure, "/metrics").await?;
    let after = SystemTime::now();
    let mut web = Web {
        clock_offset: page.date.map(|date| offset(date, before, after)),
        certificate_days: page.shown.as_ref().map(|shown| days_to(shown.not_after)),
        ..Web::default()
    };
    if page.status != 200 {
        return Err(format!("HTTP status {}", page.status));
    }
    let metrics = Metrics::parse(&page.body);
    let p99 = |name: &str| {
        let histogram = metrics.histogram(name);
        histogram.quantile(0.99).filter(|_| histogram.count() >= OBSERVATIONS_MIN)
    };
    web.wal_fsync = p99("etcd_disk_wal_fsync_duration_seconds");
    web.backend_commit = p99("etcd_disk_backend_commit_duration_seconds");
    web.peer_round_trip = p99("etcd_network_peer_round_trip_time_seconds");
    web.cluster_version = metrics.label("etcd_cluster_version", "cluster_version");
    web.metrics = metrics;
    Ok(web)
}

/// How far a clock that shows whole seconds is off; 0 while it may be right.
fn offset(date: SystemTime, before: SystemTime, after: SystemTime) -> f64 {
    let seconds =
        |later: SystemTime, earlier: SystemTime| later.duration_since(earlier).map_or(0.0, |d| d.as_secs_f64());
    // It said `date` at some moment of [before, after], and then it was in [date, date + 1 s).
    let ahead = seconds(date, after);
    let behind = seconds(before, date + Duration::from_secs(1));
    if behind > 0.0 { -behind } else { ahead }
}

fn days_to(end: SystemTime) -> i64 {
    const DAY_S: u64 = 86_400;
    let days = |d: Duration| i64::try_from(d.as_secs() / DAY_S).unwrap_or(i64::MAX);
    match end.duration_since(SystemTime::now()) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    }
}

/// The hash of all voters that answer, at the newest revision that all of them have.
async fn compare(ctl: &Ctl, examined: &mut Examined, time: Duration) {
    let is_asked = |member: &Member| member.state.is_ok() && !member.is_learner;
    let revisions =
        examined.members.iter().filter(|member| is_asked(member)).filter_map(|member| member.state.as_ref().ok());
    let Some(revision) = revisions.map(|state| state.revision).min() else { return };
    let mut asking = tokio::task::JoinSet::new();
    for (n, member) in examined.members.iter().enumerate().filter(|(_, member)| is_asked(member)) {
        let client = ctl.client.only(&member.endpoint).with_timeout(time);
        asking.spawn(async move { (n, client.hash_kv(pb::HashKvRequest { revision }).await) });
    }
    while let Some(answer) = asking.join_next().await {
        match answer {
            Ok((n, Ok(hash))) => {
                let hash = Hash { hash: hash.hash, revision: hash.hash_revision, compacted: hash.compact_revision };
                examined.members[n].hash = Some(hash);
            }
            Ok((n, Err(e))) => {
                examined.unhashed = Some(format!("{} did not answer with its hash: {e}", examined.members[n].shown()));
            }
            Err(e) => examined.unhashed = Some(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_whole_seconds_is_right_until_it_must_be_wrong() {
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        for (date, before, after, off) in [
            (10_000, 10_000, 10_001, 0.0),
            (10_000, 10_999, 11_005, 0.0),
            (10_000, 9_000, 12_000, 0.0),
            (15_000, 10_000, 10_000, 5.0),
            (10_000, 15_000, 15_500, -4.0),
        ] {
            assert!((offset(at(date), at(before), at(after)) - off).abs() < 1e-9, "{date} {before} {after}");
        }
    }

    #[test]
    fn each_place_is_asked_once() {
        let member = |id, url: &str| pb::Member { id, client_ur_ls: vec![url.into()], ..Default::default() };
        let listed = [member(1, "http://a:1"), member(2, "http://b:1"), pb::Member { id: 3, ..Default::default() }];
        let planned = plan(Some(&listed), &["a:1".into(), "c:1".into()]);
        let places: Vec<&str> = planned.iter().map(|member| member.endpoint.as_str()).collect();
        assert_eq!(places, ["http://a:1", "http://b:1", "", "c:1"]);
        assert_eq!(plan(None, &["c:1".into()]).len(), 1);
    }
}
