//! `snapshot save`, and the old spellings `snapshot status` and `snapshot restore`, which run etcdutl's code.

use crate::globals::Ctl;
use crate::log;
use crate::output::write_out;
use client::Stream;
use cobra::{Call, Exit};
use go::log_string;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

/// Bytes of the checksum at the end of the stream.
const SUM_BYTES: u64 = 32;
/// All databases are a multiple of this, so a checksum shows in the size.
const SECTOR_BYTES: u64 = 512;

/// What came over the wire.
struct Saved {
    size: u64,
    version: String,
}

/// `snapshot save FILE`.
pub fn save(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("snapshot save expects one argument <filename>"));
    }
    let path = call.arg(0);
    let ctl = Ctl::open_logging_as(call, "client")?;
    let endpoints = ctl.client.endpoints().to_vec();
    let [endpoint] = endpoints.as_slice() else {
        let all = endpoints.join(" ");
        let text = format!("snapshot must be requested to one selected node, not multiple [{all}]");
        return Err(Exit::with(5, text));
    };
    let part = format!("{path}.part");
    let start = Instant::now();
    let outcome = fetch(&ctl, Path::new(&part), endpoint, start);
    if outcome.is_err() {
        // What is there is no snapshot. Where it can't be removed either, the first error says more.
        let _ = std::fs::remove_file(&part);
    }
    let saved = outcome?;
    std::fs::rename(&part, &path)
        .map_err(|e| Exit::with(5, format!("could not rename {part} to {path} ({})", go::os_text(&e))))?;
    sync_directory_of(Path::new(&path)).map_err(|e| Exit::with(5, go::os_text(&e)))?;
    log::info("", "snapshot/v3_snapshot.go:121", "saved", &[("path", log_string(&path))]);
    let mut text = format!("Snapshot saved at {path}\n");
    if !saved.version.is_empty() {
        text += &format!("Server version {}\n", saved.version);
    }
    write_out(text.as_bytes());
    Ok(())
}

fn fetch(ctl: &Ctl, part: &Path, endpoint: &str, start: Instant) -> Result<Saved, Exit> {
    let shown = part.display();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(part)
        .map_err(|e| Exit::with(5, format!("could not open {shown} (open {shown}: {})", go::os_text(&e))))?;
    log::info(
        "",
        "snapshot/v3_snapshot.go:83",
        "created temporary db file",
        &[("path", log_string(&shown.to_string()))],
    );
    let client = ctl.timed_if_asked();
    let saved = ctl.block_on(async {
        let stream = client.snapshot().await.map_err(|e| {
            let error = [("error", log_string(&e.to_string()))];
            log::line(
                "error",
                "client",
                "v3@v3.7.1/retry_interceptor.go:134",
                "streamer failed to create ClientStream",
                &error,
            );
            Exit::with(5, e.to_string())
        })?;
        log::info("client", "v3@v3.7.1/maintenance.go:236", "opened snapshot stream; downloading", &[]);
        log::info("", "snapshot/v3_snapshot.go:96", "fetching snapshot", &[("endpoint", log_string(endpoint))]);
        receive(stream, &mut file).await
    })?;
    file.sync_all().map_err(|e| Exit::with(5, go::os_text(&e)))?;
    log::info(
        "",
        "snapshot/v3_snapshot.go:111",
        "fetched snapshot",
        &[
            ("endpoint", log_string(endpoint)),
            ("size", log_string(&go::bytes_text(saved.size))),
            ("took", log_string(&go::format_duration(start.elapsed()))),
            ("etcd-version", log_string(&saved.version)),
        ],
    );
    Ok(saved)
}

/// Writes the stream to the file, and proves that it ends with the checksum of what came before it.
async fn receive(mut stream: Stream<api::pb::etcdserverpb::SnapshotResponse>, file: &mut File) -> Result<Saved, Exit> {
    let mut saved = Saved { size: 0, version: String::new() };
    let mut sum = Sha256::new();
    // The last 32 bytes seen: they may be the checksum.
    let mut tail: Vec<u8> = Vec::new();
    while let Some(piece) = stream.next().await.map_err(|e| Exit::with(5, e.to_string()))? {
        file.write_all(&piece.blob).map_err(|e| Exit::with(5, go::os_text(&e)))?;
        saved.size += piece.blob.len() as u64;
        if !piece.version.is_empty() {
            saved.version = piece.version;
        }
        tail.extend_from_slice(&piece.blob);
        let surplus = tail.len().saturating_sub(SUM_BYTES as usize);
        sum.update(&tail[..surplus]);
        tail.drain(..surplus);
    }
    log::info("client", "v3@v3.7.1/maintenance.go:302", "completed snapshot read; closing", &[]);
    if saved.size % SECTOR_BYTES != SUM_BYTES {
        return Err(Exit::with(5, format!("sha256 checksum not found [bytes: {}]", saved.size)));
    }
    if sum.finalize().as_slice() != tail {
        return Err(Exit::with(5, "the snapshot's sha256 checksum is wrong: it was damaged on the way; save it again"));
    }
    Ok(saved)
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// `snapshot status FILE`, the old spelling.
pub fn status(call: &mut Call) -> Result<(), Exit> {
    eprintln!("Deprecated: Use `etcdutl snapshot status` instead.\n");
    etcdutl::snapshot_status(call)
}

/// `snapshot restore FILE`, the old spelling.
pub fn restore(call: &mut Call) -> Result<(), Exit> {
    eprintln!("Deprecated: Use `etcdutl snapshot restore` instead.\n");
    etcdutl::snapshot_restore(call)
}
