//! Files in memory, and archives of them that are the same each time.

use crate::Result;
use flate2::{Compression, GzBuilder};
use std::collections::BTreeMap;
use std::io::Write as _;

/// Paths without a leading slash, in the alphabet's order: a folder comes before what is in it.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Dir { mode: u32 },
    File { bytes: Vec<u8>, mode: u32 },
    Link { target: String },
}

impl Tree {
    /// Adds a file and the folders it is in.
    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::File { bytes: bytes.into(), mode });
    }

    /// Adds a folder and those it is in.
    pub fn dir(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Dir { mode });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Link { target: target.to_owned() });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Dir { mode: 0o755 });
        }
    }

    /// Its files: paths and bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(path, entry)| match entry {
            Entry::File { bytes, .. } => Some((path.as_str(), bytes.as_slice())),
            _ => None,
        })
    }

    /// A tar archive; root owns all.
    pub fn tar(&self, time: u64) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(time);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_username("root")?;
            header.set_groupname("root")?;
            match entry {
                Entry::Dir { mode } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    archive.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Entry::File { bytes, mode } => {
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }
}

/// gzip without a name or a time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_depends_on_nothing_but_what_is_in_it() {
        let long = format!("a/{}/end", "x".repeat(150));
        let build = |paths: &[&str]| {
            let mut tree = Tree::default();
            paths.iter().for_each(|path| tree.file(path, path.as_bytes(), 0o644));
            tree.link("a/link", "b");
            tree.dir("a/private", 0o700);
            gzip(&tree.tar(7).unwrap()).unwrap()
        };
        let one = build(&["a/b", "c", &long]);
        assert_eq!(one, build(&[&long, "c", "a/b"]));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(one.as_slice()));
        let listed: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 7));
                format!("{:o} {}", header.mode().unwrap(), entry.path().unwrap().display())
            })
            .collect();
        let folder = long.trim_end_matches("end");
        let expected = [
            "755 a/",
            "644 a/b",
            "777 a/link",
            "700 a/private/",
            &format!("755 {folder}"),
            &format!("644 {long}"),
            "644 c",
        ];
        assert_eq!(listed, expected);
    }
}
