//! What a call that found no connection says, at a listener that misbehaves.

use api::pb::etcdserverpb as pb;
use client::{Attempt, Client, Config, Method, Observer};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// The first connection is closed before a handshake, all later ones are taken and get no word: the deadline comes while
/// an attempt is under way, and what is told is why the one before failed.
#[tokio::test]
async fn a_deadline_amid_an_attempt_still_tells_why_the_one_before_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    let server = tokio::spawn(async move {
        drop(listener.accept().await.expect("a client comes"));
        let mut silent = Vec::new();
        loop {
            silent.push(listener.accept().await.expect("it comes again"));
        }
    });
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let observer: Observer = {
        let told = told.clone();
        Arc::new(move |attempt: &Attempt| told.lock().expect("no test panics here").push(attempt.error.clone()))
    };
    let config = Config {
        endpoints: vec![format!("https://127.0.0.1:{port}")],
        tls: Some(tls::Settings { skip_verify: true, ..tls::Settings::default() }),
        observer: Some(observer),
        ..Config::default()
    };
    let client = Client::connect(config).await.expect("nothing is asked yet").with_timeout(Duration::from_millis(600));
    let range = Method { path: "/etcdserverpb.KV/Range", repeatable: true };
    let answer: Result<pb::RangeResponse, _> = client.unary(range, pb::RangeRequest::default()).await;
    server.abort();
    answer.expect_err("nobody answered");
    let told = told.lock().expect("no test panics here").clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("transport: authentication handshake failed: "), "{told:?}");
}
