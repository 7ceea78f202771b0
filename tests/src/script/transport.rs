//! Below gRPC: content types, encodings, deadlines, HTTP/1.1.

use crate::ask;
use crate::http;
use crate::record::Side;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const TE: (&str, &str) = ("te", "trailers");

/// All of it.
pub async fn talk(side: &mut Side) {
    let get = frame(0, &ask::get("a").encode_to_vec());
    let long = "9".repeat(9);
    for headers in [
        vec![GRPC, TE],
        vec![GRPC],
        vec![("content-type", "application/grpc+proto"), TE],
        vec![("content-type", "application/grpc+json"), TE],
        vec![("content-type", "application/grpc;x"), TE],
        vec![("content-type", "text/plain"), TE],
        vec![("content-type", "application/json"), TE],
        vec![GRPC, TE, ("grpc-encoding", "identity")],
        vec![GRPC, TE, ("grpc-encoding", "gzip")],
        vec![GRPC, TE, ("grpc-encoding", "snappy")],
        vec![GRPC, TE, ("grpc-accept-encoding", "gzip")],
        vec![GRPC, TE, ("grpc-timeout", "5S")],
        vec![GRPC, TE, ("grpc-timeout", "x")],
        vec![GRPC, TE, ("grpc-timeout", "5Q")],
        vec![GRPC, TE, ("grpc-timeout", &long)],
    ] {
        post(side, ask::RANGE, &headers, get.clone()).await;
    }
    post(side, ask::RANGE, &[GRPC, TE], frame(1, &ask::get("a").encode_to_vec())).await;
    post(side, ask::RANGE, &[GRPC, TE], Bytes::new()).await;
    post(side, ask::RANGE, &[GRPC, TE], get.slice(..3)).await;
    post(side, ask::RANGE, &[GRPC, TE, ("client-api-version", "3.6")], get.clone()).await;
    for path in ["/version", "/nothing", "/v2/keys"] {
        let (status, body) = http::get(&side.address, path);
        side.write(format!("GET {path}"), format!("{status}\n{body}"), &[]);
    }
}

fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("a short message"));
    frame.extend_from_slice(message);
    frame.freeze()
}

async fn post(side: &mut Side, path: &str, headers: &[(&str, &str)], body: Bytes) {
    let answer = http::post(&side.address, path, headers, body.clone()).await;
    side.write(format!("POST {path} {headers:?} {} bytes", body.len()), format!("{answer:#?}"), &[]);
}
