//! What one server answered, and how two such records differ.
//!
//! A conversation is held with each server separately and written down as (request, answer) texts. Everything
//! that may differ between two right servers is replaced before it is written: ids of the cluster, the member and
//! of leases the server chose, its addresses, raft terms and sizes. Revisions, hashes of keys, orders, error
//! codes and texts stay.

use std::fmt::{Debug, Display, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::ask;
use crate::process::{Launch, Proxy, Server};
use crate::temp::TempDir;
use crate::wire::{PATIENCE, Stream, Wire};
use api::pb::etcdserverpb as pb;

/// Fields whose numbers are not compared, only whether they are zero.
const VOLATILE: [&str; 5] = ["raft_term", "raft_index", "raft_applied_index", "db_size", "db_size_in_use"];
/// Longest answer printed when two differ.
const SHOWN: usize = 3000;

/// One question and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub request: String,
    pub answer: String,
}

/// One server's side of a conversation.
#[derive(Debug)]
pub struct Side {
    pub wire: Wire,
    /// `host:port` of the server, for conversations below gRPC.
    pub address: String,
    /// Text that stands for a thing with a name, longest first.
    names: Vec<(String, String)>,
    entries: Vec<Entry>,
}

impl Side {
    /// Connects and learns the names of the server's own ids.
    pub async fn open(server: &Server) -> Side {
        let wire = Wire::connect(&server.client_url()).await;
        let mut side = Side { wire, address: server.client_address(), names: Vec::new(), entries: Vec::new() };
        side.call_it(server.launch().client_url(), "CLIENT-URL");
        side.call_it(server.launch().peer_url(), "PEER-URL");
        side.call_it(server.client_address(), "CLIENT-ADDRESS");
        let status: Result<pb::StatusResponse, Status> =
            side.wire.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await;
        if let Some(header) = status.ok().and_then(|status| status.header) {
            side.name_id(header.member_id, "MEMBER");
            side.name_id(header.cluster_id, "CLUSTER");
        }
        side
    }

