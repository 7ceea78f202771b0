//! `etcdutl bbolt` and `etcd-dump-db` against Go's tools, on databases that Go's server and ours wrote, whole and damaged.
//! Needs `OXETCD_REFERENCE`.

mod tools;

use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::{TempDir, copy_dir};
use std::path::{Path, PathBuf};
use tools::{Said, ask, our_etcdctl, our_etcdutl, words};

/// What a server with a past left in `data`; its database is copied to `db`.
fn past(label: &str, server: &Path) -> TempDir {
    let folder = TempDir::new(label);
    let launch = Launch::new(server, &folder.join("data"));
    let server = launch.with_flags(&["--bcrypt-cost=4"]).start();
    let says = |line: &str| {
        let line = format!("--endpoints={} {line}", server.client_address());
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(&line), b"");
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    };
    (0..30).for_each(|n| says(&format!("put key{} value{n}", n % 7)));
    // A few leaves with some keys each.
    (0..14).for_each(|n| says(&format!("put wide{n} {}", "x".repeat(900))));
    says(&format!("put large {}", "0123456789abcdef".repeat(900)));
    for line in [
        "lease grant 1000",
        "del key3",
        "compaction 12 --physical",
        "role add reader",
        "role grant-permission reader read a b",
        "role grant-permission reader readwrite '' --prefix",
        "user add root:secret",
        "user add alice --no-password",
        "user grant-role root root",
        "user grant-role alice reader",
        "auth enable",
    ] {
        says(line);
    }
    server.stop();
    std::fs::copy(folder.join("data/member/snap/db"), folder.join("db")).expect("a database");
    folder
}

/// Both servers' files, and Go's tools.
fn pasts() -> Option<(Reference, Vec<TempDir>)> {
    let reference = Reference::find()?;
    let pasts = vec![past("bbolt-go", &reference.program("3.7", "etcd")), past("bbolt-ours", &our_etcd())];
    Some((reference, pasts))
}

fn run(program: &Path, folder: &TempDir, line: &str) -> Said {
    ask(program, folder.path(), &[], &words(line), b"")
}

/// What matters of an answer: code, standard output, and the first line of the other.
fn head(said: &Said) -> (Option<i32>, String, String) {
    // The reference is of a time when this was misspelled.
    let out = said.out.replace("Prining", "Printing");
    (said.code, out, said.err.lines().next().unwrap_or_default().replace("clear-page-element ", "clear-page-elements "))
}

#[test]
fn bbolt_says_what_gos_says() {
    let Some((reference, pasts)) = pasts() else { return };
    let go = reference.tool("bbolt");
    let mut equal = 0;
    for folder in &pasts {
        let mut lines: Vec<String> = [
            "info db",
            "info no-such-file",
            "info",
            "buckets db",
            "check db",
            "check db --from-page 1",
            "check db --from-page 99999",
            "keys db",
            "keys db auth",
            "keys db no-such-bucket",
            "get db meta",
            "get db meta no-such-key",
            "get db meta zz --parse-format hex",
            "get db meta abc --parse-format hex",
            "get db meta 7465726d --parse-format hex",
            "get db meta term --parse-format foo",
            "inspect db",
            "pages db",
            "page db",
            "page db --all",
            "page db --all 1",
            "page db 0 1 2 3 4 5 6 9999999",
            "page db x",
            "page-item db 4 0 --key-only --value-only",
            "page-item db x 0",
            "dump db 0 1 3",
            "dump db 9999999",
            "dump db",
            "stats db",
            "stats db auth",
            "stats db a b",
            "surgery meta validate db",
            "--no-such-flag",
        ]
        .map(str::to_owned)
        .to_vec();
        for format in ["auto", "hex", "ascii-encoded", "bytes", "redacted", "foo"] {
            lines.push(format!("keys db key --format {format}"));
            lines.push(format!("get db meta term --format {format}"));
            lines.push(format!("page db --all --format-value {format}"));
        }
        // What stands on a free page is of the past and leads anywhere: how much of it each tool tells is its own affair.
        let pages = run(&go, folder, "pages db").out;
        let is_free = |page: u32| {
            let mut rows = pages.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
            rows.any(|row| row.first() == Some(&page.to_string().as_str()) && row.get(1) == Some(&"free"))
        };
        for page in 2..8 {
            if !is_free(page) {
                lines.push(format!("check db --from-page {page}"));
            }
            lines.push(format!("page-item db {page} 0"));
            lines.push(format!("page-item db {page} 2 --key-only"));
            lines.push(format!("page-item db {page} 9999 --value-only"));
        }
        for line in lines {
            let theirs = run(&go, folder, &line);
            let ours = run(&our_etcdutl(), folder, &format!("bbolt {line}"));
            // In the midst of a larger page, Go can't go on.
            if theirs.out.starts_with("panic: assertion failed: Page expected to be") {
                assert!(ours.code == theirs.code && ours.out.contains("unexpected Page id"), "bbolt {line}: {ours:?}");
                continue;
            }
            assert_eq!(head(&theirs), head(&ours), "bbolt {line}");
            equal += 1;
        }
    }
    println!("bbolt: {equal} equal command lines");
}

