//! `lease grant | revoke | timetolive | list | keep-alive`.

use crate::globals::Ctl;
use crate::output::{Answer, Format};
use api::pb::etcdserverpb as pb;
use client::Error;
use cobra::{Call, Exit, Flag};

/// Flags of `lease timetolive`.
pub static TIME_TO_LIVE_FLAGS: &[Flag] = &[Flag::switch("keys", "list the keys that are attached to the lease")];
/// Flags of `lease keep-alive`.
pub static KEEP_ALIVE_FLAGS: &[Flag] = &[Flag::switch("once", "renew the lease once and end")];

fn lease_id(word: &str) -> Result<i64, Exit> {
    go::parse_int(word, 16).map_err(|e| Exit::arguments(format!("bad lease ID arg ({e}), expecting ID in Hex")))
}

/// Errors of these commands have a code of their own.
fn failed(e: Error) -> Exit {
    Exit::with(2, e.to_string())
}

/// `lease grant TTL`.
pub fn grant(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("lease grant command needs TTL argument"));
    }
    let ttl = go::parse_int(&call.arg(0), 10).map_err(|e| Exit::arguments(format!("bad TTL ({e})")))?;
    let ctl = Ctl::open(call)?;
    let response = ctl
        .block_on(ctl.timed().lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }))
        .map_err(|e| Exit::error(format!("failed to grant lease ({e})")))?;
    ctl.display.show(Answer::Grant(&response))
}

/// `lease revoke ID`.
pub fn revoke(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("lease revoke command needs 1 argument"));
    }
    let id = lease_id(&call.arg(0))?;
    let ctl = Ctl::open(call)?;
    let response = ctl
        .block_on(ctl.timed().lease_revoke(pb::LeaseRevokeRequest { id }))
        .map_err(|e| Exit::error(format!("failed to revoke lease ({e})")))?;
    ctl.display.show(Answer::Revoke(id, &response))
}

/// `lease timetolive ID`.
pub fn time_to_live(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("lease timetolive command needs lease ID as argument"));
    }
    let id = lease_id(&call.arg(0))?;
    let keys = call.given.is_true("keys");
    let ctl = Ctl::open(call)?;
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let response = ctl.block_on(ctl.client.lease_time_to_live(request)).map_err(failed)?;
    ctl.display.show(Answer::TimeToLive(&response, keys))
}

/// `lease list`.
pub fn list(call: &mut Call) -> Result<(), Exit> {
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.client.lease_leases(pb::LeaseLeasesRequest {})).map_err(failed)?;
    ctl.display.show(Answer::Leases(&response))
}

/// `lease keep-alive ID`.
pub fn keep_alive(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("lease keep-alive command needs lease ID as argument"));
    }
    let id = lease_id(&call.arg(0))?;
    let once = call.given.is_true("once");
    let ctl = Ctl::open(call)?;
    if once {
        let response = ctl.block_on(ctl.client.keep_alive_once(id)).map_err(failed)?;
        if response.ttl <= 0 {
            return Err(Exit::with(2, api::Error::LeaseNotFound.message()));
        }
        return ctl.display.show(Answer::KeepAlive(&response));
    }
    let mut renewals = ctl.client.keep_alive(id);
    while let Some(response) = ctl.block_on(renewals.next()).map_err(failed)? {
        ctl.display.show(Answer::KeepAlive(&response))?;
    }
    if ctl.display.format == Format::Simple {
        println!("lease {id:016x} expired or revoked.");
    }
    Ok(())
}
