//! Generated protobuf messages, one module a package. Regenerate with `cargo run -p xtask -- protos`.
#![allow(clippy::all, clippy::pedantic)]

macro_rules! packages {
    ($($module:ident = $file:literal),+ $(,)?) => {$(
        #[allow(missing_docs)]
        pub mod $module {
            include!(concat!("pb/", $file, ".rs"));
        }
    )+};
}

packages! {
    authpb = "authpb",
    etcdserverpb = "etcdserverpb",
    grpc_health_v1 = "grpc.health.v1",
    leasepb = "leasepb",
    membershippb = "membershippb",
    mvccpb = "mvccpb",
    raftpb = "raftpb",
    snappb = "snappb",
    v3electionpb = "v3electionpb",
    v3lockpb = "v3lockpb",
    walpb = "walpb",
}

/// All of `proto/` as an encoded `FileDescriptorSet`: what reads and writes messages without knowing their types works by it.
pub const DESCRIPTORS: &[u8] = include_bytes!("pb/descriptors.bin");
