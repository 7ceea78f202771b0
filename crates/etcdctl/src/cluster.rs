//! `endpoint health | status | hashkv`, `member …`, `alarm …`, `defrag`, `move-leader`, `downgrade …`.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::log;
use crate::output::{Answer, Format, Health, write_out};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Cause, Client, Error};
use cobra::{Call, Exit, Flag, Kind};

use std::time::{Duration, Instant};

/// `--cluster`, of `endpoint` and `defrag`.
pub static CLUSTER_FLAG: &[Flag] = &[Flag::switch("cluster", "ask all members that the cluster lists")];
/// Flags of `endpoint hashkv`.
pub static HASHKV_FLAGS: &[Flag] =
    &[Flag::new("rev", Kind::Int, "0", "newest revision to hash (default: the newest there is)")];
/// Flags of `member add`.
pub static MEMBER_ADD_FLAGS: &[Flag] = &[
    Flag::new("peer-urls", Kind::Text, "", "peer URLs of the new member, separated by commas"),
    Flag::switch("learner", "add the member as a learner, without a vote"),
];
/// Flags of `member update`.
pub static MEMBER_UPDATE_FLAGS: &[Flag] =
    &[Flag::new("peer-urls", Kind::Text, "", "the member's new peer URLs, separated by commas")];
/// Flags of `member list`.
pub static MEMBER_LIST_FLAGS: &[Flag] =
    &[Flag::new("consistency", Kind::Text, "l", "l: linearizable, the newest state; s: serializable, this member's")];

/// The endpoints to ask, one by one.
fn endpoints(call: &Call, ctl: &Ctl) -> Result<Vec<String>, Exit> {
    if !call.given.is_true("cluster") {
        return Ok(call.given.list("endpoints").to_vec());
    }
    let response = ctl
        .block_on(ctl.timed().member_list(pb::MemberListRequest { linearizable: true }))
        .map_err(|e| Exit::error(format!("failed to fetch endpoints from etcd cluster member list: {e}")))?;
    Ok(response.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// `endpoint health`.
pub fn health(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let list = endpoints(call, &ctl)?;
    let client = ctl.client.with_observer(log::attempts("client"));
    let clients: Vec<_> = list.into_iter().map(|endpoint| (client.only(&endpoint), endpoint)).collect();
    let timeout = ctl.timeout();
    let healths = ctl.block_on(async {
        let (results, mut done) = tokio::sync::mpsc::channel(clients.len().max(1));
        for (client, endpoint) in clients {
            let results = results.clone();
            tokio::spawn(async move {
                // The receiver waits for all of us.
                let _ = results.send(health_of(client, endpoint, timeout).await).await;
            });
        }
        drop(results);
        let mut healths = Vec::new();
        while let Some(health) = done.recv().await {
            healths.push(health);
        }
        healths
    });
    if ctl.display.format == Format::Simple {
        show_healths(&healths);
    } else {
        ctl.display.show(Answer::Health(&healths))?;
    }
    match healths.iter().all(|health| health.error.is_empty()) {
        true => Ok(()),
        false => Err(Exit::error("unhealthy cluster")),
    }
}

fn show_healths(healths: &[Health]) {
    for health in healths {
        let took = go::format_duration(health.took);
        let endpoint = &health.endpoint;
        if health.error.is_empty() {
            let line = format!("{endpoint} is healthy: successfully committed proposal: took = {took}\n");
            write_out(line.as_bytes());
        } else {
            eprintln!("{endpoint} is unhealthy: failed to commit proposal: {}", health.error);
        }
    }
}

/// A linearizable read of any key proves that the endpoint's member follows a leader; an alarm makes it unhealthy.
async fn health_of(client: Client, endpoint: String, timeout: Duration) -> Health {
    let start = Instant::now();
    let client = client.with_timeout(timeout);
    let read = client.range(pb::RangeRequest { key: Bytes::from_static(b"health"), ..Default::default() }).await;
    let took = start.elapsed();
    let error = match read {
        Err(e) if !e.is(&api::Error::PermissionDenied) => e.to_string(),
        _ => active_alarms(&client).await,
    };
    Health { healthy: error.is_empty(), endpoint, took, error }
}

async fn active_alarms(client: &Client) -> String {
    match client.alarm(pb::AlarmRequest::default()).await {
        Ok(response) if response.alarms.is_empty() => String::new(),
        Ok(response) => {
            let name = |alarm: &pb::AlarmMember| match alarm.alarm() {
                pb::AlarmType::None => "UNKNOWN ",
                pb::AlarmType::Nospace => "NOSPACE ",
                pb::AlarmType::Corrupt => "CORRUPT ",
            };
            if response.alarms.iter().any(|alarm| alarm.alarm() == pb::AlarmType::Nospace) {
                client.note(&Cause::refusal(&api::Error::NoSpace));
            }
            format!("Active Alarm(s): {}", response.alarms.iter().map(name).collect::<String>())
        }
        Err(_) => "Unable to fetch the alarm list".to_owned(),
    }
}

/// `endpoint status`.
pub fn status(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let mut answers = Vec::new();
    let mut missing = false;
    for endpoint in endpoints(call, &ctl)? {
        let client = ctl.client.only(&endpoint).with_timeout(ctl.timeout());
        match ctl.block_on(client.status(pb::StatusRequest {})) {
            Ok(response) => answers.push((endpoint, response)),
            Err(e) => {
                eprintln!("Failed to get the status of endpoint {endpoint} ({e})");
                missing = true;
            }
        }
    }
    ctl.display.show(Answer::Status(&answers))?;
    if missing { Err(Exit::code(1)) } else { Ok(()) }
}

/// `endpoint hashkv`.
pub fn hash_kv(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let request = pb::HashKvRequest { revision: call.given.int("rev") };
    let mut answers = Vec::new();
    let mut last_error: Option<Error> = None;
    for endpoint in endpoints(call, &ctl)? {
        let client = ctl.client.only(&endpoint).with_timeout(ctl.timeout());
        match ctl.block_on(client.hash_kv(request)) {
            Ok(response) => answers.push((endpoint, response)),
            Err(e) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({e})");
                last_error = Some(e);
            }
        }
    }
    ctl.display.show(Answer::HashKv(&answers))?;
    last_error.map_or(Ok(()), |e| Err(failed(e)))
}

/// `defrag`.
pub fn defrag(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let mut failures = false;
    for endpoint in endpoints(call, &ctl)? {
        let client = ctl.client.only(&endpoint).with_timeout(ctl.timeout());
        let start = Instant::now();
        let outcome = ctl.block_on(client.defragment(pb::DefragmentRequest {}));
        let took = go::format_duration(start.elapsed());
        match outcome {
            Ok(_) => {
                let line = format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n");
                write_out(line.as_bytes());
            }
            Err(e) => {
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({e})");
                failures = true;
            }
        }
    }
    if failures { Err(Exit::code(1)) } else { Ok(()) }
}

fn no_arguments(call: &Call, command: &str) -> Result<(), Exit> {
    match call.args().is_empty() {
        true => Ok(()),
        false => Err(Exit::arguments(format!("{command} command accepts no arguments"))),
    }
}

/// `alarm list`.
pub fn alarm_list(call: &mut Call) -> Result<(), Exit> {
    no_arguments(call, "alarm list")?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().alarm(pb::AlarmRequest::default())).map_err(failed)?;
    ctl.display.show(Answer::Alarm(&response))
}

