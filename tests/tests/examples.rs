//! examples/: every program in every language, as people run them; what one language holds, the others see. A language whose tools
//! are missing is named, and the others go on.

use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::Seats;
use oxetcd_tests::forwarder::Forwarder;
use oxetcd_tests::places::{built_examples, our_etcd, source};
use oxetcd_tests::process::{Launch, text};
use oxetcd_tests::program::Program;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A language, and how its programs are run.
#[derive(Clone, Debug)]
struct Language {
    name: &'static str,
    /// What runs them, in front of their path.
    interpreter: Option<&'static str>,
    folder: PathBuf,
    suffix: &'static str,
}

impl Language {
    fn start(&self, program: &str, arguments: &[&str]) -> Program {
        let path = self.folder.join(format!("{program}{}", self.suffix));
        let mut command = match self.interpreter {
            Some(interpreter) => Command::new(interpreter),
            None => Command::new(&path),
        };
        command.args(self.interpreter.map(|_| &path)).args(arguments);
        // Nothing is written into the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Program::start(&format!("{} {program}", self.name), command)
    }
}

/// The languages that this machine can run.
fn languages() -> &'static [Language] {
    static FOUND: OnceLock<Vec<Language>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let scripts = |name, interpreter, suffix| {
            let folder = source("examples").join(name);
            Language { name, interpreter: Some(interpreter), folder, suffix }
        };
        let compiled = |name, folder| Language { name, interpreter: None, folder, suffix: "" };
        let mut found = vec![compiled("rust", built_examples())];
        found.extend(has_curl().then(|| scripts("curl", "bash", "")));
        found.extend(
            has("python", "python3", &["-c", "import sys; sys.exit(sys.version_info < (3, 9))"])
                .then(|| scripts("python", "python3", ".py")),
        );
        found.extend(go_programs().map(|folder| compiled("go", folder)));
        found
    })
}

/// Whether a tool does this. Says so if not.
fn has(language: &str, tool: &str, arguments: &[&str]) -> bool {
    let there_is = Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success());
    if !there_is {
        println!("SKIPPED: the examples in {language}: no {tool} here that does {arguments:?}");
    }
    there_is
}

fn has_curl() -> bool {
    let tools = [("bash", "--version"), ("curl", "--version"), ("flock", "--version"), ("base64", "--version")];
    // --fail-with-body is of curl 7.76.
    tools.iter().all(|(tool, flag)| has("curl", tool, &[flag]))
        && has("curl", "curl", &["--fail-with-body", "--version"])
}

