//! What is made for those who install: tarball, Debian package, container image, unit, certificates, examples for
//! Kubernetes. Some of it needs root; those tests say so where they are skipped.

mod tools;

use oxetcd_tests::places::{built, our_etcd, read_source, source};
use oxetcd_tests::process::{Launch, free_ports, run, stdout_of, text};
use oxetcd_tests::temp::TempDir;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];
/// 2001-09-09: a time that nothing has by chance.
const EPOCH: &str = "1000000000";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this test may run programs apart from the machine: root in a container often may not.
fn may_set_apart(what: &str) -> bool {
    let tried = || run(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])).status.success();
    let may = is_root() && there_is("unshare") && tried();
    if !may {
        println!("SKIPPED: {what} needs root and `unshare`");
    }
    may
}

fn there_is(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Our three programs without what only debuggers read: archives of them are made quickly.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = TempDir::new("programs");
        let etcd = our_etcd();
        let others = built(&["etcdctl", "etcdutl"]);
        for (name, from) in [("etcd", etcd), ("etcdctl", others.join("etcdctl")), ("etcdutl", others.join("etcdutl"))] {
            let to = folder.join(name);
            if !there_is("strip") || !run(Command::new("strip").arg("-o").arg(&to).arg(&from)).status.success() {
                fs::copy(&from, &to).expect("a copy");
            }
        }
        folder
    });
    folder.path()
}

/// `xtask release KINDS`, and the folder it filled.
fn release(label: &str, kinds: &[&str]) -> TempDir {
    let out = TempDir::new(label);
    let mut xtask = Command::new(built(&["xtask"]).join("xtask"));
    xtask.arg("release").args(kinds).arg("--out").arg(out.path()).arg("--bin-dir").arg(programs());
    stdout_of(xtask.env("SOURCE_DATE_EPOCH", EPOCH));
    out
}

/// The one file there whose name ends so.
fn found(folder: &Path, end: &str) -> PathBuf {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut fitting: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(fitting.len(), 1, "{end}: {fitting:?}");
    fitting.remove(0)
}

fn sum(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unpack(archive: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    stdout_of(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to));
}

#[test]
fn the_tarball_installs_as_tutorials_do_it_and_is_the_same_each_time() {
    let out = release("tarball", &["tarball"]);
    let tarball = found(out.path(), ".tar.gz");
    let sums = fs::read_to_string(out.join("SHA256SUMS")).expect("sums");
    let name = tarball.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(sums, format!("{}  {name}\n", sum(&tarball)));
    assert!(name.starts_with("etcd-v3.7.1-oxetcd.") && name.contains("-linux-"), "{name}");
    assert_eq!(sum(&found(release("tarball-again", &["tarball"]).path(), ".tar.gz")), sum(&tarball));

    // W1, with its own folder for /usr/local/bin: no other name in the tarball may begin with `etcd`.
    let line = "tar -xf etcd-v*.tar.gz && mkdir bin && mv etcd-v*-linux-*/etcd* bin/ && ls bin && ls etcd-v*/README.md";
    let shown = stdout_of(Command::new("sh").arg("-c").arg(line).current_dir(out.path()));
    assert_eq!(shown.lines().take(3).collect::<Vec<_>>(), PROGRAMS);
    let version = stdout_of(Command::new(out.join("bin/etcd")).arg("--version"));
    assert!(version.starts_with("etcd Version: 3.7.1\n"), "{version}");
    let folder = name.trim_end_matches(".tar.gz");
    for path in ["docs/COMPAT.md", "contrib/tls-setup/tls-setup", "LICENSE", "NOTICE", "SECURITY.md"] {
        assert!(out.join(folder).join(path).is_file(), "{path} is not in the tarball");
    }
    assert_links(&out.join(folder), "README.md");
}

/// Files that a document links to are beside it.
fn assert_links(root: &Path, document: &str) {
    let words = fs::read_to_string(root.join(document)).expect("the document");
    let links = words.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
        let path = link.split('#').next().unwrap_or_default();
        assert!(root.join(path).exists(), "{document} links to {path}, which is not there");
    }
}