/// `alarm disarm`: what is listed, one by one.
pub fn alarm_disarm(call: &mut Call) -> Result<(), Exit> {
    no_arguments(call, "alarm disarm")?;
    let ctl = Ctl::open(call)?;
    let client = ctl.timed();
    let disarmed = ctl.block_on(async {
        let mut disarmed = pb::AlarmResponse::default();
        for alarm in client.alarm(pb::AlarmRequest::default()).await?.alarms {
            let request = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Deactivate as i32,
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            disarmed.alarms.extend(client.alarm(request).await?.alarms);
        }
        Ok(disarmed)
    });
    ctl.display.show(Answer::Alarm(&disarmed.map_err(failed)?))
}

fn member_id(word: &str) -> Result<u64, Exit> {
    go::parse_uint(word, 16, 64).map_err(|e| Exit::arguments(format!("bad member ID arg ({e}), expecting ID in Hex")))
}

fn peer_urls(call: &Call) -> Result<Vec<String>, Exit> {
    match call.given.text("peer-urls") {
        "" => Err(Exit::arguments("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

/// `member list`.
pub fn member_list(call: &mut Call) -> Result<(), Exit> {
    let linearizable = match call.given.text("consistency") {
        "l" => true,
        "s" => false,
        // The reference names its own default here, not what was given.
        _ => return Err(Exit::feature("unknown consistency flag \"l\"")),
    };
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().member_list(pb::MemberListRequest { linearizable })).map_err(failed)?;
    ctl.display.show(Answer::Members(&response))
}

/// `member add NAME --peer-urls=…`.
pub fn member_add(call: &mut Call) -> Result<(), Exit> {
    match call.args().len() {
        0 => return Err(Exit::arguments("member name not provided")),
        1 => {}
        words => {
            let urls = (0..words).map(|at| call.arg(at)).filter(|word| word.to_lowercase().starts_with("http"));
            let hints: String = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect();
            return Err(Exit::arguments(format!("too many arguments{hints}")));
        }
    }
    let urls = peer_urls(call)?;
    let name = call.arg(0);
    let is_learner = call.given.is_true("learner");
    let ctl = Ctl::open(call)?;
    etcdutl::url::check(&urls).map_err(Exit::error)?;
    let request = pb::MemberAddRequest { peer_ur_ls: urls, is_learner };
    let response = ctl.block_on(ctl.timed().member_add(request)).map_err(failed)?;
    ctl.display.show(Answer::MemberAdd(&response))?;
    if ctl.display.format == Format::Simple {
        write_out(started_with(&response, &name, call.given.text("peer-urls")).as_bytes());
    }
    Ok(())
}

/// The variables that start the new member.
fn started_with(response: &pb::MemberAddResponse, name: &str, urls: &str) -> String {
    let new = response.member.as_ref().map_or(0, |member| member.id);
    let cluster: Vec<String> = response
        .members
        .iter()
        .flat_map(|member| {
            let name = if member.id == new { name } else { member.name.as_str() };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    let quoted = |text: &str| go::quote(text);
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quoted(name),
        quoted(&cluster.join(",")),
        quoted(urls)
    )
}

/// `member remove ID`.
pub fn member_remove(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("member ID is not provided"));
    }
    let id = member_id(&call.arg(0))?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().member_remove(pb::MemberRemoveRequest { id })).map_err(failed)?;
    ctl.display.show(Answer::MemberRemove(id, &response))
}

/// `member update ID --peer-urls=…`.
pub fn member_update(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("member ID is not provided"));
    }
    let id = member_id(&call.arg(0))?;
    let peer_ur_ls = peer_urls(call)?;
    let ctl = Ctl::open(call)?;
    etcdutl::url::check(&peer_ur_ls).map_err(Exit::error)?;
    let request = pb::MemberUpdateRequest { id, peer_ur_ls };
    let response = ctl.block_on(ctl.timed().member_update(request)).map_err(failed)?;
    ctl.display.show(Answer::MemberUpdate(id, &response))
}