/// Builds those in Go, from modules that are here; else from its proxy. Without modules the language is left out; what does not
/// compile is an error.
fn go_programs() -> Option<PathBuf> {
    if !has("go", "go", &["version"]) {
        return None;
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-go");
    let go = |proxy: Option<&str>, arguments: &[&str]| -> Output {
        let mut command = Command::new("go");
        command.current_dir(source("examples/go")).args(arguments);
        command.envs([("GOTOOLCHAIN", "local"), ("GOWORK", "off"), ("GOFLAGS", "-mod=readonly")]);
        command.envs(proxy.map(|proxy| ("GOPROXY", proxy)));
        command.output().expect("go was there a moment ago")
    };
    let target = format!("{}/", out.display());
    let build = ["build", "-o", target.as_str(), "./..."];
    if go(Some("off"), &build).status.success() {
        return Some(out);
    }
    let modules = go(None, &["mod", "download"]);
    if !modules.status.success() {
        println!("SKIPPED: the examples in go: its modules are not to be had: {}", text(&modules.stderr));
        return None;
    }
    let built = go(Some("off"), &build);
    assert!(built.status.success(), "examples/go does not build: {}", text(&built.stderr));
    Some(out)
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn put(wire: &Wire, key: &str, value: &str) -> i64 {
    let done: pb::PutResponse = wire.unary(ask::PUT, &ask::put(key, value)).await.expect("a put");
    done.header.expect("answers have headers").revision
}

async fn delete(wire: &Wire, key: &str) {
    let _: pb::DeleteRangeResponse = wire.unary(ask::DELETE, &ask::delete(key, "")).await.expect("a deletion");
}

/// The keys below a prefix.
async fn below(wire: &Wire, prefix: &str) -> Vec<KeyValue> {
    let request = ask::range(prefix, &ask::prefix_end(prefix));
    let response: pb::RangeResponse = wire.unary(ask::RANGE, &request).await.expect("a read");
    response.kvs
}

async fn revoke(wire: &Wire, id: i64) {
    let done: Result<pb::LeaseRevokeResponse, _> = wire.unary(ask::REVOKE, &pb::LeaseRevokeRequest { id }).await;
    // Asked twice where the first answer was lost; and on a machine that stood still it may have run out by itself.
    assert!(done.as_ref().err().is_none_or(|e| e.message() == "etcdserver: requested lease not found"), "{done:?}");
}

/// Three members, and the endpoints in an order that begins with another member for each.
struct Members {
    seats: Seats,
    _folder: TempDir,
}

impl Members {
    fn found(label: &str) -> Members {
        let folder = TempDir::for_cluster(label);
        Members { seats: Seats::found(&vec![our_etcd(); 3], folder.path(), &[]), _folder: folder }
    }

    fn endpoints(&self, first: usize) -> String {
        let mut urls = self.seats.urls();
        let count = urls.len();
        urls.rotate_left(first % count);
        urls.join(",")
    }
}

/// What is there, then every change, also over cuts and compactions: each line once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_watch_misses_nothing() {
    let folder = TempDir::new("examples-config");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let way = Forwarder::start(&server.client_address());
    let wire = Wire::connect(&server.client_url()).await;
    for (key, value) in [("app/color", "red"), ("app/gone", "soon"), ("apple", "no"), ("ap", "no")] {
        put(&wire, key, value).await;
    }
    let start = |language: &Language| language.start("config_watch", &[&way.url(), "app/"]);
    let programs: Vec<Program> = languages().iter().map(start).collect();
    let all_say = |line: &str| programs.iter().for_each(|program| program.says(line));
    programs.iter().for_each(|program| drop(program.rest_of("read at revision ")));
    put(&wire, "app/size", "two words & <more>").await;
    delete(&wire, "app/size").await;
    all_say("deleted app/size");
    // Changes while nobody is connected are told later, one by one.
    way.cut();
    put(&wire, "app/color", "1").await;
    put(&wire, "app/color", "2").await;
    way.open();
    all_say("set app/color 2");
    // Those that were compacted meanwhile show in what is there.
    way.cut();
    put(&wire, "app/color", "3").await;
    delete(&wire, "app/gone").await;
    put(&wire, "app/new", "").await;
    let last = put(&wire, "app/color", "4").await;
    let _: pb::CompactionResponse = wire.unary(ask::COMPACT, &ask::compact(last)).await.expect("a compaction");
    way.open();
    all_say(&format!("read at revision {last}"));
    put(&wire, "app/color", "5").await;
    all_say("set app/color 5");
    for program in &programs {
        let mut lines = program.lines();
        lines.retain(|line| !line.starts_with("read at revision "));
        // What is read at once has no order.
        assert!(lines.len() == 10, "{}", program.all());
        lines[..2].sort();
        lines[6..9].sort();
        let expected = [
            "set app/color red",
            "set app/gone soon",
            "set app/size two words & <more>",
            "deleted app/size",
            "set app/color 1",
            "set app/color 2",
            "deleted app/gone",
            "set app/color 4",
            "set app/new ",
            "set app/color 5",
        ];
        assert_eq!(lines, expected, "{}", program.name());
    }
}

/// One after the other, in the order in which they came, whatever language they are written in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_in_one_language_excludes_the_others() {
    let members = Members::found("examples-lock");
    let wire = Wire::steady(&members.seats.url(0));
    let store = members._folder.join("store");
    let mut waiting = Vec::new();
    for (n, language) in (0..).zip(languages()) {
        let endpoints = members.endpoints(n);
        waiting.push(language.start("lock", &[&endpoints, "jobs", &store.to_string_lossy(), language.name]));
        until("a place in the queue", async || below(&wire, "jobs/").await.len() == n + 1).await;
    }
    let mut last = 0;
    for (n, language) in (0..).zip(languages()) {
        let mut holder = waiting.remove(0);
        let token: i64 = holder.rest_of("locked jobs, token ").parse().expect("a number");
        assert!(token > last, "{token} after {last}: {}", holder.all());
        assert_eq!(below(&wire, "jobs/").await.len(), languages().len() - n);
        for other in &waiting {
            assert_eq!(other.lines(), [""; 0], "{} before {}", other.name(), holder.name());
        }
        holder.enter();
        holder.says(&format!("wrote {}", language.name));
        holder.says("unlocked");
        assert!(holder.ends().success());
        let content = std::fs::read_to_string(&store).expect("the store");
        assert_eq!(content, format!("{token}\n{}\n", language.name));
        last = token;
    }
}