#[test]
fn a_release_for_a_machine_that_cannot_be_built_for_says_what_is_missing() {
    let other = if std::env::consts::ARCH == "x86_64" { "arm64" } else { "amd64" };
    let target = if other == "arm64" { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };
    let libdir = stdout_of(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    if Path::new(libdir.trim()).is_dir() {
        println!("SKIPPED: {target} is installed here");
        return;
    }
    let out = TempDir::new("other-arch");
    let mut xtask = Command::new(built(&["xtask"]).join("xtask"));
    let said = run(xtask.args(["release", "tarball", "--arch", other, "--out"]).arg(out.path()));
    let why = text(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{why}");
    assert!(why.contains(&format!("the target {target} is not installed here: `rustup target add {target}`")), "{why}");
}

#[test]
fn the_debian_package_is_one_by_dpkgs_lights_and_installs() {
    if !there_is("dpkg-deb") {
        println!("SKIPPED: no dpkg-deb here");
        return;
    }
    let out = release("deb", &["deb"]);
    let deb = found(out.path(), ".deb");
    let field = |name: &str| stdout_of(Command::new("dpkg-deb").arg("-f").arg(&deb).arg(name)).trim().to_owned();
    assert_eq!(field("Package"), "oxetcd");
    assert!(field("Version").starts_with("3.7.1+oxetcd"), "{}", field("Version"));
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));

    let root = out.join("root");
    stdout_of(Command::new("dpkg-deb").arg("-R").arg(&deb).arg(&root));
    assert_eq!(fs::read_to_string(root.join("DEBIAN/conffiles")).expect("conffiles"), "/etc/default/etcd\n");
    for path in ["etc/default/etcd", "usr/lib/systemd/system/etcd.service", "usr/lib/sysusers.d/etcd.conf"] {
        assert_eq!(mode(&root.join(path)), 0o644, "{path}");
    }
    for path in
        ["usr/bin/etcd", "usr/bin/etcdctl", "usr/bin/etcdutl", "DEBIAN/postinst", "DEBIAN/prerm", "DEBIAN/postrm"]
    {
        assert_eq!(mode(&root.join(path)), 0o755, "{path}");
    }
    let completions = fs::read(root.join("usr/share/bash-completion/completions/etcdctl")).expect("completions");
    assert_eq!(text(&completions), stdout_of(Command::new(programs().join("etcdctl")).args(["completion", "bash"])));
    let manuals =
        fs::read_dir(source("docs/man")).map(|pages| pages.map(|page| page.expect("a page").path()).collect());
    for page in manuals.unwrap_or_else(|_| Vec::new()) {
        let section = page.extension().expect("a section").to_string_lossy();
        let name = page.file_name().expect("a name").to_string_lossy();
        let packed = root.join(format!("usr/share/man/man{section}/{name}.gz"));
        assert!(packed.is_file(), "{name} is not in the package");
    }
    for script in ["postinst", "prerm", "postrm"] {
        stdout_of(Command::new("sh").arg("-n").arg(root.join("DEBIAN").join(script)));
    }
    install(&deb, &out);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o7777
}

/// dpkg installs, removes and purges it in a copy of this machine that nothing of comes back from.
fn install(deb: &Path, out: &TempDir) {
    let script = format!(
        "set -e
         mount -t tmpfs none {folder} || exit 77
         mkdir {folder}/up {folder}/work {folder}/merged
         mount -t overlay overlay -o lowerdir=/,upperdir={folder}/up,workdir={folder}/work {folder}/merged || exit 77
         mkdir -p {folder}/merged/tmp
         cp /proc/self/fd/3 {folder}/merged/tmp/oxetcd.deb
         exec chroot {folder}/merged sh -ec '
            command -v adduser >/dev/null || exit 77
            userdel etcd 2>/dev/null || true
            rm -rf /var/lib/etcd
            dpkg --force-depends --force-conflicts --force-overwrite -i /tmp/oxetcd.deb >&2
            etcd --version | head -1
            stat -c \"%a %U\" /var/lib/etcd
            getent passwd etcd | cut -d: -f1,6
            echo data > /var/lib/etcd/kept
            dpkg --purge oxetcd >&2
            ls /var/lib/etcd
            ls /etc/default/etcd /usr/bin/etcd 2>/dev/null || echo gone'",
        folder = out.join("overlay").display()
    );
    if !may_set_apart("installing the package") {
        return;
    }
    fs::create_dir(out.join("overlay")).expect("a folder");
    let line = format!("exec 3<{} && {script}", deb.display());
    let said = run(Command::new("unshare").args(["--mount", "sh", "-c", &line]));
    if said.status.code() == Some(77) {
        println!("SKIPPED: installing the package needs overlay mounts and adduser");
        return;
    }
    assert!(said.status.success(), "{}\n{}", text(&said.stdout), text(&said.stderr));
    assert_eq!(text(&said.stdout), "etcd Version: 3.7.1\n700 etcd\netcd:/var/lib/etcd\nkept\ngone\n");
}

