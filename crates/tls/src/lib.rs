//! TLS as etcd speaks it: to clients, between members, and from its clients (etcd `client/pkg/transport`).
//!
//! ```text
//! Settings (flags) ─► material (files: chain, key, CA, CRL) ─► Live ─┬─► Server: handshake ─► stream and who is there
//!                         ▲ looked at again for every handshake      └─► Client: handshake ─► stream
//! ```
//! | module | what it knows |
//! |---|---|
//! | `settings` | which files and rules; etcd's texts for what contradicts itself |
//! | `material` · `live` | the files' contents, as one set that is swapped when they change |
//! | `x509` · `path` | what a certificate says; chains that webpki refuses and Go takes |
//! | `verify` | who is let in: chain, then allow lists and revocations |
//! | `server` · `client` · `paced` | handshakes, and how many steps of them a thread does at a time |
//! | `address` | whether a member's certificate is for the address that it comes from |
//! | `self_made` | `--auto-tls` |
//! | `words` | failures as Go tells them: scripts match on them |
//!
//! Invariants: a set of files counts as a whole or not at all; connections that stand are never touched; nobody resumes a
//! session, so that every connection was judged by the newest rules.

mod address;
mod client;
mod live;
mod material;
mod paced;
mod path;
mod self_made;
mod server;
mod settings;
mod verify;
mod words;
mod x509;

pub use address::{NamesOf, check_address};
pub use client::{Client, ClientStream, Failed, Reason};
pub use live::{Expiry, Live};
pub use material::first_of as shown_by;
pub use paced::Pace;
pub use self_made::{SelfMade, self_made};
pub use server::{Rejected, Server, ServerStream, names_shown};
pub use settings::{Settings, Version};
pub use tokio_rustls::rustls::pki_types::ServerName;
pub use words::{alert, time, told};
pub use x509::{Names, Shown};

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use super::x509::decoders::*;
}
