//! A disk in memory that knows what a crash may lose.
//!
//! A file has content as the process sees it and content as the platter has it; a directory has names as the process
//! sees them and names that were synced. [`SimDisk::reboot`] decides by [`Crash`] what of the difference survives.
//! Every mutating operation is counted, so a test can crash at each one. Same seed, same outcome.

use crate::{Disk, File, LockKind, Metadata, OpenOptions, SharedDisk};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// How the simulated disk is made.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    pub seed: u64,
    /// Bytes that all files together may hold.
    pub capacity: u64,
}

/// What survives a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Everything not synced is gone.
    Lose,
    /// Each unsynced sector, length and name survives by the toss of a coin.
    Random,
    /// The process was killed; the machine went on.
    Keep,
}

/// A failure to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The sync after so many others fails, once.
    Sync { after: u64 },
    /// The write after so many others fails, once.
    Write { after: u64 },
    /// Reads of this file that cover the offset fail.
    Read { path: PathBuf, offset: u64 },
    /// Nothing can be read at once: the kernel's cache is empty.
    Cold,
    /// Only so many further bytes can be written into new space.
    Full(u64),
    /// No further failures; a pending crash is called off.
    Heal,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    mode: u32,
    ofd: Option<u64>,
    flock_exclusive: Option<u64>,
    flock_shared: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Debug)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    synced_names: BTreeMap<PathBuf, Node>,
    /// Files renamed within a directory since it was synced, from and to: a crash undoes both halves or none.
    renamed: Vec<(PathBuf, PathBuf)>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    next_handle: u64,
    generation: u64,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    fail_sync: Option<u64>,
    fail_write: Option<u64>,
    bad_reads: Vec<(PathBuf, u64)>,
    cold: bool,
    capacity: u64,
    limit: u64,
    random: u64,
}

/// The disk. Clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub fn new(options: SimOptions) -> SimDisk {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Dir)]);
        SimDisk(Arc::new(Mutex::new(State {
            names: root.clone(),
            synced_names: root,
            renamed: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            next_handle: 1,
            generation: 0,
            operations: 0,
            crash_at: None,
            crashed: false,
            fail_sync: None,
            fail_write: None,
            bad_reads: Vec::new(),
            cold: false,
            capacity: options.capacity,
            limit: options.capacity,
            random: options.seed,
        })))
    }

    pub fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// Mutating operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// After `n` further mutating operations every operation fails, until [`SimDisk::reboot`].
    pub fn crash_after(&self, n: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + n);
    }

    pub fn crash_now(&self) {
        self.state().crashed = true;
    }

    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// The machine comes back. Handles of before are dead, locks are gone.
    pub fn reboot(&self, crash: Crash) {
        self.state().reboot(crash);
    }

    pub fn inject(&self, fault: Fault) {
        let mut s = self.state();
        match fault {
            Fault::Sync { after } => s.fail_sync = Some(after),
            Fault::Write { after } => s.fail_write = Some(after),
            Fault::Read { path, offset } => s.bad_reads.push((path, offset)),
            Fault::Cold => s.cold = true,
            Fault::Full(bytes) => s.limit = s.used() + bytes,
            Fault::Heal => {
                s.fail_sync = None;
                s.fail_write = None;
                s.bad_reads.clear();
                s.cold = false;
                s.limit = s.capacity;
                s.crash_at = None;
            }
        }
    }

    /// Flips bits of one byte, in memory and on the platter. False when there is no such byte.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) -> bool {
        let mut s = self.state();
        let Some(Node::File(id)) = s.names.get(path).copied() else { return false };
        let Some(inode) = s.inodes.get_mut(&id) else { return false };
        let at = offset as usize;
        for content in [&mut inode.now, &mut inode.synced] {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= xor;
            }
        }
        at < inode.now.len()
    }

    /// The file as the process sees it.
    pub fn read_whole(&self, path: &Path) -> Option<Vec<u8>> {
        let s = self.state();
        match s.names.get(path)? {
            Node::File(id) => s.inodes.get(id).map(|i| i.now.clone()),
            Node::Dir => None,
        }
    }

    /// Paths of all files.
    pub fn list(&self) -> Vec<PathBuf> {
        self.state().names.iter().filter(|(_, n)| **n != Node::Dir).map(|(p, _)| p.clone()).collect()
    }
}