/// The page that a line names.
fn page_of(line: &str) -> &str {
    line.split("--pageId ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("0")
}

/// Each operation writes the same copy, and leaves the source as it was.
#[test]
fn surgery_cuts_where_gos_cuts() {
    let Some((reference, pasts)) = pasts() else { return };
    let go = reference.tool("bbolt");
    let mut equal = 0;
    for folder in &pasts {
        let source = std::fs::read(folder.join("db")).expect("a database");
        let mut lines: Vec<String> = [
            "revert-meta-page db",
            "copy-page db --from-page 4 --to-page 5",
            "copy-page db --from-page 4 --to-page 4",
            "copy-page db --from-page 4 --to-page 40",
            "copy-page db --from-page 50000000 --to-page 4",
            "copy-page db",
            "clear-page db --pageId 1",
            "clear-page no-such-file --pageId 4",
            "freelist abandon db",
            "meta update db --fields pgid:3000,root:7 --meta-page 1",
            "meta update db --fields pageSize:8192",
            "meta update db --fields foo:1",
            "meta update db --fields root",
            "meta update db --fields root:x",
            "meta update db --meta-page 2",
            "meta update db",
        ]
        .map(str::to_owned)
        .to_vec();
        for page in 2..8 {
            lines.push(format!("clear-page db --pageId {page}"));
            for (from, to) in [(0, 1), (0, -1), (1, 2), (2, 3), (3, 3), (4, 2), (3, 10_000), (500, 600)] {
                lines.push(format!("clear-page-elements db --pageId {page} --from-index {from} --to-index {to}"));
            }
        }
        for line in lines {
            let (theirs, ours) = (folder.join("copy-go"), folder.join("copy-ours"));
            let _ = (std::fs::remove_file(&theirs), std::fs::remove_file(&ours));
            let said = [
                run(&go, folder, &format!("surgery {line} --output copy-go")),
                run(&our_etcdutl(), folder, &format!("bbolt surgery {line} --output copy-ours")),
            ];
            assert_eq!(head(&said[0]), head(&said[1]), "bbolt surgery {line}");
            if said[0].code == Some(0) {
                let [theirs, ours] = [theirs, ours].map(|path| std::fs::read(path).expect("a copy"));
                // Where the last elements go, Go leaves the others' bytes where they were.
                let shown = |copy: &str| run(&go, folder, &format!("page {copy} {}", page_of(&line))).out;
                let alike =
                    theirs == ours || line.starts_with("clear-page-elements") && shown("copy-go") == shown("copy-ours");
                assert!(alike, "bbolt surgery {line}: the copies differ");
            }
            equal += 1;
        }
        let same = run(&our_etcdutl(), folder, "bbolt surgery freelist abandon db --output db");
        assert!(same.code == Some(1) && same.err.contains("is the source itself"), "{same:?}");
        assert!(std::fs::read(folder.join("db")).expect("a database") == source, "the source changed");
    }
    println!("bbolt surgery: {equal} equal command lines");
}

/// What has no counterpart to the byte: Go's tools take what ours wrote.
#[test]
fn go_reads_what_ours_rebuilds_compacts_and_cuts() {
    let Some((reference, pasts)) = pasts() else { return };
    let go = reference.tool("bbolt");
    for folder in &pasts {
        let succeeds = |program: &Path, line: &str| {
            let said = run(program, folder, line);
            assert_eq!(said.code, Some(0), "{line}: {said:?}");
            said.out
        };
        let ours = our_etcdutl();
        succeeds(&ours, "bbolt surgery freelist rebuild db --output listed");
        assert_eq!(succeeds(&go, "check listed"), "OK\n");
        assert!(succeeds(&go, "pages listed").contains("freelist"));
        assert_eq!(succeeds(&go, "pages listed"), succeeds(&ours, "bbolt pages listed"));
        assert_eq!(succeeds(&ours, "bbolt check listed"), "OK\n");
        let again = run(&ours, folder, "bbolt surgery freelist rebuild listed --output more");
        assert!(again.code == Some(1) && again.err.contains("already has freelist"), "{again:?}");

        assert!(succeeds(&ours, "bbolt compact -o small db").contains(" bytes (gain="));
        assert_eq!(succeeds(&go, "check small"), "OK\n");
        assert_eq!(succeeds(&go, "keys small key -f hex"), succeeds(&go, "keys db key -f hex"));
        let again = run(&ours, folder, "bbolt compact -o small db");
        assert!(again.code == Some(1) && again.err.contains("small exists"), "{again:?}");

        // The last elements of a page go: Go leaves the others' bytes where they were.
        let leaf = succeeds(&go, "pages db");
        let leaf = leaf.lines().filter(|line| line.contains("leaf")).find_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse::<u64>().ok()?)).filter(|(_, items)| *items > 3)
        });
        let (page, items) = leaf.expect("a leaf with a few elements");
        let cut = format!("--pageId {page} --from-index {} --to-index -1", items - 2);
        succeeds(&go, &format!("surgery clear-page-elements db --output cut-go {cut}"));
        succeeds(&ours, &format!("bbolt surgery clear-page-elements db --output cut-ours {cut}"));
        let shown = |file: &str| succeeds(&go, &format!("page {file} {page}"));
        assert_eq!(shown("cut-go"), shown("cut-ours"));
    }
}