#[test]
fn the_unit_is_one_by_systemds_lights_and_its_flags_are_ours() {
    let unit = read_source("contrib/systemd/etcd.service");
    for line in [
        "Type=notify",
        "EnvironmentFile=-/etc/default/etcd",
        "User=etcd",
        "StateDirectoryMode=0700",
        "LimitNOFILE=65536",
    ] {
        assert!(unit.lines().any(|given| given == line), "no {line} in the unit");
    }
    for (variable, _) in variables(&unit).chain(variables(&read_source("packaging/debian/default"))) {
        assert!(flags_of_ours().contains(&flag_of(variable)), "{variable} is no variable of ours");
    }
    if !there_is("systemd-analyze") {
        println!("SKIPPED: no systemd-analyze here");
        return;
    }
    // It looks for the program in the places that systemd looks in.
    let folder = TempDir::new("unit");
    let file = folder.join("etcd.service");
    let program = format!("ExecStart={} $DAEMON_ARGS", programs().join("etcd").display());
    fs::write(&file, unit.replace("ExecStart=etcd $DAEMON_ARGS", &program)).expect("the test's own folder");
    let said = run(Command::new("systemd-analyze").args(["--man=no", "verify"]).arg(&file));
    let complaints = text(&said.stderr);
    let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("etcd.service")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

/// `ETCD_X=value` as assignments, also commented out ones.
fn variables(file: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = file.lines().map(|line| line.trim_start_matches('#').trim_start_matches("Environment="));
    lines.filter(|line| line.starts_with("ETCD_")).filter_map(|line| line.split_once('='))
}

fn flag_of(variable: &str) -> String {
    variable.trim_start_matches("ETCD_").to_lowercase().replace('_', "-")
}

/// What `etcd --help` lists.
fn flags_of_ours() -> &'static BTreeSet<String> {
    static FLAGS: OnceLock<BTreeSet<String>> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let help = stdout_of(Command::new(our_etcd()).arg("--help"));
        let flags = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
        flags.map(str::to_owned).collect()
    })
}

#[test]
fn systemd_is_told_when_the_member_serves() {
    let folder = TempDir::new("notify");
    let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a nonzero timeout is valid");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    launch.env.insert("NOTIFY_SOCKET".into(), folder.join("notify").display().to_string());
    let server = launch.start();
    let mut told = [0; 64];
    let length = socket.recv(&mut told).unwrap_or_else(|e| panic!("{e}; log:\n{}", server.log()));
    assert_eq!(text(&told[..length]), "READY=1");
    assert_eq!(mode(&folder.join("data")), 0o700);
}

