//! docs/operations/mistakes.md shows terminals: each line is run here, in the situation of its chapter, and prints what stands
//! there, but for addresses, dates, ids, sizes and durations. `OXETCD_REWRITE=1` writes what is printed into the paper.

mod tools;

use oxetcd_tests::certs::{Authority, Wish};
use oxetcd_tests::cluster::Seats;
use oxetcd_tests::net;
use oxetcd_tests::places::{our_etcd, read_source, source};
use oxetcd_tests::process::{Launch, Server, free_ports};
use oxetcd_tests::temp::TempDir;
use tools::{ask, our_etcdctl, plain, until, words};

const PAPER: &str = "docs/operations/mistakes.md";
/// The addresses that the paper has, in order.
const SHOWN: [&str; 3] = ["127.0.0.1:2379", "127.0.0.1:22379", "127.0.0.1:32379"];
/// How often a line is run that printed something else: the machine may have stood still meanwhile.
const ATTEMPTS: usize = 20;

/// What a chapter needs, and what its stage directions do.
struct Stage {
    folder: TempDir,
    servers: Vec<Server>,
    seats: Option<Seats>,
    /// `host:port` for each of [`SHOWN`].
    addresses: Vec<String>,
    ca: Authority,
}

impl Stage {
    fn empty() -> Stage {
        let folder = TempDir::for_cluster("transcripts");
        let ca = Authority::new(folder.path(), "ca");
        // What the system trusts, in these tests.
        Authority::new(folder.path(), "system");
        Stage { folder, servers: Vec::new(), seats: None, addresses: Vec::new(), ca }
    }

    fn set(chapter: &str) -> Stage {
        let mut stage = Stage::empty();
        match chapter {
            "Wrong scheme" => {
                stage.serve(None, &[]);
                stage.serve(Some(&["127.0.0.1"]), &[]);
            }
            "No CA" => stage.serve(Some(&["127.0.0.1"]), &[]),
            "Expired certificate" => {
                stage.serve(Some(&["127.0.0.1"]), &[]);
                stage.ca.issue(&Wish { days: Some((-93, -3)), ..Wish::both("server0", "etcd", &["127.0.0.1"]) });
            }
            "Wrong name" => stage.serve(Some(&["localhost"]), &[]),
            "Dead endpoint" => {
                stage.serve(None, &[]);
                stage.addresses.push(format!("127.0.0.1:{}", free_ports().0));
            }
            "Lost quorum" => stage.lose_quorum(),
            "Over quota" => {
                stage.serve(None, &["--quota-backend-bytes=500000"]);
                stage.fill();
            }
            other => panic!("the chapter {other} has no stage"),
        }
        stage
    }

    /// One more server; with these names in its certificate, TLS.
    fn serve(&mut self, names: Option<&[&str]>, flags: &[&str]) {
        let n = self.servers.len();
        let mut launch = Launch::new(&our_etcd(), &self.folder.join(&format!("data{n}"))).with_flags(flags);
        if let Some(names) = names {
            let pair = self.ca.issue(&Wish::both(&format!("server{n}"), "etcd", names)).flags("cert-file", "key-file");
            launch = launch.with_tls(true, false).with_flags(&[pair[0].as_str(), pair[1].as_str()]);
        }
        let server = launch.start();
        self.addresses.push(server.client_address());
        self.servers.push(server);
    }

    fn lose_quorum(&mut self) {
        let folder = self.folder.join("cluster");
        std::fs::create_dir(&folder).expect("the test's own folder");
        let mut seats = Seats::found(&[our_etcd(), our_etcd(), our_etcd()], &folder, &[]);
        self.addresses = (0..3).map(|n| seats.server(n).client_address()).collect();
        seats.kill(1);
        seats.kill(2);
        self.seats = Some(seats);
    }

    fn fill(&self) {
        let value = vec![b'v'; 50_000];
        until("a full database", || {
            let line = words(&format!("--endpoints={} --command-timeout=30s put filler", self.addresses[0]));
            let said = ask(&our_etcdctl(), self.folder.path(), &[], &line, &value);
            assert!(said.code == Some(0) || said.err.contains("database space exceeded"), "{said:?}");
            (said.code != Some(0)).then_some(())
        });
    }

    /// What a line that begins with `#` says.
    fn act(&mut self, direction: &str) {
        match direction {
            "# cp new/server.crt new/server.key /etc/etcd/" => {
                self.ca.issue(&Wish::both("server0", "etcd", &["127.0.0.1"]));
            }
            "# systemctl start etcd        (on the machine of one of the others)" => {
                self.seats.as_mut().expect("members").start(1);
            }
            other => panic!("nobody knows how to: {other}"),
        }
    }