/// Both find the same in a page that stands where it does not belong.
#[test]
fn damage_is_told_as_go_tells_it() {
    let Some((reference, pasts)) = pasts() else { return };
    let (go, ours, status) = (reference.tool("bbolt"), our_etcdutl(), reference.program("3.7", "etcdutl"));
    let (mut alike, mut ended) = (0, 0);
    for folder in &pasts {
        // Without a list of free pages Go counts them at the start, and ends with a panic at the first fault.
        assert_eq!(run(&go, folder, "surgery freelist rebuild db --output listed").code, Some(0));
        let pages = run(&go, folder, "pages listed").out;
        let leaves: Vec<&str> = pages
            .lines()
            .filter(|line| line.contains("leaf") && line.split_whitespace().count() == 3)
            .filter_map(|line| line.split_whitespace().next())
            // What a key's tree would hold as buckets, Go looks for by their names, and does not find.
            .filter(|page| !run(&go, folder, &format!("page listed {page}")).out.contains("<pgid="))
            .collect();
        // A branch in a leaf's place would lead Go in a circle.
        for from in &leaves {
            for to in leaves.iter().filter(|to| *to != from) {
                let line = format!("bbolt surgery copy-page listed --from-page {from} --to-page {to} --output bad");
                assert_eq!(run(&ours, folder, &line).code, Some(0));
                let check = [run(&go, folder, "check bad"), run(&ours, folder, "bbolt check bad")];
                let shown = [run(&status, folder, "snapshot status bad"), run(&ours, folder, "snapshot status bad")];
                for [theirs, ours] in [check, shown] {
                    assert_eq!(ours.code, Some(1), "{line}: {ours:?}");
                    if theirs.code == Some(2) || (theirs.out.clone() + &theirs.err).contains("panic") {
                        ended += 1;
                        continue;
                    }
                    assert_eq!(head(&theirs), head(&ours), "{line}");
                    let faults = |said: &Said| said.err.lines().filter(|line| !line.is_empty()).count();
                    assert!(ours.err.contains("invalid value") || faults(&theirs) == faults(&ours), "{line}");
                    alike += 1;
                }
            }
        }
    }
    assert!(alike > 0, "nothing was compared; Go ended {ended} times");
    println!("bbolt: {alike} damaged files told alike; Go ended at {ended}");
}

fn dump_db() -> PathBuf {
    our_etcdutl().with_file_name("etcd-dump-db")
}

