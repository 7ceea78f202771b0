//! `lease-keepalive`.

use super::{Done, Session};
use crate::given::Given;
use crate::workloads::lease::KeepAlive;
use cobra::{Flag, Kind};

pub const FLAGS: &[Flag] = &[Flag::new("total", Kind::Int, "10000", "Total number of lease keepalive requests")];

/// `lease-keepalive`
pub fn run(parsed: &Given) -> Done {
    let session = Session::start(parsed)?;
    let pace = session.pace(0, 1)?;
    let outcome = session.run(parsed.count("total"), pace, KeepAlive)?;
    session.perfdash("lease-keepalive", &outcome.lanes[0])?;
    print!("{}", session.report(&outcome.lanes[0], outcome.elapsed));
    Ok(())
}
