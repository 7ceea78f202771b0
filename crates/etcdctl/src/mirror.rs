//! `make-mirror`: copies keys to another cluster, then their changes as they come.
//!
//! First the keys as they are at one revision, a put each; then a watch from behind that revision, a transaction for each
//! revision of the source, in parts where it is larger than the destination takes. Leases are not copied. It never ends
//! by itself: its end is a failure.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::output::write_out;
use crate::prompt;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{Event, event::EventType};
use bytes::Bytes;
use client::{Client, Error, Watch};
use cobra::{Call, Exit, Flag, Kind, Parsed};
use pb::request_op::Request;
use std::cell::Cell;
use std::time::Duration;

/// Flags of `make-mirror`.
pub static FLAGS: &[Flag] = &[
    Flag::new("prefix", Kind::Text, "", "copy the keys that begin so (default: all)"),
    Flag::new("rev", Kind::Int, "0", "copy the changes from this revision on, and not what is there (default: all)"),
    Flag::new("max-txn-ops", Kind::Uint, "128", "most changes in one transaction at the destination"),
    Flag::new(
        "dest-prefix",
        Kind::Text,
        "",
        "put this in the prefix's place (default: the prefix; with --rev: nothing)",
    ),
    Flag::switch("no-dest-prefix", "take the prefix away"),
    Flag::new("dest-cert", Kind::Text, "", "file of the client's TLS certificate, for the destination"),
    Flag::new("dest-key", Kind::Text, "", "file of the client's TLS key, for the destination"),
    Flag::new("dest-cacert", Kind::Text, "", "file of the authorities that sign the destination's certificates"),
    Flag::new("dest-insecure-transport", Kind::Bool, "true", "speak plain text where nothing asks for TLS"),
    Flag::new("dest-user", Kind::Text, "", "name[:password] at the destination; a missing password is asked for"),
    Flag::new("dest-password", Kind::Text, "", "password at the destination; --dest-user is then the name alone"),
];

/// How often the number of copied changes is printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// `make-mirror DESTINATION`.
pub fn make_mirror(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("make-mirror takes one destination argument"));
    }
    let user = destination_user(&call.given)?;
    let ctl = Ctl::open(call)?;
    let destination = ctl.client_of_other(&call.given, "dest-", call.arg(0), user)?;
    let start = call.given.int("rev").saturating_sub(1).max(0);
    let names = Names::from_flags(&call.given, start)?;
    let ops_max = match call.given.uint("max-txn-ops") {
        0 => usize::MAX,
        n => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let copied = Cell::new(0);
    let mirror = Mirror { source: &ctl.client, destination: &destination, names, ops_max, copied: &copied };
    ctl.block_on(async {
        tokio::select! {
            outcome = mirror.run(start) => outcome,
            () = report(&copied) => Ok(()),
        }
    })
}

fn destination_user(given: &Parsed) -> Result<Option<(String, String)>, Exit> {
    let (user, password) = (given.text("dest-user"), given.text("dest-password"));
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((name, password)) => (name, password.to_owned()),
        None => (user, prompt::password("Destination Password: ")?),
    };
    // As in Go's client, no password is no user.
    Ok(Some((name.to_owned(), password)).filter(|(_, password)| !password.is_empty()))
}

/// Prints from time to time how much was copied.
async fn report(copied: &Cell<u64>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        write_out(format!("{}\n", copied.get()).as_bytes());
    }
}

/// Which keys are copied, and what they are called at the destination.
struct Names {
    prefix: Bytes,
    renamed: Bytes,
}

impl Names {
    fn from_flags(given: &Parsed, start: i64) -> Result<Names, Exit> {
        let text = |name: &str| Bytes::copy_from_slice(given.text(name).as_bytes());
        let (prefix, renamed) = (text("prefix"), text("dest-prefix"));
        let takes_away = given.is_true("no-dest-prefix");
        if takes_away && !renamed.is_empty() {
            let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
            return Err(Exit::arguments(text));
        }
        // Go takes the prefix away, too, where it begins at a revision; scripts may count on it.
        let keeps = renamed.is_empty() && !takes_away && start == 0;
        Ok(Names { renamed: if keeps { prefix.clone() } else { renamed }, prefix })
    }

