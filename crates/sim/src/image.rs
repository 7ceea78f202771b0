//! Database snapshots, as whoever gets one would look at them.

use crate::model::Model;
use crate::verdict;
use disk::{OpenOptions, SimDisk, SimOptions};
use std::path::Path;
use std::sync::Arc;
use store::{Applied, Store};

/// What the shipping store finds in it.
///
/// # Errors
/// It does not open it.
pub fn open(bytes: &[u8], options: store::Options) -> Result<Arc<Applied>, String> {
    let disk = SimDisk::new(SimOptions { seed: 0, capacity: u64::MAX });
    let path = Path::new("/db");
    let wrap = |e: &dyn std::fmt::Display| format!("the snapshot can't be opened: {e}");
    let file = disk.shared().open(path, OpenOptions::create()).map_err(|e| wrap(&e))?;
    file.write_at(bytes, 0).map_err(|e| wrap(&e))?;
    drop(file);
    let mut store = Store::open(disk.shared(), path, options).map_err(|e| wrap(&e))?;
    Ok(store.publish().0)
}

/// The state is the model's, HashKV included.
///
/// # Errors
/// What differs.
pub fn check(applied: &Applied, model: &Model) -> Result<(), String> {
    verdict::compare(model, applied).map_err(|e| format!("the snapshot's state: {e}"))?;
    if model.is_empty() {
        return Ok(());
    }
    let hash = applied.hash_kv(0, &|_| ()).map_err(|e| format!("the snapshot can't be read: {e}"))?.hash;
    match hash == model.hash_kv() {
        true => Ok(()),
        false => Err(format!("the snapshot's HashKV is {hash:08x}, the model says {:08x}", model.hash_kv())),
    }
}
