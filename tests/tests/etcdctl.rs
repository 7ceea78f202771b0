//! Our etcdctl against Go's 3.7.1, line by line: standard output, standard error and exit code are equal, ids, clocks
//! and durations aside. Needs `OXETCD_REFERENCE`.
//!
//! Each tool has a server of its own, so that lines that change something find the same state; both servers are ours.

mod tools;

use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, free_ports};
use oxetcd_tests::temp::TempDir;
use std::net::TcpListener;
use std::path::PathBuf;
use tools::{Running, Said, ask, our_etcdctl, plain, words};

/// One tool and the server it asks.
struct Side {
    program: PathBuf,
    server: Server,
    folder: TempDir,
}

impl Side {
    fn new(program: PathBuf, label: &str) -> Side {
        let folder = TempDir::new(label);
        let server = Launch::new(&our_etcd(), &folder.join("data")).start();
        Side { program, server, folder }
    }

    fn says(&self, line: &str, input: &str, variables: &[(&str, &str)]) -> Said {
        let endpoint = self.server.client_address();
        let mut arguments = words(&line.replace("ENDPOINT", &endpoint));
        let variables: Vec<(&str, String)> =
            variables.iter().map(|(name, value)| (*name, value.replace("ENDPOINT", &endpoint))).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let named = arguments.iter().any(|word| word.starts_with("--endpoints"));
        if !named && !variables.iter().any(|(name, _)| *name == "ETCDCTL_ENDPOINTS") {
            arguments.insert(0, format!("--endpoints={endpoint}"));
        }
        let said = ask(&self.program, self.folder.path(), &variables, &arguments, input.as_bytes());
        let names = [(endpoint, "ENDPOINT"), (self.server.launch().peer_url(), "PEER")];
        Said { code: said.code, out: plain(&said.out, &names), err: plain(&said.err, &names) }
    }
}

struct Sides {
    go: Side,
    ours: Side,
    equal: usize,
}

impl Sides {
    fn new(label: &str) -> Option<Sides> {
        let reference = Reference::find()?;
        let go = Side::new(reference.program("3.7", "etcdctl"), &format!("{label}-go"));
        let ours = Side::new(our_etcdctl(), &format!("{label}-ours"));
        Some(Sides { go, ours, equal: 0 })
    }

    fn compare(&mut self, line: &str, input: &str, variables: &[(&str, &str)]) {
        let theirs = self.go.says(line, input, variables);
        let ours = self.ours.says(line, input, variables);
        assert_eq!(theirs, ours, "etcdctl {line} {variables:?} < {input:?}");
        self.equal += 1;
    }

    fn lines(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.compare(line, "", &[]));
    }

    /// For answers with bytes, sizes and indexes that belong to one server: both tools ask the same.
    fn compare_on_one_server(&mut self, line: &str) {
        let endpoint = self.ours.server.client_address();
        let arguments = words(&format!("--endpoints={endpoint} {line}"));
        let [theirs, ours] = [&self.go, &self.ours].map(|side| {
            let said = ask(&side.program, side.folder.path(), &[], &arguments, b"");
            Said { err: plain(&said.err, &[]), ..said }
        });
        assert_eq!(theirs, ours, "etcdctl {line}");
        self.equal += 1;
    }

    /// The same up to the end of the usage line: flags are explained in our own words.
    fn misuses(&mut self, lines: &[&str]) {
        for line in lines {
            let head =
                |said: Said| (said.code, said.out.is_empty(), said.err.lines().take(3).collect::<Vec<_>>().join("\n"));
            assert_eq!(head(self.go.says(line, "", &[])), head(self.ours.says(line, "", &[])), "etcdctl {line}");
            self.equal += 1;
        }
    }

    fn end(self, what: &str) {
        println!("{what}: {} equal command lines", self.equal);
    }
}