fn crashed() -> io::Error {
    io::Error::other("disk crashed")
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file or directory", path.display()))
}

/// A name whose directory is gone can't be reached.
fn drop_unreachable(names: &mut BTreeMap<PathBuf, Node>) {
    // Parents sort before what they hold.
    let mut dirs = std::collections::BTreeSet::new();
    names.retain(|path, node| {
        let reachable = path.parent().is_none_or(|p| dirs.contains(p));
        if reachable && *node == Node::Dir {
            dirs.insert(path.clone());
        }
        reachable
    });
}

impl State {
    fn coin(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }

    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|n| if let Node::File(id) = n { self.inodes.get(id) } else { None });
        named.map(|i| i.now.len() as u64).sum()
    }

    /// Counts a mutating operation; fails when the crash is due.
    fn mutate(&mut self) -> io::Result<()> {
        if self.crashed {
            return Err(crashed());
        }
        if self.crash_at.is_some_and(|at| self.operations >= at) {
            self.crashed = true;
            return Err(crashed());
        }
        self.operations += 1;
        Ok(())
    }

    fn look(&self) -> io::Result<()> {
        if self.crashed { Err(crashed()) } else { Ok(()) }
    }

    fn count_down(counter: &mut Option<u64>) -> bool {
        match counter {
            Some(0) => {
                *counter = None;
                true
            }
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }

    fn parent_is_dir(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|p| self.names.get(p)) {
            Some(Node::Dir) => Ok(()),
            _ => Err(not_found(path)),
        }
    }

    fn reboot(&mut self, crash: Crash) {
        match crash {
            Crash::Keep => {}
            Crash::Lose => {
                self.names = self.synced_names.clone();
                self.inodes.values_mut().for_each(|i| i.now = i.synced.clone());
            }
            Crash::Random => self.reboot_random(),
        }
        drop_unreachable(&mut self.names);
        for inode in self.inodes.values_mut() {
            if crash != Crash::Keep {
                inode.synced = inode.now.clone();
            }
            inode.ofd = None;
            inode.flock_exclusive = None;
            inode.flock_shared.clear();
        }
        // A process that ended leaves renames as undone as they were.
        if crash != Crash::Keep {
            self.synced_names = self.names.clone();
            self.renamed.clear();
        }
        let live: Vec<u64> = self.file_ids();
        self.inodes.retain(|id, _| live.contains(id));
        self.generation += 1;
        self.crashed = false;
        self.crash_at = None;
    }

    fn file_ids(&self) -> Vec<u64> {
        let nodes = self.names.values().chain(self.synced_names.values());
        nodes.filter_map(|n| if let Node::File(id) = n { Some(*id) } else { None }).collect()
    }

    fn reboot_random(&mut self) {
        let mut paths: Vec<PathBuf> = self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        let mut names = self.synced_names.clone();
        for (from, to) in self.moves() {
            if self.coin()
                && let Some(node) = names.remove(&from)
            {
                names.insert(to.clone(), node);
            }
            paths.retain(|path| *path != from && *path != to);
        }
        for path in paths {
            let (now, synced) = (self.names.get(&path).copied(), self.synced_names.get(&path).copied());
            if now != synced && self.coin() {
                match now {
                    Some(node) => drop(names.insert(path, node)),
                    None => drop(names.remove(&path)),
                }
            }
        }
        self.names = names;
        let ids: Vec<u64> = self.inodes.keys().copied().collect();
        for id in ids {
            self.tear(id);
        }
    }

    /// Renames of durable names that are not durable themselves, and after which neither name was used again.
    fn moves(&self) -> Vec<(PathBuf, PathBuf)> {
        let is_move = |(from, to): &&(PathBuf, PathBuf)| {
            let moved = self.synced_names.get(from);
            let once = self.renamed.iter().filter(|(a, b)| [a, b].iter().any(|p| [from, to].contains(p))).count() == 1;
            once && moved.is_some() && self.names.get(to) == moved && !self.names.contains_key(from)
        };
        self.renamed.iter().filter(is_move).cloned().collect()
    }

    /// Each differing sector survives or not; so does a changed length.
    fn tear(&mut self, id: u64) {
        let Some(inode) = self.inodes.get(&id).cloned() else { return };
        if inode.now == inode.synced {
            return;
        }
        let mut content = inode.synced.clone();
        if inode.now.len() != content.len() && self.coin() {
            content.resize(inode.now.len(), 0);
        }
        for start in (0..content.len()).step_by(SECTOR) {
            let end = (start + SECTOR).min(content.len()).min(inode.now.len());
            if start < end && content[start..end] != inode.now[start..end] && self.coin() {
                content[start..end].copy_from_slice(&inode.now[start..end]);
            }
        }
        if let Some(i) = self.inodes.get_mut(&id) {
            i.now = content;
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        let mut s = self.state();
        s.look()?;
        let inode = match s.names.get(path).copied() {
            Some(Node::Dir) => return Err(io::Error::other(format!("{} is a directory", path.display()))),
            Some(Node::File(_)) if options.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(Node::File(id)) => id,
            None if options.create || options.create_new => {
                s.parent_is_dir(path)?;
                s.mutate()?;
                let id = s.next_inode;
                s.next_inode += 1;
                let mode = if options.mode == 0 { 0o600 } else { options.mode };
                s.inodes.insert(id, Inode { mode, ..Inode::default() });
                s.names.insert(path.to_path_buf(), Node::File(id));
                id
            }
            None => return Err(not_found(path)),
        };
        let handle = s.next_handle;
        s.next_handle += 1;
        let generation = s.generation;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            inode,
            handle,
            generation,
            write: options.write,
        }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let s = self.state();
        s.look()?;
        match s.names.get(path) {
            Some(Node::Dir) => Ok(Metadata { is_dir: true, len: 0, mode: 0o700 }),
            Some(Node::File(id)) => {
                let inode = s.inodes.get(id).ok_or_else(|| not_found(path))?;
                Ok(Metadata { is_dir: false, len: inode.now.len() as u64, mode: inode.mode })
            }
            None => Err(not_found(path)),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let s = self.state();
        s.look()?;
        if s.names.get(path) != Some(&Node::Dir) {
            return Err(not_found(path));
        }
        let inside = s.names.keys().filter(|p| p.parent() == Some(path));
        Ok(inside.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir_all(&self, path: &Path, _mode: u32) -> io::Result<()> {
        let mut s = self.state();
        s.look()?;
        let missing: Vec<PathBuf> =
            path.ancestors().take_while(|p| !s.names.contains_key(*p)).map(Path::to_path_buf).collect();
        for dir in missing.into_iter().rev() {
            s.mutate()?;
            s.names.insert(dir.clone(), Node::Dir);
            s.synced_names.insert(dir, Node::Dir);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.look()?;
        let node = s.names.get(from).copied().ok_or_else(|| not_found(from))?;
        s.parent_is_dir(to)?;
        s.mutate()?;
        s.names.remove(from);
        s.names.insert(to.to_path_buf(), node);
        if node != Node::Dir && from.parent() == to.parent() {
            s.renamed.push((from.to_path_buf(), to.to_path_buf()));
        }
        let inside: Vec<PathBuf> = s.names.keys().filter(|p| p.starts_with(from)).cloned().collect();
        for path in inside {
            let moved = to.join(path.strip_prefix(from).map_err(io::Error::other)?);
            if let Some(node) = s.names.remove(&path) {
                s.names.insert(moved, node);
            }
        }
        // A directory's own content moves with it, synced or not: ext4 journals the one name that changed.
        if node == Node::Dir {
            let inside: Vec<PathBuf> =
                s.synced_names.keys().filter(|p| p.starts_with(from) && *p != from).cloned().collect();
            for path in inside {
                let moved = to.join(path.strip_prefix(from).map_err(io::Error::other)?);
                if let Some(node) = s.synced_names.get(&path).copied() {
                    s.synced_names.insert(moved, node);
                }
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.look()?;
        match s.names.get(path) {
            Some(Node::File(_)) => {}
            _ => return Err(not_found(path)),
        }
        s.mutate()?;
        s.names.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.look()?;
        if s.names.get(path) != Some(&Node::Dir) {
            return Err(not_found(path));
        }
        s.mutate()?;
        s.names.retain(|p, _| !p.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut s = self.state();
        s.look()?;
        s.mutate()?;
        if State::count_down(&mut s.fail_sync) {
            return Err(io::Error::other("injected sync failure"));
        }
        if s.names.get(path) != Some(&Node::Dir) {
            return Err(not_found(path));
        }
        let inside = |p: &Path| p.parent() == Some(path);
        s.renamed.retain(|(from, _)| !inside(from));
        s.synced_names.retain(|p, _| !inside(p));
        let names: Vec<_> = s.names.iter().filter(|(p, _)| inside(p)).map(|(p, n)| (p.clone(), *n)).collect();
        s.synced_names.extend(names);
        // The directory itself is durable with its parents in every file system that etcd runs on.
        for dir in path.ancestors() {
            s.synced_names.insert(dir.to_path_buf(), Node::Dir);
        }
        drop_unreachable(&mut s.synced_names);
        Ok(())
    }

    fn available(&self, _path: &Path) -> io::Result<u64> {
        let s = self.state();
        s.look()?;
        Ok(s.limit.saturating_sub(s.used()))
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
    handle: u64,
    generation: u64,
    write: bool,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let s = self.disk.state();
        s.look()?;
        match s.generation == self.generation {
            true => Ok(s),
            false => Err(io::Error::other("the handle is from before the crash")),
        }
    }

    fn inode<'a>(&self, s: &'a mut State) -> io::Result<&'a mut Inode> {
        s.inodes.get_mut(&self.inode).ok_or_else(|| not_found(&self.path))
    }

    fn resize(&self, len: u64, shrink: bool) -> io::Result<()> {
        let mut s = self.state()?;
        s.mutate()?;
        let (used, limit) = (s.used(), s.limit);
        let inode = self.inode(&mut s)?;
        let old = inode.now.len() as u64;
        if len > old && used + (len - old) > limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if shrink || len > old {
            inode.now.resize(len as usize, 0);
        }
        Ok(())
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut s = self.state()?;
        let covered = offset..offset + buf.len() as u64;
        if s.bad_reads.iter().any(|(path, at)| *path == self.path && covered.contains(at)) {
            return Err(io::Error::other("injected read failure"));
        }
        let content = &self.inode(&mut s)?.now;
        let start = (offset as usize).min(content.len());
        let n = buf.len().min(content.len() - start);
        buf[..n].copy_from_slice(&content[start..start + n]);
        Ok(n)
    }

    fn read_at_once(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        // A third of the sectors is never in memory, the same ones in every run.
        let there = !self.state()?.cold && !(offset / SECTOR as u64).is_multiple_of(3);
        Ok(there && self.read_at(buf, offset)? == buf.len())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if !self.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut s = self.state()?;
        s.mutate()?;
        if State::count_down(&mut s.fail_write) {
            return Err(io::Error::other("injected write failure"));
        }
        let (used, limit) = (s.used(), s.limit);
        let inode = self.inode(&mut s)?;
        let end = offset as usize + buf.len();
        let growth = end.saturating_sub(inode.now.len()) as u64;
        if growth > 0 && used + growth > limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if end > inode.now.len() {
            inode.now.resize(end, 0);
        }
        inode.now[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut s = self.state()?;
        s.mutate()?;
        if State::count_down(&mut s.fail_sync) {
            return Err(io::Error::other("injected sync failure"));
        }
        let inode = self.inode(&mut s)?;
        inode.synced.clone_from(&inode.now);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        let mut s = self.state()?;
        Ok(self.inode(&mut s)?.now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, true)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.resize(len, false)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut s = self.state()?;
        s.mutate()?;
        let content = &mut self.inode(&mut s)?.now;
        let start = (offset as usize).min(content.len());
        let end = ((offset + len) as usize).min(content.len());
        content[start..end].fill(0);
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let handle = self.handle;
        let mut s = self.state()?;
        let inode = self.inode(&mut s)?;
        let others = |held: &Option<u64>| held.is_some_and(|h| h != handle);
        let free = match kind {
            LockKind::OfdExclusive => !others(&inode.ofd),
            LockKind::FlockExclusive => {
                !others(&inode.flock_exclusive) && inode.flock_shared.iter().all(|h| *h == handle)
            }
            LockKind::FlockShared => !others(&inode.flock_exclusive),
        };
        if free {
            match kind {
                LockKind::OfdExclusive => inode.ofd = Some(handle),
                LockKind::FlockExclusive => inode.flock_exclusive = Some(handle),
                LockKind::FlockShared => inode.flock_shared.push(handle),
            }
        }
        Ok(free)
    }

    fn unlock(&self, kind: LockKind) -> io::Result<()> {
        let mut s = self.state()?;
        release(self.inode(&mut s)?, self.handle, Some(kind));
        Ok(())
    }
}

fn release(inode: &mut Inode, handle: u64, kind: Option<LockKind>) {
    let is = |k: LockKind| kind.is_none_or(|kind| kind == k);
    if is(LockKind::OfdExclusive) && inode.ofd == Some(handle) {
        inode.ofd = None;
    }
    if is(LockKind::FlockExclusive) && inode.flock_exclusive == Some(handle) {
        inode.flock_exclusive = None;
    }
    if is(LockKind::FlockShared) {
        inode.flock_shared.retain(|h| *h != handle);
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut s = self.disk.state();
        if s.generation == self.generation
            && let Some(inode) = s.inodes.get_mut(&self.inode)
        {
            release(inode, self.handle, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (SimDisk, SharedDisk) {
        let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
        let shared = disk.shared();
        shared.create_dir_all(Path::new("/d"), 0o700).unwrap();
        shared.sync_dir(Path::new("/")).unwrap();
        (disk, shared)
    }

    #[test]
    fn bytes_and_names_not_synced_are_lost() {
        let (sim, disk) = disk();
        let path = Path::new("/d/f");
        let file = disk.open(path, OpenOptions::create()).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(b"two", 0).unwrap();
        disk.rename(path, Path::new("/d/g")).unwrap();
        sim.reboot(Crash::Lose);
        assert_eq!(sim.read_whole(path).unwrap(), b"one");
        assert!(sim.read_whole(Path::new("/d/g")).is_none());
        assert!(file.len().is_err(), "old handles are dead");
    }

    /// The journals of ext4, xfs, btrfs and zfs hold a rename as one change.
    #[test]
    fn a_crash_undoes_a_rename_as_a_whole_or_not_at_all() {
        let whole = [(None, b"new".to_vec()), (Some(b"new".to_vec()), b"old".to_vec())];
        assert_eq!(outcomes_of_a_rename(false), whole);
        // Also when the process had ended before, and the machine went on.
        assert_eq!(outcomes_of_a_rename(true), whole);
    }

    fn outcomes_of_a_rename(process_ended: bool) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let sim = SimDisk::new(SimOptions { seed, capacity: 1 << 20 });
            let disk = sim.shared();
            let [dir, from, to] = ["/d", "/d/f", "/d/g"].map(Path::new);
            disk.create_dir_all(dir, 0o700).unwrap();
            for (path, content) in [(from, b"new"), (to, b"old")] {
                let file = disk.open(path, OpenOptions::create()).unwrap();
                file.write_at(content, 0).unwrap();
                file.sync_data().unwrap();
            }
            disk.sync_dir(dir).unwrap();
            disk.rename(from, to).unwrap();
            if process_ended {
                sim.reboot(Crash::Keep);
            }
            sim.reboot(Crash::Random);
            outcomes.insert((sim.read_whole(from), sim.read_whole(to).unwrap()));
        }
        outcomes.into_iter().collect()
    }

    #[test]
    fn the_countdown_crash_stops_everything_until_reboot() {
        let (sim, disk) = disk();
        let file = disk.open(Path::new("/d/f"), OpenOptions::create()).unwrap();
        sim.crash_after(1);
        file.write_at(b"a", 0).unwrap();
        assert!(file.write_at(b"b", 1).is_err() && file.len().is_err() && sim.crashed());
        sim.reboot(Crash::Keep);
        assert_eq!(sim.read_whole(Path::new("/d/f")).unwrap(), b"a");
    }

    #[test]
    fn locks_exclude_other_handles_of_the_same_kind_only() {
        let folder = std::env::temp_dir().join(format!("oxetcd-disk-{}", std::process::id()));
        for (disk, dir) in [(disk().1, PathBuf::from("/d")), (crate::RealDisk::shared(), folder)] {
            disk.create_dir_all(&dir, 0o700).unwrap();
            let a = disk.open(&dir.join("f"), OpenOptions::create()).unwrap();
            let b = disk.open(&dir.join("f"), OpenOptions::write()).unwrap();
            assert!(a.try_lock(LockKind::FlockExclusive).unwrap());
            assert!(!b.try_lock(LockKind::FlockShared).unwrap());
            assert!(b.try_lock(LockKind::OfdExclusive).unwrap() && !a.try_lock(LockKind::OfdExclusive).unwrap());
            drop(a);
            assert!(b.try_lock(LockKind::FlockExclusive).unwrap());
            disk.remove_dir_all(&dir).unwrap();
        }
    }

    #[test]
    fn both_disks_answer_alike() {
        let folder = std::env::temp_dir().join(format!("oxetcd-port-{}", std::process::id()));
        for (disk, dir) in [(disk().1, PathBuf::from("/d")), (crate::RealDisk::shared(), folder)] {
            disk.create_dir_all(&dir.join("x/y"), 0o700).unwrap();
            let file = disk.open(&dir.join("x/f"), OpenOptions::create_new()).unwrap();
            let again = disk.open(&dir.join("x/f"), OpenOptions::create_new()).err().unwrap();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            file.allocate(10_000).unwrap();
            file.write_at(b"abc", 9_999).unwrap();
            assert_eq!(file.len().unwrap(), 10_002);
            file.punch_hole(0, 4096)
                .or_else(|e| if e.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(e) })
                .unwrap();
            file.sync_data().unwrap();
            let mut buf = [9; 8];
            assert_eq!(file.read_at(&mut buf, 9_998).unwrap(), 4);
            assert_eq!(buf, [0, b'a', b'b', b'c', 9, 9, 9, 9]);
            disk.rename(&dir.join("x"), &dir.join("z")).unwrap();
            assert_eq!(disk.read_dir(&dir.join("z")).unwrap(), ["f", "y"]);
            assert!(!disk.exists(&dir.join("x/f")).unwrap() && disk.exists(&dir.join("z/f")).unwrap());
            disk.sync_dir(&dir).unwrap();
            disk.remove_dir_all(&dir).unwrap();
        }
    }

    #[test]
    fn a_full_disk_refuses_new_space_only() {
        let (sim, disk) = disk();
        let file = disk.open(Path::new("/d/f"), OpenOptions::create()).unwrap();
        file.allocate(1024).unwrap();
        sim.inject(Fault::Full(0));
        file.write_at(b"inside", 0).unwrap();
        assert_eq!(file.write_at(b"x", 1024).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