    /// Runs a line of the paper; what both outputs hold, with the paper's addresses.
    fn run(&self, line: &str) -> String {
        let mut typed =
            line.strip_prefix("$ etcdctl ").unwrap_or_else(|| panic!("no line of etcdctl: {line}")).to_owned();
        for (address, shown) in self.hosts() {
            typed = typed.replace(&shown, &address);
        }
        let trusted = [("SSL_CERT_FILE", "system.crt")];
        let said = ask(&our_etcdctl(), self.folder.path(), &trusted, &words(&typed), b"");
        let mut out = said.out + &said.err;
        for (address, shown) in self.hosts() {
            out = out.replace(&address, &shown);
        }
        out
    }

    /// What differs between this run and the paper: the addresses, by number and by name.
    fn hosts(&self) -> Vec<(String, String)> {
        let both = |(address, shown): (&String, &str)| {
            let named = |address: &str| address.replace("127.0.0.1", "localhost");
            [(address.clone(), shown.to_owned()), (named(address), named(shown))]
        };
        self.addresses.iter().zip(SHOWN).flat_map(both).collect()
    }
}

/// Without what differs from run to run.
fn settled(text: &str) -> String {
    let mut out = String::new();
    for line in plain_but_hints(text).lines() {
        let words: Vec<String> = line.split(' ').map(settled_word).collect();
        out += &(words.join(" ") + "\n");
    }
    out
}

/// [`plain`] takes hints out; here they are what it is about.
fn plain_but_hints(text: &str) -> String {
    plain(&text.replace("hint: ", "hint> "), &[])
}

/// Dates, sizes, numbers.
fn settled_word(word: &str) -> String {
    let is_date = word.len() > 10 && word.starts_with("20") && word.contains('T') && word.contains('-');
    let bare = word.trim_end_matches([';', ',', '.', ')']);
    match () {
        () if is_date => "DATE".to_owned(),
        () if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit()) => word.replace(bare, "N"),
        () => word.to_owned(),
    }
}

/// The lines of a terminal: typed ones (`$`), directions (`#`), and what was printed behind each.
fn exchanges(block: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match all.last_mut() {
            _ if line.starts_with("$ ") || line.starts_with("# ") => all.push((line.to_owned(), String::new())),
            Some((_, printed)) => *printed += &format!("{line}\n"),
            None => panic!("output before the first line: {line}"),
        }
    }
    all
}

/// Plays a chapter's terminal; answers it as it is now.
fn play(stage: &mut Stage, block: &str) -> String {
    let mut now = String::new();
    for (line, shown) in exchanges(block) {
        let typed = revised(&line, &now);
        now += &format!("{line}\n");
        if line.starts_with('#') {
            stage.act(&line);
            continue;
        }
        let mut printed = stage.run(&typed);
        for _ in 0..attempts(&line) {
            if settled(&printed) == settled(&shown) {
                break;
            }
            printed = stage.run(&typed);
        }
        let is_same = settled(&printed) == settled(&shown);
        if !is_same && std::env::var_os("OXETCD_REWRITE").is_none() {
            assert_eq!(settled(&shown), settled(&printed), "{line}");
        }
        now += if is_same { &shown } else { &printed };
    }
    now
}

/// How often a line may be run again: what it did is done, and is not what the paper is written from.
fn attempts(line: &str) -> usize {
    let once = line.contains(" compaction ") || std::env::var_os("OXETCD_REWRITE").is_some();
    if once { 0 } else { ATTEMPTS }
}

/// The line, with the revision that this run's hint told to compact at.
fn revised(line: &str, printed: &str) -> String {
    const WORD: &str = " compaction ";
    let told = printed.rsplit_once(WORD).and_then(|(_, rest)| rest.split(' ').next());
    match (line.split_once(WORD), told) {
        (Some((head, _)), Some(revision)) => format!("{head}{WORD}{revision}"),
        _ => line.to_owned(),
    }
}

#[test]
fn the_papers_terminals_show_what_is_printed() {
    net::run(None, async {
        let paper = read_source(PAPER);
        let mut now = paper.clone();
        let chapters: Vec<&str> = paper.split("\n## ").skip(1).collect();
        assert_eq!(chapters.len(), 7, "the seven mistakes");
        std::thread::scope(|scope| {
            let plays: Vec<_> = chapters.iter().map(|chapter| scope.spawn(|| play_chapter(chapter))).collect();
            for play in plays {
                let (block, played) = play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                now = now.replace(&block, &played);
            }
        });
        if std::env::var_os("OXETCD_REWRITE").is_some() {
            std::fs::write(source(PAPER), now).expect("the paper can be written");
        }
    });
}

fn play_chapter(chapter: &str) -> (String, String) {
    let name = chapter.lines().next().unwrap_or_default();
    let block = chapter.split_once("```console\n").and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.unwrap_or_else(|| panic!("{name} has no terminal"));
    let mut stage = Stage::set(name);
    (block.to_owned(), play(&mut stage, block))
}