#[test]
fn keys_and_values() {
    let Some(mut sides) = Sides::new("keys") else { return };
    sides.lines(&[
        "put a b",
        "put a b -w json",
        "put a b -w fields",
        "put a b -w table",
        "put a b -w foo",
        "put a c --prev-kv",
        "put a d --prev-kv -w json",
        "put a e --prev-kv -w fields",
        "put new x --prev-kv",
        "put a b --lease=zz",
        "put a b --lease=1234",
        "put a b --ignore-value",
        "put a --ignore-value",
        "put xx --ignore-value",
        "put xx y --ignore-lease",
        "put",
        "put a",
        "put k -- -v",
        "put -- -k v",
        "put 'html' '<a&b>'",
        "get",
        "get a",
        "get a -w json",
        "get a -w fields",
        "get a -w table",
        "get a -wjson",
        "-w json get a",
        "get a b --prefix",
        "get k --prefix true",
        "get a --prefix --from-key",
        "get a --keys-only --count-only",
        "get a --count-only",
        "get a --count-only -w fields",
        "get a --count-only -w json",
        "get a --print-value-only",
        "get a --print-value-only -w json",
        "get a --keys-only",
        "get a --keys-only --print-value-only",
        "get a --hex",
        "get a --hex -w json",
        "get a --hex -w fields",
        "get ''",
        "get '' --prefix",
        "get '' --from-key --keys-only",
        "get '' --prefix -w json --limit=2",
        "get '' --prefix -w fields --limit 2",
        "get '' --prefix --sort-by=modify --order=descend --keys-only",
        "get '' --prefix --sort-by=VALUE --order=ASCEND",
        "get --prefix '' --stream -w json",
        "get a z --keys-only",
        "get -- -k",
        "get --limit=-3 k",
        "get --limit 0x10 k",
        "get html -w json",
        "get html -w fields",
        "get a --rev=10000",
        "get a --rev=2",
        "get a --consistency=x",
        "get a --consistency=s",
        "get a --order=foo",
        "get a --sort-by=foo",
        "get a --min-mod-rev=5 --max-mod-rev=4",
        "get a --min-create-rev=5 --max-create-rev=4",
        "get a --min-mod-rev=1 --max-mod-rev=4",
        "get nothing -w json",
        "get nothing -w fields",
        "get nothing",
        "get a b c",
        "del",
        "del a b c",
        "del nothing",
        "del nothing -w json",
        "del a --prev-kv",
        "del k --prev-kv -w json",
        "del html --prev-kv -w fields",
        "del a --prefix --from-key",
        "del a b --prefix",
        "del ''",
        "del a z --range",
        "compaction",
        "compaction x",
        "compaction 10000",
        "compaction 4",
        "compaction 4",
        "compact 5 --physical",
        "get a --rev 1",
    ]);
    for line in ["get --prefix '' -w protobuf", "get --prefix '' -w json", "--max-recv-bytes=10 get stdin"] {
        sides.compare_on_one_server(line);
    }
    sides.compare("put stdin", "from standard input\n", &[]);
    sides.lines(&["get stdin", "get stdin -w json"]);
    sides.compare("put empty", "", &[]);
    sides.end("keys and values");
}

#[test]
fn transactions() {
    let Some(mut sides) = Sides::new("txn") else { return };
    let inputs = [
        "ver(\"zz\") = \"0\"\n\nput a \"x y\"\nget k\n\nget b\n\n",
        "val(\"k\") = \"nope\"\n\nput a b\n\nget k\ndel nothing\n\n",
        "mod(\"a\") > \"-1\"\n\n\n\n",
        "val(\"a\") < `q`\n\n\n\n",
        "ver(\"a\") = \"0\" x\n\n\n\n",
        "foo\n\n\n\n",
        "bar(\"a\") = \"0\"\n\n\n\n",
        "ver(\"a\") = \"x\"\n\n\n\n",
        "ver(\"a\")=\"0\"\n\n\n\n",
        "ver(a) = \"0\"\n\n\n\n",
        "\nfoo\n\n\n",
        "\nget\n\n\n",
        "\nfoo x\n\n\n",
        "\nput a\n\n\n",
        "\nput a b c\n\n\n",
        "\nget a --prefix --from-key\n\n\n",
        "\nput \"a\n\n\n",
        "\nget a b --prefix\n\n\n",
        "\nput 'x y' z --prev-kv\nput p q\n\n\n",
        "\ndel \"\" --prefix --prev-kv\n\n\n",
        "\nput a b\nput a c\n\n\n",
        "\nput k v --lease=zz\n\n\n",
        "\nput k v --lease=99\n\n\n",
        "\nput \"q\\x01\" \"\\u00e9\"\nget \"q\\x01\"\n\n\n",
        "",
        "\n",
        "ver(\"a\") = \"0\"",
    ];
    for input in inputs {
        for line in ["txn", "txn -w json", "txn -w fields", "txn -i", "txn -w table"] {
            sides.compare(line, input, &[]);
        }
    }
    sides.lines(&["txn x"]);
    sides.end("transactions");
}

