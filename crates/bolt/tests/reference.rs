//! `bbolt check` on files of ours; needs the reference binaries (`OXETCD_REFERENCE`).

#![allow(clippy::disallowed_methods, reason = "the reference tools read real files")]

use bolt::{Db, Fill, Options};
use bytes::Bytes;
use disk::RealDisk;
use std::path::Path;
use std::process::Command;

fn churn(path: &Path, page_size: u32, seed: u64) {
    let mut random = seed * 2 + 1;
    let mut draw = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let options = Options { page_size: Some(page_size), no_sync: true, ..Options::default() };
    let db = Db::open(RealDisk::shared(), path, options).unwrap();
    for _ in 0..60 {
        let mut tx = db.begin().unwrap();
        for name in [&b"key"[..], b"meta", b"lease"] {
            tx.create_bucket(name).unwrap();
        }
        let (from, remove) = (draw(6000), draw(3) == 0);
        for n in from..from + draw(1500) {
            let bucket = [&b"key"[..], b"key", b"key", b"meta"][draw(4) as usize];
            let key = Bytes::from(format!("{n:040}"));
            if remove {
                tx.delete(bucket, &key).unwrap();
            } else {
                let len = if draw(200) == 0 { 20_000 } else { draw(300) };
                tx.put(bucket, key, vec![b'x'; len as usize].into(), Fill::Append).unwrap();
            }
        }
        tx.commit().unwrap();
    }
}

#[test]
fn bbolt_check_finds_nothing_wrong_with_our_files() {
    let Some(reference) = std::env::var_os("OXETCD_REFERENCE") else {
        println!("SKIPPED: OXETCD_REFERENCE names no folder of reference binaries");
        return;
    };
    for (seed, page_size) in [(1, 4096), (2, 4096), (3, 16_384), (4, 65_536)] {
        let path = std::env::temp_dir().join(format!("oxetcd-bolt-{}-{seed}", std::process::id()));
        churn(&path, page_size, seed);
        let out = Command::new(Path::new(&reference).join("tools/bbolt")).arg("check").arg(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(out.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&out.stdout));
    }
}
