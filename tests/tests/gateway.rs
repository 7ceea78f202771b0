//! HTTP/JSON beside Go etcd 3.7: every path, errors, streams and websockets. Needs `OXETCD_REFERENCE`.

use oxetcd_tests::conversations;
use oxetcd_tests::script::gateway;

conversations! {
    flags: &["--bcrypt-cost=4"];
    every_path_of_the_gateway => gateway::talk,
    users_and_tokens_over_http => gateway::authentication,
}

use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::web;
use std::io::{Read as _, Write as _};

/// A masked text of a client (RFC 6455 section 5.2), shorter than 126 bytes; a mask of zeros changes nothing.
fn text_frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|n| *n < 126).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// One text of a server.
fn read_text(stream: &mut impl std::io::Read) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[0], 0x81, "a whole text");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            usize::from(u16::from_be_bytes(length))
        }
        length => usize::from(length),
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text).expect("a whole frame");
    String::from_utf8(text).expect("text")
}

/// Asks for a websocket.
fn upgraded(address: &str, path: &str) -> web::Coming {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "Bearer, nobody"),
    ];
    web::open(address, "GET", path, &headers, "")
}

/// The same by Go's and by our server.
fn websocket(binary: &std::path::Path, label: &str) -> Vec<String> {
    let folder = TempDir::new(label);
    let server = Launch::new(binary, &folder.join("data")).start();
    let address = server.client_address();
    let mut seen = Vec::new();
    let upgrade = |path: &str| {
        let coming = upgraded(&address, path);
        let accept = coming.head.headers.get("sec-websocket-accept").cloned();
        let shown =
            format!("{} {accept:?} {:?}", coming.head.status, coming.head.headers.get("sec-websocket-protocol"));
        (shown, coming.into_parts().1)
    };
    let (head, mut watch) = upgrade("/v3/watch");
    seen.push(head);
    watch.get_mut().write_all(&text_frame(r#"{"create_request":{"key":"Zm9v"}}"#)).expect("the server reads");
    seen.push(read_text(&mut watch));
    web::post(&address, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    seen.push(read_text(&mut watch));
    let (head, mut nothing) = upgrade("/v3/nothing");
    seen.push(head);
    nothing.get_mut().write_all(&text_frame("{}")).expect("the server reads");
    seen.push(read_text(&mut nothing));
    let spaces = |text: String| text.replace(": ", ":").replace(", ", ",");
    // Ids and terms are numbers that differ.
    seen.into_iter().map(spaces).map(|text| text.replace(|c: char| c.is_ascii_digit(), "")).collect()
}

#[test]
fn websockets_carry_the_same_calls() {
    let Some(reference) = oxetcd_tests::places::Reference::find() else { return };
    let theirs = websocket(&reference.program("3.7", "etcd"), "websocket-go");
    assert_eq!(websocket(&our_etcd(), "websocket-ours"), theirs);
}

/// Go's server reads on until the client hangs up, and answers nobody then (docs/COMPAT.md).
#[test]
fn calls_with_one_answer_are_answered_over_websockets() {
    let folder = TempDir::new("websocket-unary");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let mut put = upgraded(&server.client_address(), "/v3/kv/put").into_parts().1;
    // In two pieces: a text need not be a whole request.
    for text in [r#"{"key":"Zm9v","#, r#""value":"YmFy"}"#] {
        put.get_mut().write_all(&text_frame(text)).expect("the server reads");
    }
    let answer: serde_json::Value = serde_json::from_str(&read_text(&mut put)).expect("JSON");
    assert_eq!(answer["header"]["revision"], "2");
    assert_eq!(put.read_to_end(&mut Vec::new()).ok(), Some(0), "the answer's end is the connection's");
}

/// W2 of the walkthroughs, "any language over plain HTTP/JSON": a second process writes, reads and watches with nothing but
/// HTTP.
#[test]
fn any_language_works_over_plain_http() {
    let folder = TempDir::new("walkthrough-http");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let address = server.client_address();
    let has_curl = std::process::Command::new("curl").arg("--version").output().is_ok();
    if !has_curl {
        eprintln!("curl is not installed: its requests are made by hand");
    }
    let curl = |path: &str, body: &str| {
        if !has_curl {
            return web::post(&address, path, body).json();
        }
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-L", &format!("http://{address}{path}"), "-X", "POST", "-d", body]);
        let text = oxetcd_tests::process::stdout_of(&mut command);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let mut watch = web::open(&address, "POST", "/v3/watch", &[], r#"{"create_request":{"key":"bXlrZXk="}}"#);
    assert!(watch.lines(1)[0].contains(r#""created":true"#));
    curl("/v3/kv/put", r#"{"key": "bXlrZXk=", "value": "bXl2YWx1ZQ=="}"#);
    let event: serde_json::Value = serde_json::from_str(&watch.lines(1)[0]).expect("a line is JSON");
    assert_eq!(event["result"]["events"][0]["kv"]["value"], "bXl2YWx1ZQ==");
    let held = curl("/v3/kv/range", r#"{"key": "bXlrZXk="}"#);
    assert_eq!((&held["count"], &held["kvs"][0]["value"]), (&"1".into(), &"bXl2YWx1ZQ==".into()));
    assert_eq!(curl("/v3/kv/range", r#"{"key": "bXk=", "range_end": "bXo="}"#)["count"], "1");
    assert_eq!(curl("/v3/kv/deleterange", r#"{"key": "bXlrZXk="}"#)["deleted"], "1");
    let lease = curl("/v3/lease/grant", r#"{"TTL": 600}"#);
    assert_eq!(curl("/v3/lease/keepalive", &format!(r#"{{"ID": {}}}"#, lease["ID"]))["result"]["TTL"], "600");
}

/// What is too large is refused without being gathered.
#[test]
fn a_request_without_end_is_refused() {
    let folder = TempDir::new("gateway-endless");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&["--max-request-bytes=1000"]).start();
    let body = format!(r#"{{"key":"{}"}}"#, "A".repeat(2 << 20));
    let reply = web::post(&server.client_address(), "/v3/kv/put", &body);
    assert_eq!((reply.status, &reply.json()["code"]), (429, &8.into()), "{}", reply.body);
}