/// A root file system with this machine's shell and mv, and what these and our programs are linked with.
fn rootfs(folder: &TempDir) -> PathBuf {
    let root = folder.join("base");
    fs::create_dir_all(root.join("bin")).expect("a folder");
    let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
    let ours = PROGRAMS.map(|name| ("", programs().join(name)));
    for (name, program) in [("sh", "/bin/sh".into()), ("mv", "/bin/mv".into())].into_iter().chain(ours) {
        let said = stdout_of(Command::new("ldd").arg(&program));
        needed.extend(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        if !name.is_empty() {
            fs::copy(&program, root.join("bin").join(name)).expect("a copy");
        }
    }
    for library in needed {
        let to = root.join(library.strip_prefix("/").expect("it begins so"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(&library, to).expect("a copy");
    }
    let archive = folder.join("rootfs.tar.gz");
    stdout_of(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&root).arg("."));
    archive
}

/// An image, read as a loader reads it: its configuration, and its root file system below `to`.
fn opened(image: &Path, folder: &TempDir, to: &Path) -> Value {
    let layout = folder.join(&format!("{}.d", image.file_name().expect("a name").to_string_lossy()));
    unpack(image, &layout);
    let json = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(layout.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))).expect("JSON")
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let blob = |descriptor: &Value| -> String {
        let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let file = layout.join(&path);
        assert_eq!(format!("sha256:{}", sum(&file)), digest);
        assert_eq!(descriptor["size"], fs::metadata(&file).expect("a blob").len());
        path
    };
    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    let layers = manifest["layers"].as_array().expect("layers");
    let docker = &json("manifest.json")[0];
    assert_eq!(docker["Config"], blob(&manifest["config"]));
    for (n, layer) in layers.iter().enumerate() {
        let path = blob(layer);
        assert_eq!(docker["Layers"][n], path);
        unpack(&layout.join(&path), to);
        let plain = run(Command::new("gzip").arg("-dc").arg(layout.join(&path))).stdout;
        let sum: String = Sha256::digest(plain).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(config["rootfs"]["diff_ids"][n], format!("sha256:{sum}"));
    }
    config
}

/// A container's first process, in its root file system, by `unshare` and `chroot`.
struct Container {
    outside: Child,
    first: Pid,
    log: BufReader<std::process::ChildStderr>,
}

impl Container {
    /// Starts etcd as a runtime without a daemon would, and waits until it serves.
    fn start(root: &Path, words: &[String]) -> Container {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(format!("--mount-proc={}", root.join("proc").display()));
        command.arg("chroot").arg(root).args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut outside = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("unshare");
        let mut log = BufReader::new(outside.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("ready to serve client requests") {
            let start = said.len();
            log.read_line(&mut said).expect("text");
            assert!(said.len() > start, "it ended: {:?}\n{said}", outside.wait());
        }
        let id = outside.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
        let first = Pid::from_raw(children.trim().parse().expect("one child")).expect("an id");
        Container { outside, first, log }
    }

    /// SIGTERM; what the first process ends with.
    fn stop(mut self) -> Option<i32> {
        kill_process(self.first, Signal::TERM).expect("it runs");
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut self.log, &mut rest).expect("its log");
        self.outside.wait().expect("it ends").code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // `--kill-child`: what is inside goes with it.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// W3: the image, and the tutorial's commands in it.
#[test]
fn the_image_runs_the_walkthrough_without_a_daemon() {
    let folder = TempDir::new("image");
    let mut xtask = Command::new(built(&["xtask"]).join("xtask"));
    xtask.args(["release", "image", "--out"]).arg(folder.path()).arg("--bin-dir").arg(programs());
    match std::env::var_os("OXETCD_BUSYBOX") {
        Some(busybox) => xtask.arg("--busybox").arg(busybox),
        None => xtask.arg("--rootfs").arg(rootfs(&folder)),
    };
    stdout_of(xtask.env("SOURCE_DATE_EPOCH", EPOCH));
    let (root, bare) = (folder.join("root"), folder.join("bare"));
    let config = opened(&found(folder.path(), "64.oci.tar"), &folder, &root);
    opened(&found(folder.path(), "-noshell.oci.tar"), &folder, &bare);
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["/usr/local/bin/etcd"]));
    assert!(config["config"]["Entrypoint"].is_null());
    let ports: Vec<&String> = config["config"]["ExposedPorts"].as_object().expect("ports").keys().collect();
    assert_eq!(ports, ["2379/tcp", "2380/tcp"]);
    assert!(!bare.join("bin").exists(), "the image without a shell has one");
    for name in PROGRAMS {
        assert_eq!(mode(&root.join("usr/local/bin").join(name)), 0o755);
        assert_eq!(mode(&bare.join("usr/local/bin").join(name)), 0o755);
    }
    if !may_set_apart("running what is in the image") {
        return;
    }
    walk(&root);
    // The other one has the same programs; that they start shows that their libraries are with them.
    let version = stdout_of(Command::new("chroot").arg(&bare).args(["/usr/local/bin/etcd", "--version"]));
    assert!(version.starts_with("etcd Version: 3.7.1\n"), "{version}");
}