#[test]
fn leases() {
    let Some(mut sides) = Sides::new("leases") else { return };
    sides.lines(&[
        "lease grant",
        "lease grant x",
        "lease grant 100",
        "lease grant 100 -w json",
        "lease grant 100 -w fields",
        "lease grant 100 -w table",
        "lease grant 1 2",
        "lease list",
        "lease list -w json",
        "lease list -w fields",
        "lease revoke zz",
        "lease revoke",
        "lease revoke 1234",
        "lease timetolive 1234",
        "lease timetolive 1234 -w json",
        "lease timetolive 1234 -w fields",
        "lease timetolive",
        "lease timetolive zz",
        "lease keep-alive --once 1234",
        "lease keep-alive",
        "lease keep-alive 1234",
        "lease grant -- -5",
    ]);
    // Ids differ: each side goes on with its own.
    let ids: Vec<String> = [&sides.go, &sides.ours]
        .map(|side| {
            let arguments = words(&format!("--endpoints={} lease grant 1000", side.server.client_address()));
            let said = ask(&side.program, side.folder.path(), &[], &arguments, b"");
            said.out.split(' ').nth(1).expect("lease ID granted …").to_owned()
        })
        .to_vec();
    for line in [
        "put leased x --lease=LEASE",
        "get leased -w json",
        "get leased -w fields",
        "lease timetolive LEASE --keys",
        "lease timetolive LEASE --keys -w json",
        "lease timetolive LEASE --keys -w fields",
        "lease keep-alive --once LEASE",
        "lease keep-alive --once LEASE -w json",
        "lease keep-alive --once LEASE -w fields",
        "lease revoke LEASE -w json",
        "get leased",
        "lease revoke LEASE",
    ] {
        let theirs = sides.go.says(&line.replace("LEASE", &ids[0]), "", &[]);
        let ours = sides.ours.says(&line.replace("LEASE", &ids[1]), "", &[]);
        assert_eq!(theirs, ours, "etcdctl {line}");
        sides.equal += 1;
    }
    sides.end("leases");
}

#[test]
fn endpoints_members_and_maintenance() {
    let Some(mut sides) = Sides::new("cluster") else { return };
    let read_only = [
        "endpoint status",
        "endpoint status -w json",
        "endpoint status -w fields",
        "endpoint status -w table",
        "endpoint status -w protobuf",
        "endpoint status --cluster",
        "endpoint hashkv",
        "endpoint hashkv -w json",
        "endpoint hashkv -w fields",
        "endpoint hashkv -w table",
        "endpoint hash",
    ];
    sides.lines(&["put a b"]);
    for line in read_only {
        sides.compare_on_one_server(line);
    }
    sides.lines(&[
        "endpoint health",
        "endpoint health -w json",
        "endpoint health -w fields",
        "endpoint health -w table",
        "endpoint health --cluster",
        "endpoint hashkv --rev=99999",
        "member list",
        "member list -w json",
        "member list -w fields",
        "member list -w table",
        "member list --hex",
        "member list --hex -w json",
        "member list --hex -w fields",
        "member list --consistency=x",
        "member list --consistency=s",
        "member add",
        "member add x",
        "member add x --peer-urls=foo",
        "member add x y --peer-urls=foo",
        "member add x http://y",
        "member remove zz",
        "member remove 1234",
        "member update 1",
        "member promote 1234",
        "move-leader",
        "move-leader zz",
        "move-leader 1234",
        "downgrade validate",
        "downgrade validate 3.5",
        "alarm list",
        "alarm list x",
        "alarm list -w json",
        "alarm list -w fields",
        "alarm list -w table",
        "alarm disarm",
        "alarm disarm x",
        "alarm disarm -w json",
        "alarm disarm -w fields",
        "defrag",
        "defrag --cluster",
        "defrag -w json",
        "snapshot save",
        "snapshot save a b",
        "snapshot save image.db",
        "snapshot save nowhere/image.db",
        "check perf --load=q",
        "version",
        "version x",
    ]);
    sides.end("endpoints, members and maintenance");
}

