//! What a server speaks, asked once, for whoever explains a connection that was closed without a word.

use crate::config::Address;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// HTTP/2's preface and empty settings: what any client of gRPC begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What an endpoint's server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2 in plain text.
    Plain,
    /// HTTP/1.1 in plain text, and no HTTP/2.
    Http1,
    Tls,
    /// It took the connection, and said nothing that we know.
    Unknown,
}

/// Asks an endpoint what its server speaks: first in plain text, then with TLS. No certificate is judged, none is shown.
///
/// # Errors
/// There is no connection, or not in this time.
pub async fn speaks(endpoint: &str, time: Duration) -> io::Result<Speaks> {
    let asking = async {
        let address = Address::parse(endpoint);
        match first_bytes(&address).await? {
            [_, _, _, 4, ..] => return Ok(Speaks::Plain),
            [b'H', b'T', b'T', b'P', ..] => return Ok(Speaks::Http1),
            [0x15 | 0x16, 3, ..] => return Ok(Speaks::Tls),
            _ => {}
        }
        Ok(if shakes_hands(&address).await? { Speaks::Tls } else { Speaks::Unknown })
    };
    tokio::time::timeout(time, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What comes for a preface; zeros where less came.
async fn first_bytes(address: &Address) -> io::Result<[u8; 5]> {
    let mut stream = connect(address).await?;
    let mut bytes = [0; 5];
    // A server that closes at once says nothing: zeros.
    if stream.write_all(PREFACE).await.is_ok() {
        let mut filled = 0;
        while let Ok(read @ 1..) = stream.read(&mut bytes[filled..]).await {
            filled += read;
        }
    }
    Ok(bytes)
}

/// Whether anything of TLS comes for a client's hello.
async fn shakes_hands(address: &Address) -> io::Result<bool> {
    let settings = tls::Settings { skip_verify: true, ..tls::Settings::default() };
    let client =
        tls::Live::open(settings).and_then(|live| tls::Client::new(live, &["h2"])).map_err(io::Error::other)?;
    let stream = connect(address).await?;
    Ok(match client.shake(address.server_name(), stream).await {
        Ok(_) => true,
        Err(failed) => matches!(failed.reason, tls::Reason::Alert(_)) || failed.shown.is_some(),
    })
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn connect(address: &Address) -> io::Result<Box<dyn Io>> {
    Ok(match address {
        Address::Tcp(host) => Box::new(TcpStream::connect(Address::dialled(host).as_ref()).await?),
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}
