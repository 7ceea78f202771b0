//! `lease-keepalive`.

use super::{Done, Session};
use crate::flags::{Flag, Kind, Parsed, flag};
use crate::workloads::lease::KeepAlive;

pub const FLAGS: &[Flag] = &[flag("total", Kind::Int, "10000", "Total number of lease keepalive requests")];

/// `lease-keepalive`
pub fn run(parsed: &Parsed) -> Done {
    let session = Session::start(parsed)?;
    let pace = session.pace(0, 1)?;
    let outcome = session.run(parsed.count("total"), pace, KeepAlive)?;
    session.perfdash("lease-keepalive", &outcome.lanes[0])?;
    print!("{}", session.report(&outcome.lanes[0], outcome.elapsed));
    Ok(())
}