#[test]
fn words_flags_and_variables() {
    let Some(mut sides) = Sides::new("words") else { return };
    let (dead, _) = free_ports();
    sides.lines(&[
        "nonsense",
        "ge a",
        "e",
        "m",
        "pt",
        "set",
        "Get a",
        "put a b",
        "lock",
        "lock l echo hi",
        "lock l3 no-such-command",
        "lock l4 -- sh -c 'exit 7'",
        "lock l5 -- sh -c 'kill -9 $$'",
        "lock l6 /no/such/command",
        "elect",
        "elect x",
        "elect -l x y",
        "watch",
        "watch --",
        "watch k --prefix e",
        "get a --cert x",
        "get a --cert=",
        "get a --cacert=no-such-file",
        "get a --cert=no-such-file --key=y",
        "--no-sync get a",
        "--endpoints=http://ENDPOINT/x get a",
        "--endpoints=ENDPOINT,ENDPOINT snapshot save x.db",
        "--endpoints= get a",
        "--user=root:x get a",
        "--max-request-bytes=10 put a bbbbbbbbbbbbbbbb",
        "--max-recv-bytes=10 --max-request-bytes=20 get a",
    ]);
    for line in ["get a", "put a b", "endpoint health", "endpoint status", "endpoint hashkv -w json", "member list"] {
        sides.compare(&format!("--endpoints=127.0.0.1:{dead} --command-timeout=2s {line}"), "", &[]);
    }
    sides.compare(&format!("--endpoints=127.0.0.1:{dead},ENDPOINT get a"), "", &[]);
    sides.misuses(&[
        "get --foo",
        "get -x",
        "get -hx",
        "get --=x",
        "get ---x",
        "get a -w",
        "get a --limit",
        "get --limit=x",
        "--command-timeout=5 get a",
        "--hex=zz get a",
        "get a --keepalive-time=1h2",
        "completion",
        "completion foo",
    ]);
    let endpoint = ("ETCDCTL_ENDPOINTS", "ENDPOINT");
    sides.compare("get a", "", &[endpoint]);
    sides.compare("get a", "", &[endpoint, ("ETCDCTL_FOO", "x")]);
    sides.compare("get a", "", &[endpoint, ("ETCDCTL_WRITE_OUT", "json")]);
    sides.compare("get a", "", &[endpoint, ("ETCDCTL_HEX", "true")]);
    sides.compare("endpoint health", "", &[endpoint, ("ETCDCTL_CLUSTER", "true")]);
    sides.compare("watch k", "", &[endpoint, ("ETCDCTL_WATCH_KEY", "k")]);
    sides.compare("version", "", &[("ETCDCTL_FOO", "x")]);
    sides.end("words, flags and variables");
}

