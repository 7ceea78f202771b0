//! Every path of the JSON gateway, its errors and its streams.

use crate::record::Side;
use crate::web::{self, Reply};
use serde_json::Value;

/// Numbers that are not compared, only that they are there.
const VOLATILE: [&str; 8] =
    ["raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "remaining_bytes", "TTL"];

/// Asks with the answer's JSON laid out: Go puts spaces at random, on purpose.
fn ask_with(side: &mut Side, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut reply = web::send(&side.address, method, path, headers, body);
    let raw = reply.body.clone();
    reply.body = laid_out(&raw);
    let shown = headers.iter().filter(|(name, _)| *name != "Authorization");
    side.write(format!("{method} {path} {:?} {body}", shown.collect::<Vec<_>>()), reply.shown(), &[]);
    Reply { body: raw, ..reply }
}

fn ask(side: &mut Side, path: &str, body: &str) -> Reply {
    ask_with(side, "POST", path, &[], body)
}

fn laid_out(body: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    hide(&mut json);
    format!("{json:#}")
}

/// Members come by their ids, which are drawn.
fn sort_members(name: &str, json: &mut Value) {
    if let ("members", Value::Array(members)) = (name, json) {
        members.sort_by_key(|member| member["peerURLs"].to_string());
    }
}

fn hide(json: &mut Value) {
    match json {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match VOLATILE.contains(&name.as_str()) {
            true => *value = "N".into(),
            false => {
                sort_members(name, value);
                hide(value);
            }
        }),
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Asks for what can't be read: the parsers' words differ, status and code do not.
fn ask_badly(side: &mut Side, path: &str, body: &str) {
    let reply = web::post(&side.address, path, body);
    let code = serde_json::from_str::<Value>(&reply.body).map(|json| json["code"].clone());
    side.write(format!("POST {path} {body}"), format!("{} {code:?}", reply.status), &[]);
}

/// All of it but authentication.
pub async fn talk(side: &mut Side) {
    keys(side);
    transactions(side);
    leases(side);
    cluster(side);
    maintenance(side);
    recipes(side);
    refusals(side);
    streams(side);
}

fn keys(side: &mut Side) {
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"-_8","prevKv":true}"#),
        ("/v3/kv/put", r#"{"key":"Zm9vMg","value":"","lease":"0","unknown":[1,{"a":null}]}"#),
        ("/v3/kv/put", r#"{"key":"Zm9vMw==","ignore_value":true}"#),
        ("/v3/kv/put", r#"{"value":"Zm9v"}"#),
        ("/v3/kv/put", ""),
        ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","range_end":"Zm9w","limit":"1"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","rangeEnd":"Zm9w","keysOnly":true,"sort_order":"DESCEND","sort_target":3}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","range_end":"Zm9w","count_only":true,"revision":2}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","revision":"1000"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","serializable":true}{"key":"AA=="}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","sort_order":"SIDEWAYS"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","sort_order":9}"#),
        ("/v3/kv/range", "{}"),
        ("/v3/kv/range?key=Zm9v", "{}"),
        ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
        ("/v3/kv/r%61nge", r#"{"key":"Zm9v"}"#),
        ("/v3/kv/deleterange", r#"{"key":"Zm9vMg==","prev_kv":true}"#),
        ("/v3/kv/deleterange", r#"{"key":"Zm9vMg=="}"#),
        ("/v3/kv/compaction", r#"{"revision":"3","physical":true}"#),
        ("/v3/kv/compaction", r#"{"revision":"3"}"#),
        ("/v3/kv/compaction", r#"{"revision":"300"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    ] {
        ask(side, path, body);
    }
}

fn transactions(side: &mut Side) {
    for body in [
        r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"-_8="}],
            "success":[{"request_put":{"key":"dA==","value":"MQ=="}},{"requestRange":{"key":"dA=="}}],
            "failure":[{"request_range":{"key":"Zm9v"}}]}"#,
        r#"{"compare":[{"target":"CREATE","result":"GREATER","key":"dA==","create_revision":"0"},
            {"target":3,"result":1,"key":"dA==","modRevision":0},{"target":"VERSION","key":"dA==","version":1},
            {"target":"LEASE","result":"NOT_EQUAL","key":"dA==","lease":7}],
            "success":[{"request_txn":{"success":[{"request_delete_range":{"key":"dA==","prev_kv":true}}]}}]}"#,
        r#"{"failure":[{"request_range":{"key":"AA==","range_end":"AA=="}}]}"#,
        r#"{"success":[{}]}"#,
        r#"{"success":[{"request_put":{"key":"ZA=="}},{"request_put":{"key":"ZA=="}}]}"#,
        "{}",
    ] {
        ask(side, "/v3/kv/txn", body);
    }
}

fn leases(side: &mut Side) {
    for (path, body) in [
        ("/v3/lease/grant", r#"{"TTL":600,"ID":77}"#),
        ("/v3/lease/grant", r#"{"TTL":"600","ID":"77"}"#),
        ("/v3/lease/grant", r#"{"TTL":"99999999999","ID":"78"}"#),
        ("/v3/kv/put", r#"{"key":"bA==","lease":77}"#),
        ("/v3/kv/put", r#"{"key":"bA==","lease":"79"}"#),
        ("/v3/lease/timetolive", r#"{"ID":77,"keys":true}"#),
        ("/v3/kv/lease/timetolive", r#"{"ID":"79"}"#),
        ("/v3/lease/leases", "{}"),
        ("/v3/kv/lease/leases", ""),
        ("/v3/lease/keepalive", r#"{"ID":77}{"ID":"79"} {"ID":77}"#),
        ("/v3/lease/keepalive", ""),
        ("/v3/lease/keepalive", r#"{"ID":77} {bad {"ID":77}"#),
        ("/v3/kv/lease/revoke", r#"{"ID":"77"}"#),
        ("/v3/lease/revoke", r#"{"ID":"77"}"#),
    ] {
        ask(side, path, body);
    }
}

fn cluster(side: &mut Side) {
    ask(side, "/v3/cluster/member/list", "{}");
    ask(side, "/v3/cluster/member/list", r#"{"linearizable":true}"#);
    ask(side, "/v3/cluster/member/add", r#"{"peerURLs":["nonsense"]}"#);
    let added =
        web::post(&side.address, "/v3/cluster/member/add", r#"{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}"#);
    let id = added.json()["member"]["ID"].as_str().expect("an id").to_owned();
    side.name_id(id.parse().expect("a number"), "ADDED");
    side.write("a learner".into(), laid_out(&added.body), &[]);
    ask(side, "/v3/cluster/member/promote", &format!(r#"{{"ID":"{id}"}}"#));
    ask(side, "/v3/cluster/member/update", &format!(r#"{{"ID":"{id}","peerURLs":["http://127.0.0.1:2"]}}"#));
    ask(side, "/v3/cluster/member/remove", &format!(r#"{{"ID":"{id}"}}"#));
    ask(side, "/v3/cluster/member/remove", &format!(r#"{{"ID":"{id}"}}"#));
    ask(side, "/v3/cluster/member/promote", r#"{"ID":"5"}"#);
}

fn maintenance(side: &mut Side) {
    for (path, body) in [
        ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"5"}"#),
        ("/v3/maintenance/alarm", r#"{"action":"GET"}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v"}"#),
        ("/v3/maintenance/alarm", r#"{"action":2,"alarm":1,"memberID":5}"#),
        ("/v3/maintenance/alarm", "{}"),
        ("/v3/maintenance/status", "{}"),
        ("/v3/maintenance/defragment", "{}"),
        ("/v3/maintenance/hashkv", r#"{"revision":"0"}"#),
        ("/v3/maintenance/hashkv", r#"{"revision":"1"}"#),
        ("/v3/maintenance/transfer-leadership", r#"{"targetID":"5"}"#),
        ("/v3/maintenance/downgrade", r#"{"action":"VALIDATE","version":"3.6"}"#),
        ("/v3/maintenance/downgrade", r#"{"action":"ENABLE","version":"3.2"}"#),
        ("/v3/maintenance/downgrade", r#"{"action":"CANCEL"}"#),
    ] {
        ask(side, path, body);
    }
    let hash = web::post(&side.address, "/v3/maintenance/hash", "{}").json();
    side.write("a hash".into(), format!("{} {}", hash["hash"].is_u64(), hash["header"]["revision"]), &[]);
    let image = web::post(&side.address, "/v3/maintenance/snapshot", "{}");
    let lines: Vec<Value> = image.body.lines().map(|l| serde_json::from_str(l).expect("a line is JSON")).collect();
    let last = lines.last().map(|line| line["result"].clone()).unwrap_or_default();
    let names: Vec<_> = last.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
    side.write("a snapshot".into(), format!("{} {}\n{names:?}", image.status, lines.len() > 1), &[]);
}

fn recipes(side: &mut Side) {
    ask(side, "/v3/lease/grant", r#"{"TTL":600,"ID":81}"#);
    let locked = ask(side, "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"81"}"#).json();
    ask(side, "/v3/lock/unlock", &format!(r#"{{"key":{}}}"#, locked["key"]));
    ask(side, "/v3/election/leader", r#"{"name":"dm90ZQ=="}"#);
    let won = ask(side, "/v3/election/campaign", r#"{"name":"dm90ZQ==","lease":81,"value":"bWU="}"#).json();
    let leader = &won["leader"];
    ask(side, "/v3/election/proclaim", &format!(r#"{{"leader":{leader},"value":"eW91"}}"#));
    ask(side, "/v3/election/leader", r#"{"name":"dm90ZQ=="}"#);
    let mut seen = web::open(&side.address, "POST", "/v3/election/observe", &[], r#"{"name":"dm90ZQ=="}"#);
    let lines = seen.lines(1).iter().map(|line| laid_out(line)).collect::<Vec<_>>().join("\n");
    side.write("observe".into(), lines, &[]);
    seen.hang_up();
    ask(side, "/v3/election/resign", &format!(r#"{{"leader":{leader}}}"#));
    ask(side, "/v3/election/resign", "{}");
    ask(side, "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"99"}"#);
}

fn refusals(side: &mut Side) {
    for body in ["{", "[]", "x", "1", r#"{"key":1}"#, r#"{"key":"*"}"#, r#"{"limit":"x"}"#, r#"{"limit":1.5}"#, "}"] {
        ask_badly(side, "/v3/kv/range", body);
    }
    for method in ["GET", "PUT", "DELETE", "HEAD", "PATCH"] {
        ask_with(side, method, "/v3/kv/range", &[], "");
    }
    for path in
        ["/v3/", "/v3", "/v3/nothing", "/v3/kv/range/", "/v3/kv/rangestream", "/v2/keys", "/v3alpha/kv/range", "/"]
    {
        ask(side, path, "{}");
        ask_with(side, "GET", path, &[], "");
    }
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for headers in [
        &[form][..],
        &[form, ("X-HTTP-Method-Override", "GET")],
        &[form, ("X-HTTP-Method-Override", "post")],
        &[("X-HTTP-Method-Override", "GET")],
        &[("Grpc-Timeout", "5S")],
        &[("Grpc-Timeout", "x")],
        &[("Grpc-Metadata-Client-Api-Version", "3.7")],
        &[("Grpc-Metadata-Hasleader", "true")],
        &[("Accept", "text/html"), ("Content-Type", "text/plain")],
        &[("Origin", "http://a.example")],
        &[("Authorization", "nonsense")],
    ] {
        ask_with(side, "POST", "/v3/kv/range", headers, r#"{"key":"Zm9v"}"#);
    }
    for path in ["/v3/kv/range", "/version", "/nothing"] {
        ask_with(side, "OPTIONS", path, &[("Origin", "http://a.example")], "");
    }
    let large = format!(r#"{{"key":"Zm9v","value":"{}"}}"#, "AAAA".repeat(800_000));
    let reply = web::post(&side.address, "/v3/kv/put", &large);
    side.write("a put of 2.4 MB".into(), laid_out(&reply.body), &[]);
    let large = format!(r#"{{"key":"Zm9v","value":"{}"}}"#, "AAAA".repeat(400_000));
    let reply = web::post(&side.address, "/v3/kv/put", &large);
    side.write("a put of 1.2 MB".into(), laid_out(&reply.body), &[]);
    let reply = web::post(&side.address, "/v3/kv/range", r#"{"key":"Zm9v"}"#);
    side.write("a get of 1.2 MB".into(), format!("{} {}", reply.status, reply.json()), &[]);
}

fn streams(side: &mut Side) {
    let watch = r#"{"create_request":{"key":"dw==","prev_kv":true,"watch_id":"5"}}
                   {"createRequest":{"key":"dw==","filters":["NOPUT"]}}{"progress_request":{}}"#;
    let mut lines = web::open(&side.address, "POST", "/v3/watch", &[], watch);
    side.write("watch".into(), lines.head.shown(), &[]);
    let shown = |lines: Vec<String>| lines.iter().map(|line| laid_out(line)).collect::<Vec<_>>().join("\n");
    // Go's answers to progress requests take another way than the rest.
    let mut created: Vec<_> = lines.lines(3).iter().map(|line| laid_out(line)).collect();
    created.sort();
    side.write("created".into(), created.join("\n"), &[]);
    ask(side, "/v3/kv/put", r#"{"key":"dw==","value":"PD4m"}"#);
    side.write("put".into(), shown(lines.lines(1)), &[]);
    ask(side, "/v3/kv/deleterange", r#"{"key":"dw=="}"#);
    let mut both = lines.lines(2);
    both.sort();
    side.write("deleted".into(), shown(both), &[]);
    lines.hang_up();
    let mut raw =
        web::open(&side.address, "POST", "/v3/watch", &[], r#"{"create_request":{"key":"AA==","start_revision":"1"}}"#);
    side.write("compacted".into(), shown(raw.lines(2)), &[]);
    raw.hang_up();
}

/// Users, tokens and what is refused without.
pub async fn authentication(side: &mut Side) {
    for (path, body) in [
        ("/v3/auth/status", "{}"),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/role/add", r#"{"name":"reader"}"#),
        ("/v3/auth/role/add", r#"{"name":"reader"}"#),
        ("/v3/auth/role/grant", r#"{"name":"reader","perm":{"permType":"READ","key":"Zm9v","range_end":"Zm9w"}}"#),
        ("/v3/auth/role/grant", r#"{"name":"reader","perm":{"permType":2,"key":"eA=="}}"#),
        ("/v3/auth/role/get", r#"{"role":"reader"}"#),
        ("/v3/auth/role/revoke", r#"{"role":"reader","key":"eA=="}"#),
        ("/v3/auth/role/get", r#"{"role":"nobody"}"#),
        ("/v3/auth/role/list", "{}"),
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/user/add", r#"{"name":"alice","password":"pw"}"#),
        ("/v3/auth/user/add", r#"{"name":"cert","options":{"no_password":true}}"#),
        ("/v3/auth/user/add", r#"{"name":""}"#),
        ("/v3/auth/user/changepw", r#"{"name":"alice","password":"alice"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"alice","role":"reader"}"#),
        ("/v3/auth/user/grant", r#"{"user":"cert","role":"reader"}"#),
        ("/v3/auth/user/revoke", r#"{"name":"cert","role":"reader"}"#),
        ("/v3/auth/user/get", r#"{"name":"alice"}"#),
        ("/v3/auth/user/list", "{}"),
        ("/v3/auth/user/delete", r#"{"name":"cert"}"#),
        ("/v3/auth/role/add", r#"{"name":"gone"}"#),
        ("/v3/auth/role/delete", r#"{"role":"gone"}"#),
        ("/v3/auth/enable", "{}"),
        ("/v3/auth/authenticate", r#"{"name":"alice","password":"wrong"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
        ("/v3/watch", r#"{"create_request":{"key":"Zm9v"}}"#),
    ]
    .into_iter()
    .filter(|(path, _)| *path != "/v3/watch")
    {
        ask(side, path, body);
    }
    let login = |side: &Side, name: &str, password: &str| {
        let body = format!(r#"{{"name":"{name}","password":"{password}"}}"#);
        let reply = web::post(&side.address, "/v3/auth/authenticate", &body);
        reply.json()["token"].as_str().expect("a token").to_owned()
    };
    let alice = login(side, "alice", "alice");
    let root = login(side, "root", "secret");
    let bearer = format!("Bearer {alice}");
    for token in [alice.as_str(), &bearer, "nonsense", ""] {
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("Authorization", token)] };
        ask_with(side, "POST", "/v3/kv/range", headers, r#"{"key":"Zm9v"}"#);
        ask_with(side, "POST", "/v3/kv/put", headers, r#"{"key":"Zm9v"}"#);
        ask_with(side, "POST", "/v3/auth/user/list", headers, "{}");
    }
    let metadata = [("Grpc-Metadata-Token", alice.as_str())];
    let reply = web::send(&side.address, "POST", "/v3/kv/range", &metadata, r#"{"key":"Zm9v"}"#);
    side.write("a token as metadata".into(), reply.status.to_string(), &[]);
    ask_with(side, "POST", "/v3/auth/disable", &[("Authorization", &root)], "{}");
}