/// A holder that lost the lock without noticing is refused by the store, whoever wrote there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_refuses_the_token_of_a_holder_that_stood_still() {
    let folder = TempDir::new("examples-fence");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let all = languages();
    for (n, language) in (0..).zip(all) {
        let (name, store) = (format!("fence{n}"), folder.join(&format!("store{n}")));
        let start =
            |language: &Language| language.start("lock", &[&server.client_url(), &name, &store.to_string_lossy(), "x"]);
        let mut stale = start(language);
        let old = stale.rest_of(&format!("locked {name}, token "));
        revoke(&wire, below(&wire, &format!("{name}/")).await[0].lease).await;
        let mut next = start(&all[(n + 1) % all.len()]);
        let new = next.rest_of(&format!("locked {name}, token "));
        next.enter();
        next.says("wrote x");
        assert!(next.ends().success());
        stale.enter();
        stale.says(&format!("refused: token {old} is older than {new}"));
        assert_eq!(stale.ends().code(), Some(1));
        assert_eq!(std::fs::read_to_string(&store).expect("the store"), format!("{new}\nx\n"));
    }
}

/// Candidates of all languages lead one after the other, and observers of all languages see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_candidate_leads_and_all_see_it() {
    let members = Members::found("examples-election");
    let wire = Wire::steady(&members.seats.url(0));
    let mut candidates = Vec::new();
    let observers: Vec<Program> =
        languages().iter().map(|language| language.start("election", &[&members.endpoints(0), "chief"])).collect();
    for (n, language) in (0..).zip(languages()) {
        candidates.push(language.start("election", &[&members.endpoints(n), "chief", language.name]));
        until("a candidate more", async || below(&wire, "chief/").await.len() == n + 1).await;
    }
    for language in languages() {
        let mut leader = candidates.remove(0);
        leader.says(&format!("elected {}", language.name));
        observers.iter().for_each(|observer| observer.says(&format!("leader {}", language.name)));
        for other in &candidates {
            assert_eq!(other.lines(), [""; 0], "{} beside {}", other.name(), leader.name());
        }
        leader.enter();
        leader.says("resigned");
        assert!(leader.ends().success());
    }
    let names: Vec<String> = languages().iter().map(|language| format!("leader {}", language.name)).collect();
    observers.iter().for_each(|observer| assert_eq!(observer.lines(), names, "{}", observer.all()));
}

/// A leader whose lease ended stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_session_ends() {
    let folder = TempDir::new("examples-lost");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let name = |language: &Language| format!("lost-{}", language.name);
    let start = |language: &Language| language.start("election", &[&server.client_url(), &name(language), "me"]);
    let leaders: Vec<Program> = languages().iter().map(start).collect();
    for (leader, language) in leaders.iter().zip(languages()) {
        leader.says("elected me");
        revoke(&wire, below(&wire, &format!("{}/", name(language))).await[0].lease).await;
    }
    for leader in leaders {
        leader.says("lost");
        let shown = leader.all();
        assert!(!leader.ends().success(), "{shown}");
    }
}

