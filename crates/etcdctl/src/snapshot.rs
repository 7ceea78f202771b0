//! `snapshot save`, and the old spellings `snapshot status` and `snapshot restore`, which run etcdutl's code.

use crate::globals::Ctl;
use crate::log;
use crate::output::write_out;
use client::SaveError;
use client::snapshot::{self, Saved};
use cobra::{Call, Exit};
use go::log_string;
use std::path::Path;
use std::time::Instant;

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
    snapshot::sync_directory_of(Path::new(&path)).map_err(|e| Exit::with(5, go::os_text(&e)))?;
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
    let mut file = snapshot::create(part)
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
        let outcome = snapshot::receive(stream, &mut file).await;
        if !matches!(outcome, Err(SaveError::Rpc(_) | SaveError::Io(_))) {
            log::info("client", "v3@v3.7.1/maintenance.go:302", "completed snapshot read; closing", &[]);
        }
        outcome.map_err(|e| Exit::with(5, e.to_string()))
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