/// Changes of users and roles, and what they print in every format.
const ROLES: &[&str] = &[
    "auth status",
    "user list",
    "role list",
    "user get nobody",
    "role get nobody",
    "role add r",
    "role add r",
    "user add one --no-password",
    "user add two:with:colons",
    "user add three --new-user-password=x",
    "user add four --no-password --new-user-password=x",
    "user add :x",
    "user add '' --new-user-password=x",
    "user grant-role one r",
    "user grant-role one root",
    "user grant-role nobody r",
    "role grant-permission r read a z",
    "role grant-permission r READ foo",
    "role grant r readwrite pp --prefix",
    "role grant-permission r write zz --from-key",
    "role grant-permission r read '' --prefix",
    "role grant-permission r write ''",
    "role grant-permission r read '' ignored",
    "role get r",
    "role get root",
    "user get one",
    "user get one --detail",
    "user get two",
    "user list",
    "role list",
    "role revoke-permission r foo",
    "role revoke-permission r a z",
    "role revoke-permission r zz --from-key",
    "role revoke-permission r pp --prefix",
    "role revoke-permission r '' --prefix",
    "role revoke-permission r nope",
    "role get r",
    "user revoke-role one r",
    "user revoke-role one r",
    "role delete r",
    "role delete r",
    "user delete one",
    "user delete two",
    "user delete three",
    "user delete four",
    "user delete four",
];

#[test]
fn users_and_roles() {
    let Some(mut sides) = Sides::new("users") else { return };
    for format in ["simple", "fields", "json", "table"] {
        ROLES.iter().for_each(|line| sides.compare(&format!("-w {format} {line}"), "", &[]));
    }
    // Bytes hold the ids of one server.
    for line in
        ["role add r", "role grant-permission r write a z", "user add one --no-password", "user grant-role one r"]
    {
        assert_eq!(sides.ours.says(line, "", &[]).code, Some(0), "{line}");
    }
    for line in ["auth status", "user list", "user get one", "user get one --detail", "role list", "role get r"] {
        sides.compare_on_one_server(&format!("-w protobuf {line}"));
    }
    sides.lines(&[
        "auth enable a",
        "auth disable a",
        "auth status a",
        "user add",
        "user add a b",
        "user delete",
        "user get a b",
        "user list a",
        "user passwd",
        "user grant-role a",
        "user revoke-role a",
        "role add",
        "role delete a b",
        "role get",
        "role list a",
        "role grant-permission",
        "role grant-permission a read",
        "role grant-permission a bad k",
        "role grant-permission a read k z --prefix",
        "role grant-permission a read k z --from-key",
        "role grant-permission a read k --prefix --from-key",
        "role grant-permission a read '' --prefix --from-key",
        "role revoke-permission",
        "role revoke-permission a",
        "role revoke-permission a k z --from-key",
    ]);
    sides.end("users and roles");
}

#[test]
fn authentication_on_and_off() {
    let Some(mut sides) = Sides::new("auth") else { return };
    sides.compare("user add scripted --interactive=false", "  secret more\n", &[]);
    sides.compare("user add root --interactive=false", "first\n", &[]);
    sides.compare("user passwd root --interactive=false", "second\n", &[]);
    // Typed twice. Go's stty complains where there is no terminal.
    for (line, typed) in [
        ("user add typed", "same\nsame\n"),
        ("user add other", "same\ndifferent\n"),
        ("user add empty", "\n"),
        ("user passwd typed", "new\nnew\n"),
        ("user passwd nobody", "new\nnew\n"),
    ] {
        let [theirs, ours] = [&sides.go, &sides.ours].map(|side| {
            let said = side.says(line, typed, &[]);
            let err = said.err.lines().filter(|line| !line.starts_with("stty")).collect::<Vec<_>>().join("\n");
            Said { err, ..said }
        });
        assert_eq!(theirs, ours, "etcdctl {line}");
        sides.equal += 1;
    }
    sides.lines(&[
        "auth enable",
        "auth status",
        "--user=root:second auth status",
        "--user=root:second auth status -w json",
        "--user=root:first get a",
        "--user=root --password=second put a b",
        "--user=typed:new get a",
        "--user=scripted:secret put a c",
        "--user=root:second role add reader",
        "--user=root:second role grant-permission reader read a",
        "--user=root:second user grant-role typed reader",
        "--user=typed:new get a",
        "--user=typed:new put a c",
        "--user=typed:new user get typed",
        "--user=typed:new user get root",
        "--user=typed:new role get reader --command-timeout=5s",
        "--user=typed:new user list",
        "--user=root:second role get root",
        "--user=root:second auth enable",
        "--user=typed:new auth disable",
        "--user=root:second user delete root",
        "--user=root:second auth disable",
        "--user=root:second get a",
        "get a",
        "auth disable",
    ]);
    sides.end("authentication");
}