/// Instances of all languages are found by all languages; over the death of a member, and over the loss of their leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_one_for_all_languages() {
    let mut members = Members::found("examples-registry");
    // All begin with the member that is going to die.
    let endpoints = members.endpoints(0);
    let start = |language: &Language, instance: &[&str]| {
        language.start("registry", &[&[endpoints.as_str(), "shop"][..], instance].concat())
    };
    let watchers: Vec<Program> = languages().iter().map(|language| start(language, &[])).collect();
    let address = |name: &str| format!("{name}.example:80");
    let instance = |language: &Language| start(language, &[language.name, &address(language.name)]);
    let mut instances: Vec<Program> = languages().iter().map(instance).collect();
    let all_say = |line: &str, times| watchers.iter().for_each(|watcher| watcher.says_times(line, times));
    let added = |name: &str| format!("+ {name} {}", address(name));
    languages().iter().for_each(|language| all_say(&added(language.name), 1));
    members.seats.kill(0);
    let mut late = start(&languages()[0], &["late", &address("late")]);
    late.says(&format!("registered late {}", address("late")));
    all_say(&added("late"), 1);
    late.enter();
    late.says("deregistered");
    assert!(late.ends().success());
    all_say("- late", 1);
    // Who starts now finds them, too.
    let newcomer = start(&languages()[0], &[]);
    languages().iter().for_each(|language| newcomer.says(&added(language.name)));
    let wire = Wire::steady(&members.seats.url(1));
    for kv in below(&wire, "shop/").await {
        let name = text(&kv.key).replace("shop/", "");
        let value = format!("{{\"Op\":0,\"Addr\":\"{}\",\"Metadata\":null}}", address(&name));
        assert_eq!(text(&kv.value), value, "as etcd's Go client writes it");
        revoke(&wire, kv.lease).await;
    }
    for language in languages() {
        all_say(&format!("- {}", language.name), 1);
        all_say(&added(language.name), 2);
    }
    instances.iter_mut().for_each(Program::enter);
    for (instance, language) in instances.into_iter().zip(languages()) {
        instance.says("deregistered");
        assert!(instance.ends().success());
        all_say(&format!("- {}", language.name), 2);
    }
    assert_eq!(below(&wire, "shop/").await, []);
}

/// Who looks for instances misses none that came or went while history was compacted, and takes no other value for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_followed_over_a_compaction() {
    let folder = TempDir::new("examples-compacted");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let way = Forwarder::start(&server.client_address());
    let wire = Wire::connect(&server.client_url()).await;
    let register = async |name: &str, address: &str| {
        let value = format!("{{\"Op\":0,\"Addr\":\"{address}\",\"Metadata\":{{\"weight\":[1,\"&\"]}}}}");
        put(&wire, &format!("shop/{name}"), &value).await
    };
    register("a", "a:1").await;
    register("b", "b:1").await;
    put(&wire, "shop/junk", "junk").await;
    let start = |language: &Language| language.start("registry", &[&way.url(), "shop"]);
    let watchers: Vec<Program> = languages().iter().map(start).collect();
    let all_say = |line: &str| watchers.iter().for_each(|watcher| watcher.says(line));
    ["+ a a:1", "+ b b:1"].into_iter().for_each(all_say);
    way.cut();
    delete(&wire, "shop/a").await;
    register("b", "b:2").await;
    let last = register("c", "c:1").await;
    let _: pb::CompactionResponse = wire.unary(ask::COMPACT, &ask::compact(last)).await.expect("a compaction");
    way.open();
    ["- a", "+ b b:2", "+ c c:1"].into_iter().for_each(all_say);
    put(&wire, "shop/b", "junk").await;
    all_say("- b");
    for watcher in &watchers {
        let mut lines = watcher.lines();
        assert!(lines.len() == 6, "{}", watcher.all());
        // What is read at once has no order.
        lines[..2].sort();
        lines[2..5].sort();
        assert_eq!(lines, ["+ a a:1", "+ b b:1", "+ b b:2", "+ c c:1", "- a", "- b"], "{}", watcher.name());
    }
}