    fn rename(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&*self.prefix).unwrap_or(key);
        [&self.renamed, rest].concat().into()
    }

    /// The change of an event, to be made at the destination.
    fn change(&self, event: &Event) -> pb::RequestOp {
        let kv = event.kv.clone().unwrap_or_default();
        let key = self.rename(&kv.key);
        let request = match event.r#type() {
            EventType::Put => Request::RequestPut(pb::PutRequest { key, value: kv.value, ..Default::default() }),
            EventType::Delete => Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }),
        };
        pb::RequestOp { request: Some(request) }
    }

    /// A transaction for each revision, in parts of at most so many changes.
    fn transactions(&self, events: &[Event], ops_max: usize) -> Vec<pb::TxnRequest> {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let parts = events.chunk_by(|a, b| revision(a) == revision(b)).flat_map(|of_one| of_one.chunks(ops_max));
        let transaction = |part: &[Event]| pb::TxnRequest {
            success: part.iter().map(|event| self.change(event)).collect(),
            ..Default::default()
        };
        parts.map(transaction).collect()
    }
}

/// A copy under way.
struct Mirror<'a> {
    source: &'a Client,
    destination: &'a Client,
    names: Names,
    ops_max: usize,
    /// Changes at the destination so far.
    copied: &'a Cell<u64>,
}

impl Mirror<'_> {
    /// Copies until something fails. `start`: the revision to follow; 0: copy what is there first.
    async fn run(&self, start: i64) -> Result<(), Exit> {
        let prefix = self.names.prefix.clone();
        let changes = match start {
            0 => self.copy_all(self.source.mirror(prefix)).await.map_err(failed)?,
            start => self.source.mirror_from(prefix, start).changes(),
        };
        self.follow(changes).await
    }

    /// Copies the keys as they are now. Answers what changes behind them.
    async fn copy_all(&self, mut all: client::Mirror) -> Result<Watch, Error> {
        while let Some(page) = all.next_page().await? {
            for kv in page.kvs {
                let key = self.names.rename(&kv.key);
                self.destination.put(pb::PutRequest { key, value: kv.value, ..Default::default() }).await?;
                self.copied.update(|n| n + 1);
            }
        }
        Ok(all.changes())
    }

    /// Makes the changes as they come.
    async fn follow(&self, mut watch: Watch) -> Result<(), Exit> {
        while let Some(response) = watch.next().await.map_err(failed)? {
            if response.compact_revision != 0 {
                return Err(Exit::error(api::Error::Compacted.message()));
            }
            if response.canceled && !response.cancel_reason.is_empty() {
                return Err(Exit::error(response.cancel_reason));
            }
            for transaction in self.names.transactions(&response.events, self.ops_max) {
                let changes = transaction.success.len() as u64;
                self.destination.txn(transaction).await.map_err(failed)?;
                self.copied.update(|n| n + changes);
            }
        }
        // Go's word for a watch that ended without a reason.
        Err(Exit::error("<nil>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::mvccpb::KeyValue;

    fn names(prefix: &'static str, renamed: &'static str) -> Names {
        Names { prefix: prefix.into(), renamed: renamed.into() }
    }

    #[test]
    fn keys_are_renamed_at_their_beginning_only() {
        for (prefix, renamed, key, named) in
            [("a/", "b/", "a/a/1", "b/a/1"), ("a/", "", "a/1", "1"), ("", "b/", "1", "b/1"), ("a/", "a/", "a/1", "a/1")]
        {
            assert_eq!(names(prefix, renamed).rename(key.as_bytes()), named);
        }
    }

    #[test]
    fn a_revision_is_a_transaction_unless_it_is_too_large() {
        let event = |key: &'static str, mod_revision| Event {
            kv: Some(KeyValue { key: key.into(), mod_revision, ..Default::default() }),
            ..Default::default()
        };
        let events = [event("a", 2), event("b", 3), event("c", 3), event("d", 3), event("e", 4)];
        let sizes = |ops_max| -> Vec<usize> {
            names("", "").transactions(&events, ops_max).iter().map(|txn| txn.success.len()).collect()
        };
        assert_eq!(sizes(2), [1, 2, 1, 1]);
        assert_eq!(sizes(usize::MAX), [1, 3, 1]);
        assert_eq!(names("", "").transactions(&[], 2), []);
    }
}
