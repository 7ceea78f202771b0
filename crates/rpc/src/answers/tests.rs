//! Golden bytes out.

use super::*;
use api::pb::grpc_health_v1::HealthCheckResponse;
use http_body::Body as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Four bytes on the wire.
const MESSAGE: HealthCheckResponse = HealthCheckResponse { status: 300 };
const GOLDEN: &[u8] = b"\0\0\0\0\x03\x08\xac\x02";

fn terms(gzip: bool, end: End) -> Terms {
    Terms { gzip, end, open: mpsc::channel(1).0, counted: None }
}

fn never() -> End {
    End::new(None, None, None)
}

/// Data and trailers, in order.
async fn all(mut body: Body) -> Vec<Result<Bytes, HeaderMap>> {
    let mut all = Vec::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        all.push(frame.into_data().map_err(|frame| frame.into_trailers().unwrap()));
    }
    assert!(body.is_end_stream());
    all
}

fn told(trailers: &HeaderMap) -> (&str, Option<&str>) {
    let text = |name| trailers.get(name).map(|v: &HeaderValue| v.to_str().unwrap());
    (text("grpc-status").unwrap(), text("grpc-message"))
}

#[tokio::test]
async fn a_message_is_one_frame_and_then_it_went_well() {
    let body = Body::Message(Some(frame(&MESSAGE, false).unwrap()));
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().exact(), None, "no content-length");
    let all = all(body).await;
    assert_eq!(all[0].as_ref().unwrap(), GOLDEN);
    assert_eq!(told(all[1].as_ref().unwrap_err()), ("0", None));
    assert_eq!(all.len(), 2);
}

#[test]
fn compressed_messages_carry_the_flag_and_their_packed_length() {
    let bytes = frame(&MESSAGE, true).unwrap();
    let (prefix, packed) = bytes.split_at(PREFIX);
    assert_eq!(prefix[0], 1);
    assert_eq!(prefix[1..], u32::try_from(packed.len()).unwrap().to_be_bytes());
    assert_eq!(crate::gzip::inflate(packed, 100).unwrap(), GOLDEN[PREFIX..]);
    assert_eq!(frame(&HealthCheckResponse::default(), true).unwrap(), [0; PREFIX][..], "nothing is not compressed");
}

#[test]
fn heads_and_refusals_have_grpcs_fields() {
    let content_type = HeaderValue::from_static("application/grpc+proto");
    let response = answered(content_type.clone(), true, Body::Empty);
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    assert_eq!(response.headers()["grpc-encoding"], "gzip");
    let response = refused(StatusCode::BAD_REQUEST, content_type, &Status::internal("a, \u{e9}"));
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    assert_eq!(told(response.headers()), ("13", Some("a,%20%C3%A9")));
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn messages_of_a_stream_that_are_there_together_are_sent_together() {
    let (out, messages) = mpsc::channel(8);
    out.send(Ok(MESSAGE)).await.unwrap();
    out.send(Ok(MESSAGE)).await.unwrap();
    drop(out);
    let all = all(Streamed::body(ReceiverStream::new(messages), terms(false, never()))).await;
    assert_eq!(all[0].as_ref().unwrap(), &[GOLDEN, GOLDEN].concat());
    assert_eq!(told(all[1].as_ref().unwrap_err()), ("0", None));
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn an_error_ends_a_stream_after_what_came_before_it() {
    let (out, messages) = mpsc::channel(8);
    for message in [Ok(MESSAGE), Err(Status::not_found("gone")), Ok(MESSAGE)] {
        out.send(message).await.unwrap();
    }
    let all = all(Streamed::body(ReceiverStream::new(messages), terms(false, never()))).await;
    assert_eq!(all[0].as_ref().unwrap(), GOLDEN);
    assert_eq!(told(all[1].as_ref().unwrap_err()), ("5", Some("gone")));
    assert_eq!(all.len(), 2);
    assert!(out.is_closed(), "nothing more is taken");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_to_end_sends_what_is_there_first() {
    let (out, messages) = mpsc::channel(8);
    out.send(Ok(MESSAGE)).await.unwrap();
    let end = End::new(Some(std::time::Duration::from_secs(1)), None, None);
    let all = all(Streamed::body(ReceiverStream::new(messages), terms(true, end))).await;
    assert_eq!(all[0].as_ref().unwrap()[0], 1, "compressed");
    assert_eq!(told(all[1].as_ref().unwrap_err()).0, "4");
    assert!(out.is_closed());
}

#[tokio::test]
async fn a_large_message_is_the_same_in_pieces() {
    let pair =
        |n: u8| api::pb::mvccpb::KeyValue { key: vec![n].into(), value: vec![n; 5000].into(), ..Default::default() };
    let range = api::pb::etcdserverpb::RangeResponse { kvs: (0..200).map(pair).collect(), ..Default::default() };
    let server::Response::LargeRange(encoded) = server::Response::Range(range.clone()).encode_if_large(&|_| ()) else {
        unreachable!("a megabyte is large")
    };
    for gzip in [false, true] {
        let whole = all(Body::of(&range, gzip).unwrap()).await;
        let pieces = all(Body::of_encoded(encoded.clone(), gzip).unwrap()).await;
        let data = |frames: &[Result<Bytes, HeaderMap>]| frames.iter().flatten().flatten().copied().collect::<Vec<_>>();
        assert!(data(&pieces) == data(&whole), "gzip {gzip}");
        assert!(gzip || pieces.len() > 10);
        assert_eq!(told(pieces.last().unwrap().as_ref().unwrap_err()), ("0", None));
    }
}
