//! `ETCD_VERIFY`: what a command made or changed is checked before it says that it is done.

use cobra::Exit;
use disk::RealDisk;
use server::Layout;
use server::member::Verify;
use std::path::Path;

/// What the environment asks for.
fn asked() -> Verify {
    std::env::var(Verify::VARIABLE).ok().and_then(|value| Verify::parse(&value)).unwrap_or_default()
}

/// Checks a data directory, if it is asked for. No handle of its page store may be open.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn directory(data_dir: &Path, wal_dir: Option<&Path>) -> Result<(), Exit> {
    let layout = Layout::new(data_dir, wal_dir);
    asked().directory(&RealDisk::shared(), &layout, store::Options::default()).map_err(Exit::error)
}
