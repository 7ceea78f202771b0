//! Opening, pages by number, and the register of open views.

use crate::Error;
use crate::cache::Cache;
use crate::check::{left_behind, reachable};
use crate::free::Free;
use crate::page::{self, ELEMENT, FREELIST, HEADER, LEAF, Meta, NO_FREELIST, Page};
use crate::sync::{Mutex, MutexGuard};
use crate::tx::WriteTx;
use crate::view::View;
use bytes::Bytes;
use disk::{File, LockKind, OpenOptions, SharedDisk};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Page size of a new file, bytes; a power of two, 4096 when not given. An existing file has its own.
    pub page_size: Option<u32>,
    /// Budget of the page cache, bytes.
    pub cache_bytes: usize,
    pub read_only: bool,
    /// Leaves out every sync: for files that are thrown away on a crash.
    pub no_sync: bool,
    /// Takes no lock: for who reads a file again that the same process holds by another handle and does not write meanwhile.
    pub unlocked: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { page_size: None, cache_bytes: 64 << 20, read_only: false, no_sync: false, unlocked: false }
    }
}

/// An open database. Clones share it.
#[derive(Clone)]
pub struct Db(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub file: Box<dyn File>,
    pub path: PathBuf,
    pub page_size: usize,
    pub options: Options,
    pub state: Mutex<State>,
    cache: Mutex<Cache>,
}

/// How bytes are brought: to the end of the buffer, or not at all.
type ReadAt = fn(&dyn File, &mut [u8], u64) -> io::Result<()>;

pub(crate) struct State {
    pub meta: Meta,
    pub free: Free,
    /// Open views: txid → how many.
    pub views: BTreeMap<u64, usize>,
    pub file_len: u64,
    pub writing: bool,
    pub poisoned: bool,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the file, making it when it is absent, empty or was never finished, and locks it for as long as the handle
    /// lives. What it finds is durable when it returns.
    ///
    /// # Errors
    /// Locked by another process, not a database, corrupt, or the disk failed.
    pub fn open(disk: SharedDisk, path: &Path, options: Options) -> Result<Db, Error> {
        let open = if options.read_only { OpenOptions::read() } else { OpenOptions::create() };
        let file = disk.open(path, open.mode(0o600)).map_err(Error::io("open the database file"))?;
        let lock = if options.read_only { LockKind::FlockShared } else { LockKind::FlockExclusive };
        if !options.unlocked && !file.try_lock(lock).map_err(Error::io("lock the database file"))? {
            return Err(Error::Locked { path: path.to_path_buf() });
        }
        if is_new(&*file, &options)? {
            if options.read_only {
                return Err(Error::NotADatabase { path: path.to_path_buf(), what: "the file is empty".into() });
            }
            create(&*file, &options)?;
        }
        if !options.read_only && !options.no_sync {
            settle(&disk, &*file, path)?;
        }
        let (meta, before) = read_metas(&*file, path)?;
        let file_len = file.len().map_err(Error::io("stat the database file"))?;
        let state =
            State { meta, free: Free::default(), views: BTreeMap::new(), file_len, writing: false, poisoned: false };
        let cache = Mutex::new(Cache::new(options.cache_bytes));
        let page_size = meta.page_size as usize;
        let inner = Inner { file, path: path.to_path_buf(), page_size, options, state: Mutex::new(state), cache };
        let db = Db(Arc::new(inner));
        if !db.0.options.read_only {
            db.rebuild_free(&meta, before.as_ref())?;
        }
        Ok(db)
    }

    /// Everything below the high-water mark that the tree does not reach is free. A stored free list is not needed
    /// for that; its own pages are freed with it, since the next commit stores none.
    /// What only the meta `before` needs waits until that one is written over.
    fn rebuild_free(&self, meta: &Meta, before: Option<&Meta>) -> Result<(), Error> {
        let used = reachable(&self.0, meta)?;
        let stored = match meta.freelist {
            NO_FREELIST => 2..2,
            id => id..id + self.0.extent_len(id, FREELIST, meta.hwm)?,
        };
        if used.iter().any(|&(start, len)| start < stored.end && stored.start < start + len) {
            return Err(Error::corrupt(stored.start, 0, "the stored free list lies on pages in use"));
        }
        let apart = |&(start, len): &(u64, u64)| start >= stored.end || stored.start >= start + len;
        let mut held = before.map_or(Vec::new(), |before| left_behind(&self.0, before, &used));
        held.retain(|extent| apart(extent) && extent.0 + extent.1 <= meta.hwm);
        let mut taken: Vec<(u64, u64)> = used.into_iter().chain(held.iter().copied()).collect();
        taken.sort_unstable();
        let mut free = Free::default();
        let mut next = 2;
        for (start, len) in taken.into_iter().chain([(meta.hwm, 0)]) {
            free_without(&mut free, next, start, &stored);
            next = start + len;
        }
        held.into_iter().for_each(|(start, len)| free.free_later(meta.txid, start, len));
        if !stored.is_empty() {
            // The current meta still names the list: it must survive until a newer meta is durable.
            free.free_later(meta.txid + 1, stored.start, stored.end - stored.start);
        }
        self.0.state().free = free;
        Ok(())
    }

