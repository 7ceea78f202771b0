//! A cluster of one Go member and one that is played by our transport and our raft core: first the Go member leads, then
//! ours. Needs `OXETCD_REFERENCE` (see CONTRIBUTING.md).
//!
//! It stands here and not in the crate of black-box tests, which knows processes only.

mod go;
mod ours;

use api::raft::{EntryKind, MessageType as T};
use go::{Go, Reference};
use ours::Ours;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done`.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether an entry with these bytes was applied here.
fn applied(ours: &Ours, needle: &str) -> bool {
    let entries = ours.applied.lock();
    entries
        .iter()
        .any(|e| e.kind == EntryKind::Normal && e.data.windows(needle.len()).any(|window| window == needle.as_bytes()))
}

fn followed_then_led(version: &str) {
    let Some(reference) = Reference::find() else { return };
    let ours = Ours::bind();
    let go = Go::start(&reference, version, &ours.url());
    ours.start(&go.peer_url);
    until("the Go member serves", || go.log().contains("ready to serve client requests"));

    // It leads; we vote and acknowledge, over its streams and ours.
    go.ctl(&["put", "followed", "value-1"]);
    until("our copy of the put", || applied(&ours, "value-1"));
    assert_eq!(go.ctl(&["get", "followed", "--print-value-only"]), "value-1\n");
    let big = "v".repeat(100_000);
    go.ctl(&["put", "big", &big]);
    until("our copy of the big put", || applied(&ours, &big));
    until("messages by stream", || ours.streamed(T::MsgApp) && ours.streamed(T::MsgHeartbeat));
    assert!(ours.transport().active_since(go.id(&ours)).is_some());

    // We lead; its proposals and reads come to us.
    go.ctl(&["move-leader", &format!("{:x}", ours.id(&go.peer_url))]);
    until("our leadership", || ours.leads());
    for n in 0..50 {
        go.ctl(&["put", &format!("led-{n}"), &format!("value-led-{n}")]);
    }
    until("our copy of what we led", || applied(&ours, "value-led-49"));
    assert_eq!(go.ctl(&["get", "led-", "--prefix", "--print-value-only"]).lines().count(), 50);
    until("forwarded proposals and reads", || ours.streamed(T::MsgProp) && ours.streamed(T::MsgReadIndex));

    // It asks for our version and members too. Nothing that we sent or answered hurt it.
    let log = go.log();
    for bad in [r#""level":"panic""#, r#""level":"fatal""#, "permanently removed", "request sent was ignored"] {
        assert!(!log.contains(bad), "{bad} in the log of the Go member:\n{log}");
    }
    assert!(!ours.was_removed());
    println!(
        "Go {version}: {} entries applied here, {} bytes from it",
        ours.applied.lock().len(),
        ours.received_bytes()
    );
}

#[test]
fn go_3_7_accepts_our_votes_acknowledgements_and_leadership() {
    followed_then_led("3.7");
}

#[test]
fn go_3_6_accepts_our_votes_acknowledgements_and_leadership() {
    followed_then_led("3.6");
}