/// Where ours is meant to differ from 3.7.1 (docs/COMPAT.md).
#[test]
fn what_tutorials_type_works_where_go_refuses_it() {
    let folder = TempDir::new("kinder");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let endpoint = server.client_address();
    let says =
        |line: &str, variables: &[(&str, &str)]| ask(&our_etcdctl(), folder.path(), variables, &words(line), b"");
    let both = says(&format!("--endpoints={endpoint} member list"), &[("ETCDCTL_ENDPOINTS", "127.0.0.1:1")]);
    assert!(both.code == Some(0) && both.out.contains("started, default"), "{both:?}");
    assert!(both.err.contains("ETCDCTL_ENDPOINTS") && both.err.contains("\"level\":\"warn\""), "{both:?}");
    let api = says(&format!("--endpoints={endpoint} get a"), &[("ETCDCTL_API", "3")]);
    assert_eq!((api.code, api.err.as_str()), (Some(0), ""));
    let old = says(&format!("--endpoints={endpoint} --cert-file= --key-file= --ca-file=nowhere get a"), &[]);
    assert_eq!(old.code, Some(128), "{old:?}");
    assert!(old.err.contains("--ca-file is an old name of --cacert") && old.err.contains("open nowhere"), "{old:?}");
    // A role that is there already is no reason not to switch authentication on.
    for line in ["user add root:x", "role add root", "auth enable"] {
        let done = says(&format!("--endpoints={endpoint} {line}"), &[]);
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
    }
}

#[test]
fn help_names_every_command_and_ends_well() {
    let folder = TempDir::new("help");
    let says = |line: &str| ask(&our_etcdctl(), folder.path(), &[], &words(line), b"");
    for line in
        ["", "-h", "help", "get -h", "help member list", "member", "member foo", "lease grnt", "help foo", "options"]
    {
        let said = says(line);
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    }
    let root = says("").out;
    for name in
        ["get", "put", "watch", "txn", "lease", "endpoint", "snapshot", "lock", "check", "completion", "version"]
    {
        assert!(root.contains(&format!("\n  {name:11} ")), "no {name} in {root}");
    }
    assert!(!root.contains("--endpoints") && says("options").out.contains("--endpoints strings"), "{root}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(says(&format!("completion {shell}")).out.contains("__complete"), "{shell}");
    }
    assert_eq!(says("__completeNoDesc member l").out, "list\n:4\n");
}

#[test]
fn watches_print_the_same_events() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("watches");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let endpoint = server.client_address();
    let go = reference.program("3.7", "etcdctl");
    for line in ["put wk v1", "put wk 'v 2'", "put wk2 x", "del wk", "put wk v3"] {
        assert_eq!(ask(&go, folder.path(), &[], &words(&format!("--endpoints={endpoint} {line}")), b"").code, Some(0));
    }
    let command = "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let mut equal = 0;
    for (line, count) in [
        ("watch wk --rev=2".to_owned(), 12),
        ("watch wk --prefix --prev-kv --rev=2".to_owned(), 19),
        ("watch wk --rev=2 -w json".to_owned(), 1),
        ("watch wk --rev=2 -w fields".to_owned(), 32),
        ("watch wk wk3 --rev=3 --hex".to_owned(), 12),
        (format!("watch wk --rev=2 -- sh -c '{command}'"), 16),
    ] {
        let mut both = [&go, &our_etcdctl()].map(|program| Running::start(program, &endpoint, &line));
        let [theirs, ours] = both.each_mut().map(|watch| watch.take(count));
        assert_eq!(theirs, ours, "{line}");
        equal += 1;
    }
    for rev in ["--rev=1", "--rev=2 -w json"] {
        let compact = format!("--endpoints={endpoint} compact 3");
        ask(&go, folder.path(), &[], &words(&compact), b"");
        let [theirs, ours] = [&go, &our_etcdctl()].map(|program| {
            let said = ask(program, folder.path(), &[], &words(&format!("--endpoints={endpoint} watch wk {rev}")), b"");
            Said { out: plain(&said.out, &[]), ..said }
        });
        assert_eq!(theirs, ours, "watch wk {rev}");
        equal += 1;
    }
    let mut both = [&go, &our_etcdctl()].map(|program| Running::start(program, &endpoint, "watch -i"));
    both.iter_mut().for_each(|watch| watch.types("nonsense\nwatch wk --rev=3\n"));
    let [theirs, ours] = both.each_mut().map(|watch| watch.take(9));
    assert_eq!(theirs, ours, "watch -i");
    both.iter_mut().for_each(|watch| watch.types("progress\n"));
    let [theirs, ours] = both.each_mut().map(Running::next);
    assert_eq!(theirs, ours, "progress");
    println!("watches: {} equal command lines", equal + 2);
}