    /// A stable image of the last commit.
    pub fn view(&self) -> View {
        View::open(self.0.clone())
    }

    /// Starts the write transaction.
    ///
    /// # Errors
    /// Another one is under way, or an earlier commit failed.
    pub fn begin(&self) -> Result<WriteTx, Error> {
        if self.0.options.read_only {
            return Err(Error::Misuse("the database is open read-only"));
        }
        WriteTx::begin(self.0.clone())
    }

    /// Bytes up to the high-water mark: etcd's `dbSize`.
    pub fn size(&self) -> u64 {
        self.0.state().meta.hwm * self.0.page_size as u64
    }

    /// Bytes that are in use: etcd's `dbSizeInUse`.
    pub fn in_use_bytes(&self) -> u64 {
        let state = self.0.state();
        (state.meta.hwm - state.free.pages().min(state.meta.hwm)) * self.0.page_size as u64
    }

    /// Page size, bytes.
    pub fn page_size(&self) -> u32 {
        self.0.page_size as u32
    }
}

/// Adds `[from, to)` without the pages in `taken`.
fn free_without(free: &mut Free, from: u64, to: u64, taken: &std::ops::Range<u64>) {
    let low = to.min(taken.start.max(from));
    free.add(from, low - from);
    let high = from.max(taken.end.min(to)).max(low);
    free.add(high, to - high);
}

fn new_page_size(options: &Options) -> u32 {
    options.page_size.unwrap_or(4096)
}

/// Empty, or a crash interrupted [`create`] before it wrote a meta: nothing was ever stored.
fn is_new(file: &dyn File, options: &Options) -> Result<bool, Error> {
    let (len, page) = (file.len().map_err(Error::io("stat the database file"))?, new_page_size(options));
    if len == 0 || !(2 * u64::from(page)..=4 * u64::from(page)).contains(&len) {
        return Ok(len == 0);
    }
    let mut metas = vec![0; 2 * page as usize];
    let n = file.read_at(&mut metas, 0).map_err(Error::io("read a meta page"))?;
    Ok(n == metas.len() && metas.iter().all(|b| *b == 0))
}

/// A process that was killed may have left names and pages that the platter never got. A commit that rests on them
/// writes over what the last durable meta still needs, so they must be durable first.
fn settle(disk: &SharedDisk, file: &dyn File, path: &Path) -> Result<(), Error> {
    file.sync_data().map_err(Error::io("sync the database file"))?;
    // A bare file name has the parent "", which no system call takes.
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(parent).map_err(Error::io("sync the database's directory"))
}

/// The tree first, then the metas: where a meta can be read, the tree is there.
fn create(file: &dyn File, options: &Options) -> Result<(), Error> {
    let size = new_page_size(options);
    if !size.is_power_of_two() || !(1024..=65_536).contains(&size) {
        return Err(Error::Misuse("page size must be a power of two from 1024 to 65536"));
    }
    let mut body = Vec::with_capacity(2 * size as usize);
    for (id, flags) in [(2, FREELIST), (3, LEAF)] {
        let mut page = vec![0; size as usize];
        page::put_header(&mut page, id, flags, 0, 0);
        body.extend(page);
    }
    let mut metas = Vec::with_capacity(2 * size as usize);
    for txid in 0..2 {
        let meta = Meta { page_size: size, root: 3, sequence: 0, freelist: 2, hwm: 4, txid };
        metas.extend(meta.encode(txid));
    }
    for (part, at) in [(body, 2 * u64::from(size)), (metas, 0)] {
        file.write_at(&part, at).map_err(Error::io("write a new database file"))?;
        file.sync_data().map_err(Error::io("sync a new database file"))?;
    }
    Ok(())
}