    /// Waits until the server has brought its files' version up to its own: Go's does so seconds after its start.
    ///
    /// # Panics
    /// If it never does.
    async fn until_versions_settle(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status: Result<pb::StatusResponse, Status> = self.wire.unary(ask::STATUS, &pb::StatusRequest {}).await;
            match status {
                Ok(status) if status.storage_version == "3.7.0" => return,
                other => assert!(Instant::now() < end, "its files stay what they were: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From now on the decimal and hexadecimal forms of `id` are written as `name`. Small ids stay.
    pub fn name_id(&mut self, id: u64, name: &str) {
        if id > 1 << 32 {
            self.call_it(id.to_string(), name);
            self.call_it(format!("{id:x}"), &format!("{name}-HEX"));
        }
    }

    /// [`Side::name_id`] for a lease.
    pub fn name_lease(&mut self, id: i64, name: &str) {
        self.name_id(id.cast_unsigned(), name);
    }

    /// From now on `text` is written as `name`.
    pub fn call_it(&mut self, text: String, name: &str) {
        self.names.push((text, name.to_owned()));
        self.names.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// Asks and records.
    pub async fn ask<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Debug,
        A: Message + Default + Debug,
    {
        self.ask_but(path, request, &[]).await
    }

    /// Asks and records; the numbers of the fields `but` are not compared.
    pub async fn ask_but<Q, A>(&mut self, path: &'static str, request: Q, but: &[&str]) -> Result<A, Status>
    where
        Q: Message + Debug,
        A: Message + Default + Debug,
    {
        let answer = self.wire.unary(path, &request).await;
        self.note(format_args!("{path} {request:?}"), &answer, but);
        answer
    }

    /// Asks for a server stream and records all of it.
    pub async fn ask_all<Q, A>(&mut self, path: &'static str, request: Q) -> Vec<A>
    where
        Q: Message + Debug,
        A: Message + Default + Debug,
    {
        let (messages, end) = self.wire.collect(path, &request).await;
        let shown = end.as_ref().map_err(brief);
        let answer = format!("{messages:#?}\nend: {shown:?}");
        self.write(format!("{path} {request:?}"), answer, &[]);
        messages
    }

    /// Opens a stream with a first message.
    pub fn open_stream<Q: Message + Debug>(&mut self, path: &'static str, first: &Q) -> Stream {
        self.wire.stream(path, Bytes::from(first.encode_to_vec()), &[])
    }

    /// Records an answer that came in another way.
    pub fn note<A: Debug>(&mut self, request: impl Display, answer: &Result<A, Status>, but: &[&str]) {
        let answer = match answer {
            Ok(answer) => format!("{answer:#?}"),
            Err(status) => brief(status),
        };
        self.write(request.to_string(), answer, but);
    }

    /// Records plain text.
    pub fn write(&mut self, request: String, answer: String, but: &[&str]) {
        let (request, answer) = (self.normal(request, but), self.normal(answer, but));
        self.entries.push(Entry { request, answer });
    }

    /// The record.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    fn normal(&self, mut text: String, but: &[&str]) -> String {
        for (from, to) in &self.names {
            text = text.replace(from, to);
        }
        // Go's text form of messages puts one or two spaces at random, on purpose.
        text = text.replace("  alarm:", " alarm:");
        for field in VOLATILE.iter().chain(but) {
            text = without_number(&text, field);
        }
        text
    }
}

/// An error as the record shows it: code and text.
pub fn brief(status: &Status) -> String {
    format!("error {:?} ({}) {:?}", status.code(), status.code() as i32, status.message())
}

/// Replaces the number after `field: ` with `N`, unless it is 0.
fn without_number(text: &str, field: &str) -> String {
    let mark = format!(" {field}: ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&mark) {
        let (before, after) = rest.split_at(at + mark.len());
        out.push_str(before);
        let len = after.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'-').count();
        let (number, after) = after.split_at(len);
        out.push_str(if number.is_empty() || number == "0" { number } else { "N" });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// All places where two records differ, as text for people; empty where they are equal.
pub fn differences(theirs: &[Entry], ours: &[Entry]) -> String {
    let mut out = String::new();
    let mut found = 0;
    for (number, (go, own)) in theirs.iter().zip(ours).enumerate() {
        if go.request != own.request {
            let _ =
                writeln!(out, "#{number}: the conversations part: Go was asked {}\nours {}", go.request, own.request);
            found += 1;
            break;
        }
        if go.answer != own.answer {
            found += 1;
            let (go_shown, own_shown) = (cut(&go.answer), cut(&own.answer));
            let _ = writeln!(out, "#{number} {}\n--- Go\n{go_shown}\n--- ours\n{own_shown}\n", go.request);
        }
    }
    if found == 0 && theirs.len() != ours.len() {
        found += 1;
        let _ = writeln!(out, "Go gave {} answers, ours {}", theirs.len(), ours.len());
    }
    if found > 0 {
        let _ = writeln!(out, "{found} of {} answers differ", theirs.len());
    }
    out
}

fn cut(text: &str) -> &str {
    let end = (0..=SHOWN.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// Holds one conversation with one program on an empty folder, once that says its final versions.
pub async fn hold<F>(binary: &Path, label: &str, flags: &[&str], talk: F) -> Vec<Entry>
where
    F: AsyncFnOnce(&mut Side),
{
    let folder = TempDir::new(label);
    let server = Launch::new(binary, &folder.join("data")).with_flags(flags).start();
    let mut side = Side::open(&server).await;
    side.until_versions_settle().await;
    talk(&mut side).await;
    side.into_entries()
}

/// [`hold`] with a member of `binary` through `proxy`'s proxy, started with these flags: the names of things are still the
/// member's own.
pub async fn hold_through_proxy<F>(binary: &Path, proxy: &Path, label: &str, flags: &[&str], talk: F) -> Vec<Entry>
where
    F: AsyncFnOnce(&mut Side),
{
    let folder = TempDir::new(label);
    let server = Launch::new(binary, &folder.join("data")).start();
    let mut side = Side::open(&server).await;
    side.until_versions_settle().await;
    let endpoints = format!("--endpoints={}", server.client_address());
    // Without an address of its own the proxy shows the members as they are.
    let own = [endpoints.as_str(), "--advertise-client-url="];
    let flags: Vec<&str> = own.into_iter().chain(flags.iter().copied()).collect();
    let proxy = Proxy::start(proxy, "grpc-proxy", &flags, "started gRPC proxy");
    side.wire = Wire::connect(&proxy.url()).await;
    side.address = proxy.address().to_owned();
    talk(&mut side).await;
    side.into_entries()
}

/// Tests that hold a conversation with Go etcd 3.7 and with ours, each started with the flags, and want equal answers.
#[macro_export]
macro_rules! conversations {
    (flags: $flags:expr; $($name:ident => $talk:path,)*) => {$(
        #[tokio::test]
        async fn $name() {
            let Some(reference) = $crate::places::Reference::find() else { return };
            let (label, flags) = (stringify!($name), $flags);
            let talk = async |side: &mut $crate::record::Side| $talk(side).await;
            let theirs = $crate::record::hold(&reference.program("3.7", "etcd"), label, flags, talk).await;
            let ours = $crate::record::hold(&$crate::places::our_etcd(), label, flags, talk).await;
            let text = $crate::record::differences(&theirs, &ours);
            assert!(text.is_empty(), "{text}");
            println!("{label}: {} equal answers", ours.len());
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(request: &str, answer: &str) -> Entry {
        Entry { request: request.to_owned(), answer: answer.to_owned() }
    }

    #[test]
    fn only_the_number_after_the_field_is_hidden() {
        assert_eq!(without_number("{ raft_term: 12, revision: 3 }", "raft_term"), "{ raft_term: N, revision: 3 }");
        assert_eq!(without_number("{ raft_term: 0 }", "raft_term"), "{ raft_term: 0 }");
    }

    #[test]
    fn equal_records_have_no_differences() {
        assert_eq!(differences(&[entry("a", "1")], &[entry("a", "1")]), "");
    }

    #[test]
    fn each_difference_shows_request_and_both_answers() {
        let text = differences(&[entry("ask", "one"), entry("b", "x")], &[entry("ask", "two"), entry("b", "x")]);
        assert!(text.contains("ask") && text.contains("one") && text.contains("two"), "{text}");
        assert!(text.contains("1 of 2 answers differ"), "{text}");
    }

    #[test]
    fn a_missing_answer_is_a_difference() {
        assert!(differences(&[entry("a", "1")], &[]).contains("Go gave 1 answers, ours 0"));
    }
}
