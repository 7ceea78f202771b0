//! The manual page, from the table of commands.

use crate::PROGRAM;
use cobra::manual::{Page, manual};

const PAGE: Page = Page {
    about: "asks and changes an etcd cluster",
    description: &[
        "Reads and writes keys, watches them, holds leases, locks and elections, and looks after members, snapshots, alarms, \
         users and roles of a running cluster. Files of members that are stopped are etcdutl's business.",
        "Endpoints are tried one after the other. Options go before or behind the command; a value that begins with a hyphen \
         needs -- before it.",
    ],
    environment: &[
        (
            "ETCDCTL_*",
            "Each option has a variable: ETCDCTL_ and its name in capitals, with _ for -, such as ETCDCTL_ENDPOINTS. An option \
             on the command line wins.",
        ),
        ("ETCDCTL_API", "Chose the API once. 3 is all there is."),
    ],
    exit: &[
        ("0", "Done."),
        ("1", "The cluster refused, or could not be reached in time; or the command line is no good."),
        ("2", "No client could be made: no endpoints, a login that failed."),
        ("3", "Bad input: lines of txn and watch, keys in the way of a check."),
        ("4", "An output format or an order that is not there."),
        ("5", "The server ended a watch, or a snapshot could not be saved."),
        ("128", "Wrong arguments."),
    ],
    see_also: &["etcd", "etcdutl"],
};

/// `etcdctl.1`.
pub fn page() -> String {
    manual(&PROGRAM, env!("CARGO_PKG_VERSION"), &PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man/etcdctl.1");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page(), "docs/man/etcdctl.1 is stale: run `cargo run -p xtask -- docs`");
        for words in ["get [options] <key> [range_end]", "lease grant <ttl>", "member add", "user passwd"] {
            assert!(kept.contains(&format!(".SS etcdctl {words}")), "{words}");
        }
    }
}
