//! The targets, by what they read. Files stand on the simulated disk, members live in simulated time, connections are in
//! memory.

mod apply;
mod files;
mod member;
mod peers;
mod ports;
mod settings;
mod text;
mod tools;
mod world;

use crate::{Shape, Target};

/// Every target.
pub static TARGETS: &[Target] = &[
    text::NUMBERS,
    text::DURATIONS,
    text::QUOTED,
    text::CSV,
    text::VERSIONS,
    settings::COMMAND_LINE,
    settings::CONFIG_FILE,
    settings::VALUES,
    settings::URLS,
    settings::SIGNED_TOKENS,
    settings::DNS_ANSWERS,
    settings::RESOLV_CONF,
    settings::PROXIES,
    settings::DISCOVERY,
    settings::CERTIFICATES,
    tools::TXN_LINES,
    tools::CTL_WORDS,
    tools::SNAPSHOT_FILE,
    tools::STORED_RECORD,
    tools::DATABASE_PAGES,
    tools::SHOWN_RECORDS,
    tools::MEMBER_DIRECTORY,
    tools::TOOL_FLAGS,
    tools::METRICS,
    peers::RAFT_TYPES,
    peers::MESSAGE_STREAM,
    peers::APPEND_STREAM,
    peers::SNAPSHOT_HEAD,
    peers::ENDPOINT_BODIES,
    peers::REQUESTS,
    peers::ANSWERS,
    files::LOG,
    files::LOG_NAMES,
    files::SNAP,
    files::PAGE_STORE,
    apply::ENTRIES,
    apply::CONF_CHANGES,
    apply::V2_ENTRIES,
    apply::RECORDS,
    ports::GRPC_MESSAGES,
    ports::GRPC_FIELDS,
    ports::GATEWAY_JSON,
    ports::PROC_FILES,
    ports::DEBUG_PAGES,
    ports::GRPC_CONNECTION,
    member::REQUESTS,
    member::WATCHES,
    member::STEPS,
    member::BOOT,
];

/// For `..EMPTY` in the table's rows.
const EMPTY: Target =
    Target { name: "", covers: &[], shape: Shape::Bytes, corpus: Vec::new, mend: None, run: |_| true };

/// Texts as inputs.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every refusal says why.
fn named<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(e) => {
            assert!(!e.to_string().trim().is_empty(), "an error without a text");
            None
        }
    }
}
