//! The process's one registry, and what the environment says about it.

use crate::http;
use crate::names::POINTS;
use crate::registry::{Registry, split_settings};
use crate::term::Value;
use std::net::TcpListener;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Settings at start: `name=term;name=term`.
const SETTINGS: &str = "GOFAIL_FAILPOINTS";
/// Where the control server listens, `host:port`.
const LISTEN: &str = "GOFAIL_HTTP";

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(&POINTS, seed()));

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().into()
}

/// What [`crate::point!`] calls.
pub fn hit(name: &str) -> Option<Value> {
    REGISTRY.hit(name)
}

/// Sets what `GOFAIL_FAILPOINTS` says and serves HTTP where `GOFAIL_HTTP` says. A name that does not exist is passed
/// over and a bad term only printed, as gofail does. With port 0 the address is printed to standard error.
///
/// # Errors
/// The settings can't be split, or the address can't be had: gofail ends the process with code 1 then.
pub fn start() -> Result<(), String> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    if let Some(text) = variable(SETTINGS) {
        let settings = split_settings(&text).map_err(|e| format!("fail to parse failpoint: {e}"))?;
        for (name, term) in settings {
            // What is wrong with a term was printed.
            let _refused = REGISTRY.enable(name, term);
        }
    }
    match variable(LISTEN) {
        Some(address) => listen(&address).map_err(|e| format!("listen tcp {address}: {e}")),
        None => Ok(()),
    }
}

fn listen(address: &str) -> std::io::Result<()> {
    // Go takes ":port" as every interface.
    let listener = match address.strip_prefix(':') {
        Some(port) => {
            TcpListener::bind(format!("[::]:{port}")).or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")))
        }
        None => TcpListener::bind(address),
    }?;
    if address.ends_with(":0") {
        eprintln!("failpoint: listening on {}", listener.local_addr()?);
    }
    let registry: &'static Registry = &REGISTRY;
    std::thread::Builder::new().name("failpoint-http".into()).spawn(move || http::serve(&listener, registry))?;
    Ok(())
}
