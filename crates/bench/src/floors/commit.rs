//! The bare group commit: what N writers, each waiting for its record to be on the disk, can get at best.

use super::Floor;
use crate::samples::Samples;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes a writer's record has.
const RECORD: usize = 512;
/// Bytes of the preallocated file: a WAL segment.
const SEGMENT: u64 = 64 << 20;
/// Records of random bytes, so that no disk makes less of them.
const FILLER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Writes batches of `writers` records with one `pwrite` and one `fdatasync` each, into a file below `dir`.
pub fn measure(dir: &Path, writers: usize, duration: Duration) -> io::Result<Floor> {
    let path = dir.join(format!("oxetcd-bench-commit-{}", std::process::id()));
    let outcome = File::create(&path).and_then(|file| run(&file, writers.max(1), duration));
    std::fs::remove_file(&path)?;
    outcome
}

fn run(file: &File, writers: usize, duration: Duration) -> io::Result<Floor> {
    fallocate(file, FallocateFlags::empty(), 0, SEGMENT)?;
    let batch = batch(writers);
    zero(file)?;
    let mut samples = Samples::default();
    let (start, cpu, mut offset) = (Instant::now(), thread_cpu(), 0);
    while start.elapsed() < duration {
        if offset + batch.len() as u64 > SEGMENT {
            offset = 0;
        }
        let began = Instant::now();
        file.write_all_at(&batch, offset)?;
        file.sync_data()?;
        samples.add(began.elapsed());
        offset += batch.len() as u64;
    }
    let (elapsed, distribution) = (start.elapsed().as_secs_f64(), samples.distribution());
    let records = distribution.len() as f64 * writers as f64;
    Ok(Floor {
        rate: records / elapsed,
        cpu: (thread_cpu().saturating_sub(cpu)).as_secs_f64() * 1e6 / records.max(1.0),
        load_cpu: 0.0,
        p50: distribution.percentile(50.0) * 1e3,
        p99: distribution.percentile(99.0) * 1e3,
    })
}

/// Writes the file once, as a log does that is reused or zeroed ahead: `fdatasync` then has no extents to convert.
fn zero(file: &File) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    for place in 0..SEGMENT / zeros.len() as u64 {
        file.write_all_at(&zeros, place * zeros.len() as u64)?;
    }
    file.sync_all()
}

fn batch(writers: usize) -> Vec<u8> {
    let words = (writers * RECORD / 8) as u64;
    (0..words).flat_map(|word| word.wrapping_mul(FILLER).to_le_bytes()).collect()
}

fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
