//! How long connections between members wait, and where they come from.

use crate::node::{Node, PATIENCE};
use rpc::peer::{Connector, Dial, Timeouts, Transport, Url};
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

/// A connection whose other end stays: it says nothing, or it asks and takes no answer. Tells when it is given up.
struct Stuck {
    said: &'static [u8],
    takes: bool,
    _given_up: Sender<()>,
}

impl AsyncRead for Stuck {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            return Poll::Pending;
        }
        into.put_slice(std::mem::take(&mut self.said));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes { Poll::Ready(Ok(bytes.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.takes { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn serve(transport: &Transport, said: &'static [u8]) -> Receiver<()> {
    let (given_up, gone) = channel();
    transport.serve(Box::new(Stuck { said, takes: said.is_empty(), _given_up: given_up }));
    gone
}

/// One waits for an hour where the other is given up: each setting counts, for what it is for.
#[test]
fn connections_of_peers_wait_as_long_as_the_settings_say() {
    let request = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    for (said, patient, impatient) in [
        (&b""[..], Timeouts { read: HOUR, write: SHORT }, Timeouts { read: SHORT, write: HOUR }),
        (request, Timeouts { read: HOUR, write: HOUR }, Timeouts { read: HOUR, write: SHORT }),
    ] {
        let [patient, impatient] = [patient, impatient].map(|timeouts| Node::waiting(1, timeouts));
        let stays = serve(&patient.transport, said);
        let goes = serve(&impatient.transport, said);
        let told = goes.recv_timeout(PATIENCE);
        assert_eq!(told, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "it is given up");
        assert_eq!(stays.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty), "it is waited for");
    }
}

#[tokio::test]
async fn connections_to_peers_come_from_the_address_that_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    for from in [None, Some(IpAddr::from([127, 0, 0, 9]))] {
        let live = tls::Live::open(tls::Settings::default()).unwrap();
        let dial = Dial::new(live, from);
        let _connection = dial.connect(&url).await.unwrap();
        let (_, remote) = listener.accept().unwrap();
        assert_eq!(remote.ip(), from.unwrap_or([127, 0, 0, 1].into()));
    }
    let live = tls::Live::open(tls::Settings::default()).unwrap();
    let refused = Dial::new(live, Some(IpAddr::from([192, 0, 2, 1]))).connect(&url).await;
    assert!(refused.is_err(), "it is not an address of this host");
}
