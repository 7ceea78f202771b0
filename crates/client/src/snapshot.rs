//! Saving a member's database (clientv3 `snapshot`): what comes is checked against the checksum at its end, and the file has
//! its name only when all of it is on disk.

use crate::call::{Client, Stream};
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Bytes of the checksum at the end of the stream.
const SUM_BYTES: u64 = 32;
/// All databases are a multiple of this, so a checksum shows in the size.
const SECTOR_BYTES: u64 = 512;

/// What came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Bytes, with the checksum at the end.
    pub size: u64,
    /// The server's storage version; empty: it is too old to tell.
    pub version: String,
}

/// Why a snapshot was not saved.
#[derive(Debug)]
pub enum SaveError {
    /// The server refused, or the connection broke.
    Rpc(Error),
    /// The file can't be written.
    Io(io::Error),
    /// There is no checksum at the end of so many bytes.
    NoSum { bytes: u64 },
    /// The checksum is not that of what came before it.
    WrongSum,
}

impl std::fmt::Display for SaveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SaveError::Rpc(e) => e.fmt(f),
            SaveError::Io(e) => f.write_str(&go::os_text(e)),
            // Go's text, which scripts look for.
            SaveError::NoSum { bytes } => write!(f, "sha256 checksum not found [bytes: {bytes}]"),
            SaveError::WrongSum => {
                f.write_str("the snapshot's sha256 checksum is wrong: it was damaged on the way; save it again")
            }
        }
    }
}

impl std::error::Error for SaveError {}

impl From<Error> for SaveError {
    fn from(e: Error) -> SaveError {
        SaveError::Rpc(e)
    }
}

impl From<io::Error> for SaveError {
    fn from(e: io::Error) -> SaveError {
        SaveError::Io(e)
    }
}

impl Client {
    /// Saves the database of the member that answers, in a file that only its owner may read. Ask one member
    /// ([`Client::only`]): of several it is anybody's.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = client::Client::connect(client::Config::default()).await?;
    /// let saved = client.only("127.0.0.1:2379").save_snapshot("backup.db".as_ref()).await?;
    /// println!("{} bytes", saved.size);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server's, those of the file system, and that what came is damaged. There is no file of that name then, unless
    /// there was one before.
    pub async fn save_snapshot(&self, path: &Path) -> Result<Saved, SaveError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = Path::new(&part);
        let outcome = self.save_part(part).await;
        if outcome.is_err() {
            // What is there is no snapshot. Where it can't be removed either, the first error says more.
            let _ = std::fs::remove_file(part);
        }
        let saved = outcome?;
        std::fs::rename(part, path)?;
        sync_directory_of(path)?;
        Ok(saved)
    }

    async fn save_part(&self, part: &Path) -> Result<Saved, SaveError> {
        let mut file = create(part)?;
        let saved = receive(self.snapshot().await?, &mut file).await?;
        file.sync_all()?;
        Ok(saved)
    }
}

/// The file that a snapshot is written to: nobody else may read it, since it holds all keys and password hashes.
///
/// # Errors
/// Those of the file system.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes a file's name durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Writes what comes, and proves that it ends with the checksum of what came before it.
///
/// # Errors
/// As of [`Client::save_snapshot`]; what was written is no snapshot then.
pub async fn receive(mut stream: Stream<pb::SnapshotResponse>, to: &mut impl Write) -> Result<Saved, SaveError> {
    let mut check = Check::default();
    while let Some(piece) = stream.next().await? {
        to.write_all(&piece.blob)?;
        check.take(&piece);
    }
    check.finish()
}

/// The checksum of all but the last 32 bytes seen.
#[derive(Default)]
struct Check {
    saved: Saved,
    sum: Sha256,
    /// The last bytes, which may be the checksum.
    tail: Vec<u8>,
}

impl Check {
    fn take(&mut self, piece: &pb::SnapshotResponse) {
        self.saved.size += piece.blob.len() as u64;
        if !piece.version.is_empty() {
            self.saved.version.clone_from(&piece.version);
        }
        self.tail.extend_from_slice(&piece.blob);
        let surplus = self.tail.len().saturating_sub(SUM_BYTES as usize);
        self.sum.update(&self.tail[..surplus]);
        self.tail.drain(..surplus);
    }

    fn finish(self) -> Result<Saved, SaveError> {
        if self.saved.size % SECTOR_BYTES != SUM_BYTES {
            return Err(SaveError::NoSum { bytes: self.saved.size });
        }
        match self.sum.finalize().as_slice() == self.tail {
            true => Ok(self.saved),
            false => Err(SaveError::WrongSum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pieces: &[&[u8]]) -> Result<Saved, SaveError> {
        let mut check = Check::default();
        for piece in pieces {
            check.take(&pb::SnapshotResponse { blob: piece.to_vec().into(), ..Default::default() });
        }
        check.finish()
    }

    #[test]
    fn a_snapshot_is_whole_or_refused() {
        let pages = vec![7; 1024];
        let sum = Sha256::digest(&pages);
        // The checksum may come in any number of pieces.
        assert_eq!(checked(&[&pages, &sum]).unwrap().size, 1056);
        assert_eq!(checked(&[&pages[..1], &pages[1..], &sum[..5], &sum[5..]]).unwrap().size, 1056);
        assert!(matches!(checked(&[&pages]), Err(SaveError::NoSum { bytes: 1024 })));
        assert!(matches!(checked(&[&pages, &sum[..31]]), Err(SaveError::NoSum { bytes: 1055 })));
        assert!(matches!(checked(&[]), Err(SaveError::NoSum { bytes: 0 })));
        let mut damaged = pages.clone();
        damaged[100] ^= 1;
        assert!(matches!(checked(&[&damaged, &sum]), Err(SaveError::WrongSum)));
    }
}
