//! systemd is told that the program serves (`sd_notify`).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to the socket that `NOTIFY_SOCKET` names; without one there is nobody to tell.
///
/// # Errors
/// The socket is not there, or takes nothing.
pub fn ready() -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) {
        Some(socket) => notify(&socket),
        None => Ok(()),
    }
}

/// `@name` is a socket without a file, in the kernel's abstract names.
fn notify(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

/// The same for the proxies, with the lines that Go's log there.
pub fn notify_init() {
    tracing::info!("notifying init daemon");
    match ready() {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(e) => tracing::error!(error = %go::os_text(&e), "failed to notify systemd for readiness"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_notified_by_files_and_by_abstract_names() {
        let name = format!("oxetcd-notify-{}", std::process::id());
        let file = std::env::temp_dir().join(&name);
        for (address, variable) in [
            (SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}").into()),
            (SocketAddr::from_pathname(&file).unwrap(), file.clone().into_os_string()),
        ] {
            let systemd = UnixDatagram::bind_addr(&address).unwrap();
            notify(&variable).unwrap();
            let mut told = [0; 16];
            let len = systemd.recv(&mut told).unwrap();
            assert_eq!(&told[..len], b"READY=1", "{variable:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(notify(file.as_os_str()).is_err());
    }
}