/// `member promote ID`.
pub fn member_promote(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("member ID is not provided"));
    }
    let id = member_id(&call.arg(0))?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().member_promote(pb::MemberPromoteRequest { id })).map_err(failed)?;
    ctl.display.show(Answer::MemberPromote(id, &response))
}

/// `move-leader ID`: sent to the leader, which is looked for among the endpoints.
pub fn move_leader(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("move-leader command needs 1 argument"));
    }
    let target_id = go::parse_uint(&call.arg(0), 16, 64).map_err(Exit::arguments)?;
    let ctl = Ctl::open(call)?;
    // One limit for the whole search.
    let timed = ctl.timed();
    for endpoint in timed.endpoints() {
        let client = timed.only(endpoint);
        let status = ctl.block_on(client.status(pb::StatusRequest {})).map_err(failed)?;
        let member = status.header.map_or(0, |header| header.member_id);
        if member == status.leader {
            let response = ctl.block_on(client.move_leader(pb::MoveLeaderRequest { target_id })).map_err(failed)?;
            return ctl.display.show(Answer::MoveLeader(status.leader, target_id, &response));
        }
    }
    Err(Exit::arguments(format!("no leader endpoint given at [{}]", timed.endpoints().join(" "))))
}

/// `downgrade validate VERSION`.
pub fn downgrade_validate(call: &mut Call) -> Result<(), Exit> {
    downgrade(call, "validate", pb::downgrade_request::DowngradeAction::Validate, true)
}

/// `downgrade enable VERSION`.
pub fn downgrade_enable(call: &mut Call) -> Result<(), Exit> {
    downgrade(call, "enable", pb::downgrade_request::DowngradeAction::Enable, true)
}

/// `downgrade cancel`.
pub fn downgrade_cancel(call: &mut Call) -> Result<(), Exit> {
    downgrade(call, "cancel", pb::downgrade_request::DowngradeAction::Cancel, false)
}

fn downgrade(
    call: &mut Call,
    what: &str,
    action: pb::downgrade_request::DowngradeAction,
    takes_version: bool,
) -> Result<(), Exit> {
    let version = if takes_version { call.arg(0) } else { String::new() };
    if takes_version {
        match call.args().len() {
            0 => return Err(Exit::arguments("TARGET_VERSION not provided")),
            1 if version.is_empty() => return Err(Exit::arguments("target version not provided")),
            1 => {}
            _ => return Err(Exit::arguments("too many arguments")),
        }
    }
    let ctl = Ctl::open(call)?;
    let request = pb::DowngradeRequest { action: action as i32, version };
    let response = ctl.block_on(ctl.timed().downgrade(request)).map_err(failed)?;
    ctl.display.show(Answer::Downgrade(what, &response))
}
