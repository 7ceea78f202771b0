//! Container images without a daemon: an archive with an OCI image layout, and `manifest.json` besides for the
//! loaders that know docker's own.
//!
//! ```text
//! oci-layout · index.json ─► manifest ─► config, layers (blobs/sha256/…)
//! manifest.json ────────────────────────► config, layers
//! ```
//! As etcd's image: programs in /usr/local/bin, no entrypoint, `CMD etcd`, ports 2379 and 2380, no volume. Below them a
//! base with /bin/sh and mv, for what people run in one shell; an image without one besides. Where the programs are
//! linked with shared libraries, these come along.

use super::Release;
use super::tree::{Tree, gzip};
use crate::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Where a static busybox is on Debian.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];
/// What of busybox is of use beside a database.
const APPLETS: [&str; 32] = [
    "awk", "base64", "cat", "chmod", "chown", "cp", "cut", "date", "df", "du", "env", "find", "grep", "gzip", "head",
    "hostname", "id", "kill", "ls", "mkdir", "mv", "nslookup", "ps", "rm", "sed", "sh", "sleep", "tail", "tar", "tee",
    "vi", "wget",
];
/// A member may be run as another user than root.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// Names from /etc/hosts come before those from DNS.
const NSSWITCH: &str = "hosts: files dns\n";

/// What is below the programs in the image with a shell.
#[derive(Debug)]
pub enum Base {
    /// A static busybox.
    Busybox(PathBuf),
    /// An archive of a root file system, plain or gzipped, which has a C library that fits.
    Rootfs(PathBuf),
}

impl Base {
    /// As asked for, else the busybox of this machine.
    pub fn choose(busybox: Option<&Path>, rootfs: Option<&Path>) -> Result<Base> {
        let here = || BUSYBOX.into_iter().map(Path::new).find(|path| path.exists());
        match (rootfs, busybox.or_else(here)) {
            (Some(rootfs), _) => Ok(Base::Rootfs(rootfs.to_owned())),
            (None, Some(busybox)) => Ok(Base::Busybox(busybox.to_owned())),
            (None, None) => {
                Err("image: nothing here to put /bin/sh and mv into it: give --busybox FILE, a static one \
                                 (Debian's package busybox-static), or --rootfs FILE, an archive of a root file system"
                    .into())
            }
        }
    }
}

/// One layer: the archive's digest, and the gzipped archive.
#[derive(Debug)]
struct Layer {
    diff_id: String,
    blob: Vec<u8>,
}

impl Layer {
    fn new(tar: &[u8]) -> Result<Layer> {
        Ok(Layer { diff_id: digest(tar), blob: gzip(tar)? })
    }
}

/// The image with a shell, and the one without.
pub fn make(release: &Release, base: &Base) -> Result<Vec<(String, Vec<u8>)>> {
    let programs = Layer::new(&programs(release).tar(release.time)?)?;
    let runtime = runtime(release)?;
    let below = match base {
        Base::Rootfs(file) => Layer::new(&rootfs(file)?)?,
        Base::Busybox(file) => {
            let mut tree = self::runtime(release)?;
            add_busybox(&mut tree, file)?;
            Layer::new(&tree.tar(release.time)?)?
        }
    };
    let bare = Layer::new(&runtime.tar(release.time)?)?;
    let stem = release.stem();
    let tag = &release.version;
    Ok(vec![
        (format!("{stem}.oci.tar"), archive(release, tag, &[&below, &programs])?),
        (format!("{stem}-noshell.oci.tar"), archive(release, &format!("{tag}-noshell"), &[&bare, &programs])?),
    ])
}

fn programs(release: &Release) -> Tree {
    let mut tree = Tree::default();
    for (name, bytes) in release.binaries.iter() {
        tree.file(&format!("usr/local/bin/{name}"), bytes, 0o755);
    }
    tree
}

/// What programs find in any root: names, a place for temporary files, their libraries.
fn runtime(release: &Release) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("etc/passwd", PASSWD, 0o644);
    tree.file("etc/group", GROUP, 0o644);
    tree.file("etc/nsswitch.conf", NSSWITCH, 0o644);
    tree.dir("tmp", 0o1777);
    tree.dir("var/lib/etcd", 0o700);
    for library in release.binaries.libraries()? {
        let path = library.to_str().ok_or_else(|| format!("{} is no text", library.display()))?;
        let bytes = std::fs::read(&library).map_err(|e| format!("{path}: {e}"))?;
        tree.file(path.trim_start_matches('/'), bytes, 0o755);
    }
    Ok(tree)
}

fn add_busybox(tree: &mut Tree, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    // One that needs libraries would bring a shell that does not start.
    let ldd = Command::new("ldd").arg(file).output().map_err(|e| format!("ldd: {e}"))?;
    if ldd.status.success() && !String::from_utf8_lossy(&ldd.stdout).contains("statically linked") {
        let cure = "take Debian's package busybox-static";
        return Err(format!("{}: not a static busybox: {cure}", file.display()).into());
    }
    tree.file("bin/busybox", bytes, 0o755);
    for applet in APPLETS {
        tree.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}

/// The archive, unpacked where it was gzipped.
fn rootfs(file: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut tar)?;
    Ok(tar)
}

/// The whole image as one file.
fn archive(release: &Release, tag: &str, layers: &[&Layer]) -> Result<Vec<u8>> {
    let name = format!("localhost/etcd:{tag}");
    let mut tree = Tree::default();
    let mut blob = |media: &str, bytes: &[u8]| -> Value {
        let digest = digest(bytes);
        tree.file(&format!("blobs/{}", digest.replace(':', "/")), bytes, 0o644);
        json!({"mediaType": media, "digest": digest, "size": bytes.len()})
    };
    let config = blob(CONFIG, config(release, layers)?.to_string().as_bytes());
    let blobs: Vec<Value> = layers.iter().map(|layer| blob(LAYER, &layer.blob)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs});
    let mut top = blob(MANIFEST, manifest.to_string().as_bytes());
    top["platform"] = json!({"os": "linux", "architecture": release.arch.name()});
    top["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let path = |blob: &Value| format!("blobs/{}", blob["digest"].as_str().unwrap_or_default().replace(':', "/"));
    let docker = json!([{
        "Config": path(&config), "RepoTags": [name], "Layers": blobs.iter().map(path).collect::<Vec<_>>(),
    }]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
    tree.file("index.json", index.to_string(), 0o644);
    tree.file("manifest.json", docker.to_string(), 0o644);
    tree.file("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string(), 0o644);
    tree.tar(release.time)
}

fn config(release: &Release, layers: &[&Layer]) -> Result<Value> {
    let created = jiff::Timestamp::from_second(i64::try_from(release.time)?)?.to_string();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    Ok(json!({
        "created": created,
        "architecture": release.arch.name(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/usr/local/bin/etcd"],
            "WorkingDir": "/var/lib/etcd/",
            "ExposedPorts": {"2379/tcp": {}, "2380/tcp": {}},
            "Labels": {
                "org.opencontainers.image.title": "oxetcd",
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|_| json!({"created": created, "created_by": "xtask release"})).collect::<Vec<_>>(),
    }))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
