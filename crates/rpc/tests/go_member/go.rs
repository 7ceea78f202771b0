//! The Go member: a process, its log, its command line.

use crate::ours::Ours;
use parking_lot::Mutex;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

pub const TOKEN: &str = "oxetcd-peer-test";

/// The reference programs.
pub struct Reference(PathBuf);

impl Reference {
    /// The folder named by `OXETCD_REFERENCE`. Without it prints that the test is skipped.
    pub fn find() -> Option<Reference> {
        let root = std::env::var_os("OXETCD_REFERENCE");
        if root.is_none() {
            println!("SKIPPED: OXETCD_REFERENCE is not set");
        }
        root.map(|root| Reference(root.into()))
    }

    fn program(&self, version: &str, name: &str) -> PathBuf {
        let path = self.0.join(version).join(name);
        assert!(path.is_file(), "OXETCD_REFERENCE has no {}", path.display());
        path
    }
}

pub struct Go {
    child: Child,
    folder: PathBuf,
    ctl: PathBuf,
    client_url: String,
    pub peer_url: String,
    log: Arc<Mutex<String>>,
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Go {
    /// Member `a` of a new cluster of two; `b` is at `other`.
    pub fn start(reference: &Reference, version: &str, other: &str) -> Go {
        let (client_url, peer_url) = (free_url(), free_url());
        let name = format!("oxetcd-peer-{}-{version}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut child = Command::new(reference.program(version, "etcd"))
            .arg("--name=a")
            .arg(format!("--data-dir={}", folder.join("data").display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=a={peer_url},b={other}"))
            .arg(format!("--initial-cluster-token={TOKEN}"))
            .args(["--initial-cluster-state=new", "--logger=zap"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| *kept.lock() += &(line + "\n")));
        Go { child, folder, ctl: reference.program(version, "etcdctl"), client_url, peer_url, log }
    }

    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    pub fn id(&self, ours: &Ours) -> u64 {
        ours.ids(&self.peer_url).0
    }

    /// Runs etcdctl; answers what it prints.
    pub fn ctl(&self, words: &[&str]) -> String {
        let output = Command::new(&self.ctl)
            .args(["--endpoints", &self.client_url, "--command-timeout=20s"])
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let short: Vec<String> = words.iter().map(|word| word.chars().take(40).collect()).collect();
        assert!(output.status.success(), "etcdctl {short:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