fn walk(root: &Path) {
    for dir in ["proc", "etcd-data", "backup-data"] {
        fs::create_dir_all(root.join(dir)).expect("a runtime makes these");
    }
    let (client, peer) = free_ports();
    let line = format!(
        "/usr/local/bin/etcd --data-dir=/etcd-data --name node1 --initial-advertise-peer-urls http://127.0.0.1:{peer} \
         --listen-peer-urls http://0.0.0.0:{peer} --advertise-client-urls http://127.0.0.1:{client} \
         --listen-client-urls http://0.0.0.0:{client} --initial-cluster node1=http://127.0.0.1:{peer}"
    );
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let shell = |line: &str| {
        let mut command = Command::new("chroot");
        command
            .arg(root)
            .args(["/bin/sh", "-ec", line])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        stdout_of(&mut command)
    };
    let ctl = format!("etcdctl --endpoints=http://127.0.0.1:{client}");
    let etcd = Container::start(root, &words);
    assert_eq!(shell(&format!("{ctl} put foo1 bar1")), "OK\n");
    shell(&format!("{ctl} snapshot save /backup-data/snapshot.db"));
    assert_eq!(etcd.stop(), Some(0), "the first process of a container ends with 0 on SIGTERM");

    fs::remove_dir_all(root.join("etcd-data")).expect("the volume is gone");
    fs::create_dir(root.join("etcd-data")).expect("a new one");
    shell(&format!(
        "cd / && {ctl} snapshot restore /backup-data/snapshot.db --name node1 --initial-advertise-peer-urls \
         http://127.0.0.1:{peer} --initial-cluster node1=http://127.0.0.1:{peer} && mv /node1.etcd/* /etcd-data"
    ));
    let etcd = Container::start(root, &words);
    assert_eq!(shell(&format!("{ctl} get foo1 --print-value-only")), "bar1\n");
    assert_eq!(etcd.stop(), Some(0));
}

