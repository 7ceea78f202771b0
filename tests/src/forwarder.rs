//! A way to a server that can be cut and opened again: connections end, and new ones end at once.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes connections on to one address.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    ended: bool,
    /// Both sides of every connection so far.
    streams: Vec<TcpStream>,
}

fn with<T>(state: &Mutex<State>, change: impl FnOnce(&mut State) -> T) -> T {
    change(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Forwarder {
    /// Listens on a free port. `to`: `host:port`.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start(to: &str) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, to) = (state.clone(), to.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if with(&shared, |state| state.ended) {
                    return;
                }
                // Whoever can't be passed on sees his connection end.
                drop(stream.and_then(|stream| pass_on(stream, &to, &shared)));
            }
        });
        Forwarder { address, state }
    }

    /// Where clients go.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections, and new ones as they come.
    pub fn cut(&self) {
        with(&self.state, |state| {
            state.cut = true;
            for stream in state.streams.drain(..) {
                // It may have ended by itself.
                drop(stream.shutdown(Shutdown::Both));
            }
        });
    }

    /// Passes new connections on again.
    pub fn open(&self) {
        with(&self.state, |state| state.cut = false);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cut();
        with(&self.state, |state| state.ended = true);
        // The listener wakes up, and ends.
        drop(TcpStream::connect(self.address));
    }
}

fn pass_on(client: TcpStream, to: &str, state: &Mutex<State>) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let both = [client.try_clone()?, server.try_clone()?];
    let is_cut = with(state, |state| {
        state.streams.extend(if state.cut { None } else { Some(both) }.into_iter().flatten());
        state.cut
    });
    if !is_cut {
        for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            std::thread::spawn(move || {
                // The end of one direction is the end of both: no client here half-closes.
                drop(io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
                drop(from.shutdown(Shutdown::Both));
            });
        }
    }
    Ok(())
}
