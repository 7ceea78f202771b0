//! Preloaded states, each made once: the runs that need one start on copies of it.
//!
//! Go etcd takes minutes to write half a million revisions, and a row needs them ten times over. A seed is what a server
//! leaves when it is ended after the load; it goes when the comparison is over.

use super::rows::State;
use super::server::{Place, Running, Side};
use std::io;
use std::time::Instant;

/// The data of one server in one state.
#[derive(Debug)]
struct Seed {
    side: Side,
    state: State,
    /// Ended.
    server: Running,
}

/// All seeds there are.
#[derive(Debug, Default)]
pub struct Seeds(Vec<Seed>);

impl Seeds {
    /// A server of `side` on a copy of `state`; the first time `load` brings a new one there.
    pub fn start(
        &mut self,
        side: &Side,
        state: State,
        place: &Place,
        load: impl FnOnce(&Running) -> io::Result<()>,
    ) -> io::Result<Running> {
        let known = self.0.iter().position(|seed| seed.state == state && seed.side == *side);
        let number = match known {
            Some(number) => number,
            None => {
                self.0.push(Seed::make(side, state, place, load)?);
                self.0.len() - 1
            }
        };
        self.0[number].server.copied()
    }
}

impl Seed {
    fn make(
        side: &Side,
        state: State,
        place: &Place,
        load: impl FnOnce(&Running) -> io::Result<()>,
    ) -> io::Result<Seed> {
        let State { keys, history } = state;
        let since = Instant::now();
        let mut server = Running::start(side, place, &format!("seed-{}-{keys}-{history}", side.name))?;
        load(&server)?;
        server.rest()?;
        eprintln!(
            "seed of {}, {keys} keys, {history} revisions more: {:.1} s",
            side.name,
            since.elapsed().as_secs_f64()
        );
        Ok(Seed { side: side.clone(), state, server })
    }
}