#[test]
fn a_watch_goes_on_after_its_server_came_back() {
    let folder = TempDir::new("resume");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    let server = launch.start();
    let endpoint = server.client_address();
    let put = |value: &str| {
        let line = format!("--endpoints={endpoint} put k {value}");
        assert_eq!(ask(&our_etcdctl(), folder.path(), &[], &words(&line), b"").code, Some(0));
    };
    put("before");
    let mut watch = Running::start(&our_etcdctl(), &endpoint, "watch k --rev=2");
    assert_eq!(watch.take(3), ["PUT", "k", "before"]);
    server.kill();
    let server = launch.try_start().unwrap_or_else(|e| panic!("{e}"));
    put("after");
    assert_eq!(watch.take(3), ["PUT", "k", "after"], "nothing is lost, nothing comes twice");
    drop(server);
}

/// A stopped process's port still takes connections, in its queue. Whoever trusts that waits for ever.
#[test]
fn an_endpoint_that_never_answers_is_left_for_the_next() {
    let folder = TempDir::new("silent");
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let silent = silent.local_addr().expect("it is bound");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let says = |endpoints: &str, line: &str| {
        ask(&our_etcdctl(), folder.path(), &[], &words(&format!("--endpoints={endpoints} {line}")), b"")
    };
    let both = format!("{silent},{}", server.client_address());
    let said = says(&both, "--command-timeout=30s put a b");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "OK\n"), "{said:?}");
    let said = says(&silent.to_string(), "--dial-timeout=100ms --command-timeout=2s put a b");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("error reading server preface: "), "{said:?}");
}

#[test]
fn locks_and_elections_of_both_tools_exclude_each_other() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("locks");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let endpoint = server.client_address();
    let (go, ours) = (reference.program("3.7", "etcdctl"), our_etcdctl());
    for (first, second) in [(&go, &ours), (&ours, &go)] {
        let mut holder = Running::start(first, &endpoint, "lock name");
        assert!(holder.next().starts_with("name/"), "the lock's key");
        let mut waiter = Running::start(second, &endpoint, "lock name");
        // The waiter stands in the queue when its key is there.
        let queue = format!("--endpoints={endpoint} get name/ --prefix --keys-only");
        while ask(&go, folder.path(), &[], &words(&queue), b"").out.matches("name/").count() < 2 {}
        assert_eq!(holder.interrupt(), Some(0));
        assert!(waiter.next().starts_with("name/"), "the lock passed on");
        assert_eq!(waiter.interrupt(), Some(0));

        let mut leader = Running::start(first, &endpoint, "elect election one");
        assert!(leader.next().starts_with("election/"));
        assert_eq!(leader.next(), "one");
        let mut observer = Running::start(second, &endpoint, "elect -l election");
        assert!(observer.next().starts_with("election/"));
        assert_eq!(observer.next(), "one");
        assert_eq!(leader.interrupt(), Some(0));
        let mut next = Running::start(second, &endpoint, "elect election two");
        assert_eq!(next.take(2)[1], "two");
        assert_eq!(observer.take(2)[1], "two");
        assert_eq!(next.interrupt(), Some(0));
    }
}
