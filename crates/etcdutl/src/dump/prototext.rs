//! Protobuf messages as text, as Go prints them: `a:1 b:<c:"x" > ` by gogo, which etcd's log dumps look like, and
//! `a:1 b:{c:"x"}` by the library that followed.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use std::sync::OnceLock;

/// The type of this name among etcd's own.
///
/// # Panics
/// If there is none: names are this crate's own.
pub fn descriptor(name: &str) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool =
        POOL.get_or_init(|| DescriptorPool::decode(api::pb::DESCRIPTORS).expect("our own descriptors are whole"));
    pool.get_message_by_name(name).expect("our own descriptors have all of etcd's messages")
}

/// Gogo's form: fields in the order of their declaration, a blank behind each.
pub fn old(message: &DynamicMessage) -> String {
    let mut fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    fields.sort_by_key(|field| field.path().to_vec());
    let mut text = String::new();
    for field in fields.iter().filter(|field| message.has_field(field)) {
        match message.get_field(field).as_ref() {
            Value::List(items) => items.iter().for_each(|item| text += &old_field(field, item)),
            item => text += &old_field(field, item),
        }
    }
    text
}

fn old_field(field: &FieldDescriptor, value: &Value) -> String {
    match value {
        Value::Message(inner) => format!("{}:<{}> ", field.name(), old(inner)),
        value => format!("{}:{} ", field.name(), scalar(field, value)),
    }
}

fn scalar(field: &FieldDescriptor, value: &Value) -> String {
    match (value, field.kind()) {
        (Value::String(text), _) => octal(text.as_bytes()),
        (Value::Bytes(bytes), _) => octal(bytes),
        (Value::EnumNumber(n), Kind::Enum(kind)) => {
            kind.get_value(*n).map_or_else(|| n.to_string(), |value| value.name().to_owned())
        }
        (Value::Bool(value), _) => value.to_string(),
        (Value::I32(n) | Value::EnumNumber(n), _) => n.to_string(),
        (Value::I64(n), _) => n.to_string(),
        (Value::U32(n), _) => n.to_string(),
        (Value::U64(n), _) => n.to_string(),
        (Value::F32(x), _) => x.to_string(),
        (Value::F64(x), _) => x.to_string(),
        (Value::Message(_) | Value::List(_) | Value::Map(_), _) => String::new(),
    }
}

/// In double quotes; what is no printable ASCII as three octal digits.
pub fn octal(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'\n' => text += "\\n",
            b'\r' => text += "\\r",
            b'\t' => text += "\\t",
            b'"' => text += "\\\"",
            b'\\' => text += "\\\\",
            b' '..=b'~' => text.push(*byte as char),
            byte => text += &format!("\\{byte:03o}"),
        }
    }
    text + "\""
}

/// In double quotes, as the newer library writes texts and bytes: UTF-8 as it is, controls and other bytes in hex.
pub fn hexed(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text += "\\n",
                '\r' => text += "\\r",
                '\t' => text += "\\t",
                '"' => text += "\\\"",
                '\\' => text += "\\\\",
                c if (c as u32) < 0x20 || c as u32 == 0x7f => text += &format!("\\x{:02x}", c as u32),
                c if (0x80..0xa0).contains(&(c as u32)) => text += &format!("\\u{:04x}", c as u32),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
    }
    text + "\""
}