/// The valid meta with the higher txid, and the other one if it is valid, too. The second one is looked for where each page
/// size would put it.
fn read_metas(file: &dyn File, path: &Path) -> Result<(Meta, Option<Meta>), Error> {
    let len = file.len().map_err(Error::io("stat the database file"))?;
    let read = |at: u64| {
        let mut b = [0; 80];
        let n = file.read_at(&mut b, at).map_err(Error::io("read a meta page"))?;
        Ok::<_, Error>(Meta::parse(&b[..n]))
    };
    let first = read(0)?;
    let second = match first {
        Ok(meta) => read(u64::from(meta.page_size))?,
        Err(_) => {
            let mut found = Err("no second meta page");
            for at in (0..8).map(|i| 1024_u64 << i) {
                if let Ok(meta) = read(at)?
                    && u64::from(meta.page_size) == at
                {
                    found = Ok(meta);
                }
            }
            found
        }
    };
    let (meta, before) = match (first, second) {
        (Ok(a), Ok(b)) if b.txid > a.txid => Ok((b, Some(a))),
        (Ok(a), Ok(b)) => Ok((a, Some(b))),
        (Ok(m), Err(_)) | (Err(_), Ok(m)) => Ok((m, None)),
        (Err(what), Err(_)) => Err(Error::NotADatabase { path: path.to_path_buf(), what: what.into() }),
    }?;
    if meta.hwm * u64::from(meta.page_size) > len {
        let what = format!("file has {len} bytes, but pages up to {} are in use", meta.hwm);
        return Err(Error::NotADatabase { path: path.to_path_buf(), what });
    }
    Ok((meta, before))
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }

    pub fn forget(&self, page: u64) {
        self.cache.lock().expect("no panic happens under this lock").forget(page);
    }

    /// A branch or leaf page with its overflow pages. `hwm` bounds what can be asked for.
    pub fn page(&self, id: u64, hwm: u64) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.cached(id) {
            return Ok(page);
        }
        let page = self.read(id, hwm)?;
        self.keep(&page);
        Ok(page)
    }

    /// The same for those who pass by once: leaves are not kept, or a scan would drive out what others come back to.
    pub fn page_in_passing(&self, id: u64, hwm: u64) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.cached(id) {
            return Ok(page);
        }
        let page = self.read(id, hwm)?;
        if !page.is_leaf() {
            self.keep(&page);
        }
        Ok(page)
    }

    /// The same for those who can't wait for the device: [`Error::NotInMemory`] when that would be needed.
    pub fn page_at_once(&self, id: u64, hwm: u64) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.cached(id) {
            return Ok(page);
        }
        let bytes = self.read_extent(id, hwm, |file, buf, at| match file.read_at_once(buf, at)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        match bytes {
            Ok(bytes) => {
                let page = Arc::new(Page::parse(id, bytes)?);
                self.keep(&page);
                Ok(page)
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Err(Error::NotInMemory),
            Err(e) => Err(e),
        }
    }

    fn cached(&self, id: u64) -> Option<Arc<Page>> {
        let found = self.cache.lock().expect("no panic happens under this lock").find(id);
        found.map(|(page, _dropped)| page)
    }

    fn keep(&self, page: &Arc<Page>) {
        let dropped = self.cache.lock().expect("no panic happens under this lock").insert(page.clone());
        drop(dropped);
    }

    fn read(&self, id: u64, hwm: u64) -> Result<Arc<Page>, Error> {
        let bytes = self.read_extent(id, hwm, |file, buf, at| file.read_exact_at(buf, at))?;
        Ok(Arc::new(Page::parse(id, bytes)?))
    }

    /// A page's bytes and those of its overflow pages.
    fn read_extent(&self, id: u64, hwm: u64, read: ReadAt) -> Result<Bytes, Error> {
        if id < 2 || id >= hwm {
            return Err(Error::corrupt(id, 0, format!("page is outside [2, {hwm})")));
        }
        let mut bytes = vec![0; self.page_size];
        let at = id * self.page_size as u64;
        read(&*self.file, &mut bytes, at).map_err(Error::io("read a page"))?;
        let (_, count, overflow) = page::check_header(id, &bytes)?;
        if u64::from(overflow) >= hwm - id {
            return Err(Error::corrupt(id, 12, format!("{overflow} overflow pages reach past the end")));
        }
        if overflow > 0 {
            let first = bytes.len();
            bytes.resize(first * (1 + overflow as usize), 0);
            read(&*self.file, &mut bytes[first..], at + first as u64).map_err(Error::io("read a page"))?;
        }
        if HEADER + count * ELEMENT > bytes.len() {
            return Err(Error::corrupt(id, 10, format!("{count} elements do not fit")));
        }
        Ok(bytes.into())
    }

    /// Pages taken by the extent at `id`, whose flags must be these.
    pub fn extent_len(&self, id: u64, flags: u16, hwm: u64) -> Result<u64, Error> {
        if id < 2 || id >= hwm {
            return Err(Error::corrupt(id, 0, format!("page is outside [2, {hwm})")));
        }
        let mut bytes = [0; HEADER];
        let at = id * self.page_size as u64;
        self.file.read_exact_at(&mut bytes, at).map_err(Error::io("read a page"))?;
        let (found, _, overflow) = page::check_header(id, &bytes)?;
        if found != flags {
            return Err(Error::corrupt(id, 8, format!("flags are {found:#x}, not {flags:#x}")));
        }
        if u64::from(overflow) >= hwm - id {
            return Err(Error::corrupt(id, 12, format!("{overflow} overflow pages reach past the end")));
        }
        Ok(1 + u64::from(overflow))
    }
}
