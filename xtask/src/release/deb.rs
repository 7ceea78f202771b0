//! The Debian package `oxetcd`, by hand: an `ar` of `debian-binary`, `control.tar.gz` and `data.tar.gz` (deb(5)).

use super::Release;
use super::tree::{Tree, gzip};
use crate::Result;
use std::fmt::Write as _;

/// Settings of the administrator, which an upgrade asks about.
const CONFFILES: [&str; 1] = ["/etc/default/etcd"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Where a shell looks for completions of a program.
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/", ""),
    ("zsh", "usr/share/zsh/vendor-completions/_", ""),
    ("fish", "usr/share/fish/vendor_completions.d/", ".fish"),
];

/// Its name and its bytes.
pub fn make(release: &Release) -> Result<(String, Vec<u8>)> {
    let arch = release.arch.name();
    // Debian's order: `+` is newer than the version before it.
    let version = release.version.replacen("-oxetcd", "+oxetcd", 1);
    let data = data(release)?;
    let control = control(release, &version, &data)?;
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control.tar(release.time)?)?),
        ("data.tar.gz", gzip(&data.tar(release.time)?)?),
    ];
    Ok((format!("oxetcd_{version}_{arch}.deb"), ar(&members, release.time)))
}

fn data(release: &Release) -> Result<Tree> {
    let mut tree = Tree::default();
    for (name, bytes) in release.binaries.iter() {
        tree.file(&format!("usr/bin/{name}"), bytes, 0o755);
    }
    for name in ["etcdctl", "etcdutl"] {
        for (shell, before, after) in COMPLETIONS {
            let script = release.binaries.says(name, &["completion", shell])?;
            tree.file(&format!("{before}{name}{after}"), script, 0o644);
        }
    }
    let doc = "usr/share/doc/oxetcd";
    for (from, to) in [
        ("packaging/debian/default", "etc/default/etcd"),
        ("contrib/systemd/etcd.service", "usr/lib/systemd/system/etcd.service"),
        ("contrib/systemd/etcd.sysusers", "usr/lib/sysusers.d/etcd.conf"),
        ("README.md", &format!("{doc}/README.md")),
        ("CHANGELOG.md", &format!("{doc}/CHANGELOG.md")),
        ("SECURITY.md", &format!("{doc}/SECURITY.md")),
        ("NOTICE", &format!("{doc}/copyright")),
        ("docs", &format!("{doc}/docs")),
        ("contrib", &format!("{doc}/contrib")),
        ("examples", &format!("{doc}/examples")),
    ] {
        release.copy(&mut tree, from, to)?;
    }
    manuals(release, &mut tree)?;
    Ok(tree)
}

/// `docs/man/NAME.SECTION`, where there are any.
fn manuals(release: &Release, tree: &mut Tree) -> Result<()> {
    let Ok(pages) = std::fs::read_dir(release.root.join("docs/man")) else { return Ok(()) };
    for page in pages {
        let page = page?.path();
        let section = page.extension().and_then(|section| section.to_str());
        let name = page.file_name().and_then(|name| name.to_str());
        if let (Some(name), Some(section @ ("1" | "5" | "8"))) = (name, section) {
            tree.file(&format!("usr/share/man/man{section}/{name}.gz"), gzip(&std::fs::read(&page)?)?, 0o644);
        }
    }
    Ok(())
}

fn control(release: &Release, version: &str, data: &Tree) -> Result<Tree> {
    let bytes: usize = data.files().map(|(_, bytes)| bytes.len()).sum();
    let text = String::from_utf8(release.source("packaging/debian/control")?)?
        .replace("@VERSION@", version)
        .replace("@ARCH@", release.arch.name())
        .replace("@GLIBC@", &release.binaries.glibc())
        .replace("@KIB@", &bytes.div_ceil(1024).to_string());
    let mut tree = Tree::default();
    tree.file("control", text, 0o644);
    tree.file("conffiles", CONFFILES.map(|file| format!("{file}\n")).concat(), 0o644);
    for script in SCRIPTS {
        tree.file(script, release.source(&format!("packaging/debian/{script}"))?, 0o755);
    }
    Ok(tree)
}

/// The `ar` of deb(5): a header of 60 bytes before each member, and members at even places.
///
/// ```text
/// 0        16        28      34      40        48        58
/// | name   | seconds | owner | group | mode    | length  | ` \n |
/// ```
fn ar(members: &[(&str, Vec<u8>)], time: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let mut header = String::new();
        writeln!(header, "{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, "100644", bytes.len())
            .expect("texts can be written to");
        archive.extend(header.as_bytes());
        archive.extend(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_an_ar_begin_at_even_places() {
        let archive = ar(&[("debian-binary", b"2.0\n".to_vec()), ("odd", b"x".to_vec()), ("end", Vec::new())], 5);
        assert_eq!(archive.len(), 8 + 60 + 4 + 60 + 2 + 60);
        let header = &archive[8 + 60 + 4..][..60];
        assert_eq!(header, b"odd             5           0     0     100644  1         `\n");
    }
}