#[test]
fn certificates_made_by_one_command_serve_a_member_and_its_clients() {
    if !there_is("openssl") {
        println!("SKIPPED: no openssl here");
        return;
    }
    let folder = TempDir::new("tls-setup");
    let setup = |words: &[&str]| {
        let script = source("contrib/tls-setup/tls-setup");
        run(Command::new(script).current_dir(folder.path()).args(words))
    };
    for (words, why) in [
        (&["127.0.0.1:2379"][..], "give hosts without a port"),
        (&["http://node"], "give hosts without scheme and port"),
        (&["--days", "soon"], "not a number of days"),
        (&["--user", "a/b"], "a name without"),
        (&["--oops"], "unknown flag"),
    ] {
        let said = setup(words);
        assert!(said.status.code() == Some(1) && text(&said.stderr).contains(why), "{words:?}: {said:?}");
        assert!(!folder.join("certs").exists(), "{words:?} left something");
    }
    let made = setup(&["node-1.example.com,10.0.0.1", "fe80::1"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for key in ["ca.key", "server.key", "peer.key", "client.key"] {
        assert_eq!(mode(&folder.join("certs").join(key)), 0o600, "{key}");
    }
    let authority = sum(&folder.join("certs/ca.crt"));

    let printed = text(&made.stdout);
    let (member, client) = printed.split_once("# etcdctl:").expect("two parts");
    let flags: Vec<&str> = member.split_whitespace().filter(|word| word.starts_with("--")).collect();
    let mut launch = Launch::new(&our_etcd(), &folder.join("data")).with_tls(true, true).with_flags(&flags);
    let server = launch.start();
    let put = |flags: &[&str]| {
        let mut etcdctl = Command::new(tools::our_etcdctl());
        etcdctl.args(["--command-timeout=5s", "--endpoints", &server.client_url()]).args(flags).args(["put", "a", "b"]);
        run(&mut etcdctl)
    };
    let client: Vec<&str> = client.split_whitespace().collect();
    assert_eq!(text(&put(&client).stdout), "OK\n");
    assert!(!put(&client[..1]).status.success(), "without a certificate");
    // Again: other certificates by the same authority, which the member takes as it runs.
    assert!(setup(&["node-2.example.com"]).status.success());
    assert_eq!(sum(&folder.join("certs/ca.crt")), authority);
    assert_eq!(text(&put(&client).stdout), "OK\n");
    fs::remove_file(folder.join("certs/ca.key")).expect("it was there");
    let said = setup(&[]);
    assert!(text(&said.stderr).contains("bring the key"), "{said:?}");
}

/// Every list of words that is a command line of etcd, kubeadm's extra arguments and ETCD_* variables.
fn command_lines(value: &Value, lines: &mut Vec<Vec<String>>) {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match value {
        Value::Object(fields) => {
            let words = [texts(&value["command"]), texts(&value["args"])].concat();
            if words.first().is_some_and(|program| program.ends_with("etcd")) {
                lines.push(words[1..].to_vec());
            }
            if let Some(extra) = fields.get("extraArgs").and_then(Value::as_array) {
                let flag = |arg: &Value| Some(format!("--{}={}", arg["name"].as_str()?, arg["value"].as_str()?));
                lines.push(extra.iter().map(|arg| flag(arg).expect("a name and a text")).collect());
            }
            fields.values().for_each(|value| command_lines(value, lines));
        }
        Value::Array(values) => values.iter().for_each(|value| command_lines(value, lines)),
        _ => {}
    }
}

#[test]
fn examples_for_kubernetes_are_yaml_and_their_flags_are_ours() {
    let mut seen = 0;
    for (file, lines_in_it, kinds) in [
        ("kubeadm-config.yaml", 1, &["ClusterConfiguration"][..]),
        ("static-pod.yaml", 1, &["Pod"]),
        ("statefulset.yaml", 1, &["Service", "Service", "PodDisruptionBudget", "StatefulSet"]),
        ("servicemonitor.yaml", 0, &["ServiceMonitor"]),
    ] {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&read_source(&format!("contrib/kubernetes/{file}")))
            .unwrap_or_else(|e| panic!("{file}: {e}"));
        let found: Vec<&str> = documents.iter().map(|document| document["kind"].as_str().expect("a kind")).collect();
        assert_eq!(found, kinds, "{file}");
        assert!(documents.iter().all(|document| document["apiVersion"].is_string()), "{file}");
        let mut lines = Vec::new();
        documents.iter().for_each(|document| command_lines(document, &mut lines));
        assert_eq!(lines.len(), lines_in_it, "{file}: {lines:?}");
        for line in lines {
            seen += line.len();
            assert_taken(file, &line);
        }
    }
    assert!(seen > 40, "{seen} flags");
    // It would be seen.
    assert_eq!(parse(&["--listen-clients-urls=http://a:1".to_owned()]).0, Some(2));
}

/// The server's parser takes them: it looks at all of them before it shows its version.
fn parse(flags: &[String]) -> (Option<i32>, String) {
    let said = run(Command::new(our_etcd()).args(flags).arg("--version"));
    (said.status.code(), text(&said.stderr))
}

fn assert_taken(file: &str, line: &[String]) {
    for word in line {
        let name = word.trim_start_matches("--").split('=').next().unwrap_or_default();
        assert!(flags_of_ours().contains(name), "{file}: --{name} is no flag of ours");
    }
    // What Kubernetes puts in.
    let filled: Vec<String> = line
        .iter()
        .map(|word| word.replace("$(POD_NAME)", "etcd-0").replace("$(HOST)", "host").replace("$(DOMAIN)", "domain"))
        .collect();
    assert!(!filled.iter().any(|word| word.contains("$(")), "{file}: a variable that nobody sets: {filled:?}");
    let (code, why) = parse(&filled);
    assert_eq!(code, Some(0), "{file}: {why}");
}
