//! Go's text forms, and versions.

use super::{EMPTY, named, texts};
use crate::{Shape, Target};
use api::version::Version;

const DIGITS: &[&str] = &["0x", "0b", "0o", "0", "_", "-", "+", ".", "18446744073709551616", "e", "µ", "é", " ", "t"];

pub const NUMBERS: Target = Target {
    name: "go-numbers",
    covers: &["go/number.rs::parse_bool", "go/number.rs::parse_uint", "go/number.rs::parse_int"],
    shape: Shape::Text(DIGITS),
    corpus: || texts(&["0", "-42", "0x1F", "0b101", "0o17", "1_000", "9223372036854775807", "-9223372036854775808"]),
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let mut understood = named(go::parse_bool(&text)).is_some();
        for base in [0, 10, 16] {
            if let Some(n) = named(go::parse_int(&text, base)) {
                understood = true;
                let again = if base == 16 { radix_16(n) } else { n.to_string() };
                assert_eq!(go::parse_int(&again, base), Ok(n));
            }
            for bits in [8, 32, 64] {
                if let Some(n) = named(go::parse_uint(&text, base, bits)) {
                    assert!(bits == 64 || n < 1 << bits, "{n} has more than {bits} bits");
                }
            }
        }
        understood
    },
    ..EMPTY
};

fn radix_16(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{:x}", n.unsigned_abs())
}

pub const DURATIONS: Target = Target {
    name: "go-durations",
    covers: &["go/duration.rs::parse_duration"],
    shape: Shape::Text(&["h", "m", "s", "ms", "us", "µs", "μs", "ns", ".", "-", "+", "0", "9999999999999999999"]),
    corpus: || texts(&["0", "1h2m3.5s", "-1.5h", "100ms", "9223372036854775807ns", ".5s", "3µs"]),
    run: |input| {
        let Some(ns) = named(go::parse_duration(&String::from_utf8_lossy(input))) else { return false };
        assert_eq!(go::parse_duration(&go::format_nanoseconds(ns)), Ok(ns), "{}", go::format_nanoseconds(ns));
        true
    },
    ..EMPTY
};

pub const QUOTED: Target = Target {
    name: "go-quoted",
    covers: &["go/text.rs::unquote", "go/text.rs::number"],
    shape: Shape::Text(&["\\x", "\\u", "\\U", "\\", "\"", "`", "'", "\\777", "\\ud800", "\\U00110000", "\n", "é"]),
    corpus: || texts(&[r#""a\n\x01\u00e9\U0001F600\101\"""#, "`raw\\`", r#""""#, r#""\a\b\f\r\t\v\\""#]),
    run: |input| {
        // Whatever is quoted is read back, be it text or bytes.
        assert_eq!(go::unquote(go::quote(input).as_bytes()).as_deref(), Some(input));
        let Some(bytes) = go::unquote(input) else { return false };
        assert!(bytes.len() <= 2 * input.len(), "a text grows by no more than its escapes");
        true
    },
    ..EMPTY
};

pub const CSV: Target = Target {
    name: "go-csv",
    covers: &["go/text.rs::split_csv"],
    shape: Shape::Text(&["\"", "\"\"", ",", "\n", "\r\n", "\r", " ", "é"]),
    corpus: || texts(&["a,b", "\"a,b\",c", "\"a\"\"b\"", "http://a:1,http://b:2", "a,,b"]),
    run: |input| {
        let Some(parts) = named(go::split_csv(&String::from_utf8_lossy(input))) else { return false };
        // Carriage returns before line ends are dropped, as in Go.
        if parts.is_empty() || parts.iter().any(|part| part.contains('\r')) {
            return true;
        }
        let quoted: Vec<_> = parts.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
        assert_eq!(go::split_csv(&quoted.join(",")).as_ref(), Ok(&parts));
        true
    },
    ..EMPTY
};

pub const VERSIONS: Target = Target {
    name: "versions",
    covers: &["api/version.rs::parse"],
    shape: Shape::Text(&[".", "-", "+", "0", "18446744073709551616", "rc", " ", "v"]),
    corpus: || texts(&["3.7.1", "3.8.0-alpha.0", "0.0.0", "3.5.0+build"]),
    run: |input| {
        let Some(version) = Version::parse(&String::from_utf8_lossy(input)) else { return false };
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        true
    },
    ..EMPTY
};
