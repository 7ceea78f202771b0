//! Handshakes in memory: certificates that no library of today makes, and files that change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tls::{Client, Live, Names, Pace, Server, Settings, Version};

fn testdata(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata").join(name).display().to_string()
}

fn pair(name: &str) -> Settings {
    Settings {
        cert: testdata(&format!("{name}.crt")),
        key: testdata(&format!("{name}.key")),
        trusted_ca: testdata("ca.crt"),
        ..Settings::default()
    }
}

/// Whom the server saw, or why it saw nobody.
async fn shake(server: &Arc<Live>, client: Settings) -> Result<Option<Names>, String> {
    let server = Server::new(server.clone(), &["h2"])?;
    let client = Client::new(Live::open(client)?, &["h2"])?;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let pace = Pace::default();
    let (taken, connected) = tokio::join!(server.handshake(ours, &pace), client.connect("localhost", theirs));
    let taken = taken.map_err(|rejected| rejected.error)?;
    connected?;
    Ok(tls::names_shown(&taken))
}

#[tokio::test]
async fn a_clients_certificate_may_be_of_version_1() {
    for version in [Version::Tls12, Version::Tls13] {
        let server = Live::open(Settings { max: Some(version), ..pair("server") }).expect("the files are there");
        let names = shake(&server, pair("one")).await.expect("it is let in").expect("it shows itself");
        assert_eq!(names.common_name, "one", "{version:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_version_1_that_somebody_else_signed_stays_out() {
    let folder = Folder::new();
    // An authority that has not signed it.
    std::fs::copy(testdata("server.crt"), folder.0.join("ca.crt")).expect("a folder of our own");
    let trusted_ca = folder.0.join("ca.crt").display().to_string();
    let server = Live::open(Settings { trusted_ca, ..pair("server") }).expect("the files are there");
    let refusal = shake(&server, pair("one")).await.expect_err("a stranger");
    assert_eq!(refusal, "tls: failed to verify certificate: x509: certificate signed by unknown authority");
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oxetcd-tls-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    fn put(&self, from: &str, name: &str) -> String {
        let new = self.0.join("new");
        std::fs::copy(testdata(from), &new).expect("a folder of our own");
        std::fs::rename(&new, self.0.join(name)).expect("a folder of our own");
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn files_count_as_a_set_or_not_at_all() {
    let folder = Folder::new();
    let settings = Settings {
        cert: folder.put("server.crt", "cert"),
        key: folder.put("server.key", "key"),
        trusted_ca: folder.put("ca.crt", "ca"),
        ..Settings::default()
    };
    let server = Live::open(settings).expect("the files are there");
    assert!(server.expiries().iter().all(|expiry| expiry.days > 10_000), "{:?}", server.expiries());
    assert_eq!(server.expiries().len(), 2);
    folder.put("one.key", "key");
    for _ in 0..3 {
        shake(&server, pair("one")).await.expect("the old files are in use");
    }
    assert_eq!((server.reloads(), server.failures()), (0, 1));
    assert!(server.stale().is_some_and(|why| why.starts_with("tls: private key does not match")));
    folder.put("one.crt", "cert");
    let refusal = shake(&server, pair("one")).await.expect_err("now its own certificate is of version 1");
    assert!(!refusal.is_empty());
    folder.put("server.key", "key");
    folder.put("server.crt", "cert");
    shake(&server, pair("one")).await.expect("all is well again");
    assert_eq!(server.stale(), None);
}