#[test]
fn dump_db_shows_what_gos_shows() {
    let Some((reference, pasts)) = pasts() else { return };
    let go = reference.tool("etcd-dump-db");
    let mut equal = 0;
    for folder in &pasts {
        // Go's opens files for writing, and bbolt writes a list of free pages into them.
        std::fs::copy(folder.join("db"), folder.join("go-db")).expect("a copy");
        copy_dir(&folder.join("data"), &folder.join("go-data")).expect("a copy");
        let mut lines: Vec<String> =
            ["list-bucket", "hash", "scan-keys FILE", "iterate-bucket FILE", "list-bucket no-such-db"]
                .map(str::to_owned)
                .to_vec();
        for file in ["FILE", "DATA"] {
            lines.extend(["list-bucket", "hash"].map(|command| format!("{command} {file}")));
            lines.extend(["0", "20", "9999", "x"].map(|start| format!("scan-keys {file} {start}")));
            for bucket in [
                "alarm",
                "auth",
                "authRoles",
                "authUsers",
                "cluster",
                "key",
                "lease",
                "members",
                "members_removed",
                "meta",
                "no-such-bucket",
            ] {
                let line = format!("iterate-bucket {file} {bucket}");
                lines.extend(["", " --decode", " --limit 2", " --decode --limit=3"].map(|more| line.clone() + more));
            }
        }
        for line in lines {
            let theirs = run(&go, folder, &line.replace("FILE", "go-db").replace("DATA", "go-data"));
            let ours = run(&dump_db(), folder, &line.replace("FILE", "db").replace("DATA", "data"));
            let plain = |said: Said| {
                // Blanks between the fields of a message are Go's whim.
                let out = said.out.replace("  ", " ").replace("go-db", "db").replace("go-data", "data");
                let err = said.err.lines().map(|line| line.get(20..).unwrap_or(line).replace("go-data", "data"));
                let err: Vec<String> = err.map(|line| line.replace("go-db", "db")).collect();
                (said.code, out, if line.starts_with("scan-keys") { Vec::new() } else { err })
            };
            assert_eq!(plain(theirs), plain(ours), "etcd-dump-db {line}");
            equal += 1;
        }
        let before = std::fs::read(folder.join("db")).expect("a database");
        assert_eq!(run(&dump_db(), folder, "hash db").code, Some(0));
        assert!(std::fs::read(folder.join("db")).expect("a database") == before, "reading changed the file");
    }
    println!("etcd-dump-db: {equal} equal command lines");
}

#[test]
fn bench_measures_what_it_wrote_and_leaves_nothing() {
    let folder = TempDir::new("bbolt-bench");
    let bench = |flags: &str| run(&our_etcdutl(), &folder, &format!("bbolt bench --path bench.db --count 300 {flags}"));
    for flags in
        ["", "--batch-size 100 --write-mode rnd --read-mode rnd", "--fill-percent 0.9 --page-size 8192 --no-sync"]
    {
        let said = bench(flags);
        assert_eq!(said.code, Some(0), "{flags}: {said:?}");
        let lines: Vec<&str> = said.out.lines().collect();
        assert!(lines[0].starts_with("# Write\t300(ops)\t"), "{flags}: {said:?}");
        // Reads go over all keys a whole number of times; a number drawn twice is one key, which is found twice.
        let reads = lines[1].strip_prefix("# Read\t").and_then(|rest| rest.split_once("(ops)")).expect("a count").0;
        assert_eq!(reads.parse::<u64>().expect("a number") % 300, 0, "{flags}: {said:?}");
        assert!(said.err.contains("Finished write iteration 0\n"), "{said:?}");
        assert!(!folder.join("bench.db").exists());
    }
    let said = bench("--gobench-output --work");
    assert!(said.out.starts_with("BenchmarkWrite\t     300\t"), "{said:?}");
    assert!(said.err.starts_with("work: bench.db\n"), "{said:?}");
    let kept = run(&our_etcdutl(), &folder, "bbolt check bench.db");
    assert_eq!(kept.out, "OK\n");
    for (flags, text) in [
        ("", "bench.db exists"),
        ("--batch-size 7", "the number of iterations must be divisible by the batch size"),
        ("--write-mode x", "the write mode should be one of seq, rnd, seq-nest, or rnd-nest"),
        ("--write-mode seq-nest", "this page store makes none"),
        ("--key-size 3", "it must be 4 at least"),
        ("--count -5", "it must be 1 at least"),
        ("--fill-percent 0.7", "knows 0.5 and 0.9"),
        ("--cpuprofile x", "no profiles are written here"),
    ] {
        let said = bench(flags);
        assert!(said.code != Some(0) && said.err.contains(text), "{flags}: {said:?}");
    }
}
