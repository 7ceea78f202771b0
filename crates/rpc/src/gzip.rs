//! gzip of single messages, within bounds.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, Read as _, Write as _};
use tonic::Status;

/// As grpc-go's.
const LEVEL: u32 = 6;

/// Makes a message plain that may become `limit` bytes; no more are ever made.
pub(crate) fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, Status> {
    let mut plain = Vec::new();
    let mut unzip = MultiGzDecoder::new(packed);
    let outcome = (&mut unzip).take(limit as u64 + 1).read_to_end(&mut plain);
    match outcome {
        Ok(_) if plain.len() > limit => Err(Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {limit}"
        ))),
        Ok(_) => Ok(plain.into()),
        Err(e) if unzip.header().is_none() => {
            let why = match e.kind() {
                _ if packed.is_empty() => "EOF",
                io::ErrorKind::UnexpectedEof => "unexpected EOF",
                _ => "gzip: invalid header",
            };
            Err(Status::internal(format!("grpc: failed to decompress the message: {why}")))
        }
        Err(e) => Err(Status::internal(format!("grpc: failed to read decompressed data: {e}"))),
    }
}

/// Adds `plain` to `out`, packed.
pub(crate) fn deflate(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut zip = GzEncoder::new(out, Compression::new(LEVEL));
    zip.write_all(plain)?;
    zip.finish().map(drop)
}
