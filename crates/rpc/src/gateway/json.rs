//! Protobuf's JSON as Go's gateway has it (reference/http.md section 6): proto field names, 64-bit numbers as texts, bytes in
//! base64, what is unset left out; both spellings, both alphabets and unknown fields on the way in.
//!
//! Works by the messages' descriptors, which are built in: a message that is added to `proto/` needs nothing here.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use std::sync::LazyLock;

/// As `cargo run -p xtask -- protos` writes them.
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(api::pb::DESCRIPTORS).expect("the descriptors are this build's own"));

/// What goes in and out of `/package.Service/Method`; `None` of what is not there.
pub(crate) fn messages_of(path: &str) -> Option<(MessageDescriptor, MessageDescriptor)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = POOL.get_service_by_name(service)?;
    let method = service.methods().find(|known| known.name() == method)?;
    Some((method.input(), method.output()))
}

/// A request's JSON as a gRPC message with its prefix.
///
/// # Errors
/// The parser's text.
pub(crate) fn decode_request(kind: &MessageDescriptor, json: &[u8]) -> Result<Bytes, String> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let lenient = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut parser, &lenient)
        .and_then(|message| parser.end().map(|()| message))
        .map_err(|e| e.to_string())?;
    let length = message.encoded_len();
    let prefix = u32::try_from(length).map_err(|_| format!("a message of {length} bytes"))?;
    let mut out = BytesMut::with_capacity(length + crate::messages::PREFIX);
    out.put_u8(0);
    out.put_u32(prefix);
    // Room was made.
    message.encode_raw(&mut out);
    Ok(out.freeze())
}

/// A message as JSON, added to `out`.
///
/// # Errors
/// The bytes are no such message: ours always are.
pub(crate) fn encode_answer(kind: &MessageDescriptor, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let message = DynamicMessage::decode(kind.clone(), message).map_err(|e| e.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(true)
        .stringify_64_bit_integers(true)
        .use_enum_numbers(false);
    let mut writer = serde_json::Serializer::new(out);
    message.serialize_with_options(&mut writer, &options).map_err(|e| e.to_string())
}

/// The same as Go's encoding/json has it, which writes streams: nothing that a browser could take for markup.
pub(crate) fn escape_html(json: Vec<u8>) -> Vec<u8> {
    let separator =
        |at: usize| json[at..].starts_with("\u{2028}".as_bytes()) || json[at..].starts_with("\u{2029}".as_bytes());
    let marked = |byte: u8| matches!(byte, b'<' | b'>' | b'&');
    if !json.iter().any(|byte| marked(*byte) || *byte == 0xe2) {
        return json;
    }
    let mut out = Vec::with_capacity(json.len() + 16);
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        at += match byte {
            byte if marked(*byte) => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                1
            }
            0xe2 if separator(at) => {
                let last = if json[at + 2] == 0xa8 { b'8' } else { b'9' };
                out.extend_from_slice(b"\\u202");
                out.push(last);
                3
            }
            byte => {
                out.push(*byte);
                1
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::etcdserverpb as pb;

    fn request(path: &str, json: &str) -> Result<Bytes, String> {
        decode_request(&messages_of(path).expect("a method").0, json.as_bytes()).map(|framed| framed.slice(5..))
    }

    fn range(json: &str) -> pb::RangeRequest {
        let bytes = request("/etcdserverpb.KV/Range", json).unwrap_or_else(|e| panic!("{json}: {e}"));
        pb::RangeRequest::decode(bytes).expect("it was just encoded")
    }

    #[test]
    fn requests_are_read_in_every_spelling() {
        let expected = pb::RangeRequest {
            key: vec![0xfb, 0xff].into(),
            range_end: "a".into(),
            limit: 3,
            sort_order: 2,
            keys_only: true,
            ..Default::default()
        };
        for json in [
            r#"{"key":"+/8=","range_end":"YQ==","limit":"3","sort_order":"DESCEND","keys_only":true}"#,
            r#"{"key":"-_8","rangeEnd":"YQ","limit":3,"sortOrder":2,"keysOnly":true,"unknown":[{"x":null}]}"#,
            r#" {"key":"+/8","range_end":"YQ","limit":3e0,"sort_order":2,"keys_only":true,"revision":null} "#,
        ] {
            assert_eq!(range(json), expected, "{json}");
        }
        assert_eq!(range(r#"{"sort_order":"SIDEWAYS"}"#), pb::RangeRequest::default());
        for bad in ["", "[]", "{", r#"{"key":1}"#, r#"{"limit":"x"}"#, r#"{"limit":1.5}"#, r#"{"key":"*"}"#, "{}x"] {
            assert!(request("/etcdserverpb.KV/Range", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_have_etcds_names_texts_for_64_bits_and_nothing_unset() {
        let answer = |path: &str, message: &[u8]| {
            let mut out = Vec::new();
            encode_answer(&messages_of(path).expect("a method").1, message, &mut out).expect("it is one");
            String::from_utf8(out).expect("JSON is text")
        };
        let member = pb::Member {
            id: u64::MAX,
            name: "a<b".into(),
            peer_ur_ls: vec!["http://x".into()],
            client_ur_ls: vec![],
            is_learner: true,
        };
        let list = pb::MemberListResponse { header: Some(pb::ResponseHeader::default()), members: vec![member] };
        let json = answer("/etcdserverpb.Cluster/MemberList", &list.encode_to_vec());
        assert_eq!(
            json,
            r#"{"header":{},"members":[{"ID":"18446744073709551615","name":"a<b","peerURLs":["http://x"],"isLearner":true}]}"#
        );
        assert!(String::from_utf8(escape_html(json.into_bytes())).unwrap().contains(r"a\u003cb"));
        let hash = pb::HashKvResponse { hash: 7, compact_revision: -1, ..Default::default() };
        assert_eq!(
            answer("/etcdserverpb.Maintenance/HashKV", &hash.encode_to_vec()),
            r#"{"hash":7,"compact_revision":"-1"}"#
        );
    }

    #[test]
    fn separators_of_lines_are_escaped_in_streams() {
        let text = "\"\u{2028}\u{2029}\u{2027}&\"".to_owned();
        let escaped = String::from_utf8(escape_html(text.into_bytes())).unwrap();
        assert_eq!(escaped, "\"\\u2028\\u2029\u{2027}\\u0026\"");
    }
}
